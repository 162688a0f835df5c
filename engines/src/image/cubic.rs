//! Values between the pixels by cubic convolution (R. Keys, "Cubic convolution interpolation for digital image
//! processing", IEEE TASSP 29(6), 1981, with a = -1/2): four by four pixels keep the detail that a bilinear value blurs
//! away, and a face that is resampled twice, by the warp and by the paste, loses it twice.

use super::raster::{BITS, Texture, Walk};

/// Weights of the pixel before a place, of the two around it and of the one after, by 256ths of the way between the two.
static WEIGHTS: [[f32; 4]; 256] = {
    let mut table = [[0.0; 4]; 256];
    let mut i = 0;
    while i < 256 {
        let t = i as f32 / 256.0;
        let (square, cube) = (t * t, t * t * t);
        table[i] = [
            square - 0.5 * (t + cube),
            1.0 - 2.5 * square + 1.5 * cube,
            0.5 * t + 2.0 * square - 1.5 * cube,
            0.5 * (cube - square),
        ];
        i += 1;
    }
    table
};

/// Where the four by four pixels around a place are, and what they weigh.
struct Place {
    column: usize,
    row: usize,
    across: &'static [f32; 4],
    down: &'static [f32; 4],
}

impl<const C: usize> Texture<'_, C> {
    /// The values, 0 to 255, at the first places of `walk`, one for each of `out`. Positions outside repeat the edge.
    pub fn sample_line(&self, walk: Walk, out: &mut [[f32; C]]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has been asked for the feature.
            return unsafe { self.sample_line_avx2(walk, out) };
        }
        for (i, out) in out.iter_mut().enumerate() {
            *out = self.anywhere(&self.place(walk.at(i)));
        }
    }

    #[inline(always)]
    fn place(&self, (x, y): (i32, i32)) -> Place {
        let (x, y) = (x.clamp(0, self.last(self.width)), y.clamp(0, self.last(self.height)));
        let weights = |v: i32| &WEIGHTS[(v >> (BITS - 8)) as usize & 255];
        Place { column: (x >> BITS) as usize, row: (y >> BITS) as usize, across: weights(x), down: weights(y) }
    }

    fn anywhere(&self, place: &Place) -> [f32; C] {
        let near = |at: usize, step: usize, count: usize| (at + step).saturating_sub(1).min(count - 1);
        let mut value = [0.0; C];
        for (j, down) in place.down.iter().enumerate() {
            let row = near(place.row, j, self.height) * self.width;
            for (i, across) in place.across.iter().enumerate() {
                let at = (row + near(place.column, i, self.width)) * C;
                for (value, byte) in value.iter_mut().zip(&self.data[at..at + C]) {
                    *value += down * across * f32::from(*byte);
                }
            }
        }
        value.map(|v| v.clamp(0.0, 255.0))
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn sample_line_avx2(&self, walk: Walk, out: &mut [[f32; C]]) {
        for (i, out) in out.iter_mut().enumerate() {
            let place = self.place(walk.at(i));
            *out = self.inside_avx2(&place).unwrap_or_else(|| self.anywhere(&place));
        }
    }

    /// `None` where not all sixteen pixels, and what a vector reads beyond them, lie within the picture. Sums go down the
    /// columns first, where the bytes of four pixels lie side by side.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    fn inside_avx2(&self, place: &Place) -> Option<[f32; C]> {
        use std::arch::x86_64::*;
        let stride = self.width * C;
        let first = (place.row.checked_sub(1)? * self.width + place.column.checked_sub(1)?) * C;
        if place.column + 2 >= self.width || place.row + 2 >= self.height {
            return None;
        }
        let block = self.data.get(first..first + 3 * stride + 16)?;
        let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        for (j, weight) in place.down.iter().enumerate() {
            let weight = _mm256_set1_ps(*weight);
            // SAFETY: `block` holds 16 bytes from the beginning of each of the four rows on.
            let bytes = unsafe { _mm_loadu_si128(block.as_ptr().add(j * stride).cast()) };
            let weighted = |bytes| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), weight);
            low = _mm256_add_ps(low, weighted(bytes));
            if C > 2 {
                high = _mm256_add_ps(high, weighted(_mm_srli_si128::<8>(bytes)));
            }
        }
        let [a, b, c, d] = *place.across;
        let quarter = |v, from: [i32; 3]| {
            let [x, y, z] = from;
            _mm256_castps256_ps128(_mm256_permutevar8x32_ps(v, _mm256_setr_epi32(x, y, z, 0, 0, 0, 0, 0)))
        };
        let part = |v, weight: f32| _mm_mul_ps(v, _mm_set1_ps(weight));
        let (first, second) = (_mm256_castps256_ps128(low), _mm256_extractf128_ps::<1>(low));
        let sum = match C {
            1 => {
                let products = _mm_mul_ps(first, _mm_setr_ps(a, b, c, d));
                let pairs = _mm_add_ps(products, _mm_movehl_ps(products, products));
                _mm_add_ss(pairs, _mm_movehdup_ps(pairs))
            }
            2 => {
                let products =
                    _mm_add_ps(_mm_mul_ps(first, _mm_setr_ps(a, a, b, b)), _mm_mul_ps(second, _mm_setr_ps(c, c, d, d)));
                _mm_add_ps(products, _mm_movehl_ps(products, products))
            }
            3 => {
                let third = _mm_blend_ps::<0b100>(quarter(low, [6, 7, 0]), quarter(high, [0, 0, 0]));
                let fourth = quarter(high, [1, 2, 3]);
                let second = quarter(low, [3, 4, 5]);
                _mm_add_ps(_mm_add_ps(part(first, a), part(second, b)), _mm_add_ps(part(third, c), part(fourth, d)))
            }
            _ => {
                let (third, fourth) = (_mm256_castps256_ps128(high), _mm256_extractf128_ps::<1>(high));
                _mm_add_ps(_mm_add_ps(part(first, a), part(second, b)), _mm_add_ps(part(third, c), part(fourth, d)))
            }
        };
        let sum = _mm_min_ps(_mm_max_ps(sum, _mm_setzero_ps()), _mm_set1_ps(255.0));
        let mut values = [0.0; 4];
        // SAFETY: four values have room in `values`.
        unsafe { _mm_storeu_ps(values.as_mut_ptr(), sum) };
        Some(std::array::from_fn(|i| values[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_agree<const C: usize>() {
        let (width, height) = (23, 17);
        let data: Vec<u8> = (0..width * height * C).map(|i| (i * i * 31 % 251) as u8).collect();
        let texture = Texture::<C> { data: &data, width, height };
        let walk = Walk { x: -70_000, y: -40_000, dx: 41_111, dy: 29_999 };
        let mut line = vec![[0.0; C]; 60];
        texture.sample_line(walk, &mut line);
        for (i, value) in line.iter().enumerate() {
            let wanted = texture.anywhere(&texture.place(walk.at(i)));
            assert!(value.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-3), "{C} {i}: {value:?} {wanted:?}");
        }
    }

    #[test]
    fn the_vectors_say_what_the_formula_says() {
        lines_agree::<1>();
        lines_agree::<2>();
        lines_agree::<3>();
        lines_agree::<4>();
    }

    #[test]
    fn a_parabola_is_met_exactly_between_its_pixels_and_stripes_keep_more_than_a_bilinear_value_leaves() {
        let (width, height) = (16, 5);
        let at = |i: usize| i as f32 - 7.0;
        let data: Vec<u8> = (0..width * height).map(|k| (10.0 + 4.0 * at(k % width).powi(2)) as u8).collect();
        let texture = Texture::<1> { data: &data, width, height };
        let mut found = [[0.0]];
        for x in [3.25_f32, 6.5, 9.75] {
            texture.sample_line(Walk { x: (x * 65536.0) as i32, y: 2 << BITS, dx: 0, dy: 0 }, &mut found);
            let wanted = 10.0 + 4.0 * (x - 7.0).powi(2);
            assert!((found[0][0] - wanted).abs() < 0.01, "{x}: {} {wanted}", found[0][0]);
        }
        let stripes: Vec<u8> = (0..width * height).map(|k| if (k % width / 2) % 2 == 0 { 60 } else { 180 }).collect();
        let texture = Texture::<1> { data: &stripes, width, height };
        texture.sample_line(Walk { x: 6 * 65536 + 32768, y: 2 << BITS, dx: 0, dy: 0 }, &mut found);
        assert!((found[0][0] - 195.0).abs() < 0.01, "{found:?}");
        texture.sample_line(Walk { x: -9 << BITS, y: 99 << BITS, dx: 0, dy: 0 }, &mut found);
        assert_eq!(found[0][0], 60.0);
    }
}
