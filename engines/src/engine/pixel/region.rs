use crate::geometry::{Point, Rect, Similarity, landmarks};

/// Bridge of the nose between the eyes (mesh 6).
const BRIDGE: usize = 85;
/// Top of the forehead (mesh 10).
const FOREHEAD: usize = 98;
/// A patch reaches beyond the network's picture by this part of its larger side, so that a feather ends inside.
const MARGIN: f32 = 0.06;

/// Which box of a face a network knows, in the frame's own directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Region {
    /// Wav2Lip's: what its face detector (S3FD) gives, from the middle of the forehead to a little below the chin and from ear
    /// to ear; `pads` of 10 pixels on a face of some 200 are the 5 per cent below.
    WholeFace,
    /// SyncTalk_2D's: a square, from the second point of the jaw's outline to the last but one, from the bridge of the nose
    /// down, less a border on each side in parts of it.
    BelowEyes { border: f32 },
}

impl Region {
    /// The box of a face whose landmarks are `points` (`[111]`, frame pixels); `None` where it has no size. Sub-pixel: a box
    /// that is rounded makes the mouth tremble.
    pub(super) fn of(self, points: &[Point]) -> Option<Rect> {
        if points.len() < landmarks::COUNT {
            return None;
        }
        let rect = match self {
            Self::WholeFace => {
                let jaw = Rect::around(&points[landmarks::JAW])?;
                let brows = Rect::around(&points[landmarks::BROWS])?.centre().y;
                let top = (brows + points[FOREHEAD].y) / 2.0;
                let bottom = points[landmarks::CHIN_TIP].y;
                Rect { x: jaw.x, y: top, width: jaw.width, height: (bottom - top) * 1.05 }
            }
            Self::BelowEyes { border } => {
                // One of 32 parts of the outline from ear to ear is 0.62 of one of ours.
                let ear = |end: usize, next: usize| points[end].lerp(points[next], 0.62).x;
                let right = ear(landmarks::EAR_RIGHT, landmarks::EAR_RIGHT - 1);
                let left = ear(landmarks::EAR_LEFT, landmarks::EAR_LEFT + 1);
                let (from, to) = (right.min(left), right.max(left));
                let (side, cut) = (to - from, (to - from) * border);
                Rect { x: from + cut, y: points[BRIDGE].y + cut, width: side - 2.0 * cut, height: side - 2.0 * cut }
            }
        };
        let fits = |v: f32| v.is_finite() && v >= 4.0;
        (fits(rect.width) && fits(rect.height) && rect.x.is_finite() && rect.y.is_finite()).then_some(rect)
    }
}

/// A box as a part of the square that is cut out around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Square {
    /// From frame pixels to unit coordinates of the square.
    pub(super) to_crop: Similarity,
    /// The box in them.
    pub(super) inner: Rect,
}

impl Square {
    pub(super) fn around(rect: &Rect) -> Self {
        let side = rect.width.max(rect.height) * (1.0 + 2.0 * MARGIN);
        let centre = rect.centre();
        let (x, y) = (centre.x - side / 2.0, centre.y - side / 2.0);
        let inner = Rect {
            x: (rect.x - x) / side,
            y: (rect.y - y) / side,
            width: rect.width / side,
            height: rect.height / side,
        };
        Self { to_crop: Similarity { a: 1.0 / side, b: 0.0, tx: -x / side, ty: -y / side }, inner }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face() -> Vec<Point> {
        let mut points = vec![Point::new(200.0, 220.0); landmarks::COUNT];
        for (k, i) in landmarks::JAW.enumerate() {
            let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
            points[i] = Point::new(200.0 + 80.0 * cos, 200.0 + 110.0 * sin);
        }
        landmarks::BROWS.for_each(|i| points[i].y = 160.0);
        points[FOREHEAD].y = 100.0;
        points[BRIDGE].y = 190.0;
        points
    }

    #[test]
    fn boxes_lie_where_the_published_ones_do_and_are_not_rounded() {
        let whole = Region::WholeFace.of(&face()).unwrap();
        assert!((whole.y - 130.0).abs() < 1e-3 && (whole.y + whole.height - (130.0 + 180.0 * 1.05)).abs() < 1e-2);
        assert!((whole.x - 120.0).abs() < 1e-3 && (whole.width - 160.0).abs() < 1e-2);
        let below = Region::BelowEyes { border: 0.0 }.of(&face()).unwrap();
        assert!(
            below.y == 190.0 && below.width == below.height && below.width > 155.0 && below.width < 160.0,
            "{below:?}"
        );
        let moved: Vec<Point> = face().iter().map(|p| *p + Point::new(0.25, 0.5)).collect();
        let after = Region::BelowEyes { border: 0.0 }.of(&moved).unwrap();
        assert!((after.x - below.x - 0.25).abs() < 1e-3 && (after.y - below.y - 0.5).abs() < 1e-3);
        assert_eq!(Region::WholeFace.of(&vec![Point::new(f32::NAN, 0.0); landmarks::COUNT]), None);
        assert_eq!(Region::BelowEyes { border: 0.0 }.of(&[]), None);
    }

    #[test]
    fn a_square_holds_its_box() {
        let rect = Rect { x: 10.0, y: 20.0, width: 60.0, height: 100.0 };
        let square = Square::around(&rect);
        let corner = square.to_crop.apply(Point::new(10.0, 20.0));
        assert!((corner.x - square.inner.x).abs() < 1e-5 && (corner.y - square.inner.y).abs() < 1e-5);
        let far = square.to_crop.apply(Point::new(70.0, 120.0));
        assert!((far.x - square.inner.x - square.inner.width).abs() < 1e-5 && far.y < 1.0 && corner.y > 0.0);
    }
}
