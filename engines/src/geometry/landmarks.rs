//! The 111 landmarks of a face: a subset of MediaPipe's 468-point mesh, grouped so that a group is a range.

use std::ops::Range;

/// How many landmarks a face has.
pub const COUNT: usize = 111;

/// The outer lip, from the right corner of the mouth over the top.
pub const LIPS_OUTER: Range<usize> = 0..20;
/// The inner lip, in the same order.
pub const LIPS_INNER: Range<usize> = 20..40;
pub const LIPS: Range<usize> = 0..40;
/// The face oval from the left ear over the chin to the right ear.
pub const JAW: Range<usize> = 40..61;
pub const CHIN: Range<usize> = 61..69;
pub const CHEEKS: Range<usize> = 69..81;
pub const PHILTRUM: Range<usize> = 81..84;
pub const NOSE: Range<usize> = 84..94;
/// Right outer, right inner, left inner, left outer (the face's own right and left).
pub const EYE_CORNERS: Range<usize> = 94..98;
pub const FOREHEAD: Range<usize> = 98..103;
/// Right upper, right lower, left upper, left lower.
pub const EYELIDS: Range<usize> = 103..107;
pub const BROWS: Range<usize> = 107..111;

/// What moves with speech.
pub const LOWER: Range<usize> = 0..84;
/// What moves with the head alone.
pub const STABLE: Range<usize> = 84..103;

/// The outline along which a generated lower face meets the frame's own: the jaw from one side of the mouth to the other,
/// then over the cheeks and under the nose, from the face's right to its left.
pub const OUTLINE_JAW: Range<usize> = JAW.start + 3..JAW.end - 3;
pub const OUTLINE_OVER: [usize; 5] = [69, 90, 89, 91, 70];

/// Middle of the inner upper and of the inner lower lip (mesh 13 and 14).
pub const INNER_TOP: usize = 25;
pub const INNER_BOTTOM: usize = 35;
/// Corners of the mouth (mesh 61 and 291), the face's own right and left.
pub const CORNER_RIGHT: usize = 0;
pub const CORNER_LEFT: usize = 10;
/// Outer eye corners (mesh 33 and 263).
pub const EYE_RIGHT: usize = 94;
pub const EYE_LEFT: usize = 97;
/// Root of the nose between the eyes (mesh 168).
pub const NOSE_ROOT: usize = 84;
/// Tip of the nose (mesh 4).
pub const NOSE_TIP: usize = 87;
/// Middle of the upper edge of the brows (mesh 105 and 334), the face's own right and left.
pub const BROW_RIGHT: usize = 107;
pub const BROW_LEFT: usize = 109;
/// Points around the middle of the nose: bridge, tip, right wing, left wing (mesh 195, 4, 48, 278).
pub const NOSE_MIDDLE: [usize; 4] = [86, 87, 92, 93];
/// Middle of the chin (mesh 152).
pub const CHIN_TIP: usize = 50;
/// Ears' ends of the jaw line (mesh 454 and 234).
pub const EAR_LEFT: usize = 40;
pub const EAR_RIGHT: usize = 60;

/// The landmarks' indices in MediaPipe's mesh.
#[rustfmt::skip]
pub const MESH: [u16; COUNT] = [
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
    454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234,
    18, 200, 199, 175, 83, 313, 182, 406,
    205, 425, 50, 280, 207, 427, 216, 436, 212, 432, 202, 422,
    164, 165, 391,
    168, 6, 195, 4, 1, 2, 98, 327, 48, 278,
    33, 133, 362, 263,
    10, 284, 389, 162, 54,
    159, 145, 386, 374,
    105, 107, 334, 336,
];

/// The opening of the mouth: distance of the inner lips over the distance of the outer eye corners, dimensionless.
pub fn opening(points: &[super::Point]) -> f32 {
    let eyes = points[EYE_RIGHT].distance(points[EYE_LEFT]);
    if eyes > f32::EPSILON { points[INNER_TOP].distance(points[INNER_BOTTOM]) / eyes } else { 0.0 }
}
