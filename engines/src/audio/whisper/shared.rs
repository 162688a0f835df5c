use std::sync::Arc;

use super::super::BINS;
use crate::{
    Error, Result,
    runtime::{Batches, Input, Model, PerModel},
};

/// Whisper's encoder for all streams of a process, whose windows go together in [batches](Batches).
pub struct SharedEncoder(Batches<Asked, Vec<f32>>);

struct Asked {
    mel: Vec<f32>,
    columns: usize,
}

static ENCODERS: PerModel<SharedEncoder> = PerModel::new();

impl SharedEncoder {
    /// That of a network with the input `mel` f32 `[batch, 80, columns]` and the output `states` f32
    /// `[batch, columns / 2, blocks + 1, width]`.
    pub fn of(model: &Arc<Model>) -> Arc<Self> {
        ENCODERS.of(model, || {
            let network = model.clone();
            let run = move |asked: &[Asked]| {
                let Some(columns) = asked.first().map(|asked| asked.columns) else { return Ok(Vec::new()) };
                let mel: Vec<f32> = asked.iter().flat_map(|asked| &asked.mel).copied().collect();
                let shape = [asked.len(), BINS, columns];
                let states = network.run(&[Input { name: "mel", shape: &shape, data: &mel }])?.into_iter().next();
                let states = states.map(|states| states.data).unwrap_or_default();
                if states.is_empty() || !states.len().is_multiple_of(asked.len()) {
                    return Err(Error::invalid(format!(
                        "Whisper's encoder gave {} numbers for {} windows",
                        states.len(),
                        asked.len()
                    )));
                }
                Ok(states.chunks_exact(states.len() / asked.len()).map(<[f32]>::to_vec).collect())
            };
            Self(Batches::new("Whisper's encoder", 1, |asked: &Asked| asked.columns, Box::new(run)))
        })
    }

    /// States of normalised `mel`, `[80, columns]`.
    ///
    /// Errors: those of the network.
    pub fn evaluate(&self, mel: Vec<f32>, columns: usize) -> Result<Vec<f32>> {
        self.0.ask(Asked { mel, columns }).1
    }
}
