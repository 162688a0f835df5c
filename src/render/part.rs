//! A render in parts: each is made by itself, from a little before it on, and [`join`] puts them together with the sound, which is
//! encoded once, from the speech as it came.
//!
//! A part is cut where its frames begin, in silence where there is some. Its graph hears the speech from the beginning, or
//! [`HEARD`] before, so that the voice, the motion and its noise are what they would be; frames are only counted until [`WARM`] before the
//! part, from where on they are made and thrown away, for the tracker and for what is smoothed over time. It goes on for [`TAIL`] after
//! the part, and its sound for as much more as the engine hears ahead. Picture and sound keep their times.

use std::{
    path::{Path, PathBuf},
    thread,
};

use gst::{ClockTime, prelude::*};
use gst_app::{AppSink, AppSrc};

use super::{
    Frames,
    output::{AudioCodec, Container, Length, Unfinished},
};
use crate::{
    background,
    error::{Failure, Kind, Result},
    marks::{Identity, manifest},
    media::{self, Base, Media, Notices, Outcome, Reader, SOUND, Sound, Track},
    render::{POLL, Watch},
};

/// Time before a part whose frames are made and thrown away, in whole seconds.
pub const WARM: ClockTime = ClockTime::from_seconds(3);
/// Time before that which is heard at most: what a mouth remembers of a voice fades within a minute. Beyond, only the noise is another,
/// and a part of a minute would take longer to be led up to than to be made: hearing goes at about fourteen times the speed of speech.
const HEARD: ClockTime = ClockTime::from_seconds(180);
/// Time after it for which frames are made.
const TAIL: ClockTime = ClockTime::from_seconds(1);
/// Where times begin for the muxer: frames are decoded before they are shown, the first ones before the beginning.
const ORIGIN: ClockTime = ClockTime::from_seconds(3600);
/// A frame's time may be rounded by so much.
const SLACK: ClockTime = ClockTime::from_mseconds(2);

/// A stretch of the output's time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where its graph begins to hear: whole seconds.
    pub heard: ClockTime,
    /// Where frames begin to be made: whole seconds.
    pub warm: ClockTime,
    /// Time of its first frame.
    pub from: ClockTime,
    /// Time of the first frame of the next part; `None`: it is the last.
    pub until: Option<ClockTime>,
    /// What its last frames hear of the time after them.
    pub ahead: ClockTime,
}

impl Part {
    pub fn new(from: ClockTime, until: Option<ClockTime>) -> Self {
        let warm = ClockTime::from_seconds(from.saturating_sub(WARM).seconds());
        Self { heard: warm.saturating_sub(HEARD), warm, from, until, ahead: ClockTime::ZERO }
    }

    /// Whether the frame that begins at `at` is its own.
    pub(super) fn holds(self, at: ClockTime) -> bool {
        at + SLACK >= self.from && self.until.is_none_or(|until| at + SLACK < until)
    }

    /// Whether no frame from `at` on changes it.
    pub(super) fn is_behind(self, at: ClockTime) -> bool {
        self.until.is_some_and(|until| at > until + TAIL)
    }

    /// Whether nothing that is heard from `at` on does.
    pub(super) fn is_unheard(self, at: ClockTime) -> bool {
        self.is_behind(at.saturating_sub(self.ahead))
    }
}

/// Times at which a speech may be cut: parts of about `length`, each cut moved to the quietest tenth of a second within a quarter of
/// that, on whole frames of `frame`. None where it is not longer than one and a half of them.
pub fn cuts(loudness: &[f32], length: ClockTime, frame: ClockTime) -> Vec<ClockTime> {
    let step = STEP.nseconds();
    let (each, whole) = ((length.nseconds() / step).max(1) as usize, loudness.len());
    let mut cuts = Vec::new();
    let mut at = each;
    while at + each / 2 < whole {
        let reach = each / 4;
        let window = at.saturating_sub(reach)..(at + reach + 1).min(whole);
        let quietest = window.clone().min_by(|a, b| {
            let near = |n: usize| n.abs_diff(at);
            loudness[*a].total_cmp(&loudness[*b]).then(near(*a).cmp(&near(*b)))
        });
        let middle = quietest.unwrap_or(at) as u64 * step + step / 2;
        let frames = middle / frame.nseconds().max(1);
        cuts.push(ClockTime::from_nseconds(frames * frame.nseconds().max(1)));
        at = quietest.unwrap_or(at) + each;
    }
    cuts.dedup();
    cuts
}

/// What one value of a loudness stands for.
pub const STEP: ClockTime = ClockTime::from_mseconds(100);

/// Loudness of a speech in steps of [`STEP`], and its length.
pub fn loudness(path: &Path) -> Result<Vec<f32>> {
    let notices = Notices::unheard();
    let converter = format!("{SOUND} ! audioconvert dithering=none");
    let caps = gst::Caps::builder("audio/x-raw").field("format", "F32LE").field("layout", "interleaved").build();
    let reader = Reader::open_as(path, Media::Audio, &Track::Default, &converter, &caps, &notices)?;
    let mut sound = Sound::of(reader, &notices)?;
    sound.begin_at(Base::own(sound.start()).sound);
    let (mut steps, mut sum, mut count) = (Vec::new(), 0.0f64, 0u64);
    while let Some(sample) = sound.next_sample()? {
        let info = sample.caps().and_then(|caps| gst_audio::AudioInfo::from_caps(caps).ok());
        let info = info.ok_or_else(|| Failure::run("decoded sound without a format"))?;
        let each = (u64::from(info.rate()) / 10).max(1) * u64::from(info.channels());
        let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) else { continue };
        for bytes in map.as_chunks().0 {
            sum += f64::from(f32::from_le_bytes(*bytes)).powi(2);
            count += 1;
            if count == each {
                steps.push((sum / each as f64) as f32);
                (sum, count) = (0.0, 0);
            }
        }
    }
    Ok(steps)
}

/// Times at which a render is cut into parts of about `length`: see [`cuts`]. None where the video has no fixed rate.
pub fn plan(video: &Path, audio: &Path, length: ClockTime) -> Result<Vec<ClockTime>> {
    let frames = Frames::open(video, Media::Video, false, &Notices::unheard())?;
    let caps = frames.reader().caps();
    let rate = caps.as_ref().and_then(|caps| caps.structure(0)?.get::<gst::Fraction>("framerate").ok());
    let second = ClockTime::SECOND.nseconds();
    let frame = rate.filter(|rate| rate.numer() > 0 && rate.denom() > 0);
    let Some(frame) = frame.map(|rate| second * rate.denom() as u64 / rate.numer() as u64).filter(|ns| *ns > 0) else {
        return Ok(Vec::new());
    };
    Ok(cuts(&loudness(audio)?, length, ClockTime::from_nseconds(frame)))
}

/// What is put together.
pub struct Joining<'a> {
    /// Files of the parts, in order, with the time of the first frame of each.
    pub parts: &'a [(PathBuf, ClockTime)],
    /// The video and the speech that went in.
    pub video: &'a Path,
    pub audio: &'a Path,
    pub output: &'a Path,
    pub engine: &'a str,
    pub signer: Option<&'a Identity>,
    pub watch: &'a Watch,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Joined {
    pub frames: u64,
    pub seconds: f64,
}

/// Writes the output: pictures as the parts have them, sound as an unsplit render encodes it.
pub fn join(joining: &Joining) -> Result<Joined> {
    let container = Container::of(joining.output)?;
    let codec = container.choose(None)?;
    let unfinished = Unfinished::create(joining.output)?;
    let notices = Notices::unheard();
    let mut speech = Sound::open(joining.audio, &Track::Default, &notices)?;
    speech.begin_at(Base::own(speech.start()).sound);
    let (frames, length) = run(joining, container, codec, speech, unfinished.path())?;
    let title = joining.output.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let made = joining.signer.filter(|_| container.holds_manifests()).map(|identity| {
        let (engine, video, audio) = (joining.engine, joining.video, joining.audio);
        (manifest::Making { title: &title, engine, video, audio, second_audio: None }, identity)
    });
    unfinished.finish(container, codec, length, made)?;
    Ok(Joined { frames, seconds: length.samples as f64 / f64::from(length.rate.max(1)) })
}

fn run(
    joining: &Joining,
    container: Container,
    codec: AudioCodec,
    speech: Sound,
    file: &Path,
) -> Result<(u64, Length)> {
    let parse = if container == Container::WebM { "" } else { "h264parse ! " };
    let description = format!(
        "appsrc name=video-in ! queue max-size-buffers=0 max-size-bytes=67108864 max-size-time=0 ! {parse}mux. \
         appsrc name=audio-in ! queue max-size-buffers=0 max-size-bytes=67108864 max-size-time=0 ! {} ! mux. \
         {} ! filesink name=file-out",
        codec.encoder(),
        container.muxer(),
    );
    let pipeline = launch(&description)?;
    let named = |name: &str| pipeline.by_name(name).ok_or_else(|| Failure::run(format!("no element `{name}`")));
    let source = |name: &str| named(name)?.downcast::<AppSrc>().map_err(|_| Failure::run("no appsrc"));
    named("file-out")?.set_property("location", file);
    let (video, audio) = (source("video-in")?, source("audio-in")?);
    video.set_property("handle-segment-change", true);
    for appsrc in [&video, &audio] {
        appsrc.set_format(gst::Format::Time);
        appsrc.set_block(true);
        appsrc.set_max_bytes(32 << 20);
    }
    let bus = pipeline.bus().expect("a pipeline has a bus");
    pipeline.set_state(gst::State::Playing)?;
    thread::scope(|scope| {
        let pictures = scope.spawn(|| push_parts(joining, &video));
        let sound = scope.spawn(|| super::feed::feed_alone(speech, &audio));
        let ended = loop {
            match media::check(&bus, POLL, Kind::Run) {
                Ok(Outcome::Ended) => break Ok(()),
                Ok(Outcome::Running) => {}
                Err(failure) => break Err(failure),
            }
            if joining.watch.stopped() {
                break Err(Failure::interrupted());
            }
            // The thread that failed has sent no end.
            if pictures.is_finished() && sound.is_finished() && bus.peek().is_none() {
                let eos = gst::ClockTime::from_seconds(30);
                break media::check(&bus, eos, Kind::Run).map(drop);
            }
        };
        pipeline.set_state(gst::State::Null)?;
        let panicked = |_| Failure::run("a feeding thread panicked");
        let pictures = pictures.join().map_err(panicked)?;
        let sound = sound.join().map_err(panicked)?;
        let ((frames, end), length) = ended.and(pictures).and_then(|pictures| Ok((pictures, sound?)))?;
        Ok((frames, Length { pictures: end, ..length }))
    })
}

fn launch(description: &str) -> Result<gst::Pipeline> {
    let pipeline = gst::parse::launch(description)
        .map_err(|e| Failure::run(format!("{}; `lipstream doctor` says what is missing", e.message())))?
        .downcast::<gst::Pipeline>()
        .map_err(|_| Failure::run("the graph is not a pipeline"))?;
    background::adopt(&pipeline);
    Ok(pipeline)
}

/// Frames of all parts, at their places; how many there are and when the last one ends.
fn push_parts(joining: &Joining, out: &AppSrc) -> Result<(u64, ClockTime)> {
    let (mut frames, mut end) = (0, ClockTime::ZERO);
    for (file, from) in joining.parts {
        push_part(file, *from, out, &mut frames, &mut end)?;
    }
    // A graph that has stopped takes no end of stream either.
    let _ = out.end_of_stream();
    Ok((frames, end))
}

fn push_part(file: &Path, from: ClockTime, out: &AppSrc, frames: &mut u64, end: &mut ClockTime) -> Result<()> {
    let webm = file.extension().is_some_and(|extension| extension == "webm");
    let demuxer = if webm { "matroskademux" } else { "qtdemux" };
    let pipeline = launch(&format!("filesrc name=file-in ! {demuxer} ! appsink name=out sync=false"))?;
    let named = |name: &str| pipeline.by_name(name).ok_or_else(|| Failure::run(format!("no element `{name}`")));
    named("file-in")?.set_property("location", file);
    let sink = named("out")?.downcast::<AppSink>().map_err(|_| Failure::run("no appsink"))?;
    sink.set_max_buffers(8);
    pipeline.set_state(gst::State::Playing)?;
    let mut first = None;
    let mut pushed = Ok(());
    while let Ok(sample) = sink.pull_sample() {
        let Some(buffer) = sample.buffer() else { continue };
        let mut buffer = buffer.copy();
        let (pts, dts) = (buffer.pts().unwrap_or_default(), buffer.dts());
        // The first frame that is decoded is the first that is shown.
        let first = *first.get_or_insert(pts);
        let placed = |time: ClockTime| (time + from + ORIGIN).saturating_sub(first);
        let header = buffer.make_mut();
        header.set_pts(placed(pts));
        header.set_dts(dts.map(placed));
        *frames += 1;
        let until = placed(pts) + header.duration().unwrap_or_default();
        *end = (*end).max(until.saturating_sub(ORIGIN));
        let mut segment = gst::FormattedSegment::<ClockTime>::new();
        segment.set_start(ORIGIN);
        let caps = sample.caps_owned();
        let sample = gst::Sample::builder().buffer(&buffer).caps_if_some(caps.as_ref()).segment(&segment).build();
        if out.push_sample(&sample).is_err() {
            pushed = Err(Failure::interrupted());
            break;
        }
    }
    let broken = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    pipeline.set_state(gst::State::Null)?;
    if let Some(message) = broken
        && let gst::MessageView::Error(error) = message.view()
    {
        return Err(Failure::run(format!("{}: {}", file.display(), error.error())));
    }
    if first.is_none() {
        return Err(Failure::run(format!("{}: the part has no picture", file.display())));
    }
    pushed
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: ClockTime = ClockTime::from_mseconds(40);

    #[test]
    fn a_part_has_its_frames_and_no_others() {
        let part = Part::new(ClockTime::from_mseconds(7_320), Some(ClockTime::from_seconds(9)));
        assert_eq!(part.warm, ClockTime::from_seconds(4));
        let holds = |ms| part.holds(ClockTime::from_mseconds(ms));
        assert_eq!([7_280, 7_319, 7_320, 8_960, 9_000].map(holds), [false, true, true, true, false]);
        assert!(!part.is_behind(ClockTime::from_seconds(10)) && part.is_behind(ClockTime::from_mseconds(10_040)));
        assert_eq!(Part::new(ClockTime::from_seconds(2), None).warm, ClockTime::ZERO);
    }

    #[test]
    fn a_speech_is_cut_where_it_is_quiet_and_on_a_frame() {
        let mut loud = vec![1.0; 300];
        (loud[93], loud[212]) = (0.001, 0.0);
        let length = ClockTime::from_seconds(10);
        let cuts = cuts(&loud, length, FRAME);
        assert_eq!(cuts, [9_320, 21_240].map(ClockTime::from_mseconds));
        assert!(cuts.iter().all(|cut| cut.nseconds().is_multiple_of(FRAME.nseconds())));
        // Nothing is quieter: they stay where they would be.
        let even = super::cuts(&vec![1.0; 300], length, FRAME);
        assert_eq!(even, [10_040, 20_040].map(ClockTime::from_mseconds));
        assert!(super::cuts(&vec![1.0; 149], length, FRAME).is_empty());
        assert!(super::cuts(&[], length, FRAME).is_empty());
    }
}
