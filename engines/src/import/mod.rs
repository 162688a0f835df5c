//! Published checkpoints as engines: weights are read as they were published and become graphs by code of ours, one module a
//! family.
//!
//! - [`onnx`]: a small builder of ONNX graphs.
//! - [`layers`]: convolutions as PyTorch names their weights, with batch normalisation folded in.
//! - [`wav2lip`], [`synctalk2d`]: the networks of these families.
//! - [`recognise`]: what a file is.
//! - [`package`]: the folder that comes of it.
//! - [`check`], [`golden`]: whether its networks say what they should.

mod check;
mod golden;
mod layers;
pub mod onnx;
mod package;
mod recognise;
pub mod synctalk2d;
pub mod wav2lip;

pub use check::{Difference, check};
pub use package::{Imported, Request, import};
pub use recognise::Kind;
