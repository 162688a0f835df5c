//! What whoever submits work holds until it is finished, and why it may never be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::Shared;
use crate::{Result, engine::work::Work};

/// Why work was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Everybody's items together are as many as may wait.
    #[error("the engine's queue is full ({0} frames)")]
    QueueFull(usize),
    #[error("the engine's worker has ended")]
    Ended,
    /// It asks for a stage that is not there, or brings not what the stage reads.
    #[error("work for the engine `{engine}` does not fit: {cause}")]
    DoesNotFit { engine: String, cause: String },
}

/// Why work is not finished.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Not yet: the ticket comes back and can be waited for again.
    #[error("not finished in time")]
    Timeout(Ticket),
    /// The stream was flushed.
    #[error("flushed")]
    Flushed,
    /// A stage refused it or panicked.
    #[error("{0}")]
    Failed(String),
    #[error("the engine's worker has ended")]
    Ended,
}

pub(super) type Outcome = Result<Work, Refusal>;

#[derive(Debug)]
pub(super) enum Refusal {
    Flushed,
    Failed(String),
    Ended,
}

/// Work that is on its way.
pub struct Ticket {
    outcome: Receiver<Outcome>,
    /// Where whoever waits runs batches meanwhile.
    helps: Option<Arc<Shared>>,
    /// Work whose ticket is gone is not run.
    _wanted: Arc<()>,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Ticket {
    pub(super) fn new(outcome: Receiver<Outcome>, helps: Option<Arc<Shared>>, wanted: Arc<()>) -> Self {
        Self { outcome, helps, _wanted: wanted }
    }

    /// The finished work; `None` waits as long as it takes.
    pub fn wait(self, timeout: Option<Duration>) -> Result<Work, WaitError> {
        let outcome = match (&self.helps, timeout) {
            (Some(shared), _) => shared.help(&self.outcome, timeout.map(|timeout| Instant::now() + timeout)),
            (None, None) => self.outcome.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (None, Some(limit)) => self.outcome.recv_timeout(limit),
        };
        match outcome {
            Ok(Ok(work)) => Ok(work),
            Ok(Err(Refusal::Flushed)) => Err(WaitError::Flushed),
            Ok(Err(Refusal::Failed(cause))) => Err(WaitError::Failed(cause)),
            Err(RecvTimeoutError::Timeout) => Err(WaitError::Timeout(self)),
            Ok(Err(Refusal::Ended)) | Err(RecvTimeoutError::Disconnected) => Err(WaitError::Ended),
        }
    }
}
