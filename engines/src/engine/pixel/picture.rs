use crate::{geometry::Rect, image::Crop};

/// How a network is given the face, and which part of its picture is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Layout {
    /// Wav2Lip: the lower half black, then whole.
    HalfThenWhole,
    /// SyncTalk_2D: whole, then black but for a border of 5 of 160 pixels, 10 at the bottom.
    WholeThenMasked,
}

/// Pixels of a side for which [`HIDDEN`] is told.
const HIDDEN_SIDE: f32 = 160.0;
/// SyncTalk_2D's black rectangle: first and last column, first and last row, inclusive.
const HIDDEN: [f32; 4] = [5.0, 154.0, 5.0, 149.0];
/// Part of the picture's width over which a mouth is blended in.
const FEATHER: f32 = 0.1;

impl Layout {
    /// What of the picture the network makes anew, in parts of it: left, right, top, bottom.
    fn made(self) -> [f32; 4] {
        match self {
            Self::HalfThenWhole => [0.0, 1.0, 0.5, 1.0],
            Self::WholeThenMasked => [
                HIDDEN[0] / HIDDEN_SIDE,
                (HIDDEN[1] + 1.0) / HIDDEN_SIDE,
                HIDDEN[2] / HIDDEN_SIDE,
                (HIDDEN[3] + 1.0) / HIDDEN_SIDE,
            ],
        }
    }

    fn hides(self, side: usize, x: usize, y: usize) -> bool {
        match self {
            Self::HalfThenWhole => y >= side / 2,
            Self::WholeThenMasked => {
                // 320 pixels have a rectangle of their own: 5..=314, 5..=309.
                let [left, right, top, bottom] =
                    if side == 320 { [5, 314, 5, 309] } else { HIDDEN.map(|v| v as usize) };
                (left..=right).contains(&x) && (top..=bottom).contains(&y)
            }
        }
    }

    /// The network's input `[6, side, side]`, BGR in 0..1, of the part `inner` of a crop.
    pub(super) fn input(self, crop: &Crop, inner: &Rect, side: usize) -> Vec<f32> {
        self.masked(cut(crop, inner, side), side)
    }

    /// The network's input of the face as it is, `[3, side, side]`.
    pub(super) fn masked(self, whole: Vec<f32>, side: usize) -> Vec<f32> {
        let mut hidden = whole.clone();
        for plane in hidden.chunks_exact_mut(side * side) {
            for (y, row) in plane.chunks_exact_mut(side).enumerate() {
                row.iter_mut().enumerate().filter(|(x, _)| self.hides(side, *x, y)).for_each(|(_, v)| *v = 0.0);
            }
        }
        match self {
            Self::HalfThenWhole => [hidden, whole].concat(),
            Self::WholeThenMasked => [whole, hidden].concat(),
        }
    }

    /// Puts the network's picture, `[3, side, side]` BGR in 0..1, into the part `inner` of a crop.
    pub(super) fn put(self, picture: &[f32], side: usize, crop: &mut Crop, inner: &Rect) {
        let space = crop.space;
        let unit = 1.0 / crop.side as f32;
        let count = side * side;
        let size = crop.side;
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
                let [b, g, r] = [0, 1, 2].map(|c| sample(&picture[c * count..][..count]).clamp(0.0, 1.0) * 255.0);
                *pixel = space.from_rgb([r, g, b]).map(|v| (v + 0.5) as u8);
            }
        }
    }

    /// Coverage of a crop's pixels, 0..255: what the network made anew, with a feather that ends inside.
    pub(super) fn mask(self, crop: usize, inner: &Rect) -> Vec<u8> {
        let [left, right, top, bottom] = self.made();
        let (left, right) = (inner.x + left * inner.width, inner.x + right * inner.width);
        let (top, bottom) = (inner.y + top * inner.height, inner.y + bottom * inner.height);
        let feather = FEATHER * inner.width;
        let ramp = |distance: f32| {
            let t = (distance / feather).clamp(0.0, 1.0);
            t * t * (3.0 - 2.0 * t)
        };
        let unit = 1.0 / crop as f32;
        let along = |from: f32, to: f32| -> Vec<f32> {
            let at = |i: usize| (i as f32 + 0.5) * unit;
            (0..crop).map(|i| ramp(at(i) - from) * ramp(to - at(i))).collect()
        };
        let (columns, rows) = (along(left, right), along(top, bottom));
        rows.iter().flat_map(|r| columns.iter().map(move |c| (r * c * 255.0 + 0.5) as u8)).collect()
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

/// The part `inner` of a crop as BGR planes of `side` x `side`, 0..1: the mean of four linear samples a pixel.
fn cut(crop: &Crop, inner: &Rect, side: usize) -> Vec<f32> {
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
    let mut out = Vec::with_capacity(3 * side * side);
    for c in [2, 1, 0] {
        let plane = &planes[c * count..][..count];
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
    }
    out
}

/// Pixels of a side of the crop that a picture of `side` is put into: half as many again as the picture has.
pub(super) fn crop_side(side: usize) -> usize {
    (side * 3 / 2).next_multiple_of(64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ColorSpace;

    const INNER: Rect = Rect { x: 0.1, y: 0.05, width: 0.8, height: 0.9 };

    fn gradient(side: usize) -> Crop {
        let data = (0..side).flat_map(|y| (0..side).flat_map(move |x| [x * 255 / side, y * 255 / side, 90]));
        Crop { side, space: ColorSpace::Rgb, data: data.map(|v| v as u8).collect() }
    }

    #[test]
    fn what_the_network_sees_and_gives_back_stays_in_its_place() {
        for (layout, side) in [(Layout::HalfThenWhole, 96), (Layout::WholeThenMasked, 160)] {
            let crop = gradient(crop_side(side));
            let input = layout.input(&crop, &INNER, side);
            let count = side * side;
            let whole = if layout == Layout::HalfThenWhole { &input[3 * count..] } else { &input[..3 * count] };
            let hidden = if layout == Layout::HalfThenWhole { &input[..3 * count] } else { &input[3 * count..] };
            // BGR: the blue of the gradient is first, and red grows to the right.
            assert!((whole[count / 2] - 90.0 / 255.0).abs() < 0.01);
            assert!(whole[2 * count + 10] < whole[2 * count + side - 10]);
            assert_eq!((hidden[(side - 20) * side + side / 2], hidden[2 * side]), (0.0, whole[2 * side]));
            let mut back = crop.clone();
            layout.put(whole, side, &mut back, &INNER);
            let worst = crop.data.iter().zip(&back.data).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(3), "{layout:?}: {worst:?}");
        }
    }

    #[test]
    fn the_mask_covers_what_is_made_and_is_nothing_at_its_edge() {
        for layout in [Layout::HalfThenWhole, Layout::WholeThenMasked] {
            let mask = layout.mask(200, &INNER);
            let at = |x: usize, y: usize| mask[y * 200 + x];
            assert_eq!((at(100, 150), at(0, 150), at(100, 199), at(100, 5)), (255, 0, 0, 0), "{layout:?}");
            // Eyes stay the frame's own with half a face, and are not in the picture with the other.
            assert_eq!(at(100, 90) > 0, layout == Layout::WholeThenMasked);
            let jump = mask.chunks_exact(200).flat_map(|row| row.windows(2).map(|w| w[0].abs_diff(w[1]))).max();
            assert!(jump <= Some(30), "{jump:?}");
        }
    }
}
