//! Engines that paint in latents of pictures (Rombach et al. 2021, arXiv 2112.10752): a face is encoded, its mouth is painted
//! anew by what is heard, and it is decoded.
//!
//! - [`coder`]: the autoencoder as stages; [`device`]: in the memory of a card.
//! - [`musetalk`]: MuseTalk, frame by frame; [`latentsync`]: LatentSync, clip by clip.
//! - [`clip`]: LatentSync's clips: what goes into one, and its way through the stages.
//! - [`face`]: LatentSync's crop and its way back; [`mask`]: what it paints; [`blend`]: MuseTalk's crop and blend. All as their
//!   published programs have them. Pictures there are bytes `[rows, columns, 3]`, sizes columns and rows; channels are treated
//!   alike, so that RGB and BGR both will do.

pub mod blend;
pub(crate) mod clip;
pub(crate) mod coder;
mod device;
pub mod face;
pub(crate) mod latentsync;
pub mod mask;
pub(crate) mod musetalk;

pub use latentsync::LatentSync;
pub use musetalk::MuseTalk;

/// Pictures of 256 pixels that an autoencoder is given at a time: their values take about a gigabyte.
const PICTURES: usize = 4;

/// Pictures of `side` pixels that take as much memory as [`PICTURES`] of 256; one at least.
pub(super) fn pictures_at_a_time(side: usize) -> usize {
    (PICTURES * 256 * 256 / (side * side).max(1)).max(1)
}
