//! What a session has to say: speech queued by the API, the WebSocket or a file, taken by the session's clock.

pub mod decode;
mod edges;
mod format;
mod queue;

pub use queue::{Cut, Event, Full, Queue, Writer};
