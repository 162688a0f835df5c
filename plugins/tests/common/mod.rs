//! What the tests of the elements share: drawn frames, faces placed by hand, features made up.
#![allow(dead_code)]

pub mod live;

use std::sync::{Once, OnceLock};

use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo};
use gstlipstream::{features::FeaturesInfo, meta::face};
use lipstream_engines::{
    geometry::{Point, Rect, landmarks},
    manifest::Package,
    tracker::Face,
};

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().expect("GStreamer");
        gstlipstream::plugin_desc::plugin_register_static().expect("the plugin");
    });
}

/// Waits until something is so; twenty seconds are a failure.
pub fn until(what: &str, is: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is() {
        assert!(start.elapsed().as_secs() < 20, "not in 20 s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

pub fn ms(ms: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(ms)
}

pub fn video_info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
    init();
    VideoInfo::builder(format, width, height).fps(gst::Fraction::new(25, 1)).build().expect("a valid format")
}

/// Harnesses of a `lipdenoise` of `compact` unless `properties` say otherwise, of its frames and of its features. It is not live:
/// frames have all the time that this machine needs.
pub fn denoiser(info: &VideoInfo, heard: &FeaturesInfo, properties: &[(&str, &str)]) -> (Harness, Harness) {
    init();
    let element = gst::ElementFactory::make("lipdenoise").property("model", "compact").build().expect("the element");
    properties.iter().for_each(|(name, value)| element.set_property_from_str(name, value));
    let mut features = Harness::with_element(&element, Some("features"), None);
    let mut video = Harness::with_element(&element, Some("sink"), Some("src"));
    video.set_live(false);
    features.set_live(false);
    video.play();
    video.set_src_caps(info.to_caps().expect("caps"));
    features.set_src_caps(heard.to_caps());
    (video, features)
}

/// A frame with texture everywhere, 40 ms long.
pub fn frame(info: &VideoInfo, pts: gst::ClockTime) -> gst::Buffer {
    let mut buffer = gst::Buffer::with_size(info.size()).expect("memory");
    {
        let b = buffer.get_mut().expect("the only reference");
        b.set_pts(pts);
        b.set_duration(ms(40));
        let mut map = b.map_writable().expect("memory");
        for (i, byte) in map.iter_mut().enumerate() {
            *byte = 96 + ((i * 37 + (i / 101) * 53) % 64) as u8;
        }
    }
    buffer
}

/// Landmarks of a frontal face with a closed mouth, in a square of side 1 whose eye line is at y = 0.13.
fn rest() -> Vec<Point> {
    let mut points = vec![Point::default(); landmarks::COUNT];
    let ring = |points: &mut [Point], rx: f32, ry: f32| {
        // From the right corner over the top, as the mesh goes.
        for (i, p) in points.iter_mut().enumerate() {
            let a = std::f32::consts::TAU * i as f32 / 20.0;
            *p = Point::new(0.5 - rx * a.cos(), 0.55 - ry * a.sin());
        }
    };
    ring(&mut points[landmarks::LIPS_OUTER], 0.13, 0.05);
    ring(&mut points[landmarks::LIPS_INNER], 0.10, 0.006);
    for (i, p) in points[landmarks::JAW].iter_mut().enumerate() {
        let a = std::f32::consts::PI * i as f32 / 20.0;
        *p = Point::new(0.5 + 0.4 * a.cos(), 0.25 + 0.6 * a.sin());
    }
    let row = |points: &mut [Point], from: f32, to: f32, y: f32| {
        let n = points.len();
        for (i, p) in points.iter_mut().enumerate() {
            *p = Point::new(from + (to - from) * (i as f32 + 0.5) / n as f32, y + 0.01 * (i % 2) as f32);
        }
    };
    row(&mut points[landmarks::CHIN], 0.42, 0.58, 0.7);
    row(&mut points[landmarks::CHEEKS.start..75], 0.2, 0.36, 0.5);
    row(&mut points[75..landmarks::CHEEKS.end], 0.64, 0.8, 0.5);
    row(&mut points[landmarks::PHILTRUM], 0.46, 0.54, 0.46);
    row(&mut points[landmarks::FOREHEAD], 0.2, 0.8, -0.2);
    row(&mut points[landmarks::EYELIDS], 0.28, 0.72, 0.12);
    row(&mut points[landmarks::BROWS], 0.25, 0.75, 0.03);
    let nose = [(0.5, 0.1), (0.5, 0.17), (0.5, 0.24), (0.5, 0.3), (0.5, 0.34)];
    for (p, (x, y)) in points[landmarks::NOSE].iter_mut().zip(nose) {
        *p = Point::new(x, y);
    }
    let anchors = [(89, 0.5, 0.396), (90, 0.405, 0.386), (91, 0.595, 0.386), (92, 0.42, 0.37), (93, 0.58, 0.37)];
    let eyes = [(94, 0.2435, 0.13), (95, 0.4, 0.139), (96, 0.6, 0.139), (97, 0.7565, 0.13)];
    for (i, x, y) in anchors.into_iter().chain(eyes) {
        points[i] = Point::new(x, y);
    }
    points
}

/// A face whose crop has the given corner and side, in pixels.
pub fn a_face(track_id: u64, x: f32, y: f32, side: f32) -> Face {
    let points: Vec<Point> = rest().iter().map(|p| Point::new(x + p.x * side, y + p.y * side)).collect();
    let rect = Rect::around(&points).expect("points");
    Face { track_id, rect, points: points.into(), confidence: 0.95, yaw: 0.0, occluded: false, front: None }
}

/// [`frame`] with faces on it.
pub fn frame_with(info: &VideoInfo, pts: gst::ClockTime, faces: &[Face]) -> gst::Buffer {
    let mut buffer = frame(info, pts);
    let b = buffer.get_mut().expect("the only reference");
    faces.iter().for_each(|f| face::add(b, f, info.width(), info.height()).expect("a meta"));
    buffer
}

/// What the features of `compact` look like, whose times tests are written for.
pub fn features_info() -> FeaturesInfo {
    static INFO: OnceLock<FeaturesInfo> = OnceLock::new();
    INFO.get_or_init(|| features_of("compact")).clone()
}

/// What the features of an engine with a section `audio` look like.
pub fn features_of(engine: &str) -> FeaturesInfo {
    let engine = Package::find(engine).expect("an engine of the repository");
    let options = lipstream_engines::runtime::Options::default();
    let encoder = lipstream_engines::audio::front_end(&engine, &options).expect("an encoder").key().to_owned();
    let audio = engine.manifest().audio.clone().expect("an engine with an ear");
    FeaturesInfo {
        rate: gst::Fraction::new(1000, audio.hop_ms as i32),
        dims: audio.features,
        encoder,
        overhang: audio.overhang().try_into().expect("a hop is short"),
    }
}

/// The value of a counter or time in `stats`.
pub fn stat(element: &gst::Element, name: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The text of the error that `element`, alone in a pipeline, posts on the way to PAUSED.
pub fn error_of(element: &gst::Element) -> String {
    let pipeline = gst::Pipeline::new();
    pipeline.add(element).expect("an element without a parent");
    assert!(pipeline.set_state(gst::State::Paused).is_err(), "the element started");
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let message = bus.pop_filtered(&[gst::MessageType::Error]).expect("an error message");
    pipeline.set_state(gst::State::Null).expect("NULL is always reached");
    match message.view() {
        gst::MessageView::Error(e) => format!("{} | {}", e.error(), e.debug().unwrap_or_default()),
        _ => unreachable!("only errors were asked for"),
    }
}

fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace")
}

/// What is not part of the project, where LIPSTREAM_SHARED or a folder `shared` beside the project has it. `None`, with a line that
/// says so, where neither does.
pub fn shared(path: &str) -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("LIPSTREAM_SHARED").map(std::path::PathBuf::from);
    let found = folder.or_else(|| Some(root().parent()?.join("shared")))?.join(path);
    if !found.exists() {
        eprintln!("skipped: {} is not there; LIPSTREAM_SHARED names another folder", found.display());
        return None;
    }
    Some(found)
}

/// A video of a person who talks: the demo's, else one of the shared data's. `None`, with a line that says so, when there is
/// neither.
pub fn person() -> Option<std::path::PathBuf> {
    Some(root().join("demo/avatar.mp4"))
        .filter(|p| p.is_file())
        .or_else(|| shared("data/talking/val/free_retalking4.mp4"))
}

/// The first `count` frames of a file in the format and size of `info`, timed from 0, 40 ms apart.
pub fn decoded(path: &std::path::Path, info: &VideoInfo, count: u64) -> Vec<gst::Buffer> {
    init();
    let line = format!(
        "filesrc location=\"{}\" ! decodebin ! videoconvert ! videoscale add-borders=false ! appsink name=out sync=false",
        path.display()
    );
    let pipeline = gst::parse::launch(&line).expect("decoders").downcast::<gst::Pipeline>().expect("a pipeline");
    let sink = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().expect("an appsink");
    sink.set_caps(Some(
        &gst::Caps::builder("video/x-raw")
            .field("format", info.format().to_str())
            .field("width", info.width() as i32)
            .field("height", info.height() as i32)
            .build(),
    ));
    pipeline.set_state(gst::State::Playing).expect("a pipeline that plays");
    let frames = (0..count)
        .map(|i| {
            let mut buffer = sink.pull_sample().expect("a frame").buffer_owned().expect("a buffer");
            let b = buffer.make_mut();
            b.set_pts(ms(40 * i));
            b.set_duration(ms(40));
            b.unset_flags(gst::BufferFlags::DISCONT);
            buffer
        })
        .collect();
    pipeline.set_state(gst::State::Null).expect("NULL is always reached");
    frames
}
