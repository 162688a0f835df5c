//! Speech begins, ends, runs dry and is cut without a click: it comes in over a ramp, and what it leaves fades out.

use std::collections::VecDeque;

use super::queue::RATE;

/// Length of a ramp in samples: 5 ms.
pub const RAMP: usize = RATE as usize / 200;

/// The edges of what is taken from the queue. The same samples come out however they are divided into calls.
#[derive(Default)]
pub struct Edges {
    /// Whether the last sample was speech.
    sounding: bool,
    /// How far the ramp at the beginning has come, in samples.
    risen: usize,
    /// The last sample of speech as it was heard.
    last: f32,
    /// What is still to be heard of speech that has ended.
    tail: VecDeque<f32>,
}

impl Edges {
    /// Speech goes on, or begins, with `out`.
    pub fn speak(&mut self, out: &mut [f32]) {
        let Some(last) = out.len().checked_sub(1) else { return };
        if !std::mem::replace(&mut self.sounding, true) {
            self.risen = 0;
        }
        for sample in out.iter_mut().take(RAMP.saturating_sub(self.risen)) {
            *sample *= self.risen as f32 / RAMP as f32;
            self.risen += 1;
        }
        self.last = out[last];
        self.fade(out);
    }

    /// Nothing is said during `out`, which is silent.
    pub fn rest(&mut self, out: &mut [f32]) {
        self.stop();
        self.fade(out);
    }

    /// The speech has no further samples: its last one decays.
    pub fn stop(&mut self) {
        if std::mem::take(&mut self.sounding) {
            let last = self.last;
            self.leave((0..RAMP).map(|_| last));
        }
    }

    /// The speech is cut before `rest`, of which as much as fades out is still heard.
    pub fn cut(&mut self, rest: Option<&VecDeque<f32>>) {
        if std::mem::take(&mut self.sounding) {
            let gain = self.risen as f32 / RAMP as f32;
            let last = self.last;
            let rest = rest.into_iter().flatten().map(move |sample| sample * gain);
            self.leave(rest.chain(std::iter::repeat(last)).take(RAMP).collect::<Vec<_>>().into_iter());
        }
    }

    /// Whether something of ended speech is still to be heard.
    pub fn fading(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Adds `samples`, fading, to what is still to be heard.
    fn leave(&mut self, samples: impl Iterator<Item = f32>) {
        for (n, sample) in samples.enumerate() {
            let sample = sample * (1.0 - (n + 1) as f32 / RAMP as f32);
            match self.tail.get_mut(n) {
                Some(tail) => *tail += sample,
                None => self.tail.push_back(sample),
            }
        }
    }

    fn fade(&mut self, out: &mut [f32]) {
        let count = self.tail.len().min(out.len());
        for (sample, tail) in out.iter_mut().zip(self.tail.drain(..count)) {
            *sample = (*sample + tail).clamp(-1.0, 1.0);
        }
    }
}
