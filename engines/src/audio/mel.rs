use std::{f64::consts::TAU, sync::Arc};

use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex};

/// Samples a second.
pub const SAMPLE_RATE: u32 = 16_000;
/// Samples in one analysis frame (25 ms).
pub const FRAME_SAMPLES: usize = 400;
/// Samples between the starts of two frames (10 ms).
pub const HOP_SAMPLES: usize = 160;
/// Mel filters.
pub const BINS: usize = 80;

const FFT: usize = 512;
/// Least energy of a bin.
pub(super) const FLOOR: f32 = 1e-6;

/// Streaming log-mel: frame `m` covers samples `[160 m, 160 m + 400)`, periodic Hann window, zero-padded FFT of 512,
/// power spectrum, 80 triangular filters of peak 1 over 0..8000 Hz on the mel scale of HTK (`2595 log10(1 + f / 700)`,
/// O'Shaughnessy 1987), natural logarithm of at least 1e-6. No statistics of the whole signal, so frames are the same
/// whatever the size of the pieces that it arrives in.
pub struct Mel {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    filters: Vec<Filter>,
    /// Samples that later frames still need.
    pending: Vec<f32>,
    padded: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    frame: [f32; BINS],
}

/// Weights of the spectrum's bins from `first` on.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

impl Default for Mel {
    fn default() -> Self {
        Self::new()
    }
}

impl Mel {
    pub fn new() -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(FFT);
        let window = (0..FRAME_SAMPLES).map(|n| (0.5 - 0.5 * (TAU * n as f64 / FRAME_SAMPLES as f64).cos()) as f32);
        Self {
            window: window.collect(),
            filters: filters(),
            pending: Vec::with_capacity(2 * FRAME_SAMPLES),
            padded: vec![0.0; FFT],
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
            frame: [0.0; BINS],
        }
    }

    /// Takes samples in -1..1 and calls `sink` once for each frame that they complete.
    pub fn push<E>(
        &mut self,
        mut samples: &[f32],
        sink: &mut impl FnMut(&[f32; BINS]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let wanted = FRAME_SAMPLES - self.pending.len();
            let (now, later) = samples.split_at(wanted.min(samples.len()));
            // A NaN from outside would stay in the encoder's state for good.
            self.pending.extend(now.iter().map(|s| if s.is_finite() { s.clamp(-8.0, 8.0) } else { 0.0 }));
            samples = later;
            if self.pending.len() < FRAME_SAMPLES {
                return Ok(());
            }
            self.analyse();
            self.pending.drain(..HOP_SAMPLES);
            sink(&self.frame)?;
        }
    }

    /// What was heard and is still needed was silence.
    pub fn hush(&mut self) {
        self.pending.fill(0.0);
    }

    /// Forgets everything heard.
    pub fn reset(&mut self) {
        self.pending.clear();
    }

    fn analyse(&mut self) {
        for ((p, s), w) in self.padded.iter_mut().zip(&self.pending).zip(&self.window) {
            *p = s * w;
        }
        self.padded[FRAME_SAMPLES..].fill(0.0);
        let done = self.fft.process_with_scratch(&mut self.padded, &mut self.spectrum, &mut self.scratch);
        debug_assert!(done.is_ok(), "the buffers are the planner's own");
        for (out, filter) in self.frame.iter_mut().zip(&self.filters) {
            let bins = &self.spectrum[filter.first..];
            let energy: f32 = filter.weights.iter().zip(bins).map(|(w, c)| w * c.norm_sqr()).sum();
            *out = energy.max(FLOOR).ln();
        }
    }
}

fn filters() -> Vec<Filter> {
    let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
    let hertz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
    let top = mel(f64::from(SAMPLE_RATE) / 2.0);
    let edge = |i: usize| hertz(top * i as f64 / (BINS + 1) as f64);
    (0..BINS)
        .map(|b| {
            let (low, centre, high) = (edge(b), edge(b + 1), edge(b + 2));
            let weight = |k: usize| {
                let f = k as f64 * f64::from(SAMPLE_RATE) / FFT as f64;
                ((f - low) / (centre - low)).min((high - f) / (high - centre)).max(0.0) as f32
            };
            let first = (0..=FFT / 2).find(|k| weight(*k) > 0.0).unwrap_or(0);
            let weights: Vec<f32> = (first..=FFT / 2).map(weight).take_while(|w| *w > 0.0).collect();
            Filter { first, weights }
        })
        .collect()
}
