//! `lipstream-bench-live`: what lip-sync alone costs a live session, decoding and encoding apart, as JSON.
//!
//! Frames and speech lie in memory; the bins of one process take them at the pace of the clock, or as fast as they can.
//! The processor time of the whole process over the frames says how many sessions a core holds.

mod machine;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use gst::prelude::*;
use gst_app::{AppSink, AppSrc};
use gstlipstream::{stats::Times, sync::LipSyncStats};
use procfs::process::Process;
use serde::Serialize;

/// What lip-sync alone costs a live session on this machine
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[arg(long, default_value = "demo/avatar.mp4")]
    video: PathBuf,
    #[arg(long, default_value = "demo/speech.flac")]
    audio: PathBuf,
    /// Bins at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200))]
    sessions: u32,
    /// Seconds of video for each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    #[arg(long, default_value_t = 1280)]
    width: u32,
    #[arg(long, default_value_t = 720)]
    height: u32,
    /// As fast as the machine can, in the place of 25 frames a second
    #[arg(long)]
    flat_out: bool,
    /// Silence in the place of the speech
    #[arg(long)]
    silent: bool,
    /// Properties of `lipsync`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    machine: machine::Machine,
    sessions: u32,
    frames: u64,
    late: u64,
    /// Processor time of the process, all threads, over all frames of all sessions.
    cpu_ms_per_frame: f64,
    /// Sessions of 25 frames a second that a core would hold at that cost.
    sessions_per_core: f64,
    frames_per_second: f64,
    /// Of the process, while the sessions run.
    threads: u64,
    memory_bytes: u64,
    /// Of the first session, by element and stage.
    stages: BTreeMap<String, Stage>,
}

#[derive(Serialize)]
struct Stage {
    count: u64,
    p50_us: u64,
    p95_us: u64,
    p99_us: u64,
    /// Over all frames, with and without this stage.
    us_per_frame: f64,
}

const FPS: u64 = 25;
/// Frames that are shown there and back, over and over.
const LOOP: usize = 125;
const RATE: usize = 48_000;
/// Half a frame of mono floats.
const PIECE: usize = RATE / 50 * 4;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(cause) => {
            eprintln!("lipstream-bench-live: {cause}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String, String> {
    gst::init().map_err(|e| e.to_string())?;
    gstlipstream::plugin_desc::plugin_register_static().map_err(|e| e.to_string())?;
    let picture = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", arguments.width as i32)
        .field("height", arguments.height as i32)
        .field("framerate", gst::Fraction::new(FPS as i32, 1))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .build();
    let sound = gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("rate", RATE as i32)
        .field("channels", 1)
        .build();
    let frames = decoded(&arguments.video, "videoconvert ! videoscale ! videorate", &picture, LOOP)?;
    let mut speech = Vec::new();
    for piece in decoded(&arguments.audio, "audioconvert ! audioresample", &sound, usize::MAX)? {
        speech.extend_from_slice(&piece.map_readable().map_err(|e| e.to_string())?);
    }
    if arguments.silent {
        speech.fill(0);
    }
    let media = Arc::new(Media { frames, speech });
    let sessions: Vec<Session> = (0..arguments.sessions)
        .map(|_| Session::start(arguments, &picture, &sound).map_err(|e| e.to_string()))
        .collect::<Result<_, _>>()?;
    let total = u64::from(arguments.seconds) * FPS;
    let (start, before) = (Instant::now(), processor_seconds()?);
    let feeders: Vec<_> = sessions
        .iter()
        .map(|session| {
            let (media, video, voice) = (media.clone(), session.video.clone(), session.voice.clone());
            let pace = !arguments.flat_out;
            std::thread::spawn(move || media.feed(&video, &voice, total, pace))
        })
        .collect();
    for feeder in feeders {
        feeder.join().map_err(|_| "a feeder panicked")?.map_err(|e| e.to_string())?;
    }
    let status = Process::myself().and_then(|process| process.status()).map_err(|e| e.to_string())?;
    sessions.iter().try_for_each(Session::finish)?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), processor_seconds()? - before);
    let read = |s: &Session| LipSyncStats::from_structure(&s.bin.property::<gst::Structure>("stats"));
    let stats: Vec<LipSyncStats> = sessions.iter().map(read).collect();
    let frames = stats.iter().map(|s| s.frames.frames_out).sum::<u64>();
    let cpu_ms_per_frame = cpu * 1000.0 / frames.max(1) as f64;
    let report = Report {
        machine: machine::Machine::here(),
        sessions: arguments.sessions,
        frames,
        late: stats.iter().map(|s| s.frames.late).sum(),
        cpu_ms_per_frame,
        sessions_per_core: 1000.0 / (cpu_ms_per_frame * FPS as f64),
        frames_per_second: frames as f64 / wall,
        threads: status.threads,
        memory_bytes: status.vmrss.unwrap_or(0) * 1024,
        stages: stages(&stats[0]),
    };
    serde_json::to_string_pretty(&report).map_err(|e| e.to_string())
}

/// What the sessions show and say.
struct Media {
    frames: Vec<gst::Buffer>,
    speech: Vec<u8>,
}

impl Media {
    fn feed(&self, video: &AppSrc, voice: &AppSrc, total: u64, pace: bool) -> Result<(), gst::FlowError> {
        let start = Instant::now();
        let stamp = |buffer: &mut gst::Buffer, at: u64, length: u64| {
            let own = buffer.make_mut();
            own.set_pts(gst::ClockTime::from_mseconds(at));
            own.set_duration(gst::ClockTime::from_mseconds(length));
        };
        for tick in 0..total * 2 {
            let at = tick * 20;
            if pace {
                std::thread::sleep(Duration::from_millis(at).saturating_sub(start.elapsed()));
            }
            if tick.is_multiple_of(2) {
                let (count, i) = (self.frames.len(), (tick / 2) as usize % (2 * self.frames.len()));
                // A copy of its own, as a decoder gives one.
                let mut frame = self.frames[i.min(2 * count - 1 - i)].copy_deep().map_err(|_| gst::FlowError::Error)?;
                stamp(&mut frame, at, 40);
                video.push_buffer(frame)?;
            }
            let from = tick as usize * PIECE % (self.speech.len() - PIECE) / 4 * 4;
            let mut piece = gst::Buffer::from_slice(self.speech[from..from + PIECE].to_vec());
            stamp(&mut piece, at, 20);
            voice.push_buffer(piece)?;
        }
        video.end_of_stream()?;
        voice.end_of_stream()?;
        Ok(())
    }
}

struct Session {
    pipeline: gst::Pipeline,
    bin: gst::Element,
    video: AppSrc,
    voice: AppSrc,
}

impl Session {
    fn start(arguments: &Arguments, picture: &gst::Caps, sound: &gst::Caps) -> Result<Self, gst::glib::BoolError> {
        let source = |caps: &gst::Caps, bytes: u64| {
            AppSrc::builder()
                .caps(caps)
                .is_live(!arguments.flat_out)
                .format(gst::Format::Time)
                .max_bytes(bytes)
                .block(true)
                .build()
        };
        // Two frames in flight; speech must not keep its thread from the next frame.
        let (video, voice) = (source(picture, 4 << 20), source(sound, 1 << 30));
        let bin = gst::ElementFactory::make("lipsync").build()?;
        for pair in &arguments.set {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| gst::glib::bool_error!("{pair} is not NAME=VALUE"))?;
            bin.set_property_from_str(name, value);
        }
        let sink = || gst::ElementFactory::make("fakesink").property("sync", !arguments.flat_out).build();
        let (seen, heard) = (sink()?, sink()?);
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([video.upcast_ref(), voice.upcast_ref(), &bin, &seen, &heard])?;
        video.link_pads(Some("src"), &bin, Some("video_sink"))?;
        voice.link_pads(Some("src"), &bin, Some("audio_sink"))?;
        bin.link_pads(Some("video_src"), &seen, Some("sink"))?;
        bin.link_pads(Some("audio_src"), &heard, Some("sink"))?;
        pipeline.set_state(gst::State::Playing).map_err(|e| gst::glib::bool_error!("{e}"))?;
        Ok(Self { pipeline, bin, video, voice })
    }

    /// Waits for the end.
    fn finish(&self) -> Result<(), String> {
        let bus = self.pipeline.bus().ok_or("a pipeline without a bus")?;
        let last = bus.timed_pop_filtered(gst::ClockTime::NONE, &[gst::MessageType::Eos, gst::MessageType::Error]);
        match last.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(e)) => Err(e.error().message().to_owned()),
            _ => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Going to NULL does not fail.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Up to `most` buffers of a file's first stream of that kind.
fn decoded(path: &Path, convert: &str, caps: &gst::Caps, most: usize) -> Result<Vec<gst::Buffer>, String> {
    let line = format!("filesrc name=in ! decodebin ! {convert} ! appsink name=out sync=false max-buffers=4");
    let pipeline = gst::parse::launch(&line).map_err(|e| e.to_string())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    pipeline.by_name("in").ok_or("no element `in`")?.set_property("location", path);
    let sink = pipeline.by_name("out").and_downcast::<AppSink>().ok_or("no element `out`")?;
    sink.set_caps(Some(caps));
    pipeline.set_state(gst::State::Playing).map_err(|e| format!("{}: {e}", path.display()))?;
    let buffers: Vec<_> =
        std::iter::from_fn(|| sink.pull_sample().ok()).filter_map(|s| s.buffer_owned()).take(most).collect();
    pipeline.set_state(gst::State::Null).map_err(|e| e.to_string())?;
    if buffers.is_empty() { Err(format!("{}: nothing to decode", path.display())) } else { Ok(buffers) }
}

fn stages(stats: &LipSyncStats) -> BTreeMap<String, Stage> {
    let frames = stats.frames.frames_out.max(1);
    let stage = |(element, name, Times { percentiles, totals }): (&str, &str, &Times)| {
        let us_per_frame = totals.sum_us as f64 / frames as f64;
        let (p50_us, p95_us, p99_us) = (percentiles.p50, percentiles.p95, percentiles.p99);
        (format!("{element}/{name}"), Stage { count: totals.count, p50_us, p95_us, p99_us, us_per_frame })
    };
    stats.times().map(stage).into()
}

/// User and system time of the process so far, in seconds.
fn processor_seconds() -> Result<f64, String> {
    let stat = Process::myself().and_then(|process| process.stat()).map_err(|e| e.to_string())?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}
