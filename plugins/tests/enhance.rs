//! `lipenhance`: changes faces only, nothing at all where it is off, and can be changed while it runs.

mod common;

use common::{a_face, frame, frame_with, init, ms, stat, video_info};
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo};

fn harness(info: &VideoInfo, properties: &[(&str, &str)]) -> Harness {
    init();
    let element = gst::ElementFactory::make("lipenhance").build().unwrap();
    properties
        .iter()
        .for_each(|(name, value)| gst::prelude::GObjectExtManualGst::set_property_from_str(&element, name, value));
    let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
    h.play();
    h.set_src_caps(info.to_caps().unwrap());
    h
}

fn bytes(buffer: &gst::BufferRef) -> Vec<u8> {
    buffer.map_readable().unwrap().to_vec()
}

/// Luma samples that differ, as x and y.
fn changed(info: &VideoInfo, a: &[u8], b: &[u8]) -> Vec<(usize, usize)> {
    let (width, height) = (info.width() as usize, info.height() as usize);
    let stride = info.stride()[0] as usize;
    let all = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    all.filter(|(x, y)| a[y * stride + x] != b[y * stride + x]).collect()
}

#[test]
fn off_without_strength_or_without_a_face_a_frame_is_the_same_buffer() {
    let info = video_info(VideoFormat::I420, 320, 240);
    let face = [a_face(1, 90.0, 60.0, 120.0)];
    let off: &[(&str, &str)] = &[];
    for properties in [off, &[("enhance", "sharpen"), ("enhance-strength", "0")]] {
        let mut h = harness(&info, properties);
        let buffer = frame_with(&info, ms(40), &face);
        let (shared, before) = (buffer.clone(), bytes(&buffer));
        let out = h.push_and_pull(buffer).unwrap();
        assert_eq!((out.as_ptr(), bytes(&out)), (shared.as_ptr(), before));
        assert_eq!(stat(&h.element().unwrap(), "passed-through"), 1);
    }
    let mut h = harness(&info, &[("enhance", "combined")]);
    let buffer = frame(&info, ms(40));
    let shared = buffer.clone();
    assert_eq!(h.push_and_pull(buffer).unwrap().as_ptr(), shared.as_ptr());
}

#[test]
fn a_face_is_enhanced_in_every_format_and_a_shared_frame_is_not_written() {
    let formats = [VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Rgba, VideoFormat::Bgra, VideoFormat::Rgb];
    for format in formats {
        let info = video_info(format, 322, 242);
        let mut h = harness(&info, &[("enhance", "sharpen")]);
        let buffer = frame_with(&info, ms(40), &[a_face(1, 90.0, 60.0, 120.0)]);
        let (shared, before) = (buffer.clone(), bytes(&buffer));
        let out = h.push_and_pull(buffer).unwrap();
        assert_eq!(bytes(&shared), before, "{format}");
        let after = bytes(&out);
        let count = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!(count > 3000, "{format}: {count}");
        assert_eq!((out.pts(), out.duration()), (Some(ms(40)), Some(ms(40))));
        assert_eq!(gstlipstream::meta::face::faces(&out, 322, 242).len(), 1, "{format}: the meta stays");
        let structure = h.element().unwrap();
        assert_eq!((stat(&structure, "frames-out"), stat(&structure, "passed-through")), (1, 0));
        assert_eq!(stat(&structure, "enhance-count"), 1);
    }
}

#[test]
fn all_faces_are_enhanced_and_what_is_between_them_is_not() {
    let info = video_info(VideoFormat::I420, 640, 240);
    let mut h = harness(&info, &[("enhance", "sharpen"), ("mouth-protection", "0")]);
    let buffer = frame_with(&info, ms(0), &[a_face(1, 50.0, 60.0, 120.0), a_face(2, 450.0, 60.0, 120.0)]);
    let before = bytes(&buffer);
    let touched = changed(&info, &before, &bytes(&h.push_and_pull(buffer).unwrap()));
    assert!(touched.iter().any(|(x, _)| *x < 200) && touched.iter().any(|(x, _)| *x > 420));
    assert!(!touched.iter().any(|(x, _)| (220..400).contains(x)));
}

#[test]
fn it_changes_while_it_runs() {
    let info = video_info(VideoFormat::I420, 320, 240);
    let mut h = harness(&info, &[]);
    let element = h.element().unwrap();
    let face = [a_face(1, 90.0, 60.0, 120.0)];
    let mut next = 0;
    let mut count = |properties: &[(&str, &str)]| {
        for (name, value) in properties {
            gst::prelude::GObjectExtManualGst::set_property_from_str(&element, name, value);
        }
        next += 40;
        let buffer = frame_with(&info, ms(next), &face);
        let before = bytes(&buffer);
        changed(&info, &before, &bytes(&h.push_and_pull(buffer).unwrap())).len()
    };
    assert_eq!(count(&[]), 0);
    let protected = count(&[("enhance", "sharpen"), ("mouth-protection", "1")]);
    let whole = count(&[("mouth-protection", "0")]);
    assert!(protected > 3000 && whole > protected + 200, "{protected}, {whole}");
    assert!(count(&[("enhance", "clahe")]) > 3000);
    assert_eq!(count(&[("enhance-strength", "0")]), 0);
    assert!(count(&[("enhance", "detail"), ("enhance-strength", "1")]) > 3000);
    assert_eq!(count(&[("enhance", "off")]), 0);
}

#[test]
fn a_network_is_run_on_the_face_and_one_that_is_missing_is_told_of() {
    init();
    let element = |model: &str| {
        let properties = [("enhance", model), ("device", "cpu")];
        let element = gst::ElementFactory::make("lipenhance").build().unwrap();
        for (name, value) in properties {
            gst::prelude::GObjectExtManualGst::set_property_from_str(&element, name, value);
        }
        element
    };
    assert!(common::error_of(&element("gfpgan")).contains("there is no enhancer `gfpgan`"));
    assert!(common::error_of(&element("/nowhere.onnx")).contains("/nowhere.onnx"));
    let Some(file) = common::shared("golden/enhancers/gpen_bfr_256.onnx") else { return };
    let info = video_info(VideoFormat::I420, 320, 240);
    let mut h = Harness::with_element(&element(file.to_str().unwrap()), Some("sink"), Some("src"));
    h.play();
    h.set_src_caps(info.to_caps().unwrap());
    let buffer = frame_with(&info, ms(0), &[a_face(1, 90.0, 60.0, 120.0)]);
    let before = bytes(&buffer);
    let touched = changed(&info, &before, &bytes(&h.push_and_pull(buffer).unwrap()));
    assert!(touched.len() > 5000 && touched.iter().all(|(x, _)| *x > 40), "{}", touched.len());
    assert!(touched.iter().any(|(x, y)| (130..170).contains(x) && (70..90).contains(y)));
}

#[test]
fn caps_may_change_between_two_frames() {
    let small = video_info(VideoFormat::I420, 320, 240);
    let mut h = harness(&small, &[("enhance", "combined")]);
    h.push_and_pull(frame_with(&small, ms(0), &[a_face(1, 90.0, 60.0, 120.0)])).unwrap();
    let large = video_info(VideoFormat::Nv12, 640, 480);
    h.set_src_caps(large.to_caps().unwrap());
    let buffer = frame_with(&large, ms(40), &[a_face(1, 300.0, 200.0, 200.0)]);
    let before = bytes(&buffer);
    let touched = changed(&large, &before, &bytes(&h.push_and_pull(buffer).unwrap()));
    assert!(touched.len() > 5000 && touched.iter().all(|(x, y)| *x > 260 && *y > 100));
}
