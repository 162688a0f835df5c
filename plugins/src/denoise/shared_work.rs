//! Work that several frames wait for.

use std::{sync::Arc, time::Duration};

use lipstream_engines::{
    Result,
    engine::{Actor, SubmitError, Ticket, WaitError, Work},
};
use parking_lot::Mutex;

/// Why a frame has no work of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// It is not finished in time, or the engine's queue was full.
    Late,
    /// The stream was flushed.
    Flushed,
    /// What it says was interrupted before its clip was sent.
    Interrupted,
    /// A stage refused it.
    Failed(String),
}

impl From<WaitError> for Missing {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Timeout(_) => Self::Late,
            WaitError::Flushed => Self::Flushed,
            WaitError::Failed(_) | WaitError::Ended => Self::Failed(error.to_string()),
        }
    }
}

enum Progress {
    /// More frames may join; so many have.
    Gathering(usize),
    Sent(Ticket),
    /// Finished work of each frame, in their order, until it is taken.
    Finished(Vec<Option<Work>>),
    Missing(Missing),
}

/// An item of work, or one that is being gathered, and the frames in it that wait for it: those of a clip, or one.
#[derive(Clone)]
pub struct SharedWork(Arc<Mutex<Progress>>);

impl Default for SharedWork {
    fn default() -> Self {
        Self::new(Progress::Gathering(0))
    }
}

impl SharedWork {
    fn new(progress: Progress) -> Self {
        Self(Arc::new(Mutex::new(progress)))
    }

    /// What became of handing it over.
    pub fn submitted(result: Result<Ticket, SubmitError>) -> Self {
        let clip = Self::default();
        clip.send(result);
        clip
    }

    /// Frames that have joined it, while it waits for more.
    pub fn frames(&self) -> usize {
        if let Progress::Gathering(frames) = *self.0.lock() { frames } else { 0 }
    }

    /// The place of one more frame.
    pub fn join(&self) -> usize {
        match &mut *self.0.lock() {
            Progress::Gathering(frames) => {
                *frames += 1;
                *frames - 1
            }
            _ => 0,
        }
    }

    /// Whether it waits for more frames.
    pub fn gathers(&self) -> bool {
        matches!(*self.0.lock(), Progress::Gathering(_))
    }

    pub fn send(&self, result: Result<Ticket, SubmitError>) {
        *self.0.lock() = match result {
            Ok(ticket) => Progress::Sent(ticket),
            Err(SubmitError::QueueFull(_)) => Progress::Missing(Missing::Late),
            Err(error) => Progress::Missing(Missing::Failed(error.to_string())),
        };
    }

    /// Why its frames will have no work; `None` while they may.
    pub fn missing(&self) -> Option<Missing> {
        if let Progress::Missing(why) = &*self.0.lock() { Some(why.clone()) } else { None }
    }

    pub fn give_up(&self, why: Missing) {
        *self.0.lock() = Progress::Missing(why);
    }

    /// Waits, for at most `patience`, until it is finished, and has `actor` take it apart.
    pub fn collect(&self, patience: Option<Duration>, actor: &mut dyn Actor) -> Result<()> {
        let mut progress = self.0.lock();
        let sent = match std::mem::replace(&mut *progress, Progress::Missing(Missing::Flushed)) {
            Progress::Sent(ticket) => ticket,
            other => {
                *progress = other;
                return Ok(());
            }
        };
        *progress = match sent.wait(patience) {
            Ok(work) => Progress::Finished(actor.parts(work)?.into_iter().map(Some).collect()),
            Err(WaitError::Timeout(ticket)) => Progress::Sent(ticket),
            Err(error) => Progress::Missing(error.into()),
        };
        Ok(())
    }

    /// The work of the frame at `place`, once the clip has been collected.
    pub fn take(&self, place: usize) -> Result<Work, Missing> {
        match &mut *self.0.lock() {
            Progress::Finished(parts) => parts
                .get_mut(place)
                .and_then(Option::take)
                .ok_or_else(|| Missing::Failed(format!("the engine gave no work for frame {} of its clip", place + 1))),
            Progress::Missing(why) => Err(why.clone()),
            Progress::Sent(_) => Err(Missing::Late),
            Progress::Gathering(_) => Err(Missing::Interrupted),
        }
    }
}
