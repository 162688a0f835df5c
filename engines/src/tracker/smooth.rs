use crate::geometry::Point;

/// The one-euro filter (G. Casiez, N. Roussel, D. Vogel, CHI 2012) for a set of points that move together: a low pass
/// whose cut-off rises with speed. Speeds are in face sizes a second, so that a face far away and a face nearby are
/// smoothed alike; steps are in seconds, so that the frame rate does not matter. The cut-off is the greater of its two
/// parts, not their sum: slow speeds are the noise's own, and must not open the filter to it.
#[derive(Debug)]
pub(super) struct Smoother {
    /// Hz at rest.
    rest: f32,
    /// Hz for each face size a second.
    slope: f32,
    points: Vec<Point>,
    /// Filtered, face sizes a second.
    speeds: Vec<Point>,
    /// The last input.
    raw: Vec<Point>,
}

/// Hz at rest and Hz for each face size a second at strength 1: a point at rest loses three quarters of its noise's
/// power at 25 fps, one that moves lags by less than 1/(2 pi SLOPE) = 0.4 % of the face.
const REST: f32 = 2.0;
const SLOPE: f32 = 40.0;
/// Cut-off of the speeds themselves, Hz.
const SPEED: f32 = 1.0;
/// A longer step, in seconds, is a gap: what was before says nothing.
const GAP: f32 = 0.5;

/// Weight of the new value of a low pass with `cutoff` Hz after `dt` seconds: exact for a value held during the step,
/// so that steps of different lengths add up.
fn weight(cutoff: f32, dt: f32) -> f32 {
    1.0 - (-std::f32::consts::TAU * cutoff * dt).exp()
}

impl Smoother {
    /// `strength` 0 passes points as they are, 1 is the default, 2 smooths twice as much.
    pub fn new(strength: f32) -> Self {
        let strength = strength.max(0.0);
        Self { rest: REST / strength, slope: SLOPE / strength, points: Vec::new(), speeds: Vec::new(), raw: Vec::new() }
    }

    /// What the last [`Smoother::push`] returned.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Filters points that were seen `dt` seconds after the last ones on a face of `size` pixels.
    pub fn push(&mut self, points: &[Point], size: f32, dt: f32) -> &[Point] {
        // Written so that NaN starts afresh.
        let follows = self.points.len() == points.len() && dt > 0.0 && dt < GAP;
        if !(follows && size > 0.0 && self.rest.is_finite()) {
            self.points = points.to_vec();
            self.raw = points.to_vec();
            self.speeds = vec![Point::default(); points.len()];
            return &self.points;
        }
        let keep = weight(SPEED, dt);
        let mut mean = Point::default();
        for ((speed, raw), p) in self.speeds.iter_mut().zip(&mut self.raw).zip(points) {
            let seen = (*p - *raw) * (1.0 / (size * dt));
            *speed = speed.lerp(seen, keep);
            mean = mean + *speed;
            *raw = *p;
        }
        // The head's own speed is known much better than a point's: it opens the filter of all.
        let head = (mean * (1.0 / points.len() as f32)).distance(Point::default());
        for ((out, speed), p) in self.points.iter_mut().zip(&self.speeds).zip(points) {
            let speed = speed.distance(Point::default()).max(head);
            *out = out.lerp(*p, weight(self.rest.max(self.slope * speed), dt));
        }
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACE: f32 = 200.0;

    fn noise(i: usize) -> f32 {
        ((i as f32 * 12.9898).sin() * 43758.547).rem_euclid(1.0) - 0.5
    }

    #[test]
    fn noise_at_rest_shrinks_and_the_mean_stays() {
        let mut filter = Smoother::new(1.0);
        let (mut before, mut after, mut mean) = (0.0, 0.0, 0.0);
        for i in 0..400 {
            let x = 300.0 + noise(i);
            let out = filter.push(&[Point::new(x, 50.0)], FACE, 0.04)[0].x;
            if i >= 100 {
                before += (x - 300.0).powi(2);
                after += (out - 300.0).powi(2);
                mean += (out - 300.0) / 300.0;
            }
        }
        assert!(after < 0.3 * before, "{after} of {before}");
        assert!(mean.abs() < 0.05, "{mean}");
    }

    #[test]
    fn a_step_is_reached_and_a_ramp_followed_closely() {
        let mut filter = Smoother::new(1.0);
        filter.push(&[Point::default()], FACE, 0.04);
        for _ in 0..25 {
            filter.push(&[Point::new(10.0, 0.0)], FACE, 0.04);
        }
        assert!((filter.points[0].x - 10.0).abs() < 0.05);
        // From a slow turn to a jump of half a face a second: never more than a pixel of a 200 px face behind.
        for speed in [10.0, 40.0, 100.0, 300.0] {
            let mut filter = Smoother::new(1.0);
            let mut lag = 0.0f32;
            for i in 0..50 {
                let x = speed * 0.04 * i as f32;
                let out = filter.push(&[Point::new(x, 0.0)], FACE, 0.04)[0].x;
                if i > 20 {
                    lag = lag.max(x - out);
                }
            }
            assert!(lag < 1.0, "{lag} px behind at {speed} px/s");
        }
    }

    #[test]
    fn the_frame_rate_does_not_matter() {
        let path = |t: f32| Point::new(100.0 * (2.0 * t).sin(), 20.0 * t);
        let run = |times: &[f32]| {
            let mut filter = Smoother::new(1.0);
            let mut last = 0.0;
            times
                .iter()
                .map(|t| {
                    let p = filter.push(&[path(*t)], FACE, if *t == 0.0 { 0.0 } else { *t - last })[0];
                    last = *t;
                    p
                })
                .last()
                .unwrap()
        };
        let steady = |fps: f32| (0..=(2.0 * fps) as usize).map(|i| i as f32 / fps).collect::<Vec<_>>();
        let mut varied: Vec<f32> =
            (0..=50).map(|i| i as f32 / 25.0 + if i % 50 == 0 { 0.0 } else { 0.012 * noise(i) }).collect();
        varied.retain(|t| (t * 25.0) as usize % 7 != 3 || *t == 2.0);
        let reference = run(&steady(25.0));
        for times in [steady(50.0), steady(12.5), varied] {
            let p = run(&times);
            assert!(p.distance(reference) < 1.0, "{p:?} and {reference:?}");
        }
    }

    #[test]
    fn size_does_not_matter_and_gaps_start_afresh() {
        let run = |scale: f32| {
            let mut filter = Smoother::new(1.0);
            let mut out = 0.0;
            for i in 0..30 {
                out = filter.push(&[Point::new((i as f32 + noise(i)) * scale, 0.0)], FACE * scale, 0.04)[0].x / scale;
            }
            out
        };
        assert!((run(1.0) - run(4.0)).abs() < 1e-3);
        let mut filter = Smoother::new(1.0);
        filter.push(&[Point::default()], FACE, 0.04);
        for dt in [2.0, 0.0, -0.04, f32::NAN] {
            let p = Point::new(50.0 + dt.max(0.0), 1.0);
            assert_eq!(filter.push(&[p], FACE, dt)[0], p);
            filter.push(&[Point::default()], FACE, 2.0);
        }
        let mut off = Smoother::new(0.0);
        off.push(&[Point::default()], FACE, 0.04);
        assert_eq!(off.push(&[Point::new(3.0, 4.0)], FACE, 0.04)[0], Point::new(3.0, 4.0));
    }
}
