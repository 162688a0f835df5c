//! A mark that nobody sees in the pictures of a generated face, and that a detector finds after the video has been encoded
//! anew, scaled and cropped.
//!
//! The mark lives in the unit crop that the tracker's alignment gives: both sides know it, so that scale, crop and the head's
//! motion cancel out. There a [`Key`] lays a field of waves of 14 to 26 cycles, which codecs keep, over the lower face, and
//! turns its sign, tile by tile and every [`CHIP`], by a sequence that begins again after [`PERIOD`]. What stands still in the picture, such as a
//! beard, correlates with the field, but not with the turns.
//!
//! - [`Embedder`] adds it to the brightness of the pixels that a patch has covered.
//! - [`Reader`] correlates the frames of one face with the field, tile by tile.
//! - [`judge`] finds the phase at which the correlations turn as the key says, and how likely that is by chance.
//!
//! The key is published, see [`Key::PUBLISHED`]: the mark withstands what happens to videos, and nobody who wants it gone.

mod embed;
mod judge;
mod key;
mod read;

use std::time::Duration;

pub use embed::Embedder;
pub use judge::{Evidence, judge};
pub use key::Key;
pub use read::{Reader, Tiles};

use crate::{
    geometry::Similarity,
    tracker::{self, Face},
};

/// How long a tile keeps its sign.
pub const CHIP: Duration = Duration::from_millis(160);
/// Signs of a tile until its sequence begins again.
pub const CHIPS: usize = 63;
/// After which the sequence begins again.
pub const PERIOD: Duration = Duration::from_millis(160 * CHIPS as u64);
/// Grid of the frames that a detector looks at.
pub const STEP: Duration = Duration::from_millis(40);
/// Steps of a chip and of the period.
const CHIP_STEPS: usize = 4;
const PERIOD_STEPS: usize = CHIPS * CHIP_STEPS;
/// Columns and rows of tiles.
const COLUMNS: usize = 6;
const ROWS: usize = 5;
pub const TILES: usize = COLUMNS * ROWS;
/// The lower face in the unit crop: from and to, across and down.
const ACROSS: [f32; 2] = [0.15, 0.85];
const DOWN: [f32; 2] = [0.38, 0.98];
/// The smallest side of a face's unit crop, in pixels of the frame, that is marked: below, a wave is shorter than three pixels.
pub const LEAST_SIDE: f32 = 72.0;

/// Where a patch with this transform is marked: in the unit crop of the one of `faces` under it, else in its own.
pub fn place_under(faces: &[Face], to_frame: &Similarity) -> Option<Similarity> {
    tracker::under(faces, to_frame).map(|(_, place)| place).or_else(|| to_frame.inverse())
}

/// Weights of the tiles to the left and to the right of (or above and below) a place, and which the first is.
fn tiles_at(unit: f32, [from, to]: [f32; 2], count: usize) -> (usize, f32) {
    let at = ((unit - from) / (to - from) * count as f32 - 0.5).clamp(0.0, (count - 1) as f32);
    let first = (at as usize).min(count - 2);
    (first, at - first as f32)
}
