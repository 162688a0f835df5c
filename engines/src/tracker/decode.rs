//! What published face detectors put out, as boxes and key points in pixels of their input.

use crate::geometry::{Point, Rect};

/// Pixels from one prior to the next at each of the three levels.
pub(super) const STRIDES: [usize; 3] = [8, 16, 32];
/// Key points: right eye, left eye (the person's own), nose, right and left corner of the mouth.
pub(super) const KEYS: usize = 5;
/// Boxes that overlap a better one by more than this are the same face.
const SAME_FACE: f32 = 0.4;
/// Boxes looked at; a hostile model may claim thousands.
const MAX_BOXES: usize = 400;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Detection {
    pub rect: Rect,
    pub keys: [Point; KEYS],
    /// 0..1
    pub score: f32,
}

/// One level of YuNet: `cls` `[n]`, `obj` `[n]`, `bbox` `[n, 4]`, `kps` `[n, 10]` for the `n` cells of a picture of
/// `width` pixels, row by row. score = sqrt(cls obj); centre = (cell + d) stride, size = exp(d) stride, key point =
/// (cell + d) stride (W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023).
pub(super) fn yunet(
    [cls, obj, bbox, kps]: [&[f32]; 4],
    (width, stride): (usize, usize),
    threshold: f32,
    found: &mut Vec<Detection>,
) {
    let columns = (width / stride).max(1);
    let unit = stride as f32;
    let rows = cls.iter().zip(obj).zip(bbox.as_chunks::<4>().0).zip(kps.as_chunks::<10>().0);
    for (i, (((cls, obj), b), k)) in rows.enumerate() {
        let score = (cls.clamp(0.0, 1.0) * obj.clamp(0.0, 1.0)).sqrt();
        if score < threshold {
            continue;
        }
        let cell = Point::new((i % columns) as f32, (i / columns) as f32);
        let centre = (cell + Point::new(b[0], b[1])) * unit;
        // e^8 strides are wider than any picture.
        let (w, h) = (b[2].min(8.0).exp() * unit, b[3].min(8.0).exp() * unit);
        let keys = std::array::from_fn(|j| (cell + Point::new(k[2 * j], k[2 * j + 1])) * unit);
        found.push(Detection {
            rect: Rect { x: centre.x - w / 2.0, y: centre.y - h / 2.0, width: w, height: h },
            keys,
            score,
        });
    }
}

/// One level of SCRFD: `scores` `[n]`, `boxes` `[n, 4]` (distances to left, top, right, bottom) and `kps` `[n, 10]` in
/// strides, for `anchors` priors at each cell's corner (J. Guo et al., "Sample and Computation Redistribution for
/// Efficient Face Detection", ICLR 2022). Models without key points get those of an average face.
pub(super) fn scrfd(
    scores: &[f32],
    boxes: &[f32],
    kps: Option<&[f32]>,
    (width, stride, anchors): (usize, usize, usize),
    threshold: f32,
    found: &mut Vec<Detection>,
) {
    let columns = (width / stride).max(1);
    let unit = stride as f32;
    for (i, (score, b)) in scores.iter().zip(boxes.as_chunks::<4>().0).enumerate() {
        if score.is_nan() || *score < threshold {
            continue;
        }
        let cell = i / anchors.max(1);
        let centre = Point::new((cell % columns) as f32, (cell / columns) as f32) * unit;
        let [left, top, right, bottom] = b.map(|v| v * unit);
        let rect = Rect { x: centre.x - left, y: centre.y - top, width: left + right, height: top + bottom };
        let keys = match kps.and_then(|k| k.as_chunks::<10>().0.get(i)) {
            Some(k) => std::array::from_fn(|j| centre + Point::new(k[2 * j], k[2 * j + 1]) * unit),
            None => average_keys(&rect),
        };
        found.push(Detection { rect, keys, score: score.min(1.0) });
    }
}

/// Where the key points of an upright face lie in its box.
fn average_keys(r: &Rect) -> [Point; KEYS] {
    [(0.31, 0.4), (0.69, 0.4), (0.5, 0.6), (0.35, 0.77), (0.65, 0.77)]
        .map(|(x, y)| Point::new(r.x + x * r.width, r.y + y * r.height))
}

/// Greedy non-maximum suppression, best first.
pub(super) fn suppress(mut found: Vec<Detection>) -> Vec<Detection> {
    found.retain(|d| {
        let numbers = [d.rect.x, d.rect.y, d.rect.width, d.rect.height, d.score];
        let keys = d.keys.iter().all(|k| k.x.is_finite() && k.y.is_finite());
        numbers.iter().all(|v| v.is_finite()) && keys && d.rect.width > 0.0 && d.rect.height > 0.0
    });
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(MAX_BOXES);
    let mut kept: Vec<Detection> = Vec::new();
    for d in found {
        if kept.iter().all(|k| k.rect.iou(&d.rect) < SAME_FACE) {
            kept.push(d);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yunet_prior_decodes_by_the_formula() {
        // A picture of 64 px, stride 16: 4 columns. Prior 6 is column 2, row 1.
        let n = 16;
        let (mut cls, mut obj, mut bbox, mut kps) = (vec![0.0; n], vec![1.0; n], vec![0.0; n * 4], vec![0.0; n * 10]);
        cls[6] = 0.81;
        obj[6] = 1.0;
        bbox[24..28].copy_from_slice(&[0.5, 0.25, 2.0f32.ln(), 3.0f32.ln()]);
        kps[60..62].copy_from_slice(&[-0.5, 0.5]);
        let mut found = Vec::new();
        yunet([&cls, &obj, &bbox, &kps], (64, 16), 0.5, &mut found);
        let [d] = &found[..] else { panic!("{found:?}") };
        assert!((d.score - 0.9).abs() < 1e-6);
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-3, "{a} {b}");
        near(d.rect.x, 40.0 - 16.0);
        near(d.rect.y, 20.0 - 24.0);
        near(d.rect.width, 32.0);
        near(d.rect.height, 48.0);
        assert_eq!(d.keys[0], Point::new(24.0, 24.0));
        assert_eq!(d.keys[1], Point::new(32.0, 16.0));
    }

    #[test]
    fn an_scrfd_prior_decodes_by_the_formula() {
        // 64 px, stride 32, two anchors: prior 5 is the second anchor of cell 2, column 0 of row 1.
        let (mut scores, mut boxes, mut kps) = (vec![0.0; 8], vec![0.0; 32], vec![0.0; 80]);
        scores[5] = 0.7;
        boxes[20..24].copy_from_slice(&[0.5, 0.25, 1.0, 1.25]);
        kps[50..52].copy_from_slice(&[0.1, 0.2]);
        let mut found = Vec::new();
        scrfd(&scores, &boxes, Some(&kps), (64, 32, 2), 0.5, &mut found);
        let [d] = &found[..] else { panic!("{found:?}") };
        assert_eq!(d.rect, Rect { x: -16.0, y: 24.0, width: 48.0, height: 48.0 });
        assert!(d.keys[0].distance(Point::new(3.2, 38.4)) < 1e-4);
        found.clear();
        scrfd(&scores, &boxes, None, (64, 32, 2), 0.5, &mut found);
        assert!(found[0].keys[0].x < found[0].keys[1].x && found[0].keys[3].y > found[0].keys[2].y);
    }

    #[test]
    fn overlapping_boxes_leave_the_best_and_broken_ones_go() {
        let at = |x: f32, score: f32| Detection {
            rect: Rect { x, y: 0.0, width: 10.0, height: 10.0 },
            keys: [Point::default(); KEYS],
            score,
        };
        let kept = suppress(vec![at(0.0, 0.6), at(1.0, 0.9), at(30.0, 0.7), at(f32::NAN, 0.99)]);
        assert_eq!(kept.iter().map(|d| d.score).collect::<Vec<_>>(), [0.9, 0.7]);
    }
}
