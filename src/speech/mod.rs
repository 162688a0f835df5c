//! What a session has to say: speech queued by the API, the WebSocket or a file, taken by the session's clock.

pub mod decode;
mod edges;
mod format;
mod joined;
mod keeper;
mod pcm;
mod queue;
mod upsample;

pub use keeper::{Change, Keeper};
pub use queue::{Cause, Cut, Event, Full, Queue, Writer};
#[doc(hidden)]
pub use {format::Format, pcm::Pcm, upsample::Upsampler};
pub(crate) use {
    queue::{RATE, STUCK},
    upsample::RATES,
};
