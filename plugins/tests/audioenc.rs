//! `lipaudioenc`: when each feature belongs, and what silence, holes, flushes and formats make of it.

mod common;
#[path = "../../engines/tests/common/windowed.rs"]
mod windowed;

use common::{error_of, features_info, init, ms, stat};
use gst::prelude::*;
use gst_check::Harness;
use gstlipstream::features::{self, FeaturesInfo};

const F32: &str = "audio/x-raw,format=F32LE,rate=16000,channels=1,layout=interleaved";
const S16: &str = "audio/x-raw,format=S16LE,rate=16000,channels=1,layout=interleaved";

fn harness(caps: &str) -> Harness {
    init();
    let element = gst::ElementFactory::make("lipaudioenc").property("engine", "compact").build().unwrap();
    let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
    h.set_src_caps_str(caps);
    h
}

/// A sweep, so that no two hops sound the same.
fn speech(samples: std::ops::Range<usize>) -> Vec<f32> {
    samples.map(|i| 0.3 * (i as f32 * (0.05 + i as f32 * 1e-6)).sin()).collect()
}

fn audio(samples: &[f32], pts: gst::ClockTime) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_mut_slice(samples.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>());
    let b = buffer.get_mut().unwrap();
    b.set_pts(pts);
    b.set_duration(gst::ClockTime::from_nseconds(samples.len() as u64 * 62_500));
    buffer
}

/// Everything that has come out: PTS in ms and the vector.
fn pulled(h: &mut Harness) -> Vec<(u64, Vec<f32>)> {
    let dims = features_info().dims;
    std::iter::from_fn(|| h.try_pull())
        .map(|b| (b.pts().unwrap().mseconds(), features::from_buffer(&b, dims).unwrap()))
        .collect()
}

fn near(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn a_feature_a_hop_timed_by_the_start_of_the_hop() {
    let mut h = harness(F32);
    h.push(audio(&speech(0..16000), ms(0))).unwrap();
    // The last hop that is complete with 1000 ms needs 35 ms after its start.
    let early = pulled(&mut h);
    assert_eq!(early.last().unwrap().0, 960);
    h.push_event(gst::event::Eos::new());
    let times: Vec<u64> = early.iter().chain(&pulled(&mut h)).map(|f| f.0).collect();
    assert_eq!(times, (0..50).map(|i| i * 20).collect::<Vec<_>>(), "every hop that has begun, up to the end");
    let caps = h.sinkpad().unwrap().current_caps().unwrap();
    assert_eq!(FeaturesInfo::from_caps(&caps).unwrap(), features_info());
}

#[test]
fn for_a_long_look_ahead_sound_is_heard_in_windows_at_places_of_the_running_time() {
    let folder = tempfile::tempdir().unwrap();
    windowed::engine(folder.path(), (40, 10), 740);
    init();
    let tone = |i: usize, hertz: f32| (i as f32 / 16_000.0 * hertz * std::f32::consts::TAU).sin();
    let voice: Vec<f32> = (0..80_000).map(|i| 0.02 * tone(i, 150.0) * tone(i, 2.3).powi(2)).collect();
    let hear = |from: usize, look_ahead: u32| {
        let element = gst::ElementFactory::make("lipaudioenc")
            .property("engine", folder.path().to_str().unwrap())
            .property("look-ahead", look_ahead)
            .build()
            .unwrap();
        let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
        h.set_src_caps_str(F32);
        for (i, piece) in voice.chunks(1600).enumerate().skip(from / 1600) {
            h.push(audio(piece, ms(100 * i as u64))).unwrap();
        }
        h.push_event(gst::event::Eos::new());
        let caps = h.sinkpad().unwrap().current_caps().unwrap();
        let info = FeaturesInfo::from_caps(&caps).unwrap();
        let read = |b: gst::Buffer| (b.pts().unwrap().mseconds(), features::from_buffer(&b, info.dims).unwrap());
        (info.clone(), std::iter::from_fn(|| h.try_pull()).map(read).collect::<Vec<_>>())
    };
    let (info, all) = hear(0, 740);
    assert_eq!(all.iter().map(|f| f.0).collect::<Vec<_>>(), (0..250).map(|i| i * 20).collect::<Vec<_>>());
    // The first of 20 tokens waits for 29 others and 32.5 ms; the LATENCY query says so.
    assert_eq!(info.overhang, gst::ClockTime::from_useconds(612_500));
    assert_ne!(info.encoder, hear(0, 0).0.encoder);
    // From 1.1 s on, which is no place of a window, and what is before is silence: two windows later all is the same.
    let (_, late) = hear(17_600, 740);
    assert_eq!((late[0].0, late.len()), (1100, 195));
    let same =
        |from: u64| (late.iter().skip_while(|f| f.0 < from)).all(|f| near(&f.1, &all[f.0 as usize / 20].1, 1e-4));
    assert!(!same(1100) && same(1900));
}

/// Times in ms of the features that have come out and heard no voice.
fn silent(h: &mut Harness) -> Vec<u64> {
    std::iter::from_fn(|| h.try_pull())
        .filter(|b| b.flags().contains(gst::BufferFlags::GAP))
        .map(|b| b.pts().unwrap().mseconds())
        .collect()
}

#[test]
fn features_without_voice_are_marked() {
    let mut samples = speech(0..16000);
    samples[4000..8000].fill(0.0);
    // -66 dBFS of noise is no voice, either.
    samples[8000..12000].iter_mut().enumerate().for_each(|(i, s)| *s = if i % 3 == 0 { 0.0005 } else { -0.0005 });
    for piece in [16000, 160, 77] {
        let mut h = harness(F32);
        for (i, piece) in samples.chunks(piece).enumerate() {
            h.push(audio(piece, gst::ClockTime::from_nseconds((i * 62_500) as u64 * piece.len() as u64))).unwrap();
        }
        h.push_event(gst::event::Eos::new());
        // Voice ends at 250 and begins again at 750 ms; a feature hears 35 ms.
        assert_eq!(silent(&mut h), (260..=700).step_by(20).collect::<Vec<_>>(), "in pieces of {piece}");
    }
}

#[test]
fn a_window_of_sound_does_not_give_its_voice_to_hops_before_it() {
    let folder = tempfile::tempdir().unwrap();
    windowed::engine(folder.path(), (40, 10), 740);
    init();
    let element = gst::ElementFactory::make("lipaudioenc").build().unwrap();
    element.set_property("engine", folder.path().to_str().unwrap());
    element.set_property("look-ahead", 740u32);
    let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
    h.set_src_caps_str(F32);
    let mut samples = speech(0..32_000);
    samples[..16_000].fill(0.0);
    h.push(audio(&samples, ms(0))).unwrap();
    h.push_event(gst::event::Eos::new());
    assert_eq!(silent(&mut h).last(), Some(&960), "voice begins at 1000 ms; a feature hears 32.5 ms");
}

#[test]
fn zeros_and_gaps_are_always_silent() {
    let mut h = harness(F32);
    h.push(audio(&[0.0; 3200], ms(0))).unwrap();
    h.push_event(gst::event::Gap::builder(ms(200)).duration(ms(200)).build());
    let mut flagged = audio(&speech(0..3200), ms(400));
    flagged.get_mut().unwrap().set_flags(gst::BufferFlags::GAP);
    h.push(flagged).unwrap();
    h.push_event(gst::event::Eos::new());
    assert_eq!(silent(&mut h).len(), 30);
}

#[test]
fn the_end_gives_the_hop_that_has_begun() {
    let mut h = harness(F32);
    h.push(audio(&speech(0..161), ms(0))).unwrap();
    h.push_event(gst::event::Eos::new());
    assert_eq!(pulled(&mut h).len(), 1);
    let last = std::iter::from_fn(|| h.try_pull_event()).last().unwrap();
    assert_eq!(last.type_(), gst::EventType::Eos);
}

#[test]
fn times_are_running_times() {
    let mut h = harness(F32);
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(ms(5000));
    segment.set_base(ms(300));
    h.push_event(gst::event::Segment::new(&segment));
    // Half of the buffer lies before the segment.
    h.push(audio(&speech(0..3200), ms(4900))).unwrap();
    let features = pulled(&mut h);
    assert_eq!(features.iter().map(|f| f.0).collect::<Vec<_>>(), [300, 320, 340, 360]);
    let mut alone = harness(F32);
    alone.push(audio(&speech(1600..3200), ms(0))).unwrap();
    assert!(near(&features[1].1, &pulled(&mut alone)[1].1, 1e-5), "what lies before the segment is not heard");
}

#[test]
fn pieces_of_any_size_give_the_same() {
    let mut whole = harness(F32);
    whole.push(audio(&speech(0..8000), ms(0))).unwrap();
    let mut pieces = harness(F32);
    let (mut at, mut n) = (0, 1);
    while at < 8000 {
        let end = (at + n).min(8000);
        pieces.push(audio(&speech(at..end), gst::ClockTime::from_nseconds(at as u64 * 62_500))).unwrap();
        (at, n) = (end, n * 3 % 977 + 1);
    }
    let (a, b) = (pulled(&mut whole), pulled(&mut pieces));
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && near(&a.1, &b.1, 1e-5)));
}

#[test]
fn integers_sound_like_floats() {
    let mut f = harness(F32);
    f.push(audio(&speech(0..8000), ms(0))).unwrap();
    let mut s = harness(S16);
    let bytes = speech(0..8000).iter().flat_map(|v| ((v * 32768.0).round() as i16).to_le_bytes()).collect::<Vec<u8>>();
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    buffer.get_mut().unwrap().set_pts(ms(0));
    s.push(buffer).unwrap();
    let (a, b) = (pulled(&mut f), pulled(&mut s));
    assert!(a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| near(&a.1, &b.1, 0.05)));
}

#[test]
fn latency_grows_by_the_overhang() {
    let mut h = harness(F32);
    h.set_live(true);
    h.set_upstream_latency(ms(30));
    assert_eq!(h.query_latency(), Some(ms(30) + features_info().overhang));
}

#[test]
fn after_a_flush_nothing_of_before_is_heard() {
    let mut h = harness(F32);
    h.push(audio(&speech(0..8000), ms(0))).unwrap();
    pulled(&mut h);
    h.push_event(gst::event::FlushStart::new());
    h.push_event(gst::event::FlushStop::new(true));
    h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    h.push(audio(&speech(0..3200), ms(2000))).unwrap();
    let flushed = pulled(&mut h);
    let mut fresh = harness(F32);
    fresh.push(audio(&speech(0..3200), ms(0))).unwrap();
    let fresh = pulled(&mut fresh);
    assert_eq!(flushed[0].0, 2000);
    assert!(flushed.len() == fresh.len() && flushed.iter().zip(&fresh).all(|(a, b)| near(&a.1, &b.1, 1e-6)));
}

#[test]
fn a_short_hole_is_silence_and_a_long_one_starts_over() {
    let mut h = harness(F32);
    h.push(audio(&speech(0..1600), ms(0))).unwrap();
    h.push(audio(&speech(0..1600), ms(300))).unwrap();
    let times: Vec<u64> = pulled(&mut h).iter().map(|f| f.0).collect();
    assert_eq!(times, (0..19).map(|i| i * 20).collect::<Vec<_>>(), "no feature is missing over the hole");
    h.push(audio(&speech(0..1600), ms(5007))).unwrap();
    let times: Vec<u64> = pulled(&mut h).iter().map(|f| f.0).collect();
    assert_eq!(times[0], 380, "what was begun before the hole is finished");
    assert!(times.contains(&5007) && !times.contains(&1000), "{times:?}");
}

#[test]
fn a_gap_sounds_like_zeros() {
    let mut gap = harness(F32);
    gap.push(audio(&speech(0..1600), ms(0))).unwrap();
    gap.push_event(gst::event::Gap::builder(ms(100)).duration(ms(200)).build());
    let mut zeros = harness(F32);
    zeros.push(audio(&speech(0..1600), ms(0))).unwrap();
    zeros.push(audio(&[0.0; 3200], ms(100))).unwrap();
    let (a, b) = (pulled(&mut gap), pulled(&mut zeros));
    assert!(a.len() == b.len() && a.len() > 10 && a.iter().zip(&b).all(|(a, b)| near(&a.1, &b.1, 1e-6)));
}

#[test]
fn an_overlap_is_heard_once() {
    let mut h = harness(F32);
    h.push(audio(&speech(0..3200), ms(0))).unwrap();
    h.push(audio(&speech(1600..4800), ms(100))).unwrap();
    let mut once = harness(F32);
    once.push(audio(&speech(0..4800), ms(0))).unwrap();
    let (a, b) = (pulled(&mut h), pulled(&mut once));
    assert!(a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && near(&a.1, &b.1, 1e-5)));
}

#[test]
fn stats_count_buffers_and_features() {
    let mut h = harness(F32);
    h.push(audio(&speech(0..16000), ms(0))).unwrap();
    let element = h.element().unwrap();
    assert_eq!((stat(&element, "frames-in"), stat(&element, "frames-out")), (1, 49));
    assert!(stat(&element, "encode-p50") > 0);
}

#[test]
fn a_wrong_engine_or_device_is_named_in_the_error() {
    init();
    let make = || gst::ElementFactory::make("lipaudioenc");
    let text = error_of(&make().property("engine", "/nowhere/engine.toml").build().unwrap());
    assert!(text.contains("/nowhere/engine.toml") && text.contains("property") || text.contains("engine="), "{text}");
    let text = error_of(&make().property("device", "abacus").build().unwrap());
    assert!(text.contains("abacus") && text.contains("cpu"), "{text}");
}
