//! What the published programs do with pixels: whole boxes, crops of bytes, hard pastes.
//!
//! Wav2Lip: Rudrabha/Wav2Lip, inference.py, and lipku/LiveTalking, avatars/wav2lip_avatar.py, which does the same at 256
//! pixels. SyncTalk_2D: lqql8790229/SyncTalk_2D, inference.py and inference_328.py.

use super::picture::Layout;
use crate::{
    geometry::{Point, Similarity},
    image::{ColorSpace, Crop, Interpolation, Patch, PixelBox, resize},
};

/// Pixels that Wav2Lip adds below a detected face (`--pads 0 10 0 0`).
const PAD_BELOW: i32 = 10;
/// Boxes that Wav2Lip takes the mean of.
const SMOOTHED: usize = 5;
/// Pixels that SyncTalk_2D cuts off each side of its crop.
const BORDER: usize = 4;

/// A network's way to a frame and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Published {
    layout: Layout,
    /// Pixels of a side of the network's picture.
    side: usize,
}

/// A box of a frame as the network is given it.
pub(crate) struct Prepared {
    /// The network's input `[6, side, side]`, BGR in 0..1.
    pub input: Vec<f32>,
    /// Columns and rows of the box.
    size: (usize, usize),
    /// The whole crop, of which the network's picture is the middle: `[canvas, canvas, 3]`, RGB.
    crop: Vec<u8>,
}

impl Published {
    pub fn new(layout: Layout, side: usize) -> Self {
        Self { layout, side }
    }

    pub fn wav2lip(side: usize) -> Self {
        Self::new(Layout::HalfThenWhole, side)
    }

    pub fn synctalk2d(side: usize) -> Self {
        Self::new(Layout::WholeThenMasked, side)
    }

    /// Pixels of a side of the network's picture.
    pub fn side(&self) -> usize {
        self.side
    }

    fn border(&self) -> usize {
        if self.layout == Layout::WholeThenMasked { BORDER } else { 0 }
    }

    fn canvas(&self) -> usize {
        self.side + 2 * self.border()
    }

    /// SyncTalk_2D of 160 pixels gives `INTER_AREA` in the place of the destination, so that it is bilinear.
    fn interpolation(&self) -> Interpolation {
        if self.layout == Layout::WholeThenMasked && self.side == 320 {
            Interpolation::Cubic
        } else {
            Interpolation::Linear
        }
    }

    /// `pixels` of a box of `size` columns and rows, `[rows, columns, 3]` in RGB. `None` where they are not that many.
    pub fn prepare(&self, pixels: &[u8], size: (usize, usize)) -> Option<Prepared> {
        let (canvas, border) = (self.canvas(), self.border());
        let crop = resize(pixels, size, (canvas, canvas), self.interpolation())?;
        let mut whole = Vec::with_capacity(3 * self.side * self.side);
        for channel in [2, 1, 0] {
            for y in border..border + self.side {
                let row = &crop[(y * canvas + border) * 3..][..self.side * 3];
                whole.extend(row.iter().skip(channel).step_by(3).map(|v| f32::from(*v) / 255.0));
            }
        }
        Some(Prepared { input: self.layout.masked(whole, self.side), size, crop })
    }

    /// The box with the network's `picture` `[3, side, side]`, BGR in 0..1, in it: `[rows, columns, 3]` in RGB. `None` where
    /// the picture is not that large.
    pub fn finish(&self, prepared: Prepared, picture: &[f32]) -> Option<Vec<u8>> {
        let Prepared { size, mut crop, .. } = prepared;
        let (canvas, border, count) = (self.canvas(), self.border(), self.side * self.side);
        if picture.len() != 3 * count {
            return None;
        }
        for y in 0..self.side {
            let row = &mut crop[((y + border) * canvas + border) * 3..][..self.side * 3];
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                // Cut off, not rounded.
                *pixel = [2, 1, 0].map(|plane| (picture[plane * count + y * self.side + x] * 255.0) as u8);
            }
        }
        resize(&crop, (canvas, canvas), size, self.interpolation())
    }
}

/// `pixels` of a box, `[rows, columns, 3]` in RGB, as a patch that is put there as it is. `None` where they are not that many, or
/// the box is larger than a crop may be.
pub(crate) fn patch(pixels: &[u8], place: &PixelBox) -> Option<Patch> {
    let (columns, rows) = place.size();
    let side = columns.max(rows);
    if pixels.len() != columns * rows * 3 || !(1..=Crop::MAX_SIDE).contains(&side) {
        return None;
    }
    let (mut data, mut mask) = (vec![0; side * side * 3], vec![0; side * side]);
    for (y, row) in pixels.chunks_exact(columns * 3).enumerate() {
        data[y * side * 3..][..row.len()].copy_from_slice(row);
        mask[y * side..][..columns].fill(255);
    }
    let to_frame = Similarity { a: side as f32, b: 0.0, tx: place.left as f32, ty: place.top as f32 };
    let pixels = Crop { side, space: ColorSpace::Rgb, data }.into();
    Some(Patch { pixels, mask: mask.into(), to_frame, opacity: 1.0, hard: true })
}

/// Wav2Lip's box around a detected face `[left, top, right, bottom]` in a frame of `size`: padded, and cut to the frame.
pub(crate) fn padded([left, top, right, bottom]: [i32; 4], (width, height): (usize, usize)) -> Option<PixelBox> {
    PixelBox { left, top, right, bottom: bottom.saturating_add(PAD_BELOW) }.within(width, height)
}

/// SyncTalk_2D's box: the landmarks 1, 31 and 52 of its 110, cut off to whole pixels; square.
pub(crate) fn square(right_ear: Point, left_ear: Point, nose: Point) -> Option<PixelBox> {
    let whole = |v: f32| (v.is_finite() && v.abs() < 1e6).then_some(v as i32);
    let (left, right, top) = (whole(right_ear.x)?, whole(left_ear.x)?, whole(nose.y)?);
    Some(PixelBox { left, top, right, bottom: top + right - left })
}

/// Wav2Lip's mean of five boxes, which it writes over what it reads: box `i` becomes the mean of the boxes `i..i + 5`, cut off
/// to whole pixels. Where fewer follow, it is that of the last five, of which some are means already. Where there are fewer
/// than five in all, Python takes the last `2 n - 5` of them, or all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Smoother {
    /// The last four means.
    before: Vec<PixelBox>,
    /// Boxes so far.
    count: usize,
}

impl Smoother {
    /// Boxes after the present one that it looks at.
    pub const LATER: usize = SMOOTHED - 1;

    /// The mean for the box `now`, of which `later` follow: four, or as many as there are before the end.
    pub fn next(&mut self, now: PixelBox, later: &[PixelBox]) -> PixelBox {
        let later = &later[..later.len().min(Self::LATER)];
        let all: Vec<PixelBox> = self.before.iter().chain([&now]).chain(later).copied().collect();
        let total = self.count + 1 + later.len();
        let window = match total {
            _ if later.len() == Self::LATER => SMOOTHED,
            0..SMOOTHED if 2 * total > SMOOTHED => SMOOTHED - total,
            0..SMOOTHED => total,
            _ => SMOOTHED,
        };
        let window = &all[all.len() - window.min(all.len())..];
        let mean = |side: fn(&PixelBox) -> i32| {
            let sum: i64 = window.iter().map(|b| i64::from(side(b))).sum();
            (sum as f64 / window.len() as f64) as i32
        };
        let mean = PixelBox {
            left: mean(|b| b.left),
            top: mean(|b| b.top),
            right: mean(|b| b.right),
            bottom: mean(|b| b.bottom),
        };
        self.before.push(mean);
        if self.before.len() > Self::LATER {
            self.before.remove(0);
        }
        self.count += 1;
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(rows: &[[i32; 4]]) -> Vec<PixelBox> {
        rows.iter()
            .map(|[left, top, right, bottom]| PixelBox { left: *left, top: *top, right: *right, bottom: *bottom })
            .collect()
    }

    fn smoothed(rows: &[[i32; 4]]) -> Vec<PixelBox> {
        let all = boxes(rows);
        let mut smoother = Smoother::default();
        (0..all.len()).map(|i| smoother.next(all[i], &all[i + 1..])).collect()
    }

    #[test]
    fn boxes_are_means_that_are_written_over_what_is_read() {
        // What NumPy makes of them in place, on an array of whole numbers.
        let rows: Vec<[i32; 4]> = (0..8).map(|i| [i * i, 7 * i % 5, 90 + i, 120 - i * i]).collect();
        let wanted = [
            [6, 2, 92, 114],
            [11, 2, 93, 109],
            [18, 2, 94, 102],
            [27, 2, 95, 93],
            [30, 2, 95, 89],
            [33, 2, 95, 86],
            [35, 2, 95, 84],
            [34, 2, 95, 84],
        ];
        assert_eq!(smoothed(&rows), boxes(&wanted));
        for (count, wanted) in [
            (1, vec![[0, 0, 90, 120]]),
            (2, vec![[0, 1, 90, 119], [0, 1, 90, 119]]),
            (3, vec![[2, 3, 91, 117], [2, 3, 91, 117], [3, 3, 91, 116]]),
            (4, vec![[9, 1, 93, 111], [9, 1, 93, 111], [9, 1, 93, 111], [9, 1, 93, 111]]),
        ] {
            assert_eq!(smoothed(&rows[..count]), boxes(&wanted), "{count}");
        }
    }

    #[test]
    fn a_box_is_padded_below_and_cut_to_the_frame_or_made_square_of_whole_pixels() {
        assert_eq!(padded([-4, 3, 50, 95], (60, 100)), Some(boxes(&[[0, 3, 50, 100]])[0]));
        assert_eq!(padded([70, 3, 80, 95], (60, 100)), None);
        let points = [Point::new(20.9, 1.0), Point::new(80.2, 1.0), Point::new(0.0, 33.7)];
        assert_eq!(square(points[0], points[1], points[2]), Some(boxes(&[[20, 33, 80, 93]])[0]));
        assert_eq!(square(Point::new(f32::NAN, 0.0), points[1], points[2]), None);
    }

    #[test]
    fn a_network_that_changes_nothing_gives_the_box_back_but_for_its_size() {
        for published in [Published::wav2lip(96), Published::synctalk2d(160), Published::synctalk2d(320)] {
            let side = published.canvas();
            let pixels: Vec<u8> = (0..side * side * 3).map(|i| (i * 13 % 256) as u8).collect();
            let prepared = published.prepare(&pixels, (side, side)).unwrap();
            let count = 3 * published.side * published.side;
            let from = if published.layout == Layout::HalfThenWhole { count } else { 0 };
            // What is cut off would be less by one where a product is a little less than a whole number.
            let whole: Vec<f32> = prepared.input[from..][..count].iter().map(|v| v + 1e-6).collect();
            assert_eq!(published.finish(prepared, &whole), Some(pixels));
        }
        let published = Published::synctalk2d(160);
        let prepared = published.prepare(&[100; 50 * 40 * 3], (50, 40)).unwrap();
        let found = published.finish(prepared, &[0.1; 3 * 160 * 160]).unwrap();
        // 25.5 is 25; of the border four of 168 pixels are left.
        assert_eq!((found.len(), found[(20 * 50 + 25) * 3], found[0] > 50), (50 * 40 * 3, 25, true));
    }
}
