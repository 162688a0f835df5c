//! Masks: erosion and blur of one plane, as OpenCV and kornia have them.

/// From 0 at 0 to 1 at 1 without a corner, `3 t^2 - 2 t^3`; 0 before and 1 after.
pub(crate) fn smooth_step(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// One plane of numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SoftMask {
    pub width: usize,
    pub height: usize,
    /// `[height, width]`.
    pub data: Vec<f32>,
}

impl SoftMask {
    /// The least of the pixels from `before` before each to `after` after it, across and down; what lies beyond the edge does
    /// not count.
    pub fn erode(self, before: usize, after: usize) -> Self {
        let least = |values: &[f32]| -> Vec<f32> {
            let near = |i: usize| &values[i.saturating_sub(before)..(i + after + 1).min(values.len())];
            (0..values.len()).map(|i| near(i).iter().copied().fold(f32::MAX, f32::min)).collect()
        };
        self.separate(&least)
    }

    /// Weighted means with a kernel of odd length, across and down; beyond the edge the plane is reflected about its last
    /// pixel.
    pub fn blur(self, kernel: &[f32]) -> Self {
        let half = (kernel.len() / 2) as i64;
        let mean = |values: &[f32]| -> Vec<f32> {
            let at = |i: usize, k: usize| values[reflected(i as i64 + k as i64 - half, values.len())];
            let sum = |i: usize| kernel.iter().enumerate().map(|(k, w)| w * at(i, k)).sum();
            (0..values.len()).map(sum).collect()
        };
        self.separate(&mean)
    }

    /// `line` of each row, and of each column of what comes out.
    fn separate(self, line: &dyn Fn(&[f32]) -> Vec<f32>) -> Self {
        let Self { width, height, mut data } = self;
        if data.is_empty() {
            return Self { width, height, data };
        }
        data.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(&line(row)));
        for x in 0..width {
            let column: Vec<f32> = data[x..].iter().step_by(width).copied().collect();
            data[x..].iter_mut().step_by(width).zip(line(&column)).for_each(|(v, new)| *v = new);
        }
        Self { width, height, data }
    }
}

/// A place of a line that goes back and forth without repeating its ends (`BORDER_REFLECT_101`).
fn reflected(i: i64, len: usize) -> usize {
    let period = 2 * (len as i64 - 1).max(1);
    let at = i.rem_euclid(period);
    at.min(period - at).min(len as i64 - 1) as usize
}

/// A Gaussian of odd `length` with OpenCV's deviation for it, `0.3 ((length - 1) / 2 - 1) + 0.8`.
pub(crate) fn gaussian(length: usize) -> Vec<f32> {
    let (length, half) = (length.max(1), length as f64 / 2.0 - 0.5);
    let deviation = 0.3 * (half - 1.0) + 0.8;
    let raw: Vec<f64> =
        (0..length).map(|i| (-(i as f64 - half).powi(2) / (2.0 * deviation * deviation)).exp()).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|w| (w / sum) as f32).collect()
}

/// The Gaussian that `cv::GaussianBlur` takes for bytes where no deviation is given: up to nine fixed weights in 256ths.
pub(crate) fn gaussian_of_bytes(length: usize) -> Vec<f32> {
    let fixed: &[u8] = match length {
        0 | 1 => return vec![1.0],
        3 => &[64, 128, 64],
        5 => &[16, 64, 96, 64, 16],
        7 => &[8, 28, 56, 72, 56, 28, 8],
        9 => &[4, 13, 30, 51, 60, 51, 30, 13, 4],
        _ => return gaussian(length),
    };
    fixed.iter().map(|w| f32::from(*w) / 256.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(width: usize, data: &[f32]) -> SoftMask {
        SoftMask { width, height: data.len() / width, data: data.to_vec() }
    }

    #[test]
    fn erosion_takes_the_least_and_the_edge_does_not_erode() {
        let data = [1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(plane(4, &data).erode(1, 0).data, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5, 1.0, 1.0]);
        assert_eq!(plane(4, &data).erode(0, 1).data, [0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_blur_spreads_a_point_and_is_reflected_at_the_edge() {
        let mut point = [0.0; 25];
        point[0] = 256.0;
        let found = plane(5, &point).blur(&gaussian_of_bytes(3)).data;
        assert_eq!([found[0], found[1], found[5], found[6], found[2]], [64.0, 32.0, 32.0, 16.0, 0.0]);
        // The neighbour of the edge is seen twice from it.
        let mut point = [0.0; 25];
        point[1] = 256.0;
        assert_eq!(plane(5, &point).blur(&gaussian_of_bytes(3)).data[0], 64.0);
        for length in [1, 5, 7, 9, 21] {
            let (a, b) = (gaussian(length), gaussian_of_bytes(length));
            assert!((a.iter().sum::<f32>() - 1.0).abs() < 1e-5 && (b.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.01), "{length}: {a:?} {b:?}");
        }
        assert_eq!(plane(1, &[3.0]).blur(&gaussian(9)).data.len(), 1);
    }
}
