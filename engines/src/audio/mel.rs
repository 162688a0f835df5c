use super::spectrum::{Filter, Spectrum, htk};

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
    spectrum: Spectrum,
    filters: Vec<Filter>,
    /// Samples that later frames still need.
    pending: Vec<f32>,
    frame: [f32; BINS],
}

impl Default for Mel {
    fn default() -> Self {
        Self::new()
    }
}

impl Mel {
    pub fn new() -> Self {
        Self {
            spectrum: Spectrum::new(FRAME_SAMPLES, FFT),
            filters: htk(FFT),
            pending: Vec::with_capacity(2 * FRAME_SAMPLES),
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
        let bins = self.spectrum.of(&self.pending);
        for (out, filter) in self.frame.iter_mut().zip(&self.filters) {
            *out = filter.sum(bins, |c| c.norm_sqr()).max(FLOOR).ln();
        }
    }
}
