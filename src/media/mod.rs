//! Decoded media as a sequence of samples: any file that GStreamer decodes, one stream of it.

pub mod boxes;
mod bus;
mod demuxer;
mod movie;
mod notice;
mod reader;

pub use bus::{Outcome, check, describe};
pub use demuxer::mend;
pub use notice::{Notice, Notices};
pub use reader::{Media, Reader, SOUND, plug};
