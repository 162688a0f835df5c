use crate::{
    geometry::Rect,
    image::{Crop, inset, smooth_step},
};

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
        let [red, green, blue] = inset::cut(crop, inner, side);
        self.masked([blue, green, red].concat(), side)
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
        let [blue, green, red] = [0, 1, 2].map(|c| &picture[c * side * side..][..side * side]);
        inset::put([red, green, blue], side, crop, inner);
    }

    /// Coverage of a crop's pixels, 0..255: what the network made anew, with a feather that ends inside.
    pub(super) fn mask(self, crop: usize, inner: &Rect) -> Vec<u8> {
        covered(&self.shares(crop, inner))
    }

    /// How much of each column and of each row of a crop is shown, 0..1.
    pub(super) fn shares(self, crop: usize, inner: &Rect) -> [Vec<f32>; 2] {
        let [left, right, top, bottom] = self.made();
        let (left, right) = (inner.x + left * inner.width, inner.x + right * inner.width);
        let (top, bottom) = (inner.y + top * inner.height, inner.y + bottom * inner.height);
        let feather = FEATHER * inner.width;
        let ramp = |distance: f32| smooth_step(distance / feather);
        let unit = 1.0 / crop as f32;
        let along = |from: f32, to: f32| -> Vec<f32> {
            let at = |i: usize| (i as f32 + 0.5) * unit;
            (0..crop).map(|i| ramp(at(i) - from) * ramp(to - at(i))).collect()
        };
        [along(left, right), along(top, bottom)]
    }

    /// 1 where the network sees the face in both of its pictures, 0 where one of them hides it: `[side, side]`.
    pub(super) fn kept(self, side: usize) -> Vec<f32> {
        let kept = |i: usize| if self.hides(side, i % side, i / side) { 0.0 } else { 1.0 };
        (0..side * side).map(kept).collect()
    }

    /// Which of its pictures hides the mouth, and which does not.
    pub(super) fn pictures(self) -> [usize; 2] {
        match self {
            Self::HalfThenWhole => [0, 1],
            Self::WholeThenMasked => [1, 0],
        }
    }
}

/// What columns and rows cover together, 0..255.
pub(super) fn covered([columns, rows]: &[Vec<f32>; 2]) -> Vec<u8> {
    rows.iter().flat_map(|r| columns.iter().map(move |c| (r * c * 255.0 + 0.5) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ColorSpace, inset::crop_side};

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
    fn what_is_kept_is_what_is_not_hidden() {
        for (layout, side) in
            [(Layout::HalfThenWhole, 96), (Layout::WholeThenMasked, 160), (Layout::WholeThenMasked, 320)]
        {
            let both = layout.masked(vec![1.0; 3 * side * side], side);
            let [hidden, whole] = layout.pictures().map(|picture| &both[picture * 3 * side * side..][..side * side]);
            assert!(
                hidden == layout.kept(side) && whole.iter().all(|v| *v == 1.0) && hidden != whole,
                "{layout:?} {side}"
            );
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
