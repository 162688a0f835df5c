//! `lipdenoise`: which frames get a mouth, when they may go, and what flushes, jumps and changes do.

#[path = "denoise/change.rs"]
mod change;
mod common;

use common::{a_face, denoiser, error_of, features_info, features_of, frame, frame_with, init, ms, stat, video_info};
use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo};
use gstlipstream::{
    features::{self, FeaturesInfo},
    meta::PatchMeta,
};
use lipstream_engines::tracker::Face;

/// Frames go in and out of `video`, features into `features`.
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

    /// From here on frames have a deadline, on a clock that the test moves.
    fn go_live(&mut self) -> gst_check::TestClock {
        self.video.use_testclock();
        self.video.set_live(true);
        self.features.set_live(true);
        assert!(self.video.query_latency().is_some());
        let clock = self.video.testclock().unwrap();
        self.element().set_clock(Some(&clock)).unwrap();
        self.element().set_base_time(gst::ClockTime::ZERO);
        clock
    }

    fn element(&self) -> gst::Element {
        self.video.element().unwrap()
    }

    /// Features of the hops from `from` to `to` ms.
    fn hear(&mut self, from: u64, to: u64) {
        (from..to).step_by(20).for_each(|t| self.features.push(a_feature(t)).map(|_| ()).unwrap());
    }

    /// Features of hops without voice.
    fn hear_nothing(&mut self, from: u64, to: u64) {
        for t in (from..to).step_by(20) {
            let mut feature = a_feature(t);
            feature.get_mut().unwrap().set_flags(gst::BufferFlags::GAP);
            self.features.push(feature).unwrap();
        }
    }

    fn show(&mut self, pts: u64, faces: &[Face]) -> gst::Buffer {
        let buffer = frame_with(&self.info, ms(pts), faces);
        self.video.push_and_pull(buffer).unwrap()
    }
}

fn a_feature(at: u64) -> gst::Buffer {
    let dims = features_info().dims;
    let vector: Vec<f32> = (0..dims).map(|i| ((at as f32 * 0.01 + i as f32) * 0.7).sin()).collect();
    features::to_buffer(&vector, ms(at), ms(20))
}

fn someone() -> Face {
    a_face(1, 80.0, 40.0, 150.0)
}

fn opacity(buffer: &gst::BufferRef) -> Option<f32> {
    buffer.meta::<PatchMeta>().map(|m| m.patch().opacity)
}

/// Middle of the patch in the frame.
fn place(buffer: &gst::BufferRef) -> (f32, f32) {
    let middle = lipstream_engines::geometry::Point::new(0.5, 0.5);
    let p = buffer.meta::<PatchMeta>().expect("a patch").patch().to_frame.apply(middle);
    (p.x, p.y)
}

#[test]
fn a_face_and_its_features_make_a_patch_and_pixels_stay() {
    let mut b = Bench::new(&[]);
    b.hear(0, 200);
    let out = b.show(40, &[someone()]);
    assert_eq!((out.pts(), out.duration()), (Some(ms(40)), Some(ms(40))));
    let meta = out.meta::<PatchMeta>().expect("a patch");
    assert_eq!((meta.size(), meta.patch().opacity), ((320, 240), 1.0), "the first mouth of a stream needs no fade");
    let (x, y) = place(&out);
    assert!((x - 155.0).abs() < 3.0 && (y - 115.0).abs() < 3.0, "({x}, {y})");
    let before = frame(&b.info, ms(40));
    assert_eq!(out.map_readable().unwrap().as_slice(), before.map_readable().unwrap().as_slice());
    let e = b.element();
    assert_eq!((stat(&e, "frames-in"), stat(&e, "frames-out"), stat(&e, "passed-through")), (1, 1, 0));
    assert!(stat(&e, "denoise-p50") > 0 && stat(&e, "steps") >= 1);
    assert!(stat(&e, "render-count") == 1 && stat(&e, "render-sum") > 0);
    let buckets = e.property::<gst::Structure>("stats").get::<gst::Array>("render-buckets").unwrap();
    let counts: Vec<u64> = buckets.as_slice().iter().map(|v| v.get().unwrap()).collect();
    assert!(counts.len() == 11 && counts.is_sorted() && counts[10] == 1, "{counts:?}");
}

#[test]
fn a_frame_without_a_face_does_not_wait_and_the_mouth_returns_by_and_by() {
    let mut b = Bench::new(&[("fade", "200")]);
    b.hear(0, 2000);
    assert_eq!(opacity(&b.show(0, &[someone()])), Some(1.0));
    assert_eq!(opacity(&b.show(40, &[])), None);
    let levels: Vec<f32> = (2..9).map(|i| opacity(&b.show(40 * i, &[someone()])).unwrap_or(0.0)).collect();
    assert!(levels[0] > 0.0 && levels[0] < 0.5, "{levels:?}");
    assert!(levels.windows(2).all(|w| w[0] <= w[1]) && *levels.last().unwrap() == 1.0, "{levels:?}");
    assert_eq!(stat(&b.element(), "passed-through"), 1);
    // No features reach so far, and nothing asks for them.
    assert_eq!(opacity(&b.show(60_000, &[])), None);
}

#[test]
fn a_covered_mouth_fades_away() {
    let mut b = Bench::new(&[("fade", "100")]);
    b.hear(0, 2000);
    b.show(0, &[someone()]);
    let mut covered = someone();
    covered.occluded = true;
    let levels: Vec<_> = (1..5).map(|i| opacity(&b.show(40 * i, std::slice::from_ref(&covered)))).collect();
    assert!(levels[0].is_some_and(|l| l > 0.5 && l < 0.7) && levels[3].is_none(), "{levels:?}");
}

#[test]
fn of_two_faces_one_speaks_and_goes_on_speaking() {
    let mut b = Bench::new(&[]);
    b.hear(0, 2000);
    let (small, large) = (a_face(1, 10.0, 60.0, 90.0), a_face(2, 150.0, 60.0, 140.0));
    assert!(place(&b.show(0, &[small.clone(), large.clone()])).0 > 180.0, "the larger one");
    // The other comes nearer; the one that speaks does not change.
    let grown = a_face(1, 0.0, 40.0, 160.0);
    assert!(place(&b.show(40, &[grown.clone(), large])).0 > 180.0);
    assert!(place(&b.show(80, &[grown])).0 < 100.0, "the only one left");
}

#[test]
fn people_do_not_share_a_bank() {
    let mut b = Bench::new(&[]);
    b.hear(0, 5000);
    for i in 0..10 {
        b.show(40 * i, &[a_face(1, 80.0 + i as f32, 40.0, 150.0)]);
    }
    let known = stat(&b.element(), "references");
    assert!(known >= 1);
    b.show(400, &[a_face(2, 80.0, 40.0, 150.0)]);
    assert_eq!(stat(&b.element(), "references"), 1, "a new person starts with nothing but the frame at hand");
    b.show(440, &[a_face(1, 80.0, 40.0, 150.0)]);
    assert!(stat(&b.element(), "references") >= known, "the first is remembered");
}

#[test]
fn between_sentences_the_frame_keeps_its_own_mouth() {
    let mut b = Bench::new(&[("idle", "own"), ("fade", "200"), ("model-instance-id", "idle")]);
    b.hear(0, 1000);
    b.hear_nothing(1000, 3010);
    b.hear(3010, 5000);
    let mut steps = Vec::new();
    let mut levels = Vec::new();
    for t in (0..4000).step_by(40) {
        let out = b.show(t, &[someone()]);
        let before = frame(&b.info, ms(t));
        assert_eq!(out.map_readable().unwrap().as_slice(), before.map_readable().unwrap().as_slice());
        levels.push((t, opacity(&out).unwrap_or(0.0)));
        steps.push(stat(&b.element(), "steps"));
    }
    let at = |t: u64| levels[t as usize / 40].1;
    // Voice ends at 1000, and 400 ms later the mouth goes.
    assert!(levels.iter().all(|(t, l)| *t > 1360 || *l == 1.0), "{levels:?}");
    let fade: Vec<f32> = (1360..=1600).step_by(40).map(at).collect();
    assert!(fade.windows(2).all(|w| w[1] < w[0] && w[0] - w[1] < 0.201 || w[1] == 0.0), "{fade:?}");
    assert!((1600..2960).step_by(40).all(|t| at(t) == 0.0), "{levels:?}");
    assert_eq!(steps[1640 / 40], steps[2920 / 40], "nothing is denoised for a frame that idles");
    // The voice of 3010 is known of at 2965 and due at 3050.
    assert!((at(2960), at(3000), at(3040)) == (0.0, 0.5, 1.0), "{levels:?}");
    assert_eq!(stat(&b.element(), "late"), 0);
}

#[test]
fn at_rest_is_the_default_and_silence_keeps_the_mouth() {
    let mut b = Bench::new(&[]);
    b.hear_nothing(0, 3000);
    assert!((0..2000).step_by(40).all(|t| opacity(&b.show(t, &[someone()])) == Some(1.0)));
    b.element().set_property_from_str("idle", "own");
    let levels: Vec<_> = (2000..2280).step_by(40).map(|t| opacity(&b.show(t, &[someone()]))).collect();
    assert!(levels[0].is_some_and(|l| l > 0.7) && levels[6].is_none(), "{levels:?}");
}

#[test]
fn an_idle_mouth_that_hears_nothing_in_time_stays_idle() {
    let mut b = Bench::new(&[("idle", "own")]);
    b.hear_nothing(0, 1000);
    for t in (0..400).step_by(40) {
        assert_eq!(opacity(&b.show(t, &[someone()])), None);
    }
    b.go_live().set_time(ms(60_000));
    assert_eq!(opacity(&b.show(2000, &[someone()])), None);
    assert_eq!(stat(&b.element(), "late"), 0, "it needs nothing");
}

#[test]
fn any_frame_times_do() {
    let mut b = Bench::new(&[]);
    b.hear(0, 3000);
    for pts in [0, 7, 40, 41, 300, 333, 1000, 1999] {
        let out = b.show(pts, &[someone()]);
        assert!(out.pts() == Some(ms(pts)) && opacity(&out).is_some(), "{pts} ms");
    }
}

#[test]
fn a_frame_waits_for_its_look_ahead() {
    let mut b = Bench::new(&[]);
    b.hear(0, 80);
    // Features up to 40 ms after it are needed, and the hop that starts at 80 is not there yet.
    let buffer = frame_with(&b.info, ms(60), &[someone()]);
    let Bench { mut video, mut features, .. } = b;
    let waiting = std::thread::spawn(move || (video.push_and_pull(buffer).unwrap(), video));
    while stat(&features.element().unwrap(), "frames-in") == 0 {
        std::thread::yield_now();
    }
    for at in [80, 100, 120] {
        assert!(!waiting.is_finished() || at > 100, "left before the feature at {at} ms");
        features.push(a_feature(at)).unwrap();
    }
    let (out, _video) = waiting.join().unwrap();
    assert!(opacity(&out).is_some());
}

#[test]
fn nobody_waits_for_features_that_have_ended() {
    let mut b = Bench::new(&[]);
    b.hear(0, 100);
    b.features.push_event(gst::event::Eos::new());
    for i in 0..20 {
        assert!(opacity(&b.show(40 * i, &[someone()])).is_some(), "silence moves the mouth, too");
    }
}

#[test]
fn without_anybody_on_the_features_pad_frames_pass() {
    init();
    let element = gst::ElementFactory::make("lipdenoise").build().unwrap();
    let mut video = Harness::with_element(&element, Some("sink"), Some("src"));
    let info = video_info(VideoFormat::Rgb, 320, 240);
    video.set_src_caps(info.to_caps().unwrap());
    for i in 0..3 {
        let out = video.push_and_pull(frame_with(&info, ms(40 * i), &[someone()])).unwrap();
        assert_eq!(opacity(&out), None);
    }
    assert_eq!(stat(&element, "passed-through"), 3);
}

#[test]
fn features_after_the_end_of_the_video_are_swallowed() {
    let mut b = Bench::new(&[]);
    b.hear(0, 100);
    b.show(0, &[someone()]);
    b.video.push_event(gst::event::Eos::new());
    // Far more than may run ahead of a video.
    b.hear(100, 30_000);
    b.features.push_event(gst::event::Eos::new());
    let last = std::iter::from_fn(|| b.video.try_pull_event()).last().unwrap();
    assert_eq!(last.type_(), gst::EventType::Eos);
}

#[test]
fn latency_is_that_of_the_slower_stream_and_its_own() {
    for (video, audio, want) in [(10, 200, 200 + 45 + 20), (500, 50, 500 + 20)] {
        let mut b = Bench::new(&[]);
        b.video.set_live(true);
        b.video.set_upstream_latency(ms(video));
        b.features.set_live(true);
        b.features.set_upstream_latency(ms(audio));
        assert_eq!(b.video.query_latency(), Some(ms(want)), "video {video}, features {audio}");
    }
    let mut b = Bench::new(&[("batch-timeout", "5"), ("steps", "3"), ("scheduling-policy", "throughput")]);
    b.video.set_live(true);
    b.features.set_live(true);
    // Look-ahead, computing, a batch window for each of three steps and for the refinement, and two more frames on their way.
    assert_eq!(b.video.query_latency(), Some(ms(45 + 20 + 4 * 5 + 2 * 40)));
}

#[test]
fn a_look_ahead_that_is_chosen_is_declared_and_one_that_there_is_not_is_refused_with_those_that_there_are() {
    let words = "compact-words";
    // Two tokens of 20 ms are computed together: a frame waits for the second, too.
    for (look_ahead, want) in [("0", 140), ("80", 100), ("120", 140), ("160", 180)] {
        let heard = features_of(words);
        let overhang = heard.overhang;
        let info = video_info(VideoFormat::I420, 320, 240);
        let (mut video, mut features) = denoiser(&info, &heard, &[("model", words), ("look-ahead", look_ahead)]);
        video.set_live(true);
        features.set_live(true);
        features.set_upstream_latency(overhang);
        assert_eq!(video.query_latency(), Some(ms(want + 20)), "look-ahead {look_ahead}");
    }
    for (model, look_ahead, says) in [
        (words, "100", "no look-ahead of 100 ms: it has 120, 160, 80 and 7140 ms"),
        ("compact", "160", "no look-ahead of 160 ms: it has 80 ms"),
    ] {
        let element = gst::ElementFactory::make("lipdenoise").build().unwrap();
        element.set_property_from_str("model", model);
        element.set_property_from_str("look-ahead", look_ahead);
        let error = error_of(&element);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_late_frame_goes_at_its_deadline_with_the_last_patch() {
    let mut b = Bench::new(&[]);
    let element = b.element();
    b.hear(0, 120);
    let first = b.show(0, &[someone()]);
    assert!(opacity(&first).is_some());
    let clock = b.go_live();
    // Nothing is heard after 100 ms: this frame can wait until 400 + 65 ms only.
    let moved = a_face(1, 100.0, 40.0, 150.0);
    let buffer = frame_with(&b.info, ms(400), &[moved]);
    let Bench { mut video, features, .. } = b;
    let waiting = std::thread::spawn(move || (video.push_and_pull(buffer).unwrap(), video));
    let id = clock.wait_for_next_pending_id();
    assert_eq!(id.time(), ms(465));
    assert!(!waiting.is_finished());
    assert!(clock.crank());
    let (out, video) = waiting.join().unwrap();
    assert!((place(&out).0 - place(&first).0 - 20.0).abs() < 2.0, "the last mouth follows the face");
    assert_eq!((stat(&element, "late"), stat(&element, "frames-out")), (1, 2));
    drop((video, features));
}

#[test]
fn a_frame_that_comes_too_late_is_not_worked_on() {
    let mut b = Bench::new(&[("model-instance-id", "too late")]);
    let element = b.element();
    b.hear(0, 1000);
    b.go_live().set_time(ms(900));
    let out = b.show(40, &[someone()]);
    assert_eq!((opacity(&out), stat(&element, "late"), stat(&element, "steps")), (None, 1, 0));
}

#[test]
fn a_mouth_that_hears_nothing_for_long_is_taken_away() {
    let mut b = Bench::new(&[("fade", "100")]);
    b.hear(0, 200);
    b.show(0, &[someone()]);
    b.go_live().set_time(ms(60_000));
    let levels: Vec<_> = (1..20).map(|i| opacity(&b.show(40 * i, &[someone()]))).collect();
    assert_eq!(levels[0], Some(1.0), "at first it stands still");
    assert_eq!(levels[18], None, "{levels:?}");
    assert_eq!(stat(&b.element(), "late"), 19);
}

#[test]
fn a_flush_frees_a_frame_that_waits_and_empties_the_element() {
    let mut b = Bench::new(&[]);
    b.hear(0, 100);
    b.show(0, &[someone()]);
    let buffer = frame_with(&b.info, ms(5000), &[someone()]);
    let pad = b.element().static_pad("sink").unwrap();
    let info = b.info.clone();
    let Bench { mut video, mut features, .. } = b;
    let waiting = std::thread::spawn(move || (video.push(buffer), video));
    while stat(&features.element().unwrap(), "frames-in") < 2 {
        std::thread::yield_now();
    }
    assert!(pad.send_event(gst::event::FlushStart::new()));
    let (result, video) = waiting.join().unwrap();
    assert_eq!(result, Err(gst::FlowError::Flushing));
    assert!(features.push_event(gst::event::FlushStart::new()));
    assert!(features.push_event(gst::event::FlushStop::new(true)));
    assert!(pad.send_event(gst::event::FlushStop::new(true)));
    let mut b = Bench { video, features, info };
    assert!(stat(&b.element(), "flush-time") > 0);
    // After the jump, both begin at another time.
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(ms(7000));
    b.video.push_event(gst::event::Segment::new(&segment));
    b.features.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    b.hear(0, 200);
    let out = b.show(7040, &[someone()]);
    assert_eq!(opacity(&out), Some(1.0));
}

#[test]
fn stopping_frees_a_frame_that_waits() {
    let mut b = Bench::new(&[]);
    b.hear(0, 100);
    let element = b.element();
    let buffer = frame_with(&b.info, ms(5000), &[someone()]);
    let Bench { mut video, features, .. } = b;
    let waiting = std::thread::spawn(move || (video.push(buffer), video));
    while stat(&element, "frames-in") == 0 {
        std::thread::yield_now();
    }
    element.set_state(gst::State::Null).unwrap();
    let (result, video) = waiting.join().unwrap();
    assert_eq!(result, Err(gst::FlowError::Flushing));
    drop((video, features));
}

#[test]
fn a_flush_of_the_features_forgets_what_was_said() {
    let mut b = Bench::new(&[]);
    b.hear(0, 2000);
    b.show(0, &[someone()]);
    b.features.push_event(gst::event::FlushStart::new());
    b.features.push_event(gst::event::FlushStop::new(false));
    b.features.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    // The old features would have served this frame; now it waits for the new ones.
    let buffer = frame_with(&b.info, ms(400), &[someone()]);
    let Bench { mut video, mut features, .. } = b;
    let waiting = std::thread::spawn(move || (video.push_and_pull(buffer).unwrap(), video));
    while stat(&features.element().unwrap(), "frames-in") < 2 {
        std::thread::yield_now();
    }
    assert!(!waiting.is_finished());
    features.push(a_feature(400)).unwrap();
    features.push(a_feature(420)).unwrap();
    features.push(a_feature(440)).unwrap();
    assert!(opacity(&waiting.join().unwrap().0).is_some());
}

#[test]
fn caps_may_change_and_the_person_stays_known_in_the_same_colours() {
    let mut b = Bench::new(&[]);
    b.hear(0, 5000);
    for i in 0..10 {
        b.show(40 * i, &[a_face(1, 80.0 + i as f32, 40.0, 150.0)]);
    }
    let known = stat(&b.element(), "references");
    b.info = VideoInfo::builder(VideoFormat::Nv12, 640, 480)
        .fps(gst::Fraction::new(50, 1))
        .colorimetry(&b.info.colorimetry())
        .build()
        .unwrap();
    b.video.set_src_caps(b.info.to_caps().unwrap());
    let out = b.show(400, &[a_face(1, 160.0, 80.0, 300.0)]);
    assert_eq!(out.meta::<PatchMeta>().unwrap().size(), (640, 480));
    assert_eq!(b.video.sinkpad().unwrap().current_caps(), Some(b.info.to_caps().unwrap()));
    assert!(stat(&b.element(), "references") >= known);
    b.info = video_info(VideoFormat::Rgba, 640, 480);
    b.video.set_src_caps(b.info.to_caps().unwrap());
    assert!(opacity(&b.show(440, &[a_face(1, 160.0, 80.0, 300.0)])).is_some());
    assert_eq!(stat(&b.element(), "references"), 1, "references in YUV are of no use to RGB frames");
}

#[test]
fn throughput_keeps_order_and_loses_nothing() {
    let mut b = Bench::new(&[("scheduling-policy", "throughput"), ("steps", "4")]);
    b.hear(0, 2000);
    let mut out = Vec::new();
    for i in 0..20u64 {
        // Now and then nobody is there.
        let faces = if i % 5 == 3 { vec![] } else { vec![someone()] };
        b.video.push(frame_with(&b.info, ms(40 * i), &faces)).unwrap();
        let held = i + 1 - b.video.buffers_received() as u64;
        assert!(held <= 3, "{held} frames on their way");
        out.extend(std::iter::from_fn(|| b.video.try_pull()));
    }
    b.video.push_event(gst::event::Eos::new());
    out.extend(std::iter::from_fn(|| b.video.try_pull()));
    let times: Vec<u64> = out.iter().map(|o| o.pts().unwrap().mseconds() / 40).collect();
    assert_eq!(times, (0..20).collect::<Vec<_>>());
    assert_eq!(out.iter().filter(|o| opacity(o).is_some()).count(), 16);
}

#[test]
fn events_do_not_overtake_frames() {
    let mut b = Bench::new(&[("scheduling-policy", "throughput"), ("steps", "4")]);
    b.hear(0, 2000);
    b.video.push(frame_with(&b.info, ms(0), &[someone()])).unwrap();
    let received = |b: &Bench| b.video.buffers_received();
    assert_eq!(received(&b), 0, "held for its steps");
    b.video.push_event(gst::event::Gap::builder(ms(40)).duration(ms(40)).build());
    assert_eq!(received(&b), 1);
}

#[test]
fn gathering_can_be_switched_off() {
    let mut b = Bench::new(&[("gather", "false")]);
    b.hear(0, 500);
    assert_eq!(opacity(&b.show(0, &[someone()])), None);
}

#[test]
fn the_mouth_of_the_last_second_can_be_hidden() {
    let mut bench = Bench::new(&[("reference-gap", "1000")]);
    bench.hear(0, 1400);
    for (pts, seen) in [(0, false), (960, false), (1000, true), (1240, true)] {
        let buffer = bench.show(pts, &[someone()]);
        assert_eq!(opacity(&buffer).is_some(), seen, "at {pts} ms");
    }
}

#[test]
fn the_same_seed_gives_the_same_mouth() {
    let run = |seed: &str| {
        let mut b = Bench::new(&[("seed", seed), ("model-instance-id", seed)]);
        b.hear(0, 500);
        (0..5).map(|i| b.show(40 * i, &[someone()])).map(|o| place(&o)).last().unwrap();
        let out = b.show(240, &[someone()]);
        out.meta::<PatchMeta>().unwrap().patch().pixels.crop().unwrap().data.clone()
    };
    assert_eq!(run("3"), run("3"));
    assert_ne!(run("3"), run("4"));
}

#[test]
fn a_shift_gives_a_frame_the_features_of_another_time_and_declares_what_it_waits_for() {
    let made = |shift: &str, pts: u64| {
        let mut b = Bench::new(&[("feature-shift", shift)]);
        b.hear(0, 500);
        b.show(pts, &[someone()]).meta::<PatchMeta>().unwrap().patch().pixels.crop().unwrap().data.clone()
    };
    assert_eq!(made("-120", 360), made("0", 240));
    assert_eq!(made("80", 160), made("0", 240));
    assert_ne!(made("0", 360), made("0", 240));
    let mut b = Bench::new(&[]);
    b.video.set_live(true);
    b.features.set_live(true);
    assert_eq!(b.video.query_latency(), Some(ms(45 + 20)));
    for (shift, more) in [(80, 80), (-120, 0), (40, 40), (0, 0)] {
        b.element().set_property("feature-shift", shift);
        assert_eq!(b.video.query_latency(), Some(ms(45 + 20 + more)), "{shift}");
    }
}

#[test]
fn a_seek_goes_up_both_ways() {
    let mut b = Bench::new(&[]);
    let seek = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH,
        gst::SeekType::Set,
        ms(1000),
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    b.video.push_upstream_event(seek);
    for h in [&mut b.video, &mut b.features] {
        let seeks = std::iter::from_fn(|| h.try_pull_upstream_event()).filter(|e| e.type_() == gst::EventType::Seek);
        assert_eq!(seeks.count(), 1);
    }
}

#[test]
fn features_of_another_encoder_are_refused() {
    init();
    let element = gst::ElementFactory::make("lipdenoise").build().unwrap();
    let mut h = Harness::with_element(&element, Some("features"), None);
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    h.play();
    let mut other = features_info();
    other.encoder = "whisper".into();
    h.set_src_caps(other.to_caps());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).expect("an error");
    let gst::MessageView::Error(e) = message.view() else { unreachable!() };
    let text = format!("{} {}", e.error(), e.debug().unwrap_or_default());
    assert!(text.contains("whisper") && text.contains("compact") && text.contains("lipaudioenc"), "{text}");
}

#[test]
fn features_of_the_largest_encoders_fit_the_pads() {
    init();
    let pads = [("lipaudioenc", "src"), ("lipdenoise", "features")].map(|(element, pad)| {
        gst::ElementFactory::make(element).build().unwrap().static_pad(pad).unwrap().pad_template_caps()
    });
    let of = |dims: usize| FeaturesInfo { dims, encoder: "whisper".into(), ..features_info() };
    // All states of Whisper small and of Whisper large.
    for dims in [13 * 768, 33 * 1280] {
        let caps = of(dims).to_caps();
        assert!(pads.iter().all(|pad| caps.is_subset(pad)), "{dims}");
        assert_eq!(FeaturesInfo::from_caps(&caps), Ok(of(dims)));
        let row: Vec<f32> = (0..dims).map(|i| i as f32).collect();
        assert_eq!(features::from_buffer(&features::to_buffer(&row, ms(0), ms(20)), dims), Some(row));
    }
    let caps = of(1 << 20).to_caps();
    assert!(!pads.iter().any(|pad| caps.can_intersect(pad)));
    assert!(FeaturesInfo::from_caps(&caps).is_err_and(|cause| cause.contains("1048576")));
}

#[test]
fn wrong_paths_are_named_in_the_error() {
    init();
    let make = || gst::ElementFactory::make("lipdenoise");
    let text = error_of(&make().property("model", "/nowhere/engine.toml").build().unwrap());
    assert!(text.contains("/nowhere/engine.toml") && text.contains("model"), "{text}");
    let text = error_of(&make().property("reference-bank", "/nowhere/bank").build().unwrap());
    assert!(text.contains("/nowhere/bank"), "{text}");
    let text = error_of(&make().property("model", "tracker").build().unwrap());
    assert!(text.contains("tracker") && text.contains("compact"), "{text}");
}

/// The faces that have a patch, and how opaque it is.
fn mouths(buffer: &gst::BufferRef) -> Vec<(u64, f32)> {
    buffer.iter_meta::<PatchMeta>().map(|m| (m.track().expect("of a face"), m.patch().opacity)).collect()
}

/// Two faces beside each other, 3 on the left and 4, which is larger, on the right.
fn two() -> [Face; 2] {
    [a_face(3, 20.0, 60.0, 110.0), a_face(4, 170.0, 50.0, 130.0)]
}

#[test]
fn another_face_is_taken_up_as_the_first_fades_out() {
    let mut b = Bench::new(&[("fade", "200"), ("speaker", "left")]);
    b.hear(0, 4000);
    assert_eq!(mouths(&b.show(0, &two())), [(3, 1.0)], "the first mouth of a stream needs no fade");
    b.element().set_property("speaker", "right");
    let way: Vec<Vec<(u64, f32)>> = (1..7).map(|i| mouths(&b.show(40 * i, &two()))).collect();
    let level = |frame: &[(u64, f32)], face| frame.iter().find(|(track, _)| *track == face).map_or(0.0, |(_, l)| *l);
    for (i, frame) in way.iter().enumerate() {
        let come = (0.2 * (i + 1) as f32).min(1.0);
        assert!((level(frame, 4) - come).abs() < 0.01 && (level(frame, 3) - (1.0 - come)).abs() < 0.01, "{way:?}");
    }
    assert_eq!(way[5], [(4, 1.0)], "nothing is made for a face that is silent");
    assert_eq!(stat(&b.element(), "speaker-track"), 4);
    b.element().set_property("speaker", "all");
    (7..13).for_each(|i| drop(b.show(40 * i, &two())));
    assert_eq!(mouths(&b.show(520, &two())), [(4, 1.0), (3, 1.0)]);
    b.element().set_property("speaker", "track:9");
    (14..19).for_each(|i| drop(b.show(40 * i, &two())));
    assert_eq!(mouths(&b.show(760, &two())), []);
    // A word that is none changes nothing.
    b.element().set_property("speaker", "everybody");
    assert_eq!(b.element().property::<String>("speaker"), "track:9");
}

#[test]
fn a_lost_face_does_not_hold_the_others_up() {
    let mut b = Bench::new(&[("speaker", "left")]);
    b.hear(0, 2000);
    let [left, right] = two();
    b.show(0, &[left.clone(), right.clone()]);
    assert_eq!(mouths(&b.show(40, std::slice::from_ref(&right))), [], "the one beside is not the left one");
    assert_eq!(mouths(&b.show(80, &[])), []);
    b.element().set_property("speaker", "all");
    assert_eq!(mouths(&b.show(120, &[right]))[0].0, 4);
    assert_eq!(stat(&b.element(), "frames-out"), 4);
}

#[test]
fn a_second_denoiser_leaves_the_faces_of_the_first_to_it() {
    let mut first = Bench::new(&[("speaker", "largest")]);
    let mut second = Bench::new(&[("speaker", "largest")]);
    first.hear(0, 400);
    second.hear(0, 400);
    let spoken = first.show(0, &two());
    let spoken = second.video.push_and_pull(spoken).unwrap();
    assert_eq!(mouths(&spoken), [(4, 1.0), (3, 1.0)]);
}

#[test]
fn a_head_that_turns_far_has_its_own_mouth_until_it_is_well_back() {
    let mut b = Bench::new(&[("fade", "100"), ("max-yaw", "40")]);
    b.hear(0, 4000);
    let mut at = 0;
    let mut seen = |yaw: f32, confidence: f32, frames: u64| -> Vec<f32> {
        let turned = Face { yaw, confidence, ..someone() };
        let show = |i| opacity(&b.show(at + 40 * i, std::slice::from_ref(&turned))).unwrap_or(0.0);
        let shown = (0..frames).map(show).collect();
        at += 40 * frames;
        shown
    };
    let mut levels = |yaw: f32, frames: u64| seen(yaw, 1.0, frames);
    assert_eq!(levels(0.0, 2), [1.0, 1.0]);
    assert_eq!(levels(39.0, 2), [1.0, 1.0]);
    let goes = levels(-41.0, 4);
    assert!((goes[0] - 0.6).abs() < 0.01 && (goes[1] - 0.2).abs() < 0.01 && goes[3] == 0.0, "{goes:?}");
    assert_eq!(levels(-37.0, 4), [0.0; 4], "not back by four degrees");
    assert_eq!(levels(35.0, 12), [0.0; 12], "not for half a second");
    assert_eq!(levels(-37.0, 1), [0.0], "not for half a second on end");
    assert_eq!(levels(35.0, 13), [0.0; 13]);
    let comes = levels(35.0, 4);
    assert!((comes[0] - 0.4).abs() < 0.01 && comes[3] == 1.0, "{comes:?}");
    assert_eq!(levels(39.0, 2), [1.0, 1.0]);
    // One that the tracker is less sure of may be in profile.
    assert_eq!(levels(41.0, 4)[3], 0.0);
    assert_eq!(seen(29.0, 0.8, 4), [0.0; 4], "not back by twelve degrees");
    assert_eq!(seen(27.0, 0.8, 17)[16], 1.0);
    let untouched = b.element().property::<gst::Structure>("stats").get::<gst::Structure>("untouched").unwrap();
    assert_eq!(untouched.get::<u64>("turned-away"), Ok(51));
}
