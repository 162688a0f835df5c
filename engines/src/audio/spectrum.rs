//! The short-time spectrum that mels are made of, and the triangular filters that sum it.

use std::{f64::consts::TAU, sync::Arc};

use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex};

use super::{BINS, SAMPLE_RATE};

/// The spectrum of one analysis frame: a periodic Hann window over its samples, zeros up to the length of the FFT.
pub(super) struct Spectrum {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    padded: Vec<f32>,
    bins: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
}

impl Spectrum {
    /// Of frames of so many samples, which are at most the `length` of the FFT.
    pub(super) fn new(samples: usize, length: usize) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(length);
        Self {
            window: (0..samples).map(|n| (0.5 - 0.5 * (TAU * n as f64 / samples as f64).cos()) as f32).collect(),
            padded: fft.make_input_vec(),
            bins: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
        }
    }

    /// Bins 0 to half the length of the FFT.
    pub(super) fn of<'a>(&mut self, samples: impl IntoIterator<Item = &'a f32>) -> &[Complex<f32>] {
        for ((p, s), w) in self.padded.iter_mut().zip(samples).zip(&self.window) {
            *p = s * w;
        }
        // The transform leaves its own numbers there.
        self.padded[self.window.len()..].fill(0.0);
        let done = self.fft.process_with_scratch(&mut self.padded, &mut self.bins, &mut self.scratch);
        debug_assert!(done.is_ok(), "the buffers are the planner's own");
        &self.bins
    }
}

/// One filter: weights of the spectrum's bins from `first` on.
pub(super) struct Filter {
    first: usize,
    weights: Vec<f32>,
}

impl Filter {
    /// The sum of what `of` says of each bin.
    pub(super) fn sum(&self, bins: &[Complex<f32>], of: impl Fn(&Complex<f32>) -> f32) -> f32 {
        self.weights.iter().zip(&bins[self.first..]).map(|(w, c)| w * of(c)).sum()
    }
}

/// 80 triangles of peak 1 over 0..8000 Hz on the mel scale of HTK, `2595 log10(1 + f / 700)` (O'Shaughnessy 1987).
pub(super) fn htk(length: usize) -> Vec<Filter> {
    let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
    let hertz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
    let top = mel(f64::from(SAMPLE_RATE) / 2.0);
    triangles(length, |i| hertz(top * i as f64 / (BINS + 1) as f64), |_| 1.0)
}

/// 80 triangles of unit area over `low..high` Hz on Slaney's scale, linear up to 1000 Hz and logarithmic beyond (Malcolm Slaney,
/// Auditory Toolbox, 1998).
pub(super) fn slaney(length: usize, low: f64, high: f64) -> Vec<Filter> {
    const STEP: f64 = 200.0 / 3.0;
    const KNEE: f64 = 1000.0;
    let log_step = 6.4f64.ln() / 27.0;
    let mel = |hz: f64| if hz < KNEE { hz / STEP } else { KNEE / STEP + (hz / KNEE).ln() / log_step };
    let hertz = |mel: f64| if mel < KNEE / STEP { mel * STEP } else { KNEE * (log_step * (mel - KNEE / STEP)).exp() };
    let (low, high) = (mel(low), mel(high));
    triangles(length, |i| hertz(low + (high - low) * i as f64 / (BINS + 1) as f64), |width| 2.0 / width)
}

/// Triangles whose corners `edge` gives in Hz, three one after another each; `height` of one that is so wide.
fn triangles(length: usize, edge: impl Fn(usize) -> f64, height: impl Fn(f64) -> f64) -> Vec<Filter> {
    let filter = |b: usize| {
        let (left, centre, right) = (edge(b), edge(b + 1), edge(b + 2));
        let weight = |k: usize| {
            let f = k as f64 * f64::from(SAMPLE_RATE) / length as f64;
            let side = ((f - left) / (centre - left)).min((right - f) / (right - centre)).max(0.0);
            (side * height(right - left)) as f32
        };
        let first = (0..=length / 2).find(|k| weight(*k) > 0.0).unwrap_or(0);
        Filter { first, weights: (first..=length / 2).map(weight).take_while(|w| *w > 0.0).collect() }
    };
    (0..BINS).map(filter).collect()
}
