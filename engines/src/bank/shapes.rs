use crate::{
    geometry::{Point, landmarks},
    random::{STEP, mixed},
};

/// Shapes in the sample.
pub const SHAPES: usize = 512;

/// An even random sample of a sequence of unknown length (J. Vitter's algorithm R, TOMS 11(1), 1985), with a fixed
/// seed: the same sequence leaves the same sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    /// `[len, 111]`
    points: Vec<Point>,
    observed: u64,
    /// Count at which the sample was last announced as changed.
    announced: u64,
}

impl Shapes {
    pub fn restore(points: Vec<Point>, observed: u64) -> Self {
        Self { points, observed, announced: observed }
    }

    pub fn observed(&self) -> u64 {
        self.observed
    }

    pub fn iter(&self) -> impl Iterator<Item = &[Point]> {
        self.points.chunks_exact(landmarks::COUNT)
    }

    pub fn as_points(&self) -> &[Point] {
        &self.points
    }

    /// True when there are half as many again as when it last said so.
    pub fn push(&mut self, shape: &[Point]) -> bool {
        self.observed += 1;
        if self.points.len() < SHAPES * landmarks::COUNT {
            self.points.extend_from_slice(shape);
        } else {
            let place = (mixed(self.observed.wrapping_mul(STEP)) % self.observed) as usize;
            if place < SHAPES {
                self.points[place * landmarks::COUNT..][..landmarks::COUNT].copy_from_slice(shape);
            }
        }
        let grown = self.observed >= self.announced + (self.announced / 2).max(1);
        if grown {
            self.announced = self.observed;
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_bounded_even_and_repeatable() {
        let run = || {
            let mut shapes = Shapes::default();
            for i in 0..20_000 {
                shapes.push(&[Point::new(i as f32, 0.0); landmarks::COUNT]);
            }
            shapes.iter().map(|s| s[0].x).collect::<Vec<_>>()
        };
        let sample = run();
        assert_eq!(sample.len(), SHAPES);
        let mean = sample.iter().sum::<f32>() / SHAPES as f32;
        // Standard error: 20000 / sqrt(12 * 512) = 255.
        assert!((mean - 10_000.0).abs() < 900.0, "{mean}");
        assert_eq!(sample, run());
    }
}
