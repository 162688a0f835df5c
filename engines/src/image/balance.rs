//! Bringing a patch's colours to those of the frame around it.

use std::ops::Range;

use crate::geometry::Point;

/// Mask values that make the feather in which colours are compared.
pub(super) const RING: Range<u32> = 13..154;
/// The correction of a colour stays within this many codes,
const MAX_OFFSET: f32 = 12.0;
/// of which its slope over the patch gets at most so many,
const MAX_SLOPE: f32 = 6.0;
/// and the contrast within this factor.
const MAX_GAIN: f32 = 1.15;
/// Fewer samples than this say nothing.
const FEW: usize = 40;

pub(super) struct Sample<const N: usize> {
    /// About -1..1 over the patch.
    pub at: Point,
    pub patch: [f32; N],
    pub frame: [f32; N],
}

/// `gain (p - pivot) + pivot + offset + slope . at` for each channel.
pub(super) struct Colour<const N: usize> {
    gain: f32,
    pivot: [f32; N],
    /// Offset and the two slopes.
    plane: [[f32; 3]; N],
}

impl<const N: usize> Colour<N> {
    const NONE: Self = Self { gain: 1.0, pivot: [0.0; N], plane: [[0.0; 3]; N] };

    #[inline(always)]
    pub fn apply(&self, k: usize, p: f32, x: f32, y: f32) -> f32 {
        let [o, sx, sy] = self.plane[k];
        ((p - self.pivot[k]) * self.gain + self.pivot[k] + o + sx * x + sy * y).clamp(0.0, 255.0)
    }

    /// A robust least-squares fit: pixels whose difference stays far from the plane (a hand, hair, a reference's
    /// background) lose their vote.
    pub fn fit(samples: &[Sample<N>], with_gain: bool) -> Self {
        if samples.len() < FEW {
            return Self::NONE;
        }
        // From the medians on, so that a third of outliers does not decide where the fit starts.
        let mut plane: [[f32; 3]; N] = std::array::from_fn(|k| {
            let mut differences: Vec<f32> = samples.iter().map(|s| s.frame[k] - s.patch[k]).collect();
            [median(&mut differences), 0.0, 0.0]
        });
        let mut weights = vec![0.0f32; samples.len()];
        for _ in 0..3 {
            let residual = |s: &Sample<N>| -> f32 {
                (0..N).map(|k| (s.frame[k] - s.patch[k] - at_plane(&plane[k], s.at)).powi(2)).sum::<f32>() / N as f32
            };
            let residuals: Vec<f32> = samples.iter().map(residual).collect();
            // Tukey's biweight, its scale from the median but at least a camera's noise.
            let limit = (20.0 * median(&mut residuals.clone())).max(16.0);
            for (w, r) in weights.iter_mut().zip(&residuals) {
                *w = (1.0 - r / limit).max(0.0).powi(2);
            }
            for (k, plane) in plane.iter_mut().enumerate() {
                *plane = fit_plane(samples.iter().zip(&weights).map(|(s, w)| (s.at, s.frame[k] - s.patch[k], *w)));
            }
        }
        let total: f32 = weights.iter().sum();
        if total < FEW as f32 / 2.0 {
            return Self::NONE;
        }
        let mean =
            |f: &dyn Fn(&Sample<N>) -> f32| samples.iter().zip(&weights).map(|(s, w)| f(s) * w).sum::<f32>() / total;
        let pivot: [f32; N] = std::array::from_fn(|k| mean(&|s| s.patch[k]));
        let gain = if with_gain {
            let average: [f32; N] = std::array::from_fn(|k| mean(&|s| s.frame[k]));
            let moment = |f: &dyn Fn(&Sample<N>, usize) -> f32| (0..N).map(|k| mean(&|s| f(s, k))).sum::<f32>();
            let patch = moment(&|s, k| (s.patch[k] - pivot[k]).powi(2));
            let frame = moment(&|s, k| (s.frame[k] - average[k]).powi(2));
            let both = moment(&|s, k| (s.patch[k] - pivot[k]) * (s.frame[k] - average[k]));
            gain(patch, frame, both)
        } else {
            1.0
        };
        if gain != 1.0 {
            // The slopes have explained some of the contrast already: fit what the gain leaves.
            for (k, plane) in plane.iter_mut().enumerate() {
                let left = |s: &Sample<N>| s.frame[k] - ((s.patch[k] - pivot[k]) * gain + pivot[k]);
                *plane = fit_plane(samples.iter().zip(&weights).map(|(s, w)| (s.at, left(s), *w)));
            }
        }
        for p in &mut plane {
            let steep = p[1].abs() + p[2].abs();
            let shrink = if steep > MAX_SLOPE { MAX_SLOPE / steep } else { 1.0 };
            *p = [p[0].clamp(-MAX_OFFSET, MAX_OFFSET), p[1] * shrink, p[2] * shrink];
        }
        Self { gain, pivot, plane }
    }
}

/// Ratio of the contrasts of frame and patch, trusted as far as the two correlate.
fn gain(patch: f32, frame: f32, both: f32) -> f32 {
    if patch < 4.0 || frame < 4.0 {
        return 1.0;
    }
    let trust = ((both / (patch * frame).sqrt() - 0.6) / 0.3).clamp(0.0, 1.0);
    1.0 + ((frame / patch).sqrt().clamp(1.0 / MAX_GAIN, MAX_GAIN) - 1.0) * trust
}

fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

fn at_plane(p: &[f32; 3], at: Point) -> f32 {
    p[0] + p[1] * at.x + p[2] * at.y
}

/// Weighted least squares of `value = o + sx x + sy y`, with a ridge that keeps the slopes of a one-sided feather small.
fn fit_plane(samples: impl Iterator<Item = (Point, f32, f32)>) -> [f32; 3] {
    let (mut a, mut b) = (nalgebra::Matrix3::<f32>::zeros(), nalgebra::Vector3::<f32>::zeros());
    for (at, value, w) in samples {
        let row = nalgebra::Vector3::new(1.0, at.x, at.y);
        a += row * row.transpose() * w;
        b += row * (value * w);
    }
    let ridge = 0.02 * a[(0, 0)];
    a[(1, 1)] += ridge;
    a[(2, 2)] += ridge;
    a.cholesky().map_or([0.0; 3], |c| c.solve(&b).into())
}
