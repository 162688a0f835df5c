//! The statistics of `lipdenoise`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use lipstream_engines::{
    engine::WorkerStats,
    stats::{Percentiles, Timer},
};
use parking_lot::Mutex;

use crate::{
    stats::{Counters, Field, Frames, Times, read, statistics},
    untouched::{Untouched, UntouchedCounters},
};

statistics! {
    /// Statistics of `lipdenoise`; a frame without a patch passes through.
    pub struct DenoiseStats = "lipdenoise-stats" {
        pub frames: Frames,
        /// Looking for references.
        pub gather: Times,
        /// Making an identity of them.
        pub prepare: Times,
        /// Waiting for features.
        pub wait: Times,
        /// All steps of a frame, with what they waited for.
        pub denoise: Times,
        pub render: Times,
        /// Frames that keep their own mouth although another was wanted.
        pub untouched: Untouched,
        /// Of the last flush, from its start to nothing left, in microseconds.
        pub flush_time: u64,
        /// Of the last interrupt, from the signal to the push of a frame at rest, in microseconds.
        pub interrupt_time: u64,
        /// What this stream took of the engine's device, in microseconds: its part of each evaluation that it shared with others.
        pub device_time: u64,
        /// References in the bank that was used last.
        pub references: u64,
        /// Whose mouth is made.
        pub speaker: Speaks,
        /// Of the engine's first stage, as in `stages`.
        pub batches: u64,
        pub steps: u64,
        pub latents_a_batch: f64,
        pub stages: EngineStages,
    }
}

/// Who speaks, in the structure as `speaker-track` (guint64, of the largest where several do) and, where `speaker=auto` has heard enough
/// to judge, `speaker-confidence` (gdouble, 0..1: by how much its lips follow the sound better than the next one's).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speaks {
    pub track: Option<u64>,
    pub confidence: Option<f64>,
}

impl Field for Speaks {
    fn write(&self, name: &str, s: &mut gst::StructureRef) {
        if let Some(track) = self.track {
            s.set(format!("{name}-track"), track);
        }
        if let Some(confidence) = self.confidence {
            s.set(format!("{name}-confidence"), confidence);
        }
    }

    fn read(name: &str, s: &gst::StructureRef) -> Self {
        Self { track: s.get(format!("{name}-track")).ok(), confidence: s.get(format!("{name}-confidence")).ok() }
    }
}

/// A stage of the engine. One worker serves all streams of an engine on a device, and counts them together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineStage {
    /// Its kind: `encode`, `step`, `forward`, `decode` or `refine`.
    pub name: String,
    /// Evaluations, and items in them.
    pub batches: u64,
    pub items: u64,
    /// The median and the 95th percentile of an evaluation's time, in microseconds.
    pub p50: u64,
    pub p95: u64,
}

/// The stages of the engine in their order, in the structure as `<stage>-batches`, `-items`, `-p50` and `-p95`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineStages(pub Vec<EngineStage>);

impl Field for EngineStages {
    fn write(&self, name: &str, s: &mut gst::StructureRef) {
        let mut stages = gst::Structure::new_empty("stages");
        for EngineStage { name, batches, items, p50, p95 } in &self.0 {
            for (suffix, value) in [("batches", batches), ("items", items), ("p50", p50), ("p95", p95)] {
                stages.set(format!("{name}-{suffix}"), *value);
            }
        }
        s.set(name, stages);
    }

    fn read(name: &str, s: &gst::StructureRef) -> Self {
        let Ok(stages) = s.get::<gst::Structure>(name) else { return Self::default() };
        let stage = |name: &str| {
            let number = |suffix: &str| read(&stages, &format!("{name}-{suffix}"));
            EngineStage {
                name: name.to_owned(),
                batches: number("batches"),
                items: number("items"),
                p50: number("p50"),
                p95: number("p95"),
            }
        };
        Self(stages.fields().filter_map(|field| field.strip_suffix("-batches")).map(stage).collect())
    }
}

/// What the element counts.
#[derive(Default)]
pub(super) struct DenoiseCounters {
    pub frames: Counters,
    pub gather: Timer,
    pub prepare: Timer,
    pub wait: Timer,
    pub denoise: Timer,
    pub render: Timer,
    pub untouched: UntouchedCounters,
    /// In nanoseconds.
    pub device_time: Arc<AtomicU64>,
    flush_time: AtomicU64,
    interrupt_time: AtomicU64,
    references: AtomicU64,
    speaks: Mutex<Speaks>,
}

impl DenoiseCounters {
    /// A new start; the times of the last flush and interrupt stay.
    pub fn reset(&self) {
        self.frames.reset();
        for timer in [&self.gather, &self.prepare, &self.wait, &self.denoise, &self.render] {
            timer.reset();
        }
        self.untouched.reset();
        self.device_time.store(0, Relaxed);
        self.set_references(0);
        self.set_speaks(None, None);
    }

    pub fn flushed(&self, time: Duration) {
        self.flush_time.store(time.as_nanos().div_ceil(1000) as u64, Relaxed);
    }

    /// Returns the time in microseconds.
    pub fn interrupted(&self, time: Duration) -> u64 {
        let us = time.as_micros() as u64;
        self.interrupt_time.store(us, Relaxed);
        us
    }

    pub fn set_references(&self, references: usize) {
        self.references.store(references as u64, Relaxed);
    }

    pub fn set_speaks(&self, track: Option<u64>, confidence: Option<f64>) {
        *self.speaks.lock() = Speaks { track, confidence };
    }

    pub fn speaks(&self) -> Speaks {
        *self.speaks.lock()
    }

    /// With what the engine's worker has counted.
    pub fn read(&self, worker: &WorkerStats) -> DenoiseStats {
        // An engine that does not denoise is told of by its first stage.
        let (batches, items) = worker.stages.first().map_or((0, 0), |stage| (stage.batches, stage.items));
        let stage = |stage: &lipstream_engines::engine::StageStats| {
            let Percentiles { p50, p95, .. } = stage.time;
            EngineStage { name: stage.kind.name().to_owned(), batches: stage.batches, items: stage.items, p50, p95 }
        };
        DenoiseStats {
            frames: self.frames.read(),
            gather: (&self.gather).into(),
            prepare: (&self.prepare).into(),
            wait: (&self.wait).into(),
            denoise: (&self.denoise).into(),
            render: (&self.render).into(),
            untouched: self.untouched.read(),
            flush_time: self.flush_time.load(Relaxed),
            interrupt_time: self.interrupt_time.load(Relaxed),
            device_time: self.device_time.load(Relaxed) / 1000,
            references: self.references.load(Relaxed),
            speaker: self.speaks(),
            batches,
            steps: items,
            latents_a_batch: if batches > 0 { items as f64 / batches as f64 } else { 0.0 },
            stages: EngineStages(worker.stages.iter().map(stage).collect()),
        }
    }
}
