//! Tensors in files: one reader for every container that weights are published in.
//!
//! - [`Weights`]: what a file holds, by name, without a copy of it in memory.
//! - `safetensors`: the format of huggingface/safetensors.
//! - `torch`: PyTorch's zip files and the container that it wrote before 1.6.
//! - `pickle`: the part of Python's pickle that those need, as data: nothing is ever executed.

mod dtype;
mod pickle;
mod safetensors;
mod torch;
mod weights;

pub use dtype::Dtype;
pub use weights::{View, Weights};
