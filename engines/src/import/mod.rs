//! Published checkpoints as engines: weights are read as they were published and become graphs by code of ours, one module a
//! family.
//!
//! - [`onnx`]: a small builder of ONNX graphs.
//! - [`layers`]: convolutions as PyTorch names their weights, with batch normalisation folded in.
//! - [`wav2lip`], [`synctalk2d`]: the networks of these families.

mod layers;
pub mod onnx;
pub mod synctalk2d;
pub mod wav2lip;

pub use layers::Taken;
