//! What leaves a graph, measured: frame rate, latency, and how evenly frames come.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;

use super::clock::{Nanos, SECOND};

/// Frames whose intervals are remembered, for the percentile: 20 s at 25 fps.
const INTERVALS: usize = 500;

#[derive(Default)]
struct State {
    frames: u64,
    /// Clock time of the frame that was shown last, and when it left.
    last: Option<(Nanos, Nanos)>,
    recent: VecDeque<Nanos>,
    intervals: VecDeque<Nanos>,
    latency: f64,
    faces: usize,
}

/// See the module.
#[derive(Default)]
pub struct FrameMeter {
    state: Mutex<State>,
}

impl FrameMeter {
    /// The frame of clock time `at` leaves the lip-sync at `now`; so many `faces` are tracked in it.
    pub fn shown(&self, at: Nanos, now: Nanos, faces: usize) {
        let mut state = self.state.lock();
        state.faces = faces;
        state.frames += 1;
        let latency = (now - at) as f64;
        state.latency = if state.frames == 1 { latency } else { state.latency + (latency - state.latency) * 0.05 };
        if let Some((_, last)) = state.last {
            state.intervals.push_back(now - last);
            if state.intervals.len() > INTERVALS {
                state.intervals.pop_front();
            }
        }
        state.last = Some((at, now));
        state.recent.push_back(now);
        while state.recent.front().is_some_and(|then| now - then > SECOND) {
            state.recent.pop_front();
        }
    }

    /// Clock time of the newest frame that has left.
    pub fn last_shown(&self) -> Option<Nanos> {
        self.state.lock().last.map(|(at, _)| at)
    }

    /// How many faces are tracked in the newest frame.
    pub fn faces(&self) -> usize {
        self.state.lock().faces
    }

    pub fn frames(&self) -> u64 {
        self.state.lock().frames
    }

    /// Frames that left in the second before `now`.
    pub fn fps(&self, now: Nanos) -> f64 {
        let state = self.state.lock();
        state.recent.iter().filter(|then| now - **then <= SECOND).count() as f64
    }

    /// From a frame's time to its leaving, smoothed.
    pub fn latency(&self) -> Duration {
        Duration::from_nanos(self.state.lock().latency.max(0.0) as u64)
    }

    /// The 99th percentile of the time between frames that left.
    pub fn interval_p99(&self) -> Duration {
        let mut intervals: Vec<Nanos> = self.state.lock().intervals.iter().copied().collect();
        intervals.sort_unstable();
        let at = intervals.len().saturating_sub(1) * 99 / 100;
        Duration::from_nanos(intervals.get(at).copied().unwrap_or(0).max(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::clock::MS;

    #[test]
    fn rate_latency_and_percentile_are_those_of_what_was_shown() {
        let meter = FrameMeter::default();
        for n in 0..100 {
            let extra = if n == 50 { 80 * MS } else { 0 };
            meter.shown(n * 40 * MS, n * 40 * MS + 110 * MS + extra, 1);
        }
        let now = 99 * 40 * MS + 110 * MS;
        assert_eq!(meter.fps(now), 26.0);
        assert_eq!(meter.frames(), 100);
        assert!((meter.latency().as_millis() as i64 - 110).abs() < 10);
        assert_eq!(meter.interval_p99(), Duration::from_millis(40));
        assert_eq!(meter.fps(now + 10 * SECOND), 0.0, "what has stopped has no rate");
    }
}
