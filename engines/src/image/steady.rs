use std::ops::Range;

use super::{Crop, luma};
use crate::geometry::Rect;

/// Part of a small change that is shown after 40 ms.
const CALM: f32 = 0.35;
/// Changes of the brightness up to this are small, those from the second on are motion and shown as they are, in 8-bit codes.
const SMALL: f32 = 4.0;
const MOTION: f32 = 20.0;

/// Lets small changes from `before` to `crop`, `frames` of 40 ms later, come by and by, inside `area` (unit crop
/// coordinates): landmarks jitter by fractions of a pixel, and skin under still light does not. What moves is left alone.
/// Of what is known to move, `moving`, changes that are small are no jitter: there they come as after so many more frames.
/// Crops of different sides or colours stay as they are.
pub(crate) fn steady(crop: &mut Crop, before: &Crop, area: &Rect, frames: f32, moving: Option<(Rect, f32)>) {
    if (crop.side, crop.space) != (before.side, before.space) {
        return;
    }
    let side = crop.side;
    let [columns, rows] = steadied(side, area);
    let yuv = crop.space != super::ColorSpace::Rgb;
    let (still, lively) = (weights(frames), weights(frames + moving.map_or(0.0, |(_, more)| more)));
    let [within, lines] = moving.map_or([0..0, 0..0], |(rect, _)| steadied(side, &rect));
    let clipped = |from: usize, to: usize| from.clamp(columns.start, columns.end)..to.clamp(columns.start, columns.end);
    for row in rows {
        let middle = if lines.contains(&row) { clipped(within.start, within.end) } else { clipped(0, 0) };
        let parts =
            [(columns.start..middle.start, &still), (middle.clone(), &lively), (middle.end..columns.end, &still)];
        for (part, weights) in parts {
            let span = (row * side + part.start) * 3..(row * side + part.end) * 3;
            let pairs = crop.data[span.clone()].as_chunks_mut::<3>().0.iter_mut();
            for (new, old) in pairs.zip(before.data[span].as_chunks::<3>().0) {
                let change = if yuv { new[0].abs_diff(old[0]) } else { luma(*new).abs_diff(luma(*old)) };
                let weight = weights[usize::from(change)];
                for (n, o) in new.iter_mut().zip(old) {
                    let (a, b) = (i32::from(*o), i32::from(*n));
                    *n = (a + (((b - a) * weight + 128) >> 8)) as u8;
                }
            }
        }
    }
}

/// What is shown of a change of each size after `frames`, in 256ths.
fn weights(frames: f32) -> [i32; 256] {
    let calm = calm(frames);
    std::array::from_fn(|d| {
        let t = ((d as f32 - SMALL) / (MOTION - SMALL)).clamp(0.0, 1.0);
        ((calm + (1.0 - calm) * t * t * (3.0 - 2.0 * t)) * 256.0) as i32
    })
}

/// Columns and rows that are steadied.
pub(crate) fn steadied(side: usize, area: &Rect) -> [Range<usize>; 2] {
    let within = |v: f32| (v * side as f32).clamp(0.0, side as f32) as usize;
    [within(area.x)..within(area.x + area.width), within(area.y)..within(area.y + area.height)]
}

/// The part of a small change that is shown after `frames` of 40 ms.
pub(crate) fn calm(frames: f32) -> f32 {
    1.0 - (1.0 - CALM).powf(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ColorSpace;

    fn grey(value: u8, space: ColorSpace) -> Crop {
        Crop { side: 8, space, data: vec![value; 8 * 8 * 3] }
    }

    #[test]
    fn what_is_known_to_move_is_shown_as_it_is() {
        let part = |x, width| Rect { x, y: 0.25, width, height: 0.5 };
        let mut crop = grey(103, ColorSpace::Rgb);
        steady(&mut crop, &grey(100, ColorSpace::Rgb), &part(0.25, 0.75), 1.0, Some((part(0.0, 0.5), 30.0)));
        let shown = |row: usize| [0, 1, 2, 3, 4, 7].map(|column| crop.data[(row * 8 + column) * 3]);
        assert_eq!(shown(3), [103, 103, 103, 103, 101, 101]);
        assert_eq!(shown(1), [103; 6]);
    }

    #[test]
    fn jitter_is_calmed_and_motion_is_not() {
        let area = Rect { x: 0.0, y: 0.0, width: 0.5, height: 1.0 };
        for (to, inside) in [(103, 101), (97, 99), (150, 150), (40, 40)] {
            let mut crop = grey(to, ColorSpace::Rgb);
            steady(&mut crop, &grey(100, ColorSpace::Rgb), &area, 1.0, None);
            assert_eq!((crop.data[0], crop.data[7 * 3]), (inside, to));
        }
    }

    #[test]
    fn a_standing_picture_gets_to_where_it_should_be() {
        let area = Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        let mut shown = grey(100, ColorSpace::Rgb);
        for _ in 0..12 {
            let mut next = grey(110, ColorSpace::Rgb);
            steady(&mut next, &shown, &area, 1.0, None);
            shown = next;
        }
        assert!(shown.data[0].abs_diff(110) <= 1, "{}", shown.data[0]);
    }

    #[test]
    fn other_sizes_are_left_alone() {
        let mut crop = grey(101, ColorSpace::Rgb);
        let other = Crop { side: 4, space: ColorSpace::Rgb, data: vec![0; 48] };
        steady(&mut crop, &other, &Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 }, 1.0, None);
        assert_eq!(crop.data[0], 101);
    }
}
