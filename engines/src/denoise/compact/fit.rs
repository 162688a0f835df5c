//! Fits an [`Adapter`] to one person: ridge regression of what the general engine's latents lack, by blocked
//! cross-validation, so that no frame is judged by what was fitted to its own neighbours.

use nalgebra::{Cholesky, DMatrix};

use super::{Compact, adapted::Adapter};
use crate::{Result, denoise::Denoiser as _, geometry::landmarks, ruler::series};

/// Blocks of time, each held out once.
const BLOCKS: usize = 6;
/// Frames at both ends of a held-out block that are not judged: their sound reaches into its neighbours.
const EDGE: usize = 8;
/// Fewest pairs that a correction is fitted to: eight seconds.
pub const FEWEST: usize = 200;
/// Penalties on the correction by the latent and by the sound, each a multiple of the number of pairs.
const MOTION_PENALTIES: [f64; 3] = [0.1, 1.0, 10.0];
const SOUND_PENALTIES: [f64; 7] = [0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e6];
/// The opening's spread is brought to the person's by no more than this.
const GAIN: std::ops::RangeInclusive<f64> = 0.6..=1.5;
/// A correction is kept where the lips are nearer by this factor,
const NEARER: f64 = 0.97;
/// in so many of the blocks,
const NEARER_BLOCKS: usize = 4;
/// and where the opening's correlation grows in all blocks but one: chance makes it so in one of nine.
const CLOSER_BLOCKS: usize = BLOCKS - 1;

/// A frame whose mouth was seen and whose sound was heard.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The general engine's latent, `[D]`.
    pub heard: Vec<f32>,
    /// The audio window, `[W]`.
    pub audio: Vec<f32>,
    /// The latent that the picture shows, `[D]`.
    pub seen: Vec<f32>,
}

/// How latents that were heard agree with those that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// Pearson's correlation of the inner lips' opening.
    pub r: f64,
    /// Root mean square distance of the lips' points, in parts of the crop's side.
    pub lips: f64,
    /// Standard deviation of the opening over that which was seen.
    pub spread: f64,
}

/// What a fitted correction holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Nothing was bettered.
    #[default]
    Nothing,
    /// One factor on all motion.
    Range,
    /// The motion's own correction, and the factor.
    Motion,
}

/// What came of a fit; figures are of blocks that were held out.
#[derive(Clone, Debug)]
pub struct Fit {
    pub before: Agreement,
    pub after: Agreement,
    pub kept: Kept,
    /// `None` where the general engine is not bettered.
    pub adapter: Option<Adapter>,
}

/// Sums of products of some pairs' inputs and of inputs with what is lacking.
struct Sums {
    inputs: DMatrix<f64>,
    lacking: DMatrix<f64>,
}

struct Problem<'a> {
    engine: &'a Compact,
    pairs: &'a [Pair],
    /// Places within the audio window that are looked at,
    places: Vec<usize>,
    /// and what brings each to unit size about silence.
    sizes: Vec<f64>,
    latent: usize,
    blocks: Vec<Sums>,
}

/// Fits a correction to `pairs`, which are in the order of time, at least [`FEWEST`].
pub fn fit(engine: &Compact, pairs: &[Pair]) -> Result<Fit> {
    if pairs.len() < FEWEST {
        return Err(crate::Error::invalid(format!("{} frames with sound are fewer than {FEWEST}", pairs.len())));
    }
    let problem = Problem::new(engine, pairs);
    let heard: Vec<Vec<f32>> = pairs.iter().map(|p| p.heard.clone()).collect();
    let before = problem.judge(&heard);
    let range = problem.ranged(&heard);
    let range_helps = range.figures.lips < NEARER * before.lips
        && range.count(|b, a| a.lips < b.lips, &problem, &heard) >= NEARER_BLOCKS;
    let mut best: Option<(Candidate, [f64; 2])> = None;
    for motion in MOTION_PENALTIES {
        for sound in SOUND_PENALTIES {
            let Some(made) = problem.held_out([motion, sound]) else { continue };
            let found = problem.ranged(&made);
            tracing::debug!(motion, sound, figures = ?found.figures, "tried");
            if best.as_ref().is_none_or(|(best, _)| found.figures.lips < best.figures.lips) {
                best = Some((found, [motion, sound]));
            }
        }
    }
    // Against the better of the two that need no correction, each with the person's range.
    let fair = if range_helps { &range.made } else { &heard };
    if let Some((found, penalties)) = best {
        let nearer = found.count(|b, a| a.lips < b.lips, &problem, fair);
        let closer = found.count(|b, a| a.r > b.r, &problem, fair);
        tracing::debug!(?before, range = ?range.figures, range.gain, best = ?found.figures, found.gain, nearer, closer, "judged");
        let helps = found.figures.lips < NEARER * problem.judge(fair).lips && found.figures.r > before.r;
        if helps
            && nearer >= NEARER_BLOCKS
            && closer >= CLOSER_BLOCKS
            && let Some(weights) = problem.solve(None, penalties)
        {
            let adapter = Some(problem.adapter(&weights, found.gain)?);
            return Ok(Fit { before, after: found.figures, kept: Kept::Motion, adapter });
        }
    }
    if !range_helps {
        return Ok(Fit { before, after: before, kept: Kept::Nothing, adapter: None });
    }
    let none = DMatrix::zeros(problem.latent + problem.places.len(), problem.latent);
    let adapter = Some(problem.adapter(&none, range.gain)?);
    Ok(Fit { before, after: range.figures, kept: Kept::Range, adapter })
}

/// Latents with the range that the person's have.
struct Candidate {
    gain: f64,
    made: Vec<Vec<f32>>,
    figures: Agreement,
}

impl Candidate {
    /// Blocks in which it is better than `other`.
    fn count(&self, better: impl Fn(&Agreement, &Agreement) -> bool, problem: &Problem, other: &[Vec<f32>]) -> usize {
        let figures = |block: usize, latents: &[Vec<f32>]| problem.judge_in(block..block + 1, latents);
        (0..BLOCKS).filter(|block| better(&figures(*block, other), &figures(*block, &self.made))).count()
    }
}

impl<'a> Problem<'a> {
    fn new(engine: &'a Compact, pairs: &'a [Pair]) -> Self {
        let window = &engine.spec().window;
        let latent = engine.spec().latent;
        // Neighbouring features overlap: every second one, the newest among them, says as much.
        let taps = window.taps.len();
        let places: Vec<usize> = (0..taps)
            .filter(|tap| (taps - 1 - tap).is_multiple_of(2))
            .flat_map(|tap| tap * window.dims..(tap + 1) * window.dims)
            .collect();
        let about_silence = |pair: &Pair, place: usize| f64::from(pair.audio[place] - silence(engine, place));
        let size = |place: &usize| {
            let sum: f64 = pairs.iter().map(|p| about_silence(p, *place).powi(2)).sum();
            1.0 / (sum / pairs.len() as f64).sqrt().max(1e-3)
        };
        let sizes = places.iter().map(size).collect();
        let mut problem = Self { engine, pairs, places, sizes, latent, blocks: Vec::new() };
        problem.blocks = (0..BLOCKS).map(|block| problem.sums(block)).collect();
        problem
    }

    fn range(&self, block: usize) -> std::ops::Range<usize> {
        self.pairs.len() * block / BLOCKS..self.pairs.len() * (block + 1) / BLOCKS
    }

    fn input(&self, pair: &Pair) -> Vec<f64> {
        let sound = self.places.iter().zip(&self.sizes);
        let sound = sound.map(|(place, size)| f64::from(pair.audio[*place] - silence(self.engine, *place)) * size);
        pair.heard.iter().map(|z| f64::from(*z)).chain(sound).collect()
    }

    fn sums(&self, block: usize) -> Sums {
        let pairs = &self.pairs[self.range(block)];
        let inputs: Vec<f64> = pairs.iter().flat_map(|p| self.input(p)).collect();
        let lacking: Vec<f64> =
            pairs.iter().flat_map(|p| p.seen.iter().zip(&p.heard).map(|(s, h)| f64::from(s - h))).collect();
        let inputs = DMatrix::from_row_slice(pairs.len(), self.latent + self.places.len(), &inputs);
        let lacking = DMatrix::from_row_slice(pairs.len(), self.latent, &lacking);
        let turned = inputs.transpose();
        Sums { inputs: &turned * &inputs, lacking: &turned * &lacking }
    }

    /// Weights `[inputs, D]` from all blocks but `without`.
    fn solve(&self, without: Option<usize>, [motion, sound]: [f64; 2]) -> Option<DMatrix<f64>> {
        let size = self.latent + self.places.len();
        let (mut inputs, mut lacking) = (DMatrix::zeros(size, size), DMatrix::zeros(size, self.latent));
        let mut count = 0;
        for (block, sums) in self.blocks.iter().enumerate().filter(|(block, _)| Some(*block) != without) {
            inputs += &sums.inputs;
            lacking += &sums.lacking;
            count += self.range(block).len();
        }
        for i in 0..size {
            inputs[(i, i)] += count as f64 * if i < self.latent { motion } else { sound };
        }
        Some(Cholesky::new(inputs)?.solve(&lacking))
    }

    /// The corrected latents of all pairs, each from the blocks that it is not of.
    fn held_out(&self, penalties: [f64; 2]) -> Option<Vec<Vec<f32>>> {
        let mut made = Vec::with_capacity(self.pairs.len());
        for block in 0..BLOCKS {
            let weights = self.solve(Some(block), penalties)?;
            for pair in &self.pairs[self.range(block)] {
                let input = DMatrix::from_row_slice(1, weights.nrows(), &self.input(pair));
                let change = input * &weights;
                made.push(pair.heard.iter().zip(change.iter()).map(|(h, c)| h + *c as f32).collect());
            }
        }
        Some(made)
    }

    /// Brings the opening's spread to the person's.
    fn ranged(&self, latents: &[Vec<f32>]) -> Candidate {
        let gain = (1.0 / self.judge(latents).spread.max(1e-3)).clamp(*GAIN.start(), *GAIN.end());
        let scaled = |latent: &Vec<f32>| latent.iter().map(|z| z * gain as f32).collect();
        let made: Vec<Vec<f32>> = latents.iter().map(scaled).collect();
        Candidate { gain, figures: self.judge(&made), made }
    }

    fn judge(&self, made: &[Vec<f32>]) -> Agreement {
        self.judge_in(0..BLOCKS, made)
    }

    fn judge_in(&self, blocks: std::ops::Range<usize>, made: &[Vec<f32>]) -> Agreement {
        let judged: Vec<usize> = blocks
            .flat_map(|block| {
                let range = self.range(block);
                range.start + EDGE..range.end.saturating_sub(EDGE)
            })
            .collect();
        let (mut openings, mut distance) = ((Vec::new(), Vec::new()), 0.0);
        for i in &judged {
            let (made, seen) = (self.engine.basis.motion(&made[*i]), self.engine.basis.motion(&self.pairs[*i].seen));
            openings.0.push(f64::from(super::person::opening(&made)));
            openings.1.push(f64::from(super::person::opening(&seen)));
            distance += landmarks::LIPS.map(|p| f64::from(made[p].distance(seen[p])).powi(2)).sum::<f64>();
        }
        let count = (judged.len() * landmarks::LIPS.len()).max(1) as f64;
        Agreement {
            r: series::pearson(&openings.0, &openings.1).unwrap_or(0.0),
            lips: (distance / count).sqrt(),
            spread: series::deviation(&openings.0) / series::deviation(&openings.1).max(1e-9),
        }
    }

    fn adapter(&self, weights: &DMatrix<f64>, gain: f64) -> Result<Adapter> {
        let (latent, window) = (self.latent, self.engine.spec().window.len());
        let mut motion = vec![0.0; latent * latent];
        let mut sound = vec![0.0; latent * window];
        for to in 0..latent {
            for from in 0..latent {
                let same = if from == to { 1.0 } else { 0.0 };
                motion[to * latent + from] = (gain * (same + weights[(from, to)]) - same) as f32;
            }
            for (i, (place, size)) in self.places.iter().zip(&self.sizes).enumerate() {
                sound[to * window + place] = (gain * size * weights[(latent + i, to)]) as f32;
            }
        }
        Adapter::new(motion, sound, self.engine.silence())
    }
}

/// The feature of lasting silence at a place of the window.
fn silence(engine: &Compact, place: usize) -> f32 {
    let silence = &engine.spec().window.silence;
    silence[place % silence.len()]
}
