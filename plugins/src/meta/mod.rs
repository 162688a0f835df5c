//! What the elements hang on video buffers.

pub mod face;
pub mod patch;

pub use patch::PatchMeta;
