use super::person::Wanted;
use crate::geometry::{Point, landmarks};

/// Width of the feather as a part of the crop's side.
const FEATHER: f32 = 0.03;
/// The jaw's run from one side of the mouth to the other, as a range of landmarks.
const JAW: std::ops::Range<usize> = landmarks::JAW.start + 3..landmarks::JAW.end - 3;
/// Over the cheeks and under the nose, from the face's right to its left.
const OVER: [usize; 5] = [69, 90, 89, 91, 70];

/// Coverage of the pixels of a crop of `side`, 0..255: the lower face where it shall be and where it is now, whichever
/// reaches further, with a feather that ends inside.
pub(super) fn lower_face(side: usize, wanted: &Wanted, current: &[Point]) -> Vec<u8> {
    let middle = wanted.points[landmarks::INNER_TOP].lerp(wanted.points[landmarks::INNER_BOTTOM], 0.5);
    let further = |i: usize| {
        let (w, c) = (wanted.points[i], current[i]);
        let reach = if w.distance(middle) >= c.distance(middle) { w } else { c };
        // Where the two chins differ the neck between them must be covered as well.
        reach + (reach - middle) * (w.distance(c) / reach.distance(middle).max(0.05)).min(0.15)
    };
    let outline: Vec<Point> = JAW.map(further).chain(OVER.iter().map(|i| wanted.points[*i])).collect();
    let radius = ((FEATHER * side as f32 / 2.0).round() as usize).max(1);
    let mut mask = fill(side, &outline);
    // Three box blurs make a smooth ramp of three radii to either side; the threshold pulls it inside the outline.
    for _ in 0..3 {
        blur_rows(&mut mask, side, radius);
        transpose(&mut mask, side);
        blur_rows(&mut mask, side, radius);
        transpose(&mut mask, side);
    }
    let mut bytes: Vec<u8> = mask.iter().map(|m| (((m - 0.5) * 2.0).clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    for i in 0..side {
        for edge in [i, (side - 1) * side + i, i * side, i * side + side - 1] {
            bytes[edge] = 0;
        }
    }
    bytes
}

/// 1 inside the polygon, 0 outside (even-odd rule at the pixels' centres).
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

/// Running mean of `2 radius + 1` pixels along each row; the edge repeats.
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
        let mask = lower_face(SIDE, &Wanted { points, lower }, &face(current));
        move |x, y| mask[(y * SIDE as f32) as usize * SIDE + (x * SIDE as f32) as usize]
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
}
