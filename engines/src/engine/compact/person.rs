use std::sync::{Arc, OnceLock};

use super::{basis::Basis, skin::Skin};
use crate::{
    bank::{Reference, ReferenceBank},
    geometry::{Point, landmarks},
};

/// Part of the shapes that counts as the mouth at rest.
const CLOSED_PART: usize = 10;
/// An opening (unit crop) above this is not a closed mouth.
const CLOSED: f32 = 0.012;
/// A range below this part of the population's is an idle face, which says nothing of how its mouth moves.
const IDLE: f32 = 0.25;
/// Shrinks a person's measured range towards the population's.
const TRUST: f32 = 0.5;
/// A mouth may open wider than the widest of n frames seen by the factor 1 + FEW / n: few frames miss the widest.
const FEW: f32 = 150.0;
/// From this part of the widest opening on, wider ones come nearer to it and never reach it.
const KNEE: f32 = 0.7;

/// Cheeks and philtrum, which move least with the mouth.
const STILL: std::ops::Range<usize> = landmarks::CHEEKS.start..landmarks::PHILTRUM.end;
/// Part of the way that the drift goes towards the current frame's in 40 ms: landmarks jitter, heads turn.
const FOLLOW: f32 = 0.35;

/// What is known of a person: how the mouth rests, how far it moves, and pictures of it.
#[derive(Debug)]
pub(super) struct Person {
    /// `[84]`, unit crop, at the pose of `stable`.
    rest: Vec<Point>,
    /// `[19]`, unit crop.
    stable: Vec<Point>,
    /// Range of the motion relative to the population's.
    scale: f32,
    /// What the opening stays below, unit crop: a warp stretches teeth into a mouth wider than any picture shows.
    widest: f32,
    pub(super) references: Vec<Pictured>,
}

/// A reference with its lower face as it would be at the person's own mean pose.
#[derive(Debug)]
pub(super) struct Pictured {
    pub(super) reference: Arc<Reference>,
    pub(super) lower: Vec<Point>,
    skin: OnceLock<Skin>,
}

impl Pictured {
    pub(super) fn new(reference: Arc<Reference>, lower: Vec<Point>) -> Self {
        Self { reference, lower, skin: OnceLock::new() }
    }

    /// Where it shows skin; looked for when it is first asked for.
    pub(super) fn skin(&self) -> &Skin {
        self.skin.get_or_init(|| Skin::of(&self.reference))
    }
}

/// Where the landmarks of one frame shall be.
pub(super) struct Wanted {
    /// `[111]`, unit crop.
    pub(super) points: Vec<Point>,
    /// The lower face at the person's mean pose, `[84]`, to compare with [`Pictured::lower`].
    pub(super) lower: Vec<Point>,
    /// What the frame's own lower face has that neither pose nor motion explains, `[84]`, smoothed over time.
    pub(super) drift: Vec<Point>,
    /// How far speech moves each landmark of the lower face from where that of the frame itself has it, `[84]`, unit crop.
    pub(super) moved: Vec<f32>,
}

impl Person {
    /// Somebody of whom nothing is known.
    pub(super) fn unknown(basis: &Basis) -> Self {
        Self {
            rest: basis.rest[landmarks::LOWER].to_vec(),
            stable: basis.rest[landmarks::STABLE].to_vec(),
            scale: 1.0,
            widest: f32::INFINITY,
            references: Vec::new(),
        }
    }

    pub(super) fn new(bank: &ReferenceBank, basis: &Basis) -> Self {
        let shapes: Vec<&[Point]> = bank.shapes().collect();
        if shapes.is_empty() {
            return Self::unknown(basis);
        }
        let stable = median(&shapes.iter().map(|s| &s[landmarks::STABLE]).collect::<Vec<_>>());
        let unposed = |shape: &[Point]| {
            let offset: Vec<Point> = shape[landmarks::STABLE].iter().zip(&stable).map(|(p, s)| *p - *s).collect();
            let pose = basis.pose(&offset);
            shape[landmarks::LOWER].iter().zip(pose).map(|(p, o)| *p - o).collect::<Vec<_>>()
        };
        let mut lower: Vec<Vec<Point>> = shapes.iter().map(|s| unposed(s)).collect();
        lower.sort_by(|a, b| opening(a).total_cmp(&opening(b)));
        let closed = &lower[..lower.len().div_ceil(CLOSED_PART)];
        let mut rest = median(&closed.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let excess = opening(&rest) - CLOSED;
        if excess > 0.0 {
            // Never seen closed so far: shut it the way mouths shut.
            let shut = basis.motion(&basis.open_by(-excess));
            rest.iter_mut().zip(shut).for_each(|(p, o)| *p = *p + o);
        }
        let at = |q: usize| opening(&lower[(lower.len() - 1) * q / 100]);
        let range = (at(95) - at(5)) / basis.spread;
        let (scale, widest) = if range < IDLE {
            (1.0, f32::INFINITY)
        } else {
            (range.clamp(0.4, 2.0).powf(TRUST), widest(at(98), lower.len()))
        };
        let references = bank.references().iter().map(|r| Pictured::new(r.clone(), unposed(&r.points))).collect();
        Self { rest, stable, scale, widest, references }
    }

    /// The same person with a factor on all motion.
    pub(super) fn with_range(self, range: f32) -> Self {
        Self { scale: self.scale * range, ..self }
    }

    /// Of the crops of all references, in pixels; `None` where there are none.
    pub(super) fn side(&self) -> Option<usize> {
        self.references.first().map(|p| p.reference.crop.side)
    }

    /// The latent that landmarks (`[111]`, unit crop) show.
    pub(super) fn latent(&self, basis: &Basis, points: &[Point]) -> Vec<f32> {
        basis.latent(&self.moved(points, &self.pose(basis, points))).iter().map(|z| z / self.scale).collect()
    }

    /// What the pose of the head in `points` (`[111]`, unit crop) does to the lower face, `[84]`.
    fn pose(&self, basis: &Basis, points: &[Point]) -> Vec<Point> {
        let offset: Vec<Point> = points[landmarks::STABLE].iter().zip(&self.stable).map(|(p, s)| *p - *s).collect();
        basis.pose(&offset)
    }

    /// What else has moved the lower face of `points` from rest, `[84]`.
    fn moved(&self, points: &[Point], pose: &[Point]) -> Vec<Point> {
        points.iter().zip(pose).zip(&self.rest).map(|((c, p), r)| *c - *p - *r).collect()
    }

    /// The landmarks for a latent on a face whose landmarks are `current` (`[111]`, unit crop). Where the face is, how it
    /// is turned and what is its own about cheeks and jaw is the current frame's; the mouth owes nothing to it. `before`
    /// is [`Wanted::drift`] of the frame before, and how many frames of 40 ms lie between.
    pub(super) fn wanted(
        &self,
        basis: &Basis,
        latent: &[f32],
        current: &[Point],
        gain: f32,
        before: Option<(&[Point], f32)>,
    ) -> Wanted {
        let pose = self.pose(basis, current);
        let seen = self.moved(current, &pose);
        let mut drift = basis.remainder(&seen);
        let own: Vec<Point> = seen.iter().zip(&drift).map(|(s, d)| *s - *d).collect();
        if let Some((before, frames)) = before {
            let part = 1.0 - (1.0 - FOLLOW).powf(frames);
            drift.iter_mut().zip(before).for_each(|(now, before)| *now = before.lerp(*now, part));
        }
        let motion = basis.motion(latent);
        let mut lower: Vec<Point> = self.rest.iter().zip(motion).map(|(r, m)| *r + m * (self.scale * gain)).collect();
        limit(basis, &mut lower, self.widest * gain.max(1.0));
        part_lips(&mut lower);
        let moved = (lower.iter().zip(&self.rest).zip(own)).map(|((l, r), own)| (*l - *r).distance(own)).collect();
        let whole = STILL.clone().fold(Point::default(), |sum, i| sum + drift[i]) * (1.0 / STILL.len() as f32);
        for (i, p) in lower.iter_mut().enumerate() {
            *p = *p + if landmarks::LIPS.contains(&i) { whole } else { drift[i] };
        }
        let mut points = current.to_vec();
        for ((p, l), o) in points.iter_mut().zip(&lower).zip(pose) {
            *p = *l + o;
        }
        Wanted { points, lower, drift, moved }
    }
}

/// What openings stay below where `seen` is nearly the widest of so many frames. More than nothing, whatever landmarks a bank
/// file claims.
fn widest(seen: f32, frames: usize) -> f32 {
    seen.max(CLOSED) * (1.0 + FEW / frames as f32)
}

/// Keeps the opening of a lower face below `widest`.
fn limit(basis: &Basis, lower: &mut [Point], widest: f32) {
    let (open, knee) = (opening(lower), KNEE * widest);
    if open > knee {
        let room = widest - knee;
        let less = knee + room * (1.0 - (-(open - knee) / room).exp()) - open;
        lower.iter_mut().zip(basis.motion(&basis.open_by(less))).for_each(|(p, m)| *p = *p + m);
    }
}

/// Opening of a lower face in unit crop coordinates.
pub(super) fn opening(lower: &[Point]) -> f32 {
    lower[landmarks::INNER_BOTTOM].y - lower[landmarks::INNER_TOP].y
}

/// Keeps the lips from passing through each other: opposite points of the inner lip, and of the outer, stay in order.
fn part_lips(lower: &mut [Point]) {
    for (ring, gap) in [(landmarks::LIPS_INNER, 0.003), (landmarks::LIPS_OUTER, 0.012)] {
        for k in 1..10 {
            let (top, bottom) = (ring.start + k, ring.end - k);
            let missing = gap - (lower[bottom].y - lower[top].y);
            if missing > 0.0 {
                lower[top].y -= missing / 2.0;
                lower[bottom].y += missing / 2.0;
            }
        }
    }
}

/// The median of each coordinate of each point.
fn median(shapes: &[&[Point]]) -> Vec<Point> {
    let middle = |mut values: Vec<f32>| {
        let at = values.len() / 2;
        *values.select_nth_unstable_by(at, f32::total_cmp).1
    };
    let count = shapes.first().map_or(0, |s| s.len());
    (0..count)
        .map(|i| {
            Point::new(middle(shapes.iter().map(|s| s[i].x).collect()), middle(shapes.iter().map(|s| s[i].y).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bank::{BankConfig, ReferenceBank},
        manifest::Package,
    };

    fn basis() -> Basis {
        let engine = Package::find("compact").unwrap();
        Basis::read("basis", &engine.file("basis").unwrap(), 12).unwrap()
    }

    fn unknown(basis: &Basis) -> Person {
        let alignment = Package::find("compact").unwrap().manifest().geometry.alignment.clone();
        Person::new(&ReferenceBank::new(BankConfig { capacity: 4, side: 64, alignment }), basis)
    }

    #[test]
    fn rest_is_a_closed_mouth() {
        let basis = basis();
        let wanted = unknown(&basis).wanted(&basis, &[0.0; 12], &basis.rest.clone(), 1.0, None);
        assert!(opening(&wanted.lower) < 2.0 * CLOSED, "{}", opening(&wanted.lower));
    }

    #[test]
    fn the_mouth_that_the_frame_shows_does_not_matter() {
        let basis = basis();
        let person = unknown(&basis);
        let closed = basis.rest.clone();
        let mut open = closed.clone();
        let motion = basis.motion(&basis.open_by(0.1));
        open.iter_mut().zip(motion).for_each(|(p, m)| *p = *p + m);
        let latent: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        let [a, b] = [closed, open].map(|current| person.wanted(&basis, &latent, &current, 1.0, None).points);
        let apart = landmarks::LOWER.map(|i| a[i].distance(b[i])).fold(0.0, f32::max);
        assert!(apart < 1e-3, "{apart}");
    }

    #[test]
    fn the_lower_face_goes_with_the_head() {
        let basis = basis();
        let person = unknown(&basis);
        let mut nodding = basis.rest.clone();
        nodding[landmarks::NOSE].iter_mut().for_each(|p| p.y += 0.02);
        let offset = landmarks::STABLE.map(|i| nodding[i] - basis.rest[i]).collect::<Vec<_>>();
        nodding.iter_mut().zip(basis.pose(&offset)).for_each(|(p, o)| *p = *p + o);
        let still = person.wanted(&basis, &[0.0; 12], &basis.rest.clone(), 1.0, None);
        let nods = person.wanted(&basis, &[0.0; 12], &nodding, 1.0, None);
        assert!(still.lower.iter().zip(&nods.lower).all(|(a, b)| a.distance(*b) < 1e-4));
        let chin = landmarks::CHIN_TIP;
        assert!(still.points[chin].distance(nods.points[chin]) > 1e-3);
    }

    #[test]
    fn what_is_not_speech_in_the_frame_stays_and_the_lips_go_with_it_as_a_whole() {
        let basis = basis();
        let person = unknown(&basis);
        let mut moved = basis.rest.clone();
        let still = landmarks::CHEEKS.start..landmarks::PHILTRUM.end;
        moved[still.clone()].iter_mut().for_each(|p| p.x += 0.01);
        let wanted = |current: &[Point], before: Option<(&[Point], f32)>| {
            person.wanted(&basis, &[0.0; 12], current, 1.0, before)
        };
        let (rest, first) = (wanted(&basis.rest, None), wanted(&moved, None));
        let shift = |w: &Wanted, i: usize| w.points[i].x - rest.points[i].x;
        assert!(still.clone().all(|i| shift(&first, i) > 0.004));
        let lips: Vec<f32> = landmarks::LIPS.map(|i| shift(&first, i)).collect();
        assert!(lips.iter().all(|s| *s > 0.004 && (s - lips[0]).abs() < 1e-5), "{lips:?}");
        // It comes by and by.
        let later = wanted(&moved, Some((&rest.drift, 1.0)));
        assert!(shift(&later, still.start) < 0.5 * shift(&first, still.start));
    }

    #[test]
    fn a_mouth_opens_no_wider_than_it_was_seen_to_unless_more_is_asked_for() {
        let basis = basis();
        let rest = basis.rest.clone();
        let person = Person { widest: 0.06, ..unknown(&basis) };
        let open = |amount, gain| opening(&person.wanted(&basis, &basis.open_by(amount), &rest, gain, None).lower);
        let free = |amount| opening(&unknown(&basis).wanted(&basis, &basis.open_by(amount), &rest, 1.0, None).lower);
        assert!((open(0.02, 1.0) - free(0.02)).abs() < 1e-6, "what is usual stays");
        assert!(open(0.05, 1.0) < open(0.08, 1.0) && open(0.3, 1.0) < 0.0605, "{}", open(0.3, 1.0));
        assert!(open(0.05, 2.0) > 0.08, "{}", open(0.05, 2.0));
    }

    #[test]
    fn a_bank_of_lips_the_wrong_way_round_moves_nothing_out_of_sight() {
        let basis = basis();
        assert!(widest(0.05, 75) > widest(0.05, 1500));
        let person = Person { widest: widest(-0.3, 10), ..unknown(&basis) };
        let lower = person.wanted(&basis, &basis.open_by(0.3), &basis.rest.clone(), 1.0, None).lower;
        assert!(lower.iter().all(|p| p.is_finite()) && opening(&lower) < 0.25, "{}", opening(&lower));
    }

    #[test]
    fn lips_meet_and_never_pass_through_each_other() {
        let basis = basis();
        let person = unknown(&basis);
        for amount in [-0.3, -0.05, 0.05, 0.3] {
            let lower = person.wanted(&basis, &basis.open_by(amount), &basis.rest.clone(), 1.0, None).lower;
            for k in 1..10 {
                let (top, bottom) = (landmarks::LIPS_INNER.start + k, landmarks::LIPS_INNER.end - k);
                assert!(lower[bottom].y > lower[top].y, "{amount}: pair {k}");
            }
        }
        let gain = |g| opening(&person.wanted(&basis, &basis.open_by(0.05), &basis.rest.clone(), g, None).lower);
        assert!(gain(2.0) > gain(1.0) + 0.03, "{} and {}", gain(2.0), gain(1.0));
    }
}
