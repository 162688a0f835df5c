//! Codes of one YUV signal as those of another: other luma coefficients, another range.
//!
//! Cb and Cr of the one are sums of Cb and Cr of the other, whatever the luma, so that 4:2:0 stays as it is. Nothing is clamped but to 0..255.

use super::{ColorSpace, PlaneMut};

/// Fractional bits of a coefficient.
const BITS: u32 = 16;

/// From one matrix and range to another: `Y' = a Y + b Cb + c Cr + d`, `Cb' = e Cb + f Cr + g`, `Cr' = h Cb + i Cr + j`.
#[derive(Clone, Copy, Debug)]
pub struct Recolor {
    /// a, b, c and d with a half to round by, in [`BITS`].
    luma: [i32; 4],
    /// e, f, g; h, i, j, alike.
    chroma: [[i32; 3]; 2],
}

impl Recolor {
    /// `None` where nothing changes or one of the two is not YUV.
    pub fn new(from: ColorSpace, to: ColorSpace) -> Option<Self> {
        if from == to {
            return None;
        }
        let ([kr, kb, black, luma, chroma], [to_kr, to_kb, to_black, to_luma, to_chroma]) =
            (from.coefficients()?.map(f64::from), to.coefficients()?.map(f64::from));
        // R, G and B of 1 for a code of Y, Cb and Cr.
        let (y, c) = (1.0 / luma, 1.0 / chroma);
        let (red, blue, kg) = (2.0 * (1.0 - kr) * c, 2.0 * (1.0 - kb) * c, 1.0 - kr - kb);
        let ways = [[y; 3], [0.0, -kb * blue / kg, blue], [red, -kr * red / kg, 0.0]];
        let [of_y, of_cb, of_cr] = ways.map(|[r, g, b]| {
            let own = to_kr * r + (1.0 - to_kr - to_kb) * g + to_kb * b;
            let apart = |value: f64, k: f64| (value - own) / (2.0 * (1.0 - k)) * to_chroma;
            [own * to_luma, apart(b, to_kb), apart(r, to_kr)]
        });
        let fixed = |value: f64| (value * f64::from(1 << BITS)).round() as i32;
        let rounded = |value: f64| fixed(value + 0.5);
        let code = |n: usize| [fixed(of_cb[n]), fixed(of_cr[n]), rounded(128.0 - 128.0 * (of_cb[n] + of_cr[n]))];
        let zero = to_black - of_y[0] * black - 128.0 * (of_cb[0] + of_cr[0]);
        Some(Self {
            luma: [fixed(of_y[0]), fixed(of_cb[0]), fixed(of_cr[0]), rounded(zero)],
            chroma: [code(1), code(2)],
        })
    }

    fn luma(&self, y: u8, shift: i32) -> u8 {
        ((self.luma[0] * i32::from(y) + shift) >> BITS).clamp(0, 255) as u8
    }

    /// What chroma adds to a luma.
    fn shift(&self, cb: u8, cr: u8) -> i32 {
        self.luma[1] * i32::from(cb) + self.luma[2] * i32::from(cr) + self.luma[3]
    }

    fn chroma(&self, cb: u8, cr: u8) -> [u8; 2] {
        self.chroma.map(|[of_cb, of_cr, zero]| {
            ((of_cb * i32::from(cb) + of_cr * i32::from(cr) + zero) >> BITS).clamp(0, 255) as u8
        })
    }

    /// Y, Cb and Cr of 4:2:0, in place; each chroma is that of its four pixels.
    pub fn planar(&self, [y, cb, cr]: [PlaneMut; 3], (width, height): (usize, usize)) {
        let half = width.div_ceil(2);
        let mut lines = y.data.chunks_mut(y.stride.max(1)).take(height);
        let chroma = cb.data.chunks_mut(cb.stride.max(1)).zip(cr.data.chunks_mut(cr.stride.max(1)));
        for (cb, cr) in chroma.take(height.div_ceil(2)) {
            for line in lines.by_ref().take(2) {
                let columns = width.min(line.len());
                for (pair, (cb, cr)) in line[..columns].chunks_mut(2).zip(cb.iter().zip(&*cr)) {
                    let shift = self.shift(*cb, *cr);
                    pair.iter_mut().for_each(|y| *y = self.luma(*y, shift));
                }
            }
            for (cb, cr) in cb.iter_mut().zip(cr).take(half) {
                [*cb, *cr] = self.chroma(*cb, *cr);
            }
        }
    }

    /// Pixels of four bytes, in place; Y, Cb and Cr are at `offsets` of them.
    pub fn packed(&self, plane: PlaneMut, offsets: [usize; 3], (width, height): (usize, usize)) {
        let [at_y, at_cb, at_cr] = offsets;
        for line in plane.data.chunks_mut(plane.stride.max(1)).take(height) {
            for pixel in line.as_chunks_mut::<4>().0.iter_mut().take(width) {
                let (cb, cr) = (pixel[at_cb], pixel[at_cr]);
                pixel[at_y] = self.luma(pixel[at_y], self.shift(cb, cr));
                [pixel[at_cb], pixel[at_cr]] = self.chroma(cb, cr);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Matrix, Range};

    const SPACES: [ColorSpace; 5] = [
        ColorSpace::Yuv(Matrix::Bt601, Range::Limited),
        ColorSpace::Yuv(Matrix::Bt601, Range::Full),
        ColorSpace::Yuv(Matrix::Bt709, Range::Limited),
        ColorSpace::Yuv(Matrix::Bt709, Range::Full),
        ColorSpace::Yuv(Matrix::Bt2020, Range::Limited),
    ];

    /// Codes of colours that both signals hold.
    fn codes(space: ColorSpace, n: usize) -> [u8; 3] {
        let rgb = [n * 37 % 256, n * 101 % 256, n * 59 % 256].map(|c| c as f32);
        space.from_rgb(rgb).map(|code| code.round() as u8)
    }

    fn near(got: [u8; 3], wanted: [f32; 3], what: &str) {
        let off = got.iter().zip(wanted).map(|(g, w)| (f32::from(*g) - w).abs()).fold(0.0, f32::max);
        assert!(off <= 0.51, "{what}: {got:?} in place of {wanted:?}");
    }

    #[test]
    fn codes_are_those_of_the_same_colour_in_the_other_signal() {
        for (from, to) in SPACES.iter().flat_map(|from| SPACES.map(|to| (*from, to))) {
            let Some(recolor) = Recolor::new(from, to) else {
                assert_eq!(from, to);
                continue;
            };
            for n in 0..2000 {
                let pixel = codes(from, n);
                let rgb = from.to_rgb(pixel.map(f32::from));
                // What a rounding has led out of the colours that there are is clamped on the way that is compared with.
                if rgb.iter().any(|c| *c <= 0.0 || *c >= 255.0) {
                    continue;
                }
                let [y, cb, cr] = pixel;
                let mut bytes = [77, y, cb, cr];
                recolor.packed(PlaneMut { data: &mut bytes, stride: 4 }, [1, 2, 3], (1, 1));
                assert_eq!(bytes[0], 77, "alpha stays");
                near([bytes[1], bytes[2], bytes[3]], to.from_rgb(rgb), &format!("{from:?} to {to:?}"));
            }
        }
        assert!(
            Recolor::new(ColorSpace::Rgb, SPACES[0]).is_none() && Recolor::new(SPACES[0], ColorSpace::Rgb).is_none()
        );
    }

    #[test]
    fn planes_of_odd_sizes_are_changed_within_their_rows_alone() {
        let (width, height, stride, half_stride) = (7, 5, 9, 6);
        let (half, rows) = (4, 3);
        let pixel = |x: usize, y: usize| codes(SPACES[0], 11 * (y / 2) + 3 * (x / 2) + 5);
        let mut planes = [vec![9; stride * height], vec![9; half_stride * rows], vec![9; half_stride * rows]];
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            let [luma, cb, cr] = pixel(x, y);
            planes[0][y * stride + x] = luma;
            planes[1][y / 2 * half_stride + x / 2] = cb;
            planes[2][y / 2 * half_stride + x / 2] = cr;
        }
        let [y, cb, cr] = &mut planes;
        let list = [(y, stride), (cb, half_stride), (cr, half_stride)];
        let (from, to) = (SPACES[0], SPACES[3]);
        let recolor = Recolor::new(from, to).unwrap();
        recolor.planar(list.map(|(data, stride)| PlaneMut { data, stride }), (width, height));
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            let chroma = y / 2 * half_stride + x / 2;
            let got = [planes[0][y * stride + x], planes[1][chroma], planes[2][chroma]];
            let mut wanted = [pixel(x, y), [0; 3]].concat();
            recolor.packed(PlaneMut { data: &mut wanted[..4], stride: 4 }, [0, 1, 2], (1, 1));
            assert!(got == wanted[..3] && got != pixel(x, y), "{x} {y}: {got:?} in place of {wanted:?}");
        }
        assert!((0..height).all(|y| planes[0][y * stride + width..(y + 1) * stride] == [9; 2]), "beyond the rows");
        assert!((0..rows).all(|y| planes[1][y * half_stride + half..(y + 1) * half_stride] == [9; 2]));
    }
}
