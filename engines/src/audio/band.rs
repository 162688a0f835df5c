use std::{array, sync::LazyLock};

use super::{BINS, mel::FLOOR};

/// Bins of a telephone's band: their filters peak between 320 and 3300 Hz.
const FIRST: usize = 12;
const INSIDE: usize = 44;
const BEYOND: usize = BINS - INSIDE;
/// A row for each bin of the band and one of constants, a column for each bin beyond it, by `engines/train/band.py` from
/// 91 recordings of some hundred people: what bins beyond the band hold, from those in it.
static WEIGHTS: &[u8; (INSIDE + 1) * BEYOND * 4] = include_bytes!("band.f32");
/// The band is heard where its mean is above silence by this: 13 dB.
const HEARD: f32 = 3.0;
/// Part of the way that the lack of a bin goes in a frame, and the frames that the first counts as.
const PACE: f32 = 0.03;
const HASTE: f32 = 5.0;
/// Most that one frame says of a lack: 26 dB.
const MOST: f32 = 6.0;
/// A bin that lacks the first is left, one that lacks the second is filled: 15 and 22 dB.
const LEFT: f32 = 3.5;
const FILLED: f32 = 5.0;

/// Fills what a telephone, a low sampling rate or a codec has taken from speech: bins that have long been far below what
/// those of the band let expect. Each frame depends on those before it only.
///
/// Networks that learnt from whole speech take its missing high frequencies for shut lips.
#[derive(Default)]
pub struct Band {
    /// How far each bin beyond the band is below its expectation, smoothed.
    lack: Lack,
    frames: u32,
}

struct Lack([f32; BEYOND]);

impl Default for Lack {
    fn default() -> Self {
        Self([0.0; BEYOND])
    }
}

impl Band {
    /// Fills the next frame of logarithmic mel bins.
    pub fn fill(&mut self, frame: &[f32; BINS]) -> [f32; BINS] {
        static TABLE: LazyLock<Vec<f32>> =
            LazyLock::new(|| WEIGHTS.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect());
        let inside = &frame[FIRST..FIRST + INSIDE];
        if inside.iter().sum::<f32>() / INSIDE as f32 <= FLOOR.ln() + HEARD {
            return *frame;
        }
        let mut expected: [f32; BEYOND] = array::from_fn(|n| TABLE[INSIDE * BEYOND + n]);
        for (row, y) in TABLE.chunks_exact(BEYOND).zip(inside) {
            expected.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight * y);
        }
        let pace = PACE.max(1.0 / (self.frames as f32 + 1.0 + HASTE));
        self.frames = self.frames.saturating_add(1);
        let mut filled = *frame;
        for (n, (lack, expected)) in self.lack.0.iter_mut().zip(expected).enumerate() {
            let bin = if n < FIRST { n } else { n + INSIDE };
            let below = expected - frame[bin];
            *lack += pace * (below.clamp(-MOST, MOST) - *lack);
            let share = ((*lack - LEFT) / (FILLED - LEFT)).clamp(0.0, 1.0);
            filled[bin] += share * below.max(0.0);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame that falls towards high frequencies, as the mean of speech does.
    fn voice(level: f32) -> [f32; BINS] {
        array::from_fn(|bin| level - 0.03 * bin as f32)
    }

    #[test]
    fn the_band_is_that_of_the_table() {
        let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
        let peak = |bin: usize| 700.0 * (10f64.powf(mel(8000.0) * (bin + 1) as f64 / (BINS + 1) as f64 / 2595.0) - 1.0);
        let inside: Vec<usize> = (0..BINS).filter(|bin| (320.0..3300.0).contains(&peak(*bin))).collect();
        assert_eq!((inside[0], inside.len()), (FIRST, INSIDE));
    }

    #[test]
    fn what_a_telephone_took_is_filled_and_whole_speech_is_left() {
        let (mut whole, mut cut) = (Band::default(), Band::default());
        let frame = voice(0.0);
        let narrow: [f32; BINS] =
            array::from_fn(|bin| if (FIRST..FIRST + INSIDE).contains(&bin) { frame[bin] } else { FLOOR.ln() });
        let mut filled = [0.0; BINS];
        for _ in 0..100 {
            assert_eq!(whole.fill(&frame), frame);
            filled = cut.fill(&narrow);
        }
        let expected = filled[FIRST + INSIDE..].iter().sum::<f32>() / (BINS - FIRST - INSIDE) as f32;
        assert!(expected > FLOOR.ln() + 6.0, "{filled:?}");
        assert_eq!(filled[FIRST..FIRST + INSIDE], frame[FIRST..FIRST + INSIDE]);
    }

    #[test]
    fn silence_says_nothing() {
        let (mut band, silence) = (Band::default(), [FLOOR.ln(); BINS]);
        for _ in 0..100 {
            assert_eq!(band.fill(&silence), silence);
        }
        assert_eq!(band.frames, 0);
    }
}
