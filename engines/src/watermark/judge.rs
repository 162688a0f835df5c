use super::{CHIP_STEPS, CHIPS, Key, PERIOD_STEPS, TILES, read::Tiles};

/// Values beyond so many deviations count less and less.
const LARGE: f32 = 3.0;

/// How well the turns of a key are in a stretch of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// The best correlation over all phases, in deviations of what keys drawn at random have.
    pub score: f64,
    /// Where the sequence begins, in steps.
    pub phase: usize,
}

impl Evidence {
    /// The most likely that frames without the mark score so high somewhere in `tries` stretches, whatever they show.
    ///
    /// A score is a sum of independent random signs with weights whose squares have the sum 1: it exceeds `z` with a chance of
    /// exp(-z^2 / 2) at most (W. Hoeffding, JASA 58(301), 1963), at each of the phases that are tried.
    pub fn false_alarm(&self, tries: usize) -> f64 {
        ((PERIOD_STEPS * tries.max(1)) as f64 * (-0.5 * self.score.max(0.0).powi(2)).exp()).min(1.0)
    }
}

/// Seeks the turns of `key` in what [`super::Reader`] said of it, each with the step at which it was.
pub fn judge<'a>(key: &Key, frames: impl Iterator<Item = (usize, &'a Tiles)> + Clone) -> Evidence {
    let count = frames.clone().count();
    if count == 0 {
        return Evidence::default();
    }
    // Tiles weigh as little as they are restless.
    let mut squares = [0.0f32; TILES];
    frames.clone().for_each(|(_, tiles)| squares.iter_mut().zip(tiles).for_each(|(sum, value)| *sum += value * value));
    let deviation = squares.map(|sum| (sum / count as f32).sqrt().max(1e-6));
    // All periods laid over each other.
    let mut period = vec![[0.0f32; TILES]; PERIOD_STEPS];
    for (step, tiles) in frames {
        for (sum, (value, deviation)) in period[step % PERIOD_STEPS].iter_mut().zip(tiles.iter().zip(&deviation)) {
            let value = value / deviation;
            *sum += value / (1.0 + value.abs() / LARGE);
        }
    }
    let mut best = Evidence { score: f64::MIN, phase: 0 };
    for within in 0..CHIP_STEPS {
        // The frames of each chip, were the first to begin `within` steps before step 0.
        let chip = |i: usize| -> Tiles {
            let step = |k: usize| (i * CHIP_STEPS + k + PERIOD_STEPS - within) % PERIOD_STEPS;
            (0..CHIP_STEPS).fold([0.0; TILES], |sum, k| std::array::from_fn(|t| sum[t] + period[step(k)][t]))
        };
        let chips: Vec<Tiles> = (0..CHIPS).map(chip).collect();
        let spread = chips.iter().flatten().map(|v| f64::from(v * v)).sum::<f64>().sqrt().max(1e-9);
        for first in 0..CHIPS {
            let signs = key.signs().iter().cycle().skip(first);
            let sum: f32 = chips.iter().zip(signs).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>()).sum();
            let score = f64::from(sum) / spread;
            if score > best.score {
                best = Evidence { score, phase: first * CHIP_STEPS + within };
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise about a mark that begins at `phase`, of `frames` frames.
    fn series(key: Option<&Key>, phase: usize, frames: usize) -> Vec<(usize, Tiles)> {
        let mut state = 12345u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..frames)
            .map(|step| {
                let signs = key.map(|key| key.signs()[(step + phase) / CHIP_STEPS % CHIPS]);
                (step, std::array::from_fn(|k| 4.0 * noise() + signs.map_or(0.0, |signs| signs[k])))
            })
            .collect()
    }

    #[test]
    fn turns_are_found_at_their_phase_in_any_part_of_the_period_and_others_are_not() {
        let (key, other) = (Key::new(1), Key::new(2));
        for (phase, frames) in [(0, 252), (101, 100), (251, 600)] {
            let series = series(Some(&key), phase, frames);
            let found = judge(&key, series.iter().map(|(step, tiles)| (*step, tiles)));
            assert_eq!(found.phase, phase, "{frames}");
            assert!(found.score > 8.0 && found.false_alarm(1) < 1e-10, "{found:?}");
            let other = judge(&other, series.iter().map(|(step, tiles)| (*step, tiles)));
            assert!(other.score < 5.0, "{other:?}");
        }
        assert_eq!(judge(&key, std::iter::empty()), Evidence::default());
    }

    #[test]
    fn noise_scores_as_the_bound_allows() {
        let mut most: f64 = 0.0;
        for number in 0..200 {
            let series = series(None, 0, 125);
            most = most.max(judge(&Key::new(number), series.iter().map(|(step, tiles)| (*step, tiles))).score);
        }
        // 50 400 phases: the Gaussian's own most is about 4.1.
        assert!((3.0..5.2).contains(&most), "{most}");
        let far = Evidence { score: 7.0, phase: 0 };
        assert!((far.false_alarm(1) / (252.0 * (-24.5f64).exp()) - 1.0).abs() < 1e-9);
        assert!(far.false_alarm(4) == 4.0 * far.false_alarm(1) && Evidence::default().false_alarm(1) == 1.0);
    }
}
