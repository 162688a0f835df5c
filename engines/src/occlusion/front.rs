use std::sync::Arc;

use super::SIDE;
use crate::{
    geometry::{Point, Similarity},
    image::{Patch, paste::scaled, smooth_step},
    tracker::{self, Face},
};

/// Below the first a pixel is the face's, above the second it is not: a pixel that is doubtful is rather left as it is than painted over.
const EDGE: [f32; 2] = [0.25, 0.6];

/// What is before a face in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Front {
    /// Chance that a pixel is covered, 0..255, `[SIDE * SIDE]`, of the unit crop that the tracker's alignment gives.
    chance: Arc<[u8]>,
}

impl Front {
    /// How much of each pixel of `patch` is seen, as [`seen`](Self::seen) says, of those of `faces` (pixels of the frame) the one that
    /// the patch lies on. `None` where all of it is.
    pub fn before(faces: &[Face], patch: &Patch) -> Option<Vec<u8>> {
        if faces.iter().all(|face| face.front.is_none()) {
            return None;
        }
        let (face, place) = tracker::under(faces, &patch.to_frame)?;
        face.front.as_ref()?.seen(&patch.mask, patch.pixels.side(), &patch.to_frame, &place)
    }

    /// `None` unless there are [`SIDE`] times [`SIDE`] values.
    pub fn new(chance: Arc<[u8]>) -> Option<Self> {
        (chance.len() == SIDE * SIDE).then_some(Self { chance })
    }

    pub(super) fn of(chance: &[f32]) -> Self {
        Self { chance: chance.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8).collect() }
    }

    /// As it was given.
    pub fn chance(&self) -> &Arc<[u8]> {
        &self.chance
    }

    /// How much of each pixel of a patch of `side` pixels is seen, 0..255, where `mask` (`[side * side]`) is not zero; 255 elsewhere.
    /// `to_frame` goes from the patch's unit crop to pixels of the frame, `place` from there to the unit crop of the face.
    /// `None` where all of it is seen.
    pub fn seen(&self, mask: &[u8], side: usize, to_frame: &Similarity, place: &Similarity) -> Option<Vec<u8>> {
        // From pixels of the patch to those of the crop.
        let way = scaled(&to_frame.then(place), SIDE as f32);
        let step = 1.0 / side.max(1) as f32;
        if mask.len() != side * side || ![way.a, way.b, way.tx, way.ty].iter().all(|v| v.is_finite()) {
            return None;
        }
        let mut seen = vec![255; side * side];
        let mut covered = false;
        for (y, (mask, seen)) in mask.chunks_exact(side).zip(seen.chunks_exact_mut(side)).enumerate() {
            let mut at = way.apply(Point::new(0.5 * step, (y as f32 + 0.5) * step)) - Point::new(0.5, 0.5);
            let next = Point::new(way.a * step, way.b * step);
            for (mask, seen) in mask.iter().zip(seen) {
                if *mask != 0 {
                    *seen = 255 - covering(self.at(at));
                    covered |= *seen != 255;
                }
                at = at + next;
            }
        }
        covered.then_some(seen)
    }

    /// Between pixels, 0..1; nothing is before what lies beyond the crop's edge.
    fn at(&self, p: Point) -> f32 {
        let (left, top) = (p.x.floor(), p.y.floor());
        let last = (SIDE - 2) as f32;
        if !((0.0..=last).contains(&left) && (0.0..=last).contains(&top)) {
            let (x, y) = (p.x.round(), p.y.round());
            let inside = |v: f32| (0.0..SIDE as f32).contains(&v);
            return if inside(x) && inside(y) {
                f32::from(self.chance[y as usize * SIDE + x as usize]) / 255.0
            } else {
                0.0
            };
        }
        let (u, v) = (p.x - left, p.y - top);
        let i = top as usize * SIDE + left as usize;
        let value = |i: usize| f32::from(self.chance[i]);
        let upper = value(i) + (value(i + 1) - value(i)) * u;
        let lower = value(i + SIDE) + (value(i + SIDE + 1) - value(i + SIDE)) * u;
        (upper + (lower - upper) * v) / 255.0
    }
}

/// How much of a pixel is covered, 0..255, that is covered by this chance.
fn covering(chance: f32) -> u8 {
    (smooth_step((chance - EDGE[0]) / (EDGE[1] - EDGE[0])) * 255.0 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_half() -> Front {
        Front::new((0..SIDE * SIDE).map(|i| if i % SIDE < SIDE / 2 { 255 } else { 0 }).collect()).unwrap()
    }

    #[test]
    fn what_is_covered_lies_where_the_patch_lies() {
        let front = left_half();
        // The face's crop is 200 pixels wide at (100, 50); the patch 100 pixels at (150, 100): its left half is covered.
        let place = Similarity { a: 200.0, b: 0.0, tx: 100.0, ty: 50.0 }.inverse().unwrap();
        let to_frame = Similarity { a: 100.0, b: 0.0, tx: 150.0, ty: 100.0 };
        let mut mask = vec![255; 50 * 50];
        mask[..50].fill(0);
        let seen = front.seen(&mask, 50, &to_frame, &place).unwrap();
        assert!(seen[..50].iter().all(|v| *v == 255), "no mask, nothing to be said");
        for row in seen[50..].chunks_exact(50) {
            assert!(row[..24].iter().all(|v| *v == 0) && row[26..].iter().all(|v| *v == 255), "{row:?}");
        }
        // Beside what is covered.
        let beside = Similarity { tx: 202.0, a: 90.0, ..to_frame };
        assert_eq!(front.seen(&mask, 50, &beside, &place), None);
        assert_eq!(front.seen(&mask, 50, &Similarity { a: f32::NAN, ..to_frame }, &place), None);
    }

    #[test]
    fn a_chance_that_is_small_covers_nothing_and_a_doubt_covers() {
        assert_eq!((covering(0.25), covering(0.6), covering(1.0)), (0, 255, 255));
        assert!((0..100).all(|i| covering(i as f32 / 100.0) <= covering((i + 1) as f32 / 100.0)));
        assert!(covering(0.5) > 128);
        assert!(Front::new(vec![0; 5].into()).is_none());
    }
}
