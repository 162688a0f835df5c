//! Brings speech to the rate of the queue, sample by sample: the same comes out however it comes in.

use std::{collections::VecDeque, f64::consts::PI};

use super::queue::RATE;

/// Input samples that an output sample is made of; half of them come after it, which is 1.5 ms at 16 kHz.
const TAPS: usize = 48;
/// Edge of the low pass as a share of the input's band: speech keeps 83 % of it, images are below -70 dB.
const EDGE: f64 = 0.94;

/// Rates that go into [`RATE`] a whole number of times and are usual for speech, in Hz.
pub const RATES: [u32; 3] = [16_000, 24_000, 48_000];

/// A polyphase low pass between samples, with a Blackman window.
pub struct Upsampler {
    /// Weights by phase, `[factor][TAPS]`, the newest sample's last.
    phases: Vec<[f32; TAPS]>,
    /// The last [`TAPS`] samples.
    history: VecDeque<f32>,
    /// Output samples of the filter's delay that are still left out.
    skip: usize,
}

impl Upsampler {
    /// `None` for a rate that is not in [`RATES`].
    pub fn new(rate: u32) -> Option<Self> {
        if !RATES.contains(&rate) {
            return None;
        }
        let factor = (RATE / rate) as usize;
        let phases = if factor == 1 { Vec::new() } else { (0..factor).map(|p| weights(p, factor)).collect() };
        let skip = if factor == 1 { 0 } else { factor * (TAPS / 2) };
        Some(Self { phases, history: std::iter::repeat_n(0.0, TAPS).collect(), skip })
    }

    pub fn add(&mut self, input: impl Iterator<Item = f32>, out: &mut Vec<f32>) {
        if self.phases.is_empty() {
            out.extend(input);
            return;
        }
        for sample in input {
            self.history.pop_front();
            self.history.push_back(sample);
            for weights in &self.phases {
                if self.skip > 0 {
                    self.skip -= 1;
                    continue;
                }
                out.push(self.history.iter().zip(weights).map(|(s, w)| s * w).sum());
            }
        }
    }

    /// What the filter still holds, at the end.
    pub fn finish(mut self, out: &mut Vec<f32>) {
        if !self.phases.is_empty() {
            self.add(std::iter::repeat_n(0.0, TAPS / 2), out);
        }
    }
}

fn weights(phase: usize, factor: usize) -> [f32; TAPS] {
    let half = TAPS as f64 / 2.0;
    let weights: [f64; TAPS] = std::array::from_fn(|i| {
        // Time of input sample `i` from the output sample, in input samples.
        let t = i as f64 - (half - 1.0) - phase as f64 / factor as f64;
        let sinc = if t == 0.0 { 1.0 } else { (PI * EDGE * t).sin() / (PI * EDGE * t) };
        let w = (t / half).clamp(-1.0, 1.0) * PI;
        sinc * (0.42 + 0.5 * w.cos() + 0.08 * (2.0 * w).cos())
    });
    let sum: f64 = weights.iter().sum();
    weights.map(|w| (w / sum) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, rate: u32, length: usize) -> Vec<f32> {
        (0..length).map(|n| (0.5 * (2.0 * PI * hz * n as f64 / f64::from(rate)).sin()) as f32).collect()
    }

    fn upsampled(rate: u32, input: &[f32], chunk: usize) -> Vec<f32> {
        let mut upsampler = Upsampler::new(rate).unwrap();
        let mut out = Vec::new();
        input.chunks(chunk).for_each(|c| upsampler.add(c.iter().copied(), &mut out));
        upsampler.finish(&mut out);
        out
    }

    #[test]
    fn a_tone_stays_that_tone_in_place_and_strength() {
        for rate in RATES {
            for hz in [100.0, 1000.0, 5000.0] {
                let out = upsampled(rate, &tone(hz, rate, rate as usize / 10), 100);
                let wanted = tone(hz, RATE, 4800);
                assert_eq!(out.len(), 4800, "{rate}");
                let off = out[200..4600].iter().zip(&wanted[200..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 0.004, "{hz} Hz at {rate}: off by {off}");
            }
        }
    }

    #[test]
    fn the_same_comes_out_for_any_chunks() {
        for rate in RATES {
            let input = tone(700.0, rate, 4001);
            let whole = upsampled(rate, &input, 4001);
            for chunk in [1, 2, 160, 333, 4000] {
                assert_eq!(upsampled(rate, &input, chunk), whole, "{chunk} at {rate}");
            }
        }
        assert!(Upsampler::new(44_100).is_none());
    }
}
