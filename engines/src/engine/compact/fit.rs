//! Finds the range of a person's motion: the factor that gives the general engine's mouth the person's spread, judged on
//! blocks of time that it was not taken from.

use std::ops::Range;

use super::{Compact, contrast::Contrast, person::opening};
use crate::{Error, Result, geometry::landmarks, quality::series};

/// Blocks of time, each held out once.
const BLOCKS: usize = 6;
/// Frames at both ends of a held-out block that are not judged: they are much like their neighbours.
const EDGE: usize = 8;
/// Fewest pairs that a range is taken from: eight seconds.
pub const FEWEST: usize = 200;
/// Ranges that are believed.
const RANGES: std::ops::RangeInclusive<f64> = 0.6..=1.5;
/// A range is kept where the lips are nearer by this factor,
const NEARER: f64 = 0.97;
/// and nearer at all in so many of the blocks.
const NEARER_BLOCKS: usize = 4;

/// A frame whose mouth was seen and whose sound was heard.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The general engine's latent, `[D]`.
    pub heard: Vec<f32>,
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

/// What came of a fit; figures are of blocks that were held out.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    pub before: Agreement,
    pub after: Agreement,
    /// Factor on the motion; `None` where it does not bring the lips nearer.
    pub range: Option<f32>,
}

/// Finds the range of `pairs`, which are in the order of time, some 40 ms apart, at least [`FEWEST`].
pub fn fit(engine: &Compact, pairs: &[Pair]) -> Result<Fit> {
    if pairs.len() < FEWEST {
        return Err(Error::invalid(format!("{} frames with sound are fewer than {FEWEST}", pairs.len())));
    }
    let mut contrast = Contrast::default();
    let stretched =
        |pair: &Pair| Pair { heard: contrast.stretch(&engine.basis, &pair.heard, 1.0), seen: pair.seen.clone() };
    let pairs = &pairs.iter().map(stretched).collect::<Vec<_>>()[..];
    let block = |i: usize| pairs.len() * i / BLOCKS..pairs.len() * (i + 1) / BLOCKS;
    let judged = |i: usize| block(i).start + EDGE..block(i).end - EDGE;
    // Each block with the range of the others.
    let held_out = |i: usize| {
        let others = [&pairs[..block(i).start], &pairs[block(i).end..]].concat();
        range(engine, &others)
    };
    let (plain, ranged): (Vec<f64>, Vec<f64>) = (vec![1.0; BLOCKS], (0..BLOCKS).map(held_out).collect());
    let agreement = |ranges: &[f64], blocks: Range<usize>| {
        let parts = blocks.flat_map(|i| pairs[judged(i)].iter().map(move |pair| (pair, ranges[i])));
        judge(engine, parts)
    };
    let (before, after) = (agreement(&plain, 0..BLOCKS), agreement(&ranged, 0..BLOCKS));
    let nearer = |i: &usize| agreement(&ranged, *i..i + 1).lips < agreement(&plain, *i..i + 1).lips;
    let helps = after.lips < NEARER * before.lips && (0..BLOCKS).filter(nearer).count() >= NEARER_BLOCKS;
    Ok(Fit { before, after, range: helps.then(|| range(engine, pairs) as f32) })
}

fn range(engine: &Compact, pairs: &[Pair]) -> f64 {
    let spread = judge(engine, pairs.iter().map(|pair| (pair, 1.0))).spread;
    (1.0 / spread.max(1e-3)).clamp(*RANGES.start(), *RANGES.end())
}

/// Compares pairs, the heard latent of each scaled by a range of its own.
fn judge<'a>(engine: &Compact, pairs: impl Iterator<Item = (&'a Pair, f64)>) -> Agreement {
    let (mut heard, mut seen, mut distance) = (Vec::new(), Vec::new(), 0.0);
    for (pair, range) in pairs {
        let latent: Vec<f32> = pair.heard.iter().map(|z| z * range as f32).collect();
        let (made, shown) = (engine.basis.motion(&latent), engine.basis.motion(&pair.seen));
        heard.push(f64::from(opening(&made)));
        seen.push(f64::from(opening(&shown)));
        distance += landmarks::LIPS.map(|p| f64::from(made[p].distance(shown[p])).powi(2)).sum::<f64>();
    }
    let count = (heard.len() * landmarks::LIPS.len()).max(1) as f64;
    Agreement {
        r: series::pearson(&heard, &seen).unwrap_or_default(),
        lips: (distance / count).sqrt(),
        spread: series::deviation(&heard) / series::deviation(&seen).max(1e-9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest::Package, runtime::Options};

    /// A mouth that opens and shuts by `size` in the voice and by 1 in the picture.
    fn pairs(engine: &Compact, count: usize, size: f32) -> Vec<Pair> {
        let wave = |i: usize| 0.02 * ((i as f32 * 0.4).sin() + (i as f32 * 0.13).sin());
        let latent = |amount| engine.basis.open_by(amount);
        (0..count).map(|i| Pair { heard: latent(size * wave(i)), seen: latent(wave(i)) }).collect()
    }

    #[test]
    fn the_range_of_a_person_is_found() {
        let Ok(engine) = Compact::load(&Package::find("compact").unwrap(), &Options::default()) else {
            eprintln!("skipped: no runtime");
            return;
        };
        let fit = |count, size| fit(&engine, &pairs(&engine, count, size)).unwrap();
        let wide = fit(600, 1.25);
        assert!((wide.range.unwrap() - 0.8).abs() < 0.01 && wide.after.lips < 0.2 * wide.before.lips, "{wide:?}");
        assert!((wide.before.spread - 1.25).abs() < 0.01 && (wide.after.spread - 1.0).abs() < 0.05, "{wide:?}");
        // Nothing to better, and no range beyond belief.
        assert_eq!(fit(600, 1.0).range, None);
        assert_eq!(fit(600, 10.0).range, Some(0.6));
        assert!(
            super::fit(&engine, &pairs(&engine, FEWEST - 1, 1.2)).unwrap_err().to_string().contains("fewer than 200")
        );
    }
}
