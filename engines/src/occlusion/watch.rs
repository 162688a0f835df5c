use std::sync::Arc;

use super::{Front, Look, Network, SIDE};
use crate::{
    Result,
    geometry::{Point, landmarks},
    image::{Feather, FrameView, Inside, covered},
};

/// Frames from one look to the next while nothing is before the face.
const INTERVAL: u32 = 5;
/// Where less of the lower face is covered nothing is before it, 0..1; and where something was, this.
const LITTLE: [f32; 2] = [0.012, 0.006];
/// From this chance on a pixel counts as covered; where something was, this: a network that takes a shaded cheek for a thing is rarely sure.
const SURE: [f32; 2] = [0.95, 0.5];
/// So much of the mouth must be covered that all of it counts as hidden; and where it was, this.
const HIDDEN: [f32; 2] = [0.85, 0.65];
/// Codes by which a place that stands still changes at most, and from which it has moved altogether.
const MOVED: [f32; 2] = [3.0, 14.0];
/// How far a place that stands still goes from what it was to what it is said to be now.
const FOLLOW: f32 = 0.4;

/// What is before a face now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cover {
    /// `None` where nothing is.
    pub front: Option<Front>,
    /// So much of the mouth is covered that it cannot be shown.
    pub hidden: bool,
}

/// Watches one face of a stream.
pub struct Watch {
    network: Arc<Network>,
    /// The last look: what was seen, in brightness, and the chances as they are steadied.
    last: Option<(Vec<u8>, Vec<f32>)>,
    cover: Cover,
    /// Frames since the last look.
    since: u32,
}

impl Watch {
    pub fn new(network: Arc<Network>) -> Self {
        Self { network, last: None, cover: Cover::default(), since: 0 }
    }

    /// What is before the face of these `points` (`[111]`, pixels of the frame). `changed` says that the lower face looks other than at
    /// the last look, which asks for one now. The second is whether the network was asked.
    pub fn see(&mut self, frame: &FrameView, points: &[Point], changed: bool) -> Result<(Cover, bool)> {
        self.since += 1;
        let due = self.last.is_none() || self.cover.front.is_some() || changed || self.since >= INTERVAL;
        if !due {
            return Ok((self.cover.clone(), false));
        }
        let Some(Look { place, luma, chance: said }) = self.network.look(frame, points)? else {
            return Ok((self.cover.clone(), false));
        };
        self.since = 0;
        let chance = match self.last.take() {
            // Looks that are far apart have nothing to do with each other.
            Some((before, chance)) if self.cover.front.is_some() => steadied(&before, &luma, &chance, &said),
            _ => said,
        };
        let unit: Vec<Point> = points.iter().map(|p| place.apply(*p)).collect();
        self.cover = judged(&chance, &unit, &self.cover);
        self.last = Some((luma, chance));
        Ok((self.cover.clone(), true))
    }
}

/// `said`, moved towards what it was before where the picture has not changed.
fn steadied(before: &[u8], luma: &[u8], chance: &[f32], said: &[f32]) -> Vec<f32> {
    let moved = softened(&before.iter().zip(luma).map(|(a, b)| f32::from(a.abs_diff(*b))).collect::<Vec<_>>());
    let each = moved.iter().zip(chance).zip(said);
    each.map(|((moved, was), is)| {
        let part = ((moved - MOVED[0]) / (MOVED[1] - MOVED[0])).clamp(0.0, 1.0);
        was + (is - was) * (FOLLOW + (1.0 - FOLLOW) * part)
    })
    .collect()
}

/// The mean of three times three pixels around each: noise is less than what moves.
fn softened(values: &[f32]) -> Vec<f32> {
    let mean = |values: &[f32], stride: usize| -> Vec<f32> {
        let at = |i: usize, by: isize| {
            values[(i as isize + by * stride as isize).clamp(0, values.len() as isize - 1) as usize]
        };
        (0..values.len()).map(|i| (at(i, -1) + at(i, 0) + at(i, 1)) / 3.0).collect()
    };
    mean(&mean(values, 1), SIDE)
}

/// The outline that is pasted over, in the unit crop.
fn lower_face(points: &[Point]) -> Vec<Point> {
    landmarks::OUTLINE_JAW.chain(landmarks::OUTLINE_OVER).map(|i| points[i]).collect()
}

/// The mean chance within an outline, and the share whose chance is above `sure`.
fn within(chance: &[f32], outline: &[Point], sure: f32) -> (f32, f32) {
    let inside = covered(SIDE, outline, 1, Feather::Across, Inside::Odd);
    let (mut all, mut sum, mut share) = (0.0_f32, 0.0, 0.0);
    for (v, _) in chance.iter().zip(&inside).filter(|(_, inside)| **inside > 127) {
        all += 1.0;
        sum += v;
        share += f32::from(u8::from(*v > sure));
    }
    (sum / all.max(1.0), share / all.max(1.0))
}

fn judged(chance: &[f32], unit: &[Point], before: &Cover) -> Cover {
    let was = usize::from(before.front.is_some());
    let (_, share) = within(chance, &lower_face(unit), SURE[was]);
    if share < LITTLE[was] {
        return Cover::default();
    }
    let (mouth, _) = within(chance, &unit[landmarks::LIPS_OUTER], SURE[was]);
    Cover { front: Some(Front::of(chance)), hidden: mouth > HIDDEN[usize::from(before.hidden)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A face: jaw and cheeks on an egg, lips on an ellipse.
    fn face() -> Vec<Point> {
        let mut points = vec![Point::new(0.5, 0.5); landmarks::COUNT];
        for (k, i) in landmarks::JAW.enumerate() {
            let angle = std::f32::consts::PI * k as f32 / 20.0;
            points[i] = Point::new(0.5 + 0.35 * angle.cos(), 0.4 + 0.5 * angle.sin());
        }
        for (i, x, y) in [(69, 0.3, 0.42), (90, 0.4, 0.39), (89, 0.5, 0.4), (91, 0.6, 0.39), (70, 0.7, 0.42)] {
            points[i] = Point::new(x, y);
        }
        for (k, i) in landmarks::LIPS_OUTER.enumerate() {
            let angle = std::f32::consts::TAU * k as f32 / 20.0;
            points[i] = Point::new(0.5 + 0.15 * angle.cos(), 0.62 + 0.07 * angle.sin());
        }
        points
    }

    fn painted(inside: impl Fn(f32, f32) -> bool) -> Vec<f32> {
        let unit = |i: usize| (i as f32 + 0.5) / SIDE as f32;
        (0..SIDE * SIDE).map(|i| f32::from(u8::from(inside(unit(i % SIDE), unit(i / SIDE))))).collect()
    }

    #[test]
    fn a_speck_is_nothing_a_hand_is_before_the_face_and_a_mouth_behind_a_mask_is_hidden() {
        let face = face();
        let judge = |chance: &[f32], before: &Cover| judged(chance, &face, before);
        assert_eq!(judge(&painted(|_, _| false), &Cover::default()), Cover::default());
        assert_eq!(judge(&painted(|x, y| (x - 0.5).hypot(y - 0.7) < 0.02), &Cover::default()), Cover::default());
        assert_eq!(judge(&painted(|_, y| y < 0.3), &Cover::default()), Cover::default(), "the eyes are not asked for");
        let doubt: Vec<f32> = painted(|x, _| x < 0.5).iter().map(|v| 0.7 * v).collect();
        assert_eq!(judge(&doubt, &Cover::default()), Cover::default(), "nothing comes of a doubt");
        let hand = judge(&painted(|x, _| x < 0.5), &Cover::default());
        assert!(judge(&doubt, &hand).front.is_some(), "what was there is there while it may be");
        assert!(hand.front.is_some() && !hand.hidden);
        let mask = judge(&painted(|_, y| y > 0.5), &hand);
        assert!(mask.front.is_some() && mask.hidden);
        // What is hidden stays so until more than a rim of it is seen.
        let rim = painted(|_, y| y > 0.58);
        assert!(!judge(&rim, &hand).hidden || judge(&rim, &mask).hidden);
        let most = painted(|x, y| y > 0.5 && x < 0.575);
        assert!(judge(&most, &mask).hidden && !judge(&most, &hand).hidden);
    }

    #[test]
    fn what_stands_still_is_steadied_and_what_moves_is_followed_at_once() {
        let (still, mut moved) = (vec![100; SIDE * SIDE], vec![100; SIDE * SIDE]);
        moved.chunks_exact_mut(SIDE).take(SIDE / 2).for_each(|row| row.fill(160));
        let (was, is) = (vec![0.0; SIDE * SIDE], vec![1.0; SIDE * SIDE]);
        let found = steadied(&still, &moved, &was, &is);
        assert_eq!(found[10 * SIDE + 40], 1.0);
        assert_eq!(found[80 * SIDE + 40], FOLLOW);
    }
}
