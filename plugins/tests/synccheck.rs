//! The sync check on the demo's avatar, which says the demo's speech: what it finds, tells of and does.

mod common;

use std::sync::{Arc, Mutex, MutexGuard};

use common::{init, live::people, ms, until};
use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks, AppSrc};
use gst_video::VideoInfo;
use gstlipstream::{
    sync::LipSyncStats,
    synccheck::{self, Change},
};

const RATE: usize = 16_000;
/// Samples of a frame.
const FRAME: usize = RATE / 25;

/// One at a time: they look at the threads of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Threads of the process that check a sync.
fn checking() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|n| n.trim() == "sync-check")).count()
}

/// The demo's speech over and over, 16 kHz.
fn speech(seconds: usize) -> Vec<f32> {
    init();
    let line = format!(
        "filesrc location={}/../demo/speech.flac ! decodebin ! audioconvert ! audioresample \
         ! audio/x-raw,format=F32LE,rate={RATE},channels=1,layout=interleaved ! appsink name=out sync=false",
        env!("CARGO_MANIFEST_DIR")
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("out").and_downcast::<AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut samples: Vec<f32> = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let map = sample.buffer().unwrap().map_readable().unwrap();
        samples.extend(map.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    samples.iter().copied().cycle().take(seconds * RATE).collect()
}

/// What came of a run.
struct Ran {
    frames: Vec<gst::Buffer>,
    stats: LipSyncStats,
    /// Seconds of running time, and what was told then.
    changes: Vec<(f64, Change)>,
    threads: usize,
}

/// Runs a lipsync, not live, over frames that are shown there and back, as long as the voice lasts.
fn run(info: &VideoInfo, frames: &[gst::Buffer], voice: &[f32], properties: &[(&str, &str)]) -> Ran {
    init();
    let bin = gst::ElementFactory::make("lipsync").property("device", "cpu").build().unwrap();
    properties.iter().for_each(|(name, value)| bin.set_property_from_str(name, value));
    let sound = gst_audio::AudioInfo::builder(gst_audio::AudioFormat::F32le, RATE as u32, 1).build().unwrap();
    let source = |caps: &gst::Caps| AppSrc::builder().caps(caps).format(gst::Format::Time).max_bytes(1 << 30).build();
    let (video, audio) = (source(&info.to_caps().unwrap()), source(&sound.to_caps().unwrap()));
    video.set_property("block", true);
    video.set_max_buffers(8);
    let out = Arc::new(Mutex::new(Vec::new()));
    let to = out.clone();
    let picture = AppSink::builder().sync(false).build();
    let taken = move |sink: &AppSink| {
        to.lock().unwrap().push(sink.pull_sample().map_err(|_| gst::FlowError::Eos)?.buffer_owned().unwrap());
        Ok(gst::FlowSuccess::Ok)
    };
    picture.set_callbacks(AppSinkCallbacks::builder().new_sample(taken).build());
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([video.upcast_ref(), audio.upcast_ref(), &bin, picture.upcast_ref()]).unwrap();
    video.link_pads(Some("src"), &bin, Some("video_sink")).unwrap();
    audio.link_pads(Some("src"), &bin, Some("audio_sink")).unwrap();
    bin.link_pads(Some("video_src"), &picture, Some("sink")).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let threads = checking();
    let changes = Arc::new(Mutex::new(Vec::new()));
    let (told, told_by) = (changes.clone(), bin.clone());
    let bus = pipeline.bus().unwrap();
    bus.set_sync_handler(move |_, message| {
        if let Some((structure, change)) = message.structure().and_then(|s| Some((s, synccheck::change(s)?))) {
            assert_eq!(message.src(), Some(told_by.upcast_ref::<gst::Object>()));
            told.lock().unwrap().push((structure.get::<u64>("running-time").unwrap() as f64 / 1e9, change));
        }
        gst::BusSyncReply::Pass
    });
    for (i, piece) in voice.chunks(FRAME).enumerate() {
        let mut buffer = gst::Buffer::from_mut_slice(piece.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>());
        let own = buffer.get_mut().unwrap();
        own.set_pts(ms(40 * i as u64));
        own.set_duration(ms(40));
        audio.push_buffer(buffer).unwrap();
    }
    audio.end_of_stream().unwrap();
    let stats = || LipSyncStats::from_structure(&bin.property::<gst::Structure>("stats"));
    for i in 0..voice.len() / FRAME {
        let at = i % (2 * frames.len());
        let mut frame = frames[at.min(2 * frames.len() - 1 - at)].copy();
        let own = frame.get_mut().unwrap();
        own.set_pts(ms(40 * i as u64));
        own.set_duration(ms(40));
        video.push_buffer(frame).unwrap();
        if threads > 0 && i % 25 == 24 {
            // Frames are made faster than they are shown; the check must not fall behind.
            until("a check", || stats().check.check.totals.count as usize + 5 >= i / 25);
        }
    }
    video.end_of_stream().unwrap();
    let ended =
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(300), &[gst::MessageType::Eos, gst::MessageType::Error]);
    assert_eq!(ended.map(|m| m.type_()), Some(gst::MessageType::Eos));
    let stats = stats();
    pipeline.set_state(gst::State::Null).unwrap();
    let (frames, changes) = (std::mem::take(&mut *out.lock().unwrap()), std::mem::take(&mut *changes.lock().unwrap()));
    Ran { frames, stats, changes, threads }
}

#[test]
fn features_that_are_late_are_found_and_brought_back() {
    let _alone = alone();
    let Some((info, frames)) = people(480, 270, 200) else { return };
    let properties = [("sync-check", "1000"), ("sync-correct", "6"), ("feature-shift", "-120")];
    let ran = run(&info, &frames, &speech(38), &properties);
    assert_eq!(ran.threads, 1);
    let off = |change: &Change| matches!(change, Change::OutOfSync { frames: 2..=4 });
    let corrected = |change: &Change| matches!(change, Change::Corrected { frames: 2..=4, shift: 2 });
    let changes: Vec<Change> = ran.changes.iter().map(|(_, change)| *change).collect();
    assert!(
        matches!(&changes[..], [first, second, Change::InSync] if off(first) && corrected(second)),
        "{:?}",
        ran.changes
    );
    assert!(ran.changes[0].0 <= 20.0, "{:?}", ran.changes);
    let check = &ran.stats.check;
    assert!(check.sync.offset.is_some_and(|offset| offset.abs() <= 1), "{check:?}");
    assert_eq!((check.corrections, check.shift, check.missed), (1, 80, 0));
    assert_eq!(ran.stats.frames.frames_out, 38 * 25);
}

#[test]
fn a_source_that_is_out_of_sync_is_told_of_and_the_mouth_that_is_made_is_left() {
    let _alone = alone();
    let Some((info, frames)) = people(480, 270, 200) else { return };
    let voice = speech(26);
    let first = run(&info, &frames, &voice, &[("sync-check", "1000"), ("sync-correct", "5")]);
    let check = &first.stats.check;
    assert!(check.sync.offset.is_some_and(|offset| offset.abs() <= 1), "{check:?}");
    assert_eq!((check.source.offset, check.corrections, &first.changes[..]), (None, 0, &[][..]), "{check:?}");
    // What came out speaks with lips of its own; now its voice comes six frames before them.
    let early = &voice[6 * FRAME..];
    let second = run(&info, &first.frames, early, &[("sync-check", "1000"), ("sync-correct", "5")]);
    let check = &second.stats.check;
    assert!(check.source.offset.is_some_and(|offset| (5..=7).contains(&offset)), "{check:?}");
    assert!(check.sync.offset.is_some_and(|offset| offset.abs() <= 1), "{check:?}");
    let [(_, Change::SourceOutOfSync { frames: 5..=7 })] = second.changes[..] else { panic!("{:?}", second.changes) };
    assert_eq!((check.corrections, check.shift), (0, 0));
}

#[test]
fn without_the_check_nothing_runs() {
    let _alone = alone();
    let Some((info, frames)) = people(320, 180, 25) else { return };
    let ran = run(&info, &frames, &speech(2), &[("feature-shift", "-120")]);
    assert_eq!((ran.threads, &ran.stats.check), (0, &Default::default()));
    assert!(ran.changes.is_empty());
}
