//! The alignment of LatentSync (bytedance/LatentSync, latentsync/utils/affine_transform.py, which is StyleSync's): the middles
//! of the brows and the nose onto three fixed places of the crop.
//!
//! Coordinates are those of the published program: the centre of the first pixel is (0, 0), half a pixel less than elsewhere in
//! this crate. [`from_first_centre`] and [`to_first_centre`] lead from one to the other.

use super::{Point, Similarity, landmarks};

/// Where the points belong, in units that are scaled by [`ZOOM`] and the side over 256.
const TEMPLATE: [Point; 3] = [Point::new(17.0, 20.0), Point::new(58.0, 20.0), Point::new(37.5, 40.0)];
/// Width and height of the crop in the same units.
const WIDTH: f64 = 75.0;
const HEIGHT: f64 = 100.0;
const ZOOM: f64 = 2.8;
/// Parts of the bias before and of the bias now in the smoothed one.
const BEFORE: f64 = 0.2;
const NOW: f64 = 0.8;

/// From the means of our landmarks to the published points in the same units, as they lie in an aligned face: one offset for the
/// points of the first release and those of the later ones, the same for a mirrored face, fitted by `engines/train/alignment.py`.
const OFFSET: Points = [Point::new(1.88, 0.98), Point::new(-1.88, 0.98), Point::new(0.0, 1.15)];

const HALF: Point = Point::new(0.5, 0.5);

/// Middle of the brow on the left of the picture, of the one on its right, and the nose.
pub type Points = [Point; 3];

/// Aligns a face frame by frame.
#[derive(Clone, Debug)]
pub struct ThreePoint {
    ratio: f64,
    /// The smoothed bias; `None` before the first frame.
    bias: Option<[f64; 2]>,
}

impl ThreePoint {
    /// For a network whose picture has `side` pixels a side.
    pub fn new(side: usize) -> Self {
        Self { ratio: side as f64 / 256.0 * ZOOM, bias: None }
    }

    /// Columns and rows of the crop, which is squeezed to a square later: `int(75 r)` and `int(100 r)` with `r = 2.8 side / 256`.
    pub fn size(&self) -> (usize, usize) {
        ((WIDTH * self.ratio) as usize, (HEIGHT * self.ratio) as usize)
    }

    /// Where the three points belong in the crop, in pixels.
    pub fn template(&self) -> Points {
        TEMPLATE.map(|p| p * self.ratio as f32)
    }

    /// The smoothed bias, in units of the points' deviation.
    pub fn bias(&self) -> Option<Point> {
        self.bias.map(|[x, y]| Point::new(x as f32, y as f32))
    }

    /// Forgets the frames before.
    pub fn reset(&mut self) {
        self.bias = None;
    }

    /// The map from the frame to the crop, both in pixels, without smoothing: the rotation that brings the points nearest to the
    /// template (never a reflection), scaled by the ratio of the deviations, which is not the scale of least squares. `None` for
    /// points that coincide or are not finite.
    pub fn fit(&self, points: &Points) -> Option<Similarity> {
        self.solve(points).map(|(map, _)| map)
    }

    /// The same with the program's smoothing. What is smoothed is the bias, the distance of the nose from its place after both
    /// triangles were brought to deviation 1 and mean 0, not turned; it is then added to the translation as if it were pixels.
    /// Points that have no map leave the bias as it was.
    pub fn next(&mut self, points: &Points) -> Option<Similarity> {
        let (mut map, bias) = self.solve(points)?;
        let bias = match self.bias {
            None => bias,
            Some(before) => [0, 1].map(|i| BEFORE * before[i] + NOW * bias[i]),
        };
        self.bias = Some(bias);
        map.tx += bias[0] as f32;
        map.ty += bias[1] as f32;
        Some(map)
    }

    /// The map and the bias of one frame.
    fn solve(&self, points: &Points) -> Option<(Similarity, [f64; 2])> {
        let from = points.map(|p| [f64::from(p.x), f64::from(p.y)]);
        let to = TEMPLATE.map(|p| [f64::from(p.x) * self.ratio, f64::from(p.y) * self.ratio]);
        let ((centre, from, spread), (target, to, wanted)) = (normalised(&from)?, normalised(&to)?);
        let (mut dot, mut cross) = (0.0, 0.0);
        for (f, t) in from.iter().zip(&to) {
            dot += f[0] * t[0] + f[1] * t[1];
            cross += f[0] * t[1] - f[1] * t[0];
        }
        let (length, scale) = (f64::hypot(dot, cross), wanted / spread);
        let (a, b) = (scale * dot / length, scale * cross / length);
        let map = Similarity {
            a: a as f32,
            b: b as f32,
            tx: (target[0] - (a * centre[0] - b * centre[1])) as f32,
            ty: (target[1] - (b * centre[0] + a * centre[1])) as f32,
        };
        let sound = length.is_normal() && map.scale().is_normal() && map.tx.is_finite() && map.ty.is_finite();
        sound.then_some((map, [0, 1].map(|i| to[2][i] - from[2][i])))
    }
}

/// Mean of three points, the points less it over their deviation, and the deviation: of all six numbers together, with five
/// degrees of freedom, as `torch.std` has it.
fn normalised(points: &[[f64; 2]; 3]) -> Option<([f64; 2], [[f64; 2]; 3], f64)> {
    let mean = [0, 1].map(|i| points.iter().map(|p| p[i]).sum::<f64>() / 3.0);
    let centred = points.map(|p| [p[0] - mean[0], p[1] - mean[1]]);
    let spread = (centred.iter().flatten().map(|v| v * v).sum::<f64>() / 5.0).sqrt();
    spread.is_normal().then(|| (mean, centred.map(|p| p.map(|v| v / spread)), spread))
}

/// The three points of a face by its 111 landmarks; `None` where there are not as many, or those of brows and nose coincide.
///
/// The published program has the 106 landmarks of InsightFace's `2d106det`: the upper edge of either brow (43, 48 to 51 and
/// 101 to 105), and of the nose the bridge above the tip, the tip and the outsides of both wings (74, 86, 77 and 83). Nearest
/// to them are MediaPipe's 105 and 334, and the mean of 195, 4, 48 and 278. The sets have no point in common: [`OFFSET`] leads
/// from one to the other, and a crop is that of the published program but for some hundredths of its width.
pub fn points(face: &[Point]) -> Option<Points> {
    let at = |i: usize| face.get(i).copied();
    let (right, left) = (at(landmarks::BROW_RIGHT)?, at(landmarks::BROW_LEFT)?);
    let mut nose = Point::default();
    for i in landmarks::NOSE_MIDDLE {
        nose = nose + at(i)? * 0.25;
    }
    let mut points = [right, left, nose];
    let to_face = ThreePoint { ratio: 1.0, bias: None }.fit(&points)?.inverse()?;
    let corner = to_face.apply(Point::default());
    for (point, offset) in points.iter_mut().zip(OFFSET) {
        *point = *point + (to_face.apply(offset) - corner);
    }
    Some(points)
}

/// Points in whole pixels, halves to the even one: what the published program aligns by. It makes a crop that jitters by a pixel.
pub fn rounded(points: &Points) -> Points {
    points.map(|p| Point::new(p.x.round_ties_even(), p.y.round_ties_even()))
}

/// A point of this crate in the published coordinates.
pub fn to_first_centre(p: Point) -> Point {
    p - HALF
}

/// A map between pictures in the published coordinates as one of this crate's.
pub fn from_first_centre(map: &Similarity) -> Similarity {
    let moved = map.apply(HALF * -1.0) + HALF;
    Similarity { tx: moved.x, ty: moved.y, ..*map }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Similarity, wanted: [f32; 4]) -> bool {
        let found = [found.a, found.b, found.tx, found.ty];
        found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-3)
    }

    #[test]
    fn a_face_that_lies_on_the_template_is_left_there() {
        let mut aligner = ThreePoint::new(256);
        assert_eq!(aligner.size(), (210, 280));
        let points = aligner.template();
        assert!((points[2].x - 105.0).abs() < 1e-4 && (points[2].y - 112.0).abs() < 1e-4);
        assert!(near(aligner.next(&points).unwrap(), [1.0, 0.0, 0.0, 0.0]));
        // Half as large and a quarter turn to the right: x' = -y / 2 + 300, y' = x / 2.
        let turned = points.map(|p| Point::new(300.0 - p.y / 2.0, p.x / 2.0));
        assert!(near(aligner.fit(&turned).unwrap(), [0.0, -2.0, 0.0, 600.0]));
    }

    #[test]
    fn the_bias_is_carried_and_added_as_pixels() {
        let mut aligner = ThreePoint::new(256);
        let straight = aligner.template();
        let mut leaning = straight;
        leaning[2].x += 10.0;
        let plain = aligner.fit(&leaning).unwrap();
        let first = aligner.next(&leaning).unwrap();
        let bias = aligner.bias().unwrap();
        assert!((first.tx - plain.tx - bias.x).abs() < 1e-4 && (first.ty - plain.ty - bias.y).abs() < 1e-4);
        let nose = |points: &Points| {
            let mean = (points[0] + points[1] + points[2]) * (1.0 / 3.0);
            let sum: f32 = points.iter().map(|p| (p.x - mean.x).powi(2) + (p.y - mean.y).powi(2)).sum();
            (points[2] - mean) * (1.0 / (sum / 5.0).sqrt())
        };
        let wanted = nose(&straight) - nose(&leaning);
        assert!(wanted.distance(bias) < 1e-5 && bias.x < -0.1, "{bias:?} instead of {wanted:?}");
        // The same bias again leaves it as it is, and a fifth of it is left in the frame after.
        assert!(near(aligner.next(&leaning).unwrap(), [first.a, first.b, first.tx, first.ty]));
        let second = aligner.next(&straight).unwrap();
        assert!(near(second, [1.0, 0.0, 0.2 * bias.x, 0.2 * bias.y]), "{second:?}");
        aligner.reset();
        assert!(near(aligner.next(&straight).unwrap(), [1.0, 0.0, 0.0, 0.0]));
    }

    #[test]
    fn a_face_is_never_mirrored_and_no_face_is_no_map() {
        let mut aligner = ThreePoint::new(128);
        let [left, right, nose] = aligner.template();
        let swapped = aligner.fit(&[right, left, nose]).unwrap();
        assert!(swapped.scale() > 0.5 && swapped.apply(nose).is_finite());
        for points in
            [[nose; 3], [Point::new(f32::NAN, 0.0), right, nose], [Point::new(f32::INFINITY, 0.0), right, nose]]
        {
            assert_eq!(aligner.next(&points), None);
        }
        assert_eq!((aligner.bias(), points(&[nose; 20])), (None, None));
    }

    #[test]
    fn the_points_of_a_face_are_its_brows_and_its_nose() {
        let mut face = vec![Point::default(); landmarks::COUNT];
        let mesh = |n: u16| landmarks::MESH.iter().position(|m| *m == n).unwrap();
        face[mesh(105)] = Point::new(10.5, 20.0);
        face[mesh(334)] = Point::new(50.0, 21.5);
        for (n, x) in [(195, 30.0), (4, 31.0), (48, 25.0), (278, 36.0)] {
            face[mesh(n)] = Point::new(x, 40.0);
        }
        let found = points(&face).unwrap();
        // Brows lie wider than the published ones and higher, the nose higher, in an upright face whose brows are 40 apart.
        let raw = [Point::new(10.5, 20.0), Point::new(50.0, 21.5), Point::new(30.5, 40.0)];
        let apart = [0, 1, 2].map(|i| found[i] - raw[i]);
        assert!((1.7..2.1).contains(&apart[0].x) && (-2.1..-1.7).contains(&apart[1].x), "{apart:?}");
        assert!(apart.iter().all(|p| (0.8..1.3).contains(&p.y)), "{apart:?}");
        // The offset turns and grows with the face.
        let turned: Vec<_> = face.iter().map(|p| Point::new(-3.0 * p.y, 3.0 * p.x)).collect();
        for (point, before) in points(&turned).unwrap().iter().zip(found) {
            assert!(point.distance(Point::new(-3.0 * before.y, 3.0 * before.x)) < 1e-3);
        }
        assert_eq!(rounded(&raw), [Point::new(10.0, 20.0), Point::new(50.0, 22.0), Point::new(30.0, 40.0)]);
    }

    #[test]
    fn a_map_means_the_same_in_both_coordinates() {
        let map = Similarity { a: 1.5, b: 0.25, tx: -3.0, ty: 8.0 };
        let ours = from_first_centre(&map);
        let p = Point::new(12.25, 40.5);
        let wanted = map.apply(to_first_centre(p));
        assert!(to_first_centre(ours.apply(p)).distance(wanted) < 1e-5);
    }
}
