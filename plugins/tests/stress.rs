//! What happens to live streams: they stop and return, change and break off. Frames go on.

mod common;

use common::{
    init,
    live::{Live, people, voice},
    ms, until,
};
use gst::prelude::*;

/// Ends both streams and gives the times of all frames that came out, in ms.
fn ended(live: &Live, frames: usize) -> Vec<u64> {
    live.video.end_of_stream().unwrap();
    live.voice.end_of_stream().unwrap();
    live.wait_for(frames);
    live.wait_until("the end", |live| live.heard_of(gst::MessageType::Eos));
    live.seen.lock().unwrap().iter().map(|s| s.buffer.pts().unwrap().mseconds()).collect()
}

/// A rig of small frames that carries a voice all the time.
fn rig(sync: bool) -> Option<Live> {
    let (info, frames) = people(320, 180, 25)?;
    Some(Live::new(info, frames, &[], sync))
}

#[test]
fn a_video_that_stops_for_three_seconds_returns() {
    let Some(mut live) = rig(true) else { return };
    live.feed(600, |_, frame| Some(frame), |t| Some(voice(t)));
    live.feed(3000, |_, _| None, |t| Some(voice(t)));
    let spoken = live.stat("denoise/steps");
    live.feed(800, |_, frame| Some(frame), |t| Some(voice(t)));
    let times = ended(&live, 35);
    let fed: Vec<u64> = (0..600).chain(3600..4400).filter(|t| t % 40 == 0).collect();
    assert_eq!(times, fed);
    assert!(live.stat("denoise/steps") > spoken, "it speaks again");
    assert!(*live.heard.lock().unwrap() >= 4400 * 48, "the sound went on meanwhile");
}

#[test]
fn an_audio_that_stops_holds_no_frame() {
    let Some(mut live) = rig(true) else { return };
    live.feed(800, |_, frame| Some(frame), |t| Some(voice(t)));
    live.feed(2000, |_, frame| Some(frame), |_| None);
    let late = live.stat("late");
    assert!(late > 10, "frames without audio are late: {late}");
    let before = live.frames_out();
    assert!(before >= 2400 / 40, "{before} frames had come in time");
    // Until 15 frames in a row but one or two are in time; a machine that is busy takes a while.
    let in_time = (0..20).any(|_| {
        let late = live.stat("late");
        live.feed(600, |_, frame| Some(frame), |t| Some(voice(t)));
        live.stat("late") <= late + 2
    });
    assert!(in_time, "with the audio back, frames are in time: {} were late, then {}", late, live.stat("late"));
    let fed = live.fed;
    let times = ended(&live, fed as usize / 40);
    assert_eq!(times, (0..fed).step_by(40).collect::<Vec<_>>());
}

#[test]
fn the_picture_may_change_its_size() {
    let Some((small, frames)) = people(320, 180, 25) else { return };
    let (large, big) = people(640, 360, 25).unwrap();
    let mut live = Live::new(small, frames, &[], false);
    live.feed(600, |_, frame| Some(frame), |t| Some(voice(t)));
    live.video.set_caps(Some(&large.to_caps().unwrap()));
    live.frames = big;
    live.feed(800, |_, frame| Some(frame), |t| Some(voice(t)));
    let times = ended(&live, 35);
    assert_eq!(times, (0..1400).step_by(40).collect::<Vec<_>>());
    let seen = live.seen.lock().unwrap();
    assert_eq!(seen.last().unwrap().buffer.size(), large.size());
    drop(seen);
    assert!(live.stat("passed-through") < 10, "the person is found again: {}", live.stat("passed-through"));
}

#[test]
fn a_face_may_vanish_and_return() {
    let Some(mut live) = rig(false) else { return };
    live.feed(600, |_, frame| Some(frame), |t| Some(voice(t)));
    let before = live.stat("passed-through");
    let grey = |_, mut frame: gst::Buffer| {
        frame.make_mut().map_writable().unwrap().fill(128);
        Some(frame)
    };
    live.feed(1000, grey, |t| Some(voice(t)));
    live.feed(1000, |_, frame| Some(frame), |t| Some(voice(t)));
    let times = ended(&live, 65);
    assert_eq!(times, (0..2600).step_by(40).collect::<Vec<_>>());
    let passed = live.stat("passed-through") - before;
    assert!((20..40).contains(&passed), "{passed} frames passed while nobody was there");
}

#[test]
fn timestamps_may_have_gaps_and_the_rate_may_vary() {
    let Some(mut live) = rig(false) else { return };
    // Of every seven frames one is lost, and the others are early or late by up to 15 ms.
    let shaken = |t: u64, mut frame: gst::Buffer| {
        let own = frame.make_mut();
        own.set_pts(ms(t + [0, 15, 3, 9, 12, 1, 7][(t / 40 % 7) as usize]));
        own.set_duration(gst::ClockTime::NONE);
        (t / 40 % 7 != 4).then_some(frame)
    };
    live.feed(2100, shaken, |t| (t % 0.5 < 0.42).then(|| voice(t)));
    let count = (0..2100 / 40 + 1).filter(|i| i % 7 != 4).count();
    let times = ended(&live, count);
    assert!(times.is_sorted() && times.len() == count, "{times:?}");
}

/// Numbers without a pattern (G. Marsaglia's xorshift, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn no_order_of_states_flushes_and_ends_locks_up() {
    init();
    let caps = "video/x-raw,format=I420,width=320,height=180,framerate=25/1";
    // A demuxer's pads are linked once only; a file of plain frames may be played again and again.
    let raw = people(320, 180, 100).map(|(_, frames)| {
        let path = std::env::temp_dir().join(format!("lipstream-stress-{}.i420", std::process::id()));
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.map_readable().unwrap().to_vec()).collect();
        std::fs::write(&path, bytes).unwrap();
        path
    });
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..6 {
        let live = random.below(2) == 0;
        // A face, where there is one, makes frames wait for features.
        let source = match raw.as_ref().filter(|_| round % 2 == 0) {
            Some(path) => format!(
                "filesrc location=\"{}\" ! rawvideoparse format=i420 width=320 height=180 framerate=25/1",
                path.display()
            ),
            None => format!("videotestsrc is-live={live}"),
        };
        let line = format!(
            "lipsync name=ls {source} ! {caps} ! ls.video_sink \
             audiotestsrc is-live={live} samplesperbuffer=480 ! audio/x-raw,rate=48000 ! ls.audio_sink \
             ls.video_src ! fakesink name=seen sync={live} ls.audio_src ! fakesink name=heard sync={live}"
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let bin = pipeline.by_name("ls").unwrap();
        let mut done = Vec::new();
        let (tell, told) = std::sync::mpsc::channel();
        let orders: Vec<u64> = (0..20).map(|_| random.below(12)).collect();
        let pauses: Vec<u64> = (0..20).map(|_| random.below(40)).collect();
        let (busy, inner) = (pipeline.clone(), bin.clone());
        let worker = std::thread::spawn(move || {
            let ends = std::cell::RefCell::new(Vec::new());
            // An end waits for what comes before it, which a paused pipeline holds.
            let end = |pad: &str| {
                let pad = inner.static_pad(pad).unwrap();
                ends.borrow_mut().push(std::thread::spawn(move || pad.send_event(gst::event::Eos::new())));
            };
            for (order, pause) in orders.into_iter().zip(pauses) {
                let _ = tell.send(order);
                let state = |state| assert!(busy.set_state(state).is_ok());
                let flush = |pad: &str| {
                    let pad = inner.static_pad(pad).unwrap();
                    pad.send_event(gst::event::FlushStart::new());
                    pad.send_event(gst::event::FlushStop::new(true));
                };
                match order {
                    0 | 1 => state(gst::State::Playing),
                    2 | 3 => state(gst::State::Paused),
                    4 => state(gst::State::Ready),
                    5 => state(gst::State::Null),
                    6 => flush("video_sink"),
                    7 => flush("audio_sink"),
                    8 => inner.emit_by_name("interrupt", &[]),
                    9 => end("video_sink"),
                    10 => end("audio_sink"),
                    _ => drop(inner.property::<gst::Structure>("stats")),
                }
                std::thread::sleep(std::time::Duration::from_millis(pause));
            }
            busy.set_state(gst::State::Null).unwrap();
            ends.into_inner().into_iter().for_each(|end| {
                end.join().unwrap();
            });
        });
        until("every order is carried out", || worker.is_finished());
        worker.join().unwrap();
        done.extend(told.try_iter());
        eprintln!("round {round}, live {live}: {done:?}");
        // It still works.
        pipeline.set_state(gst::State::Playing).unwrap();
        until("frames come after all that", || {
            bin.property::<gst::Structure>("stats").get::<u64>("frames-out").unwrap() > 3
        });
        pipeline.set_state(gst::State::Null).unwrap();
    }
    if let Some(path) = raw {
        std::fs::remove_file(path).unwrap();
    }
}
