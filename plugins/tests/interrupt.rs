//! The interrupt: what it takes back, how soon, and what it leaves alone.

mod common;

use common::{
    a_face, denoiser, features_info, frame_with, init,
    live::{Live, people, voice},
    ms, stat, until, video_info,
};
use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo};
use gstlipstream::{features, interrupt, meta::PatchMeta};

/// Frames in and out of `video`, features into `features`.
struct Bench {
    video: Harness,
    features: Harness,
    info: VideoInfo,
}

impl Bench {
    fn new(properties: &[(&str, &str)]) -> Self {
        let info = video_info(VideoFormat::I420, 320, 240);
        let (video, features) = denoiser(&info, &features_info(), properties);
        Self { video, features, info }
    }

    fn element(&self) -> gst::Element {
        self.video.element().unwrap()
    }

    fn hear(&mut self, from: u64, to: u64) {
        for t in (from..to).step_by(20) {
            let vector: Vec<f32> =
                (0..features_info().dims).map(|i| 2.0 * ((t + i as u64) as f32 * 0.7).sin()).collect();
            self.features.push(features::to_buffer(&vector, ms(t), ms(20))).unwrap();
        }
    }

    /// Shape of the mouth in the frame at `pts`: the mask follows the landmarks that are wanted.
    fn show(&mut self, pts: u64) -> Option<Vec<u8>> {
        let buffer = frame_with(&self.info, ms(pts), &[a_face(1, 80.0, 40.0, 150.0)]);
        let out = self.video.push_and_pull(buffer).unwrap();
        assert_eq!(out.pts(), Some(ms(pts)));
        out.meta::<PatchMeta>().map(|meta| meta.patch().mask.to_vec())
    }
}

/// The shape of a mouth at rest.
fn rest() -> Vec<u8> {
    let mut still = Bench::new(&[("motion-gain", "0")]);
    still.hear(0, 200);
    still.show(0).unwrap()
}

#[test]
fn the_mouth_is_at_rest_within_80_ms_of_video_and_speaks_again_at_once() {
    type Signal = fn(&mut Bench);
    let ways: [(&str, Signal); 4] = [
        ("signal", |b| b.element().emit_by_name("interrupt", &[])),
        ("event in the features", |b| assert!(b.features.push_event(interrupt::downstream()))),
        ("event in the video", |b| assert!(b.video.push_event(interrupt::downstream()))),
        ("upstream event", |b| assert!(b.video.push_upstream_event(interrupt::upstream()))),
    ];
    let rest = rest();
    for (way, signal) in ways {
        let mut b = Bench::new(&[]);
        b.hear(0, 1000);
        for t in (0..400).step_by(40) {
            assert_ne!(b.show(t).unwrap(), rest, "{way}: it speaks at {t}");
        }
        signal(&mut b);
        assert_ne!(b.show(400).unwrap(), rest, "{way}: half way");
        assert_eq!(stat(&b.element(), "interrupt-time"), 0);
        assert_eq!(b.show(440).unwrap(), rest, "{way}: there");
        assert!(stat(&b.element(), "interrupt-time") > 0, "{way}");
        // What had been received before was to be said until 1000 ms.
        let far = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a.abs_diff(**b) > 64).count();
        for t in (480..900).step_by(40) {
            let shape = b.show(t).unwrap();
            assert!(far(&shape, &rest) < 300, "{way}: at {t} {} pixels differ", far(&shape, &rest));
        }
        b.hear(1000, 1500);
        let speaks = (1000..1400).step_by(40).map(|t| b.show(t).unwrap());
        assert!(speaks.filter(|shape| *shape != rest).count() > 8, "{way}: what comes after it is said");
        let e = b.element();
        assert_eq!((stat(&e, "frames-in"), stat(&e, "dropped"), stat(&e, "late")), (stat(&e, "frames-out"), 0, 0));
    }
}

#[test]
fn a_frame_that_waits_goes_at_once_and_without_what_was_said() {
    let mut b = Bench::new(&[]);
    b.hear(0, 200);
    b.show(0);
    let element = b.element();
    let waiting = std::thread::spawn(move || {
        // 5 s ahead of what has been heard.
        let shapes = [b.show(5000), b.show(5040)];
        (shapes, b)
    });
    until("the frame waits", || stat(&element, "frames-in") >= 2);
    element.emit_by_name::<()>("interrupt", &[]);
    let (shapes, mut b) = second_of(waiting, &element);
    assert_eq!(shapes[0].as_ref(), Some(&rest()), "5 s later it is at rest");
    assert!(shapes[1].is_some());
    b.hear(5200, 5400);
    assert!(b.show(5200).is_some());
}

/// The first frame goes by itself, the second needs features again.
fn second_of(
    thread: std::thread::JoinHandle<([Option<Vec<u8>>; 2], Bench)>,
    element: &gst::Element,
) -> ([Option<Vec<u8>>; 2], Bench) {
    until("it has gone", || stat(element, "frames-out") >= 2);
    let pad = element.static_pad("features").unwrap();
    for t in (5000..5120).step_by(20) {
        pad.chain(features::to_buffer(&vec![0.1; features_info().dims], ms(t), ms(20))).unwrap();
    }
    thread.join().unwrap()
}

#[test]
fn an_interrupt_of_nobody_changes_nothing() {
    let mut quiet = Bench::new(&[("seed", "5")]);
    let mut other = Bench::new(&[("seed", "5")]);
    other.element().emit_by_name::<()>("interrupt", &[]);
    for b in [&mut quiet, &mut other] {
        b.hear(0, 1000);
    }
    assert!((0..800).step_by(40).all(|t| quiet.show(t) == other.show(t)));
    assert!(stat(&other.element(), "interrupt-time") > 0 && stat(&quiet.element(), "interrupt-time") == 0);
}

#[test]
fn frames_of_several_steps_on_their_way_are_taken_back() {
    let mut b = Bench::new(&[("scheduling-policy", "throughput"), ("steps", "4")]);
    b.hear(0, 2000);
    for i in 0..10 {
        b.video.push(frame_with(&b.info, ms(40 * i), &[a_face(1, 80.0, 40.0, 150.0)])).unwrap();
    }
    let gone = b.video.buffers_received();
    assert!(gone < 10, "some are held");
    b.element().emit_by_name::<()>("interrupt", &[]);
    for i in 10..20 {
        b.video.push(frame_with(&b.info, ms(40 * i), &[a_face(1, 80.0, 40.0, 150.0)])).unwrap();
    }
    b.video.push_event(gst::event::Eos::new());
    let shapes: Vec<Vec<u8>> = std::iter::from_fn(|| b.video.try_pull())
        .map(|out| out.meta::<PatchMeta>().unwrap().patch().mask.to_vec())
        .collect();
    assert_eq!(shapes.len(), 20);
    assert_eq!(shapes[gone as usize + 1], rest(), "the second frame after the interrupt, though it came before it");
}

#[test]
fn an_interrupted_mouth_idles_when_its_time_has_come() {
    let mut b = Bench::new(&[("idle", "own"), ("fade", "0")]);
    b.hear(0, 5000);
    (0..400).step_by(40).for_each(|t| assert!(b.show(t).is_some()));
    b.element().emit_by_name::<()>("interrupt", &[]);
    let shown: Vec<u64> = (400..1400).step_by(40).filter(|t| b.show(*t).is_some()).collect();
    // 400 ms after the last frame that spoke, of 360 ms.
    assert_eq!(shown, (400..760).step_by(40).collect::<Vec<_>>());
}

#[test]
fn a_message_tells_when_the_mouth_is_at_rest() {
    let mut b = Bench::new(&[]);
    let bus = gst::Bus::new();
    b.element().set_bus(Some(&bus));
    b.hear(0, 1000);
    b.show(0);
    b.element().emit_by_name::<()>("interrupt", &[]);
    (40..400).step_by(40).for_each(|t| drop(b.show(t)));
    let told: Vec<u64> = bus
        .iter_filtered(&[gst::MessageType::Element])
        .filter_map(|m| m.structure().filter(|s| s.name() == interrupt::NAME).map(|s| s.get("time").unwrap()))
        .collect();
    assert_eq!(told, [stat(&b.element(), "interrupt-time")]);
}

#[test]
fn the_live_bin_comes_to_rest_and_keeps_every_frame_and_sample() {
    let Some((info, frames)) = people(640, 360, 40) else { return };
    let mut live = Live::new(info, frames, &[], true);
    live.feed(2000, |_, frame| Some(frame), |t| Some(voice(t)));
    for round in 1..=3 {
        live.bin.emit_by_name::<()>("interrupt", &[]);
        live.feed(600, |_, frame| Some(frame), |_| Some(0.0));
        let time = live.stat("interrupt-time");
        eprintln!("interrupt {round}: {:.1} ms to a frame at rest", time as f64 / 1000.0);
        assert!(time > 0 && time < 1_000_000, "{time} us");
        live.feed(600, |_, frame| Some(frame), |t| Some(voice(t)));
    }
    let frames = live.fed as usize / 40;
    live.video.end_of_stream().unwrap();
    live.voice.end_of_stream().unwrap();
    live.wait_for(frames);
    let seen = live.seen.lock().unwrap().clone();
    let times: Vec<u64> = seen.iter().map(|s| s.buffer.pts().unwrap().mseconds() / 40).collect();
    assert_eq!(times, (0..frames as u64).collect::<Vec<_>>());
    assert_eq!(live.stat("dropped"), 0);
}

#[test]
fn what_still_waits_in_the_bin_counts_as_said() {
    init();
    // The audio is a second ahead of the video, all of it in the bin.
    let Some((info, frames)) = people(320, 180, 10) else { return };
    let mut live = Live::new(info, frames, &[("idle", "own"), ("idle-after", "0"), ("fade", "0")], false);
    for i in 0..50 {
        let samples: Vec<u8> = (0..960).flat_map(|k| voice((i * 960 + k) as f64 / 48_000.0).to_le_bytes()).collect();
        let mut buffer = gst::Buffer::from_mut_slice(samples);
        let own = buffer.get_mut().unwrap();
        own.set_pts(ms(20 * i));
        own.set_duration(ms(20));
        live.voice.push_buffer(buffer).unwrap();
    }
    live.wait_until("it is heard", |live| live.stat("audioenc/frames-in") == 50);
    live.bin.emit_by_name::<()>("interrupt", &[]);
    live.feed(800, |_, frame| Some(frame), |_| None);
    live.wait_for(20);
    assert_eq!(live.stat("denoise/passed-through"), 20, "of what was said before nothing is spoken");
}
