//! `lipsync`, the bin: whole pipelines that must run to their end.

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use common::{init, ms, person};
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
