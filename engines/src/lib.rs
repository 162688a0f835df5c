//! The numerical half of Lipstream: everything between decoded samples and blended pixels, and nothing of GStreamer.
//!
//! The dataflow of one stream, module by module:
//!
//! 1. [`tracker`] finds faces in a [`image::FrameView`] and follows 111 landmarks of each ([`geometry::landmarks`]).
//! 2. [`audio`] turns 16 kHz speech into one feature vector a hop, the same whatever the size of the pieces.
//! 3. [`bank`] keeps a person's own frames that span the mouth's shapes.
//! 4. [`engine`] makes the mouth, in batches shared by all streams: `compact` turns noise into the latent of a mouth in a
//!    few steps of a [`schedule`], and renders it as an [`engine::Patch`].
//! 5. [`image::paste`] blends the patch into the frame, behind what [`occlusion`] has found before the face, and [`enhance`] may finish the face.
//!    [`watermark`] marks what was pasted.
//!
//! [`manifest`] says what a model is, [`runtime`] runs it, [`quality`] measures what came out.

// Tests of the crate share files with those beside it.
#[cfg(test)]
extern crate self as lipstream_engines;

pub mod audio;
pub mod bank;
pub mod cuda;
pub mod digest;
mod embedded;
pub mod engine;
pub mod enhance;
mod error;
pub mod geometry;
pub mod image;
pub mod import;
pub mod kernels;
pub mod manifest;
pub mod occlusion;
pub mod quality;
mod random;
pub mod runtime;
pub mod schedule;
pub mod stats;
pub mod tensor;
pub mod tracker;
pub mod watermark;

pub use error::{Error, Result};
