//! Where MuseTalk's picture lies on a face, and what of it is put back (TMElyralab/MuseTalk, musetalk/utils/preprocessing.py and
//! face_parsing).
//!
//! The published box is that of the 68 landmarks of DWPose, of which the third of the four on the nose's bridge is the middle
//! of its height: it goes as far up from there as the lowest landmark is down, and ten pixels further below. Ours stand for
//! them: the jaw's line from ear to ear, brows, eyes, nose and lips, without the forehead, which the 68 have not; the bridge's
//! point lies two thirds down from the nose's root to its tip. Beside OpenSeeFace's, which finds 66 of the 68, on 240 frames of
//! 48 clips the box is 0.96 times as wide in the median (0.94 to 1.00 in four of five frames) and 1.02 times as high (0.99 to
//! 1.07), and its lower edge 0.003 of its height too high: the jaw of the 68 begins higher, where the head is wider.

use crate::{
    engine::latent::blend,
    geometry::{Point, Rect, landmarks},
    image::{Feather, Inside, PixelBox, covered, smooth_step},
    manifest::Mask,
};

/// The part of the way from the nose's root to its tip at which the third of four points of the bridge lies.
const BRIDGE: f32 = 2.0 / 3.0;
/// What is added below, in parts of the box's height: ten pixels of a face as large as the network's picture.
const MARGIN: f32 = blend::MARGIN as f32 / 256.0;
/// Pixels of a side of the face parser's picture, which shows the crop.
const PARSED: f32 = 512.0;
/// How far the published jaw goes below the chin, and how far its cheeks are drawn in where they are further than so much from
/// the crop's middle, in these pixels: a dilation by 6 downwards and by 10 sideways, and two erosions of the cheeks by 17.
const BELOW: f32 = 6.0;
const DRAWN_IN: f32 = 24.0;
const CHEEK: f32 = 90.0;
/// Part of the box's height over which a mouth is blended in: as much as ends above the box's lower edge.
const FEATHER: f32 = 2.0 * (MARGIN - BELOW * blend::EXPAND as f32 / PARSED);
/// The nose below its bridge, from its wing on the face's right to that on the left (mesh 48, 98, 2, 327, 278).
const NOSE: [usize; 5] = [92, 90, 89, 91, 93];

/// Landmarks that stand for one of the 68.
fn published(points: &[Point]) -> Option<impl Iterator<Item = Point>> {
    let all = points.get(..landmarks::COUNT)?;
    let known = all.iter().enumerate().filter(|(i, _)| !landmarks::FOREHEAD.contains(i)).map(|(_, p)| *p);
    known.clone().all(|p| p.is_finite() && p.x.abs().max(p.y.abs()) < 1e6).then_some(known)
}

fn bridge(points: &[Point]) -> Point {
    points[landmarks::NOSE_ROOT].lerp(points[landmarks::NOSE_TIP], BRIDGE)
}

/// The box of a face whose landmarks are `points` (`[111]`, frame pixels); `None` where it has no size. It is not rounded, since
/// that makes a mouth tremble, and may leave the frame.
pub(super) fn face(points: &[Point]) -> Option<Rect> {
    let known: Vec<Point> = published(points)?.collect();
    let Rect { x, y, width, height } = Rect::around(&known)?;
    let half = y + height - bridge(points).y;
    let rect = Rect { x, y: y + height - 2.0 * half, width, height: 2.0 * half * (1.0 + MARGIN) };
    (rect.width >= 4.0 && rect.height >= 4.0).then_some(rect)
}

/// The published box in a frame of so many columns and rows: landmarks cut off to whole pixels, and ten pixels more below. What
/// leaves the frame is cut off, at the left too, where the published program takes its detector's box.
pub(super) fn whole(points: &[Point], (width, height): (usize, usize)) -> Option<PixelBox> {
    let known: Vec<[i32; 2]> = published(points)?.map(|p| [p.x as i32, p.y as i32]).collect();
    let (columns, rows) = (known.iter().map(|p| p[0]), known.iter().map(|p| p[1]));
    let (left, right, bottom) = (columns.clone().min()?, columns.max()?, rows.max()?);
    let top = (2 * bridge(points).y as i32 - bottom).max(0);
    if left >= right || top >= bottom {
        return None;
    }
    blend::with_margin(&PixelBox { left, top, right, bottom }, height).within(width, height)
}

/// Coverage of the pixels of a crop of `side`, 0..255, in which the network's picture lies at `inner`, nothing at its edge.
/// `to_crop` takes frame pixels to unit coordinates of the crop.
pub(super) fn coverage(
    points: &[Point],
    mask: Mask,
    (side, inner): (usize, &Rect),
    to_crop: impl Fn(Point) -> Point,
) -> Vec<u8> {
    let Some(rect) = face(points) else { return vec![0; side * side] };
    let outline: Vec<Point> = outline(points, mask, &rect, rect.centre().y).into_iter().map(to_crop).collect();
    let feather = FEATHER * inner.height * side as f32;
    let radius = ((feather / 6.0).round() as usize).max(1);
    let mut coverage = covered(side, &outline, radius, Feather::Across, Inside::OneWay);
    let ramp = |distance: f32| smooth_step(distance * side as f32 / (feather / 2.0));
    let along = |from: f32, length: f32| -> Vec<f32> {
        let at = |i: usize| (i as f32 + 0.5) / side as f32 - from;
        (0..side).map(|i| ramp(at(i)) * ramp(length - at(i))).collect()
    };
    let (columns, rows) = (along(inner.x, inner.width), along(inner.y, inner.height));
    for (line, row) in coverage.chunks_exact_mut(side.max(1)).zip(&rows) {
        line.iter_mut().zip(&columns).for_each(|(v, column)| *v = (f32::from(*v) * row * column + 0.5) as u8);
    }
    coverage
}

/// What stands for the face parser's picture of a crop around the box `place`: `[size, size]`, 255 where the face is.
pub(super) fn parsed(points: &[Point], mask: Mask, place: &PixelBox, crop: &PixelBox) -> (Vec<u8>, usize) {
    let size = PARSED as usize;
    let (columns, rows) = place.size();
    let rect = Rect { x: place.left as f32, y: place.top as f32, width: columns as f32, height: rows as f32 };
    let side = crop.size().0.max(1) as f32;
    let outline = outline(points, mask, &rect, rect.y).into_iter();
    let unit = |p: Point| Point::new((p.x - crop.left as f32) / side, (p.y - crop.top as f32) / side);
    (covered(size, &outline.map(unit).collect::<Vec<_>>(), 0, Feather::Across, Inside::OneWay), size)
}

/// The outline of what is put back of the picture in the box `rect`, from row `from` down, in frame pixels: the face without
/// its nose.
fn outline(points: &[Point], mask: Mask, rect: &Rect, from: f32) -> Vec<Point> {
    if points.len() < landmarks::COUNT {
        return Vec::new();
    }
    let unit = rect.width.max(rect.height) * blend::EXPAND as f32 / PARSED;
    let middle = rect.centre().x;
    let jaw = |i: usize| {
        let (p, aside) = (points[i], points[i].x - middle);
        match mask {
            Mask::Face => p,
            Mask::Jaw if aside.abs() > CHEEK * unit => {
                Point::new(middle + aside.signum() * (aside.abs() - DRAWN_IN * unit).max(CHEEK * unit), p.y)
            }
            Mask::Jaw => p + Point::new(0.0, BELOW * unit),
        }
    };
    // The nose's sides go up as far as the ears' ends of the jaw, and are cut off with them.
    let top = points[landmarks::EAR_LEFT].y.min(points[landmarks::EAR_RIGHT].y).min(rect.y);
    let above = |i: usize| Point::new(points[i].x, top);
    let nose = NOSE.iter().map(|i| points[*i]);
    let whole: Vec<Point> =
        landmarks::JAW.map(jaw).chain([above(NOSE[0])]).chain(nose).chain([above(NOSE[NOSE.len() - 1])]).collect();
    below(&whole, from)
}

/// The part of a polygon at `y` and below (I. Sutherland and G. Hodgman, CACM 17(1), 1974).
fn below(polygon: &[Point], y: f32) -> Vec<Point> {
    let mut kept = Vec::with_capacity(polygon.len() + 4);
    for (a, b) in polygon.iter().zip(polygon.iter().cycle().skip(1)) {
        if a.y >= y {
            kept.push(*a);
        }
        if (a.y >= y) != (b.y >= y) {
            kept.push(a.lerp(*b, (y - a.y) / (b.y - a.y)));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::inset::Square;

    /// A level face, its jaw 160 pixels wide and its chin at 310.
    fn points() -> Vec<Point> {
        let mut points = vec![Point::new(200.0, 230.0); landmarks::COUNT];
        for (k, i) in landmarks::JAW.enumerate() {
            let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
            points[i] = Point::new(200.0 + 80.0 * cos, 200.0 + 110.0 * sin);
        }
        // A forehead that reaches further than all else.
        points[landmarks::FOREHEAD].iter_mut().for_each(|p| *p = Point::new(20.0, 60.0));
        points[landmarks::NOSE_ROOT].y = 180.0;
        points[landmarks::NOSE_TIP].y = 240.0;
        for (i, [x, y]) in
            NOSE.into_iter().zip([[185.0, 240.0], [190.0, 248.0], [200.0, 252.0], [210.0, 248.0], [215.0, 240.0]])
        {
            points[i] = Point::new(x, y);
        }
        points
    }

    #[test]
    fn the_box_is_twice_as_high_as_from_the_bridge_to_the_chin_and_is_not_rounded() {
        // The bridge's point lies at 220, the chin at 310.
        let rect = face(&points()).unwrap();
        assert!((rect.x - 120.0).abs() < 1e-3 && (rect.width - 160.0).abs() < 1e-3, "{rect:?}");
        assert!((rect.y - 130.0).abs() < 1e-3 && (rect.height - 180.0 * (1.0 + 10.0 / 256.0)).abs() < 1e-3, "{rect:?}");
        let moved: Vec<Point> = points().iter().map(|p| *p + Point::new(0.25, 0.5)).collect();
        let after = face(&moved).unwrap();
        assert!((after.x - rect.x - 0.25).abs() < 1e-3 && (after.y - rect.y - 0.5).abs() < 1e-3);
        let mut broken = points();
        broken[landmarks::CHIN_TIP].x = f32::NAN;
        assert_eq!(
            (face(&broken), face(&points()[1..]), face(&vec![Point::new(5.0, 5.0); landmarks::COUNT])),
            (None, None, None)
        );
    }

    #[test]
    fn the_published_box_is_of_whole_pixels_and_has_ten_more_below() {
        let moved: Vec<Point> = points().iter().map(|p| *p + Point::new(0.7, 0.9)).collect();
        let wanted = PixelBox { left: 120, top: 130, right: 280, bottom: 320 };
        assert_eq!((whole(&points(), (640, 480)), whole(&moved, (640, 480))), (Some(wanted), Some(wanted)));
        assert_eq!(whole(&points(), (640, 315)), Some(PixelBox { bottom: 315, ..wanted }));
        // Above the frame it is cut off, and so is what lies beside it.
        let up: Vec<Point> = points().iter().map(|p| *p - Point::new(150.0, 140.0)).collect();
        assert_eq!(whole(&up, (640, 480)), Some(PixelBox { left: 0, top: 0, right: 130, bottom: 180 }));
        let away: Vec<Point> = points().iter().map(|p| *p + Point::new(900.0, 0.0)).collect();
        assert_eq!((whole(&away, (640, 480)), whole(&[], (640, 480))), (None, None));
    }

    /// What covers a point of the frame, 0..255.
    fn at(mask: Mask) -> impl Fn(f32, f32) -> u8 {
        let (points, side) = (points(), 384);
        let square = Square::around(&face(&points).unwrap());
        let coverage = coverage(&points, mask, (side, &square.inner), |p| square.to_crop.apply(p));
        move |x, y| {
            let p = square.to_crop.apply(Point::new(x, y));
            coverage[(p.y * side as f32) as usize * side + (p.x * side as f32) as usize]
        }
    }

    #[test]
    fn the_mouth_and_the_chin_are_covered_and_eyes_nose_and_neck_are_not() {
        for mask in [Mask::Jaw, Mask::Face] {
            let at = at(mask);
            assert_eq!((at(200.0, 270.0), at(200.0, 300.0), at(165.0, 250.0)), (255, 255, 255), "{mask:?}");
            // An eye, the nose's tip, a cheek above the middle, the neck, beside the face.
            for (x, y) in [(170.0, 190.0), (200.0, 240.0), (150.0, 215.0), (200.0, 316.5), (122.0, 290.0)] {
                assert_eq!(at(x, y), 0, "{mask:?}: {x}, {y}");
            }
        }
        let (jaw, whole) = (at(Mask::Jaw), at(Mask::Face));
        // The jaw reaches further down, the face further out.
        assert!(jaw(200.0, 311.5) > 150 && whole(200.0, 311.5) < 100, "{} {}", jaw(200.0, 311.5), whole(200.0, 311.5));
        assert_eq!((jaw(131.0, 240.0), whole(131.0, 240.0)), (0, 255));
    }

    /// The level face turned to the left of the picture until its nose stands out beyond the far cheek.
    fn profile() -> Vec<Point> {
        let mut points = points();
        // The far half of the jaw lies near the middle, and rises there to the ear's end.
        for (k, i) in landmarks::JAW.enumerate().skip(11) {
            let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
            points[i] = Point::new(200.0 + 14.0 * cos, 200.0 + 110.0 * sin);
        }
        for (i, [x, y]) in
            NOSE.into_iter().zip([[168.0, 240.0], [170.0, 248.0], [174.0, 252.0], [192.0, 248.0], [200.0, 240.0]])
        {
            points[i] = Point::new(x, y);
        }
        points
    }

    #[test]
    fn of_a_profile_nothing_is_covered_between_the_far_cheek_and_the_nose() {
        let (points, side) = (profile(), 384);
        let square = Square::around(&face(&points).unwrap());
        let place = whole(&points, (640, 480)).unwrap();
        let crop = blend::crop(&place, blend::EXPAND).unwrap();
        let (picture, size) = parsed(&points, Mask::Face, &place, &crop);
        let live = coverage(&points, Mask::Face, (side, &square.inner), |p| square.to_crop.apply(p));
        for (p, inside) in
            [((182.0, 235.0), false), ((178.0, 244.0), false), ((225.0, 270.0), true), ((195.0, 275.0), true)]
        {
            let p = Point::new(p.0, p.1);
            let at = square.to_crop.apply(p) * side as f32;
            let covered = live[at.y as usize * side + at.x as usize];
            let to = |v: f32, from: i32| ((v - from as f32) / crop.size().0 as f32 * size as f32) as usize;
            let seen = picture[to(p.y, crop.top) * size + to(p.x, crop.left)];
            assert!(
                if inside { covered > 200 && seen == 255 } else { covered < 60 && seen == 0 },
                "{p:?}: {covered} {seen}"
            );
        }
    }

    #[test]
    fn it_is_nothing_at_the_edge_of_the_picture_and_has_no_steps() {
        // A face that fills its box to the lower edge.
        let mut points = points();
        points[landmarks::LIPS].iter_mut().for_each(|p| p.y = 280.0);
        let square = Square::around(&face(&points).unwrap());
        for mask in [Mask::Jaw, Mask::Face] {
            let side = 384;
            let coverage = coverage(&points, mask, (side, &square.inner), |p| square.to_crop.apply(p));
            let (left, right) = (square.inner.x * side as f32, (square.inner.x + square.inner.width) * side as f32);
            let (top, bottom) = (square.inner.y * side as f32, (square.inner.y + square.inner.height) * side as f32);
            for (i, v) in coverage.iter().enumerate() {
                let (x, y) = ((i % side) as f32, (i / side) as f32);
                let outside = x + 1.0 < left || x > right || y + 1.0 < top || y > bottom;
                assert!(!outside || *v == 0, "{mask:?}: {x} {y} {v}");
            }
            let jump = coverage.chunks_exact(side).flat_map(|row| row.windows(2).map(|w| w[0].abs_diff(w[1]))).max();
            assert!(coverage.contains(&255) && jump < Some(90), "{mask:?}: {jump:?}");
        }
    }

    #[test]
    fn what_stands_for_the_parsers_picture_is_the_face_in_its_place() {
        let points = points();
        let place = whole(&points, (640, 480)).unwrap();
        let crop = blend::crop(&place, blend::EXPAND).unwrap();
        let (picture, size) = parsed(&points, Mask::Jaw, &place, &crop);
        let at = |x: f32, y: f32| {
            let to = |v: f32, from: i32| ((v - from as f32) / crop.size().0 as f32 * size as f32) as usize;
            picture[to(y, crop.top) * size + to(x, crop.left)]
        };
        // It is cut to the lower half later.
        assert_eq!((at(200.0, 280.0), at(160.0, 215.0), at(200.0, 311.0), at(200.0, 314.0)), (255, 255, 255, 0));
        assert_eq!((at(200.0, 240.0), at(122.0, 240.0), at(200.0, 120.0)), (0, 0, 0));
        assert!(picture.iter().all(|v| [0, 255].contains(v)));
        assert!(parsed(&[], Mask::Jaw, &place, &crop).0.iter().all(|v| *v == 0));
    }
}
