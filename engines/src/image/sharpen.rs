use super::{ColorSpace, Crop};
use crate::geometry::Rect;

/// Adds `amount` (0..=4) times what a binomial blur of 3 x 3 pixels takes away, inside `area` (unit crop coordinates): of
/// the brightness of a YUV crop, of every channel of an RGB one. The crop's outermost pixels stay.
pub(crate) fn sharpen(crop: &mut Crop, area: &Rect, amount: f32) {
    let side = crop.side;
    let within = |v: f32| (v * side as f32).clamp(1.0, side as f32 - 1.0) as usize;
    let columns = within(area.x)..within(area.x + area.width);
    let rows = within(area.y)..within(area.y + area.height);
    if columns.is_empty() || rows.is_empty() {
        return;
    }
    let channels = if matches!(crop.space, ColorSpace::Yuv(..)) { 1 } else { 3 };
    // 8.8 fixed point, on sums of sixteen.
    let weight = (amount.clamp(0.0, 4.0) * 256.0) as i32;
    let (stride, span) = (side * 3, columns.start * 3..columns.end * 3);
    let cut = |row: usize| row * stride + span.start - 3..row * stride + span.end + 3;
    let [mut above, mut here, mut below] =
        [rows.start - 1, rows.start, rows.start].map(|row| crop.data[cut(row)].to_vec());
    for row in rows {
        below.copy_from_slice(&crop.data[cut(row + 1)]);
        let out = &mut crop.data[row * stride..][span.clone()];
        for (i, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            for (c, value) in pixel.iter_mut().enumerate().take(channels) {
                let at = |line: &[u8]| {
                    let k = 3 * i + c;
                    i32::from(line[k]) + 2 * i32::from(line[k + 3]) + i32::from(line[k + 6])
                };
                let blurred = at(&above) + 2 * at(&here) + at(&below);
                let old = i32::from(*value);
                *value = (old + (((16 * old - blurred) * weight + 2048) >> 12)).clamp(0, 255) as u8;
            }
        }
        std::mem::swap(&mut above, &mut here);
        std::mem::swap(&mut here, &mut below);
    }
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
        sharpen(&mut after, &area, 0.5);
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
        sharpen(&mut after, &all, 4.0);
        assert_eq!([5, 6].map(|x| at(&after, x, 8, 0)), [160, 40]);
        assert!((0..SIDE * SIDE).all(|i| after.data[3 * i + 1..3 * i + 3] == before.data[3 * i + 1..3 * i + 3]));
        let mut black = Crop { data: vec![0; SIDE * SIDE * 3], ..before };
        black.data[(8 * SIDE + 8) * 3] = 255;
        sharpen(&mut black, &all, 4.0);
        assert_eq!((at(&black, 8, 8, 0), at(&black, 7, 8, 0)), (255, 0));
        sharpen(&mut black, &Rect::default(), 4.0);
    }
}
