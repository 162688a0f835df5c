//! `lipfacetrack` on pictures of a person: metas in every format, identity over time, and what makes it start over.

mod common;

use common::{decoded, error_of, frame, init, ms, person, stat, video_info};
use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo, prelude::*};
use gstlipstream::meta::face;
use lipstream_engines::{geometry::landmarks, tracker::Face};

const FORMATS: [VideoFormat; 5] =
    [VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Rgba, VideoFormat::Bgra, VideoFormat::Rgb];

fn harness(info: &VideoInfo, properties: &[(&str, &str)]) -> Harness {
    init();
    let element = gst::ElementFactory::make("lipfacetrack").build().unwrap();
    properties.iter().for_each(|(name, value)| element.set_property_from_str(name, value));
    let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
    h.play();
    h.set_src_caps(info.to_caps().unwrap());
    h
}

fn tracked(h: &mut Harness, info: &VideoInfo, buffer: &gst::Buffer) -> Vec<Face> {
    let out = h.push_and_pull(buffer.clone()).unwrap();
    face::faces(&out, info.width(), info.height())
}

/// The same picture twice, side by side.
fn doubled(info: &VideoInfo, buffer: &gst::BufferRef) -> (VideoInfo, gst::Buffer) {
    let wide = video_info(VideoFormat::Rgb, info.width() * 2, info.height());
    let mut out = frame(&wide, buffer.pts().unwrap());
    {
        let from = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
        let mut to = gst_video::VideoFrameRef::from_buffer_ref_writable(out.get_mut().unwrap(), &wide).unwrap();
        let (a, b) = (from.plane_stride()[0] as usize, to.plane_stride()[0] as usize);
        let row = info.width() as usize * 3;
        let source = from.plane_data(0).unwrap();
        let target = to.plane_data_mut(0).unwrap();
        for y in 0..info.height() as usize {
            for half in 0..2 {
                target[y * b + half * row..][..row].copy_from_slice(&source[y * a..][..row]);
            }
        }
    }
    (wide, out)
}

#[test]
fn a_face_is_found_alike_in_every_format() {
    let Some(path) = person() else { return };
    let mut all: Vec<Face> = Vec::new();
    for format in FORMATS {
        let info = video_info(format, 480, 480);
        let mut h = harness(&info, &[]);
        let frames = decoded(&path, &info, 1);
        let out = h.push_and_pull(frames[0].clone()).unwrap();
        assert_eq!((out.pts(), out.duration()), (Some(ms(0)), Some(ms(40))));
        let a = frames[0].map_readable().unwrap();
        assert_eq!(a.as_slice(), out.map_readable().unwrap().as_slice(), "{format}: pixels stay");
        let found = face::faces(&out, 480, 480);
        assert_eq!(found.len(), 1, "{format}");
        assert!(out.meta::<gst_video::VideoRegionOfInterestMeta>().is_some());
        all.extend(found);
    }
    let eyes = all[0].points[landmarks::EYE_LEFT].distance(all[0].points[landmarks::EYE_RIGHT]);
    for other in &all[1..] {
        let far = other.points.iter().zip(all[0].points.iter()).map(|(a, b)| a.distance(*b)).fold(0.0, f32::max);
        assert!(far < 0.1 * eyes, "{far} px");
    }
}

#[test]
fn a_face_keeps_its_number_until_a_flush_or_a_jump() {
    let Some(path) = person() else { return };
    let info = video_info(VideoFormat::I420, 480, 480);
    let mut h = harness(&info, &[]);
    let frames = decoded(&path, &info, 12);
    let ids: Vec<u64> = frames.iter().map(|f| tracked(&mut h, &info, f)[0].track_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");

    let again = |pts: u64| {
        let mut buffer = frames[0].clone();
        let b = buffer.make_mut();
        b.set_pts(ms(pts));
        b.set_flags(gst::BufferFlags::DISCONT);
        buffer
    };
    let lost_one = tracked(&mut h, &info, &again(600))[0].track_id;
    assert_eq!(lost_one, ids[0], "a frame lost on the way is no other scene");
    let jumped = tracked(&mut h, &info, &again(9000))[0].track_id;
    assert_ne!(jumped, ids[0]);
    h.push_event(gst::event::FlushStart::new());
    h.push_event(gst::event::FlushStop::new(true));
    h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    let flushed = tracked(&mut h, &info, &frames[0])[0].track_id;
    assert!(flushed != jumped && flushed != ids[0]);
}

#[test]
fn nobody_there_is_no_meta_and_no_frame_is_lost() {
    let info = video_info(VideoFormat::Nv12, 320, 240);
    let mut h = harness(&info, &[]);
    for i in 0..10 {
        let mut grey = frame(&info, ms(40 * i));
        grey.get_mut().unwrap().map_writable().unwrap().fill(128);
        assert!(tracked(&mut h, &info, &grey).is_empty());
    }
    let e = h.element().unwrap();
    assert_eq!((stat(&e, "frames-in"), stat(&e, "frames-out"), stat(&e, "passed-through")), (10, 10, 10));
}

#[test]
fn two_faces_have_two_numbers() {
    let Some(path) = person() else { return };
    let single = video_info(VideoFormat::Rgb, 360, 360);
    let frames = decoded(&path, &single, 4);
    let (wide, first) = doubled(&single, &frames[0]);
    let mut h = harness(&wide, &[("max-faces", "2"), ("inference-interval", "1")]);
    let mut found = tracked(&mut h, &wide, &first);
    for f in &frames[1..] {
        found = tracked(&mut h, &wide, &doubled(&single, f).1);
    }
    assert_eq!(found.len(), 2);
    assert_ne!(found[0].track_id, found[1].track_id);
    let (left, right) = (found[0].rect.centre().x, found[1].rect.centre().x);
    assert!((left < 360.0) != (right < 360.0), "{left} {right}");
    let mut one = harness(&wide, &[("inference-interval", "1")]);
    assert_eq!(tracked(&mut one, &wide, &first).len(), 1, "as many as max-faces says");
}

#[test]
fn caps_may_change_between_two_frames() {
    let Some(path) = person() else { return };
    let small = video_info(VideoFormat::I420, 320, 320);
    let mut h = harness(&small, &[]);
    let a = tracked(&mut h, &small, &decoded(&path, &small, 1)[0]);
    let large = video_info(VideoFormat::Bgra, 640, 640);
    h.set_src_caps(large.to_caps().unwrap());
    let b = tracked(&mut h, &large, &decoded(&path, &large, 1)[0]);
    assert!((b[0].rect.width / a[0].rect.width - 2.0).abs() < 0.2, "{:?} {:?}", a[0].rect, b[0].rect);
}

#[test]
fn a_second_tracker_replaces_the_faces_of_the_first() {
    let Some(path) = person() else { return };
    let info = video_info(VideoFormat::I420, 480, 480);
    let mut h = harness(&info, &[]);
    let once = h.push_and_pull(decoded(&path, &info, 1)[0].clone()).unwrap();
    let twice = h.push_and_pull(once).unwrap();
    assert_eq!(face::faces(&twice, 480, 480).len(), 1);
    assert_eq!(twice.iter_meta::<gst_video::VideoRegionOfInterestMeta>().count(), 1);
}

#[test]
fn late_frames_are_tracked_as_well() {
    let info = video_info(VideoFormat::I420, 320, 240);
    let mut h = harness(&info, &[]);
    h.push_and_pull(frame(&info, ms(0))).unwrap();
    h.push_upstream_event(gst::event::Qos::new(gst::QOSType::Underflow, 2.0, 500_000_000, ms(0)));
    for i in 1..5 {
        h.push(frame(&info, ms(40 * i))).unwrap();
    }
    assert_eq!(h.buffers_received(), 5);
}

#[test]
fn a_bad_model_is_named_in_the_error() {
    init();
    let make = || gst::ElementFactory::make("lipfacetrack");
    let text = error_of(&make().property("model", "/nowhere/yunet.onnx").build().unwrap());
    assert!(text.contains("/nowhere/yunet.onnx") && text.contains("model"), "{text}");
    let text = error_of(&make().property("precision", "fp7").build().unwrap());
    assert!(text.contains("fp7") && text.contains("fp32"), "{text}");
}
