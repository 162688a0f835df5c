use crate::geometry::{Point, Rect, landmarks};

/// The part of the way from the nose's root to its tip at which landmark 52 of SyncTalk_2D's 110 lies. Its landmarks 54 and 51
/// are that root and that tip, 53 and 52 are between them in equal steps (anliyuan/Ultralight-Digital-Human,
/// data_utils/mean_face.txt).
const NOSE_PART: f32 = 2.0 / 3.0;
/// Top of the forehead (mesh 10).
const FOREHEAD: usize = 98;
/// A detected face begins above the forehead's top by this part of the way from there to the chin, and ends at the chin: the
/// median of our detector's boxes, and of YuNet's and SCRFD's, on 250 frames of 42 clips is 0.126, 0.127 and 0.133, with ends
/// 0.02, 0.01 and 0.00 below the chin.
const ABOVE_FOREHEAD: f32 = 0.13;
/// Wav2Lip's pads below a detected face, in parts of its height: 10 pixels on a face of some 200.
const PAD: f32 = 0.05;

/// Which box of a face a network knows, in the frame's own directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Region {
    /// Wav2Lip's: what a face detector gives, from above the forehead to the chin and from ear to ear, and its pads below.
    WholeFace,
    /// SyncTalk_2D's: a square, from the second point of the jaw's outline to the last but one, from the lower third of the
    /// nose down, less a border on each side in parts of it.
    BelowEyes { border: f32 },
}

impl Region {
    /// The box of a face whose landmarks are `points` (`[111]`, frame pixels); `None` where it has no size. Sub-pixel: a box
    /// that is rounded makes the mouth tremble.
    pub(super) fn of(self, points: &[Point]) -> Option<Rect> {
        let rect = match self {
            Self::WholeFace => {
                let face = detected(points)?;
                Rect { height: face.height * (1.0 + PAD), ..face }
            }
            Self::BelowEyes { border } => {
                let [right, left, nose] = synctalk2d(points)?;
                let (from, to) = (right.x.min(left.x), right.x.max(left.x));
                let (side, cut) = (to - from, (to - from) * border);
                Rect { x: from + cut, y: nose.y + cut, width: side - 2.0 * cut, height: side - 2.0 * cut }
            }
        };
        let fits = |v: f32| v.is_finite() && v >= 4.0;
        (fits(rect.width) && fits(rect.height) && rect.x.is_finite() && rect.y.is_finite()).then_some(rect)
    }
}

/// The box that a face detector gives of a face with these landmarks.
pub(super) fn detected(points: &[Point]) -> Option<Rect> {
    let jaw = Rect::around(points.get(landmarks::JAW)?)?;
    let (forehead, chin) = (points.get(FOREHEAD)?.y, points.get(landmarks::CHIN_TIP)?.y);
    let top = forehead - ABOVE_FOREHEAD * (chin - forehead);
    Some(Rect { x: jaw.x, y: top, width: jaw.width, height: chin - top })
}

/// The landmarks 1, 31 and 52 of SyncTalk_2D's 110, from `[111]` of ours; `None` of fewer.
pub(super) fn synctalk2d(points: &[Point]) -> Option<[Point; 3]> {
    if points.len() < landmarks::COUNT {
        return None;
    }
    // One of 32 parts of the outline from ear to ear is 0.62 of one of ours.
    let ear = |end: usize, next: usize| points[end].lerp(points[next], 0.62);
    Some([
        ear(landmarks::EAR_RIGHT, landmarks::EAR_RIGHT - 1),
        ear(landmarks::EAR_LEFT, landmarks::EAR_LEFT + 1),
        points[landmarks::NOSE_ROOT].lerp(points[landmarks::NOSE_TIP], NOSE_PART),
    ])
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
        points[FOREHEAD].y = 110.0;
        points[landmarks::NOSE_ROOT].y = 170.0;
        points[landmarks::NOSE_TIP].y = 230.0;
        points
    }

    #[test]
    fn boxes_lie_where_the_published_ones_do_and_are_not_rounded() {
        let whole = Region::WholeFace.of(&face()).unwrap();
        // From the forehead to the chin are 200 pixels; a detected face begins 26 above it.
        assert!((whole.y - 84.0).abs() < 1e-3 && (whole.height - 226.0 * 1.05).abs() < 1e-2, "{whole:?}");
        assert!((whole.x - 120.0).abs() < 1e-3 && (whole.width - 160.0).abs() < 1e-2);
        let below = Region::BelowEyes { border: 0.0 }.of(&face()).unwrap();
        assert!(
            (below.y - 210.0).abs() < 1e-3 && below.width == below.height && below.width > 155.0 && below.width < 160.0,
            "{below:?}"
        );
        let moved: Vec<Point> = face().iter().map(|p| *p + Point::new(0.25, 0.5)).collect();
        let after = Region::BelowEyes { border: 0.0 }.of(&moved).unwrap();
        assert!((after.x - below.x - 0.25).abs() < 1e-3 && (after.y - below.y - 0.5).abs() < 1e-3);
        assert_eq!(Region::WholeFace.of(&vec![Point::new(f32::NAN, 0.0); landmarks::COUNT]), None);
        assert_eq!(Region::BelowEyes { border: 0.0 }.of(&[]), None);
    }

    #[test]
    fn what_networks_are_trained_on_is_cut_out_as_here() {
        let trainer = include_str!("../../../train/pixel/data.py");
        let index = format!("ROOT, TIP, EAR_LEFT, EAR_RIGHT = {}, {}, ", landmarks::NOSE_ROOT, landmarks::NOSE_TIP);
        assert!(trainer.contains(&index) && (NOSE_PART - 2.0 / 3.0).abs() < 1e-6);
        assert!(trainer.contains("points[ROOT, 1] + 2 / 3 * (points[TIP, 1] - points[ROOT, 1])"));
    }
}
