use std::{ops::Range, time::Duration};

use super::{
    super::Scene,
    canvas::{Canvas, Picture},
    person::{Person, Pictured, Wanted, opening},
};
use crate::{
    Result,
    geometry::{Anchored, Point, Rect, ThinPlate, landmarks},
};

/// A new reference must be this much nearer than the one in use, or the picture would flicker between the two.
const HYSTERESIS: f32 = 0.65;
/// Frames of 40 ms that a change of the reference takes.
const CHANGE: f32 = 3.0;
/// Cells of the warp's lattice along a side.
pub(super) const CELLS: usize = 32;
/// Regularisation of the spline: landmarks are not exact to the pixel.
const SMOOTHNESS: f32 = 1e-3;
/// A degree of yaw between reference and frame weighs as much as this distance (unit crop) of the lips.
const YAW_WEIGHT: f32 = 0.001;
/// Distance of the landmarks that only the head's pose moves, beside that of the lips.
const POSE_WEIGHT: f32 = 0.6;
/// Opening differences show as stretched teeth or a squeezed tongue: they weigh more than other differences.
const OPENING_WEIGHT: f32 = 2.0;

/// Which references a picture shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Showing {
    pub(super) reference: u64,
    /// The one before it and the frames of the change that have passed, while that is not complete.
    fading: Option<(u64, f32)>,
}

/// The references that a frame is drawn from.
pub(super) struct Chosen<'a> {
    nearest: &'a Pictured,
    /// The one before it, and the share that it still has.
    before: Option<(&'a Pictured, f32)>,
    pub(super) showing: Showing,
}

/// The references that show the wanted mouth best; `None` where there is none. A change of the reference takes [`CHANGE`]
/// frames, in which there is no other; `last` is what the frame before showed, and how many frames of 40 ms ago that was: more
/// than there were for a mouth that moves, in which a change is not seen and one that waits comes late.
pub(super) fn choose<'a>(
    person: &'a Person,
    wanted: &Wanted,
    scene: &Scene,
    last: Option<(Showing, f32)>,
) -> Option<Chosen<'a>> {
    let usable = || person.references.iter().filter(|p| far(p.reference.time, scene));
    let by_id = |id: u64| usable().find(|p| p.reference.id == id);
    let (last, frames) = last.unzip();
    let step = frames.unwrap_or(1.0);
    let shown = last.and_then(|last| by_id(last.reference));
    let going_on = |(before, passed): (u64, f32)| Some((before, passed + step)).filter(|(_, passed)| *passed < CHANGE);
    let fading = last.and_then(|last| last.fading).filter(|_| shown.is_some()).and_then(going_on);
    let nearest = match (shown, fading) {
        (Some(shown), Some(_)) => shown,
        _ => {
            let cost = |p: &&Pictured| {
                let kept = shown.is_some_and(|s| s.reference.id == p.reference.id);
                distance(p, wanted, scene.face.yaw) * if kept { HYSTERESIS } else { 1.0 }
            };
            usable().min_by(|a, b| cost(a).total_cmp(&cost(b)))?
        }
    };
    let id = nearest.reference.id;
    let begun = last.filter(|last| last.reference != id).and_then(|last| going_on((last.reference, 0.0)));
    let fading = fading.or(begun);
    let before = fading.and_then(|(before, passed)| Some((by_id(before)?, 1.0 - passed / CHANGE)));
    Some(Chosen { nearest, before, showing: Showing { reference: id, fading } })
}

impl Chosen<'_> {
    /// How far the heads of the references are turned otherwise than the frame's, unit crop: the root mean square distance
    /// of the landmarks that only pose moves, with what a difference of yaw weighs.
    pub(super) fn turned(&self, wanted: &Wanted, yaw: f32) -> f32 {
        let turned = |p: &Pictured| {
            let pose = apart(&p.reference.points, &wanted.points, landmarks::STABLE);
            (pose + (YAW_WEIGHT * (p.reference.yaw - yaw)).powi(2)).sqrt()
        };
        let nearest = turned(self.nearest);
        self.before.map_or(nearest, |(before, share)| nearest + (turned(before) - nearest) * share)
    }

    /// How much of what comes to some places of the picture (unit crop) is skin of the references.
    pub(super) fn skin(&self, warp: &Warp, places: &[Point]) -> Option<Vec<f32>> {
        let shown = |p: &Pictured| {
            let mut from = places.to_vec();
            warp.onto(p)?.apply_all(&mut from);
            Some(from.into_iter().map(|q| p.skin().at(q)).collect::<Vec<_>>())
        };
        let mut skin = shown(self.nearest)?;
        if let Some((before, share)) = self.before {
            skin.iter_mut().zip(shown(before)?).for_each(|(now, before)| *now += (before - *now) * share);
        }
        Some(skin)
    }

    /// The wanted mouth as a warp of the references; only inside `area` (unit crop coordinates) is it warped. `None` where
    /// there is no such warp.
    pub(super) fn pixels(&self, canvas: &Canvas, warp: &Warp, area: &Rect) -> Result<Option<Picture>> {
        let Some(plate) = warp.onto(self.nearest) else { return Ok(None) };
        let mut picture = canvas.warp(&plate, &self.nearest.reference, area)?;
        if let Some((before, share)) = self.before
            && before.reference.crop.space == picture.space()
            && let Some(plate) = warp.onto(before)
        {
            canvas.mix(&plate, &before.reference, area, &mut picture, share)?;
        }
        Ok(Some(picture))
    }
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

/// The warps of one frame: all start from the wanted landmarks' places, each goes to a reference's.
pub(super) struct Warp {
    anchored: Anchored,
}

/// Landmarks that a warp holds.
fn held() -> impl Iterator<Item = usize> {
    landmarks::LOWER.chain(landmarks::NOSE).chain(landmarks::EYE_CORNERS)
}

/// The crop's own edge stays where it is: alignment has already brought both faces together.
fn edge() -> impl Iterator<Item = Point> {
    (0..=4)
        .map(|i| i as f32 / 4.0)
        .flat_map(|t| [Point::new(t, -0.05), Point::new(t, 1.05), Point::new(-0.05, t), Point::new(1.05, t)])
}

impl Warp {
    pub(super) fn from(wanted: &Wanted) -> Option<Self> {
        let from: Vec<Point> = held().map(|i| wanted.points[i]).chain(edge()).collect();
        Some(Self { anchored: Anchored::new(&from, SMOOTHNESS)? })
    }

    pub(super) fn onto(&self, pictured: &Pictured) -> Option<ThinPlate> {
        let to: Vec<Point> = held().map(|i| pictured.reference.points[i]).chain(edge()).collect();
        self.anchored.onto(&to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bank::Reference,
        engine::compact::{Basis, person::Person},
        image::{ColorSpace, Crop},
        manifest::Package,
        tracker::Face,
    };

    const SIDE: usize = 32;

    /// Somebody known by two frames: mouth shut and black (0), mouth open and grey (1).
    fn somebody(basis: &Basis) -> Person {
        let mut person = Person::unknown(basis);
        for (id, open, value) in [(0, 0.0, 0), (1, 0.1, 150)] {
            let mut points = basis.rest.clone();
            points.iter_mut().zip(basis.motion(&basis.open_by(open))).for_each(|(p, m)| *p = *p + m);
            let lower = points[landmarks::LOWER].to_vec();
            let crop = Crop { side: SIDE, space: ColorSpace::Rgb, data: vec![value; SIDE * SIDE * 3] };
            let time = Some(Duration::from_secs(id));
            let reference = Reference { id, crop, points, sharpness: 1.0, yaw: 0.0, time, coarse: false };
            person.references.push(Pictured::new(reference.into(), lower));
        }
        person
    }

    #[test]
    fn a_change_of_the_reference_takes_three_frames_and_hidden_ones_are_not_shown() {
        let engine = Package::find("compact").unwrap();
        let basis = Basis::read("basis", &engine.file("basis").unwrap(), 12).unwrap();
        let person = somebody(&basis);
        let face = Face {
            track_id: 0,
            rect: Rect::default(),
            points: basis.rest.clone().into(),
            confidence: 1.0,
            yaw: 0.0,
            occluded: false,
            front: None,
        };
        let nobody: crate::engine::Identity = std::sync::Arc::new(());
        let scene = Scene {
            face: &face,
            identity: &nobody,
            gain: 1.0,
            time: Some(Duration::from_secs(4)),
            gap: Duration::ZERO,
        };
        let area = Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        let drawn = |wanted: &Wanted, warp: &Warp, last, scene: &Scene| {
            let chosen = choose(&person, wanted, scene, last).unwrap();
            match chosen.pixels(&Canvas::Here, warp, &area).unwrap() {
                Some(Picture::Here(crop)) => (crop, chosen.showing),
                _ => panic!("a picture here"),
            }
        };
        let show = |open: f32, last: Option<Showing>, scene: &Scene| {
            let wanted = person.wanted(&basis, &basis.open_by(open), &basis.rest, 1.0, None);
            let warp = Warp::from(&wanted).unwrap();
            let last = last.map(|showing| (showing, 1.0));
            let (picture, showing) = drawn(&wanted, &warp, last, scene);
            (picture.data[(16 * SIDE + 16) * 3], showing)
        };
        let (value, mut showing) = show(0.0, None, &scene);
        assert_eq!((value, showing), (0, Showing { reference: 0, fading: None }));
        let mut seen = Vec::new();
        for open in [0.1, 0.0, 0.1] {
            let (value, next) = show(open, Some(showing), &scene);
            showing = next;
            seen.push(value);
        }
        // Not even a mouth that shuts again interrupts the change.
        assert!(seen[0].abs_diff(50) <= 1 && seen[1].abs_diff(100) <= 1, "{seen:?}");
        assert_eq!((showing, seen[2]), (Showing { reference: 1, fading: None }, 150), "{seen:?}");
        // A mouth that moves far changes at once.
        let last = Showing { reference: 0, fading: None };
        let wanted = person.wanted(&basis, &basis.open_by(0.1), &basis.rest, 1.0, None);
        let warp = Warp::from(&wanted).unwrap();
        let (picture, _) = drawn(&wanted, &warp, Some((last, CHANGE)), &scene);
        assert_eq!(picture.data[(16 * SIDE + 16) * 3], 150);
        let hidden = Scene { time: Some(Duration::from_millis(1200)), gap: Duration::from_secs(1), ..scene };
        assert_eq!(show(0.1, None, &hidden).1.reference, 0);
    }
}
