//! Feeds the graph: one thread a stream, each decoding and pushing at the graph's own pace.
//!
//! Both streams start at zero and end together. Which one decides the end is a matter of looping: looped, the video
//! lasts as long as the audio; not looped, the shorter one ends both. Each thread publishes how far its file is known
//! to reach before it pushes, and neither pushes past what the other one is not yet known to reach. The threads cannot
//! wait for each other both at once: whichever is behind has already published. A second voice follows the first: it is silent after its
//! own end and cut off at that of the first.
//!
//! Where frames hear seconds of what comes after them, sound runs ahead by as much. Frames are not pushed before their features are there:
//! those that waited in the graph would fill its queues. Sound that was heard of the time after a video that is not looped is cut
//! off behind the graph.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use gst::ClockTime;
use gst_app::AppSrc;

use super::{Part, extent::Shared, looping::Frames, output::Length, pipeline::Pipeline};
use crate::{
    error::{Failure, Kind, Result},
    media::{Base, Sound},
};

/// Longest piece of audio that is pushed at once: the graph works ahead in small steps.
const PIECE: Duration = Duration::from_millis(100);
/// Least time of a frame that would be heard: the times of frames and samples are rounded apart.
const LEAST: ClockTime = ClockTime::from_mseconds(1);
/// What sound may run ahead of frames beyond what they hear: pieces and filters are of fractions of a second.
const BEYOND: ClockTime = ClockTime::from_seconds(1);

/// What frames hear of the time after them, where that is more than the queues of the graph hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    /// Sound that must have come.
    pub sound: ClockTime,
    /// Time of the last of their features.
    pub features: ClockTime,
}

/// What of the files is fed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// The video lasts as long as the sound.
    pub looped: bool,
    pub part: Option<Part>,
    pub ahead: Option<Ahead>,
}

/// The threads.
pub struct Feed {
    shared: Arc<Shared>,
    video: JoinHandle<Result<ClockTime>>,
    audio: JoinHandle<Result<Length>>,
    second: Option<JoinHandle<Result<()>>>,
    looped: bool,
}

impl Feed {
    pub fn start(frames: Frames, base: Base, speech: Sound, graph: &Pipeline, span: Span) -> Self {
        let shared = Arc::new(Shared::default());
        if span.ahead.is_some() {
            shared.clone().hear(&graph.features);
        }
        if let Some(cut) = &graph.cut {
            shared.clone().cut(cut);
        }
        let (video, audio) = (graph.video.clone(), graph.audio.clone());
        let (for_video, for_audio) = (shared.clone(), shared.clone());
        Self {
            shared,
            second: None,
            looped: span.looped,
            video: thread::spawn(move || {
                let fed = feed_video(frames, base, &video, &for_video, span);
                for_video.update(|e| e.failed |= fed.is_err());
                fed
            }),
            audio: thread::spawn(move || {
                let fed = feed_audio(speech, &audio, &for_audio, span);
                for_audio.update(|e| e.failed |= fed.is_err());
                fed
            }),
        }
    }

    /// Feeds a second voice as well, as far as the first one reaches.
    pub fn with_second(mut self, speech: Sound, out: AppSrc) -> Self {
        let shared = self.shared.clone();
        self.second = Some(thread::spawn(move || {
            let fed = feed_second(speech, &out, &shared);
            shared.update(|e| e.failed |= fed.is_err());
            fed
        }));
        self
    }

    /// Whether a thread gave up, after which the graph will not end by itself.
    pub fn failed(&self) -> bool {
        self.shared.extent.lock().failed
    }

    /// Ends both threads; what they push is refused by a graph that has stopped.
    pub fn stop(&self) {
        self.shared.update(|e| e.failed = true);
    }

    /// Waits for both and says how much sound was fed. A push that the graph refuses ends a thread without a failure: the graph's own error says why.
    pub fn join(self) -> Result<Length> {
        let stopped = |_| Failure::run("a feeding thread panicked");
        let video = self.video.join().map_err(stopped)?;
        let audio = self.audio.join().map_err(stopped)?;
        let second = self.second.map_or(Ok(Ok(())), JoinHandle::join).map_err(stopped)?;
        // One thread's failure interrupts the other: the cause is the one that is no interruption.
        let audio = match (audio, second) {
            (Ok(length), second) => second.map(|()| length),
            (Err(failure), Err(second)) if failure.kind == Kind::Interrupted => Err(second),
            (Err(failure), _) => Err(failure),
        };
        let video_ends = self.shared.extent.lock().video;
        match (video, audio) {
            (Ok(pictures), Ok(length)) => {
                let heard = if self.looped { u64::MAX } else { samples(video_ends, length.rate) };
                Ok(Length { pictures, samples: length.samples.min(heard), ..length })
            }
            (Err(a), Err(b)) => Err(if a.kind == Kind::Interrupted { b } else { a }),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        }
    }
}

/// Gives the time at which the last frame ends. The first frame stands until the others begin.
fn feed_video(mut frames: Frames, base: Base, out: &AppSrc, shared: &Shared, span: Span) -> Result<ClockTime> {
    let Span { part, ahead, .. } = span;
    let waits = ClockTime::from_nseconds(base.picture_waits.max(0) as u64);
    let mut end = ClockTime::ZERO;
    let mut first = true;
    'frames: while let Some(frame) = frames.next()? {
        let mut from = if std::mem::take(&mut first) { ClockTime::ZERO } else { frame.pts + waits };
        // Time moves on, whatever a broken file claims.
        let step = frame.duration.max(LEAST);
        let until = (frame.pts + waits).saturating_add(step);
        while from < until {
            // A frame that stands longer than its duration is shown again and again: its lips move.
            let left = until - from;
            let duration = if left.saturating_sub(step) < step { left } else { step };
            shared.update(|e| e.video = from + duration);
            let least = if from.is_zero() { ClockTime::ZERO } else { LEAST };
            let wanted =
                shared.wait(|e| if e.audio > from + least { Some(true) } else { e.audio_ended.then_some(false) })?;
            if !wanted || part.is_some_and(|part| part.is_behind(from)) {
                break 'frames;
            }
            if part.is_some_and(|part| from < part.heard) {
                from += duration;
                continue;
            }
            let unseen = part.is_some_and(|part| from < part.warm);
            if let Some(ahead) = ahead {
                shared.wait(|e| (e.features_ended || e.features > from + ahead.features).then_some(()))?;
            }
            if !push(out, &frame.sample, from, duration, unseen)? {
                return Ok(end);
            }
            from += duration;
            end = from;
        }
    }
    shared.update(|e| e.video_ended = true);
    // A graph that has stopped takes no end of stream either.
    let _ = out.end_of_stream();
    Ok(end)
}

fn push(out: &AppSrc, sample: &gst::Sample, pts: ClockTime, duration: ClockTime, unseen: bool) -> Result<bool> {
    let buffer = sample.buffer().ok_or_else(|| Failure::run("a decoded sample without a buffer"))?;
    let mut buffer = buffer.copy();
    let header = buffer.make_mut();
    header.set_pts(pts);
    header.set_dts(None);
    header.set_duration(duration);
    if unseen {
        header.set_flags(gst::BufferFlags::DECODE_ONLY);
    }
    let sample = gst::Sample::builder().buffer(&buffer).caps_if_some(sample.caps_owned().as_ref()).build();
    Ok(out.push_sample(&sample).is_ok())
}

/// Feeds a sound with which nothing else is fed.
pub fn feed_alone(speech: Sound, out: &AppSrc) -> Result<Length> {
    feed_audio(speech, out, &Shared::default(), Span { looped: true, ..Span::default() })
}

fn feed_audio(mut speech: Sound, out: &AppSrc, shared: &Shared, span: Span) -> Result<Length> {
    let Span { looped, part, ahead } = span;
    let beyond = ahead.map_or(ClockTime::ZERO, |ahead| ahead.sound + BEYOND);
    let mut fed = Length::default();
    'samples: while let Some(sample) = speech.next_sample()? {
        let format = Format::of(&sample)?;
        fed.rate = format.rate;
        // Whole seconds are whole samples.
        let skipped = part.map_or(0, |part| samples(part.heard, fed.rate));
        let Some(buffer) = sample.buffer() else { continue };
        let total = buffer.size() / format.frame_bytes;
        let piece = (PIECE.as_millis() as usize * format.rate as usize / 1000).max(1);
        let mut taken = 0;
        while taken < total {
            let end = (taken + piece).min(total);
            // What comes before a part is left out, up to its first sample.
            if fed.samples < skipped {
                let count = ((skipped - fed.samples) as usize).min(end - taken);
                fed.samples += count as u64;
                taken += count;
                continue;
            }
            if part.is_some_and(|part| part.is_unheard(time(fed.samples, fed.rate))) {
                break 'samples;
            }
            let reaches = time(fed.samples + (end - taken) as u64, fed.rate);
            shared.update(|e| e.audio = reaches);
            let mut count = end - taken;
            if !looped {
                let until = shared.wait(|e| match e.video_ended {
                    true => Some(e.video),
                    false => (e.video + beyond >= reaches).then_some(reaches),
                })?;
                let allowed = samples(until, fed.rate).saturating_sub(fed.samples);
                count = count.min(allowed as usize);
            }
            if count > 0 {
                let bytes = taken * format.frame_bytes..(taken + count) * format.frame_bytes;
                let mut part = buffer.copy_region(gst::BufferCopyFlags::MEMORY, bytes)?;
                let header = part.make_mut();
                let start = time(fed.samples, fed.rate);
                header.set_pts(start);
                header.set_duration(time(fed.samples + count as u64, fed.rate) - start);
                let part = gst::Sample::builder().buffer(&part).caps_if_some(sample.caps_owned().as_ref()).build();
                if out.push_sample(&part).is_err() {
                    return Ok(fed);
                }
                fed.samples += count as u64;
            }
            if count < end - taken {
                break 'samples;
            }
            taken = end;
        }
    }
    shared.update(|e| {
        e.audio = time(fed.samples, fed.rate);
        e.audio_ended = true;
    });
    // As for the video.
    let _ = out.end_of_stream();
    Ok(fed)
}

/// Feeds a voice beside the one that says how long all of it is.
fn feed_second(mut speech: Sound, out: &AppSrc, shared: &Shared) -> Result<()> {
    let mut fed = 0;
    while let Some(sample) = speech.next_sample()? {
        let format = Format::of(&sample)?;
        let Some(buffer) = sample.buffer() else { continue };
        let count = buffer.size() / format.frame_bytes;
        let (start, end) = (time(fed, format.rate), time(fed + count as u64, format.rate));
        let heard = shared.wait(|e| (e.audio >= end || e.audio_ended).then_some(e.audio))?;
        let count = count.min(samples(heard, format.rate).saturating_sub(fed) as usize);
        if count == 0 {
            break;
        }
        let mut part = buffer.copy_region(gst::BufferCopyFlags::MEMORY, ..count * format.frame_bytes)?;
        fed += count as u64;
        let header = part.make_mut();
        header.set_pts(start);
        header.set_duration(time(fed, format.rate) - start);
        let part = gst::Sample::builder().buffer(&part).caps_if_some(sample.caps_owned().as_ref()).build();
        if out.push_sample(&part).is_err() {
            break;
        }
    }
    // As for the first.
    let _ = out.end_of_stream();
    Ok(())
}

struct Format {
    rate: u32,
    /// Bytes of one sample of all channels.
    frame_bytes: usize,
}

impl Format {
    fn of(sample: &gst::Sample) -> Result<Self> {
        let info = sample.caps().and_then(|caps| gst_audio::AudioInfo::from_caps(caps).ok());
        let info = info.ok_or_else(|| Failure::run("decoded audio without a format"))?;
        Ok(Self { rate: info.rate(), frame_bytes: info.bpf() as usize })
    }
}

/// Time of sample `n`.
pub fn time(n: u64, rate: u32) -> ClockTime {
    ClockTime::from_nseconds((u128::from(n) * 1_000_000_000 / u128::from(rate.max(1))) as u64)
}

/// Samples that begin before `t`.
pub fn samples(t: ClockTime, rate: u32) -> u64 {
    (u128::from(t.nseconds()) * u128::from(rate)).div_ceil(1_000_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_times_and_counts_agree_without_drift() {
        for rate in [8000, 16000, 22050, 44100, 48000, 96000] {
            for n in [1, 441, 44_100, 1_000_003, 3_600 * u64::from(rate)] {
                let t = time(n, rate);
                assert!(samples(t, rate).abs_diff(n) <= 1, "{n} at {rate}");
                assert!(time(n + 1, rate) > t);
            }
        }
    }
}
