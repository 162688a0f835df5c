//! The RTMP server: publish a source to a session, play a session's output.
//!
//! | address | is |
//! |---|---|
//! | `rtmp://host:1935/live/SESSION` | published: the session's video and its sound |
//! | `rtmp://host:1935/live/SESSION/voice` | published: the voice of a dub |
//! | `rtmp://host:1935/live/SESSION/voice-b` | published: the second voice of a session that has one |
//! | `rtmp://host:1935/live/SESSION/synced` | played: the lip-synced output, H.264 and AAC |
//! | `rtmp://host:1935/live/NAME` | played: the same, under the name that the session's `play` gives |
//!
//! A publisher of a session with a stream key adds `?key=KEY` to the address. OBS: *Settings > Stream*, service
//! *Custom*, server `rtmp://host:1935/live`, stream key `SESSION?key=KEY`.
//!
//! The protocol is written here, from Adobe's RTMP 1.0 and Enhanced RTMP v2. The crate `rtmp-rs` 0.6 was tried: its
//! streams break after 4 h 39 min, where timestamps need four bytes; 369 bytes of AMF references make it take 8 GB; its
//! limit of connections has no effect, and it logs stream keys. So the layers are
//!
//! ```text
//! Server ── Connection ── Link ── chunk, amf          what is on the wire, shared with the client that pushes
//!               │
//!               ├─ Ingest ── flv, Timeline ── live::Decoder
//!               ├─ Flow ──── flv, avc ─────── live::Viewer
//!               └─ Host                              what the service answers: the one trait between the two
//! ```

pub mod amf;
pub mod avc;
pub mod chunk;
pub mod client;
mod connection;
pub mod flow;
pub mod flv;
mod handshake;
mod host;
mod ingest;
pub mod link;
pub mod name;
mod relay;
mod server;
pub mod timeline;

#[cfg(test)]
mod hostile;

pub use self::{
    host::{Guest, Host},
    server::{Server, Settings, Stats},
};
