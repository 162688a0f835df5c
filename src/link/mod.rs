//! What all connections share that a session opens by itself: [`push`](crate::push) and [`pull`](crate::pull).

mod backoff;
mod status;

pub use self::{
    backoff::Backoff,
    status::{Direction, LinkStatus, Report},
};
