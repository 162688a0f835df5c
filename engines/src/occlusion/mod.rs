//! What is before a face: which pixels of the lower face a hand, a microphone, a cup, hair or cloth covers.
//!
//! A small network ([`Network`]), or a published [`Masker`] in its place, looks at the aligned crop and gives the chance that a pixel is covered. A [`Watch`] asks it for one face of a
//! stream, now and then while nothing is there and on every frame while something is, and steadies the answer where the picture stands
//! still. What it finds is a [`Front`], in the coordinates of the aligned crop, so that it follows the head; [`Front::seen`] says of
//! the pixels of a patch how much of each is seen.

mod front;
mod network;
mod published;
mod watch;

pub use front::Front;
pub use network::{Look, Masks, Network, Ports};
pub use published::Masker;
pub use watch::{Cover, Watch};

/// Side in pixels of what the network looks at and of what it answers.
pub const SIDE: usize = 96;
