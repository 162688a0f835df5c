//! `lipfacetrack` on pictures of a person: metas in every format, identity over time, and what makes it start over.

mod common;

use common::{decoded, error_of, frame, init, ms, person, stat, video_info};
use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo, prelude::*};
use gstlipstream::meta::{PatchMeta, face};
use lipstream_engines::{
    engine::Patch,
    geometry::{Alignment, Point, landmarks},
    image::{ColorSpace, Crop},
    manifest::Package,
    occlusion,
    tracker::Face,
};

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

/// Pictures in which something is before a mouth.
const SIDE: u32 = 480;

/// A network of other ports.
const LANDMARKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engines/models/tracker/landmarks.onnx");

/// A network to which whatever is blue is before the face: covered = sigmoid(30 (B - R) - 9).
const BLUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/blue.onnx");

fn square() -> VideoInfo {
    video_info(VideoFormat::Rgb, SIDE, SIDE)
}

fn alignment() -> Alignment {
    Package::find("tracker").unwrap().manifest().geometry.alignment.clone()
}

/// Paints whatever `cover` gives a colour for over a frame, by place in pixels.
fn painted(buffer: &gst::Buffer, cover: impl Fn(f32, f32) -> Option<[u8; 3]>) -> gst::Buffer {
    let mut out = buffer.copy_deep().unwrap();
    let info = square();
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(out.make_mut(), &info).unwrap();
    let stride = frame.plane_stride()[0] as usize;
    let data = frame.plane_data_mut(0).unwrap();
    for (y, row) in data.chunks_mut(stride).enumerate().take(SIDE as usize) {
        for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate().take(SIDE as usize) {
            if let Some(colour) = cover(x as f32 + 0.5, y as f32 + 0.5) {
                *pixel = colour;
            }
        }
    }
    drop(frame);
    out
}

fn pixel(buffer: &gst::BufferRef, x: usize, y: usize) -> [u8; 3] {
    let info = square();
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).unwrap();
    let at = y * frame.plane_stride()[0] as usize + x * 3;
    std::array::from_fn(|c| frame.plane_data(0).unwrap()[at + c])
}

/// What an engine might make: the lower face in one colour, another with each frame.
fn mouth(face: &Face, colour: u8) -> Patch {
    let side = 64;
    let inside = |i: usize| {
        let (x, y) = ((i % side) as f32 + 0.5 - 32.0, (i / side) as f32 + 0.5 - 40.0);
        if x.hypot(y) < 16.0 { 255 } else { 0 }
    };
    Patch {
        pixels: Crop { side, space: ColorSpace::Rgb, data: vec![colour; side * side * 3] }.into(),
        mask: (0..side * side).map(inside).collect(),
        to_frame: alignment().fit(&face.points).unwrap().inverse().unwrap(),
        opacity: 1.0,
        hard: false,
    }
}

/// A stick: a bar of one colour through a place, a tenth of the face's crop wide, from the lower edge of the picture up to it.
fn stick(at: Point, half: f32) -> impl Fn(f32, f32) -> Option<[u8; 3]> {
    move |x, y| ((x - at.x).abs() < half && y > at.y - 2.0 * half).then_some([20, 60, 200])
}

#[test]
fn what_moves_over_a_mouth_keeps_its_pixels_and_the_mouth_behind_it_moves() {
    let Some(path) = person() else { return };
    let frames = decoded(&path, &square(), 24);
    let mut track = harness(&square(), &[("occlusion", BLUE)]);
    let mut blend = Harness::new("lipblend");
    blend.set_src_caps(square().to_caps().unwrap());
    let (mut kept, mut seen) = (Vec::new(), 0);
    for (i, frame) in frames.iter().enumerate() {
        let clean = face::faces(&track_of(&mut track, frame), SIDE, SIDE);
        let Some(known) = clean.first() else { panic!("no face in frame {i}") };
        let place = alignment().fit(&known.points).unwrap().inverse().unwrap();
        // It comes in after a while and goes from one side of the mouth to the other.
        let across = (i as f32 - 8.0) / 15.0;
        let at = place.apply(Point::new(0.38 + 0.24 * across, 0.58));
        let half = 0.07 * place.scale();
        let shown = if i < 8 { frame.clone() } else { painted(frame, stick(at, half)) };
        // The same frame again, at the time that follows: the tracker takes it for the next one.
        let mut tracked = track_of(&mut track, &shown);
        let faces = face::faces(&tracked, SIDE, SIDE);
        let face = faces.first().unwrap_or_else(|| panic!("the face is lost in frame {i}"));
        assert!(!face.occluded, "frame {i}: most of the mouth is seen");
        let colour = if i % 2 == 0 { 90 } else { 200 };
        PatchMeta::add(tracked.make_mut(), mouth(face, colour), SIDE, SIDE);
        let out = blend.push_and_pull(tracked).unwrap();
        if i < 8 {
            assert!(face.front.is_none(), "frame {i}: nothing is before the face");
            continue;
        }
        // Inside of the stick and of the patch, some pixels off the stick's edges.
        let lips = place.apply(Point::new(0.5, 0.625));
        let middle = (at.x, lips.y);
        for dy in -8..8 {
            let (x, y) = (middle.0 as usize, (middle.1 as i32 + dy) as usize);
            let apart = pixel(&out, x, y).iter().zip(pixel(&shown, x, y)).map(|(a, b)| a.abs_diff(b)).max().unwrap();
            kept.push((i, apart));
        }
        // Beside it, within the patch, the mouth is there.
        let beside = if at.x < lips.x { at.x + 3.0 * half } else { at.x - 3.0 * half };
        let (x, y) = (beside as usize, lips.y as usize);
        seen += usize::from(pixel(&out, x, y)[1].abs_diff(pixel(&shown, x, y)[1]) > 8);
    }
    // One frame to see that something has come.
    let late = kept.iter().filter(|(i, apart)| *i > 8 && *apart > 2).count();
    assert_eq!(late, 0, "pixels of what is before the mouth changed: {kept:?}");
    assert!(seen >= 14, "the mouth behind it was pasted in {seen} of 16 frames");
    assert!(stat(&track.element().unwrap(), "covered") >= 15);
}

/// A frame with the tracker's metas.
fn track_of(h: &mut Harness, frame: &gst::Buffer) -> gst::Buffer {
    let mut frame = frame.clone();
    let count = stat(&h.element().unwrap(), "frames-in");
    frame.make_mut().set_pts(ms(40 * count));
    h.push_and_pull(frame).unwrap()
}

#[test]
fn a_mouth_behind_a_mask_is_occluded_until_it_is_seen_again_and_where_it_is_off_nobody_looks() {
    let Some(path) = person() else { return };
    let frames = decoded(&path, &square(), 30);
    for masks in [BLUE, "off"] {
        let mut track = harness(&square(), &[("occlusion", masks)]);
        let (mut hidden, mut fronts) = (Vec::new(), 0);
        for (i, frame) in frames.iter().enumerate() {
            let tracked = track_of(&mut track, frame);
            let known = face::faces(&tracked, SIDE, SIDE);
            let place = alignment().fit(&known[0].points).unwrap();
            let cloth = |x: f32, y: f32| {
                let p = place.apply(Point::new(x, y));
                let inside = p.y > 0.42 && (p.x - 0.5).abs() < 0.36 && p.y < 1.0;
                inside.then(|| [60, 90, 240].map(|v| v - (p.y * 40.0) as u8))
            };
            let shown = if (8..20).contains(&i) { painted(frame, cloth) } else { frame.clone() };
            let seen = face::faces(&track_of(&mut track, &shown), SIDE, SIDE);
            fronts += usize::from(seen.iter().any(|face| face.front.is_some()));
            hidden.push(seen.is_empty() || seen[0].occluded);
        }
        let element = track.element().unwrap();
        if masks == "off" {
            assert_eq!((fronts, stat(&element, "occlusion-count"), stat(&element, "covered")), (0, 0, 0));
            continue;
        }
        assert!(hidden[10..20].iter().filter(|h| **h).count() >= 8, "{hidden:?}");
        assert!(!hidden[..8].contains(&true) && !hidden[26..].contains(&true), "{hidden:?}");
    }
}

#[test]
fn the_network_that_is_built_in_sees_a_stick_and_no_more_and_can_be_turned_off_while_it_runs() {
    let Some(path) = person() else { return };
    let frames = decoded(&path, &square(), 20);
    let mut track = harness(&square(), &[]);
    let element = track.element().unwrap();
    assert_eq!(element.property::<String>("occlusion"), "auto");
    for (i, frame) in frames.iter().enumerate() {
        match i {
            12 => element.set_property("occlusion", "off"),
            16 => element.set_property("occlusion", "auto"),
            // It goes on as it was.
            18 => element.set_property("occlusion", "no-such.onnx"),
            _ => {}
        }
        let known = face::faces(&track_of(&mut track, frame), SIDE, SIDE);
        let place = alignment().fit(&known[0].points).unwrap();
        if i < 8 {
            assert!(known[0].front.is_none(), "frame {i}: nothing is before the face");
            continue;
        }
        let stick = |x: f32, y: f32| {
            let p = place.apply(Point::new(x, y));
            ((p.x - 0.6).abs() < 0.05 && p.y > 0.5)
                .then(|| [20, 60, 200].map(|v| v - ((p.x - 0.6).abs() * 300.0) as u8))
        };
        let seen = face::faces(&track_of(&mut track, &painted(frame, stick)), SIDE, SIDE);
        if (12..16).contains(&i) {
            assert!(seen[0].front.is_none(), "frame {i}: nobody looks");
            continue;
        }
        let front = seen[0].front.as_ref().unwrap_or_else(|| panic!("frame {i}: the stick is not seen"));
        let side = occlusion::SIDE;
        let at = |x: f32, y: f32| front.chance()[(y * side as f32) as usize * side + (x * side as f32) as usize];
        assert!(at(0.6, 0.65) > 200 && at(0.6, 0.75) > 200, "frame {i}: {} {}", at(0.6, 0.65), at(0.6, 0.75));
        assert!(at(0.4, 0.65) < 60 && at(0.5, 0.5) < 60, "frame {i}: {} {}", at(0.4, 0.65), at(0.5, 0.5));
        assert!(!seen[0].occluded);
    }
    assert_eq!(element.property::<String>("occlusion"), "auto");
}

#[test]
fn a_file_that_is_no_mask_is_told_of_at_the_start() {
    init();
    for (file, says) in [("no-such.onnx", "no-such.onnx"), (LANDMARKS, "crop [batch, 3, 96, 96]")] {
        let element = gst::ElementFactory::make("lipfacetrack").property("occlusion", file).build().unwrap();
        let error = error_of(&element);
        assert!(error.contains(says) && error.contains("occlusion"), "{error}");
    }
}
