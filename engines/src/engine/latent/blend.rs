//! MuseTalk's crop around a face and its blend (TMElyralab/MuseTalk 1.5, musetalk/utils/blending.py). The mask comes from a
//! face parser, which is not part of this: what is asked for here is its result, a picture that is 255 where the face is.

use crate::image::{PixelBox, SoftMask, antialias, gaussian_of_bytes};

/// Half of the crop in parts of the longer side of the face's box.
pub const EXPAND: f64 = 1.5;
/// Blur of the mask in parts of the crop's side, of files and live.
pub const OFFLINE: f64 = 0.05;
pub const LIVE: f64 = 0.1;
/// Pixels that are added below a face's box (`extra_margin`).
pub const MARGIN: i32 = 10;
/// Longest side of a crop in pixels.
const MOST: i32 = 1 << 13;

/// The box with the margin below, cut off at the frame's last row.
pub fn with_margin(face: &PixelBox, height: usize) -> PixelBox {
    let bottom = face.bottom.saturating_add(MARGIN).min(height.min(i32::MAX as usize) as i32);
    PixelBox { bottom, ..*face }
}

/// The square around a face's box, twice `int(max(width, height) / 2 * expand)` wide, halves cut off. It may leave the frame.
/// `None` of a box that is empty or too large.
pub fn crop(face: &PixelBox, expand: f64) -> Option<PixelBox> {
    let sides = [face.left, face.top, face.right, face.bottom];
    if face.left >= face.right || face.top >= face.bottom || sides.iter().any(|v| v.unsigned_abs() > 1 << 20) {
        return None;
    }
    let (x, y) = ((face.left + face.right).div_euclid(2), (face.top + face.bottom).div_euclid(2));
    let longer = (face.right - face.left).max(face.bottom - face.top);
    let half = f64::from(longer / 2) * expand;
    let half = (half >= 1.0 && half <= f64::from(MOST / 2)).then_some(half as i32)?;
    Some(PixelBox { left: x - half, top: y - half, right: x + half, bottom: y + half })
}

/// The mask of a face's square crop, `[side, side]`: what `parsing` of `size` columns and rows calls face, as far as it lies
/// in the face's box and in the lower half of the crop, blurred by a Gaussian of `int(blur side / 2) 2 + 1` pixels. `None`
/// where a size is wrong.
pub fn mask(parsing: &[u8], size: (usize, usize), face: &PixelBox, crop: &PixelBox, blur: f64) -> Option<Vec<u8>> {
    let (side, height) = crop.size();
    if side != height || side == 0 || side > MOST as usize || !(0.0..=0.5).contains(&blur) {
        return None;
    }
    let mut mask = antialias::bytes(parsing, size, (side, side))?;
    let columns = face.left.saturating_sub(crop.left)..face.right.saturating_sub(crop.left);
    let rows = face.top.saturating_sub(crop.top).max(side as i32 / 2)..face.bottom.saturating_sub(crop.top);
    for (i, value) in mask.iter_mut().enumerate() {
        if !columns.contains(&((i % side) as i32)) || !rows.contains(&((i / side) as i32)) {
            *value = 0;
        }
    }
    let length = (blur * side as f64).div_euclid(2.0) as usize * 2 + 1;
    let data = mask.iter().map(|v| f32::from(*v)).collect();
    let blurred = SoftMask { width: side, height: side, data }.blur(&gaussian_of_bytes(length));
    Some(blurred.data.iter().map(|v| (v + 0.5) as u8).collect())
}

/// Blends `picture` of a face's box into `frame` of `size` columns and rows by the mask of its crop. `None` where a size is
/// wrong; the frame is then as it was. What leaves the frame is cut off.
pub fn blend(
    frame: &mut [u8],
    size: (usize, usize),
    picture: &[u8],
    face: &PixelBox,
    mask: &[u8],
    crop: &PixelBox,
) -> Option<()> {
    let ((columns, rows), (side, height)) = (face.size(), crop.size());
    let fits = size.0.checked_mul(size.1)?.checked_mul(3)? == frame.len()
        && columns.checked_mul(rows)?.checked_mul(3)? == picture.len()
        && side.checked_mul(height)? == mask.len();
    if !fits {
        return None;
    }
    // Outside of the face's box the crop is the frame's own.
    let both = PixelBox {
        left: face.left.max(crop.left),
        top: face.top.max(crop.top),
        right: face.right.min(crop.right),
        bottom: face.bottom.min(crop.bottom),
    };
    let Some(part) = both.within(size.0, size.1) else { return Some(()) };
    for y in part.top..part.bottom {
        for x in part.left..part.right {
            let weight = u32::from(mask[(y - crop.top) as usize * side + (x - crop.left) as usize]);
            let new = &picture[3 * ((y - face.top) as usize * columns + (x - face.left) as usize)..][..3];
            let old = &mut frame[3 * (y as usize * size.0 + x as usize)..][..3];
            old.iter_mut().zip(new).for_each(|(old, new)| {
                // Pillow's division by 255, which rounds.
                let sum = u32::from(*new) * weight + u32::from(*old) * (255 - weight) + 128;
                *old = (((sum >> 8) + sum) >> 8) as u8;
            });
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACE: PixelBox = PixelBox { left: 10, top: 20, right: 51, bottom: 71 };

    #[test]
    fn a_crop_is_square_around_the_box_and_may_leave_the_frame() {
        let square = |left, top, right, bottom| Some(PixelBox { left, top, right, bottom });
        assert_eq!(crop(&FACE, EXPAND), square(-7, 8, 67, 82));
        assert_eq!(crop(&FACE, 1.2), square(0, 15, 60, 75));
        assert_eq!(crop(&PixelBox { left: -30, right: 11, ..FACE }, EXPAND), square(-47, 8, 27, 82));
        for bad in
            [PixelBox { right: 10, ..FACE }, PixelBox { bottom: i32::MAX, ..FACE }, PixelBox { right: 90_000, ..FACE }]
        {
            assert_eq!(crop(&bad, EXPAND), None, "{bad:?}");
        }
        assert_eq!((with_margin(&FACE, 100).bottom, with_margin(&FACE, 75).bottom), (81, 75));
    }

    #[test]
    fn the_lower_half_of_the_face_is_replaced_and_the_rest_is_left() {
        let (size, around) = ((80, 100), crop(&FACE, EXPAND).unwrap());
        let mask = mask(&[255; 16], (4, 4), &FACE, &around, OFFLINE).unwrap();
        let mut frame = vec![200; 80 * 100 * 3];
        blend(&mut frame, size, &[40; 41 * 51 * 3], &FACE, &mask, &around).unwrap();
        let at = |x: usize, y: usize| frame[3 * (y * 80 + x)];
        // The crop's half is in row 45; the blur of 3 pixels is one wide.
        assert_eq!((at(30, 60), at(30, 46), at(30, 43), at(30, 30)), (40, 40, 200, 200));
        assert!((41..200).contains(&at(30, 45)) && (41..200).contains(&at(30, 44)), "{} {}", at(30, 45), at(30, 44));
        assert_eq!((at(9, 60), at(51, 60), at(30, 71)), (200, 200, 200));
    }

    #[test]
    fn what_leaves_the_frame_is_cut_off_and_wrong_sizes_are_refused() {
        let face = PixelBox { left: -20, right: 21, ..FACE };
        let around = crop(&face, EXPAND).unwrap();
        let found = mask(&[255; 16], (4, 4), &face, &around, LIVE).unwrap();
        let (picture, mut frame) = ([40; 41 * 51 * 3], vec![200; 30 * 60 * 3]);
        blend(&mut frame, (30, 60), &picture, &face, &found, &around).unwrap();
        assert_eq!((frame[3 * (55 * 30)], frame[3 * (55 * 30 + 29)]), (40, 200));
        let before = frame.clone();
        assert_eq!(blend(&mut frame, (30, 61), &picture, &face, &found, &around), None);
        assert_eq!(blend(&mut frame, (30, 60), &picture[3..], &face, &found, &around), None);
        assert_eq!(blend(&mut frame, (30, 60), &picture, &face, &found[1..], &around), None);
        assert_eq!(frame, before);
        assert_eq!(mask(&[255; 15], (4, 4), &face, &around, LIVE), None);
        assert_eq!(mask(&[255; 16], (4, 4), &face, &PixelBox { right: 28, ..around }, LIVE), None);
    }
}
