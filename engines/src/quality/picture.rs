//! Figures of grey pictures, `[side, side]` row by row, 0..255 but not rounded: the Laplacian of a smooth picture is
//! smaller than what rounding adds.

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
pub fn psnr(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "pictures of one size");
    let error = a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / a.len().max(1) as f64;
    if error == 0.0 { BEST_PSNR } else { (10.0 * (255.0 * 255.0 / error).log10()).min(BEST_PSNR) }
}

/// Mean structural similarity over the windows that lie within the picture, -1..1; 1 where no window fits.
pub fn ssim(a: &[f32], b: &[f32], side: usize) -> f64 {
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
pub fn sharpness(picture: &[f32], side: usize) -> f64 {
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

/// Pixels to either side over which [`Flicker`] averages what the truth does.
const AROUND: usize = 2;
/// Steps of that average in one grey level, and the grey levels that are told apart.
const STEPS: usize = 4;
const LEVELS: usize = 64;

/// What jumps there and back in time where the truth does not.
///
/// A second difference in time, |before - 2 now + after|, is large where a picture flickers, and where a mouth moves. So
/// only the quieter half of all places (pixels of frames) counts, by the truth's own second difference in a square of
/// 5 x 5 pixels.
#[derive(Clone)]
pub struct Flicker {
    /// Of places as quiet as this: how many, and the sums of the second differences here and of the truth.
    bins: Vec<(u64, f64, f64)>,
}

/// Grey levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flickering {
    pub made: f64,
    pub truth: f64,
}

impl Default for Flicker {
    fn default() -> Self {
        Self { bins: vec![(0, 0.0, 0.0); STEPS * LEVELS] }
    }
}

impl Flicker {
    /// Takes three frames in a row of the picture, and of the truth.
    pub fn push(&mut self, made: [&[f32]; 3], truth: [&[f32]; 3], side: usize) {
        let all = made.iter().chain(&truth);
        assert!(all.map(|p| p.len()).all(|n| n == side * side), "pictures of one size");
        let window = 2 * AROUND + 1;
        if side < window {
            return;
        }
        let (made, truth) = (second_difference(made), second_difference(truth));
        let sum = |x: usize, y: usize| -> f32 {
            (y - AROUND..=y + AROUND).flat_map(|row| &truth[row * side + x - AROUND..][..window]).sum()
        };
        for y in AROUND..side - AROUND {
            for x in AROUND..side - AROUND {
                let bin = (sum(x, y) * STEPS as f32 / (window * window) as f32) as usize;
                let bin = bin.min(self.bins.len() - 1);
                let (count, here, there) = &mut self.bins[bin];
                *count += 1;
                *here += f64::from(made[y * side + x]);
                *there += f64::from(truth[y * side + x]);
            }
        }
    }

    /// Means over the quieter half; `None` before the first frames.
    pub fn finish(&self) -> Option<Flickering> {
        let total: u64 = self.bins.iter().map(|b| b.0).sum();
        let (mut count, mut made, mut truth) = (0, 0.0, 0.0);
        for bin in &self.bins {
            (count, made, truth) = (count + bin.0, made + bin.1, truth + bin.2);
            if 2 * count >= total {
                break;
            }
        }
        let mean = |sum: f64| sum / count as f64;
        (count > 0).then(|| Flickering { made: mean(made), truth: mean(truth) })
    }
}

fn second_difference([before, now, after]: [&[f32]; 3]) -> Vec<f32> {
    let one = |((b, n), a): ((&f32, &f32), &f32)| (b - 2.0 * n + a).abs();
    before.iter().zip(now).zip(after).map(one).collect()
}

/// Distance of two places along an outline at which it is crossed, and how far inside and outside of it the two sides of
/// the crossing lie: where a mask that fades inward has ended. Units of the picture's side.
const CROSSING: f32 = 0.01;
const INSIDE: f32 = 0.045;
const OUTSIDE: f32 = 0.015;

/// Places just inside and just outside of a closed outline, in units of the side.
pub fn crossings(outline: &[Point]) -> Vec<[Point; 2]> {
    let ends = || outline.iter().zip(outline.iter().cycle().skip(1));
    // Twice the area, positive where the outline turns clockwise as seen on a screen: inside is to its right.
    let turn: f32 = ends().map(|(a, b)| a.x * b.y - b.x * a.y).sum();
    let mut found = Vec::new();
    for (a, b) in ends() {
        let length = a.distance(*b);
        if !(length > 0.0 && length < 4.0) {
            continue;
        }
        let along = (*b - *a) * (turn.signum() / length);
        let inward = Point::new(-along.y, along.x);
        let count = (length / CROSSING).ceil() as usize;
        for i in 0..count {
            let p = a.lerp(*b, (i as f32 + 0.5) / count as f32);
            found.push([p + inward * INSIDE, p - inward * OUTSIDE]);
        }
    }
    found
}

/// Neighbouring crossings whose steps are averaged, so that noise, which has no direction, is no seam.
const TOGETHER: usize = 8;

/// A seam, in grey levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seam {
    /// Mean step at the crossings of what differs from the truth: 0 where inside and outside differ from it alike.
    pub step: f64,
    /// Mean step of the picture, and of the truth.
    pub made: f64,
    pub truth: f64,
}

/// Looks at the crossings within the picture; `None` where there are none.
pub fn seam(made: &[f32], truth: &[f32], side: usize, crossings: &[[Point; 2]]) -> Option<Seam> {
    assert!(made.len() == side * side && truth.len() == made.len(), "pictures of one size");
    let within = |c: &&[Point; 2]| c.iter().all(|p| (0.0..=1.0).contains(&p.x) && (0.0..=1.0).contains(&p.y));
    let crossings: Vec<_> = crossings.iter().filter(within).collect();
    let runs = crossings.chunks(TOGETHER);
    let count = runs.len() as f64;
    let (mut step, mut here, mut there) = (0.0, 0.0, 0.0);
    for run in runs {
        let across = |picture: &[f32]| {
            let one = |[inside, outside]: &&[Point; 2]| at(picture, side, *inside) - at(picture, side, *outside);
            run.iter().map(one).sum::<f64>() / run.len() as f64
        };
        let (m, t) = (across(made), across(truth));
        step += (m - t).abs();
        here += m.abs();
        there += t.abs();
    }
    (count > 0.0).then(|| Seam { step: step / count, made: here / count, truth: there / count })
}

/// The bilinear value at a place in units of the side; the edge is repeated.
fn at(picture: &[f32], side: usize, p: Point) -> f64 {
    let place = |v: f32| (f64::from(v) * side as f64 - 0.5).clamp(0.0, (side - 1) as f64);
    let (x, y) = (place(p.x), place(p.y));
    let (column, row) = (x as usize, y as usize);
    let (fx, fy) = (x.fract(), y.fract());
    let pixel = |c: usize, r: usize| f64::from(picture[r.min(side - 1) * side + c.min(side - 1)]);
    let line = |r: usize| pixel(column, r) * (1.0 - fx) + pixel(column + 1, r) * fx;
    line(row) * (1.0 - fy) + line(row + 1) * fy
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 32;

    /// Stripes with a little of everything.
    fn picture(shift: usize) -> Vec<f32> {
        let at = |i: usize| ((i % SIDE + shift) * 37 % 97 + (i / SIDE) * 11 % 53) as f32;
        (0..SIDE * SIDE).map(at).collect()
    }

    fn softened(p: &[f32]) -> Vec<f32> {
        let at = |x: usize, y: usize| p[y.min(SIDE - 1) * SIDE + x.min(SIDE - 1)];
        (0..p.len())
            .map(|i| {
                let (x, y) = (i % SIDE, i / SIDE);
                (at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1)) / 4.0
            })
            .collect()
    }

    #[test]
    fn equal_pictures_are_equal() {
        let p = picture(0);
        assert_eq!(psnr(&p, &p), 100.0);
        assert!((ssim(&p, &p, SIDE) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_error_of_ten_is_28_db() {
        let (a, b) = (vec![100.0; SIDE * SIDE], vec![110.0; SIDE * SIDE]);
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
    }

    const SQUARE: [(f32, f32); 4] = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)];

    #[test]
    fn crossings_lead_out_of_an_outline_whichever_way_it_turns() {
        let mut square = SQUARE.map(|(x, y)| Point::new(x, y));
        for _ in 0..2 {
            let found = crossings(&square);
            assert_eq!(found.len(), 200);
            let inside = |p: &Point| (0.25..0.75).contains(&p.x) && (0.25..0.75).contains(&p.y);
            assert!(found.iter().all(|[i, o]| inside(i) && !inside(o)));
            square.reverse();
        }
        assert!(crossings(&[]).is_empty() && crossings(&[Point::default(); 3]).is_empty());
        assert!(crossings(&[Point::new(f32::NAN, 0.0), Point::new(1.0, f32::INFINITY)]).is_empty());
    }

    #[test]
    fn a_patch_of_another_brightness_has_a_seam_and_a_brighter_picture_has_none() {
        let outline = crossings(&SQUARE.map(|(x, y)| Point::new(x, y)));
        let truth = vec![100.0; SIDE * SIDE];
        let inside = |i: usize| (8..24).contains(&(i % SIDE)) && (8..24).contains(&(i / SIDE));
        let patched: Vec<f32> = (0..truth.len()).map(|i| if inside(i) { 110.0 } else { 100.0 }).collect();
        let found = seam(&patched, &truth, SIDE, &outline).unwrap();
        assert!(found.step > 8.0 && found.step <= 10.0 && found.made == found.step && found.truth == 0.0, "{found:?}");
        let own = seam(&patched, &patched, SIDE, &outline).unwrap();
        assert!(own.step == 0.0 && own.made == found.made && own.truth == found.made, "{own:?}");
        let brighter = seam(&vec![110.0; truth.len()], &truth, SIDE, &outline).unwrap();
        assert_eq!(brighter, Seam { step: 0.0, made: 0.0, truth: 0.0 });
        assert_eq!(seam(&truth, &truth, SIDE, &[]), None);
        let beyond = [[Point::new(1.5, 0.5), Point::new(1.6, 0.5)]];
        assert_eq!(seam(&truth, &truth, SIDE, &beyond), None);
    }

    fn flickering(made: [f32; 3], truth: [f32; 3]) -> Flickering {
        let level = |v: [f32; 3]| v.map(|v| vec![v; SIDE * SIDE]);
        let (made, truth) = (level(made), level(truth));
        let mut flicker = Flicker::default();
        flicker.push(made.each_ref().map(Vec::as_slice), truth.each_ref().map(Vec::as_slice), SIDE);
        flicker.finish().unwrap()
    }

    #[test]
    fn steady_motion_does_not_flicker_and_jumping_does() {
        assert_eq!(flickering([10.0, 20.0, 30.0], [5.0, 5.0, 5.0]), Flickering { made: 0.0, truth: 0.0 });
        assert_eq!(flickering([10.0, 20.0, 10.0], [1.0, 2.0, 1.0]), Flickering { made: 20.0, truth: 2.0 });
        assert_eq!(Flicker::default().finish(), None);
    }

    #[test]
    fn what_moves_in_the_truth_too_is_no_flicker() {
        let still = vec![50.0; SIDE * SIDE];
        // The lower third jumps in both, a column of the rest in the picture alone.
        let part = |f: &dyn Fn(usize, usize) -> bool| -> Vec<f32> {
            (0..SIDE * SIDE).map(|i| if f(i % SIDE, i / SIDE) { 90.0 } else { 50.0 }).collect()
        };
        let truth = part(&|_, y| y > 20);
        let made = part(&|x, y| y > 20 || x == 16);
        let (mut same, mut more) = (Flicker::default(), Flicker::default());
        same.push([&still, &truth, &still], [&still, &truth, &still], SIDE);
        more.push([&still, &made, &still], [&still, &truth, &still], SIDE);
        assert_eq!(same.finish(), Some(Flickering { made: 0.0, truth: 0.0 }));
        let more = more.finish().unwrap();
        assert!((more.made - 80.0 / 28.0).abs() < 1e-9 && more.truth == 0.0, "{more:?}");
    }
}
