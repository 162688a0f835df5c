//! CUDA: memory of a card, and the kernels of `engines/kernels` on it. All that is unsafe of the two is here.
//!
//! - [`memory`]: the one trait that a device has: a card's ([`driver`], which copies through [`pinned`] memory), and without one the
//!   processor's ([`host`]). [`pool`]: memory that is kept for later.
//! - [`arguments`]: what kernels take.
//! - [`nvrtc`]: compiles the kernels when they are first used; [`cache`] keeps what came out.
//!
//! libcuda and libnvrtc are loaded when they are first asked for. A machine without them runs as before.

pub mod arguments;
mod cache;
mod driver;
mod host;
pub mod memory;
pub mod nvrtc;
mod pinned;
mod pool;
mod timed;

pub use driver::{Card, memory_of};
pub use host::{Asked, Host};
pub(crate) use memory::launch;
pub use memory::{Buffer, Memory, Place, Plain};
pub use pool::Pool;
pub use timed::Timed;

/// The kernels' program, and the files that it includes, by the names that it has for them.
pub const PROGRAM: &str = include_str!("../../kernels/kernels.cu");
pub const FILES: &[(&str, &str)] = &[
    ("common.h", include_str!("../../kernels/common.h")),
    ("crop.cu", include_str!("../../kernels/crop.cu")),
    ("noise.h", include_str!("../../kernels/noise.h")),
    ("paste.cu", include_str!("../../kernels/paste.cu")),
    ("refine.cu", include_str!("../../kernels/refine.cu")),
    ("step.cu", include_str!("../../kernels/step.cu")),
    ("warp.cu", include_str!("../../kernels/warp.cu")),
];
