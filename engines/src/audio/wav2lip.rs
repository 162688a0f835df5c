//! The mel of Wav2Lip (Rudrabha/Wav2Lip, audio.py and hparams.py), which SyncTalk_2D shares, as it streams.

use std::{collections::VecDeque, f64::consts::TAU, sync::Arc, time::Duration};

use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex};

use super::{BINS, FrontEnd};
use crate::Result;

/// Samples of an analysis frame, and between two.
const FFT: usize = 800;
const HOP: usize = 200;
/// Coefficient of the pre-emphasis `y[n] = x[n] - 0.97 x[n-1]`.
const EMPHASIS: f32 = 0.97;
/// Band limits of the filters in Hz.
const LOW: f64 = 55.0;
const HIGH: f64 = 7600.0;
/// Least magnitude, the level that is 0 dB, the lowest level in dB, and the range of what comes out.
const LEAST: f32 = 1e-5;
const REFERENCE_DB: f32 = 20.0;
const LOWEST_DB: f32 = -100.0;
const RANGE: f32 = 4.0;

/// Streaming mel: column `k` is centred on sample `200 k` of the pre-emphasised signal, periodic Hann window of 800,
/// magnitude, 80 Slaney filters over 55..7600 Hz, `20 log10(max(1e-5, m)) - 20`, of which -100..0 dB become -4..4. Before the
/// first sample and after the last one the signal is reflected (librosa 0.7), or zero. Columns are those of the whole file, for
/// there are no statistics of it.
pub struct Wav2LipMel {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    /// First bin and weights of each filter.
    filters: Vec<(usize, Vec<f32>)>,
    /// Pre-emphasised samples from the first that the next column needs.
    pending: VecDeque<f32>,
    /// The sample before the next.
    before: f32,
    /// Whether the signal is zero, and not reflected, where there is none.
    zeros: bool,
    /// Whether what is before the first sample is in `pending`.
    begun: bool,
    spectrum: Vec<Complex<f32>>,
    padded: Vec<f32>,
    scratch: Vec<Complex<f32>>,
    silence: [f32; BINS],
}

impl Default for Wav2LipMel {
    fn default() -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(FFT);
        let window = (0..FFT).map(|n| (0.5 - 0.5 * (TAU * n as f64 / FFT as f64).cos()) as f32).collect();
        Self {
            window,
            filters: filters(),
            pending: VecDeque::with_capacity(2 * FFT),
            before: 0.0,
            zeros: false,
            begun: false,
            spectrum: fft.make_output_vec(),
            padded: fft.make_input_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
            silence: [-RANGE; BINS],
        }
    }
}

impl Wav2LipMel {
    /// The same with zeros around the signal, as librosa pads from 0.10 on; two columns at each end differ.
    pub fn zero_padded() -> Self {
        Self { zeros: true, ..Self::default() }
    }

    /// Gives the columns that are there.
    fn drain(&mut self, sink: &mut dyn FnMut(&[f32])) {
        while self.pending.len() >= FFT {
            let column = self.column();
            sink(&column);
            self.pending.drain(..HOP);
        }
    }

    fn column(&mut self) -> [f32; BINS] {
        for ((p, s), w) in self.padded.iter_mut().zip(&self.pending).zip(&self.window) {
            *p = s * w;
        }
        let done = self.fft.process_with_scratch(&mut self.padded, &mut self.spectrum, &mut self.scratch);
        debug_assert!(done.is_ok(), "the buffers are the planner's own");
        std::array::from_fn(|b| {
            let (first, weights) = &self.filters[b];
            let energy: f32 = weights.iter().zip(&self.spectrum[*first..]).map(|(w, c)| w * c.norm()).sum();
            let level = 20.0 * energy.max(LEAST).log10() - REFERENCE_DB;
            (2.0 * RANGE * (level - LOWEST_DB) / -LOWEST_DB - RANGE).clamp(-RANGE, RANGE)
        })
    }
}

impl FrontEnd for Wav2LipMel {
    fn key(&self) -> &str {
        "wav2lip-mel"
    }

    fn dims(&self) -> usize {
        BINS
    }

    fn hop(&self) -> Duration {
        Duration::from_micros(12_500)
    }

    /// Half of an analysis frame.
    fn overhang(&self) -> Duration {
        Duration::from_millis(25)
    }

    fn silence(&self) -> &[f32] {
        &self.silence
    }

    fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        for sample in samples {
            let sample = if sample.is_finite() { sample.clamp(-8.0, 8.0) } else { 0.0 };
            self.pending.push_back(sample - EMPHASIS * self.before);
            self.before = sample;
            if !self.begun && self.pending.len() == FFT / 2 + 1 {
                self.begun = true;
                for i in 1..=FFT / 2 {
                    let sample = if self.zeros { 0.0 } else { self.pending[2 * i - 1] };
                    self.pending.push_front(sample);
                }
            }
            if self.pending.len() >= FFT {
                self.drain(sink);
            }
        }
        Ok(())
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        if !self.begun && !self.pending.is_empty() {
            // Too short to be reflected: as if silence followed.
            let missing = FFT / 2 + 1 - self.pending.len();
            self.push(&vec![0.0; missing], sink)?;
        }
        if self.begun {
            let end = self.pending.len();
            for i in 0..FFT / 2 {
                let sample = if self.zeros { 0.0 } else { self.pending[end.saturating_sub(2 + i)] };
                self.pending.push_back(sample);
            }
            self.drain(sink);
        }
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.pending.clear();
        (self.before, self.begun) = (0.0, false);
    }

    fn hush(&mut self) {
        self.pending.iter_mut().for_each(|s| *s = 0.0);
        self.before = 0.0;
    }
}

/// Slaney's scale: linear up to 1000 Hz, logarithmic beyond (Malcolm Slaney, Auditory Toolbox, 1998), each filter of unit
/// area.
fn filters() -> Vec<(usize, Vec<f32>)> {
    const STEP: f64 = 200.0 / 3.0;
    const KNEE: f64 = 1000.0;
    let log_step = 6.4f64.ln() / 27.0;
    let mel = |hz: f64| if hz < KNEE { hz / STEP } else { KNEE / STEP + (hz / KNEE).ln() / log_step };
    let hertz = |mel: f64| if mel < KNEE / STEP { mel * STEP } else { KNEE * (log_step * (mel - KNEE / STEP)).exp() };
    let (low, high) = (mel(LOW), mel(HIGH));
    let edge = |i: usize| hertz(low + (high - low) * i as f64 / (BINS + 1) as f64);
    (0..BINS)
        .map(|b| {
            let (left, centre, right) = (edge(b), edge(b + 1), edge(b + 2));
            let weight = |k: usize| {
                let f = k as f64 * f64::from(super::SAMPLE_RATE) / FFT as f64;
                let peak = ((f - left) / (centre - left)).min((right - f) / (right - centre)).max(0.0);
                (peak * 2.0 / (right - left)) as f32
            };
            let first = (0..=FFT / 2).find(|k| weight(*k) > 0.0).unwrap_or(0);
            (first, (first..=FFT / 2).map(weight).take_while(|w| *w > 0.0).collect())
        })
        .collect()
}
