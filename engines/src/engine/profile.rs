//! What the stages of an engine take on its device, by the size of a batch.

use std::time::Duration;

use super::{Engine, Stage, StageKind};
use crate::{Error, Result};

/// Evaluations of a size that are timed, after one that is not.
const TIMES: usize = 3;

/// What one stage takes of its device.
#[derive(Clone, Debug, PartialEq)]
pub struct StageCost {
    pub kind: StageKind,
    /// Rows of a batch and how long one of so many takes, ascending.
    pub batches: Vec<(usize, Duration)>,
}

impl StageCost {
    /// What a row takes in a batch of so many: batches are padded to a size that there is, and what is more than the largest
    /// goes through it in parts. `None` where no size ran.
    pub fn row(&self, rows: usize) -> Option<Duration> {
        let rows = rows.max(1);
        let (size, time) = *self.batches.iter().find(|(size, _)| *size >= rows).or(self.batches.last())?;
        Some(time.div_f64(rows.min(size).max(1) as f64))
    }
}

/// Runs every stage in batches of all the sizes that it takes, which also compiles what the device compiles for each. `clock` reads
/// the time. Sizes that memory does not hold are left out.
///
/// Errors: what a stage says of anything else.
pub fn profile(engine: &dyn Engine, clock: &dyn Fn() -> Duration) -> Result<Vec<StageCost>> {
    let mut costs = Vec::new();
    for stage in engine.stages() {
        let mut batches = Vec::new();
        for size in stage.sizes() {
            match timed(&**stage, *size, clock) {
                Ok(time) => batches.push((*size, time)),
                Err(error @ Error::OutOfMemory { .. }) => {
                    tracing::warn!(%error, stage = stage.kind().name(), rows = size, "batches stay smaller");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        costs.push(StageCost { kind: stage.kind(), batches });
    }
    Ok(costs)
}

/// The median time of a batch of so many rows.
fn timed(stage: &dyn Stage, rows: usize, clock: &dyn Fn() -> Duration) -> Result<Duration> {
    stage.try_out(rows)?;
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begun = clock();
        stage.try_out(rows)?;
        times.push(clock().saturating_sub(begun));
    }
    times.sort();
    Ok(times[TIMES / 2])
}
