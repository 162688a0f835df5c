//! Maps the timestamps of a live source to clock time.
//!
//! The delay of a piece of media is its arrival minus its timestamp. It has a constant part (the two clocks' origins, the
//! network), a part that jitters, and one that drifts when the source's clock is faster or slower than ours. The map adds
//! one offset to all timestamps of a source, sound and pictures alike, so that their relation is never touched. The offset
//! follows the largest delay of the last seconds: whatever arrives is there when its turn comes. It follows at a bounded
//! speed, which the resampler of the sound can hide; that is also how a clock that runs fast or slow is followed.

use std::collections::VecDeque;

use super::clock::{MS, Nanos, SECOND};

/// Beyond the largest delay: the time for a block of sound to be cut into stretches, and for us to wake up.
const MARGIN: Nanos = 15 * MS;
/// Margin of a source that has just begun, whose jitter is not known yet.
const FIRST_MARGIN: Nanos = 60 * MS;
/// Most that is waited for a straggler, beyond the least delay; what is later than that is lost.
const MAX_JITTER: Nanos = 400 * MS;
/// The delays of so many seconds are looked at.
const WINDOW: usize = 8;
/// A source of which everything is late for this long has jumped: its map starts anew.
const LATE: Nanos = SECOND;
/// A timestamp that maps this far ahead is a jump too.
const AHEAD: Nanos = 1500 * MS;
/// Speed of the offset, in parts of one: up when media would be late, down to shed latency that is no longer needed.
const UP: f64 = 0.005;
const DOWN: f64 = 0.003;
/// Latency is shed only when there is this much too much of it, so that jitter does not move the offset.
const SLACK: Nanos = 4 * MS;
/// Least time over which a skew is stated.
const SKEW_SPAN: Nanos = 10 * SECOND;
const SKEW_POINTS: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Clock time at which it is to be played.
    At(Nanos),
    /// The same, after a jump: what was there before does not join on.
    Jump(Nanos),
}

impl Mapped {
    pub fn time(self) -> Nanos {
        match self {
            Self::At(time) | Self::Jump(time) => time,
        }
    }
}

#[derive(Clone, Copy)]
struct Second {
    start: Nanos,
    least: Nanos,
    most: Nanos,
}

/// See the module.
#[derive(Default)]
pub struct TimeMap {
    offset: Option<f64>,
    moved: Nanos,
    began: Nanos,
    seconds: VecDeque<Second>,
    late_since: Option<Nanos>,
    /// Times and least delays of past seconds, for the skew.
    trend: VecDeque<(Nanos, Nanos)>,
}

impl TimeMap {
    /// Forgets the source; the next timestamp begins a new one.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Something with timestamp `at` and length `length` has arrived at `now`, complete.
    pub fn arrive(&mut self, at: Nanos, length: Nanos, now: Nanos) -> Mapped {
        // A block can be played from its start once all of it is there, but its start is what the map is about.
        let delay = now - at;
        let Some(offset) = self.offset else {
            return self.anchor(at, delay, now);
        };
        let ahead = at + offset as Nanos - now;
        if ahead + length > AHEAD {
            return self.anchor(at, delay, now);
        }
        if ahead >= 0 {
            self.late_since = None;
        } else if now - *self.late_since.get_or_insert(now) > LATE {
            return self.anchor(at, delay, now);
        }
        self.note(delay, now);
        self.follow(now);
        Mapped::At(at + self.offset.unwrap_or(offset).round() as Nanos)
    }

    /// How fast the source's clock runs against ours, in parts per million; 0 until it is known.
    pub fn skew(&self) -> f64 {
        let (Some(first), Some(last)) = (self.trend.front(), self.trend.back()) else { return 0.0 };
        if last.0 - first.0 < SKEW_SPAN {
            return 0.0;
        }
        // Least squares over the seconds: single ones jitter.
        let n = self.trend.len() as f64;
        let points = || self.trend.iter().map(|(t, d)| ((t - first.0) as f64, (d - first.1) as f64));
        let (sum_t, sum_d) = points().fold((0.0, 0.0), |(a, b), (t, d)| (a + t, b + d));
        let (mean_t, mean_d) = (sum_t / n, sum_d / n);
        let (cross, square) =
            points().fold((0.0, 0.0), |(c, s), (t, d)| (c + (t - mean_t) * (d - mean_d), s + (t - mean_t).powi(2)));
        // A fast source's timestamps grow faster than our time, so its delays shrink.
        -cross / square * 1e6
    }

    /// From a timestamp's arrival to its turn, at most and now; what the map adds to the latency.
    pub fn headroom(&self) -> Nanos {
        match (self.offset, self.seconds.iter().map(|s| s.least).min()) {
            (Some(offset), Some(least)) => (offset as Nanos - least).max(0),
            _ => 0,
        }
    }

    fn anchor(&mut self, at: Nanos, delay: Nanos, now: Nanos) -> Mapped {
        let first = self.offset.is_none();
        self.restart();
        let offset = delay + FIRST_MARGIN;
        self.offset = Some(offset as f64);
        (self.moved, self.began) = (now, now);
        self.note(delay, now);
        if first { Mapped::At(at + offset) } else { Mapped::Jump(at + offset) }
    }

    fn note(&mut self, delay: Nanos, now: Nanos) {
        match self.seconds.back_mut() {
            Some(last) if now - last.start < SECOND => {
                last.least = last.least.min(delay);
                last.most = last.most.max(delay);
            }
            _ => {
                if let Some(last) = self.seconds.back() {
                    self.trend.push_back((last.start, last.least));
                    if self.trend.len() > SKEW_POINTS {
                        self.trend.pop_front();
                    }
                }
                self.seconds.push_back(Second { start: now, least: delay, most: delay });
                if self.seconds.len() > WINDOW {
                    self.seconds.pop_front();
                }
            }
        }
    }

    fn follow(&mut self, now: Nanos) {
        let Some(offset) = self.offset else { return };
        let passed = (now - self.moved).max(0) as f64;
        self.moved = now;
        let least = self.seconds.iter().map(|s| s.least).min().unwrap_or(0);
        let most = self.seconds.iter().map(|s| s.most).max().unwrap_or(0);
        let wanted = (most + MARGIN).min(least + MAX_JITTER) as f64;
        let error = wanted - offset;
        // A source's first seconds keep their margin: its worst delay has not been seen.
        let young = now - self.began < WINDOW as Nanos * SECOND;
        let step = if error > 0.0 {
            error.min(UP * passed)
        } else if young || error > -(SLACK as f64) {
            0.0
        } else {
            error.max(-DOWN * passed)
        };
        self.offset = Some(offset + step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `seconds` of a 25 fps source whose clock runs at `speed`, with delays by `jitter`; what comes out.
    fn play(
        map: &mut TimeMap,
        from: Nanos,
        seconds: i64,
        speed: f64,
        jitter: impl Fn(i64) -> Nanos,
    ) -> Vec<(Nanos, Nanos)> {
        (0..seconds * 25)
            .map(|n| {
                let sent = from + n * 40 * MS;
                let at = 7 * SECOND + (sent as f64 * speed) as Nanos;
                let now = sent + 5 * MS + jitter(n);
                (now, map.arrive(at, 0, now).time())
            })
            .collect()
    }

    #[test]
    fn nothing_is_late_once_the_jitter_is_known_and_intervals_are_kept() {
        let mut map = TimeMap::default();
        let out = play(&mut map, 0, 30, 1.0, |n| (n * 7 % 5) * 20 * MS);
        assert!(out[250..].iter().all(|(now, at)| at > now), "late");
        for pair in out[500..].windows(2) {
            assert!(((pair[1].1 - pair[0].1) - 40 * MS).abs() < MS / 2);
        }
        assert!(out.iter().skip(500).map(|(now, at)| at - now).max().unwrap() < 140 * MS, "latency grows");
    }

    #[test]
    fn a_clock_that_runs_fast_or_slow_is_followed() {
        for speed in [1.001, 0.999] {
            let mut map = TimeMap::default();
            let out = play(&mut map, 0, 120, speed, |n| (n % 3) * 3 * MS);
            for (now, at) in &out[1000..] {
                assert!((0..90 * MS).contains(&(at - now)), "{speed}: {} ms ahead", (at - now) / MS);
            }
            assert!((map.skew() - (speed - 1.0) * 1e6).abs() < 100.0, "{}", map.skew());
        }
    }

    #[test]
    fn a_burst_after_a_stall_is_late_and_does_not_add_latency_for_good() {
        let mut map = TimeMap::default();
        play(&mut map, 0, 10, 1.0, |_| 0);
        let before = map.headroom();
        // Three seconds held back by the network, delivered at once, then as before.
        for n in 0..75 {
            let at = 7 * SECOND + 10 * SECOND + n * 40 * MS;
            map.arrive(at, 0, 13 * SECOND);
        }
        let out = play(&mut map, 13 * SECOND, 30, 1.0, |_| 0);
        assert!(out[0].1 >= out[0].0, "live again at once");
        assert!(map.headroom() <= before + 30 * MS, "{} ms", map.headroom() / MS);
    }

    #[test]
    fn a_source_whose_time_jumps_begins_anew() {
        let mut map = TimeMap::default();
        play(&mut map, 0, 5, 1.0, |_| 0);
        let forward = map.arrive(1000 * SECOND, 0, 5 * SECOND);
        assert_eq!(forward, Mapped::Jump(5 * SECOND + FIRST_MARGIN));
        // Back in time: late for a while, then taken as it is.
        let times: Vec<Mapped> = (0..40).map(|n| map.arrive(n * 40 * MS, 0, 6 * SECOND + n * 40 * MS)).collect();
        assert!(times.iter().any(|m| matches!(m, Mapped::Jump(_))));
        assert!(times[39].time() > 6 * SECOND + 39 * 40 * MS);
    }

    #[test]
    fn hostile_timestamps_do_not_overflow() {
        let mut map = TimeMap::default();
        let far = crate::session::clock::nanos(std::time::Duration::MAX);
        for (n, at) in [0, far, 0, far, far - 1, 3].into_iter().enumerate() {
            map.arrive(at, SECOND, n as Nanos * SECOND);
        }
        assert!(map.skew().is_finite());
    }
}
