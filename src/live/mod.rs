//! Live media between the parts of the service, free of any protocol.
//!
//! ```text
//! RTMP, WHIP, a URL, an avatar ─► Decoder ─► Inlet ─► Pacer ─► graph ─► Outlet ─► Viewer ─► RTMP, WHEP, push
//! ```
//!
//! A session has one running time, from 0 at its start, on its pipeline's clock. What comes in carries the source's own
//! timestamps; the pacer maps them to the running time. What goes out carries the running time.

pub(crate) mod branch;
mod decoder;
mod inlet;
mod outlet;
mod packet;
mod viewer;

pub use self::{
    decoder::Decoder,
    inlet::{CHANNELS, Description, Inlet, Intake, Picture, RATE, Slot},
    outlet::{Encoders, Outlet},
    packet::{Codec, Packet},
    viewer::Viewer,
};
