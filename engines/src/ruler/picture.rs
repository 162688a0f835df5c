//! Figures of grey pictures, `[side, side]` row by row, 0..255.

use crate::geometry::Point;

/// Gaussian window of SSIM: 11 pixels, sigma 1.5 (Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality
/// assessment: from error visibility to structural similarity", IEEE TIP 13, 2004).
const WINDOW: usize = 11;
const SIGMA: f64 = 1.5;
/// Its constants (0.01 L)² and (0.03 L)² for L = 255.
const C1: f64 = 6.5025;
const C2: f64 = 58.5225;
/// Peak signal to noise of equal pictures, in dB, in place of infinity.
const BEST_PSNR: f64 = 100.0;

/// Peak signal to noise ratio in dB.
///
/// # Panics
/// Where the pictures are of different size, as all of these.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len(), "pictures of one size");
    let error = a.iter().zip(b).map(|(x, y)| f64::from(x.abs_diff(*y)).powi(2)).sum::<f64>() / a.len().max(1) as f64;
    if error == 0.0 { BEST_PSNR } else { (10.0 * (255.0 * 255.0 / error).log10()).min(BEST_PSNR) }
}

/// Mean structural similarity over the windows that lie within the picture, -1..1; 1 where no window fits.
pub fn ssim(a: &[u8], b: &[u8], side: usize) -> f64 {
    assert!(a.len() == side * side && b.len() == a.len(), "pictures of one size");
    if side < WINDOW {
        return 1.0;
    }
    let kernel = gaussian();
    let plane = |f: &dyn Fn(f64, f64) -> f64| {
        let values: Vec<f64> = a.iter().zip(b).map(|(x, y)| f(f64::from(*x), f64::from(*y))).collect();
        blurred(&values, side, &kernel)
    };
    let (ma, mb) = (plane(&|x, _| x), plane(&|_, y| y));
    let (aa, bb, ab) = (plane(&|x, _| x * x), plane(&|_, y| y * y), plane(&|x, y| x * y));
    let one = |i: usize| {
        let (ma, mb) = (ma[i], mb[i]);
        let (va, vb, cov) = (aa[i] - ma * ma, bb[i] - mb * mb, ab[i] - ma * mb);
        (2.0 * ma * mb + C1) * (2.0 * cov + C2) / ((ma * ma + mb * mb + C1) * (va + vb + C2))
    };
    (0..ma.len()).map(one).sum::<f64>() / ma.len() as f64
}

fn gaussian() -> [f64; WINDOW] {
    let mut kernel = std::array::from_fn(|i| {
        let x = i as f64 - (WINDOW / 2) as f64;
        (-x * x / (2.0 * SIGMA * SIGMA)).exp()
    });
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|k| *k /= sum);
    kernel
}

/// The part of the convolution in which the window lies within the picture, `[side - 10, side - 10]`.
fn blurred(values: &[f64], side: usize, kernel: &[f64; WINDOW]) -> Vec<f64> {
    let inner = side - WINDOW + 1;
    let mut rows = vec![0.0; side * inner];
    for y in 0..side {
        for x in 0..inner {
            rows[y * inner + x] = kernel.iter().zip(&values[y * side + x..]).map(|(k, v)| k * v).sum();
        }
    }
    let mut out = vec![0.0; inner * inner];
    for y in 0..inner {
        for x in 0..inner {
            out[y * inner + x] = kernel.iter().enumerate().map(|(i, k)| k * rows[(y + i) * inner + x]).sum();
        }
    }
    out
}

/// Variance of the Laplacian (the neighbours' sum less four times the pixel) over the inner pixels: how sharp it is.
pub fn sharpness(picture: &[u8], side: usize) -> f64 {
    assert_eq!(picture.len(), side * side, "a square picture");
    let at = |x: usize, y: usize| f64::from(picture[y * side + x]);
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for y in 1..side.saturating_sub(1) {
        for x in 1..side - 1 {
            let v = at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1) - 4.0 * at(x, y);
            sum += v;
            squares += v * v;
            count += 1.0;
        }
    }
    if count == 0.0 { 0.0 } else { squares / count - (sum / count) * (sum / count) }
}

/// Mean absolute second difference over three frames in a row: what jumps there and back.
pub fn flicker(before: &[u8], now: &[u8], after: &[u8]) -> f64 {
    assert!(before.len() == now.len() && after.len() == now.len(), "pictures of one size");
    let second = |((b, n), a): ((&u8, &u8), &u8)| (f64::from(*b) - 2.0 * f64::from(*n) + f64::from(*a)).abs();
    before.iter().zip(now).zip(after).map(second).sum::<f64>() / now.len().max(1) as f64
}

/// Mean size of the gradient (central differences) at the pixels of `mask` that are not at the edge; `None` where there
/// are none.
pub fn gradient(picture: &[u8], side: usize, mask: &[bool]) -> Option<f64> {
    assert!(picture.len() == side * side && mask.len() == picture.len(), "pictures of one size");
    let at = |x: usize, y: usize| f64::from(picture[y * side + x]);
    let (mut sum, mut count) = (0.0, 0.0);
    for y in 1..side.saturating_sub(1) {
        for x in (1..side - 1).filter(|x| mask[y * side + x]) {
            sum += ((at(x + 1, y) - at(x - 1, y)) / 2.0).hypot((at(x, y + 1) - at(x, y - 1)) / 2.0);
            count += 1.0;
        }
    }
    (count > 0.0).then(|| sum / count)
}

/// The pixels of a picture of `side` whose centres are within `reach` of a closed outline, all in units of the side.
pub fn band(side: usize, outline: &[Point], reach: f32) -> Vec<bool> {
    let mut mask = vec![false; side * side];
    let unit = 1.0 / side as f32;
    let ends = outline.iter().cycle().skip(1);
    for (a, b) in outline.iter().zip(ends) {
        let index = |v: f32| ((v / unit).floor().max(0.0) as usize).min(side);
        let columns = index(a.x.min(b.x) - reach)..index(a.x.max(b.x) + reach + unit);
        for y in index(a.y.min(b.y) - reach)..index(a.y.max(b.y) + reach + unit) {
            for x in columns.clone() {
                let p = Point::new((x as f32 + 0.5) * unit, (y as f32 + 0.5) * unit);
                mask[y * side + x] |= from_segment(p, *a, *b) <= reach;
            }
        }
    }
    mask
}

fn from_segment(p: Point, a: Point, b: Point) -> f32 {
    let (dx, dy) = (b.x - a.x, b.y - a.y);
    let length = dx * dx + dy * dy;
    let t = if length > 0.0 { ((p.x - a.x) * dx + (p.y - a.y) * dy) / length } else { 0.0 };
    p.distance(a.lerp(b, t.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 32;

    /// Stripes with a little of everything.
    fn picture(shift: usize) -> Vec<u8> {
        let at = |i: usize| ((i % SIDE + shift) * 37 % 97 + (i / SIDE) * 11 % 53) as u8;
        (0..SIDE * SIDE).map(at).collect()
    }

    fn softened(p: &[u8]) -> Vec<u8> {
        let at = |x: usize, y: usize| u32::from(p[y.min(SIDE - 1) * SIDE + x.min(SIDE - 1)]);
        (0..p.len())
            .map(|i| {
                let (x, y) = (i % SIDE, i / SIDE);
                ((at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1)) / 4) as u8
            })
            .collect()
    }

    #[test]
    fn equal_pictures_are_equal() {
        let p = picture(0);
        assert_eq!(psnr(&p, &p), 100.0);
        assert!((ssim(&p, &p, SIDE) - 1.0).abs() < 1e-9);
        assert_eq!(flicker(&p, &p, &p), 0.0);
    }

    #[test]
    fn an_error_of_ten_is_28_db() {
        let (a, b) = (vec![100; SIDE * SIDE], vec![110; SIDE * SIDE]);
        assert!((psnr(&a, &b) - 28.13).abs() < 0.01);
        // Nothing but brightness differs: SSIM's first factor alone.
        let expected = (2.0 * 100.0 * 110.0 + C1) / (100.0 * 100.0 + 110.0 * 110.0 + C1);
        assert!((ssim(&a, &b, SIDE) - expected).abs() < 1e-6);
    }

    #[test]
    fn blur_costs_sharpness_and_similarity() {
        let p = picture(0);
        let soft = softened(&p);
        assert!(sharpness(&soft, SIDE) < 0.5 * sharpness(&p, SIDE));
        assert!(ssim(&p, &soft, SIDE) < 0.9);
        assert!(gradient(&soft, SIDE, &vec![true; p.len()]) < gradient(&p, SIDE, &vec![true; p.len()]));
        assert_eq!(gradient(&p, SIDE, &vec![false; p.len()]), None);
    }

    #[test]
    fn a_band_runs_along_an_outline() {
        let square = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)].map(|(x, y)| Point::new(x, y));
        let mask = band(SIDE, &square, 0.05);
        let at = |x: usize, y: usize| mask[y * SIDE + x];
        assert!(at(8, 8) && at(16, 8) && at(24, 16) && at(8, 20), "its corners and its sides");
        assert!(!at(16, 16) && !at(2, 2) && !at(28, 8), "neither inside nor outside");
        assert!(band(SIDE, &[], 0.1).iter().all(|v| !v));
        // An outline that leaves the picture is cut.
        band(SIDE, &[Point::new(-3.0, 0.5), Point::new(4.0, 0.5)], 0.1);
    }

    #[test]
    fn steady_motion_does_not_flicker_and_jumping_does() {
        let level = |v: u8| vec![v; SIDE * SIDE];
        assert_eq!(flicker(&level(10), &level(20), &level(30)), 0.0);
        assert_eq!(flicker(&level(10), &level(20), &level(10)), 20.0);
    }
}
