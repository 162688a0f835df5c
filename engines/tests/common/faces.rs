//! Faces for the engines' tests, seen from the front.

use lipstream_engines::{
    engine::Engine,
    geometry::{Point, landmarks},
    tracker::Face,
};

use super::face;

/// An upright face, `scale` pixels a unit of LatentSync's template, whose nose is at `nose` and whose left brow is `lower` units lower than
/// the right one.
pub fn upright(nose: Point, scale: f32, lower: f32) -> Face {
    let mut points = vec![nose; landmarks::COUNT];
    for (k, i) in landmarks::JAW.enumerate() {
        let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
        points[i] = nose + Point::new(30.0 * scale * cos, 40.0 * scale * sin);
    }
    points[landmarks::BROW_RIGHT] = nose + Point::new(-20.5 * scale, -20.0 * scale);
    points[landmarks::BROW_LEFT] = nose + Point::new(20.5 * scale, (lower - 20.0) * scale);
    landmarks::NOSE_MIDDLE.into_iter().for_each(|i| points[i] = nose);
    face(points)
}

/// A level face whose jaw is `width` px wide around `middle`, the bridge of its nose at `middle` too.
pub fn jawed(middle: Point, width: f32) -> Face {
    let mut points = vec![middle; landmarks::COUNT];
    for (k, i) in landmarks::JAW.enumerate() {
        let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
        points[i] = middle + Point::new(width / 2.0 * cos, 0.62 * width * sin);
    }
    points[landmarks::FOREHEAD].fill(middle - Point::new(0.0, 0.65 * width));
    points[landmarks::LIPS].fill(middle + Point::new(0.0, 0.35 * width));
    let nose = [[-0.1, 0.08], [-0.06, 0.12], [0.0, 0.14], [0.06, 0.12], [0.1, 0.08]];
    for (i, [x, y]) in [92, 90, 89, 91, 93].into_iter().zip(nose) {
        points[i] = middle + Point::new(x * width, y * width);
    }
    face(points)
}

/// A level face of `side` px from crop edge to crop edge, whose crop begins at `corner`, that opens its mouth by `open` crops.
pub fn level(engine: &dyn Engine, corner: Point, side: f32, open: f32) -> Face {
    let alignment = &engine.spec().alignment;
    let mut points = vec![Point::new(0.5, 0.5); landmarks::COUNT];
    for (a, p) in alignment.anchors.iter().zip(&alignment.points) {
        points[*a] = *p;
    }
    let mut ring = |range: std::ops::Range<usize>, middle: f32, across: f32, down: f32| {
        let n = range.len() as f32;
        for (k, i) in range.enumerate() {
            let (sin, cos) = (std::f32::consts::TAU * k as f32 / n).sin_cos();
            points[i] = Point::new(0.5 - across * cos, middle - down * sin);
        }
    };
    ring(landmarks::LIPS_OUTER, 0.62, 0.15, 0.05 + open / 2.0);
    ring(landmarks::LIPS_INNER, 0.62, 0.12, 0.003 + open / 2.0);
    ring(landmarks::CHIN, 0.75, 0.08, 0.05);
    for (k, i) in landmarks::JAW.enumerate() {
        let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
        points[i] = Point::new(0.5 + 0.42 * cos, 0.4 + (0.5 + open / 2.0) * sin);
    }
    let points: Vec<Point> = points.iter().map(|p| corner + *p * side).collect();
    face(points)
}
