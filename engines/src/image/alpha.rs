//! Pictures with transparency: what lies under pixels that are not seen, and pictures laid on a colour.
//!
//! Alpha is straight: a pixel of colour `c` and alpha `a` over `b` is seen as `(a c + (255 - a) b) / 255`. Chroma of 4:2:0 belongs to the mean
//! of the four alphas under it.

use super::{ColorSpace, FrameMut, Plane, PlaneMut};

/// Samples of one or several channels in one memory.
pub struct Samples<'a> {
    pub data: &'a mut [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes from one pixel to the next.
    pub step: usize,
    /// Of each channel within a pixel.
    pub offsets: &'a [usize],
}

impl<'a> Samples<'a> {
    /// Those of a plane of one channel.
    pub fn of(plane: PlaneMut<'a>) -> Self {
        Self { data: plane.data, stride: plane.stride, step: 1, offsets: &[0] }
    }

    fn at(&self, channel: usize, x: usize, y: usize) -> usize {
        y * self.stride + x * self.step + self.offsets[channel]
    }
}

/// A coarser picture of what is seen: a weight and a mean of each channel for each sample.
struct Level {
    width: usize,
    height: usize,
    weights: Vec<u8>,
    means: Vec<Vec<u8>>,
}

impl Level {
    /// Half the size of what `weight` and `sample` give; a mean is of what is seen, by how much.
    fn of(
        size: (usize, usize),
        weight: impl Fn(usize) -> u8,
        count: usize,
        sample: impl Fn(usize, usize) -> u8,
    ) -> Self {
        let (width, height) = (size.0.div_ceil(2), size.1.div_ceil(2));
        let mut level = Self {
            width,
            height,
            weights: Vec::with_capacity(width * height),
            means: (0..count).map(|_| Vec::with_capacity(width * height)).collect(),
        };
        for y in 0..height {
            for x in 0..width {
                let (right, below) = ((2 * x + 1).min(size.0 - 1), (2 * y + 1).min(size.1 - 1));
                let places =
                    [(2 * x, 2 * y), (right, 2 * y), (2 * x, below), (right, below)].map(|(x, y)| y * size.0 + x);
                let weights = places.map(|place| u32::from(weight(place)));
                let sum: u32 = weights.iter().sum();
                level.weights.push(sum.min(255) as u8);
                for (channel, means) in level.means.iter_mut().enumerate() {
                    let total: u32 = places.iter().zip(weights).map(|(p, w)| w * u32::from(sample(channel, *p))).sum();
                    means.push((total + sum / 2).checked_div(sum).unwrap_or(0) as u8);
                }
            }
        }
        level
    }

    fn covers_all(&self) -> bool {
        !self.weights.contains(&0)
    }

    /// The mean of `channel` around sample `x`, `y` of a picture twice as large.
    fn around(&self, channel: usize, x: usize, y: usize) -> u8 {
        let near = |n: usize, length: usize| {
            let other = if n.is_multiple_of(2) { (n / 2).saturating_sub(1) } else { n / 2 + 1 };
            (n / 2, other.min(length - 1))
        };
        let ((x, across), (y, along)) = (near(x, self.width), near(y, self.height));
        let mean = |x: usize, y: usize| u32::from(self.means[channel][y * self.width + x]);
        let sum = 9 * mean(x, y) + 3 * mean(across, y) + 3 * mean(x, along) + mean(across, along);
        ((sum + 8) / 16) as u8
    }

    /// Gives what is not seen the colour that is seen nearest to it.
    fn fill(&mut self, coarser: &Self) {
        for y in 0..self.height {
            for x in 0..self.width {
                let place = y * self.width + x;
                if self.weights[place] == 0 {
                    (0..self.means.len()).for_each(|c| self.means[c][place] = coarser.around(c, x, y));
                }
            }
        }
    }
}

/// Gives samples of weight 0 the colour of those of more that are nearest, so that what is filtered, subsampled or compressed beside them
/// stays as it is. `weights` is row by row. Nothing is changed where all weights are 0, or none.
pub fn fill_hidden(samples: &mut Samples, (width, height): (usize, usize), weights: &[u8]) {
    let first = weights.get(..width * height).unwrap_or_default();
    if !first.contains(&0) || first.iter().all(|weight| *weight == 0) {
        return;
    }
    let count = samples.offsets.len();
    let sample = |channel: usize, place: usize| samples.data[samples.at(channel, place % width, place / width)];
    let mut levels = vec![Level::of((width, height), |place| weights[place], count, sample)];
    while let Some(last) = levels.last().filter(|last| !last.covers_all() && last.width * last.height > 1) {
        let (size, sample) = ((last.width, last.height), |channel: usize, place: usize| last.means[channel][place]);
        levels.push(Level::of(size, |place| last.weights[place], count, sample));
    }
    for n in (1..levels.len()).rev() {
        let (finer, coarser) = levels.split_at_mut(n);
        finer[n - 1].fill(&coarser[0]);
    }
    for y in 0..height {
        for x in (0..width).filter(|x| weights[y * width + x] == 0) {
            for channel in 0..count {
                let at = samples.at(channel, x, y);
                samples.data[at] = levels[0].around(channel, x, y);
            }
        }
    }
}

/// The means of fours of an alpha plane, for the chroma of 4:2:0; 0 is where none of the four is seen.
pub fn halved(alpha: Plane, (width, height): (usize, usize)) -> Vec<u8> {
    let mut out = Vec::with_capacity(width.div_ceil(2) * height.div_ceil(2));
    for y in (0..height).step_by(2) {
        let line = |y: usize| &alpha.data[y * alpha.stride..y * alpha.stride + width];
        let (above, below) = (line(y), line((y + 1).min(height - 1)));
        for x in (0..width).step_by(2) {
            let right = (x + 1).min(width - 1);
            let sum: u32 = [above[x], above[right], below[x], below[right]].into_iter().map(u32::from).sum();
            out.push(if sum == 0 { 0 } else { (((sum + 2) / 4) as u8).max(1) });
        }
    }
    out
}

/// The planes of 4:2:0 with alpha, Y, Cb, Cr and alpha, without what nobody sees: see [`fill_hidden`].
pub fn fill_hidden_420([y, cb, cr, alpha]: [PlaneMut; 4], size: (usize, usize)) {
    let (width, height) = size;
    let weights: Vec<u8> = alpha
        .data
        .chunks(alpha.stride.max(1))
        .take(height)
        .flat_map(|row| &row[..width.min(row.len())])
        .copied()
        .collect();
    let half = (width.div_ceil(2), height.div_ceil(2));
    let of_chroma = halved(Plane { data: alpha.data, stride: alpha.stride }, size);
    fill_hidden(&mut Samples::of(y), size, &weights);
    [cb, cr].into_iter().for_each(|plane| fill_hidden(&mut Samples::of(plane), half, &of_chroma));
}

/// Lays a picture on a colour, full-range R, G, B. Chroma is laid by the mean of its alphas. Of 4:2:0 in three planes.
pub fn lay_on(frame: &mut FrameMut, alpha: Plane, color: [u8; 3]) {
    let size = (frame.width(), frame.height());
    let below = frame.space().from_rgb(color.map(f32::from)).map(|code| (code + 0.5) as u32);
    let of_chroma = halved(alpha, size);
    for (n, plane) in frame.planes.iter_mut().enumerate().take(3) {
        let (width, height) = if n == 0 { size } else { (size.0.div_ceil(2), size.1.div_ceil(2)) };
        for y in 0..height {
            let alphas = if n == 0 { &alpha.data[y * alpha.stride..] } else { &of_chroma[y * width..] };
            let row = &mut plane.data[y * plane.stride..y * plane.stride + width];
            for (code, alpha) in row.iter_mut().zip(alphas) {
                *code = laid(*code, *alpha, below[n]);
            }
        }
    }
}

/// Lays packed R, G, B and alpha, or B, G, R and alpha, a byte each, on a colour, and gives that in 4:2:0 of three planes: nothing is rounded
/// before the last step, and chroma is that of the mean of up to four pixels as they are seen.
pub fn lay_rgb_on(frame: &mut FrameMut, pixels: Plane, red_first: bool, color: [u8; 3]) {
    let (width, height) = (frame.width(), frame.height());
    let Some([kr, kb, offset, luma, chroma]) = frame.space().coefficients() else { return };
    let [y_plane, cb_plane, cr_plane] = &mut frame.planes[..] else { return };
    let kg = 1.0 - kr - kb;
    let code = |value: f32| (value + 0.5).clamp(0.0, 255.0) as i32 as u8;
    // The first of a pixel's bytes and the third are red and blue or the other way round.
    let [red, green, blue] = color.map(f32::from);
    let (below, k) = if red_first { ([red, green, blue], [kr, kg, kb]) } else { ([blue, green, red], [kb, kg, kr]) };
    let chroma = [k[0], k[2]].map(|k| chroma / (255.0 * 2.0 * (1.0 - k)));
    let [first_plane, third_plane] = if red_first { [cr_plane, cb_plane] } else { [cb_plane, cr_plane] };
    // Luma, first and third of a row, and their sums over the pixels of each sample of chroma.
    let mut row = [0; 3].map(|_| vec![0.0_f32; width]);
    let mut sums = [0; 3].map(|_| vec![0.0_f32; width.div_ceil(2)]);
    for y in (0..height).step_by(2) {
        sums.iter_mut().for_each(|sums| sums.fill(0.0));
        let rows = (height - y).min(2);
        for y in y..y + rows {
            let from = pixels.data[y * pixels.stride..][..4 * width].as_chunks::<4>().0;
            let [own, first, third] = &mut row;
            for (((pixel, own), first), third) in from.iter().zip(&mut *own).zip(first).zip(third) {
                let [a, b, c, alpha] = pixel.map(f32::from);
                let alpha = alpha * (1.0 / 255.0);
                let laid = |value: f32, below: f32| below + (value - below) * alpha;
                (*first, *third) = (laid(a, below[0]), laid(c, below[2]));
                *own = k[0] * *first + k[1] * laid(b, below[1]) + k[2] * *third;
            }
            for (to, own) in y_plane.data[y * y_plane.stride..][..width].iter_mut().zip(&row[0]) {
                *to = code(offset + own * (luma / 255.0));
            }
            for (sums, row) in sums.iter_mut().zip(&row) {
                let (pairs, last) = row.as_chunks::<2>();
                sums.iter_mut().zip(pairs).for_each(|(sum, [a, b])| *sum += a + b);
                sums[pairs.len()..].iter_mut().zip(last).for_each(|(sum, a)| *sum += a);
            }
        }
        let [own, first, third] = &sums;
        for (plane, (sums, scale)) in
            [&mut *first_plane, &mut *third_plane].into_iter().zip([first, third].into_iter().zip(chroma))
        {
            let to = plane.data[y / 2 * plane.stride..].iter_mut();
            for (x, ((to, sum), own)) in to.zip(sums).zip(own).enumerate() {
                let count = (rows * (width - 2 * x).min(2)) as f32;
                *to = code(128.0 + (sum - own) / count * scale);
            }
        }
    }
}

fn laid(code: u8, alpha: u8, below: u32) -> u8 {
    let alpha = u32::from(alpha);
    ((u32::from(code) * alpha + below * (255 - alpha) + 127) / 255) as u8
}

/// The luma that shows an alpha as a grey picture of that value, for each alpha.
pub fn matte_codes(space: ColorSpace) -> [u8; 256] {
    std::array::from_fn(|alpha| (space.from_rgb([alpha as f32; 3])[0] + 0.5) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Format, Matrix, Range};

    #[test]
    fn what_is_hidden_gets_the_colour_beside_it_and_what_is_seen_keeps_its_own() {
        // Grey 200 in the middle, garbage around it, and a row stride that is longer than a row.
        let (width, height, stride) = (37, 23, 40);
        let seen = |x: usize, y: usize| (10..20).contains(&x) && (8..15).contains(&y);
        let mut data: Vec<u8> = (0..stride * height).map(|i| (i * 97 % 251) as u8).collect();
        let mut weights = vec![0; width * height];
        for y in 0..height {
            for x in 0..width {
                if seen(x, y) {
                    data[y * stride + x] = 200;
                    weights[y * width + x] = if x == 10 { 1 } else { 255 };
                }
            }
        }
        let before = data.clone();
        fill_hidden(&mut Samples::of(PlaneMut { data: &mut data, stride }), (width, height), &weights);
        for y in 0..height {
            assert!(data[y * stride..y * stride + width].iter().all(|code| *code == 200), "row {y}");
            assert_eq!(data[y * stride + width..(y + 1) * stride], before[y * stride + width..(y + 1) * stride]);
        }
    }

    #[test]
    fn a_picture_of_which_nothing_is_seen_or_all_stays_as_it_is() {
        for weight in [0, 255] {
            let before: Vec<u8> = (0..64).collect();
            let mut data = before.clone();
            fill_hidden(&mut Samples::of(PlaneMut { data: &mut data, stride: 8 }), (8, 8), &[weight; 64]);
            assert_eq!(data, before);
        }
    }

    #[test]
    fn a_picture_laid_on_a_colour_is_the_colour_where_nothing_is_seen() {
        let (width, height) = (4, 4);
        let mut planes = [vec![100; 16], vec![90; 4], vec![160; 4]];
        let [y, cb, cr] = &mut planes;
        let plane = |data, stride| PlaneMut { data, stride };
        let list = vec![plane(y, 4), plane(cb, 2), plane(cr, 2)];
        let mut frame = FrameMut::new(Format::I420, (width, height), Matrix::Bt601, Range::Limited, list).unwrap();
        let alpha = [[255, 255, 0, 0]; 4].concat();
        lay_on(&mut frame, Plane { data: &alpha, stride: 4 }, [0, 255, 0]);
        // Green of BT.601: 145, 54, 34.
        assert_eq!(planes[0][..4], [100, 100, 145, 145]);
        assert_eq!((planes[1][0], planes[1][1], planes[2][0], planes[2][1]), (90, 54, 160, 34));
    }

    #[test]
    fn packed_pixels_are_laid_on_a_colour_within_half_a_code() {
        // B, G, R, A of a width and height that are odd, in rows that are longer.
        let (width, height, stride, color) = (5, 3, 24, [0, 255, 0]);
        let data: Vec<u8> = (0..stride * height).map(|i| (i * 89 % 256) as u8).collect();
        let mut planes = [vec![0; 15], vec![0; 6], vec![0; 6]];
        let [y, cb, cr] = &mut planes;
        let list = [(y, 5), (cb, 3), (cr, 3)].map(|(data, stride)| PlaneMut { data, stride });
        let mut frame =
            FrameMut::new(Format::I420, (width, height), Matrix::Bt709, Range::Limited, list.into()).unwrap();
        let space = frame.space();
        lay_rgb_on(&mut frame, Plane { data: &data, stride }, false, color);
        let seen = |x: usize, y: usize| {
            let pixel = &data[y * stride + 4 * x..][..4];
            let alpha = f32::from(pixel[3]) / 255.0;
            let laid = |c: usize| f32::from(pixel[2 - c]) * alpha + f32::from(color[c]) * (1.0 - alpha);
            space.from_rgb([laid(0), laid(1), laid(2)])
        };
        for y in 0..height {
            for x in 0..width {
                let wanted = seen(x, y)[0];
                assert!((f32::from(planes[0][y * 5 + x]) - wanted).abs() <= 0.501, "{x} {y}");
            }
        }
        for (y, x) in [(0, 0), (0, 2), (1, 0), (1, 2)] {
            let around = [(0, 0), (1, 0), (0, 1), (1, 1)]
                .map(|(dx, dy)| seen((2 * x + dx).min(width - 1), (2 * y + dy).min(height - 1)));
            for c in [1, 2] {
                let wanted = around.iter().map(|code| code[c]).sum::<f32>() / 4.0;
                assert!((f32::from(planes[c][y * 3 + x]) - wanted).abs() <= 0.51, "{x} {y} {c}");
            }
        }
    }

    #[test]
    fn a_matte_is_grey_of_the_alphas_value() {
        let limited = matte_codes(ColorSpace::Yuv(Matrix::Bt709, Range::Limited));
        assert_eq!((limited[0], limited[128], limited[255]), (16, 126, 235));
        let space = ColorSpace::Yuv(Matrix::Bt709, Range::Limited);
        for (alpha, code) in limited.into_iter().enumerate() {
            let shown = space.to_rgb([f32::from(code), 128.0, 128.0]);
            assert!(shown.iter().all(|code| (code - alpha as f32).abs() < 0.6), "{shown:?} in place of {alpha}");
        }
    }
}
