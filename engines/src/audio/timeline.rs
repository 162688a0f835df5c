use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Which features a video frame needs, relative to its own time.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSpec {
    /// Time from one feature to the next.
    pub hop: Duration,
    /// Audio after a feature's own time that it was made from.
    pub overhang: Duration,
    /// Where features are taken, in nanoseconds from the frame's time, ascending.
    pub taps: Vec<i64>,
    /// Audio after the frame's time that may be used.
    pub look_ahead: Duration,
    /// Numbers in one feature.
    pub dims: usize,
    /// What stands for a feature that does not exist: the encoder's own for silence, `[dims]`.
    pub silence: Arc<[f32]>,
    pub pick: Pick,
    pub tail: Tail,
}

/// What a tap between two features is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// The two, mixed by their distance.
    #[default]
    Between,
    /// The one before, as networks do that were trained on whole columns.
    Before,
}

/// What a window has whose last features there will never be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// Silence in their place.
    #[default]
    Silence,
    /// The last whole window in the place of all of it, as Wav2Lip's program does.
    LastWindow,
    /// The last feature in the place of each, and the first in the place of those before it, as LatentSync's program does.
    Ends,
    /// Silence from the last feature's end on, and up to the first feature's time, without slack, as MuseTalk's program has zeros.
    Cut,
}

/// Timestamps are rounded by less than this, in ns.
const ROUNDING: i64 = 1_000;

impl WindowSpec {
    /// Latest feature time that a frame at time 0 may use.
    pub fn reach(&self) -> Duration {
        self.look_ahead.saturating_sub(self.overhang)
    }

    /// Numbers in one window.
    pub fn len(&self) -> usize {
        self.taps.len() * self.dims
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The features of the recent past by their running time, bounded; the oldest are dropped first.
///
/// A window is chosen by time, not by counting frames, and features are interpolated linearly between hops: any frame
/// rate and any phase between audio and video gives the same motion.
pub struct Timeline {
    spec: WindowSpec,
    features: VecDeque<(i64, Box<[f32]>)>,
    capacity: usize,
    ended: bool,
}

impl Timeline {
    /// Keeps at most `capacity` features.
    pub fn new(spec: WindowSpec, capacity: usize) -> Self {
        Self { features: VecDeque::new(), capacity: capacity.max(2), ended: false, spec }
    }

    pub fn spec(&self) -> &WindowSpec {
        &self.spec
    }

    /// Windows are others of the same features from now on; of other features nothing is kept.
    pub fn set_spec(&mut self, spec: WindowSpec) {
        if (spec.dims, spec.hop) != (self.spec.dims, self.spec.hop) {
            self.clear();
        }
        self.spec = spec;
    }

    /// Features kept at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds the feature of the hop that starts at `time` (ns of running time). A feature that is not later than the
    /// newest one is a jump back: everything before it goes. One of another size is ignored.
    pub fn push(&mut self, time: u64, feature: &[f32]) {
        let time = time as i64;
        if feature.len() != self.spec.dims {
            return;
        }
        self.ended = false;
        if self.features.back().is_some_and(|(newest, _)| *newest >= time) {
            self.features.clear();
        }
        if self.features.len() == self.capacity {
            self.features.pop_front();
        }
        self.features.push_back((time, feature.into()));
    }

    /// What has come so far was silence.
    pub fn hush(&mut self) {
        self.features.iter_mut().for_each(|(_, feature)| *feature = Box::from(&*self.spec.silence));
    }

    /// No more features will come: what is missing is silence from now on.
    pub fn end(&mut self) {
        self.ended = true;
    }

    pub fn clear(&mut self) {
        self.features.clear();
        self.ended = false;
    }

    /// Time of the newest feature in ns.
    pub fn newest(&self) -> Option<u64> {
        self.features.back().map(|(t, _)| *t as u64)
    }

    /// Whether everything that a frame at `time` (ns) may use has arrived.
    pub fn ready(&self, time: u64) -> bool {
        let limit = time as i64 + self.spec.reach().as_nanos() as i64;
        self.ended || self.features.back().is_some_and(|(t, _)| t + self.spec.hop.as_nanos() as i64 > limit)
    }

    /// The window of a frame at `time` (ns), `[taps * dims]`, from what is there: features that have not arrived
    /// count as the newest one that has, and those that never will as silence.
    pub fn window(&self, time: u64) -> Vec<f32> {
        let mut time = time as i64;
        if let (true, Tail::LastWindow, Some((newest, _))) = (self.ended, self.spec.tail, self.features.back()) {
            time = time.min(newest - self.spec.taps.last().copied().unwrap_or(0));
        }
        let limit = time + self.spec.reach().as_nanos() as i64;
        let mut window = Vec::with_capacity(self.spec.len());
        for tap in &self.spec.taps {
            self.interpolate(time + tap, limit, &mut window);
        }
        window
    }

    fn interpolate(&self, at: i64, limit: i64, out: &mut Vec<f32>) {
        let hop = self.spec.hop.as_nanos() as i64;
        let at = if self.spec.pick == Pick::Before { at + ROUNDING } else { at };
        let after = self.features.partition_point(|(t, _)| *t <= at);
        let before = after.checked_sub(1).and_then(|i| self.features.get(i));
        let after = self.features.get(after).filter(|(t, _)| *t <= limit);
        // Half a hop of slack: timestamps are rounded, a hop that is missing is not.
        let near = |t: i64| (t - at).abs() < hop + hop / 2;
        if self.spec.tail == Tail::Cut {
            let within = before.filter(|(t, _)| at - t < hop);
            out.extend_from_slice(within.map_or(&*self.spec.silence, |(_, feature)| feature));
            return;
        }
        let waits = !self.ended && self.features.back().is_some_and(|(t, _)| *t <= at);
        match (before, after) {
            (Some((t0, a)), _) if self.spec.pick == Pick::Before && near(*t0) => out.extend_from_slice(a),
            (Some((t0, a)), Some((t1, b))) if near(*t0) && near(*t1) => {
                let w = (at - t0) as f32 / (t1 - t0) as f32;
                out.extend(a.iter().zip(b).map(|(a, b)| a + (b - a) * w));
            }
            (Some((t0, a)), _) if near(*t0) || waits => out.extend_from_slice(a),
            (_, Some((t1, b))) if near(*t1) => out.extend_from_slice(b),
            (Some((_, a)), None) if self.ended && self.spec.tail == Tail::Ends => out.extend_from_slice(a),
            (None, Some((_, b))) if self.spec.tail == Tail::Ends => out.extend_from_slice(b),
            _ => out.extend_from_slice(&self.spec.silence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn spec() -> WindowSpec {
        WindowSpec {
            hop: Duration::from_millis(20),
            overhang: Duration::from_millis(35),
            taps: vec![-20 * MS as i64, 0, 40 * MS as i64],
            look_ahead: Duration::from_millis(80),
            dims: 1,
            silence: vec![-1.0].into(),
            pick: Pick::Between,
            tail: Tail::Silence,
        }
    }

    /// Features whose value is their time in ms.
    fn ramp(hops: u64) -> Timeline {
        let mut timeline = Timeline::new(spec(), 100);
        (0..hops).for_each(|j| timeline.push(20 * j * MS, &[20.0 * j as f32]));
        timeline
    }

    #[test]
    fn a_window_follows_the_time_of_the_frame() {
        let timeline = ramp(50);
        assert_eq!(timeline.window(200 * MS), [180.0, 200.0, 240.0]);
        // Between two hops, as with 30 fps; the hop at 260 lies beyond 213 + 45 and is not looked at.
        assert_eq!(timeline.window(213 * MS), [193.0, 213.0, 240.0]);
    }

    #[test]
    fn whole_features_are_those_before_the_tap() {
        let mut timeline = Timeline::new(WindowSpec { pick: Pick::Before, ..spec() }, 100);
        (0..50).for_each(|j| timeline.push(20 * j * MS, &[20.0 * j as f32]));
        assert_eq!(timeline.window(213 * MS), [180.0, 200.0, 240.0]);
        // A timestamp that was rounded down is that of its own feature.
        assert_eq!(timeline.window(200 * MS - 1), [180.0, 200.0, 240.0]);
    }

    #[test]
    fn the_last_whole_window_stands_for_those_that_the_sound_is_too_short_for() {
        let spec = WindowSpec { pick: Pick::Before, tail: Tail::LastWindow, ..spec() };
        let mut timeline = Timeline::new(spec, 100);
        (0..11).for_each(|j| timeline.push(20 * j * MS, &[20.0 * j as f32]));
        // More may come.
        assert_eq!(timeline.window(173 * MS), [140.0, 160.0, 200.0]);
        timeline.end();
        for time in [160, 173, 180, 4000] {
            assert_eq!(timeline.window(time * MS), [140.0, 160.0, 200.0], "{time}");
        }
        assert_eq!(timeline.window(150 * MS), [120.0, 140.0, 180.0]);
    }

    #[test]
    fn the_ends_of_the_sound_are_repeated() {
        let mut timeline = Timeline::new(WindowSpec { pick: Pick::Before, tail: Tail::Ends, ..spec() }, 100);
        (1..11).for_each(|j| timeline.push(20 * j * MS, &[20.0 * j as f32]));
        timeline.end();
        assert_eq!(timeline.window(0), [20.0, 20.0, 40.0]);
        assert_eq!(timeline.window(180 * MS), [160.0, 180.0, 200.0]);
        assert_eq!(timeline.window(400 * MS), [200.0; 3]);
    }

    #[test]
    fn nothing_of_the_ends_is_repeated_where_they_are_cut() {
        let mut timeline = Timeline::new(WindowSpec { pick: Pick::Before, tail: Tail::Cut, ..spec() }, 100);
        (1..11).for_each(|j| timeline.push(20 * j * MS, &[20.0 * j as f32]));
        timeline.end();
        assert_eq!(timeline.window(20 * MS), [-1.0, 20.0, 60.0]);
        // A timestamp that was rounded down is that of its own feature.
        assert_eq!(timeline.window(40 * MS - 1), [20.0, 40.0, 80.0]);
        assert_eq!(timeline.window(200 * MS), [180.0, 200.0, -1.0]);
        assert_eq!(timeline.window(220 * MS), [200.0, -1.0, -1.0]);
    }

    #[test]
    fn a_frame_is_ready_when_its_look_ahead_has_arrived_and_not_before() {
        let mut timeline = ramp(11);
        // Newest hop 200: the next, 220, may still be used by frames from 175 on.
        assert!(timeline.ready(174 * MS) && !timeline.ready(175 * MS));
        timeline.end();
        assert!(timeline.ready(10_000 * MS));
    }

    #[test]
    fn what_never_comes_is_silence_and_what_is_late_is_held() {
        let mut timeline = ramp(11);
        assert_eq!(timeline.window(190 * MS), [170.0, 190.0, 200.0]);
        assert_eq!(timeline.window(400 * MS), [200.0; 3]);
        timeline.end();
        assert_eq!(timeline.window(400 * MS), [-1.0; 3]);
        assert_eq!(ramp(11).window(0), [0.0, 0.0, 40.0]);
    }

    #[test]
    fn hushed_features_are_silence_and_later_ones_are_heard() {
        let mut timeline = ramp(10);
        timeline.hush();
        timeline.push(200 * MS, &[200.0]);
        assert_eq!(timeline.window(180 * MS), [-1.0, -1.0, 200.0]);
    }

    #[test]
    fn a_hole_in_the_features_is_silence() {
        let mut timeline = ramp(5);
        timeline.push(400 * MS, &[400.0]);
        timeline.push(420 * MS, &[420.0]);
        assert_eq!(timeline.window(240 * MS), [-1.0; 3]);
        assert_eq!(timeline.window(400 * MS)[1], 400.0);
    }

    #[test]
    fn the_oldest_go_first_and_a_jump_back_starts_anew() {
        let mut timeline = Timeline::new(spec(), 3);
        (0..10).for_each(|j| timeline.push(20 * j * MS, &[20.0 * j as f32]));
        assert_eq!(timeline.window(100 * MS)[0], -1.0);
        timeline.push(20 * MS, &[7.0]);
        assert_eq!((timeline.newest(), timeline.window(20 * MS)[1]), (Some(20 * MS), 7.0));
    }
}
