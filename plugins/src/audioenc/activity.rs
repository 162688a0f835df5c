//! Whether a hop has voice in it, by its level alone: what a pacer puts between sentences is silence or nearly so.

use lipstream_engines::audio::SAMPLE_RATE;

/// RMS, relative to a full-scale square wave, from which on there is voice: -52 dBFS.
const OPENS: f32 = 0.002_512;
/// RMS below which there is none any more: -58 dBFS. The 6 dB between the two keep a breath from flickering.
const CLOSES: f32 = 0.001_259;
/// The level is that of the loudest block of 5 ms, so that an onset at the end of a hop is not averaged away.
const BLOCK: usize = SAMPLE_RATE as usize / 200;

/// A level gate with hysteresis.
#[derive(Debug, Default)]
pub struct VoiceActivity {
    open: bool,
}

impl VoiceActivity {
    /// Whether there is voice in `samples`, the audio that the next feature is made of. Zeros never are voice.
    pub fn voiced(&mut self, samples: &[f32]) -> bool {
        let power = |block: &[f32]| block.iter().map(|s| s * s).sum::<f32>() / block.len() as f32;
        let loudest = samples.chunks(BLOCK).map(power).fold(0.0, f32::max);
        let limit = if self.open { CLOSES } else { OPENS };
        self.open = loudest >= limit * limit;
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(dbfs: f32) -> Vec<f32> {
        let level = 10f32.powf(dbfs / 20.0);
        (0..560).map(|i| if i % 2 == 0 { level } else { -level }).collect()
    }

    #[test]
    fn it_opens_and_closes_6_db_apart() {
        let mut activity = VoiceActivity::default();
        let heard: Vec<bool> = [-80.0, -55.0, -50.0, -55.0, -57.0, -59.0, -55.0, -50.0]
            .into_iter()
            .map(|dbfs| activity.voiced(&at(dbfs)))
            .collect();
        assert_eq!(heard, [false, false, true, true, true, false, false, true]);
    }

    #[test]
    fn zeros_close_it_and_a_late_onset_opens_it() {
        let mut activity = VoiceActivity { open: true };
        assert!(!activity.voiced(&[0.0; 560]) && !activity.voiced(&[]));
        let mut onset = vec![0.0; 560];
        onset[480..].copy_from_slice(&at(-45.0)[..80]);
        assert!(activity.voiced(&onset));
    }
}
