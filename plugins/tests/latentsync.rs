//! LatentSync in `lipsync`: streams of forty seconds, fed by their own times and not by a clock. What a frame waits for is what the
//! latency says, and what happens in a stream stays where it happens.

mod common;
#[path = "../../engines/tests/common/narrow.rs"]
mod narrow;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{
    live::{RATE, people, sources, voice},
    ms, stat,
};
use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks, AppSrc};
use gst_video::VideoInfo;
use lipstream_engines::import::{self, Request, onnx::Precision};

/// Waits until something is so, however busy the machine is; three minutes are a failure.
fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed().as_secs() < 180, "not in three minutes: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Milliseconds of a frame and of a piece of sound.
const FRAME: u64 = 40;
const PIECE: u64 = 20;
/// New frames of a clip.
const HOP: usize = 4;
const WIDTH: u32 = 320;
const HEIGHT: u32 = 180;

/// A `lipsync` whose sources give a piece of sound and what frames there are, and wait for the frames that must leave.
struct Offline {
    pipeline: gst::Pipeline,
    bin: gst::Element,
    video: AppSrc,
    voice: AppSrc,
    seen: Arc<Mutex<Vec<gst::Buffer>>>,
    /// Frames that were given.
    given: Vec<gst::Buffer>,
    latency: u64,
    /// Milliseconds that were given.
    fed: u64,
}

impl Offline {
    fn new(info: &VideoInfo, engine: &Path, properties: &[(&str, &str)]) -> Self {
        common::init();
        let (video, voice) = sources(info, false);
        let bin = gst::ElementFactory::make("lipsync")
            .property("engine", engine.display().to_string())
            // What is compared is the engine's.
            .property("watermark", false)
            .build()
            .unwrap();
        let own = [("device", "cpu"), ("idle", "own"), ("fade", "0"), ("inference-interval", "1")];
        own.iter().chain(properties).for_each(|(name, value)| bin.set_property_from_str(name, value));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = seen.clone();
        let picture = AppSink::builder().sync(false).build();
        picture.set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let buffer = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?.buffer_owned().unwrap();
                    to.lock().unwrap().push(buffer);
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        let sound = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([video.upcast_ref(), voice.upcast_ref(), &bin, picture.upcast_ref(), &sound]).unwrap();
        for (from, to) in [(&video, "video_sink"), (&voice, "audio_sink")] {
            from.link_pads(Some("src"), &bin, Some(to)).unwrap();
        }
        bin.link_pads(Some("video_src"), &picture, Some("sink")).unwrap();
        bin.link_pads(Some("audio_src"), &sound, Some("sink")).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, bin, video, voice, seen, given: Vec::new(), latency: u64::MAX, fed: 0 }
    }

    /// Gives a piece of sound, and a frame where one begins: `picture` makes the frame of a number, `sound` the sample of a time
    /// in seconds.
    fn give(&mut self, picture: &dyn Fn(u64) -> gst::Buffer, sound: &dyn Fn(f64) -> f32) {
        if self.fed.is_multiple_of(FRAME) {
            let mut frame = picture(self.fed / FRAME).copy();
            let own = frame.get_mut().unwrap();
            own.set_pts(ms(self.fed));
            own.set_duration(ms(FRAME));
            self.given.push(frame.copy());
            self.video.push_buffer(frame).unwrap();
        }
        let samples = (0..RATE * PIECE / 1000).map(|i| sound(self.fed as f64 / 1000.0 + i as f64 / RATE as f64));
        let mut buffer = gst::Buffer::from_mut_slice(samples.flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
        let own = buffer.get_mut().unwrap();
        own.set_pts(ms(self.fed));
        own.set_duration(ms(PIECE));
        self.voice.push_buffer(buffer).unwrap();
        self.fed += PIECE;
    }

    /// Waits for the frames that the latency says have left by now.
    fn wait(&mut self) {
        if self.fed == 2 * FRAME {
            // What the sources are, a query learns from their caps.
            until("the frames' caps are known", || stat(&self.bin, "frames-in") > 0);
            let mut query = gst::query::Latency::new();
            // Elements after it answer nothing for sources that are not live.
            let denoise = self.bin.downcast_ref::<gst::Bin>().unwrap().by_name("denoise").unwrap();
            assert!(denoise.static_pad("src").unwrap().query(&mut query));
            self.latency = query.result().1.mseconds();
        }
        let due = self.fed.saturating_sub(self.latency).div_ceil(FRAME) as usize;
        until(&format!("{due} frames at {} ms with a latency of {} ms", self.fed, self.latency), || {
            self.check();
            self.seen.lock().unwrap().len() >= due
        });
    }

    fn check(&self) {
        let error = self.pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
        if let Some(gst::MessageView::Error(e)) = error.as_ref().map(|message| message.view()) {
            panic!("{} {:?}", e.error(), e.debug());
        }
    }

    /// Ends it; the frames that came out.
    fn end(self) -> Seen {
        self.video.end_of_stream().unwrap();
        self.voice.end_of_stream().unwrap();
        until("all frames", || self.seen.lock().unwrap().len() == self.given.len());
        let stats = self.bin.property::<gst::Structure>("stats");
        self.pipeline.set_state(gst::State::Null).unwrap();
        let bytes = |buffer: &gst::Buffer| buffer.map_readable().unwrap().to_vec();
        let seen = self.seen.lock().unwrap();
        for (seen, given) in seen.iter().zip(&self.given) {
            assert_eq!((seen.pts(), seen.duration()), (given.pts(), given.duration()));
        }
        Seen {
            given: self.given.iter().map(bytes).collect(),
            shown: seen.iter().map(bytes).collect(),
            latency: self.latency,
            stats,
        }
    }
}

/// A stream that has ended.
struct Seen {
    given: Vec<Vec<u8>>,
    shown: Vec<Vec<u8>>,
    latency: u64,
    stats: gst::Structure,
}

impl Seen {
    /// Whether a frame has another mouth than its own.
    fn speaks(&self, frame: usize) -> bool {
        self.given[frame] != self.shown[frame]
    }

    /// The frames of some milliseconds that do not speak.
    fn mute(&self, span: std::ops::Range<u64>) -> Vec<u64> {
        (span.start / FRAME..span.end / FRAME).filter(|i| !self.speaks(*i as usize)).collect()
    }

    /// Middle of what was painted into a frame, across, in pixels.
    fn painted_at(&self, frame: usize) -> f32 {
        let rows = self.given[frame].chunks(WIDTH as usize).zip(self.shown[frame].chunks(WIDTH as usize));
        let changed =
            rows.take(HEIGHT as usize).flat_map(|(a, b)| a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b));
        let columns: Vec<f32> = changed.map(|(x, _)| x as f32).collect();
        columns.iter().sum::<f32>() / columns.len().max(1) as f32
    }

    /// Medians of how much luma changes from frame to frame inside of clips and across their boundaries.
    fn steps(&self, span: std::ops::Range<u64>) -> (f32, f32) {
        let (mut inside, mut across) = (Vec::new(), Vec::new());
        for frame in (span.start / FRAME) as usize..(span.end / FRAME) as usize {
            let luma = |frame: usize| self.shown[frame][..(WIDTH * HEIGHT) as usize].iter();
            let step: u32 = luma(frame).zip(luma(frame - 1)).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            if frame % HOP == 0 { &mut across } else { &mut inside }.push(step as f32 / (WIDTH * HEIGHT) as f32);
        }
        let median = |values: &mut Vec<f32>| {
            values.sort_by(f32::total_cmp);
            values[values.len() / 2]
        };
        (median(&mut inside), median(&mut across))
    }

    fn counted(&self, stage: &str) -> (u64, u64) {
        let stages = self.stats.get::<gst::Structure>("denoise").unwrap().get::<gst::Structure>("stages").unwrap();
        let count = |what: &str| stages.get::<u64>(format!("{stage}-{what}")).unwrap();
        (count("batches"), count("items"))
    }
}

/// What happens in the forty seconds, in ms: a person speaks, and speaks in a still picture; nobody is there for five frames; the
/// person is somewhere else; what is said is interrupted; there is a pause.
const STILL: std::ops::Range<u64> = 8_000..16_000;
const LOST: std::ops::Range<u64> = 18_000..18_200;
const CUT: u64 = 22_000;
const INTERRUPT: u64 = 26_000;
const SPEAKS_AGAIN: u64 = 27_000;
const PAUSE: std::ops::Range<u64> = 31_000..34_000;
const END: u64 = 40_000;
/// Most latency of a stream in ms.
const LATENCY: u64 = 640;
/// A voice is known of by so much before its first frame, which the mouth is there for.
const HEARD_AHEAD: u64 = 280;
/// No frames.
const NONE: [u64; 0] = [];
/// Pixels that the cut moves everything to the right.
const MOVED: usize = 60;

fn picture(frames: &[gst::Buffer], number: u64) -> gst::Buffer {
    let count = frames.len() as u64;
    let time = number * FRAME;
    // There and back, so that nothing jumps.
    let i = if STILL.contains(&time) { STILL.start / FRAME } else { number } % (2 * count);
    let frame = &frames[i.min(2 * count - 1 - i) as usize];
    match time {
        _ if LOST.contains(&time) => gst::Buffer::from_mut_slice(vec![128u8; frame.size()]),
        CUT.. => moved(frame),
        _ => frame.clone(),
    }
}

/// All of a picture further right; what leaves it comes in at the left.
fn moved(frame: &gst::Buffer) -> gst::Buffer {
    let mut bytes = frame.map_readable().unwrap().to_vec();
    let (luma, chroma) = bytes.split_at_mut((WIDTH * HEIGHT) as usize);
    luma.chunks_mut(WIDTH as usize).for_each(|row| row.rotate_right(MOVED));
    chroma.chunks_mut(WIDTH as usize / 2).for_each(|row| row.rotate_right(MOVED / 2));
    gst::Buffer::from_mut_slice(bytes)
}

fn sound(t: f64) -> f32 {
    let time = (t * 1000.0) as u64;
    if PAUSE.contains(&time) || (INTERRUPT..SPEAKS_AGAIN).contains(&time) { 0.0 } else { voice(t) }
}

/// Runs a stream for so many ms, and one beside it that sees and hears something else.
fn run(engine: &Path, end: u64, beside: bool) -> Option<(Seen, Option<Seen>)> {
    let (info, frames) = people(WIDTH, HEIGHT, 50)?;
    let own = picture_of(&frames, 0);
    let other = picture_of(&frames, 13);
    let shared = [("seed", "5"), ("batch-timeout", if beside { "100" } else { "0" })];
    let mut stream = Offline::new(&info, engine, &shared);
    let mut second = beside.then(|| Offline::new(&info, engine, &[("seed", "8"), shared[1]]));
    while stream.fed < end {
        if stream.fed == INTERRUPT {
            stream.bin.emit_by_name::<()>("interrupt", &[]);
        }
        stream.give(&own, &sound);
        if let Some(second) = &mut second {
            second.give(&other, &|t| 0.7 * voice(1.3 * t + 0.4));
            second.wait();
        }
        stream.wait();
    }
    // Each stage may wait for the other stream.
    let latency = stream.latency;
    assert!(beside || (400..=LATENCY).contains(&latency), "{latency} ms");
    let second = second.map(Offline::end);
    Some((stream.end(), second))
}

fn picture_of(frames: &[gst::Buffer], later: u64) -> impl Fn(u64) -> gst::Buffer {
    move |number| picture(frames, number + later)
}

/// All that is to be true of a stream by `engine`, and of one whose clips do not overlap by `apart`.
fn forty_seconds(engine: &Path, apart: &Path) {
    let Some((alone, _)) = run(engine, END, false) else { return };
    eprintln!("latency {} ms, mute {:?}", alone.latency, alone.mute(0..END));
    // The voice is known of before its first frame.
    assert_eq!(alone.mute(40..LOST.start), NONE);
    // A face that is lost costs its own frames.
    assert_eq!(
        alone.mute(LOST.start - 400..LOST.end + 400),
        (LOST.start / FRAME..LOST.end / FRAME).collect::<Vec<_>>()
    );
    // A cut costs none, and the mouth is in the new picture at once.
    assert_eq!(alone.mute(LOST.end..INTERRUPT - LATENCY), NONE);
    let before = alone.painted_at(CUT as usize / FRAME as usize - 1);
    for frame in CUT / FRAME..CUT / FRAME + 8 {
        let moved = alone.painted_at(frame as usize) - before;
        assert!((moved - MOVED as f32).abs() < 6.0, "frame {frame} is painted {moved} pixels further right");
    }
    // Of what was interrupted nothing is said, and what comes after it is.
    let own = |from: u64, to: u64| assert_eq!(alone.mute(from..to).len() as u64, (to - from) / FRAME, "{from} to {to}");
    own(INTERRUPT, SPEAKS_AGAIN - HEARD_AHEAD);
    assert_eq!(alone.mute(SPEAKS_AGAIN + 80..PAUSE.start), NONE);
    own(PAUSE.start + 600, PAUSE.end - HEARD_AHEAD);
    assert_eq!(alone.mute(PAUSE.end + 80..END), NONE);
    // The mouth goes on over the boundaries of clips.
    let still = STILL.start + 1000..STILL.end;
    let (inside, across) = alone.steps(still.clone());
    let (separate, _) = run(apart, STILL.end, false).unwrap();
    let (inside_apart, across_apart) = separate.steps(still);
    eprintln!("luma of a still picture: joined {inside} {across}, apart {inside_apart} {across_apart}");
    assert!(across <= 1.1 * inside, "{across} across, {inside} inside");
    assert!(across_apart / inside_apart > across / inside, "{across_apart} across, {inside_apart} inside");
    // Beside another stream it is what it is alone, but for the end, which has other frames in its last clips.
    let (beside, other) = run(engine, 6_000, true).unwrap();
    let off = |a: &Vec<u8>, b: &Vec<u8>| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
    let worst = beside.shown.iter().zip(&alone.shown).take(100).map(|(a, b)| off(a, b)).max();
    assert!(worst <= Some(Some(1)), "{worst:?}");
    assert_ne!(other.unwrap().shown, beside.shown);
    let counts = ["encode", "step", "decode"].map(|stage| beside.counted(stage));
    eprintln!("batches and clips of each stage: {counts:?}");
    assert!(counts.iter().any(|(batches, clips)| batches < clips), "{counts:?}");
}

/// An engine, and the same with clips that do not overlap.
fn both(folder: PathBuf, change: impl Fn(String) -> String) -> (PathBuf, PathBuf) {
    let manifest = folder.join("engine.toml");
    let text = change(std::fs::read_to_string(&manifest).unwrap());
    std::fs::write(&manifest, &text).unwrap();
    let other = folder.with_file_name("apart");
    std::fs::create_dir(&other).unwrap();
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), other.join(file.file_name())).unwrap();
    }
    let changed = text.replace("clip = 8", "clip = 4");
    assert_ne!(changed, text);
    std::fs::write(other.join("engine.toml"), changed).unwrap();
    (folder, other)
}

#[test]
fn forty_seconds_of_a_narrow_engine() {
    let home = tempfile::tempdir().unwrap();
    let (engine, apart) = both(narrow::latentsync(home.path(), 64), |text| text);
    forty_seconds(&engine, &apart);
}

#[test]
fn forty_seconds_of_the_golden_engine() {
    let Some(golden) = common::shared("golden/latentsync15") else { return };
    let home = tempfile::tempdir().unwrap();
    let files = ["latentsync_unet.pt", "config.json", "vae", "tiny.pt"].map(|file| golden.join(file));
    let request = Request {
        family: None,
        files: &files,
        name: Some("golden"),
        precision: Precision::Fp32,
        features: None,
        licence: None,
        replace: false,
    };
    let imported = import::import(&request, &home.path().join("engines"), &mut |_, _| Ok(())).unwrap();
    let (engine, apart) = both(imported.folder, |text| text.replace("side = 256", "side = 64"));
    forty_seconds(&engine, &apart);
}
