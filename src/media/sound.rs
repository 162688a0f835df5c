//! The sound of a file as samples without a hole: where its timestamps leave one, silence is put.

use std::path::Path;

use super::{
    Media, Notices, Reader, Track,
    timeline::{Nanos, SECOND, Splice, Timeline, running_time},
};
use crate::error::{Failure, Result};

/// Longest piece of silence in milliseconds.
const PIECE_MS: u64 = 100;

/// See the module.
pub struct Sound {
    reader: Reader,
    notices: Notices,
    zero: Nanos,
    timeline: Option<Timeline>,
    info: Option<gst_audio::AudioInfo>,
    /// Samples of silence that come before `held`.
    silence: u64,
    held: Option<gst::Sample>,
}

impl Sound {
    /// Opens a file and decodes the beginning of its sound, in the decoder's own format.
    pub fn open(path: &Path, track: &Track, notices: &Notices) -> Result<Self> {
        Self::of(Reader::open_track(path, Media::Audio, track, notices)?, notices)
    }

    /// The sound that `reader` gives.
    pub fn of(reader: Reader, notices: &Notices) -> Result<Self> {
        let mut sound =
            Self { zero: 0, notices: notices.clone(), timeline: None, info: None, silence: 0, held: None, reader };
        // What the stream has before its beginning, such as an encoder's priming, is not heard.
        sound.zero = sound.reader.start().unwrap_or_default().max(0);
        Ok(sound)
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Running time of the first sample that is heard.
    pub fn start(&self) -> Nanos {
        self.zero
    }

    /// Makes sample 0 the one at a running time. Call it before the first sample is taken.
    pub fn begin_at(&mut self, zero: Nanos) {
        self.zero = zero;
    }

    /// The next samples; `None` at the end.
    pub fn next_sample(&mut self) -> Result<Option<gst::Sample>> {
        loop {
            if self.silence > 0 {
                return self.quiet().map(Some);
            }
            if let Some(sample) = self.held.take() {
                return Ok(Some(sample));
            }
            let Some(sample) = self.reader.next_sample()? else { return Ok(None) };
            self.place(sample)?;
        }
    }

    fn place(&mut self, sample: gst::Sample) -> Result<()> {
        let info = sample.caps().and_then(|caps| gst_audio::AudioInfo::from_caps(caps).ok());
        let info = info.ok_or_else(|| Failure::run("decoded sound without a format"))?;
        if self.info.as_ref().is_some_and(|before| before.rate() != info.rate()) {
            let path = self.reader.path().display();
            return Err(Failure::input(format!("{path}: the sample rate changes on the way")));
        }
        let Some(buffer) = sample.buffer() else { return Ok(()) };
        let frame = info.bpf() as usize;
        let count = (buffer.size() / frame.max(1)) as u64;
        let timeline = self.timeline.get_or_insert_with(|| Timeline::new(info.rate(), self.zero));
        let from = timeline.seconds();
        let Splice { silence, skipped } = timeline.place(running_time(&sample), count);
        if silence > 0 && from > 0.0 {
            let to = from + silence as f64 / f64::from(info.rate());
            let path = self.reader.path().display();
            let text = format!("{path}: there is no sound from {from:.2} s to {to:.2} s: it is silent there");
            self.notices.warn("hole", text);
        }
        self.silence = silence;
        if skipped == 0 {
            self.held = Some(sample);
        } else if skipped < count {
            let bytes = skipped as usize * frame..count as usize * frame;
            let part = buffer.copy_region(gst::BufferCopyFlags::MEMORY, bytes)?;
            self.held = Some(gst::Sample::builder().buffer(&part).caps_if_some(sample.caps_owned().as_ref()).build());
        }
        self.info = Some(info);
        Ok(())
    }

    /// A piece of the silence that is due.
    fn quiet(&mut self) -> Result<gst::Sample> {
        let info = self.info.as_ref().ok_or_else(|| Failure::run("silence without a format"))?;
        let most = (u64::from(info.rate()) * PIECE_MS / 1000).max(1);
        let count = self.silence.min(most);
        self.silence -= count;
        let mut bytes = vec![0; count as usize * info.bpf() as usize];
        info.format_info().fill_silence(&mut bytes);
        let buffer = gst::Buffer::from_mut_slice(bytes);
        let caps = info.to_caps().map_err(|_| Failure::run("sound has a format without caps"))?;
        Ok(gst::Sample::builder().buffer(&buffer).caps(&caps).build())
    }
}

/// Running times that picture and sound begin with, and how long the first picture stands before the others come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Running time of the sound's sample 0.
    pub sound: Nanos,
    pub picture_waits: Nanos,
}

impl Base {
    /// Longest time by which one of two streams of a file may begin after the other.
    const LONGEST: Nanos = 600 * SECOND;

    /// Of two streams of one file, which keep their places, from the beginnings of both.
    pub fn shared(picture: Nanos, sound: Nanos) -> Option<Self> {
        let (picture, sound) = (picture.max(0), sound.max(0));
        let first = picture.min(sound);
        let apart = (picture - sound).abs();
        (apart <= Self::LONGEST).then_some(Self { sound: first, picture_waits: picture - first })
    }

    /// Of two files, each of which begins with its own beginning.
    pub fn own(sound: Nanos) -> Self {
        Self { sound: sound.max(0), picture_waits: 0 }
    }
}
