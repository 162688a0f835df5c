//! Where decoded media of a source enters a session.

use std::{sync::Arc, time::Duration};

/// Which of a session's places for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The video and its sound.
    Main,
    /// The voice that a dub follows, instead of the main source's sound.
    Voice,
    /// The voice of a second face.
    VoiceB,
}

/// Rate of all sound inside a session, in Hz.
pub const RATE: u32 = 48_000;
/// Channels of all sound inside a session.
pub const CHANNELS: usize = 2;

/// Receives what an [`Inlet`] is given. Calls do not block and come from any thread.
pub trait Intake: Send + Sync {
    fn format(&self) -> Option<Picture>;
    /// Whether frames keep their transparency.
    fn keeps_alpha(&self) -> bool {
        false
    }
    fn video(&self, source: u64, picture: Picture, frame: gst::Buffer, at: Duration);
    fn audio(&self, source: u64, samples: &[f32], at: Duration);
    fn restart(&self, source: u64);
    fn describe(&self, source: u64, what: Description);
    fn end(&self, source: u64);
}

/// Size and rate of I420 frames with square pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// Frames a second as a fraction; 0/1 where it varies or is not known.
    pub fps: (u32, u32),
}

/// What a source sends, as it sends it.
#[derive(Clone, Debug, PartialEq)]
pub enum Description {
    VideoCodec(String),
    /// Before it is brought to the session's size, upright and with square pixels.
    Picture(Picture),
    AudioCodec(String),
    /// Rate in Hz and channels.
    Sound(u32, u32),
}

/// A source's hold on a session; dropping it ends the source. The session goes on without it: it holds the last frame
/// and is silent, until the next source takes the place.
pub struct Inlet {
    intake: Arc<dyn Intake>,
    source: u64,
}

impl Inlet {
    pub fn new(intake: Arc<dyn Intake>, source: u64) -> Self {
        Self { intake, source }
    }

    /// The size that frames must have; `None` before the first frame of the session, which decides it.
    pub fn format(&self) -> Option<Picture> {
        self.intake.format()
    }

    /// Whether frames are A420 rather than I420.
    pub fn keeps_alpha(&self) -> bool {
        self.intake.keeps_alpha()
    }

    /// A frame: I420, or A420 where [`keeps_alpha`](Self::keeps_alpha), with GStreamer's default strides, of the session's size, at the source's own time.
    pub fn video(&self, picture: Picture, frame: gst::Buffer, at: Duration) {
        self.intake.video(self.source, picture, frame, at);
    }

    /// Sound: interleaved stereo at 48 kHz, -1..1, of which the first sample is at the source's own time `at`.
    pub fn audio(&self, samples: &[f32], at: Duration) {
        self.intake.audio(self.source, samples, at);
    }

    /// Says what the source sends; may be said again.
    pub fn describe(&self, what: Description) {
        self.intake.describe(self.source, what);
    }

    /// The source's timestamps begin anew.
    pub fn restart(&self) {
        self.intake.restart(self.source);
    }

    /// Ends the source before it is dropped: its place is free, and what it still gives is passed over.
    pub fn leave(&self) {
        self.intake.end(self.source);
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.leave();
    }
}
