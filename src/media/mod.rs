//! Decoded media as a sequence of samples: any file that GStreamer decodes, one stream of it.

pub mod boxes;
mod bus;
mod demuxer;
mod elements;
#[doc(hidden)]
pub mod movie;
mod notice;
mod reader;
pub mod sequence;
mod sound;
pub mod timeline;
pub mod track;
mod whole;

pub use bus::{Outcome, check, describe};
pub use demuxer::mend;
pub use elements::register;
pub use notice::{Notice, Notices};
pub use reader::{Media, Reader, SOUND, plug};
pub use sequence::Sequence;
pub use sound::{Base, Sound};
pub use track::Track;
