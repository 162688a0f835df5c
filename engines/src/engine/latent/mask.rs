//! What LatentSync paints: the lower face and the cheeks beside the nose. The published program has a picture for it
//! (latentsync/utils/mask.png, 256 pixels a side, black where is painted); here it is described by its outline, from which 8
//! of the 65 536 pixels differ. The mask at an eighth of 256 pixels a side is the same in all; at an eighth of 512 it differs
//! by 0.03 at most.

use crate::image::lanczos;

/// Pixels of a side of the outline's units.
const SIDE: usize = 256;
/// Rows of the two fields beside the nose, and their columns.
const BESIDE: (usize, usize) = (95, 128);
const FIELDS: [(usize, usize); 2] = [(9, 78), (178, 247)];
/// The first and the last row below them.
const BELOW: (usize, usize) = (128, 242);
/// Left and right outline below: rows and the columns where the field begins and ends.
const LEFT: [(f32, f32); 10] = [
    (128.0, 8.75),
    (170.0, 12.0),
    (188.0, 22.25),
    (209.0, 40.5),
    (210.0, 42.5),
    (222.0, 60.25),
    (233.0, 82.0),
    (238.0, 95.25),
    (241.0, 107.75),
    (242.0, 131.25),
];
const RIGHT: [(f32, f32); 10] = [
    (128.0, 248.0),
    (169.0, 245.0),
    (177.0, 240.5),
    (197.0, 227.25),
    (213.0, 212.25),
    (224.0, 197.0),
    (231.0, 184.25),
    (234.0, 175.75),
    (239.0, 165.25),
    (242.0, 153.25),
];
/// Pixels of a latent's side.
const LATENT: usize = 8;

/// The mask `[side, side]`: 1 keeps, 0 is painted, about 41 %. Other sizes than 256 are made of that of 256 by Lanczos and so
/// have values between at the edges, and rings.
pub fn pixels(side: usize) -> Vec<f32> {
    let mask = lanczos::<1>(&drawn(), (SIDE, SIDE), (side, side)).unwrap_or_default();
    mask.iter().map(|v| f32::from(*v) / 255.0).collect()
}

/// The mask of latents, `[side / 8, side / 8]`: the first pixel of each, as PyTorch's `interpolate` takes the nearest.
pub fn latents(side: usize) -> Vec<f32> {
    let (mask, count) = (pixels(side), side / LATENT);
    (0..count).flat_map(|y| (0..count).map(move |x| (x, y))).map(|(x, y)| mask[(y * side + x) * LATENT]).collect()
}

/// The mask of 256 pixels a side: 0 or 255.
fn drawn() -> Vec<u8> {
    let mut mask = vec![255; SIDE * SIDE];
    for y in BESIDE.0..BESIDE.1 {
        FIELDS.iter().for_each(|(left, right)| mask[y * SIDE + left..y * SIDE + right].fill(0));
    }
    for y in BELOW.0..=BELOW.1 {
        let column = |outline: &[(f32, f32)]| (along(outline, y as f32) + 0.5) as usize;
        mask[y * SIDE + column(&LEFT)..y * SIDE + column(&RIGHT)].fill(0);
    }
    mask
}

/// The column of an outline in a row between its first and its last.
fn along(outline: &[(f32, f32)], y: f32) -> f32 {
    let after = outline.iter().position(|(row, _)| *row >= y).unwrap_or(outline.len() - 1).max(1);
    let ((y0, x0), (y1, x1)) = (outline[after - 1], outline[after]);
    x0 + (x1 - x0) * (y - y0) / (y1 - y0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_face_is_painted_and_the_eyes_and_the_nose_are_kept() {
        for side in [64, 256, 512] {
            let mask = pixels(side);
            let at = |x: f32, y: f32| mask[(y * side as f32) as usize * side + (x * side as f32) as usize];
            assert_eq!((at(0.5, 0.75), at(0.1, 0.45), at(0.9, 0.45)), (0.0, 0.0, 0.0), "{side}");
            assert_eq!((at(0.5, 0.45), at(0.5, 0.1), at(0.02, 0.75), at(0.1, 0.9)), (1.0, 1.0, 1.0, 1.0), "{side}");
            let painted = mask.iter().map(|v| 1.0 - v).sum::<f32>() / mask.len() as f32;
            assert!((painted - 0.407).abs() < 0.003, "{side}: {painted}");
        }
        let latents = latents(256);
        assert_eq!((latents.len(), latents.iter().filter(|v| **v == 0.0).count()), (1024, 422));
    }
}
