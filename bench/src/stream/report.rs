//! What is written: as far as it is known, whenever something was found.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use lipstream_engines::{Error, Result};
use serde::Serialize;

#[derive(Serialize, Default)]
pub struct Report {
    pub device: String,
    pub engine: String,
    pub family: String,
    pub weights: String,
    /// Seconds that making and importing random weights took.
    pub made_in: f64,
    pub first: Option<First>,
    /// Largest distance of latents from the processor's path; codes of 255 of pasted frames at most, and the part of their values
    /// that differ.
    pub latents: f64,
    pub codes: u8,
    pub differing: f64,
    /// Why nothing was compared.
    pub refused: Option<String>,
    /// The same through the processor's memory, which tells what the provider alone makes of the networks.
    pub host: Option<Apart>,
    /// In the memory of the card, and through the processor's on the same device.
    pub there: Vec<Timing>,
    pub through_host: Vec<Timing>,
    /// Streams at 25 frames a second of which none was late, and each number that was tried.
    pub streams_in_time: Option<usize>,
    pub paced: Vec<Paced>,
    pub tuned: Vec<Tuned>,
    /// What there was no time for, and what failed.
    pub left_out: Vec<String>,
}

/// The first frame, or the first clip of frames, in seconds.
#[derive(Serialize)]
pub struct First {
    /// The first of the process: loading, warming up, and the frame.
    pub load: f64,
    pub warm_up: f64,
    pub cold: f64,
    /// The first of a stream of an engine that runs.
    pub warm: f64,
    /// Bytes of the device that all of it took.
    pub memory: Option<u64>,
}

#[derive(Serialize, Default)]
pub struct Apart {
    pub latents: f64,
    pub codes: u8,
    pub differing: f64,
}

/// Medians in ms of so many streams' work items in one batch.
#[derive(Serialize)]
pub struct Timing {
    pub streams: usize,
    pub frames: usize,
    /// Of an engine that denoises.
    pub steps: Option<usize>,
    pub guided: Option<&'static str>,
    /// By part: of a frame `ask`, `show`, `paste`; of a work item `close`, `parts`; of a batch its stages; of all streams' items
    /// `networks`, and all one after another `whole`.
    pub milliseconds: BTreeMap<String, f64>,
    /// Frames a second, all of it one after another, and by the networks alone.
    pub per_second: f64,
    pub networks_per_second: f64,
}

/// Streams at 25 frames a second beside each other.
#[derive(Serialize)]
pub struct Paced {
    pub streams: usize,
    pub late: bool,
    /// Time that work items took in ms, the longest and the middle one, of those that they had.
    pub longest: f64,
    pub median: f64,
    pub had: f64,
    pub failed: Option<String>,
}

/// One stream with the provider asked to work so.
#[derive(Serialize)]
pub struct Tuned {
    pub tuning: String,
    /// Why there are no figures.
    pub refused: Option<String>,
    /// Loading and warming up, in seconds.
    pub start: f64,
    /// Bytes of the device that it took.
    pub memory: Option<u64>,
    /// Of a batch of each size of each stage, `STAGE ROWS`, in milliseconds.
    pub batches: BTreeMap<String, f64>,
    pub timing: Option<Timing>,
}

impl Report {
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::invalid(error.to_string()))?;
        std::fs::write(path, text).map_err(|error| Error::io(path, error))
    }

    pub fn leave_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("left out: {what}");
        self.left_out.push(what);
    }
}

/// The time that a run has.
pub struct Time {
    begun: Instant,
    whole: Duration,
}

impl Time {
    pub fn new(seconds: f64) -> Self {
        Self { begun: Instant::now(), whole: Duration::from_secs_f64(seconds.clamp(0.0, 1e6)) }
    }

    /// Whether there is so much of it, as a part of the whole.
    pub fn left(&self, part: f64) -> bool {
        self.begun.elapsed() < self.whole.mul_f64(1.0 - part)
    }
}
