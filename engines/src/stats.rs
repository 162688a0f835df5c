//! How long things take: one histogram a stage, cheap enough to record every frame.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Longest time that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// Times of one stage, to two significant digits.
pub struct Stage(Mutex<Histogram<u32>>);

/// Microseconds; zeros before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub count: u64,
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
}

impl Default for Stage {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(LONGEST_US, 2);
        Self(Mutex::new(histogram.unwrap_or_else(|_| unreachable!("the bounds are ones that it allows"))))
    }
}

impl Stage {
    pub fn record(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US).clamp(1, LONGEST_US);
        self.0.lock().saturating_record(us);
    }

    /// Runs `work` and records how long it took.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.record(start.elapsed());
        result
    }

    pub fn percentiles(&self) -> Percentiles {
        let h = self.0.lock();
        if h.is_empty() {
            return Percentiles::default();
        }
        let at = |q| h.value_at_quantile(q);
        Percentiles { count: h.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }

    pub fn reset(&self) {
        self.0.lock().reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_times() {
        let stage = Stage::default();
        assert_eq!(stage.percentiles(), Percentiles::default());
        (1..=100).for_each(|ms| stage.record(Duration::from_millis(ms)));
        let p = stage.percentiles();
        let near = |got: u64, want: u64| got.abs_diff(want) * 100 <= want * 2;
        assert!(p.count == 100 && near(p.p50, 50_000) && near(p.p95, 95_000) && near(p.p99, 99_000), "{p:?}");
    }
}
