//! What an element counts and how long its work takes, read through its property `stats`.
//!
//! Each element has one type for its statistics, made by [`statistics!`], which is written to the property's structure and
//! read back from it: [`FaceTrackStats`](crate::facetrack::FaceTrackStats), [`AudioEncStats`](crate::audioenc::AudioEncStats),
//! [`DenoiseStats`](crate::denoise::DenoiseStats), [`BlendStats`](crate::blend::BlendStats) and, with all of them,
//! [`LipSyncStats`](crate::sync::LipSyncStats).

mod field;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gst::{glib, prelude::*};
use lipstream_engines::stats::{Percentiles, Timer, Totals};

pub(crate) use self::field::{Field, read, statistics};

/// Counters of one element.
#[derive(Default)]
pub(crate) struct Counters {
    pub frames_in: AtomicU64,
    pub frames_out: AtomicU64,
    pub passed_through: AtomicU64,
    pub dropped: AtomicU64,
    pub late: AtomicU64,
}

impl Counters {
    pub fn reset(&self) {
        for counter in [&self.frames_in, &self.frames_out, &self.passed_through, &self.dropped, &self.late] {
            counter.store(0, Relaxed);
        }
    }

    pub fn read(&self) -> Frames {
        Frames {
            frames_in: self.frames_in.load(Relaxed),
            frames_out: self.frames_out.load(Relaxed),
            passed_through: self.passed_through.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            late: self.late.load(Relaxed),
        }
    }
}

/// Frames of an element since it started, in its structure as `frames-in`, `frames-out`, `passed-through`, `dropped` and
/// `late`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    pub frames_in: u64,
    pub frames_out: u64,
    /// Frames that left as they came.
    pub passed_through: u64,
    pub dropped: u64,
    /// Frames that could not wait for their result.
    pub late: u64,
}

impl Field for Frames {
    /// Frames have no name before theirs.
    fn write(&self, _name: &str, s: &mut gst::StructureRef) {
        s.set("frames-in", self.frames_in);
        s.set("frames-out", self.frames_out);
        s.set("passed-through", self.passed_through);
        s.set("dropped", self.dropped);
        s.set("late", self.late);
    }

    fn read(_name: &str, s: &gst::StructureRef) -> Self {
        Self {
            frames_in: read(s, "frames-in"),
            frames_out: read(s, "frames-out"),
            passed_through: read(s, "passed-through"),
            dropped: read(s, "dropped"),
            late: read(s, "late"),
        }
    }
}

/// How long a piece of work took, in the structure as `<name>-p50`, `-p95`, `-p99` and `-sum` in microseconds and
/// `-count`, all guint64; `<name>-buckets` is a GstArray of guint64, the counts of times up to each of
/// [`BUCKETS_US`](lipstream_engines::stats::BUCKETS_US) and of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub percentiles: Percentiles,
    pub totals: Totals,
}

impl From<&Timer> for Times {
    fn from(timer: &Timer) -> Self {
        Self { percentiles: timer.percentiles(), totals: timer.totals() }
    }
}

impl Field for Times {
    fn write(&self, name: &str, s: &mut gst::StructureRef) {
        let (p, t) = (&self.percentiles, &self.totals);
        let numbers = [("p50", p.p50), ("p95", p.p95), ("p99", p.p99), ("count", t.count), ("sum", t.sum_us)];
        for (suffix, value) in numbers {
            s.set(format!("{name}-{suffix}"), value);
        }
        s.set(format!("{name}-buckets"), gst::Array::new(t.buckets));
    }

    fn read(name: &str, s: &gst::StructureRef) -> Self {
        let number = |suffix: &str| read::<u64>(s, &format!("{name}-{suffix}"));
        let mut totals = Totals { count: number("count"), sum_us: number("sum"), ..Totals::default() };
        if let Ok(counts) = s.get::<gst::Array>(format!("{name}-buckets")) {
            for (bucket, count) in totals.buckets.iter_mut().zip(counts.iter()) {
                *bucket = count.get().unwrap_or(0);
            }
        }
        let percentiles =
            Percentiles { count: totals.count, p50: number("p50"), p95: number("p95"), p99: number("p99") };
        Self { percentiles, totals }
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// The property itself.
pub(crate) fn property(blurb: &'static str) -> glib::ParamSpec {
    glib::ParamSpecBoxed::builder::<gst::Structure>("stats").nick("Statistics").blurb(blurb).read_only().build()
}
