use super::super::{
    BINS, FRAME_SAMPLES, HOP_SAMPLES,
    spectrum::{Filter, Spectrum, slaney},
};

const FFT: usize = FRAME_SAMPLES;
/// Samples before and after the one that a column is centred on.
const HALF: usize = FFT / 2;
/// Where the filters end, in Hz.
const HIGH: f64 = 8000.0;
/// Least energy of a bin, and its decimal logarithm.
const LEAST: f32 = 1e-10;
pub(crate) const NOTHING: f32 = -10.0;
/// What is kept below the maximum, in powers of ten: 80 dB.
const RANGE: f32 = 8.0;

/// One column, not normalised: decimal logarithms.
pub type Column = [f32; BINS];

/// Streaming mel of Whisper (openai/whisper, whisper/audio.py; transformers computes the same): column `k` is centred on sample
/// `160 k`, periodic Hann window of 400, power, 80 Slaney filters over 0..8000 Hz of unit area, `log10(max(1e-10, e))`. Before the
/// first sample and after the last the signal is reflected. Of `n` samples there are `n / 160` columns: the last one, at or
/// before the end, is dropped as Whisper does. What follows, [`normalise`], needs a maximum.
pub struct LogMel {
    spectrum: Spectrum,
    filters: Vec<Filter>,
    /// Samples from the first that the next column needs.
    pending: Vec<f32>,
    /// Whether what is before the first sample is in `pending`,
    begun: bool,
    /// and whether that is silence in the place of a reflection.
    silence_before: bool,
    /// Samples taken and columns given.
    samples: u64,
    columns: u64,
}

impl Default for LogMel {
    fn default() -> Self {
        Self {
            spectrum: Spectrum::new(FFT, FFT),
            filters: slaney(FFT, 0.0, HIGH),
            pending: Vec::with_capacity(2 * FFT),
            begun: false,
            silence_before: false,
            samples: 0,
            columns: 0,
        }
    }
}

impl LogMel {
    /// Before the first sample is silence.
    pub fn after_silence() -> Self {
        let mut mel = Self { silence_before: true, ..Self::default() };
        mel.reset();
        mel
    }

    /// Takes samples in -1..1 and calls `sink` with each column that they complete.
    pub fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&Column)) {
        for samples in samples.chunks(FFT) {
            self.samples += samples.len() as u64;
            self.pending.extend(samples.iter().map(|s| if s.is_finite() { s.clamp(-8.0, 8.0) } else { 0.0 }));
            self.begin();
            self.drain(u64::MAX, sink);
        }
    }

    /// Ends the signal: gives the columns that are left, and forgets everything.
    pub fn finish(&mut self, sink: &mut dyn FnMut(&Column)) {
        let columns = self.samples / HOP_SAMPLES as u64;
        if !self.begun {
            // Too short to be reflected: as if silence followed.
            self.pending.resize(HALF + 1, 0.0);
            self.begin();
        }
        let end = self.pending.len();
        for i in 0..HALF {
            self.pending.push(self.pending[end.saturating_sub(2 + i)]);
        }
        self.drain(columns, sink);
        self.reset();
    }

    /// Forgets everything heard.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.pending.resize(if self.silence_before { HALF } else { 0 }, 0.0);
        (self.begun, self.samples, self.columns) = (self.silence_before, 0, 0);
    }

    /// What was heard and is still needed was silence.
    pub fn hush(&mut self) {
        self.pending.fill(0.0);
    }

    /// Reflects the beginning, as soon as it is there.
    fn begin(&mut self) {
        if !self.begun && self.pending.len() > HALF {
            self.begun = true;
            let before: Vec<f32> = (1..=HALF).rev().map(|i| self.pending[i]).collect();
            self.pending.splice(0..0, before);
        }
    }

    fn drain(&mut self, most: u64, sink: &mut dyn FnMut(&Column)) {
        while self.begun && self.pending.len() >= FFT && self.columns < most {
            let column = self.column();
            self.columns += 1;
            self.pending.drain(..HOP_SAMPLES);
            sink(&column);
        }
    }

    fn column(&mut self) -> Column {
        let bins = self.spectrum.of(&self.pending);
        std::array::from_fn(|b| {
            let energy = self.filters[b].sum(bins, |c| c.norm_sqr());
            energy.max(LEAST).log10()
        })
    }
}

/// What Whisper sees of a logarithm where the greatest is `maximum`: `(max(y, maximum - 8) + 4) / 4`. The maximum moves the floor
/// and nothing else.
pub fn normalise(y: f32, maximum: f32) -> f32 {
    (y.max(maximum - RANGE) + 4.0) / 4.0
}

/// The greatest of a column.
pub(crate) fn peak(column: &Column) -> f32 {
    column.iter().copied().fold(NOTHING, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(samples: &[f32], piece: usize) -> Vec<Column> {
        let (mut mel, mut columns) = (LogMel::default(), Vec::new());
        samples.chunks(piece).for_each(|piece| mel.push(piece, &mut |column| columns.push(*column)));
        mel.finish(&mut |column| columns.push(*column));
        columns
    }

    fn tone(hertz: f32, count: usize) -> Vec<f32> {
        (0..count).map(|n| 0.5 * (std::f32::consts::TAU * hertz * n as f32 / 16_000.0).cos()).collect()
    }

    #[test]
    fn a_tone_is_in_its_filter_with_the_power_of_a_hann_window() {
        // 1000 Hz lies in the FFT's bin 25: magnitude 0.5 · 200 / 2 = 50 there and half of it in the two beside it. Filters are
        // 37.2 Hz apart there, and of unit area: what they weigh together is 1 / 37.2 at any place.
        let found = columns(&tone(1000.0, 3200), 3200);
        let column = &found[10];
        let loudest = (0..BINS).max_by(|a, b| column[*a].total_cmp(&column[*b])).unwrap();
        assert!((25..=26).contains(&loudest), "{loudest}");
        let energy: f32 = column.iter().map(|y| 10f32.powf(*y)).sum();
        assert!((energy / (2500.0 * 1.5 / 37.2) - 1.0).abs() < 0.08, "{energy}");
        assert!(column[60] < -4.0, "{column:?}");
        // The reflection of a cosine at its first sample is the cosine.
        assert!(column.iter().zip(&found[0]).all(|(a, b)| *a < 0.0 || (a - b).abs() < 1e-3));
    }

    #[test]
    fn columns_are_the_same_in_pieces_of_any_size_and_as_many_as_hops() {
        let samples: Vec<f32> = (0..4999).map(|n| ((n * n) as f32 * 1e-4).sin() * 0.3).collect();
        let whole = columns(&samples, 4999);
        assert_eq!(whole.len(), 31);
        for piece in [1, 7, 160, 441] {
            assert_eq!(columns(&samples, piece), whole, "{piece}");
        }
        for (count, wanted) in [(0, 0), (1, 0), (159, 0), (160, 1), (200, 1), (400, 2), (32_000, 200)] {
            assert_eq!(columns(&tone(300.0, count), 100).len(), wanted, "{count}");
        }
    }

    #[test]
    fn the_maximum_moves_the_floor_only() {
        assert_eq!((normalise(1.0, 1.0), normalise(-3.0, 2.0), normalise(-10.0, 2.0)), (1.25, 0.25, -0.5));
        let heard = columns(&[f32::NAN, 1e30, 0.1].repeat(400), 50);
        assert!(heard.iter().flatten().all(|y| y.is_finite()));
    }
}
