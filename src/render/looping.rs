//! The frames of a video on a time line that starts at zero: once through, or forward and backward without end.
//!
//! A time line going backward mirrors the one going forward, so that intervals between frames are kept and the frames
//! at the two ends are shown once. The frames of a backward leg are decoded in stretches that fit a fixed amount of
//! memory, each from the key frame before it.

use std::{collections::VecDeque, path::Path};

use crate::{
    error::{Failure, Result},
    media::{Media, Notices, Reader},
};

/// Memory for one stretch of decoded frames.
const STRETCH_BYTES: usize = 192 << 20;
/// Fewest frames in a stretch, whatever their size.
const STRETCH_MIN: usize = 4;
/// How far a timestamp after a seek may be from the one of the first pass: containers round.
const SLACK: u64 = 1_500_000;
/// Interval where neither timestamps nor the stream say one.
const DEFAULT_INTERVAL: u64 = 40_000_000;

/// A frame on the output's time line.
pub struct Frame {
    pub sample: gst::Sample,
    /// From the start of the output.
    pub pts: gst::ClockTime,
    pub duration: gst::ClockTime,
}

/// Source of frames; see the module.
pub struct Frames {
    reader: Reader,
    looped: bool,
    /// Times of the frames from the first one, in ns, learnt in the first pass.
    times: Vec<u64>,
    /// The first frame's own timestamp.
    base: u64,
    /// The frame that waits for the next one's time, in the first pass.
    held: Option<gst::Sample>,
    leg: Leg,
    /// Where the current leg's zero is on the time line, in ns.
    offset: u64,
    /// Whether a seek has been found to give the frame asked for.
    seekable: bool,
    /// Ordinal of the frame that the reader gives next.
    position: usize,
    /// Size of the largest frame so far.
    frame_bytes: usize,
}

enum Leg {
    First,
    /// Frames from `next` to the last.
    Forward {
        next: usize,
    },
    /// Frames from `next` down to 0, some of them decoded.
    Backward {
        next: usize,
        stretch: VecDeque<gst::Sample>,
    },
    /// A video of one frame.
    Still(gst::Sample),
    Ended,
}

impl Frames {
    /// The frames of a file as `media` gives them.
    pub fn open(path: &Path, media: Media, looped: bool, notices: &Notices) -> Result<Self> {
        let reader = Reader::open(path, media, notices)?;
        Ok(Self {
            reader,
            looped,
            times: Vec::new(),
            base: 0,
            held: None,
            leg: Leg::First,
            offset: 0,
            seekable: true,
            position: 0,
            frame_bytes: 0,
        })
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The next frame; `None` at the end of a video that is not looped.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        match std::mem::replace(&mut self.leg, Leg::Ended) {
            Leg::First => self.next_of_first_pass(),
            Leg::Forward { next } => self.next_forward(next).map(Some),
            Leg::Backward { next, stretch } => self.next_backward(next, stretch).map(Some),
            Leg::Still(sample) => Ok(Some(self.next_still(sample))),
            Leg::Ended => Ok(None),
        }
    }

    fn next_of_first_pass(&mut self) -> Result<Option<Frame>> {
        let held = match self.held.take() {
            Some(sample) => sample,
            None => match self.reader.next_sample()? {
                Some(sample) => {
                    self.base = pts(&sample).unwrap_or(0);
                    self.times.push(0);
                    sample
                }
                None => return Ok(None),
            },
        };
        let start = *self.times.last().expect("the held frame has a time");
        self.frame_bytes = self.frame_bytes.max(held.buffer().map_or(0, |b| b.size()));
        self.leg = Leg::First;
        let duration = match self.reader.next_sample()? {
            Some(following) => {
                let nominal = start + interval(&held);
                // Time moves on by at least a little, whatever a broken file claims.
                let time = pts(&following).map_or(nominal, |t| t.saturating_sub(self.base)).max(start + 1_000_000);
                self.times.push(time);
                self.held = Some(following);
                time - start
            }
            None => {
                let last = match self.times.as_slice() {
                    [.., before, last] if duration_of(&held).is_none() => last - before,
                    _ => interval(&held),
                };
                self.leg = self.second_leg(&held, last);
                last
            }
        };
        Ok(Some(frame(held, start, duration)))
    }

    /// What follows the first pass.
    fn second_leg(&mut self, last: &gst::Sample, interval: u64) -> Leg {
        if !self.looped {
            return Leg::Ended;
        }
        self.position = self.times.len();
        if self.times.len() == 1 {
            self.offset = interval;
            return Leg::Still(last.clone());
        }
        self.turn_back()
    }

    fn turn_back(&mut self) -> Leg {
        self.offset += self.last_time();
        Leg::Backward { next: self.times.len() - 2, stretch: VecDeque::new() }
    }

    fn last_time(&self) -> u64 {
        self.times.last().copied().unwrap_or(0)
    }

    fn next_still(&mut self, sample: gst::Sample) -> Frame {
        let duration = interval(&sample);
        let made = frame(sample.clone(), self.offset, duration);
        self.offset += duration;
        self.leg = Leg::Still(sample);
        made
    }

    fn next_forward(&mut self, next: usize) -> Result<Frame> {
        let sample = self.take(next)?;
        let last = self.times.len() - 1;
        let start = self.offset + self.times[next];
        let duration = self.times[(next + 1).min(last)].saturating_sub(self.times[next]);
        let duration = if next == last { self.times[last] - self.times[last - 1] } else { duration };
        self.leg = if next == last { self.turn_back() } else { Leg::Forward { next: next + 1 } };
        Ok(frame(sample, start, duration))
    }

    fn next_backward(&mut self, next: usize, mut stretch: VecDeque<gst::Sample>) -> Result<Frame> {
        if stretch.is_empty() {
            self.fill(next, &mut stretch)?;
        }
        let sample = stretch.pop_back().expect("a stretch that was filled");
        let last = self.last_time();
        let start = self.offset + (last - self.times[next]);
        if next == 0 {
            let duration = self.times[1];
            self.offset += last;
            self.leg = Leg::Forward { next: 1 };
            return Ok(frame(sample, start, duration));
        }
        let duration = self.times[next] - self.times[next - 1];
        self.leg = Leg::Backward { next: next - 1, stretch };
        Ok(frame(sample, start, duration))
    }

    /// Decodes the frames that end with `last` and fit the memory.
    fn fill(&mut self, last: usize, stretch: &mut VecDeque<gst::Sample>) -> Result<()> {
        let count = (STRETCH_BYTES / self.frame_bytes.max(1)).max(STRETCH_MIN);
        let first = (last + 1).saturating_sub(count);
        tracing::debug!(first, last, "decoding a stretch to play backward");
        for index in first..=last {
            let sample = self.take(index)?;
            stretch.push_back(detached(&sample)?);
        }
        Ok(())
    }

    /// Frame `index`: the next one of the reader where that is it, else after a seek.
    fn take(&mut self, index: usize) -> Result<gst::Sample> {
        if self.position == index
            && let Some(sample) = self.reader.next_sample()?
        {
            self.position += 1;
            return Ok(sample);
        }
        self.take_from(index)
    }

    /// Goes to frame `index` and gives it.
    fn take_from(&mut self, index: usize) -> Result<gst::Sample> {
        if self.seekable {
            if let Some(sample) = self.seek(index)? {
                self.position = index + 1;
                return Ok(sample);
            }
            self.seekable = false;
            tracing::warn!(
                "{}: cannot be sought exactly, so each backward stretch decodes it from the start: slow for a long file",
                self.reader.path().display()
            );
        }
        self.reader = self.reader.again()?;
        for _ in 0..index {
            self.reader.next_sample()?;
        }
        self.position = index + 1;
        self.reader.next_sample()?.ok_or_else(|| {
            Failure::input(format!("{}: gives fewer frames the second time", self.reader.path().display()))
        })
    }

    /// The frame with the time of `index`, if a seek leads to it.
    fn seek(&mut self, index: usize) -> Result<Option<gst::Sample>> {
        let target = self.base + self.times[index];
        if !self.reader.seek(gst::ClockTime::from_nseconds(target)) {
            return Ok(None);
        }
        while let Some(sample) = self.reader.next_sample()? {
            let Some(time) = pts(&sample) else { return Ok(None) };
            if time.abs_diff(target) <= SLACK {
                return Ok(Some(sample));
            }
            if time > target {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

fn frame(sample: gst::Sample, pts: u64, duration: u64) -> Frame {
    Frame { sample, pts: gst::ClockTime::from_nseconds(pts), duration: gst::ClockTime::from_nseconds(duration) }
}

/// A copy that holds nothing of the decoder's: its pool may be small.
fn detached(sample: &gst::Sample) -> Result<gst::Sample> {
    let buffer = sample.buffer().ok_or_else(|| Failure::run("a decoded sample without a buffer"))?;
    let copy = buffer.copy_deep()?;
    Ok(gst::Sample::builder().buffer(&copy).caps_if_some(sample.caps_owned().as_ref()).build())
}

/// Time in the file, which is what a seek takes.
fn pts(sample: &gst::Sample) -> Option<u64> {
    let pts = sample.buffer()?.pts()?;
    let in_file = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>()?.to_stream_time(pts));
    Some(in_file.unwrap_or(pts).nseconds())
}

fn duration_of(sample: &gst::Sample) -> Option<u64> {
    sample.buffer()?.duration().map(|t| t.nseconds()).filter(|d| *d > 0)
}

/// How long a frame is shown when no other follows.
fn interval(sample: &gst::Sample) -> u64 {
    let rate = || {
        let rate = sample.caps()?.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
        (rate.numer() > 0).then(|| 1_000_000_000 * rate.denom() as u64 / rate.numer() as u64)
    };
    duration_of(sample).or_else(rate).filter(|d| *d < 10_000_000_000).unwrap_or(DEFAULT_INTERVAL)
}
