//! `lipsync`, the bin: whole pipelines that must run to their end.

mod common;
#[path = "../../engines/tests/common/windowed.rs"]
mod windowed;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use common::{decoded, init, ms, person, video_info};
use gst::prelude::*;

/// Runs a pipeline to its end and gives it back; an error or a minute without an end fails.
fn run(line: &str, prepare: impl FnOnce(&gst::Pipeline)) -> gst::Pipeline {
    init();
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    prepare(&pipeline);
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Eos, gst::MessageType::Error]);
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => (),
        Some(gst::MessageView::Error(e)) => panic!("{}: {} {:?}", line, e.error(), e.debug()),
        _ => panic!("no end: {line}"),
    }
    pipeline
}

fn stats(pipeline: &gst::Pipeline) -> gst::Structure {
    pipeline.by_name("ls").unwrap().property("stats")
}

fn stop(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Collects the bytes that pass a pad of an element.
fn recorded(pipeline: &gst::Pipeline, element: &str, pad: &str) -> Arc<Mutex<Vec<u8>>> {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let pad = pipeline.by_name(element).unwrap().static_pad(pad).unwrap();
    let to = bytes.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            to.lock().unwrap().extend_from_slice(&buffer.map_readable().unwrap());
        }
        gst::PadProbeReturn::Ok
    })
    .unwrap();
    bytes
}

/// The running time at which what passes a pad ends.
fn end_of(pipeline: &gst::Pipeline, element: &str) -> Arc<AtomicU64> {
    let end = Arc::new(AtomicU64::new(0));
    let to = end.clone();
    let pad = pipeline.by_name(element).unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            to.store((buffer.pts().unwrap() + buffer.duration().unwrap()).mseconds(), Relaxed);
        }
        gst::PadProbeReturn::Ok
    })
    .unwrap();
    end
}

#[test]
fn audio_leaves_bit_for_bit_in_any_format() {
    for caps in [
        "audio/x-raw,format=S24LE,rate=44100,channels=2",
        "audio/x-raw,format=F64LE,rate=8000,channels=1",
        "audio/x-raw,format=S16LE,rate=96000,channels=6,channel-mask=(bitmask)0x3f",
    ] {
        let line = format!(
            "lipsync name=ls videotestsrc num-buffers=25 ! video/x-raw,width=160,height=120,framerate=25/1 ! ls.video_sink \
             audiotestsrc wave=pink-noise num-buffers=40 ! {caps} ! ls.audio_sink \
             ls.video_src ! fakesink sync=false ls.audio_src ! fakesink name=heard sync=false"
        );
        let (mut before, mut after) = (None, None);
        let pipeline = run(&line, |p| {
            before = Some(recorded(p, "ls", "audio_sink"));
            after = Some(recorded(p, "heard", "sink"));
        });
        stop(&pipeline);
        let (before, after) = (before.unwrap(), after.unwrap());
        assert!(!before.lock().unwrap().is_empty());
        assert!(*before.lock().unwrap() == *after.lock().unwrap(), "{caps}");
    }
}

#[test]
fn frames_without_a_face_pass_and_all_of_them_come() {
    let line = "lipsync name=ls videotestsrc num-buffers=50 ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! ls.video_sink \
                audiotestsrc num-buffers=100 ! audio/x-raw,rate=48000 ! ls.audio_sink \
                ls.video_src ! fakesink sync=false ls.audio_src ! fakesink sync=false";
    let (mut before, mut after) = (None, None);
    let pipeline = run(line, |p| {
        before = Some(recorded(p, "ls", "video_sink"));
        after = Some(recorded(p, "ls", "video_src"));
    });
    let s = stats(&pipeline);
    stop(&pipeline);
    assert_eq!((s.get("frames-in"), s.get("frames-out"), s.get("passed-through")), (Ok(50u64), Ok(50u64), Ok(50u64)));
    assert!(*before.unwrap().lock().unwrap() == *after.unwrap().lock().unwrap());
}

#[test]
fn video_alone_passes() {
    let pipeline =
        run("lipsync name=ls videotestsrc num-buffers=10 ! ls.video_sink ls.video_src ! fakesink sync=false", |_| ());
    assert_eq!(stats(&pipeline).get("frames-out"), Ok(10u64));
    stop(&pipeline);
}

#[test]
fn audio_alone_passes() {
    let mut bytes = None;
    let pipeline = run(
        "lipsync name=ls audiotestsrc num-buffers=2000 samplesperbuffer=4800 ! audio/x-raw,rate=48000 ! ls.audio_sink \
         ls.audio_src ! fakesink name=heard sync=false",
        |p| bytes = Some(recorded(p, "heard", "sink")),
    );
    stop(&pipeline);
    assert_eq!(bytes.unwrap().lock().unwrap().len() % 4800, 0);
}

#[test]
fn speech_alone_drives_a_video_whose_audio_nobody_takes() {
    let pipeline = run(
        "lipsync name=ls videotestsrc num-buffers=25 ! video/x-raw,framerate=25/1 ! ls.video_sink \
         audiotestsrc num-buffers=60 ! ls.audio_sink ls.video_src ! fakesink sync=false",
        |_| (),
    );
    let s = stats(&pipeline);
    let heard = s.get::<gst::Structure>("audioenc").unwrap().get::<u64>("frames-out").unwrap();
    stop(&pipeline);
    assert!(s.get("frames-out") == Ok(25u64) && heard > 0, "{s}");
}

#[test]
fn the_longer_stream_comes_through_to_its_end() {
    for (frames, buffers) in [(25, 400), (400, 40)] {
        let line = format!(
            "lipsync name=ls videotestsrc num-buffers={frames} ! video/x-raw,width=160,height=120,framerate=25/1 ! ls.video_sink \
             audiotestsrc num-buffers={buffers} samplesperbuffer=1600 ! audio/x-raw,rate=16000 ! ls.audio_sink \
             ls.video_src ! fakesink name=seen sync=false ls.audio_src ! fakesink name=heard sync=false"
        );
        let (mut seen, mut heard) = (None, None);
        let pipeline = run(&line, |p| {
            seen = Some(end_of(p, "seen"));
            heard = Some(end_of(p, "heard"));
        });
        stop(&pipeline);
        assert_eq!((seen.unwrap().load(Relaxed), heard.unwrap().load(Relaxed)), (frames * 40, buffers * 100));
    }
}

/// Sound of seconds is heard before the first frame has its features: neither stream may wait for the other.
#[test]
fn sound_runs_ahead_of_the_video_by_a_long_look_ahead() {
    let folder = tempfile::tempdir().unwrap();
    windowed::engine(folder.path(), (400, 75), 6640);
    // Longer than what features may be ahead of a video, whose frames show nobody.
    for (frames, buffers) in [(65, 130), (10, 200), (65, 20)] {
        let line = format!(
            "lipsync name=ls engine={} look-ahead=6640 \
             videotestsrc num-buffers={frames} ! video/x-raw,width=160,height=120,framerate=5/1 ! ls.video_sink \
             audiotestsrc wave=pink-noise num-buffers={buffers} samplesperbuffer=4800 ! audio/x-raw,rate=48000 ! ls.audio_sink \
             ls.video_src ! fakesink name=seen sync=false ls.audio_src ! fakesink name=heard sync=false",
            folder.path().display()
        );
        let (mut seen, mut heard) = (None, None);
        let pipeline = run(&line, |p| {
            seen = Some(end_of(p, "seen"));
            heard = Some(end_of(p, "heard"));
        });
        stop(&pipeline);
        assert_eq!((seen.unwrap().load(Relaxed), heard.unwrap().load(Relaxed)), (frames * 200, buffers * 100));
    }
}

/// An encoder that holds back many frames, and a muxer that takes audio only beside video.
#[test]
fn an_encoder_with_look_ahead_before_a_muxer_does_not_stop_it() {
    init();
    if ["x264enc", "avenc_aac", "mp4mux"].iter().any(|e| gst::ElementFactory::find(e).is_none()) {
        eprintln!("skipped: x264enc, avenc_aac or mp4mux is not installed");
        return;
    }
    // 5 frames a second: the encoder's look-ahead is 12 s of audio and more.
    let pipeline = run(
        "lipsync name=ls videotestsrc num-buffers=120 ! video/x-raw,width=160,height=120,framerate=5/1 ! ls.video_sink \
         audiotestsrc num-buffers=240 samplesperbuffer=4800 ! audio/x-raw,rate=48000,channels=2 ! ls.audio_sink \
         ls.video_src ! videoconvert ! x264enc ! mux. ls.audio_src ! avenc_aac ! mux. mp4mux name=mux ! fakesink sync=false",
        |_| (),
    );
    assert_eq!(stats(&pipeline).get("frames-out"), Ok(120u64));
    stop(&pipeline);
}

#[test]
fn it_may_play_again() {
    let line = "lipsync name=ls videotestsrc num-buffers=10 ! ls.video_sink audiotestsrc num-buffers=20 ! ls.audio_sink \
                ls.video_src ! fakesink sync=false ls.audio_src ! fakesink sync=false";
    let pipeline = run(line, |_| ());
    for _ in 0..2 {
        pipeline.set_state(gst::State::Ready).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let end = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &end);
        assert_eq!(message.expect("an end").type_(), gst::MessageType::Eos);
        assert_eq!(stats(&pipeline).get("frames-out"), Ok(10u64));
    }
    stop(&pipeline);
}

#[test]
fn properties_reach_the_elements_inside() {
    init();
    let bin = gst::ElementFactory::make("lipsync")
        .property("engine", "other")
        .property("detector", "yunet.onnx")
        .property("device", "cpu")
        .property("steps", 4u32)
        .property("motion-gain", 1.5)
        .property("enabled", false)
        .build()
        .unwrap();
    let inner = |name: &str| bin.downcast_ref::<gst::Bin>().unwrap().by_name(name).unwrap();
    assert_eq!(inner("audioenc").property::<String>("engine"), "other");
    assert_eq!(inner("denoise").property::<String>("model"), "other");
    assert_eq!(inner("facetrack").property::<String>("model"), "yunet.onnx");
    for name in ["facetrack", "audioenc", "denoise"] {
        assert_eq!(inner(name).property::<String>("device"), "cpu");
    }
    assert_eq!(bin.property::<u32>("steps"), 4);
    assert_eq!(inner("denoise").property::<f64>("motion-gain"), 1.5);
    assert!(!inner("blend").property::<bool>("enabled"));
}

#[test]
fn every_property_says_what_it_is() {
    init();
    for name in ["lipsync", "lipfacetrack", "lipaudioenc", "lipdenoise", "lipblend"] {
        let element = gst::ElementFactory::make(name).build().unwrap();
        let own =
            element.list_properties().iter().filter(|p| p.owner_type() == element.type_()).cloned().collect::<Vec<_>>();
        assert!(own.len() >= 2, "{name}");
        for spec in own {
            assert!(spec.blurb().is_some_and(|b| b.len() > 15), "{name} {}", spec.name());
        }
    }
}

#[test]
fn a_person_speaks_and_a_flushing_seek_goes_on() {
    let Some(path) = person() else { return };
    let line = format!(
        "lipsync name=ls filesrc location=\"{}\" ! decodebin name=d ! queue ! videoconvert ! ls.video_sink \
         audiotestsrc num-buffers=120 samplesperbuffer=1600 wave=ticks ! audio/x-raw,rate=16000 ! ls.audio_sink \
         ls.video_src ! fakesink name=seen sync=false ls.audio_src ! fakesink sync=false",
        path.display()
    );
    let pipeline = run(&line, |_| ());
    let s = stats(&pipeline);
    let count = |name: &str| s.get::<u64>(name).unwrap();
    assert!(count("frames-out") > 50);
    assert!(count("passed-through") * 4 < count("frames-out"), "most frames speak: {s}");
    let denoise = s.get::<gst::Structure>("denoise").unwrap();
    assert!(denoise.get::<u64>("references").unwrap() > 1);
    let out = count("frames-out");
    pipeline.seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT, ms(0)).unwrap();
    let end = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &end).expect("an end");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    assert!(stats(&pipeline).get::<u64>("frames-out").unwrap() > out, "frames came after the seek");
    stop(&pipeline);
}

const PERSON: (u32, u32) = (640, 360);

/// The first frames of a person, in the planes of an I420 picture of [`PERSON`].
fn frames_of(path: &std::path::Path, count: u64) -> Vec<Vec<u8>> {
    let info = video_info(gst_video::VideoFormat::I420, PERSON.0, PERSON.1);
    decoded(path, &info, count).iter().map(|frame| frame.map_readable().unwrap().to_vec()).collect()
}

/// Two pictures beside each other.
fn beside(left: &[u8], right: &[u8]) -> Vec<u8> {
    let width = PERSON.0 as usize;
    let mut both = Vec::with_capacity(left.len() * 2);
    let luma = width * PERSON.1 as usize;
    for (plane, width) in [(0..luma, width), (luma..left.len(), width / 2)] {
        for (l, r) in left[plane.clone()].chunks(width).zip(right[plane].chunks(width)) {
            both.extend_from_slice(l);
            both.extend_from_slice(r);
        }
    }
    both
}

/// Whether the left and the right half differ between two pictures of two people.
fn changed(before: &[u8], after: &[u8]) -> (bool, bool) {
    let width = PERSON.0 as usize;
    let luma = 2 * width * PERSON.1 as usize;
    let halves = || before[..luma].chunks(width).zip(after[..luma].chunks(width));
    let differs = |half| halves().skip(half).step_by(2).any(|(a, b)| a != b);
    (differs(0), differs(1))
}

/// The demo's speech.
fn speech() -> String {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("demo/speech.flac");
    format!(
        "filesrc location=\"{}\" ! decodebin ! audioconvert ! audioresample ! audio/x-raw,rate=16000",
        file.display()
    )
}

/// What becomes of frames of 25 a second and `width` pixels in the bin of a line, while it hears what the line says: at frames,
/// `speaker` is set.
fn spoken(frames: &[Vec<u8>], width: u32, line: &str, speakers: &[(u64, &str)]) -> Vec<Vec<u8>> {
    let line = format!(
        "{line} appsrc name=seen format=time max-bytes=0 ! ls.video_sink ls.video_src ! fakesink name=shown sync=false"
    );
    let mut shown = None;
    let pipeline = run(&line, |pipeline| {
        let seen = pipeline.by_name("seen").and_downcast::<gst_app::AppSrc>().unwrap();
        seen.set_caps(Some(&video_info(gst_video::VideoFormat::I420, width, PERSON.1).to_caps().unwrap()));
        for (i, frame) in frames.iter().enumerate() {
            let mut buffer = gst::Buffer::from_slice(frame.clone());
            let own = buffer.get_mut().unwrap();
            own.set_pts(ms(40 * i as u64));
            own.set_duration(ms(40));
            seen.push_buffer(buffer).unwrap();
        }
        seen.end_of_stream().unwrap();
        let ls = pipeline.by_name("ls").unwrap();
        let mut set: Vec<(u64, String)> =
            speakers.iter().map(|(frame, word)| (40 * frame, (*word).to_owned())).collect();
        if set.first().is_some_and(|(at, _)| *at == 0) {
            ls.set_property("speaker", set.remove(0).1);
        }
        let denoise = ls.downcast_ref::<gst::Bin>().unwrap().by_name("denoise").unwrap();
        // Where a frame is about to be looked at.
        let pad = denoise.static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let pts = info.buffer().and_then(|buffer| buffer.pts()).unwrap();
            if let Some((_, word)) = set.iter().find(|(at, _)| ms(*at) == pts) {
                ls.set_property("speaker", word);
            }
            gst::PadProbeReturn::Ok
        })
        .unwrap();
        shown = Some(recorded(pipeline, "shown", "sink"));
    });
    stop(&pipeline);
    let bytes = shown.unwrap().lock().unwrap().clone();
    bytes.chunks(frames[0].len()).map(<[u8]>::to_vec).collect()
}

#[test]
fn the_face_that_is_asked_for_speaks_and_the_others_pass_to_the_bit() {
    let Some(path) = person() else { return };
    let one = frames_of(&path, 100);
    let both: Vec<Vec<u8>> = one.iter().map(|frame| beside(frame, frame)).collect();
    let speakers = [(0, "left"), (25, "right"), (50, "all"), (75, "track:99")];
    let line = format!("lipsync name=ls {} ! ls.audio_sink", speech());
    let shown = spoken(&both, 2 * PERSON.0, &line, &speakers);
    assert_eq!(shown.len(), both.len(), "no frame is lost");
    // The mouth of the one before fades out over 200 ms.
    for (from, expected) in [(2, (true, false)), (32, (false, true)), (57, (true, true)), (82, (false, false))] {
        for i in from..from + 17 {
            assert_eq!(changed(&both[i], &shown[i]), expected, "frame {i}");
        }
    }
    let fades = changed(&both[27], &shown[27]);
    assert_eq!(fades, (true, true), "one mouth goes while the other comes");
}

#[test]
fn each_of_two_voices_moves_its_own_face() {
    let Some(path) = person() else { return };
    let both: Vec<Vec<u8>> = frames_of(&path, 50).iter().map(|frame| beside(frame, frame)).collect();
    let silence = "audiotestsrc wave=silence num-buffers=100 samplesperbuffer=320 ! audio/x-raw,rate=16000".to_owned();
    for (a, b, expected) in [
        (speech(), silence.clone(), (true, false)),
        (silence, speech(), (false, true)),
        (speech(), speech(), (true, true)),
    ] {
        let line =
            format!("lipsync name=ls idle=own speaker=left speaker-b=right {a} ! ls.audio_sink {b} ! ls.audio_sink_b");
        let shown = spoken(&both, 2 * PERSON.0, &line, &[]);
        assert_eq!(shown.len(), both.len());
        for i in 20..45 {
            assert_eq!(changed(&both[i], &shown[i]), expected, "frame {i}");
        }
    }
}

#[test]
fn the_one_whose_lips_follow_the_sound_speaks() {
    let Some(path) = person() else { return };
    // The mouth of the demo's person is shut from its seventh second on: forward and backward again.
    let frames = frames_of(&path, 195);
    let silent: Vec<Vec<u8>> = (0..250).map(|i: usize| frames[194 - (i % 60).abs_diff(30)].clone()).collect();
    let line = format!("lipsync name=ls {} ! ls.audio_sink", speech());
    let talking = spoken(&silent, PERSON.0, &line, &[]);
    // Half of the time it is the right one that talks, then the left one.
    let turn = |i: usize| i >= 125;
    let both: Vec<Vec<u8>> = (0..250)
        .map(|i| if turn(i) { beside(&talking[i], &silent[i]) } else { beside(&silent[i], &talking[i]) })
        .collect();
    let shown = spoken(&both, 2 * PERSON.0, &line, &[(0, "auto")]);
    let chosen: Vec<(bool, bool)> = both.iter().zip(&shown).map(|(before, after)| changed(before, after)).collect();
    let share = |from: usize, to: usize, expected: (bool, bool)| {
        chosen[from..to].iter().filter(|found| **found == expected).count() as f64 / (to - from) as f64
    };
    // After two seconds of either turn.
    let shares = [share(50, 125, (false, true)), share(175, 250, (true, false))];
    assert!(shares.iter().all(|share| *share >= 0.9), "{shares:?}");
}
