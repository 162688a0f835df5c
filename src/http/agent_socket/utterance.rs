//! What the client is saying: from the first `agent.speak` to `agent.speak_end`.

use std::time::Instant;

use crate::speech::{Cut, Pcm, Upsampler, Writer};

/// Rate of the sound, in Hz.
pub const RATE: u32 = 24_000;

pub(super) enum Utterance {
    None,
    Open(Box<Open>),
    /// It was cut; what may still come of it is not wanted.
    Cut {
        /// The `event_id` of all its messages.
        event_id: Option<String>,
        /// Whether somebody else cut it: this client does not know yet.
        unawares: bool,
    },
}

impl Utterance {
    /// Whether sound of a message with this `event_id` is still of what was cut.
    pub fn is_over(&self, message: Option<&str>) -> bool {
        match self {
            Self::Cut { event_id: Some(cut), .. } => message == Some(cut),
            Self::Cut { event_id: None, unawares } => *unawares,
            _ => false,
        }
    }

    pub fn cut(&mut self, unawares: bool) {
        if let Self::Open(open) = self {
            *self = Self::Cut { event_id: open.group.take(), unawares };
        }
    }
}

pub(super) struct Open {
    pub writer: Writer,
    /// Name of the utterance.
    pub id: String,
    /// The `event_id` of all its messages; `None` where they have none or several.
    pub group: Option<String>,
    pcm: Pcm,
    upsampler: Upsampler,
    /// Sound that found no space after all.
    waiting: Vec<f32>,
    pub heard: Instant,
}

impl Open {
    pub fn new(writer: Writer, id: String, group: Option<String>) -> Option<Self> {
        let upsampler = Upsampler::new(RATE)?;
        let (pcm, waiting, heard) = (Pcm::default(), Vec::new(), Instant::now());
        Some(Self { writer, id, group, pcm, upsampler, waiting, heard })
    }

    /// Queues the sound, all of it or, where there is no space, nothing. Returns whether it was queued.
    pub fn add(&mut self, bytes: &[u8]) -> Result<bool, Cut> {
        self.flush()?;
        let samples = bytes.len() / 2 * (crate::speech::RATE / RATE) as usize;
        if !self.waiting.is_empty() || self.writer.room()? < samples {
            return Ok(false);
        }
        let mut sound = Vec::with_capacity(samples + 2);
        self.upsampler.add(self.pcm.samples(bytes), &mut sound);
        self.heard = Instant::now();
        self.queue(sound)?;
        Ok(true)
    }

    /// Queues what found no space, as far as there is some now.
    pub fn flush(&mut self) -> Result<(), Cut> {
        let waiting = std::mem::take(&mut self.waiting);
        self.queue(waiting)
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The utterance has no more sound. What its filter holds, and there is no space for, is a millisecond of its end.
    pub fn end(self) -> Result<(), Cut> {
        let Self { mut writer, upsampler, mut waiting, .. } = self;
        upsampler.finish(&mut waiting);
        writer.add(&waiting).map(|_| ())
    }

    fn queue(&mut self, mut sound: Vec<f32>) -> Result<(), Cut> {
        let added = self.writer.add(&sound)?;
        // Another writer may have been faster.
        self.waiting = sound.split_off(added);
        Ok(())
    }
}
