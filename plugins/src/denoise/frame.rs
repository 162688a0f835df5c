//! A frame between its arrival and its departure.

use std::time::{Duration, Instant};

use lipstream_engines::{
    engine::{Identity, Patch},
    tracker::Face,
};

use super::shared_work::SharedWork;
use crate::untouched::Why;

/// What remains to be done for a frame.
pub enum Plan {
    /// Nothing: there is nothing to be said, or it cannot be shown, and why.
    Pass(Option<Why>),
    /// It cannot wait: the last patch, if there is one.
    Hold,
    /// Nobody has spoken for a while: the frame's own mouth.
    Idle,
    /// Whoever spoke was interrupted: no features and no denoising.
    Ease { identity: Identity },
    /// It waits for the faces of the frames after it.
    Due { identity: Identity, features: Vec<f32> },
    /// Its work is on its way through the engine's stages, or waits for further frames of its clip.
    Made { shared: SharedWork, place: usize, identity: Identity, since: Instant },
}

/// A frame between its arrival and its departure.
pub struct Frame {
    pub buffer: gst::Buffer,
    /// Running time; `None` outside the segment.
    pub time: Option<gst::ClockTime>,
    /// How visible the mouths are for what is being said, 0..1.
    pub presence: f32,
    /// Its features, kept where another engine may have to make it.
    pub heard: Option<Vec<f32>>,
    /// Interrupts that had been heeded when it came.
    pub interrupts: u64,
    /// What is to be done for the faces that speak in it, largest first,
    pub mouths: Vec<Mouth>,
    /// and why it is left as it is where there is none of them, although one was wanted.
    pub why: Option<Why>,
}

impl Frame {
    /// One in which nothing is to be done.
    pub fn plain(buffer: gst::Buffer, time: Option<gst::ClockTime>, interrupts: u64) -> Self {
        Self { buffer, time, presence: 1.0, heard: None, interrupts, mouths: Vec::new(), why: None }
    }
}

/// A face that speaks in a frame, or did so until a moment ago.
pub struct Mouth {
    /// Whose place it is in the stream's list of speakers.
    pub speaker: usize,
    pub face: Face,
    /// It is to speak; otherwise it fades out.
    pub wanted: bool,
    /// Its own mouth was seen in the frame of this running time: that of the speaker fades in from there.
    pub since: Option<gst::ClockTime>,
    /// The picture's edge cuts off the mouth, or so much of the face that where it is cannot be told.
    pub cut: bool,
    /// The head is turned further than a mouth can be made for.
    pub turned: bool,
    pub plan: Plan,
}

/// A frame on its way out.
pub struct Finished {
    pub patch: Option<Patch>,
    pub left: Left,
    /// It shows nothing of what has been interrupted.
    pub at_rest: bool,
}

impl Finished {
    pub fn new(patch: Option<Patch>, left: Left) -> Self {
        Self { patch, left, at_rest: false }
    }

    /// As it came: whatever was being said, it does not show it.
    pub fn untouched(why: Option<Why>) -> Self {
        Self { patch: None, left: Left::Untouched(why), at_rest: true }
    }
}

/// How a frame left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// With a patch of its own.
    Spoken,
    /// With the last patch or none, because its own was not ready.
    Late,
    /// As it came, and why where it should not have.
    Untouched(Option<Why>),
}

/// How frames are rendered, as the settings are now.
#[derive(Clone, Copy)]
pub struct RenderSettings {
    pub gain: f32,
    pub gap: Duration,
}
