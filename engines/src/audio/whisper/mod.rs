//! Whisper's way from sound to what a lip-sync network hears (A. Radford et al. 2022, arXiv 2212.04356): mel columns of 10 ms, of
//! which the encoder makes rows of 20 ms, of which a video frame takes ten.
//!
//! [`recording`] has the mel of a whole recording as the published programs compute it, for parity with them; [`Stream`] the causal
//! one. Rows for a frame of a recording are chosen by [`window`]; those of a stream by the [`Timeline`](super::Timeline), by time.

pub(crate) mod engine;
mod loudest;
mod mel;
pub mod recording;
mod shared;
mod stream;
mod whole;
pub mod window;

pub use loudest::Loudest;
pub use mel::{Column, LogMel, normalise};
pub(crate) use mel::{NOTHING, peak};
pub use recording::{COLUMNS, Segment};
pub use shared::SharedEncoder;
pub use stream::{Context, Evaluate, Stream};
pub use whole::{Program, Whole};
