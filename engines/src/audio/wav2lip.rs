//! The mel of Wav2Lip (Rudrabha/Wav2Lip, audio.py and hparams.py), which SyncTalk_2D shares, as it streams.

use std::{collections::VecDeque, time::Duration};

use super::{
    BINS, FrontEnd,
    spectrum::{Filter, Spectrum, slaney},
};
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
    spectrum: Spectrum,
    filters: Vec<Filter>,
    /// Pre-emphasised samples from the first that the next column needs.
    pending: VecDeque<f32>,
    /// The sample before the next.
    before: f32,
    /// Whether the signal is zero, and not reflected, where there is none.
    zeros: bool,
    /// Whether what is before the first sample is in `pending`.
    begun: bool,
    silence: [f32; BINS],
}

impl Default for Wav2LipMel {
    fn default() -> Self {
        Self {
            spectrum: Spectrum::new(FFT, FFT),
            filters: slaney(FFT, LOW, HIGH),
            pending: VecDeque::with_capacity(2 * FFT),
            before: 0.0,
            zeros: false,
            begun: false,
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
        let bins = self.spectrum.of(&self.pending);
        std::array::from_fn(|b| {
            let energy = self.filters[b].sum(bins, |c| c.norm());
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
