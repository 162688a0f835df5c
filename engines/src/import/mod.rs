//! Published checkpoints as engines: weights are read as they were published and become graphs by code of ours, one module a
//! family.
//!
//! - [`onnx`]: a small builder of ONNX graphs.
//! - [`layers`]: convolutions as PyTorch names their weights, with batch normalisation folded in.
//! - `transformer`: linear layers, norms and attention; `unet`, `motion`: the blocks that U-Nets and
//!   autoencoders share.
//! - [`wav2lip`], [`synctalk2d`]: the networks of these families.
//! - `finish`: enhancers and maskers, whose graphs are taken as they are.
//! - [`latentsync`], [`musetalk`], [`vae`], [`taesd`], [`whisper`]: those of the families that paint in latents of pictures.
//! - [`recognise`], [`config`]: what a file is, and what lies beside it.
//! - [`parts`], [`pixel`], [`latent`]: which engine they make; [`network`], [`manifest_text`], [`partial`], [`package`]: its folder.
//! - [`check`], [`golden`], [`golden_latent`], [`pictures`]: whether its networks say what they should, and its frames are the
//!   published ones.

mod check;
mod config;
mod faces;
mod finish;
mod golden;
mod golden_latent;
mod latent;
pub mod latentsync;
mod layers;
mod manifest_text;
mod motion;
pub mod musetalk;
mod network;
pub mod onnx;
mod package;
mod partial;
mod parts;
mod pictures;
mod pixel;
mod recognise;
pub mod synctalk2d;
pub mod taesd;
mod transformer;
mod unet;
pub mod vae;
pub mod wav2lip;
pub mod whisper;

pub use check::{Comparison, Difference, check};
pub use package::{Imported, Request, import};
pub use pictures::PictureDifference;
pub use recognise::Kind;
