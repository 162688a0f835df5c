//! Engines that paint in latents of pictures (Rombach et al. 2021, arXiv 2112.10752): a face is encoded, its mouth is painted
//! anew by what is heard, and it is decoded.
//!
//! - [`coder`]: the autoencoder as stages.
//! - [`clip`]: LatentSync's clips: what goes into one, and its way through the stages.

pub(crate) mod clip;
mod coder;
