use super::{basis::Basis, person::opening};

/// Deviation of the opening in speech that is worked towards, over its mean.
const AIM: f32 = 1.0;
/// The most that deviations from the mean are stretched by.
const MOST: f32 = 1.6;
/// A mouth speaks where its opening, averaged over so many frames, is above so much of the population's range.
const RECENT: f32 = 8.0;
const SPEAKING: f32 = 0.08;
/// What is taken for the mean before anything was said, in ranges of the population, and the frames for which it stands.
const MEAN: f32 = 0.42;
const PRIOR: f32 = 50.0;
/// Frames of speech over which mean and deviation are taken.
const MEMORY: f32 = 100.0;

/// Stretches how the mouth of a stream opens and shuts around its own mean.
///
/// A motion that is estimated from sound has the right mean, but moves the less the more uncertain it is: speech of a kind
/// that was hardly heard in training comes out as a mouth that stays half open. Frames are of 40 ms.
#[derive(Clone, Debug)]
pub(super) struct Contrast {
    /// Average of the last openings, in ranges of the population as all here.
    recent: f32,
    mean: f32,
    variance: f32,
    /// Frames that mean and variance stand for.
    frames: f32,
}

impl Default for Contrast {
    fn default() -> Self {
        Self { recent: 0.0, mean: MEAN, variance: (AIM * MEAN).powi(2), frames: PRIOR }
    }
}

impl Contrast {
    /// The latent with its opening stretched, `frames` after the one before. Never does it shut a mouth further than rest.
    pub(super) fn stretch(&mut self, basis: &Basis, latent: &[f32], frames: f32) -> Vec<f32> {
        let open = opening(&basis.motion(latent)) / basis.spread;
        if !open.is_finite() {
            return latent.to_vec();
        }
        self.hear(open, frames);
        let factor = (AIM * self.mean / self.variance.max(1e-6).sqrt()).clamp(1.0, MOST);
        let wanted = (self.mean + factor * (open - self.mean)).max(open.min(0.0));
        let more = basis.open_by((wanted - open) * basis.spread);
        latent.iter().zip(more).map(|(z, more)| z + more).collect()
    }

    fn hear(&mut self, open: f32, frames: f32) {
        self.recent += (open - self.recent) * (frames / RECENT).min(1.0);
        if self.recent <= SPEAKING {
            return;
        }
        self.frames = (self.frames + frames).min(MEMORY);
        let part = (frames / self.frames).min(1.0);
        let apart = open - self.mean;
        self.mean += apart * part;
        self.variance += (apart * (open - self.mean) - self.variance) * part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Package;

    /// Deviation, lowest and highest opening of the last half of `count` frames, in ranges of the population.
    fn said(contrast: &mut Contrast, count: usize, open: impl Fn(usize) -> f32) -> (f32, f32, f32) {
        let engine = Package::find("compact").unwrap();
        let basis = Basis::read("basis", &engine.file("basis").unwrap(), 12).unwrap();
        let openings: Vec<f32> = (0..count)
            .map(|i| contrast.stretch(&basis, &basis.open_by(open(i) * basis.spread), 1.0))
            .map(|latent| opening(&basis.motion(&latent)) / basis.spread)
            .collect();
        let last = &openings[count / 2..];
        let mean = last.iter().sum::<f32>() / last.len() as f32;
        let deviation = (last.iter().map(|o| (o - mean).powi(2)).sum::<f32>() / last.len() as f32).sqrt();
        (deviation, last.iter().copied().fold(f32::MAX, f32::min), last.iter().copied().fold(f32::MIN, f32::max))
    }

    #[test]
    fn a_mouth_that_stays_half_open_shuts_and_opens_more() {
        let flat = |i: usize| 0.4 + 0.2 * (i as f32 * 0.9).sin();
        let (deviation, low, high) = said(&mut Contrast::default(), 400, flat);
        assert!((deviation - MOST * 0.2 / 2f32.sqrt()).abs() < 0.01, "{deviation}");
        assert!((low - 0.08).abs() < 0.03 && (high - 0.72).abs() < 0.03, "{low} {high}");
    }

    #[test]
    fn a_lively_mouth_and_a_resting_one_stay_as_they_are() {
        let lively = |i: usize| if i % 12 < 3 { 1.2 } else { 0.0 };
        let (deviation, low, high) = said(&mut Contrast::default(), 400, lively);
        assert!(
            (deviation - 1.2 * (0.25f32 * 0.75).sqrt()).abs() < 0.03 && low.abs() < 1e-3 && high < 1.25,
            "{deviation} {high}"
        );
        let (deviation, low, high) = said(&mut Contrast::default(), 100, |_| 0.0);
        assert!(deviation < 1e-6 && low.abs() < 1e-6 && high.abs() < 1e-6, "{low} {high}");
    }

    #[test]
    fn what_shuts_stays_shut() {
        let mut contrast = Contrast::default();
        said(&mut contrast, 200, |i| 0.4 + 0.2 * (i as f32 * 0.9).sin());
        let (_, low, high) = said(&mut contrast, 40, |_| 0.0);
        assert!(low.abs() < 1e-4 && high.abs() < 1e-4, "{low} {high}");
    }
}
