//! Clock time: the system clock that every pipeline of this process runs on, in nanoseconds. Sources are mapped to it
//! before a graph runs; a graph's running time is clock time minus the graph's epoch, its base time.

use gst::prelude::*;

/// Nanoseconds of clock time. Signed, because a source's time may map to before the process began.
pub type Nanos = i64;

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000_000_000;

/// The clock; pipelines are told to use it.
pub fn system() -> gst::Clock {
    gst::SystemClock::obtain()
}

/// Clock time now.
pub fn now() -> Nanos {
    system().time().nseconds() as Nanos
}

/// A source's timestamp, bounded to a century so that sums cannot overflow.
pub fn nanos(time: std::time::Duration) -> Nanos {
    time.as_nanos().min(100 * 365 * 86_400 * SECOND as u128) as Nanos
}
