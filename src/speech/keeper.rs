//! A copy of what waits to be spoken, for when the machine does not live to say it.

/// What happens to the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change<'a> {
    /// An utterance has been opened behind the others.
    Opened { number: u64, utterance: &'a str },
    /// It has got samples, at [`RATE`](super::RATE).
    Added { number: u64, samples: &'a [f32] },
    /// So many samples of it have been given to the graph, in all.
    Taken { number: u64, samples: usize },
    /// It is over or has been cut.
    Gone { number: u64 },
}

/// Who keeps the copy. Called with the queue locked: it must not wait.
pub trait Keeper: Send + Sync {
    fn keep(&self, change: Change<'_>);
}
