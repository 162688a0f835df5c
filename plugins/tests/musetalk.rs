//! MuseTalk in the elements: frames of several streams in one batch, and what becomes of a frame that does not speak.

mod common;
#[path = "../../engines/tests/common/narrow.rs"]
mod narrow;

use common::{
    a_face, denoiser, frame_with,
    live::{Live, people, voice},
    ms, person, stat, video_info,
};
use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo};
use gstlipstream::{
    features::{self, FeaturesInfo},
    meta::PatchMeta,
};
use lipstream_engines::{audio::front_end, manifest::Package, runtime::Options, tracker::Face};

/// `lipdenoise` with an engine of 64 pixels and seeded weights.
struct Bench {
    video: Harness,
    features: Harness,
    info: VideoInfo,
    dims: usize,
    _home: tempfile::TempDir,
}

impl Bench {
    fn new(properties: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = narrow::musetalk(home.path(), 64).display().to_string();
        let heard = features_of(folder.as_ref());
        let info = video_info(VideoFormat::I420, 320, 240);
        let properties = [&[("model", folder.as_str()), ("device", "cpu")], properties].concat();
        let (video, features) = denoiser(&info, &heard, &properties);
        Self { video, features, info, dims: heard.dims, _home: home }
    }

    /// Features of a voice, or of nobody.
    fn hear(&mut self, from: u64, to: u64, voiced: bool) {
        for t in (from..to).step_by(20) {
            let vector: Vec<f32> = (0..self.dims).map(|i| ((t + i as u64) as f32 * 0.7).sin()).collect();
            let mut feature = features::to_buffer(&vector, ms(t), ms(20));
            if !voiced {
                feature.get_mut().unwrap().set_flags(gst::BufferFlags::GAP);
            }
            self.features.push(feature).unwrap();
        }
    }

    /// The patch of the frame at `pts`: where its left edge lies, and how visible it is.
    fn show(&mut self, pts: u64, faces: &[Face]) -> Option<(f32, f32)> {
        let out = self.video.push_and_pull(frame_with(&self.info, ms(pts), faces)).unwrap();
        assert_eq!(out.pts(), Some(ms(pts)));
        out.meta::<PatchMeta>().map(|meta| (meta.patch().to_frame.tx, meta.patch().opacity))
    }
}

/// What the front-end of an engine makes.
fn features_of(folder: &std::path::Path) -> FeaturesInfo {
    let front = front_end(&Package::open(folder).unwrap(), &Options::default()).unwrap();
    FeaturesInfo {
        rate: gst::Fraction::new(1000, front.hop().as_millis() as i32),
        dims: front.dims(),
        encoder: front.key().to_owned(),
        overhang: gst::ClockTime::from_nseconds(front.overhang().as_nanos() as u64),
    }
}

fn someone() -> Face {
    a_face(1, 80.0, 40.0, 150.0)
}

#[test]
fn a_face_speaks_until_it_is_gone_and_when_it_is_back() {
    let mut b = Bench::new(&[("fade", "0")]);
    b.hear(0, 4000, true);
    let (left, opacity) = b.show(0, &[someone()]).expect("a mouth");
    // The crop is 1.12 times as high as the box: from twice the way from the chin at 167.5 up to the bridge, and a margin.
    assert!(opacity == 1.0 && (left - 47.4).abs() < 0.2, "{left}");
    // It goes with the face.
    let (moved, _) = b.show(40, &[a_face(1, 90.0, 40.0, 150.0)]).expect("a mouth");
    assert!((moved - left - 10.0).abs() < 1e-2, "{left} {moved}");
    assert_eq!(b.show(80, &[]), None);
    assert!(b.show(120, &[someone()]).is_some());
    // Of two the one that spoke, though the other is larger.
    let other = a_face(2, 150.0, 20.0, 165.0);
    assert_eq!(b.show(160, &[other.clone(), someone()]).map(|(left, _)| left), Some(left));
    // Alone the other speaks.
    let (right, _) = b.show(200, &[other]).expect("a mouth");
    assert!(right > left + 40.0, "{left} {right}");
    let e = b.video.element().unwrap();
    assert_eq!((stat(&e, "late"), stat(&e, "dropped"), stat(&e, "frames-out")), (0, 0, 6));
}

#[test]
fn nobody_speaks_with_the_frames_own_mouth() {
    let mut b = Bench::new(&[("idle", "own"), ("fade", "80")]);
    b.hear(0, 1000, true);
    b.hear(1000, 3000, false);
    b.hear(3000, 4000, true);
    let shown: Vec<(u64, f32)> =
        (0..3600).step_by(40).filter_map(|t| b.show(t, &[someone()]).map(|(_, opacity)| (t, opacity))).collect();
    assert!((0..1000).step_by(40).all(|t| shown.contains(&(t, 1.0))), "{shown:?}");
    // 400 ms after the last voice it goes over the fade, and is back for the next.
    assert!(!shown.iter().any(|(t, _)| (1600..2900).contains(t)), "{shown:?}");
    assert!((3080..3600).step_by(40).all(|t| shown.contains(&(t, 1.0))), "{shown:?}");
}

#[test]
fn what_was_to_be_said_is_taken_back() {
    let mut b = Bench::new(&[("idle", "own"), ("fade", "0")]);
    b.hear(0, 5000, true);
    (0..400).step_by(40).for_each(|t| assert!(b.show(t, &[someone()]).is_some()));
    let element = b.video.element().unwrap();
    element.emit_by_name::<()>("interrupt", &[]);
    let shown: Vec<u64> = (400..1400).step_by(40).filter(|t| b.show(*t, &[someone()]).is_some()).collect();
    assert!(stat(&element, "interrupt-time") > 0);
    // 400 ms after the last frame that spoke, of 360 ms.
    assert_eq!(shown, (400..760).step_by(40).collect::<Vec<_>>());
}

#[test]
fn bins_share_the_batches_of_every_stage() {
    let home = tempfile::tempdir().unwrap();
    let engine = narrow::musetalk(home.path(), 64).display().to_string();
    let Some((info, frames)) = people(320, 180, 25) else { return };
    let shared = [("engine", engine.as_str()), ("device", "cpu"), ("batch-timeout", "15"), ("idle", "rest")];
    let mut bins: Vec<Live> = (0..2).map(|_| Live::new(info.clone(), frames.clone(), &shared, true)).collect();
    std::thread::scope(|scope| {
        for live in &mut bins {
            scope.spawn(move || live.feed(2000, |_, frame| Some(frame), |t| Some(voice(t))));
        }
    });
    let stats = bins[0].bin.property::<gst::Structure>("stats");
    let denoise = stats.get::<gst::Structure>("denoise").unwrap();
    let stages = denoise.get::<gst::Structure>("stages").unwrap();
    for stage in ["encode", "forward", "decode"] {
        let count = |what: &str| stages.get::<u64>(format!("{stage}-{what}")).unwrap();
        let (batches, items) = (count("batches"), count("items"));
        eprintln!("{stage}: {items} frames in {batches} batches");
        assert!(items > 40 && batches < items, "{stage}: {items} frames in {batches} batches");
    }
    for live in &bins {
        live.check();
        assert_eq!(live.stat("dropped"), 0);
    }
}

/// A muxer takes audio only beside video, and no frame comes before all of the audio was heard.
#[test]
fn an_exact_engine_hears_more_sound_than_queues_hold_before_its_first_frame() {
    common::init();
    let Some(path) = person() else { return };
    let home = tempfile::tempdir().unwrap();
    let engine = narrow::musetalk(home.path(), 64);
    // 32 s are 74 MB.
    let line = format!(
        "lipsync name=ls engine=\"{}\" device=cpu exact=true \
         filesrc location=\"{}\" ! decodebin ! identity eos-after=51 ! videoconvert ! videoscale \
         ! video/x-raw,format=I420,width=320,height=180 ! ls.video_sink \
         audiotestsrc wave=pink-noise num-buffers=320 samplesperbuffer=9600 \
         ! audio/x-raw,format=F32LE,rate=96000,channels=6,channel-mask=(bitmask)0x3f ! ls.audio_sink \
         ls.video_src ! mux. ls.audio_src ! mux. matroskamux name=mux ! fakesink sync=false",
        engine.display(),
        path.display()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(120), &end).expect("an end");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    let stats = pipeline.by_name("ls").unwrap().property::<gst::Structure>("stats");
    let count = |name: &str| stats.get::<u64>(name).unwrap();
    let heard = stats.get::<gst::Structure>("audioenc").unwrap().get::<u64>("frames-out");
    pipeline.set_state(gst::State::Null).unwrap();
    // What is on its way when the video ends comes as well.
    let out = count("frames-out");
    assert!(heard == Ok(1600) && out >= 50 && out == count("frames-in"), "{stats}");
    assert!(count("passed-through") * 4 < out, "most frames speak: {stats}");
}

/// The published program hears other moments in frames of other rates.
#[test]
fn an_exact_engine_refuses_frames_of_which_its_program_hears_something_else() {
    for (rate, taken) in
        [((25, 1), true), ((30, 1), true), ((0, 1), true), ((30_000, 1001), false), ((20, 1), false), ((50, 1), false)]
    {
        let mut b = Bench::new(&[("exact", "true")]);
        let bus = gst::Bus::new();
        b.video.element().unwrap().set_bus(Some(&bus));
        let info =
            VideoInfo::builder(VideoFormat::I420, 320, 240).fps(gst::Fraction::new(rate.0, rate.1)).build().unwrap();
        b.video.set_src_caps(info.to_caps().unwrap());
        let message = bus.pop_filtered(&[gst::MessageType::Error]);
        assert_eq!(message.is_none(), taken, "{rate:?}");
        if let Some(gst::MessageView::Error(e)) = message.as_ref().map(|message| message.view()) {
            let text = e.error().to_string();
            assert!(text.contains("frames a second") && text.contains("bring the video to 25"), "{text}");
        }
    }
}
