use std::{ops::Range, time::Duration};

use super::{
    super::Scene,
    person::{Person, Pictured, Wanted, opening},
};
use crate::{
    geometry::{Lattice, Point, Rect, ThinPlate, landmarks},
    image::Crop,
};

/// A new reference must be this much nearer than the one in use, or the picture would flicker between the two.
const HYSTERESIS: f32 = 0.7;
/// Cells of the warp's lattice along a side.
const CELLS: usize = 32;
/// Regularisation of the spline: landmarks are not exact to the pixel.
const SMOOTHNESS: f32 = 1e-3;
/// A degree of yaw between reference and frame weighs as much as this distance (unit crop) of the lips.
const YAW_WEIGHT: f32 = 0.001;
/// Distance of the landmarks that only the head's pose moves, beside that of the lips.
const POSE_WEIGHT: f32 = 0.6;
/// Opening differences show as stretched teeth or a squeezed tongue: they weigh more than other differences.
const OPENING_WEIGHT: f32 = 1.5;

/// The wanted mouth as a warp of the nearest reference, and which one that is; only inside `area` (unit crop coordinates)
/// is it warped. When the reference changes, one frame shows both in equal parts.
pub(super) fn pixels(
    person: &Person,
    wanted: &Wanted,
    scene: &Scene,
    last: Option<u64>,
    area: &Rect,
) -> Option<(Crop, u64)> {
    let cost = |p: &&Pictured| {
        distance(p, wanted, scene.face.yaw) * if Some(p.reference.id) == last { HYSTERESIS } else { 1.0 }
    };
    let usable = |p: &&Pictured| far(p.reference.time, scene);
    let nearest = person.references.iter().filter(usable).min_by(|a, b| cost(a).total_cmp(&cost(b)))?;
    let mut picture = lattice(nearest, wanted, area)?.warp(&nearest.reference.crop);
    let before = person
        .references
        .iter()
        .filter(usable)
        .find(|p| Some(p.reference.id) == last && p.reference.id != nearest.reference.id);
    if let Some(before) = before.filter(|p| p.reference.crop.space == picture.space)
        && let Some(lattice) = lattice(before, wanted, area)
    {
        lattice.warp_half_into(&before.reference.crop, &mut picture);
    }
    Some((picture, nearest.reference.id))
}

/// Whether a reference of this time may be seen.
pub(super) fn far(time: Option<Duration>, scene: &Scene) -> bool {
    time.zip(scene.time).is_none_or(|(reference, frame)| reference.abs_diff(frame) >= scene.gap)
}

/// Mean square distance of some landmarks.
fn apart(a: &[Point], b: &[Point], which: Range<usize>) -> f32 {
    let count = which.len() as f32;
    a[which.clone()].iter().zip(&b[which]).map(|(a, b)| (a.x - b.x).powi(2) + (a.y - b.y).powi(2)).sum::<f32>() / count
}

/// Root mean square distance of the lips, with opening and pose.
fn distance(pictured: &Pictured, wanted: &Wanted, yaw: f32) -> f32 {
    let turn = YAW_WEIGHT * (pictured.reference.yaw - yaw);
    let pose = POSE_WEIGHT * POSE_WEIGHT * apart(&pictured.reference.points, &wanted.points, landmarks::STABLE);
    (lips_distance(&pictured.lower, &wanted.lower).powi(2) + turn * turn + pose).sqrt()
}

/// Root mean square distance of the lips of two lower faces, with the opening counted again.
pub(super) fn lips_distance(a: &[Point], b: &[Point]) -> f32 {
    apart(a, b, landmarks::LIPS).sqrt().hypot(OPENING_WEIGHT * (opening(a) - opening(b)))
}

/// From the wanted landmarks' places to the reference's.
pub(super) fn lattice(pictured: &Pictured, wanted: &Wanted, area: &Rect) -> Option<Lattice> {
    let moved = landmarks::LOWER.chain(landmarks::NOSE).chain(landmarks::EYE_CORNERS);
    let mut from: Vec<Point> = moved.clone().map(|i| wanted.points[i]).collect();
    let mut to: Vec<Point> = moved.map(|i| pictured.reference.points[i]).collect();
    // The crop's own edge stays where it is: alignment has already brought both faces together.
    for i in 0..=4 {
        let t = i as f32 / 4.0;
        for p in [Point::new(t, -0.05), Point::new(t, 1.05), Point::new(-0.05, t), Point::new(1.05, t)] {
            from.push(p);
            to.push(p);
        }
    }
    let spline = ThinPlate::fit(&from, &to, SMOOTHNESS)?;
    Some(Lattice::over(&spline, CELLS, area))
}
