use std::{sync::Arc, time::Duration};

use super::{
    super::{FrontEnd, SAMPLE_RATE},
    recording::{self, COLUMNS, Segment},
    shared::SharedEncoder,
    window,
};
use crate::{Error, Result};

/// Longest recording: an hour.
const LONGEST: usize = 3600 * SAMPLE_RATE as usize;

/// Whose way of hearing a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    LatentSync,
    MuseTalk,
}

/// Whisper's encoder as the published programs use it, in 30 seconds at a time of a recording that is there as a whole: rows are
/// given at its end.
pub struct Whole {
    encoder: Arc<SharedEncoder>,
    program: Program,
    key: String,
    /// Numbers in a row.
    dims: usize,
    samples: Vec<f32>,
    silence: Vec<f32>,
}

impl Whole {
    /// `model` names the encoder by its weights; a row of its states has `dims` numbers.
    pub fn new(encoder: Arc<SharedEncoder>, program: Program, model: &str, dims: usize) -> Self {
        let silence = vec![0.0; dims];
        Self { encoder, program, key: format!("whisper-{model}-exact"), dims, samples: Vec::new(), silence }
    }
}

impl FrontEnd for Whole {
    fn key(&self) -> &str {
        &self.key
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn hop(&self) -> Duration {
        Duration::from_millis(20)
    }

    /// Of a row's own columns: that all of the recording is waited for, no number says.
    fn overhang(&self) -> Duration {
        Duration::from_micros(32_500)
    }

    /// What MuseTalk has beyond the ends.
    fn silence(&self) -> &[f32] {
        &self.silence
    }

    /// Errors: a recording that is too long.
    fn push(&mut self, samples: &[f32], _: &mut dyn FnMut(&[f32])) -> Result<()> {
        if self.samples.len() + samples.len() > LONGEST {
            return Err(Error::invalid(
                "the sound is longer than an hour, which exact=true keeps as a whole: cut it, or leave exact=false",
            ));
        }
        self.samples.extend_from_slice(samples);
        Ok(())
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        let samples = std::mem::take(&mut self.samples);
        let (segments, mut left) = match self.program {
            Program::LatentSync => (recording::latentsync(&samples), usize::MAX),
            Program::MuseTalk => (recording::musetalk(&samples), window::musetalk_rows(samples.len())),
        };
        drop(samples);
        for Segment { mel, columns } in segments {
            let rows = (columns / 2).min(left);
            let states = self.encoder.evaluate(mel, COLUMNS)?;
            if states.len() != COLUMNS / 2 * self.dims || !states.iter().all(|v| v.is_finite()) {
                return Err(Error::invalid(format!(
                    "Whisper's encoder gave {} numbers instead of {} that are finite: import it again",
                    states.len(),
                    COLUMNS / 2 * self.dims
                )));
            }
            states.chunks_exact(self.dims).take(rows).for_each(&mut *sink);
            left -= rows;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.samples.clear();
    }

    fn hush(&mut self) {
        self.samples.fill(0.0);
    }
}
