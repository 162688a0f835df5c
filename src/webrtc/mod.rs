//! WebRTC: WHIP publishes to a session, WHEP plays it.
//!
//! ```text
//! POST /whep/S ─► offer ─► negotiate ─► Session::watch ─► peer task { play ─► RTP, SRTP, pacer } ─┐
//! POST /whip/S ─► offer ─► negotiate ─► Session::publish ─► peer task { publish ─► Decoder } ─────┴─ one UDP port
//! ```
//!
//! A session is encoded once; a viewer's task only packs, encrypts and paces what the session's outlet hands to all.
//!
//! # Why str0m
//!
//! Three things decided against the `webrtc` crate (0.21, on `rtc`), which has the protocols too:
//!
//! - Its Sender Reports take the moment at which a frame is sent for the moment of its capture. The delay between our
//!   two encoders would become an offset of lips and voice in the browser. str0m is given the wall clock time of each
//!   frame ([`timeline`](self)).
//! - It binds a socket for each peer. str0m does no I/O, so all peers share one port, which is what a firewall wants.
//! - Its bandwidth estimate is passed out of an interceptor by a wrapper of one's own, and does not probe: an estimate
//!   that has fallen recovers only as fast as the encoder sends. str0m probes with padding up to a wanted rate.
//!
//! `webrtcbin` would bring GStreamer's own pay elements and a second jitter buffer a viewer, and libnice at run time.
//!
//! Its DTLS takes no RSA certificates; ours is OpenSSL's ([`dtls`](self)).

mod alignment;
mod caller;
mod codecs;
mod dtls;
mod filter;
mod negotiate;
mod offer;
mod peer;
mod play;
mod publish;
mod routes;
mod server;
mod settings;
mod sockets;
mod source_clock;
mod status;
mod timeline;

pub(crate) use self::caller::Caller;
#[doc(hidden)]
pub use self::{negotiate::read_offer, offer::read_fragment};
pub use self::{
    server::Server,
    settings::{IceServer, Settings},
    status::{Counters, PeerStatus, Role, Totals},
};
