use std::ops::Range;

use super::person::Wanted;
use crate::{
    geometry::{Point, Rect, landmarks},
    image::{Feather, Inside, covered, smooth_step},
};

/// Width of the feather as a part of the crop's side.
const FEATHER: f32 = 0.03;

/// Coverage of the pixels of a crop of `side`, 0..255: the lower face where it shall be and where it is now, whichever
/// reaches further, with a feather that ends inside.
pub(super) fn lower_face(side: usize, wanted: &Wanted, current: &[Point]) -> Vec<u8> {
    let radius = ((FEATHER * side as f32 / 2.0).round() as usize).max(1);
    covered(side, &outline(wanted, current), radius, Feather::Inside, Inside::Odd)
}

/// Cells along a side of the lattice on which [`Painted`] is computed.
const CELLS: usize = 32;
/// Where references are turned by less than the first ([`super::render::Chosen::turned`]) otherwise than the frame all of the
/// lower face is painted, from the second on only what must be.
const TURNED: [f32; 2] = [0.006, 0.012];
/// What speech moves by less than the first (unit crop) needs no paint, what it moves by the second is painted.
const MOVED: [f32; 2] = [0.004, 0.014];
/// Between such means of what landmarks need paint comes and goes.
const NEEDED: [f32; 2] = [0.1, 0.6];
/// Between such shares of the lips among the landmarks around a place it is painted whatever a reference shows there.
const LIPS: [f32; 2] = [0.35, 0.65];

/// Between such shares paint fades: within a few pixels, since a paste compares colours where a mask fades, and what is left out
/// is of others.
const EDGE: [f32; 2] = [0.25, 0.75];

/// What of a picture is painted where references show the head turned otherwise than the frame does: what speech moves, and of
/// that what is skin. The rest is right in the frame, and a warp of another pose brings hair and background into it.
pub(super) struct Painted {
    /// Between 0, all of it, and 1.
    spared: f32,
    /// Columns and rows of nodes that are used, from the first to the last.
    columns: Range<usize>,
    rows: Range<usize>,
    /// Places of the nodes, `[rows, columns]`, unit crop.
    pub(super) nodes: Vec<Point>,
    /// Of each how much is needed, and how much the lips have of it.
    needed: Vec<(f32, f32)>,
}

fn between([low, high]: [f32; 2], v: f32) -> f32 {
    smooth_step((v - low) / (high - low))
}

impl Painted {
    /// Inside `area`; `None` where all is painted.
    pub(super) fn new(wanted: &Wanted, current: &[Point], turned: f32, area: &Rect) -> Option<Self> {
        let spared = between(TURNED, turned);
        if spared <= 0.0 {
            return None;
        }
        let lips = landmarks::LIPS_OUTER.flat_map(|i| [wanted.points[i], current[i]]).map(|p| (p, 1.0, 1.0));
        let others = landmarks::LIPS.end..landmarks::LOWER.end;
        let others = others.map(|i| (wanted.points[i], between(MOVED, wanted.moved[i]), 0.0));
        let said: Vec<(Point, f32, f32)> = lips.chain(others).collect();
        let range = |low: f32, length: f32| {
            let place = |v: f32| (v * CELLS as f32).clamp(0.0, CELLS as f32);
            place(low) as usize..(place(low + length).ceil() as usize).max(1) + 1
        };
        let (columns, rows) = (range(area.x, area.width), range(area.y, area.height));
        let place = |v: usize| v as f32 / CELLS as f32;
        let nodes: Vec<Point> =
            rows.clone().flat_map(|y| columns.clone().map(move |x| Point::new(place(x), place(y)))).collect();
        let around = |p: &Point| {
            let (mut need, mut lips, mut total) = (0.0, 0.0, 0.0);
            for (q, n, l) in &said {
                // Shepard's weights: the nearest landmarks say it, none alone within a few pixels.
                let near = 1.0 / ((p.x - q.x).powi(2) + (p.y - q.y).powi(2) + 1e-4).powi(2);
                need += near * n;
                lips += near * l;
                total += near;
            }
            (between(NEEDED, need / total), between(LIPS, lips / total))
        };
        let needed = nodes.iter().map(around).collect();
        Some(Self { spared, columns, rows, nodes, needed })
    }

    /// Takes from `mask` what is not painted; `skin` is how much of each of its nodes is skin.
    pub(super) fn apply(&self, mask: &mut [u8], side: usize, skin: &[f32]) {
        let share = |((needed, lips), skin): (&(f32, f32), &f32)| 1.0 - self.spared * (1.0 - needed * lips.max(*skin));
        let shares: Vec<f32> = self.needed.iter().zip(skin).map(share).collect();
        let width = self.columns.len();
        // The two nodes around a pixel among those of a range, and how far it is from the first.
        let place = |v: usize, nodes: &Range<usize>| {
            let v = ((v as f32 + 0.5) * CELLS as f32 / side as f32 - nodes.start as f32).max(0.0);
            let low = (v as usize).min(nodes.len() - 2);
            (low, (v - low as f32).min(1.0))
        };
        let columns: Vec<(usize, f32)> = (0..side).map(|x| place(x, &self.columns)).collect();
        let edge: Vec<f32> = (0..=255).map(|v| between(EDGE, v as f32 / 255.0)).collect();
        let mut line = vec![0.0; width];
        for (y, pixels) in mask.chunks_exact_mut(side).enumerate() {
            let (j, v) = place(y, &self.rows);
            let (upper, lower) = (&shares[j * width..][..width], &shares[(j + 1) * width..][..width]);
            line.iter_mut().zip(upper.iter().zip(lower)).for_each(|(s, (a, b))| *s = a + (b - a) * v);
            for (pixel, (i, u)) in pixels.iter_mut().zip(&columns).filter(|(pixel, _)| **pixel > 0) {
                let share = line[*i] + (line[i + 1] - line[*i]) * u;
                *pixel = (f32::from(*pixel) * edge[(share * 255.0) as u8 as usize] + 0.5) as u8;
            }
        }
    }
}

/// The box of the pixels that a paste may read, in unit crop coordinates: those under the mask, and around them as far as
/// a filter reaches on a face that is shown at a quarter of the crop's size.
pub(super) fn area(mask: &[u8], side: usize) -> Rect {
    let reach = side.div_ceil(32);
    let used = |row: &[u8]| row.iter().any(|v| *v > 0);
    let Some(top) = mask.chunks_exact(side).position(used) else { return Rect::default() };
    let bottom = side - mask.chunks_exact(side).rev().position(used).unwrap_or_default();
    let mut any = vec![0; side];
    for row in mask[top * side..bottom * side].chunks_exact(side) {
        any.iter_mut().zip(row).for_each(|(a, v)| *a |= v);
    }
    let left = any.iter().position(|v| *v > 0).unwrap_or_default();
    let right = side - any.iter().rev().position(|v| *v > 0).unwrap_or_default();
    let unit = |v: usize| v as f32 / side as f32;
    let (x, y) = (unit(left.saturating_sub(reach)), unit(top.saturating_sub(reach)));
    Rect { x, y, width: unit(right + reach) - x, height: unit(bottom + reach) - y }
}

fn outline(wanted: &Wanted, current: &[Point]) -> Vec<Point> {
    let middle = wanted.points[landmarks::INNER_TOP].lerp(wanted.points[landmarks::INNER_BOTTOM], 0.5);
    let further = |i: usize| {
        let (w, c) = (wanted.points[i], current[i]);
        let reach = if w.distance(middle) >= c.distance(middle) { w } else { c };
        // Where the two chins differ the neck between them must be covered as well.
        reach + (reach - middle) * (w.distance(c) / reach.distance(middle).max(0.05)).min(0.15)
    };
    landmarks::OUTLINE_JAW.map(further).chain(landmarks::OUTLINE_OVER.iter().map(|i| wanted.points[*i])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 256;

    /// A face as an egg: jaw points on an ellipse whose lowest is `chin`, mouth, nose and cheeks in their places.
    fn face(chin: f32) -> Vec<Point> {
        let mut points = vec![Point::new(0.5, 0.6); landmarks::COUNT];
        for (k, i) in landmarks::JAW.enumerate() {
            let angle = std::f32::consts::PI * k as f32 / 20.0;
            points[i] = Point::new(0.5 + 0.35 * angle.cos(), 0.3 + (chin - 0.3) * angle.sin());
        }
        for (i, x, y) in [(69, 0.3, 0.42), (90, 0.4, 0.39), (89, 0.5, 0.4), (91, 0.6, 0.39), (70, 0.7, 0.42)] {
            points[i] = Point::new(x, y);
        }
        points
    }

    fn mask(wanted: f32, current: f32) -> impl Fn(f32, f32) -> u8 {
        let points = face(wanted);
        let lower = points[landmarks::LOWER].to_vec();
        let wanted = Wanted { moved: vec![0.0; lower.len()], points, lower, drift: Vec::new() };
        let mask = lower_face(SIDE, &wanted, &face(current));
        move |x, y| mask[(y * SIDE as f32) as usize * SIDE + (x * SIDE as f32) as usize]
    }

    /// The definition: fill, blur each row and each column three times, take the upper half.
    fn by_definition(side: usize, wanted: &Wanted, current: &[Point]) -> Vec<u8> {
        let radius = ((FEATHER * side as f32 / 2.0).round() as usize).max(1);
        let mut mask = fill(side, &outline(wanted, current));
        for _ in 0..3 {
            blur_rows(&mut mask, side, radius);
            transpose(&mut mask, side);
            blur_rows(&mut mask, side, radius);
            transpose(&mut mask, side);
        }
        let mut bytes: Vec<u8> =
            mask.iter().map(|m| (((m - 0.5) * 2.0).clamp(0.0, 1.0) * 255.0).round() as u8).collect();
        for i in 0..side {
            for edge in [i, (side - 1) * side + i, i * side, i * side + side - 1] {
                bytes[edge] = 0;
            }
        }
        bytes
    }

    fn fill(side: usize, outline: &[Point]) -> Vec<f32> {
        let mut mask = vec![0.0; side * side];
        let mut crossings = Vec::with_capacity(8);
        for (row, line) in mask.chunks_exact_mut(side).enumerate() {
            let y = (row as f32 + 0.5) / side as f32;
            crossings.clear();
            for (a, b) in outline.iter().zip(outline.iter().cycle().skip(1)) {
                if (a.y <= y) != (b.y <= y) {
                    crossings.push((a.x + (b.x - a.x) * (y - a.y) / (b.y - a.y)) * side as f32);
                }
            }
            crossings.sort_by(f32::total_cmp);
            for span in crossings.as_chunks::<2>().0 {
                let [from, to] = span.map(|x| (x - 0.5).ceil().clamp(0.0, side as f32) as usize);
                line[from..to.max(from)].fill(1.0);
            }
        }
        mask
    }

    fn blur_rows(mask: &mut [f32], side: usize, radius: usize) {
        let mut source = vec![0.0; side];
        let norm = 1.0 / (2 * radius + 1) as f32;
        for line in mask.chunks_exact_mut(side) {
            source.copy_from_slice(line);
            let at = |i: isize| source[i.clamp(0, side as isize - 1) as usize];
            let mut sum: f32 = (-(radius as isize)..=radius as isize).map(at).sum();
            for (i, out) in line.iter_mut().enumerate() {
                *out = sum * norm;
                sum += at((i + radius + 1) as isize) - at(i as isize - radius as isize);
            }
        }
    }

    fn transpose(mask: &mut [f32], side: usize) {
        for r in 0..side {
            for c in r + 1..side {
                mask.swap(r * side + c, c * side + r);
            }
        }
    }

    /// But where the outline ends within a few pixels of the crop's sides, which no aligned face does.
    #[test]
    fn it_is_what_three_blurs_of_the_outline_make() {
        for side in [96, 256, 384] {
            for (chin, now, shift) in [(0.9, 0.9, 0.0), (0.7, 0.95, 0.1), (1.2, 0.8, -0.1)] {
                let mut points = face(chin);
                points.iter_mut().for_each(|p| *p = Point::new(p.x + shift, p.y));
                let lower = points[landmarks::LOWER].to_vec();
                let wanted = Wanted { moved: vec![0.0; lower.len()], points, lower, drift: Vec::new() };
                let (a, b) = (lower_face(side, &wanted, &face(now)), by_definition(side, &wanted, &face(now)));
                let worst = a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(worst <= 1, "{side}, {chin}, {now}, {shift}: {worst}");
                assert!(b.contains(&255));
            }
        }
    }

    #[test]
    fn it_covers_the_mouth_and_nothing_above_the_nose_or_beside_the_face() {
        let at = mask(0.9, 0.9);
        assert_eq!(at(0.5, 0.6), 255);
        for (x, y) in [(0.5, 0.35), (0.5, 0.1), (0.05, 0.6), (0.95, 0.6), (0.5, 0.97)] {
            assert_eq!(at(x, y), 0, "{x}, {y}");
        }
    }

    #[test]
    fn a_chin_that_hangs_lower_now_than_it_shall_is_covered() {
        assert_eq!(mask(0.75, 0.75)(0.5, 0.84), 0);
        assert!(mask(0.75, 0.88)(0.5, 0.84) > 200);
        assert!(mask(0.88, 0.75)(0.5, 0.84) > 200);
    }

    #[test]
    fn it_fades_without_steps_and_ends_before_the_border() {
        let at = mask(1.05, 1.05);
        let column: Vec<i32> = (0..SIDE).map(|r| at(0.5, (r as f32 + 0.5) / SIDE as f32).into()).collect();
        assert!(column.windows(2).all(|w| (w[1] - w[0]).abs() < 64 || w[1] == 0));
        assert_eq!((column[0], column[SIDE - 1]), (0, 0));
    }

    /// The whole mask and what is painted of it, of a mouth whose chin speech moves by `chin`, from references turned otherwise by `turned` that show skin
    /// where `skin` says.
    fn painted(turned: f32, chin: f32, skin: impl Fn(Point) -> f32) -> [Vec<u8>; 2] {
        let mut points = face(0.9);
        for (k, i) in landmarks::LIPS_OUTER.enumerate() {
            let (sin, cos) = (std::f32::consts::TAU * k as f32 / 20.0).sin_cos();
            points[i] = Point::new(0.5 - 0.15 * cos, 0.6 - 0.06 * sin);
        }
        landmarks::CHIN.for_each(|i| points[i] = Point::new(0.5, 0.78));
        landmarks::PHILTRUM.for_each(|i| points[i] = Point::new(0.5, 0.48));
        for (k, i) in landmarks::CHEEKS.enumerate().skip(2) {
            points[i] = Point::new(if k % 2 == 0 { 0.27 } else { 0.73 }, 0.45 + 0.02 * k as f32);
        }
        let lower = points[landmarks::LOWER].to_vec();
        let mut moved = vec![0.0; lower.len()];
        moved[landmarks::CHIN].fill(chin);
        moved[landmarks::CHIN_TIP - 3..landmarks::CHIN_TIP + 4].fill(chin);
        let wanted = Wanted { points, lower, drift: Vec::new(), moved };
        let whole = lower_face(SIDE, &wanted, &wanted.points);
        let mut mask = whole.clone();
        if let Some(painted) = Painted::new(&wanted, &wanted.points, turned, &area(&whole, SIDE)) {
            let skin: Vec<f32> = painted.nodes.iter().map(|p| skin(*p)).collect();
            painted.apply(&mut mask, SIDE, &skin);
        }
        [whole, mask]
    }

    #[test]
    fn of_a_head_that_is_turned_otherwise_only_what_speech_moves_is_painted_and_of_that_only_skin() {
        let (mouth, chin, cheek) = ((0.5, 0.6), (0.5, 0.8), (0.28, 0.58));
        let of = |turned, moved, skin: &dyn Fn(Point) -> f32| {
            let [whole, mask] = painted(turned, moved, skin);
            let at = |mask: &[u8], (x, y): (f32, f32)| {
                f32::from(mask[(y * SIDE as f32) as usize * SIDE + (x * SIDE as f32) as usize])
            };
            [mouth, chin, cheek].map(|place| at(&mask, place) / at(&whole, place))
        };
        assert_eq!(of(0.0, 0.05, &|_| 0.0), [1.0; 3], "a head as the reference's");
        let [mouth, chin, cheek] = of(0.1, 0.05, &|_| 1.0);
        assert!(mouth == 1.0 && chin > 0.9 && cheek < 0.1, "{mouth} {chin} {cheek}");
        let [mouth, chin, _] = of(0.1, 0.0, &|_| 1.0);
        assert!(mouth == 1.0 && chin < 0.3, "a chin that stays: {mouth} {chin}");
        let [mouth, chin, _] = of(0.1, 0.05, &|p| if p.y > 0.7 { 0.0 } else { 1.0 });
        assert!(mouth == 1.0 && chin < 0.3, "a chin that is none: {mouth} {chin}");
        let [mouth, ..] = of(0.1, 0.05, &|_| 0.0);
        assert_eq!(mouth, 1.0, "lips and what is between them are not of the skin's colour");
    }
}
