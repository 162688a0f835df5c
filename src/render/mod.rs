//! `lipstream render`: a video and a speech file become a talking video.
//!
//! 1. Both inputs are opened, so that what is wrong with them is said before anything is computed.
//! 2. [`gather`] looks at the video for the person's own mouth shapes and keeps them as a reference bank.
//! 3. [`feed`] pushes both streams through the graph of [`pipeline`], as far as [`extent`] allows; [`looping`] makes the video last.
//! 4. [`output`] gives the finished file its name.

mod edit_list;
mod extent;
mod feed;
pub(crate) mod gather;
mod looping;
mod matroska;
mod output;
mod pace;
pub(crate) mod part;
mod pipeline;
pub(crate) mod progress;
mod stats;
mod watch;
mod webm;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use gst::{glib, prelude::*};
pub(crate) use gstlipstream::DEFAULT_ENGINE;
use gstlipstream::{alpha::Mode, sync::LipSyncStats};
use lipstream_engines::{
    enhance::Filter,
    manifest::Package,
    occlusion::Masks,
    runtime::{self, Device},
};
use serde::Serialize;

#[doc(hidden)]
pub use self::{edit_list::with_edit, matroska::duration_place};
use self::{
    feed::{Ahead, Feed, Span},
    looping::Frames,
    output::{Container, Length, Unfinished},
    pipeline::Pipeline,
    progress::Progress,
};
pub use self::{
    output::AudioCodec,
    part::Part,
    watch::{Standing, Watch},
};
use crate::{
    error::{Failure, Kind, Result},
    marks::{Identity, manifest},
    media::{self, Base, Media, Notice, Notices, Outcome, Sequence, Sound, Track, sequence::Pattern},
    process,
    untouched::{self, Untouched},
};

/// How often the bus, the progress and the signals are looked at.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(100);

/// Part of the progress that looking at the person is.
const LOOKING: f32 = 0.1;

/// What is done to the face once the mouth is pasted; what is not said has the defaults of `lipenhance`.
#[derive(Clone, Debug, PartialEq)]
pub struct Enhance {
    pub by: Enhancer,
    /// 0..1.
    pub strength: Option<f64>,
    /// 0..1.
    pub mouth_protection: Option<f64>,
    /// 0..1, for a network.
    pub fidelity: Option<f64>,
    /// Frames of a face for one evaluation of a network.
    pub every: Option<u8>,
    /// By how much the whole picture is enlarged before, 1..2.
    pub upscale: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Enhancer {
    Filter(Filter),
    /// The name of one that is installed, or its ONNX file.
    Network(String),
}

/// How the video is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quality {
    /// x264's constant quality and its preset; 4 Mbit/s of VP8.
    Crf { crf: u32, preset: String },
    /// kbit/s, and x264's preset.
    BitRate { rate: u32, preset: String },
    /// Visually lossless: x264 at a quality of 12, preset `slow`, tuned for film; VP8 at a quality of 4 within 40 Mbit/s.
    High,
}

/// What to render and how; the command line fills it.
#[derive(Clone, Debug)]
pub struct Options {
    pub video: PathBuf,
    pub audio: PathBuf,
    pub audio_track: Track,
    /// A second voice, for the faces that the property `speaker-b` names.
    pub second_audio: Option<PathBuf>,
    pub output: PathBuf,
    /// Properties of `lipsync` by name, as text; absent ones keep their defaults.
    pub properties: Vec<(&'static str, String)>,
    pub engine: Option<String>,
    /// As the published program of the engine does it.
    pub exact: bool,
    /// What looks for what is before the face; nothing does with `exact`.
    pub occlusion: Masks,
    /// In milliseconds; `None`: the longest that the engine has, since nobody waits for a file.
    pub look_ahead: Option<u32>,
    pub runtime: runtime::Options,
    /// A bank to use; without one the video is looked at first, unless `gather` is off.
    pub reference_bank: Option<PathBuf>,
    pub gather: bool,
    pub looped: bool,
    /// What becomes of the video's transparency.
    pub alpha: Mode,
    /// What is done to the face once the mouth is pasted.
    pub enhance: Option<Enhance>,
    pub audio_codec: Option<AudioCodec>,
    pub quality: Quality,
    /// Who signs the manifest of an MP4 or MOV; `None`: it gets none.
    pub signer: Option<Identity>,
    /// A stretch alone, without sound; `None`: all of it.
    pub part: Option<Part>,
    pub quiet: bool,
    pub watch: Watch,
    pub notices: Notices,
}

impl Options {
    fn apply(&self, lipsync: &gst::Element) -> Result<()> {
        for (name, value) in &self.properties {
            let spec = lipsync.find_property(name).ok_or_else(|| Failure::run(format!("lipsync has no {name}")))?;
            // As text a string would be unquoted.
            let value = match spec.value_type() {
                glib::Type::STRING => value.to_value(),
                kind => glib::Value::deserialize(value, kind)?,
            };
            lipsync.set_property_from_value(name, &value);
        }
        Ok(())
    }
}

/// What came of a render.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub output: PathBuf,
    pub frames: u64,
    /// Frames that keep their own mouth although another was wanted, by reason.
    pub untouched: Untouched,
    /// Time of the first of them, in ns.
    #[serde(skip)]
    pub start: Option<u64>,
    /// Length of the output.
    pub seconds: f64,
    /// Time that the graph took, without looking at the video beforehand.
    pub wall_seconds: f64,
    /// Seconds of output a second of work.
    pub rtf: f64,
    /// Time until the first frame left the bin: models loaded and compiled, the look-ahead filled.
    pub first_frame_seconds: f64,
    /// Largest resident memory of the process.
    pub peak_memory_bytes: Option<u64>,
    /// Time spent on the reference bank; 0 where it was at hand.
    pub gather_seconds: f64,
    pub audio_samples: u64,
    pub audio_rate: u32,
    pub audio_codec: String,
    pub engine: String,
    /// Whether the output has a signed C2PA manifest.
    pub manifest: bool,
    pub device: String,
    /// What was chosen, converted or missing in the inputs.
    pub notices: Vec<Notice>,
    pub stats: serde_json::Value,
}

pub fn render(mut options: Options) -> Result<Summary> {
    let container = Container::of(&options.output)?;
    let codec = container.choose(options.audio_codec)?;
    if options.alpha == Mode::Keep && !container.holds_alpha() {
        return Err(Failure::usage(format!(
            "--alpha keep: {container} cannot hold transparency; .webm, .mov and pictures as %05d.png can"
        )));
    }
    let media = if options.alpha == Mode::Drop { Media::Video } else { Media::Alpha };
    refuse_overwriting_inputs(&options)?;
    let mut speech = Sound::open(&options.audio, &options.audio_track, &options.notices)?;
    let second =
        options.second_audio.as_ref().map(|path| Sound::open(path, &Track::Default, &options.notices)).transpose()?;
    let frames = Frames::open(&options.video, media, options.looped, &options.notices)?;
    let base = base(&frames, &speech, &options.notices);
    speech.begin_at(base.sound);
    let engine = Package::find(options.engine.as_deref().unwrap_or(DEFAULT_ENGINE))?;
    let look_ahead = options.look_ahead.or_else(|| engine.look_aheads().max()).unwrap_or(0);
    let engine = engine.with_look_ahead(look_ahead)?;
    let ahead = ahead(&engine);
    if let Some(part) = &mut options.part {
        part.ahead = ahead.sound;
    }
    let ahead = Some(ahead).filter(|ahead| ahead.sound >= pipeline::SOURCE_QUEUE);
    options.properties.push(("look-ahead", look_ahead.to_string()));
    options.properties.push(("occlusion", options.occlusion.to_string()));
    let engine = if options.exact { engine.exact()? } else { engine };
    if engine.hears_whole() && !options.looped {
        return Err(Failure::usage(format!(
            "engine `{}` hears all of the audio before the first frame with --exact, and --no-loop ends it with the video: cut the \
             audio as long as the video, or leave out one of the two",
            engine.manifest().name
        )));
    }
    // A broken model is said now, not after the video has been looked at.
    engine.manifest().files.keys().try_for_each(|part| engine.check(part))?;
    engine.check_built(&options.runtime)?;
    let unfinished = Unfinished::create(&options.output)?;

    let gathering = Instant::now();
    // An adapted engine brings its own.
    let looking = (options.runtime, &options.occlusion);
    if options.reference_bank.is_none() && options.gather && !engine.is_adapted() && engine.gathers() {
        let several =
            second.is_some() || options.properties.iter().any(|(name, word)| *name == "speaker" && word != "largest");
        options.reference_bank = gather::bank(
            (&options.video, media),
            &engine,
            several,
            looking,
            options.quiet,
            &options.watch,
            &options.notices,
        )?;
    }
    let gather_seconds = gathering.elapsed().as_secs_f64();
    if let Some(bank) = &options.reference_bank {
        options.properties.push(("reference-bank", bank.display().to_string()));
    }

    let caps = frames.reader().caps().unwrap_or_else(gst::Caps::new_any);
    let expected = expected_frames(&caps, &frames, &speech, options.looped, options.part);
    let rate = second.as_ref().map(|_| speech.reader().caps().as_ref().and_then(rate).unwrap_or(RATE));
    let graph = Pipeline::build(&options, container, codec, &caps, rate, ahead.is_some(), &unfinished)?;
    let started = Instant::now();
    let length = run(&graph, (frames, speech, base), second, expected, ahead, &options).and_then(|length| {
        graph.close()?;
        Ok(length)
    });
    let length = length.map_err(|failure| match graph.failure() {
        Some(cause) => Failure::output(format!("{}: {cause}", options.output.display())),
        None => failure,
    })?;
    let wall_seconds = started.elapsed().as_secs_f64();
    let stats = stats::of(&graph.lipsync);
    let untouched =
        untouched::of(&LipSyncStats::from_structure(&graph.lipsync.property::<gst::Structure>("stats")).untouched);
    let frames = graph.frames();
    if let Some(sentence) = untouched::sentence(&untouched, frames) {
        options.notices.warn("untouched", format!("{}: {sentence}", options.video.display()));
    }
    let first_frame = graph.first_frame().map_or(0.0, |at| at.saturating_duration_since(started).as_secs_f64());
    let start = graph.start().map(|start| start.nseconds());
    drop(graph);

    let seconds = length.samples as f64 / f64::from(length.rate.max(1));
    let title = options.output.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let signer = options.signer.as_ref().filter(|_| container.holds_manifests() && options.part.is_none());
    let manifest = signer.map(|identity| {
        let engine = engine.manifest().name.as_str();
        let second_audio = options.second_audio.as_deref();
        (
            manifest::Making { title: &title, engine, video: &options.video, audio: &options.audio, second_audio },
            identity,
        )
    });
    let marked = manifest.is_some();
    match options.part {
        Some(_) => unfinished.finish_as_it_is()?,
        None => unfinished.finish(container, codec, length, manifest)?,
    }
    Ok(Summary {
        output: options.output.clone(),
        frames,
        untouched,
        start,
        seconds,
        wall_seconds,
        rtf: seconds / wall_seconds.max(1e-9),
        first_frame_seconds: first_frame,
        peak_memory_bytes: process::peak_memory(),
        gather_seconds,
        audio_samples: length.samples,
        audio_rate: length.rate,
        audio_codec: codec.to_string(),
        engine: engine.manifest().name.clone(),
        manifest: marked,
        device: device_taken(&options.runtime, &engine).to_string(),
        notices: options.notices.list(),
        stats,
    })
}

/// What frames of an engine hear of the time after them.
fn ahead(engine: &Package) -> Ahead {
    let time = |time: std::time::Duration| gst::ClockTime::from_nseconds(time.as_nanos() as u64);
    let sound = time(lipstream_engines::engine::look_ahead(engine.manifest()).unwrap_or_default());
    let overhang = engine.manifest().audio.as_ref().map_or(gst::ClockTime::ZERO, |audio| time(audio.overhang()));
    Ahead { sound, features: sound.saturating_sub(overhang) }
}

/// Runs the graph to its end; an error of the graph or of a file ends it early.
fn run(
    graph: &Pipeline,
    (frames, speech, base): (Frames, Sound, Base),
    second: Option<Sound>,
    expected: Option<u64>,
    ahead: Option<Ahead>,
    options: &Options,
) -> Result<Length> {
    let bus = graph.pipeline.bus().expect("a pipeline has a bus");
    let refused = graph.pipeline.set_state(gst::State::Playing).is_err();
    if refused {
        media::check(&bus, gst::ClockTime::ZERO, Kind::Engine)?;
        return Err(Failure::run("the graph refused to start"));
    }
    let span = Span { looped: options.looped, part: options.part, ahead };
    let feed = Feed::start(frames, base, speech, graph, span);
    let feed = match (second, &graph.second) {
        (Some(speech), Some(out)) => feed.with_second(speech, out.clone()),
        _ => feed,
    };
    let mut progress = Progress::start("render", expected, options.quiet, &options.watch, LOOKING..1.0);
    let ended = loop {
        match media::check(&bus, POLL, Kind::Run) {
            Ok(Outcome::Ended) => break Ok(()),
            Ok(Outcome::Running) => {}
            Err(failure) => break Err(failure),
        }
        if options.watch.stopped() {
            break Err(Failure::interrupted());
        }
        if feed.failed() {
            break Ok(());
        }
        progress.at(graph.frames());
    };
    progress.finish();
    if ended.is_err() || feed.failed() {
        // A graph at NULL flushes its sources, which frees a thread that waits to push.
        feed.stop();
        graph.pipeline.set_state(gst::State::Null)?;
    }
    let fed = feed.join();
    ended.and(fed)
}

/// Sampling rate of a sound that does not say its own.
const RATE: u32 = 48_000;

fn rate(caps: &gst::Caps) -> Option<u32> {
    caps.structure(0)?.get::<i32>("rate").ok().and_then(|rate| u32::try_from(rate).ok())
}

/// Two streams of one file keep their places; two files begin together.
fn base(frames: &Frames, speech: &Sound, notices: &Notices) -> Base {
    let own = Base::own(speech.start());
    if !frames.reader().same_file(speech.reader()) {
        return own;
    }
    let picture = frames.reader().start().unwrap_or_default();
    Base::shared(picture, speech.start()).unwrap_or_else(|| {
        let path = speech.reader().path().display();
        let text = "picture and sound begin more than ten minutes apart: both are taken from their beginning";
        notices.warn("apart", format!("{path}: {text}"));
        own
    })
}

fn expected_frames(caps: &gst::Caps, frames: &Frames, speech: &Sound, looped: bool, part: Option<Part>) -> Option<u64> {
    let rate = caps.structure(0)?.get::<gst::Fraction>("framerate").ok().filter(|f| f.numer() > 0)?;
    let audio = speech.reader().duration()?;
    let length = if looped { audio } else { frames.reader().duration().map_or(audio, |video| video.min(audio)) };
    let length = part.map_or(length, |part| part.until.unwrap_or(length).saturating_sub(part.from));
    length.nseconds().mul_div_ceil(rate.numer() as u64, rate.denom() as u64 * 1_000_000_000)
}

/// What `auto` stands for on this machine for the engine's largest network.
fn device_taken(asked: &runtime::Options, engine: &Package) -> Device {
    runtime::taken(asked.device, asked.precision, engine.largest() as usize).unwrap_or(asked.device)
}

fn refuse_overwriting_inputs(options: &Options) -> Result<()> {
    let pattern = Pattern::of(&options.output);
    if pattern.is_some() && pattern == Sequence::of(&options.video).and_then(|pictures| Some(pictures.ok()?.pattern)) {
        return Err(Failure::usage(format!("{}: the output is one of the inputs", options.output.display())));
    }
    let Ok(output) = options.output.canonicalize() else { return Ok(()) };
    let same = |input: &Path| input.canonicalize().is_ok_and(|input| input == output);
    let second = options.second_audio.as_deref().is_some_and(same);
    if same(&options.video) || same(&options.audio) || second {
        return Err(Failure::usage(format!("{}: the output is one of the inputs", options.output.display())));
    }
    Ok(())
}
