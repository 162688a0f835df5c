//! High dynamic range to standard: BT.2020 with PQ or HLG becomes BT.709 for a display of the reference white.
//!
//! Light is measured in units of the reference white, 203 cd/m² (ITU-R BT.2408-7, table 1), which becomes the white of
//! the output.

use crate::{Error, Result};

use super::{ColorSpace, Matrix, Range};

/// Luminance of the reference white in cd/m².
const WHITE: f32 = 203.0;
/// Luminance in cd/m² that HLG is shown at (ITU-R BT.2100-2, note 5f: gamma 1.2), and the peak of a PQ picture that
/// names none.
const PEAK: f32 = 1000.0;
/// Luminances that a picture may name as its peak.
const PEAKS: std::ops::RangeInclusive<f32> = WHITE..=10_000.0;
/// Entries of the tables over a non-linear signal and over the square root of light.
const STEPS: usize = 4096;
/// BT.2020 to BT.709 primaries, linear light (ITU-R BT.2087-0, inverse of the matrix of its section 2.1).
const TO_709: [[f32; 3]; 3] = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]];

/// Transfer function of a high-dynamic-range signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// SMPTE ST 2084, perceptual quantisation.
    Pq,
    /// ARIB STD-B67, hybrid log-gamma.
    Hlg,
}

/// Nodes of the grid along luma and along each chroma.
const LUMA: usize = 65;
const CHROMA: usize = 65;

/// Maps pictures of one kind: a grid over their codes, with the mapped codes at its nodes and linear in between.
pub struct ToneMap {
    /// Mapped Y, Cb and Cr, each `[CHROMA (Cb), CHROMA (Cr), LUMA]`.
    grid: [Vec<f32>; 3],
}

/// The exact mapping. The tables take the place of every power and logarithm.
struct Curve {
    /// Code to R'G'B'.
    space: Affine,
    transfer: Transfer,
    /// Non-linear signal 0..1 to light: of the display for PQ, in units of white; of the scene for HLG, 0..1.
    linear: Vec<f32>,
    /// Square root of scene luminance 0..1 to the factor that HLG's OOTF applies, in units of white.
    system: Vec<f32>,
    /// Square root of the brightest channel over the peak to the factor that brings it to 0..1.
    compress: Vec<f32>,
    /// Peak in units of white.
    peak: f32,
    /// Square root of light 0..1 to an 8-bit code 0..255 for a display of gamma 2.4 (ITU-R BT.1886).
    encode: Vec<f32>,
}

/// R'G'B' = rows x (Y, Cb, Cr) + offset, of 10-bit codes, 0..1.
struct Affine {
    rows: [[f32; 3]; 3],
    offset: [f32; 3],
}

impl Curve {
    fn new(transfer: Transfer, matrix: Matrix, range: Range, peak: Option<f32>) -> Self {
        let peak = match transfer {
            Transfer::Pq => peak.filter(|p| PEAKS.contains(p)).unwrap_or(PEAK),
            Transfer::Hlg => PEAK,
        } / WHITE;
        // The 8-bit matrix works on codes of 10 bits over 4 and gives 0..255.
        let (rows, offset) = ColorSpace::Yuv(matrix, range).rgb_matrix();
        // A full-range 10-bit code spans 1023, not 1020.
        let code = if range == Range::Full { 255.0 / 1023.0 } else { 0.25 };
        let space = Affine { rows: rows.map(|r| r.map(|w| w * code / 255.0)), offset: offset.map(|o| o / 255.0) };
        let linear = table(|x| match transfer {
            Transfer::Pq => pq_to_light(x) * 10_000.0 / WHITE,
            Transfer::Hlg => hlg_to_light(x),
        });
        // Fd = α Ys^(γ-1) E (BT.2100, table 5), α being the peak.
        let system = table(|root| peak * (root * root).powf(0.2));
        let compress = table(|root| {
            let light = (root * root * peak).max(1e-6);
            eetf(light, peak) / light
        });
        let encode = table(|root| 255.0 * (root * root).powf(1.0 / 2.4));
        Self { space, transfer, linear, system, compress, peak, encode }
    }

    /// One pixel of 10-bit codes (Y, Cb, Cr) to R'G'B' of BT.709, 0..255.
    fn pixel(&self, codes: [f32; 3]) -> [f32; 3] {
        let Affine { rows, offset } = &self.space;
        let mut light = [0, 1, 2].map(|i| {
            let row = &rows[i];
            at(&self.linear, row[0] * codes[0] + row[1] * codes[1] + row[2] * codes[2] + offset[i])
        });
        if self.transfer == Transfer::Hlg {
            let luminance = 0.2627 * light[0] + 0.6780 * light[1] + 0.0593 * light[2];
            let factor = at(&self.system, luminance.sqrt());
            light = light.map(|e| e * factor);
        }
        let brightest = light[0].max(light[1]).max(light[2]);
        let factor = at(&self.compress, (brightest / self.peak).sqrt());
        [0, 1, 2].map(|i| {
            let row = &TO_709[i];
            let value = (row[0] * light[0] + row[1] * light[1] + row[2] * light[2]) * factor;
            at(&self.encode, value.clamp(0.0, 1.0).sqrt())
        })
    }
}

impl ToneMap {
    /// For 10-bit pictures with BT.2020 primaries. `peak` in cd/m² is the brightest that a PQ picture says it has.
    pub fn new(transfer: Transfer, matrix: Matrix, range: Range, peak: Option<f32>) -> Self {
        let curve = Curve::new(transfer, matrix, range, peak);
        let out = ColorSpace::Yuv(Matrix::Bt709, Range::Limited);
        let mut grid = [const { Vec::new() }; 3];
        let code = |node: usize, nodes: usize| (node * 1024 / (nodes - 1)) as f32;
        for cb in 0..CHROMA {
            for cr in 0..CHROMA {
                for y in 0..LUMA {
                    let rgb = curve.pixel([code(y, LUMA), code(cb, CHROMA), code(cr, CHROMA)]);
                    grid.iter_mut().zip(out.from_rgb(rgb)).for_each(|(plane, value)| plane.push(value));
                }
            }
        }
        Self { grid }
    }

    /// A picture of 10-bit 4:2:0 planes (little-endian 16-bit words, strides in bytes) to one of 8-bit 4:2:0 planes,
    /// BT.709, limited range. Errors: planes that are too small for the size.
    pub fn picture(
        &self,
        (width, height): (usize, usize),
        from: [(&[u8], usize); 3],
        to: [(&mut [u8], usize); 3],
    ) -> Result<()> {
        let half = |n: usize| n.div_ceil(2);
        let enough = |size: usize, stride: usize, w: usize, h: usize, bytes: usize| {
            stride >= w * bytes && size >= stride * (h - 1) + w * bytes
        };
        let sizes = [(width, height), (half(width), half(height)), (half(width), half(height))];
        let fits = width > 0
            && height > 0
            && from.iter().zip(sizes).all(|((data, stride), (w, h))| enough(data.len(), *stride, w, h, 2))
            && to.iter().zip(sizes).all(|((data, stride), (w, h))| enough(data.len(), *stride, w, h, 1));
        if !fits {
            return Err(Error::invalid("a picture to be tone-mapped is smaller than its size says"));
        }
        let word = |plane: usize, x: usize, y: usize| {
            let (data, stride) = from[plane];
            let at = y * stride + 2 * x;
            f32::from(u16::from_le_bytes([data[at], data[at + 1]]).min(1023))
        };
        let [(luma, luma_stride), (cb, cb_stride), (cr, cr_stride)] = to;
        for row in 0..half(height) {
            for column in 0..half(width) {
                let corners = Corners::of(word(1, column, row), word(2, column, row));
                let (mut sum, mut count) = (0.0, 0.0);
                for y in 2 * row..(2 * row + 2).min(height) {
                    for x in 2 * column..(2 * column + 2).min(width) {
                        let code = word(0, x, y);
                        luma[y * luma_stride + x] = corners.value(&self.grid[0], code);
                        sum += code;
                        count += 1.0;
                    }
                }
                cb[row * cb_stride + column] = corners.value(&self.grid[1], sum / count);
                cr[row * cr_stride + column] = corners.value(&self.grid[2], sum / count);
            }
        }
        Ok(())
    }
}

/// The four columns of the grid around a chroma pair: where each begins, and its weight.
struct Corners([(usize, f32); 4]);

impl Corners {
    fn of(cb: f32, cr: f32) -> Self {
        let place = |code: f32| {
            let at = code * ((CHROMA - 1) as f32 / 1024.0);
            let node = (at as usize).min(CHROMA - 2);
            (node, at - node as f32)
        };
        let ((b, tb), (r, tr)) = (place(cb), place(cr));
        let start = |b: usize, r: usize| (b * CHROMA + r) * LUMA;
        Self([
            (start(b, r), (1.0 - tb) * (1.0 - tr)),
            (start(b, r + 1), (1.0 - tb) * tr),
            (start(b + 1, r), tb * (1.0 - tr)),
            (start(b + 1, r + 1), tb * tr),
        ])
    }

    fn value(&self, grid: &[f32], code: f32) -> u8 {
        let at = code * ((LUMA - 1) as f32 / 1024.0);
        let node = (at as usize).min(LUMA - 2);
        let t = at - node as f32;
        let columns = self.0.iter().map(|(start, weight)| {
            let (low, high) = (grid[start + node], grid[start + node + 1]);
            weight * (low + t * (high - low))
        });
        (columns.sum::<f32>() + 0.5) as u8
    }
}

fn table(f: impl Fn(f32) -> f32) -> Vec<f32> {
    (0..STEPS).map(|i| f(i as f32 / (STEPS - 1) as f32)).collect()
}

/// The entry for `x`, 0..1; what lies outside is the nearest end.
#[inline]
fn at(table: &[f32], x: f32) -> f32 {
    // A negative number or NaN becomes 0.
    table[((x * (STEPS - 1) as f32 + 0.5) as usize).min(STEPS - 1)]
}

/// Constants of SMPTE ST 2084.
const M1: f32 = 2610.0 / 16_384.0;
const M2: f32 = 2523.0 / 4096.0 * 128.0;
const C1: f32 = 3424.0 / 4096.0;
const C2: f32 = 2413.0 / 4096.0 * 32.0;
const C3: f32 = 2392.0 / 4096.0 * 32.0;

/// Signal 0..1 to light, 1 being 10,000 cd/m².
fn pq_to_light(signal: f32) -> f32 {
    let root = signal.powf(1.0 / M2);
    ((root - C1).max(0.0) / (C2 - C3 * root)).powf(1.0 / M1)
}

/// Light, 1 being 10,000 cd/m², to signal 0..1.
fn light_to_pq(light: f32) -> f32 {
    let root = light.max(0.0).powf(M1);
    ((C1 + C2 * root) / (1.0 + C3 * root)).powf(M2)
}

/// Signal 0..1 to scene light 0..1 (ITU-R BT.2100-2, table 5, inverse OETF).
fn hlg_to_light(signal: f32) -> f32 {
    const A: f32 = 0.178_832_77;
    const B: f32 = 1.0 - 4.0 * A;
    const C: f32 = 0.559_910_7;
    if signal <= 0.5 { signal * signal / 3.0 } else { (((signal - C) / A).exp() + B) / 12.0 }
}

/// Light up to `peak` to light up to 1, both in units of white: the EETF of ITU-R BT.2390-11, section 5.4.1, with black
/// levels of zero.
fn eetf(light: f32, peak: f32) -> f32 {
    let pq = |light: f32| light_to_pq(light * WHITE / 10_000.0);
    let top = pq(peak);
    let highest = pq(1.0) / top;
    let knee = 1.5 * highest - 0.5;
    let signal = (pq(light) / top).min(1.0);
    let mapped = if signal < knee {
        signal
    } else {
        let t = (signal - knee) / (1.0 - knee);
        let (t2, t3) = (t * t, t * t * t);
        (2.0 * t3 - 3.0 * t2 + 1.0) * knee + (t3 - 2.0 * t2 + t) * (1.0 - knee) + (3.0 * t2 - 2.0 * t3) * highest
    };
    pq_to_light(mapped * top) * 10_000.0 / WHITE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(map: &Curve, signal: f32) -> f32 {
        let [r, g, b] = map.pixel([64.0 + 876.0 * signal, 512.0, 512.0]);
        assert!((r - g).abs() < 1.5 && (g - b).abs() < 1.5, "grey stays grey: {r} {g} {b}");
        g
    }

    #[test]
    fn pq_is_its_own_inverse_and_knows_the_reference_white() {
        // BT.2408, table 1: 203 cd/m² is 58 % PQ.
        assert!((light_to_pq(0.0203) - 0.58).abs() < 0.002);
        for light in [0.0, 0.001, 0.1, 1.0] {
            assert!((pq_to_light(light_to_pq(light)) - light).abs() < 1e-4 + light * 1e-3, "{light}");
        }
    }

    #[test]
    fn mid_grey_stays_and_highlights_keep_an_order() {
        for transfer in [Transfer::Pq, Transfer::Hlg] {
            let map = Curve::new(transfer, Matrix::Bt2020, Range::Limited, None);
            let codes: Vec<f32> = (0..=20).map(|i| grey(&map, i as f32 / 20.0)).collect();
            assert!(codes[0] < 1.0, "{transfer:?}: black is {}", codes[0]);
            // PQ ends at 10,000 cd/m², its peak lies at 75 %.
            let peak = if transfer == Transfer::Pq { 15 } else { 20 };
            assert!(codes[peak] > 252.0, "{transfer:?}: {codes:?}");
            assert!(codes[..=peak].is_sorted(), "{transfer:?}: {codes:?}");
            // 18 % grey under the reference white: 26 cd/m² (BT.2408, table 1: 38 % of either signal).
            let mid = grey(&map, 0.38);
            assert!((85.0..125.0).contains(&mid), "{transfer:?}: mid grey is {mid}");
        }
    }

    #[test]
    fn the_grid_is_near_the_curve() {
        let out = ColorSpace::Yuv(Matrix::Bt709, Range::Limited);
        for transfer in [Transfer::Pq, Transfer::Hlg] {
            let curve = Curve::new(transfer, Matrix::Bt2020, Range::Limited, None);
            let map = ToneMap::new(transfer, Matrix::Bt2020, Range::Limited, None);
            let mut errors = Vec::new();
            for i in 0..400 {
                let codes = [100.0 + (i * 37 % 600) as f32, 450.0 + (i % 120) as f32, 460.0 + (i % 110) as f32];
                let corners = Corners::of(codes[1], codes[2]);
                let exact = out.from_rgb(curve.pixel(codes));
                let off = |(plane, exact): (&Vec<f32>, f32)| (f32::from(corners.value(plane, codes[0])) - exact).abs();
                errors.extend(map.grid.iter().zip(exact).map(off));
            }
            // Where a colour leaves the gamut the curve has an edge, which lies between two nodes.
            let mean = errors.iter().sum::<f32>() / errors.len() as f32;
            assert!(mean < 1.0, "{transfer:?}: off by {mean} codes in the mean");
        }
    }

    #[test]
    fn a_picture_of_an_odd_size_is_mapped_and_one_that_is_too_small_refused() {
        let map = ToneMap::new(Transfer::Hlg, Matrix::Bt2020, Range::Limited, None);
        let word = |n: usize, code: u16| code.to_le_bytes().repeat(n);
        let (y, c) = (word(15, 721), word(6, 512));
        let (mut luma, mut cb, mut cr) = (vec![0; 15], vec![0; 6], vec![0; 6]);
        let from = [(&y[..], 10), (&c[..], 6), (&c[..], 6)];
        map.picture((5, 3), from, [(&mut luma, 5), (&mut cb, 3), (&mut cr, 3)]).unwrap();
        assert!(luma.iter().all(|v| *v == luma[0]) && luma[0] > 150, "{luma:?}");
        assert!(cb.iter().chain(&cr).all(|v| v.abs_diff(128) <= 1), "{cb:?} {cr:?}");
        assert!(map.picture((6, 3), from, [(&mut luma, 5), (&mut cb, 3), (&mut cr, 3)]).is_err());
    }
}
