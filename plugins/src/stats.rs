//! What an element counts and how long its stages take, read through its property `stats`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gst::{glib, prelude::*};
use lipstream_engines::stats::Timer;

/// Counters of one element; `N` named stages.
pub struct Stats<const N: usize> {
    pub frames_in: AtomicU64,
    pub frames_out: AtomicU64,
    /// Frames that left as they came.
    pub passed_through: AtomicU64,
    pub dropped: AtomicU64,
    /// Frames that could not wait for their result.
    pub late: AtomicU64,
    stages: [(&'static str, Timer); N],
}

impl<const N: usize> Stats<N> {
    pub fn new(stages: [&'static str; N]) -> Self {
        Self {
            frames_in: AtomicU64::new(0),
            frames_out: AtomicU64::new(0),
            passed_through: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            late: AtomicU64::new(0),
            stages: stages.map(|name| (name, Timer::default())),
        }
    }

    /// The stage of that name, one of those that the element was made with.
    pub fn stage(&self, name: &str) -> &Timer {
        self.stages.iter().find(|(n, _)| *n == name).map(|(_, s)| s).expect("a stage that the element has")
    }

    pub fn reset(&self) {
        for counter in [&self.frames_in, &self.frames_out, &self.passed_through, &self.dropped, &self.late] {
            counter.store(0, Relaxed);
        }
        self.stages.iter().for_each(|(_, s)| s.reset());
    }

    /// `frames-in`, `frames-out`, `passed-through`, `dropped`, `late`, and for each stage `<stage>-p50`, `-p95`, `-p99` and
    /// `-sum` in microseconds and `-count`, all guint64; `<stage>-buckets` is a GstArray of guint64, the counts of times up
    /// to each of [`BUCKETS_US`](lipstream_engines::stats::BUCKETS_US) and of all.
    pub fn structure(&self, name: &str) -> gst::Structure {
        let mut s = gst::Structure::builder(name)
            .field("frames-in", self.frames_in.load(Relaxed))
            .field("frames-out", self.frames_out.load(Relaxed))
            .field("passed-through", self.passed_through.load(Relaxed))
            .field("dropped", self.dropped.load(Relaxed))
            .field("late", self.late.load(Relaxed))
            .build();
        for (stage, times) in &self.stages {
            let p = times.percentiles();
            let t = times.totals();
            let numbers = [("p50", p.p50), ("p95", p.p95), ("p99", p.p99), ("count", t.count), ("sum", t.sum_us)];
            for (suffix, value) in numbers {
                s.set(format!("{stage}-{suffix}"), value);
            }
            s.set(format!("{stage}-buckets"), gst::Array::new(t.buckets));
        }
        s
    }
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// The property itself.
pub fn property(blurb: &'static str) -> glib::ParamSpec {
    glib::ParamSpecBoxed::builder::<gst::Structure>("stats").nick("Statistics").blurb(blurb).read_only().build()
}
