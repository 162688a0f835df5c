//! Means over a window of any width, the same work whatever the width.

/// A box of `2 radius + 1` values and a part of the two beyond it, so that the width is continuous: P. Gwosdek, S. Grewenig,
/// A. Bruhn, J. Weickert, "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub radius: usize,
    /// Weight of the values at `radius + 1`, those within weighing 1.
    pub rim: f32,
    passes: usize,
}

impl Window {
    /// `passes` of it have the standard deviation `deviation`, in pixels (equation 9 there).
    pub fn of_deviation(deviation: f32, passes: usize) -> Self {
        let passes = passes.max(1);
        let variance = deviation.clamp(0.0, 1000.0).powi(2) / passes as f32;
        let whole = (0.5 * (12.0 * variance + 1.0).sqrt() - 0.5).floor().max(0.0);
        let next = (whole + 1.0).powi(2);
        let rim = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance) / (6.0 * (variance - next));
        Self { radius: whole as usize, rim: rim.clamp(0.0, 1.0), passes }
    }

    /// All values no further off than `radius`, the last of them in part.
    pub fn of_radius(radius: f32) -> Self {
        let radius = radius.clamp(0.0, 4096.0);
        Self { radius: radius as usize, rim: radius.fract(), passes: 1 }
    }

    /// How far a mean reaches.
    pub fn reach(&self) -> usize {
        (self.radius + 1) * self.passes
    }

    /// The means of a plane `[rows, width]`; beyond the edge it repeats. `spare` is scratch.
    pub fn blur(&self, plane: &[f32], width: usize, out: &mut Vec<f32>, spare: &mut Vec<f32>) {
        out.clear();
        out.extend_from_slice(plane);
        if width == 0 {
            return;
        }
        for _ in 0..self.passes {
            out.chunks_exact_mut(width).for_each(|row| self.along(row, spare));
        }
        for _ in 0..self.passes {
            self.down(out, width, spare);
        }
    }

    fn scale(&self) -> f32 {
        1.0 / ((2 * self.radius + 1) as f32 + 2.0 * self.rim)
    }

    fn along(&self, row: &mut [f32], padded: &mut Vec<f32>) {
        let (Some(first), Some(last)) = (row.first().copied(), row.last().copied()) else { return };
        let (window, scale) = (2 * self.radius + 1, self.scale());
        padded.clear();
        padded.resize(self.radius + 1, first);
        padded.extend_from_slice(row);
        padded.resize(row.len() + window + 1, last);
        let mut sum: f32 = padded[1..=window].iter().sum();
        let ends = padded.iter().zip(&padded[1..]).zip(&padded[window + 1..]);
        for (value, ((before, leaves), enters)) in row.iter_mut().zip(ends) {
            *value = (sum + self.rim * (before + enters)) * scale;
            sum += enters - leaves;
        }
    }

    fn down(&self, plane: &mut [f32], width: usize, spare: &mut Vec<f32>) {
        let rows = plane.len() / width;
        let (radius, rim, scale) = (self.radius as i64, self.rim, self.scale());
        spare.clear();
        spare.extend_from_slice(plane);
        spare.resize(plane.len() + width, 0.0);
        let (source, sum) = spare.split_at_mut(plane.len());
        let row = |y: i64| &source[y.clamp(0, rows as i64 - 1) as usize * width..][..width];
        for y in -radius..=radius {
            sum.iter_mut().zip(row(y)).for_each(|(sum, value)| *sum += value);
        }
        for (y, out) in plane.chunks_exact_mut(width).enumerate() {
            let y = y as i64;
            let (before, leaves, enters) = (row(y - radius - 1), row(y - radius), row(y + radius + 1));
            for (x, value) in out.iter_mut().enumerate() {
                *value = (sum[x] + rim * (before[x] + enters[x])) * scale;
                sum[x] += enters[x] - leaves[x];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + i * i * 31) % 251) as f32).collect()
    }

    #[test]
    fn a_mean_is_that_of_its_window_with_the_edge_repeated() {
        let (width, rows) = (13, 9);
        let plane = noise(width * rows);
        for radius in [0.0, 0.3, 1.0, 2.5, 20.0] {
            let window = Window::of_radius(radius);
            let (mut out, mut spare) = (Vec::new(), Vec::new());
            window.blur(&plane, width, &mut out, &mut spare);
            let reach = radius as i64 + 1;
            let weight = |d: i64| (radius + 1.0 - d.abs() as f32).clamp(0.0, 1.0);
            for (i, found) in out.iter().enumerate() {
                let (mut sum, mut all) = (0.0, 0.0);
                for dy in -reach..=reach {
                    for dx in -reach..=reach {
                        let x = ((i % width) as i64 + dx).clamp(0, width as i64 - 1) as usize;
                        let y = ((i / width) as i64 + dy).clamp(0, rows as i64 - 1) as usize;
                        sum += weight(dx) * weight(dy) * plane[y * width + x];
                        all += weight(dx) * weight(dy);
                    }
                }
                assert!((found - sum / all).abs() < 0.01, "{radius}, {i}: {found}, {}", sum / all);
            }
        }
    }

    #[test]
    fn a_point_spreads_as_far_as_the_deviation_says() {
        let (width, rows) = (101, 101);
        let mut plane = vec![0.0; width * rows];
        plane[50 * width + 50] = 1000.0;
        for (deviation, passes) in [(0.3, 2), (0.8, 2), (1.4, 2), (1.5, 3), (5.0, 2)] {
            let (mut out, mut spare) = (Vec::new(), Vec::new());
            Window::of_deviation(deviation, passes).blur(&plane, width, &mut out, &mut spare);
            let mean = |f: &dyn Fn(f32) -> f32| {
                out.iter().enumerate().map(|(i, v)| v * f((i % width) as f32 - 50.0)).sum::<f32>() / 1000.0
            };
            assert!((mean(&|_| 1.0) - 1.0).abs() < 1e-3, "{deviation}");
            let found = mean(&|x| x * x).sqrt();
            assert!((found - deviation).abs() < 0.01 * deviation, "{deviation}: {found}");
        }
        let (mut out, mut spare) = (Vec::new(), Vec::new());
        Window::of_deviation(2.0, 2).blur(&[], 0, &mut out, &mut spare);
        assert!(out.is_empty());
    }
}
