//! What sessions take of a GPU: its time and its memory.

use std::time::Duration;

use lipstream_engines::engine::{StageCost, StageKind};

/// Memory of a card that is left to its driver and to what grows, in bytes.
pub const RESERVE: u64 = 512 << 20;

/// Memory of a card, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardMemory {
    pub free: u64,
    pub total: u64,
}

/// Reads the memory of the card of CUDA's number; `None` where nobody knows.
pub type Gauge = dyn Fn(u32) -> Option<CardMemory> + Send + Sync;

/// One stage of an engine as a frame of a session passes it.
#[derive(Clone, Debug)]
pub struct StageShare {
    pub cost: StageCost,
    /// Items of a frame, each step of a denoiser one, and rows of an item.
    pub items: f64,
    pub rows: f64,
}

/// What an engine takes of a card.
#[derive(Clone, Debug)]
pub struct CardPrice {
    /// CUDA's number.
    pub card: u32,
    pub stages: Vec<StageShare>,
    /// Steps of the frames that were counted; 0 of an engine that does not denoise.
    pub steps: usize,
    /// Bytes of the engine with its largest batches, and of each session.
    pub engine: u64,
    pub session: u64,
}

impl CardPrice {
    /// Seconds of the card's time that a frame takes where so many streams share batches, of at most so many items where memory
    /// has ended beyond.
    pub fn frame(&self, streams: usize, steps: Option<usize>, most: &[(StageKind, usize)]) -> f64 {
        let of = |stage: &StageShare| {
            let kind = stage.cost.kind;
            let fit = most.iter().find(|(known, _)| *known == kind).map_or(usize::MAX, |(_, most)| *most);
            let rows = stage.rows * streams.clamp(1, fit.max(1)) as f64;
            let row = stage.cost.row(rows.round() as usize).unwrap_or(Duration::ZERO);
            let steps = match steps.filter(|_| kind == StageKind::Step && self.steps > 0) {
                Some(steps) => steps as f64 / self.steps as f64,
                None => 1.0,
            };
            row.as_secs_f64() * stage.rows * stage.items * steps
        };
        self.stages.iter().map(of).sum()
    }
}

/// The name of a card as a device.
pub fn device(card: u32) -> String {
    format!("cuda:{card}")
}

/// How long batches wait for the items of other sessions, `most` at most, where the sessions of a card would take so much of its time
/// if none shared a batch: nothing while half of it is free, since waiting costs latency and saves what nobody asks for, then more
/// and more until all of it is taken.
pub fn window(alone: f64, most: Duration) -> Duration {
    most.mul_f64(((alone - 0.5) / 0.5).clamp(0.0, 1.0))
}
