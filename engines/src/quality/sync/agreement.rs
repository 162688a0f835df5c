//! How well lips and voice agree at each lag, over what of both was seen of late.

use super::super::{expert::Rows, series};

/// Frames of 40 ms by which lips and voice are shifted against each other at most.
pub const REACH: usize = 10;
/// Frames judged after which an old one counts 1/e: 12 s of speech.
const MEMORY: f64 = 300.0;
/// Fewer than these frames, 8 s of speech, say nothing.
const FEWEST: f64 = 200.0;
/// Confidence times the root of the number of frames from which on an offset is sure. Lips and a voice that have nothing to do with
/// each other stay below 1.5 in 99 of 100 cases (confidences of 0.10, 0.08 and 0.063 were measured over 200, 300 and 500 frames); these
/// lips are known to follow this voice,
pub const RELATED: f64 = 1.6;
/// and of these it is not known.
pub const UNKNOWN: f64 = 2.4;

/// What lips and voice say of their offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Frames of 40 ms by which the picture is late.
    pub frames: i32,
    /// The best agreement, a mean cosine, less the median of all lags.
    pub confidence: f64,
    /// Whether chance does not explain it.
    pub sure: bool,
}

/// Sums of the agreement at `-REACH..=REACH` frames; old frames fade.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreement {
    sums: [f64; 2 * REACH + 1],
    /// Sum of the weights of the frames, and of their squares.
    weight: f64,
    squares: f64,
}

impl Agreement {
    /// Adds frame `i` of lips and voice that begin together. Both must reach [`REACH`] frames to either side of it.
    ///
    /// # Panics
    /// Where they do not.
    pub fn add(&mut self, lips: &Rows, voice: &Rows, i: usize) {
        let old = (-1.0 / MEMORY).exp();
        for (k, sum) in self.sums.iter_mut().enumerate() {
            // Lips that are late by n frames go with the voice of n frames before.
            *sum = *sum * old + lips.agreement(i, voice, i + REACH - k);
        }
        self.weight = self.weight * old + 1.0;
        self.squares = self.squares * old * old + 1.0;
    }

    /// What is sure by [`RELATED`] or [`UNKNOWN`]; `None` before there is enough.
    pub fn verdict(&self, chance: f64) -> Option<Verdict> {
        let frames = self.weight * self.weight / self.squares.max(1.0);
        if frames < FEWEST {
            return None;
        }
        let curve = self.sums.map(|sum| sum / self.weight);
        let best = (0..curve.len()).max_by(|a, b| curve[*a].total_cmp(&curve[*b]))?;
        let confidence = curve[best] - series::median(&curve)?;
        Some(Verdict { frames: best as i32 - REACH as i32, confidence, sure: confidence * frames.sqrt() > chance })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::expert::tests::turning, *};

    /// Adds so many frames of a voice and of lips that are late by so many.
    fn add(agreement: &mut Agreement, frames: usize, late: usize) {
        let (lips, voice) = (turning(frames + 2 * REACH, late), turning(frames + 2 * REACH, 0));
        (REACH..REACH + frames).for_each(|i| agreement.add(&lips, &voice, i));
    }

    #[test]
    fn lips_that_are_late_are_found_once_there_is_enough() {
        for late in [0, 3, 10] {
            let mut agreement = Agreement::default();
            add(&mut agreement, 190, late);
            assert_eq!(agreement.verdict(RELATED), None);
            add(&mut agreement, 30, late);
            let found = agreement.verdict(RELATED).unwrap();
            assert!(found.frames == late as i32 && found.sure && found.confidence > 0.9, "{found:?}");
        }
    }

    #[test]
    fn a_change_is_followed_in_eleven_seconds_of_speech() {
        let mut agreement = Agreement::default();
        add(&mut agreement, 1500, 0);
        add(&mut agreement, 150, 4);
        assert_eq!(agreement.verdict(RELATED).unwrap().frames, 0);
        add(&mut agreement, 125, 4);
        assert_eq!(agreement.verdict(RELATED).unwrap().frames, 4);
    }

    #[test]
    fn what_has_nothing_to_do_with_each_other_is_not_sure() {
        let mut agreement = Agreement::default();
        for piece in 0..20 {
            add(&mut agreement, 40, 30 + piece);
            let verdict = agreement.verdict(RELATED);
            assert!(verdict.is_none_or(|verdict| !verdict.sure), "{verdict:?}");
        }
    }
}
