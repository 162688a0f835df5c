//! Decoded media as a sequence of samples: any file that GStreamer decodes, one stream of it.

mod bus;
mod notice;
mod reader;

pub use bus::{Outcome, check, describe};
pub use notice::{Notice, Notices};
pub use reader::{Media, Reader, SOUND, plug};
