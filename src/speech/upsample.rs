//! Brings speech to the rate of the queue, sample by sample: the same comes out however it comes in.

use std::{collections::VecDeque, f64::consts::PI};

use super::queue::RATE;

/// Input samples that an output sample is made of; half of them come after it, which is 1.5 ms at 16 kHz.
const TAPS: usize = 48;
/// Edge of the low pass as a share of the input's band: speech keeps 83 % of it, images are below -70 dB.
const EDGE: f64 = 0.94;

/// Rates that are taken, in Hz. Each is a ratio of small numbers to [`RATE`].
pub const RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

/// A polyphase low pass between samples, with a Blackman window.
pub struct Upsampler {
    /// Weights by phase, the newest sample's last: an output sample lies at one of so many places between two of the input.
    phases: Vec<[f32; TAPS]>,
    /// Phases from one output sample to the next.
    step: usize,
    /// Phase of the next output sample, from the newest input sample on.
    phase: usize,
    /// The last [`TAPS`] samples.
    history: VecDeque<f32>,
    /// Input samples of the filter's delay for which nothing comes out yet.
    skip: usize,
}

impl Upsampler {
    /// `None` for a rate that is not in [`RATES`].
    pub fn new(rate: u32) -> Option<Self> {
        if !RATES.contains(&rate) {
            return None;
        }
        let common = gcd(RATE, rate);
        let (count, step) = ((RATE / common) as usize, (rate / common) as usize);
        let phases = if count == step { Vec::new() } else { (0..count).map(|p| weights(p, count)).collect() };
        let history = std::iter::repeat_n(0.0, TAPS).collect();
        Some(Self { phases, step, phase: 0, history, skip: TAPS / 2 })
    }

    pub fn add(&mut self, input: impl Iterator<Item = f32>, out: &mut Vec<f32>) {
        if self.phases.is_empty() {
            out.extend(input);
            return;
        }
        for sample in input {
            self.history.pop_front();
            self.history.push_back(sample);
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            while let Some(weights) = self.phases.get(self.phase) {
                out.push(self.history.iter().zip(weights).map(|(s, w)| s * w).sum());
                self.phase += self.step;
            }
            self.phase -= self.phases.len();
        }
    }

    /// What the filter still holds, at the end.
    pub fn finish(mut self, out: &mut Vec<f32>) {
        if !self.phases.is_empty() {
            self.add(std::iter::repeat_n(0.0, TAPS / 2), out);
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn weights(phase: usize, count: usize) -> [f32; TAPS] {
    let half = TAPS as f64 / 2.0;
    let weights: [f64; TAPS] = std::array::from_fn(|i| {
        // Time of input sample `i` from the output sample, in input samples.
        let t = i as f64 - (half - 1.0) - phase as f64 / count as f64;
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
            for hz in [100.0, 1000.0, 5000.0].into_iter().filter(|hz| hz / f64::from(rate) < 0.35) {
                let out = upsampled(rate, &tone(hz, rate, rate as usize / 10), 100);
                let wanted = tone(hz, RATE, 4800);
                assert!(out.len().abs_diff(4800) <= 4, "{} at {rate}", out.len());
                let off = out[200..4600].iter().zip(&wanted[200..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 0.004, "{hz} Hz at {rate}: off by {off}");
            }
        }
    }

    #[test]
    fn a_tone_keeps_its_pitch() {
        for rate in RATES {
            let out = upsampled(rate, &tone(440.0, rate, 2 * rate as usize), 777);
            // Crossings of zero upwards, with the part of a sample at which they are.
            let rises = out.windows(2).enumerate().filter(|(_, w)| w[0] < 0.0 && w[1] >= 0.0);
            let at: Vec<f64> = rises.map(|(i, w)| i as f64 + f64::from(w[0] / (w[0] - w[1]))).collect();
            let hz = (at.len() - 1) as f64 * f64::from(RATE) / (at[at.len() - 1] - at[0]);
            assert!((hz - 440.0).abs() < 0.04, "{hz} Hz at {rate}");
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
        assert!(Upsampler::new(44_101).is_none());
    }
}
