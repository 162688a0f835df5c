//! Which pixels are the face's and which the mouth's, with soft edges that follow the head by parts of a pixel.

use std::ops::Range;

use crate::{
    geometry::{
        Point,
        landmarks::{EYE_LEFT, EYE_RIGHT, FOREHEAD, JAW, LIPS_OUTER},
    },
    image::smooth_step,
    tracker::Face,
};

/// The face's ellipse is so much larger than one through its outline: the change fades across the outline.
const FACE_MARGIN: f32 = 1.15;
/// Distances from the centre, the ellipse's edge being 1, between which the face's weight goes from 1 to 0,
const FACE_EDGE: [f32; 2] = [0.7, 1.0];
/// and the mouth's, whose ellipse holds all of the outer lip.
const MOUTH_EDGE: [f32; 2] = [1.08, 1.7];
/// Faces smaller than this, in pixels across, have nothing to enhance.
const SMALLEST: f32 = 16.0;

/// An ellipse in pixels of the frame.
#[derive(Clone, Copy, Debug)]
struct Ellipse {
    centre: Point,
    /// A unit vector along the first radius.
    axis: Point,
    radii: [f32; 2],
}

impl Ellipse {
    /// The smallest one with the shape of the points' box, turned along `axis`, that holds them all.
    fn around(points: &[Point], axis: Point) -> Option<Self> {
        let turned = |p: &Point| [p.x * axis.x + p.y * axis.y, p.y * axis.x - p.x * axis.y];
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for p in points.iter().map(turned) {
            for k in 0..2 {
                (low[k], high[k]) = (low[k].min(p[k]), high[k].max(p[k]));
            }
        }
        let radii = [0, 1].map(|k| (high[k] - low[k]) / 2.0);
        let [u, v] = [0, 1].map(|k| (high[k] + low[k]) / 2.0);
        let centre = Point::new(u * axis.x - v * axis.y, u * axis.y + v * axis.x);
        if radii.iter().any(|r| !r.is_normal()) || !centre.x.is_finite() || !centre.y.is_finite() {
            return None;
        }
        let unit = Self { centre, axis, radii };
        let furthest = points.iter().map(|p| unit.square(*p)).fold(1.0, f32::max).sqrt();
        Some(unit.enlarged(furthest))
    }

    fn enlarged(self, by: f32) -> Self {
        Self { radii: self.radii.map(|r| r * by), ..self }
    }

    /// Squared distance from the centre, 1 at the edge.
    fn square(&self, p: Point) -> f32 {
        let (x, y) = (p.x - self.centre.x, p.y - self.centre.y);
        let u = (x * self.axis.x + y * self.axis.y) / self.radii[0];
        let v = (y * self.axis.x - x * self.axis.y) / self.radii[1];
        u * u + v * v
    }

    /// [`square`](Self::square) of a row's pixels from column `x` on.
    fn row(&self, x: usize, y: usize, out: &mut [f32]) {
        let (dx, dy) = (x as f32 + 0.5 - self.centre.x, y as f32 + 0.5 - self.centre.y);
        let [u_step, v_step] = [self.axis.x / self.radii[0], -self.axis.y / self.radii[1]];
        let (u, v) = (dx * u_step + dy * self.axis.y / self.radii[0], dx * v_step + dy * self.axis.x / self.radii[1]);
        for (i, out) in out.iter_mut().enumerate() {
            let (u, v) = (u + i as f32 * u_step, v + i as f32 * v_step);
            *out = u * u + v * v;
        }
    }

    /// Half the width and half the height of its upright box.
    fn half(&self) -> [f32; 2] {
        let [a, b] = self.radii;
        [(a * self.axis.x).hypot(b * self.axis.y), (a * self.axis.y).hypot(b * self.axis.x)]
    }
}

/// 1 up to `edge[0]`, 0 from `edge[1]` on, smooth in between.
fn fade(square: f32, edge: [f32; 2]) -> f32 {
    smooth_step((edge[1] - square.sqrt()) / (edge[1] - edge[0]))
}

/// Where the mouth is, and how much of it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mouth {
    ellipse: Ellipse,
    protection: f32,
}

impl Mouth {
    /// `None` where nothing is to be kept or the mouth has no shape.
    pub fn of(face: &Face, protection: f32) -> Option<Self> {
        let ellipse = Ellipse::around(face.points.get(LIPS_OUTER)?, axis(face)?)?;
        (protection > 0.0).then_some(Self { ellipse, protection })
    }

    /// How much of the pixel whose middle is `place` is kept, 0..1.
    pub fn weight(&self, place: Point) -> f32 {
        self.protection * fade(self.ellipse.square(place), MOUTH_EDGE)
    }
}

/// The way from the right eye to the left one, a unit long.
fn axis(face: &Face) -> Option<Point> {
    let (from, to) = (face.points.get(EYE_RIGHT)?, face.points.get(EYE_LEFT)?);
    let between = from.distance(*to);
    between.is_normal().then(|| Point::new((to.x - from.x) / between, (to.y - from.y) / between))
}

/// The part of a frame that a face's enhancement changes.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// Pixels that can be changed.
    pub columns: Range<usize>,
    pub rows: Range<usize>,
    /// The upright box of the face's ellipse: left, top, right, bottom, not cut to the frame.
    pub extent: [f32; 4],
    /// Pixels across the face: the geometric mean of the diameters of its outline.
    pub size: f32,
    face: Ellipse,
    mouth: Ellipse,
}

impl Region {
    /// `None` where the face is too small, lies outside of the frame or has no shape.
    pub fn of(face: &Face, (width, height): (usize, usize)) -> Option<Self> {
        let points = &face.points;
        let axis = axis(face)?;
        let outline: Vec<Point> = points.get(JAW)?.iter().chain(points.get(FOREHEAD)?).copied().collect();
        let face = Ellipse::around(&outline, axis)?;
        let mouth = Ellipse::around(points.get(LIPS_OUTER)?, axis)?;
        let size = 2.0 * (face.radii[0] * face.radii[1]).sqrt();
        let face = face.enlarged(FACE_MARGIN);
        let ([x, y], centre) = (face.half(), face.centre);
        let extent = [centre.x - x, centre.y - y, centre.x + x, centre.y + y];
        let cut = |from: f32, to: f32, most: usize| {
            from.clamp(0.0, most as f32) as usize..to.clamp(0.0, most as f32).ceil() as usize
        };
        let (columns, rows) = (cut(extent[0], extent[2], width), cut(extent[1], extent[3], height));
        let shown = size.is_finite() && size >= SMALLEST && !columns.is_empty() && !rows.is_empty();
        shown.then_some(Self { columns, rows, extent, size, face, mouth })
    }

    /// How much of the enhanced picture each of the pixels `columns` of row `y` takes; `protection` 0..1 is how much of the
    /// mouth is kept. `spare` is scratch of as many values.
    pub fn weights(&self, y: usize, protection: f32, out: &mut [f32], spare: &mut [f32]) {
        self.face.row(self.columns.start, y, out);
        out.iter_mut().for_each(|v| *v = fade(*v, FACE_EDGE));
        if protection > 0.0 {
            self.mouth.row(self.columns.start, y, spare);
            out.iter_mut().zip(spare).for_each(|(v, square)| *v *= 1.0 - protection * fade(*square, MOUTH_EDGE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of an ellipse of those radii, turned by `angle`.
    fn ring(centre: Point, radii: [f32; 2], angle: f32, count: usize) -> Vec<Point> {
        let (sin, cos) = angle.sin_cos();
        let at = |i: usize| {
            let (v, u) = (i as f32 / count as f32 * std::f32::consts::TAU).sin_cos();
            let (u, v) = (u * radii[0], v * radii[1]);
            Point::new(centre.x + u * cos - v * sin, centre.y + u * sin + v * cos)
        };
        (0..count).map(at).collect()
    }

    #[test]
    fn an_ellipse_is_that_of_its_points_however_it_is_turned() {
        for angle in [0.0, 0.5, -1.2] {
            let axis = Point::new(f32::cos(angle), f32::sin(angle));
            let centre = Point::new(90.0, 70.0);
            let ellipse = Ellipse::around(&ring(centre, [40.0, 20.0], angle, 64), axis).unwrap();
            assert!(ellipse.centre.distance(centre) < 0.01, "{ellipse:?}");
            assert!((ellipse.radii[0] - 40.0).abs() < 0.1 && (ellipse.radii[1] - 20.0).abs() < 0.1, "{ellipse:?}");
            let mut row = vec![0.0; 150];
            ellipse.row(20, 60, &mut row);
            for (i, found) in row.iter().enumerate() {
                let wanted = ellipse.square(Point::new(i as f32 + 20.5, 60.5));
                assert!((found - wanted).abs() < 1e-3 * wanted.max(1.0), "{i}: {found}, {wanted}");
            }
            let [x, y] = ellipse.half();
            let far = |f: fn(&Point) -> f32| {
                ring(Point::default(), [40.0, 20.0], angle, 4096).iter().map(f).fold(0.0, f32::max)
            };
            assert!((x - far(|p| p.x)).abs() < 0.1 && (y - far(|p| p.y)).abs() < 0.1);
        }
        assert!(Ellipse::around(&[Point::new(1.0, 1.0); 3], Point::new(1.0, 0.0)).is_none());
        assert!(Ellipse::around(&[Point::new(f32::NAN, 1.0); 3], Point::new(1.0, 0.0)).is_none());
    }

    #[test]
    fn an_edge_is_monotonous_and_smooth() {
        let values: Vec<f32> = (0..400).map(|i| fade((i as f32 / 200.0).powi(2), FACE_EDGE)).collect();
        assert_eq!((values[0], values[139], values[200], values[399]), (1.0, 1.0, 0.0, 0.0));
        assert!(values.windows(2).all(|w| w[1] <= w[0] && w[0] - w[1] < 0.03));
    }
}
