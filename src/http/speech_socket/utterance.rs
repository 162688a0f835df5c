//! The speech of one `speak_start`, as it comes.

use std::time::Instant;

use crate::speech::{Pcm, RATE, Upsampler, Writer};

/// What the client is saying.
pub(super) enum Utterance {
    None,
    Open(Box<Open>),
    /// Interrupted or refused: its sound is not wanted.
    Cut,
}

pub(super) struct Open {
    pub writer: Writer,
    pub pcm: Pcm,
    pub upsampler: Upsampler,
    /// Sound that waits for space in the queue, from a place on.
    pub waiting: Vec<f32>,
    pub at: usize,
    pub ending: bool,
    pub heard: Instant,
}

impl Open {
    pub fn add(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_written());
        self.waiting.clear();
        self.at = 0;
        self.upsampler.add(self.pcm.samples(bytes), &mut self.waiting);
        self.heard = Instant::now();
    }

    /// Adds what the filter holds; the utterance is over when it is written.
    pub fn end(&mut self) {
        let upsampler = std::mem::replace(&mut self.upsampler, Upsampler::new(RATE).expect("a known rate"));
        self.waiting.drain(..self.at);
        self.at = 0;
        upsampler.finish(&mut self.waiting);
        self.ending = true;
    }

    pub fn is_written(&self) -> bool {
        self.at == self.waiting.len()
    }
}
