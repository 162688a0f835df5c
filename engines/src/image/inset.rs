//! A network's picture and the square crop that it is a part of: from the frame to the network and back, nothing rounded.

use super::Crop;
use crate::geometry::{Rect, Similarity};

/// A crop reaches beyond the network's picture by this part of its larger side, so that a feather ends inside.
const MARGIN: f32 = 0.06;

/// A box as a part of the square that is cut out around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Square {
    /// From frame pixels to unit coordinates of the square.
    pub to_crop: Similarity,
    /// The box in them.
    pub inner: Rect,
}

impl Square {
    pub fn around(rect: &Rect) -> Self {
        let side = rect.width.max(rect.height) * (1.0 + 2.0 * MARGIN);
        let centre = rect.centre();
        let (x, y) = (centre.x - side / 2.0, centre.y - side / 2.0);
        let inner = Rect {
            x: (rect.x - x) / side,
            y: (rect.y - y) / side,
            width: rect.width / side,
            height: rect.height / side,
        };
        Self { to_crop: Similarity { a: 1.0 / side, b: 0.0, tx: -x / side, ty: -y / side }, inner }
    }
}

/// Pixels of a side of the crop that a picture of `side` is put into: half as many again as the picture has.
pub(crate) fn crop_side(side: usize) -> usize {
    (side * 3 / 2).next_multiple_of(64)
}

/// Puts red, green and blue planes of `side` x `side`, 0..1, into the part `inner` of a crop, cubic between their pixels.
pub(crate) fn put(planes: [&[f32]; 3], side: usize, crop: &mut Crop, inner: &Rect) {
    let (space, size) = (crop.space, crop.side);
    let unit = 1.0 / size as f32;
    let columns: Vec<_> = (0..size)
        .map(|x| ((x as f32 + 0.5) * unit - inner.x) / inner.width)
        .map(|u| (0.0..1.0).contains(&u).then(|| cubic(u * side as f32 - 0.5, side)))
        .collect();
    for (y, row) in crop.data.chunks_exact_mut(size * 3).enumerate() {
        let v = ((y as f32 + 0.5) * unit - inner.y) / inner.height;
        if !(0.0..1.0).contains(&v) {
            continue;
        }
        let weights_y = cubic(v * side as f32 - 0.5, side);
        for (pixel, weights_x) in row.as_chunks_mut::<3>().0.iter_mut().zip(&columns) {
            let Some(weights_x) = weights_x else { continue };
            let sample = |plane: &[f32]| -> f32 {
                let line = |(at, w): &(usize, f32)| {
                    let row = &plane[at * side..(at + 1) * side];
                    w * weights_x.iter().map(|(i, w)| w * row[*i]).sum::<f32>()
                };
                weights_y.iter().map(line).sum()
            };
            let rgb = planes.map(|plane| sample(plane).clamp(0.0, 1.0) * 255.0);
            *pixel = space.from_rgb(rgb).map(|v| (v + 0.5) as u8);
        }
    }
}

/// Catmull-Rom weights around `at` of a line of `length`; the edge is repeated.
fn cubic(at: f32, length: usize) -> [(usize, f32); 4] {
    let base = at.floor();
    let t = at - base;
    let place = |k: i64| (base as i64 + k).clamp(0, length as i64 - 1) as usize;
    [
        (place(-1), ((-0.5 * t + 1.0) * t - 0.5) * t),
        (place(0), (1.5 * t - 2.5) * t * t + 1.0),
        (place(1), ((-1.5 * t + 2.0) * t + 0.5) * t),
        (place(2), (0.5 * t - 0.5) * t * t),
    ]
}

/// The part `inner` of a crop as red, green and blue planes of `side` x `side`, 0..1: the mean of four linear samples a pixel.
pub(crate) fn cut(crop: &Crop, inner: &Rect, side: usize) -> [Vec<f32>; 3] {
    let planes = crop.to_rgb_planar();
    let (size, count) = (crop.side, crop.side * crop.side);
    // Both samples of a pixel along a line, as lower neighbour and weight of the upper one.
    let places = |from: f32, length: f32| -> Vec<[(usize, f32); 2]> {
        let at = |i: usize, part: f32| {
            let p =
                ((from + (i as f32 + part) / side as f32 * length) * size as f32 - 0.5).clamp(0.0, (size - 1) as f32);
            let low = (p as usize).min(size.saturating_sub(2));
            (low, p - low as f32)
        };
        (0..side).map(|i| [at(i, 0.25), at(i, 0.75)]).collect()
    };
    let (columns, rows) = (places(inner.x, inner.width), places(inner.y, inner.height));
    [0, 1, 2].map(|c| {
        let plane = &planes[c * count..][..count];
        let mut out = Vec::with_capacity(side * side);
        for ys in &rows {
            for xs in &columns {
                let mut sum = 0.0;
                for (y, wy) in ys {
                    let (upper, lower) = (&plane[y * size..][..size], &plane[(y + 1).min(size - 1) * size..][..size]);
                    for (x, wx) in xs {
                        let next = (x + 1).min(size - 1);
                        let a = upper[*x] + (upper[next] - upper[*x]) * wx;
                        let b = lower[*x] + (lower[next] - lower[*x]) * wx;
                        sum += a + (b - a) * wy;
                    }
                }
                out.push(sum / 4.0);
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;

    #[test]
    fn a_square_holds_its_box() {
        let rect = Rect { x: 10.0, y: 20.0, width: 60.0, height: 100.0 };
        let square = Square::around(&rect);
        let corner = square.to_crop.apply(Point::new(10.0, 20.0));
        assert!((corner.x - square.inner.x).abs() < 1e-5 && (corner.y - square.inner.y).abs() < 1e-5);
        let far = square.to_crop.apply(Point::new(70.0, 120.0));
        assert!((far.x - square.inner.x - square.inner.width).abs() < 1e-5 && far.y < 1.0 && corner.y > 0.0);
    }
}
