use std::sync::Arc;

use crate::{
    geometry::{Point, Rect, Similarity, three_point},
    image::{SoftMask, gaussian, inset},
};

/// A crop reaches beyond the network's picture by this part of its height.
const MARGIN: f32 = 0.06;
/// By how much the mask is eroded before as much of a Gaussian to either side softens it, in parts of a picture's side: what is
/// kept stays as it is.
const FEATHER: f32 = 0.03;

/// Where the network's picture lies on a face: upright by three points, three wide and four high, in the middle of a square.
pub(super) struct Place {
    alignment: three_point::ThreePoint,
    /// From the picture, in its alignment's pixels, to unit coordinates of the square.
    to_square: Similarity,
    /// The picture in them.
    pub inner: Rect,
    /// Pixels of a side of the square.
    pub side: usize,
    /// How much of each of its pixels is painted, `[side, side]`.
    pub coverage: Arc<[u8]>,
}

impl Place {
    /// For pictures of `side` pixels, painted where `mask` `[side, side]` is 0.
    pub(super) fn new(side: usize, mask: &[f32]) -> Self {
        let alignment = three_point::ThreePoint::new(side);
        let (width, height) = alignment.size();
        let (width, height) = (width as f32, height as f32);
        let length = height * (1.0 + 2.0 * MARGIN);
        let (left, top) = ((length - width) / 2.0, (length - height) / 2.0);
        let to_square = Similarity { a: 1.0 / length, b: 0.0, tx: left / length, ty: top / length };
        let inner = Rect { x: left / length, y: top / length, width: width / length, height: height / length };
        let square = inset::crop_side(side);
        let coverage = coverage(side, mask, square, &inner).into();
        Self { alignment, to_square, inner, side: square, coverage }
    }

    /// From frame pixels to unit coordinates of the square around a face whose landmarks are `points` (`[111]`); `None` where
    /// it has no size. Not rounded, and not smoothed: landmarks are.
    pub(super) fn of(&self, points: &[Point]) -> Option<Similarity> {
        let points = three_point::points(points)?.map(three_point::to_first_centre);
        let map = three_point::from_first_centre(&self.alignment.fit(&points)?);
        Some(map.then(&self.to_square))
    }
}

/// The soft mask of a square of `square` pixels that holds the picture in `inner`, 0..255.
fn coverage(side: usize, mask: &[f32], square: usize, inner: &Rect) -> Vec<u8> {
    let painted = SoftMask { width: side, height: side, data: mask.iter().map(|keep| 1.0 - keep).collect() };
    let feather = (side as f32 * FEATHER) as usize;
    let soft = painted.erode(feather, feather).blur(&gaussian(2 * feather + 1));
    let at = |x: usize, y: usize| soft.data[y.min(side - 1) * side + x.min(side - 1)];
    let place = |i: usize, from: f32, length: f32| {
        let part = ((i as f32 + 0.5) / square as f32 - from) / length;
        (0.0..1.0).contains(&part).then(|| (part * side as f32 - 0.5).max(0.0))
    };
    let mut out = Vec::with_capacity(square * square);
    for y in 0..square {
        for x in 0..square {
            let places = place(x, inner.x, inner.width).zip(place(y, inner.y, inner.height));
            let value = places.map_or(0.0, |(x, y)| {
                let (left, top) = (x as usize, y as usize);
                let (right, below) = (x - left as f32, y - top as f32);
                let line = |y: usize| at(left, y) + (at(left + 1, y) - at(left, y)) * right;
                line(top) + (line(top + 1) - line(top)) * below
            });
            out.push((value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::super::mask, *};
    use crate::geometry::landmarks;

    /// A face of which only the three points lie anywhere.
    fn face(brows: [Point; 2], nose: Point) -> Vec<Point> {
        let mut points = vec![Point::default(); landmarks::COUNT];
        points[landmarks::BROW_RIGHT] = brows[0];
        points[landmarks::BROW_LEFT] = brows[1];
        landmarks::NOSE_MIDDLE.into_iter().for_each(|i| points[i] = nose);
        points
    }

    #[test]
    fn the_three_points_come_to_the_template_whatever_the_faces_size_and_turn() {
        let place = Place::new(256, &mask::pixels(256));
        // A face enlarged three times and turned by a quarter: up is right.
        let turned = |x: f32, y: f32| Point::new(900.0 - 3.0 * y, 100.0 + 3.0 * x);
        // Landmarks that are as far from the published points as they are in the mean.
        let points = face([turned(15.12, 19.02), turned(59.88, 19.02)], turned(37.5, 38.85));
        let to_square = place.of(&points).unwrap();
        for (x, y) in [(17.0, 20.0), (58.0, 20.0), (37.5, 40.0), (37.5, 80.0)] {
            let found = to_square.apply(turned(x, y));
            // A picture is 75 wide and 100 high.
            let wanted = Point::new(
                place.inner.x + x / 75.0 * place.inner.width,
                place.inner.y + y / 100.0 * place.inner.height,
            );
            assert!(found.distance(wanted) < 0.004, "{x} {y}: {found:?} {wanted:?}");
        }
        assert_eq!(place.of(&vec![Point::new(5.0, 5.0); landmarks::COUNT]), None);
        assert_eq!(place.of(&[]), None);
    }

    #[test]
    fn what_is_painted_is_covered_and_fades_to_nothing_at_what_is_kept() {
        let mask = mask::pixels(256);
        let place = Place::new(256, &mask);
        let at = |x: f32, y: f32| {
            let to = |v: f32, from: f32, length: f32| ((from + v * length) * place.side as f32) as usize;
            let (x, y) = (to(x, place.inner.x, place.inner.width), to(y, place.inner.y, place.inner.height));
            place.coverage[y * place.side + x]
        };
        assert_eq!((at(0.5, 0.75), at(0.5, 0.4), at(0.5, 0.98), at(0.005, 0.7)), (255, 0, 0, 0));
        let mut most = 0;
        for (y, row) in place.coverage.chunks_exact(place.side).enumerate() {
            for (x, pair) in row.windows(2).enumerate() {
                most = most.max(pair[0].abs_diff(pair[1]));
                let (u, v) = ((x as f32 + 0.5) / place.side as f32, (y as f32 + 0.5) / place.side as f32);
                let (u, v) = ((u - place.inner.x) / place.inner.width, (v - place.inner.y) / place.inner.height);
                let inside = (0.0..1.0).contains(&u) && (0.0..1.0).contains(&v);
                let kept = !inside || mask[(v * 256.0) as usize * 256 + (u * 256.0) as usize] == 1.0;
                assert!(!kept || pair[0] < 4, "{u} {v}: {}", pair[0]);
            }
        }
        assert!(most < 40, "{most}");
    }
}
