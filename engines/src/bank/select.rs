//! Which shapes a bank keeps: farthest-point selection, one frame at a time.
//!
//! The set grows until it is full; then a shape comes in when it is further from all others than the two nearest of
//! them are from each other, and one of those two goes. Each exchange widens the smallest gap, so it settles
//! (T. Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985, is the offline form).

use std::sync::Arc;

use super::{BLURRED, JUDGES, Reference};
use crate::geometry::{Point, landmarks};

/// Shapes nearer than this are the same shape (unit crop coordinates), unless a bank is told otherwise: noise of the
/// landmarks and a little more.
pub(super) const SAME: f32 = 0.006;
/// An exchange must widen the smallest gap by this factor.
const GAIN: f32 = 1.15;
/// A reference is worth improving when the head is turned less than in it by so many degrees.
const STRAIGHTER: f32 = 8.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Choice {
    Pass,
    Add,
    /// Take the place of this reference.
    Replace(usize),
    /// Take the place of this reference, which has the same shape, if the picture is better.
    Improve(usize),
}

/// Root mean square distance of two mouths, in unit crop coordinates: lips (the inner ones count double) and chin,
/// relative to the philtrum, so that a nod is not a shape.
pub(super) fn distance(a: &[Point], b: &[Point]) -> f32 {
    let anchor = |p: &[Point]| {
        let philtrum = &p[landmarks::PHILTRUM];
        philtrum.iter().fold(Point::default(), |s, p| s + *p) * (1.0 / philtrum.len() as f32)
    };
    let shift = anchor(b) - anchor(a);
    let sum = |i: std::ops::Range<usize>| -> f32 {
        a[i.clone()].iter().zip(&b[i]).map(|(a, b)| (b.x - a.x - shift.x).powi(2) + (b.y - a.y - shift.y).powi(2)).sum()
    };
    let weight = (landmarks::LIPS_OUTER.len() + 2 * landmarks::LIPS_INNER.len() + landmarks::CHIN.len()) as f32;
    ((sum(landmarks::LIPS_OUTER) + 2.0 * sum(landmarks::LIPS_INNER) + sum(landmarks::CHIN)) / weight).sqrt()
}

/// What to do with a frame of this shape, yaw and whether it is [`Reference::coarse`].
pub(super) fn choose(
    references: &[Arc<Reference>],
    capacity: usize,
    same: f32,
    points: &[Point],
    (yaw, coarse): (f32, bool),
    median_sharpness: f32,
) -> Choice {
    let distances: Vec<f32> = references.iter().map(|r| distance(&r.points, points)).collect();
    let Some((nearest, gap)) = distances.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Choice::Add;
    };
    let blurred = |r: &Reference| references.len() >= JUDGES && r.sharpness < BLURRED * median_sharpness;
    if gap < same {
        let old = &references[nearest];
        let better = yaw.abs() + STRAIGHTER < old.yaw.abs() || blurred(old) || (old.coarse && !coarse);
        return if better { Choice::Improve(nearest) } else { Choice::Pass };
    }
    if references.len() < capacity {
        return Choice::Add;
    }
    if let Some(i) = references.iter().position(|r| blurred(r) || (r.coarse && !coarse)) {
        return Choice::Replace(i);
    }
    // The two nearest of the kept ones, at a cost of capacity^2 / 2 distances; only frames with a new shape get here.
    let mut closest = (f32::INFINITY, 0, 0);
    for (i, a) in references.iter().enumerate() {
        for (j, b) in references[..i].iter().enumerate() {
            let d = distance(&a.points, &b.points);
            if d < closest.0 {
                closest = (d, i, j);
            }
        }
    }
    let (smallest, i, j) = closest;
    if gap <= smallest * GAIN || references.len() < 2 {
        return Choice::Pass;
    }
    Choice::Replace(if references[i].quality() < references[j].quality() { i } else { j })
}

/// The indices of `count` shapes that span the given ones, the first kept, farthest first.
pub(super) fn spanning(shapes: &[Vec<Point>], count: usize) -> Vec<usize> {
    let mut gaps = vec![f32::INFINITY; shapes.len()];
    let mut kept = Vec::with_capacity(count);
    let mut next = 0;
    while kept.len() < count.min(shapes.len()) {
        kept.push(next);
        for (g, s) in gaps.iter_mut().zip(shapes) {
            *g = g.min(distance(&shapes[next], s));
        }
        next = (0..shapes.len()).max_by(|a, b| gaps[*a].total_cmp(&gaps[*b])).unwrap_or(0);
    }
    kept
}
