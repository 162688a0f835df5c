//! Whole pixels of a frame, taken and put as they are: nothing is filtered, feathered or fitted.

use std::ops::Range;

use super::{Crop, FrameMut, FrameView, PasteReport, Patch};
use crate::geometry::Rect;

/// Whole pixels of a frame: the columns `left..right` and the rows `top..bottom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelBox {
    pub left: i32,
    pub top: i32,
    pub right: i32,
    pub bottom: i32,
}

impl PixelBox {
    /// The part of it that lies in a frame of that size; `None` where nothing does.
    pub fn within(self, width: usize, height: usize) -> Option<Self> {
        let limit = |v: i32, most: usize| v.clamp(0, most.min(i32::MAX as usize) as i32);
        let cut = Self {
            left: limit(self.left, width),
            top: limit(self.top, height),
            right: limit(self.right, width),
            bottom: limit(self.bottom, height),
        };
        (cut.left < cut.right && cut.top < cut.bottom).then_some(cut)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        ((self.right - self.left).max(0) as usize, (self.bottom - self.top).max(0) as usize)
    }
}

/// The pixels of `place`, `[rows, columns, 3]` in RGB. Each has the chroma of its pair, as decoders do that do not filter.
/// `None` unless `place` lies in the frame.
pub(crate) fn take(frame: &FrameView, place: &PixelBox) -> Option<Vec<u8>> {
    if place.within(frame.width(), frame.height()) != Some(*place) {
        return None;
    }
    let planes: Vec<_> = (0..frame.format().planes()).map(|i| frame.plane(i)).collect();
    let space = frame.space();
    let mut out = Vec::with_capacity(place.size().0 * place.size().1 * 3);
    for y in place.top as usize..place.bottom as usize {
        for x in place.left as usize..place.right as usize {
            let at = |plane: usize, x: usize, y: usize| planes[plane].data[y * planes[plane].stride + x];
            out.extend(match (frame.format().packing(), planes.len()) {
                (Some((offsets, bytes)), _) => offsets.map(|offset| at(0, x * bytes + offset, y)),
                (None, 2) => {
                    let pair = [at(0, x, y), at(1, x / 2 * 2, y / 2), at(1, x / 2 * 2 + 1, y / 2)];
                    space.to_rgb(pair.map(f32::from)).map(|v| (v + 0.5) as u8)
                }
                (None, _) => {
                    let pair = [at(0, x, y), at(1, x / 2, y / 2), at(2, x / 2, y / 2)];
                    space.to_rgb(pair.map(f32::from)).map(|v| (v + 0.5) as u8)
                }
            });
        }
    }
    Some(out)
}

/// Where the first pixel of a hard patch goes; `None` where its pixels are not the frame's.
fn corner(patch: &Patch) -> Option<(i64, i64)> {
    let (side, to) = (patch.pixels.side() as f32, patch.to_frame);
    let whole = |v: f32| (v.is_finite() && v.abs() < 1e6 && (v - v.round()).abs() < 1e-3).then_some(v.round() as i64);
    let same = (to.a - side).abs() < 1e-3 && to.b.abs() < 1e-6;
    same.then_some(())?;
    Some((whole(to.tx)?, whole(to.ty)?))
}

/// Puts the pixels of a hard patch where its mask is not zero; the share of the mask and of the opacity, all of it where both
/// are whole. Chroma that two or four pixels have together is put by as many of them as are covered. `None` where the patch's
/// pixels, which are `own`, are not the frame's.
pub(super) fn put(frame: &mut FrameMut, patch: &Patch, own: &Crop) -> Option<PasteReport> {
    let (left, top) = corner(patch)?;
    let side = own.side;
    let (width, height, space) = (frame.width(), frame.height(), frame.space());
    let inside = |from: i64, length: usize| {
        let limit = |v: i64| v.clamp(0, length as i64) as usize;
        limit(from)..limit(from + side as i64)
    };
    let (columns, rows) = (inside(left, width), inside(top, height));
    let opacity = patch.opacity.clamp(0.0, 1.0) / 255.0;
    // What a pixel of the frame is given, and its share.
    let new = |x: usize, y: usize| {
        let at = (y as i64 - top) as usize * side + (x as i64 - left) as usize;
        let share = f32::from(patch.mask[at]) * opacity;
        let pixel = [0, 1, 2].map(|c| f32::from(own.data[at * 3 + c]));
        (share > 0.0).then(|| (own.space.convert(space, pixel), share))
    };
    let mix = |old: &mut u8, new: f32, share: f32| {
        *old = (f32::from(*old) + (new - f32::from(*old)) * share + 0.5) as u8;
    };
    let packing = frame.format().packing();
    let (offsets, bytes) = packing.map_or((vec![0], 1), |(offsets, bytes)| (offsets.to_vec(), bytes));
    let (mut count, mut low, mut high) = (0, (usize::MAX, usize::MAX), (0, 0));
    let first = frame.planes.first_mut()?;
    for y in rows.clone() {
        for x in columns.clone() {
            let Some((pixel, share)) = new(x, y) else { continue };
            let at = y * first.stride + x * bytes;
            offsets.iter().zip(pixel).for_each(|(offset, value)| mix(&mut first.data[at + offset], value, share));
            count += 1;
            (low, high) = ((low.0.min(x), low.1.min(y)), (high.0.max(x + 1), high.1.max(y + 1)));
        }
    }
    if packing.is_none() {
        let blocks = |range: &Range<usize>| range.start / 2..range.end.div_ceil(2);
        for (y, x) in blocks(&rows).flat_map(|y| blocks(&columns).map(move |x| (y, x))) {
            let pixels =
                (2 * y..(2 * y + 2).min(height)).flat_map(|y| (2 * x..(2 * x + 2).min(width)).map(move |x| (x, y)));
            let whole = pixels.clone().count() as f32;
            let covered =
                pixels.filter(|(x, y)| columns.contains(x) && rows.contains(y)).filter_map(|(x, y)| new(x, y));
            let (sum, share) = covered.fold(([0.0; 2], 0.0), |([u, v], all), (pixel, share)| {
                ([u + pixel[1] * share, v + pixel[2] * share], all + share)
            });
            for (k, sum) in sum.into_iter().enumerate().filter(|_| share > 0.0) {
                let (plane, at) = if frame.planes.len() > 2 { (1 + k, x) } else { (1, 2 * x + k) };
                let plane = frame.planes.get_mut(plane)?;
                mix(&mut plane.data[y * plane.stride + at], sum / share, share / whole);
            }
        }
    }
    if count == 0 {
        return Some(PasteReport::default());
    }
    let [x, y, width, height] = [low.0, low.1, high.0 - low.0, high.1 - low.1].map(|v| v as f32);
    Some(PasteReport { touched: Rect { x, y, width, height }, pixels: count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        geometry::Similarity,
        image::{ColorSpace, Format, Matrix, Plane, PlaneMut, Range as Levels, paste},
    };

    /// A patch of `size` pixels of one colour at (`x`, `y`).
    fn patch(x: f32, y: f32, size: (usize, usize), rgb: [u8; 3]) -> Patch {
        let side = size.0.max(size.1);
        let mask = (0..side * side).map(|i| if i % side < size.0 && i / side < size.1 { 255 } else { 0 });
        Patch {
            pixels: Crop { side, space: ColorSpace::Rgb, data: rgb.repeat(side * side) }.into(),
            mask: mask.collect::<Vec<u8>>().into(),
            to_frame: Similarity { a: side as f32, b: 0.0, tx: x, ty: y },
            opacity: 1.0,
            hard: true,
        }
    }

    #[test]
    fn pixels_go_where_they_belong_as_they_are_and_nowhere_else() {
        for (format, [r, g, b]) in [(Format::Rgb, [0, 1, 2]), (Format::Rgba, [0, 1, 2]), (Format::Bgra, [2, 1, 0])] {
            let bytes = if format == Format::Rgb { 3 } else { 4 };
            let before: Vec<u8> = (0..20 * 10 * bytes).map(|i| (i * 7 % 251) as u8).collect();
            let mut data = before.clone();
            let planes = vec![PlaneMut { data: &mut data, stride: 20 * bytes }];
            let mut frame = FrameMut::new(format, (20, 10), Matrix::Bt709, Levels::Limited, planes).unwrap();
            let report = paste(&mut frame, &patch(3.0, -1.0, (5, 7), [200, 3, 77])).unwrap();
            assert_eq!((report.pixels, report.touched.x, report.touched.height), (30, 3.0, 6.0));
            for (i, (old, new)) in before.iter().zip(&data).enumerate() {
                let (x, y, c) = (i / bytes % 20, i / bytes / 20, i % bytes);
                let wanted = [(r, 200), (g, 3), (b, 77)].into_iter().find(|(at, _)| *at == c).map(|(_, v)| v);
                let inside = (3..8).contains(&x) && y < 6;
                assert_eq!(*new, wanted.filter(|_| inside).unwrap_or(*old), "{format:?} {x} {y}");
            }
        }
    }

    #[test]
    fn chroma_is_put_by_as_much_as_is_covered_and_comes_back() {
        let mut luma = [100u8; 5 * 4];
        let (mut cb, mut cr) = ([100u8; 3 * 2], [100u8; 3 * 2]);
        let planes = vec![
            PlaneMut { data: &mut luma, stride: 5 },
            PlaneMut { data: &mut cb, stride: 3 },
            PlaneMut { data: &mut cr, stride: 3 },
        ];
        let mut frame = FrameMut::new(Format::I420, (5, 4), Matrix::Bt709, Levels::Limited, planes).unwrap();
        // Grey has no chroma: 128.
        paste(&mut frame, &patch(1.0, 0.0, (4, 2), [90; 3])).unwrap();
        let place = PixelBox { left: 3, top: 0, right: 5, bottom: 2 };
        let taken = take(&frame.view(), &place).unwrap();
        assert!(taken.iter().all(|v| v.abs_diff(90) <= 1), "{taken:?}");
        assert_eq!(take(&frame.view(), &PixelBox { right: 6, ..place }), None);
        // The first column of pixels is not covered, the last column has one pixel a row.
        assert_eq!((cb, cr), ([114, 128, 128, 100, 100, 100], [114, 128, 128, 100, 100, 100]));
        assert_eq!(luma[..6], [100, 93, 93, 93, 93, 100]);
        let planes = vec![Plane { data: &[50, 60, 70, 80], stride: 2 }, Plane { data: &[128, 128], stride: 2 }];
        let frame = FrameView::new(Format::Nv12, (2, 2), Matrix::Bt709, Levels::Full, planes).unwrap();
        let whole = PixelBox { left: -3, top: 0, right: 9, bottom: 2 }.within(2, 2).unwrap();
        assert_eq!(take(&frame, &whole), Some([50u8, 60, 70, 80].map(|v| [v; 3]).concat()));
    }

    #[test]
    fn a_hard_patch_that_was_moved_by_parts_of_a_pixel_is_pasted_softly() {
        let pasted = |x: f32, hard: bool| {
            let mut data: Vec<u8> = (0..30 * 30 * 3).map(|i| (i * 7 % 251) as u8).collect();
            let planes = vec![PlaneMut { data: &mut data, stride: 90 }];
            let mut frame = FrameMut::new(Format::Rgb, (30, 30), Matrix::Bt709, Levels::Full, planes).unwrap();
            paste(&mut frame, &Patch { hard, ..patch(x, 5.0, (12, 12), [200; 3]) }).unwrap();
            data
        };
        assert!(pasted(5.5, true) == pasted(5.5, false) && pasted(5.5, true) != pasted(6.0, true));
    }
}
