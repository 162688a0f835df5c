//! How long things take: one histogram a stage, cheap enough to record every frame.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Longest time that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// Upper bounds of the buckets of [`Totals`] in microseconds; one more bucket has none.
pub const BUCKETS_US: [u64; 10] = [250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000];

/// Times of one stage: percentiles to two significant digits, and fixed buckets that add up over elements.
pub struct Timer(Mutex<Times>);

struct Times {
    histogram: Histogram<u32>,
    sum: Duration,
    /// Not cumulative.
    buckets: [u64; BUCKETS_US.len() + 1],
}

/// Microseconds; zeros before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub count: u64,
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
}

/// What only grows, as a monitoring system wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub count: u64,
    pub sum_us: u64,
    /// Times up to each of [`BUCKETS_US`], those of smaller bounds included, and all.
    pub buckets: [u64; BUCKETS_US.len() + 1],
}

impl Default for Timer {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(LONGEST_US, 2);
        Self(Mutex::new(Times {
            histogram: histogram.unwrap_or_else(|_| unreachable!("the bounds are ones that it allows")),
            sum: Duration::ZERO,
            buckets: Default::default(),
        }))
    }
}

impl Timer {
    pub fn record(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US).clamp(1, LONGEST_US);
        let bucket = BUCKETS_US.partition_point(|bound| u128::from(*bound) * 1000 < time.as_nanos());
        let mut times = self.0.lock();
        times.histogram.saturating_record(us);
        times.sum = times.sum.saturating_add(time);
        times.buckets[bucket] += 1;
    }

    /// Runs `work` and records how long it took.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.record(start.elapsed());
        result
    }

    pub fn percentiles(&self) -> Percentiles {
        let h = &self.0.lock().histogram;
        if h.is_empty() {
            return Percentiles::default();
        }
        let at = |q| h.value_at_quantile(q);
        Percentiles { count: h.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }

    pub fn totals(&self) -> Totals {
        let times = self.0.lock();
        let mut count = 0;
        let buckets = times.buckets.map(|n| {
            count += n;
            count
        });
        Totals { count, sum_us: times.sum.as_micros() as u64, buckets }
    }

    pub fn reset(&self) {
        let mut times = self.0.lock();
        times.histogram.reset();
        times.sum = Duration::ZERO;
        times.buckets = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_bounds_and_add_up() {
        let stage = Timer::default();
        for us in [100, 250, 251, 1_000, 39_999, 40_000, 200_000] {
            stage.record(Duration::from_micros(us));
        }
        let t = stage.totals();
        assert_eq!((t.count, t.sum_us), (7, 281_600));
        assert_eq!(t.buckets, [2, 3, 4, 4, 4, 4, 4, 6, 6, 6, 7]);
        stage.reset();
        assert_eq!(stage.totals(), Totals::default());
    }

    #[test]
    fn percentiles_of_known_times() {
        let stage = Timer::default();
        assert_eq!(stage.percentiles(), Percentiles::default());
        (1..=100).for_each(|ms| stage.record(Duration::from_millis(ms)));
        let p = stage.percentiles();
        let near = |got: u64, want: u64| got.abs_diff(want) * 100 <= want * 2;
        assert!(p.count == 100 && near(p.p50, 50_000) && near(p.p95, 95_000) && near(p.p99, 99_000), "{p:?}");
    }
}
