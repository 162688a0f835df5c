use std::ops::Range;

use super::{ColorSpace, Crop};
use crate::geometry::Rect;

/// Adds `amount` (0..=4) times what a binomial blur of 3 x 3 pixels takes away that lie `reach` (1..) apart, inside `area`
/// (unit crop coordinates): of the brightness of a YUV crop, of every channel of an RGB one. The crop's outermost `reach`
/// pixels stay.
pub(crate) fn sharpen(crop: &mut Crop, area: &Rect, amount: f32, reach: usize) {
    let (side, reach) = (crop.side, reach.max(1));
    let Some([columns, rows]) = sharpened(side, area, reach) else { return };
    let channels = if matches!(crop.space, ColorSpace::Yuv(..)) { 1 } else { 3 };
    let weight = weight(amount);
    let (stride, span, step) = (side * 3, columns.start * 3..columns.end * 3, 3 * reach);
    let cut = |row: usize| row * stride + span.start - step..row * stride + span.end + step;
    // The rows from `reach` above to `reach` below the one that is written, as they were; row y at y modulo their number.
    let mut lines: Vec<Vec<u8>> = vec![Vec::new(); 2 * reach + 1];
    let count = lines.len();
    let keep = |lines: &mut Vec<Vec<u8>>, data: &[u8], row: usize| {
        let line = &mut lines[row % count];
        line.clear();
        line.extend_from_slice(&data[cut(row)]);
    };
    (rows.start - reach..rows.start + reach).for_each(|row| keep(&mut lines, &crop.data, row));
    for row in rows {
        keep(&mut lines, &crop.data, row + reach);
        let [above, here, below] = [row - reach, row, row + reach].map(|row| lines[row % count].as_slice());
        let out = &mut crop.data[row * stride..][span.clone()];
        for (i, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            for (c, value) in pixel.iter_mut().enumerate().take(channels) {
                let at = |line: &[u8]| {
                    let k = 3 * i + c;
                    i32::from(line[k]) + 2 * i32::from(line[k + step]) + i32::from(line[k + 2 * step])
                };
                let blurred = at(above) + 2 * at(here) + at(below);
                let old = i32::from(*value);
                *value = (old + (((16 * old - blurred) * weight + 2048) >> 12)).clamp(0, 255) as u8;
            }
        }
    }
}

/// Columns and rows that are sharpened; `None` where there are none.
pub(crate) fn sharpened(side: usize, area: &Rect, reach: usize) -> Option<[Range<usize>; 2]> {
    if side <= 2 * reach {
        return None;
    }
    let within = |v: f32| (v * side as f32).clamp(reach as f32, (side - reach) as f32) as usize;
    let columns = within(area.x)..within(area.x + area.width);
    let rows = within(area.y)..within(area.y + area.height);
    (!columns.is_empty() && !rows.is_empty()).then_some([columns, rows])
}

/// 8.8 fixed point, on sums of sixteen.
pub(crate) fn weight(amount: f32) -> i32 {
    (amount.clamp(0.0, 4.0) * 256.0) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Matrix, Range};

    const SIDE: usize = 16;
    const YUV: ColorSpace = ColorSpace::Yuv(Matrix::Bt709, Range::Limited);

    /// Columns of 80 and 120 in turns of three, the same in all channels.
    fn stripes(space: ColorSpace) -> Crop {
        let value = |i: usize| if ((i % SIDE) / 3).is_multiple_of(2) { 80 } else { 120 };
        Crop { side: SIDE, space, data: (0..SIDE * SIDE).flat_map(|i| [value(i); 3]).collect() }
    }

    fn at(crop: &Crop, x: usize, y: usize, c: usize) -> u8 {
        crop.data[(y * SIDE + x) * 3 + c]
    }

    #[test]
    fn edges_grow_steeper_inside_the_area_and_flat_parts_stay() {
        let before = stripes(ColorSpace::Rgb);
        let mut after = before.clone();
        let area = Rect { x: 0.25, y: 0.25, width: 0.5, height: 0.5 };
        sharpen(&mut after, &area, 0.5, 1);
        for c in 0..3 {
            // A step of 40: the blur takes a quarter of it on either side, half of which is added.
            assert_eq!([5, 6].map(|x| at(&after, x, 8, c)), [125, 75]);
            assert_eq!([7, 10].map(|x| at(&after, x, 8, c)), [80, 120]);
        }
        for y in 0..SIDE {
            for x in (0..SIDE).filter(|x| !(4..12).contains(x) || !(4..12).contains(&y)) {
                assert_eq!(at(&after, x, y, 0), at(&before, x, y, 0), "{x}, {y}");
            }
        }
    }

    #[test]
    fn colour_of_a_yuv_crop_stays_and_nothing_overflows() {
        let before = stripes(YUV);
        let mut after = before.clone();
        let all = Rect { x: -1.0, y: -1.0, width: 3.0, height: 3.0 };
        sharpen(&mut after, &all, 4.0, 1);
        assert_eq!([5, 6].map(|x| at(&after, x, 8, 0)), [160, 40]);
        assert!((0..SIDE * SIDE).all(|i| after.data[3 * i + 1..3 * i + 3] == before.data[3 * i + 1..3 * i + 3]));
        let mut black = Crop { data: vec![0; SIDE * SIDE * 3], ..before };
        black.data[(8 * SIDE + 8) * 3] = 255;
        sharpen(&mut black, &all, 4.0, 1);
        assert_eq!((at(&black, 8, 8, 0), at(&black, 7, 8, 0)), (255, 0));
        sharpen(&mut black, &Rect::default(), 4.0, 1);
        sharpen(&mut black, &all, 4.0, SIDE);
    }

    #[test]
    fn a_picture_enlarged_twice_is_sharpened_like_the_small_one() {
        let small = stripes(YUV);
        let large = |crop: &Crop| {
            let at = |i: usize| crop.data[(i / (2 * SIDE) / 2 * SIDE + i % (2 * SIDE) / 2) * 3];
            Crop { side: 2 * SIDE, data: (0..4 * SIDE * SIDE).flat_map(|i| [at(i); 3]).collect(), ..crop.clone() }
        };
        let all = Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        let (mut one, mut two) = (small.clone(), large(&small));
        sharpen(&mut one, &all, 0.5, 1);
        sharpen(&mut two, &all, 0.5, 2);
        let wanted = large(&one);
        assert!((0..4 * SIDE * SIDE).all(|i| two.data[3 * i] == wanted.data[3 * i]));
        assert_ne!(one.data, small.data);
    }
}
