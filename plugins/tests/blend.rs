//! `lipblend`: touches what the patch covers and nothing else.

mod common;

use common::{a_face, frame, frame_with, init, ms, stat, video_info};
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo, prelude::*};
use gstlipstream::meta::PatchMeta;
use lipstream_engines::{
    engine::Patch,
    geometry::Similarity,
    image::{ColorSpace, Crop, Matrix, Range},
    occlusion::{self, Front},
};

const FORMATS: [VideoFormat; 5] =
    [VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Rgba, VideoFormat::Bgra, VideoFormat::Rgb];

/// Noise, 80x80 px of the frame at (x, y) with a border that the mask leaves out.
fn a_patch(info: &VideoInfo, x: f32, y: f32) -> Patch {
    let side = 40;
    let space = if info.is_yuv() { ColorSpace::Yuv(Matrix::Bt601, Range::Limited) } else { ColorSpace::Rgb };
    let data = (0..side * side * 3).map(|i| 60 + ((i * i) % 131) as u8).collect();
    let inside = |i: usize| (4..side - 4).contains(&i);
    let mask = (0..side * side).map(|i| if inside(i / side) && inside(i % side) { 255 } else { 0 }).collect();
    Patch {
        pixels: Crop { side, space, data }.into(),
        mask,
        to_frame: Similarity { a: 80.0, b: 0.0, tx: x, ty: y },
        opacity: 1.0,
        hard: false,
    }
}

/// One that pastes and does not mark.
fn harness(info: &VideoInfo) -> Harness {
    let h = marking(info);
    h.element().unwrap().set_property("watermark", false);
    h
}

fn marking(info: &VideoInfo) -> Harness {
    init();
    let mut h = Harness::new("lipblend");
    h.set_src_caps(info.to_caps().unwrap());
    h
}

/// Coordinates of the luma (or first component) samples that differ.
fn changed(info: &VideoInfo, before: &gst::BufferRef, after: &gst::BufferRef) -> Vec<(usize, usize)> {
    let a = gst_video::VideoFrameRef::from_buffer_ref_readable(before, info).unwrap();
    let b = gst_video::VideoFrameRef::from_buffer_ref_readable(after, info).unwrap();
    let (step, stride) = (a.comp_pstride(0) as usize, a.plane_stride()[0] as usize);
    let at = |f: &gst_video::VideoFrameRef<&gst::BufferRef>, x: usize, y: usize| {
        f.plane_data(0).unwrap()[y * stride + x * step..][..step].to_vec()
    };
    let (width, height) = (info.width() as usize, info.height() as usize);
    (0..width * height).map(|i| (i % width, i / width)).filter(|(x, y)| at(&a, *x, *y) != at(&b, *x, *y)).collect()
}

#[test]
fn a_frame_without_a_patch_is_the_same_buffer_even_when_shared() {
    let info = video_info(VideoFormat::I420, 320, 240);
    let mut h = harness(&info);
    let buffer = frame(&info, ms(40));
    let shared = buffer.clone();
    let out = h.push_and_pull(buffer).unwrap();
    assert_eq!(out.as_ptr(), shared.as_ptr());
    assert_eq!(stat(&h.element().unwrap(), "passed-through"), 1);
}

#[test]
fn a_patch_changes_its_own_pixels_in_every_format_and_is_removed() {
    for format in FORMATS {
        let info = video_info(format, 322, 242);
        let mut h = harness(&info);
        let mut buffer = frame(&info, ms(40));
        PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, 100.0, 60.0), 322, 242);
        // Somebody else holds the frame, behind a tee: their pixels must stay.
        let shared = buffer.clone();
        let original = frame(&info, ms(40));
        let out = h.push_and_pull(buffer).unwrap();
        let touched = changed(&info, &original, &out);
        assert!(touched.len() > 2000, "{format}: {} px", touched.len());
        assert!(touched.iter().all(|(x, y)| (106..174).contains(x) && (66..134).contains(y)), "{format}");
        assert!(changed(&info, &original, &shared).is_empty(), "{format}: a shared frame was written");
        assert!(out.meta::<PatchMeta>().is_none());
        assert_eq!(out.pts(), Some(ms(40)));
    }
}

#[test]
fn a_patch_made_for_a_smaller_frame_is_scaled() {
    let info = video_info(VideoFormat::I420, 640, 480);
    let mut h = harness(&info);
    let mut buffer = frame(&info, ms(0));
    PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, 100.0, 60.0), 320, 240);
    let out = h.push_and_pull(buffer).unwrap();
    let touched = changed(&info, &frame(&info, ms(0)), &out);
    assert!(touched.iter().any(|(x, y)| *x > 320 && *y > 240), "the far end of the patch is at (360, 280)");
    assert!(touched.iter().all(|(x, y)| (208..352).contains(x) && (128..272).contains(y)));
}

#[test]
fn a_patch_of_another_shape_is_dropped_and_counted() {
    let info = video_info(VideoFormat::I420, 640, 240);
    let mut h = harness(&info);
    let mut buffer = frame(&info, ms(0));
    PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, 100.0, 60.0), 320, 240);
    let out = h.push_and_pull(buffer).unwrap();
    assert!(changed(&info, &frame(&info, ms(0)), &out).is_empty());
    let element = h.element().unwrap();
    assert_eq!((stat(&element, "dropped"), stat(&element, "passed-through")), (1, 1));
}

#[test]
fn disabled_it_removes_the_patch_and_leaves_the_pixels() {
    let info = video_info(VideoFormat::Rgb, 320, 240);
    let mut h = harness(&info);
    h.element().unwrap().set_property("enabled", false);
    let mut buffer = frame(&info, ms(0));
    PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, 100.0, 60.0), 320, 240);
    let out = h.push_and_pull(buffer).unwrap();
    assert!(changed(&info, &frame(&info, ms(0)), &out).is_empty() && out.meta::<PatchMeta>().is_none());
}

#[test]
fn caps_may_change_between_two_frames() {
    let small = video_info(VideoFormat::I420, 320, 240);
    let mut h = harness(&small);
    h.push_and_pull(frame(&small, ms(0))).unwrap();
    let large = video_info(VideoFormat::Bgra, 640, 480);
    h.set_src_caps(large.to_caps().unwrap());
    let mut buffer = frame(&large, ms(40));
    PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&large, 500.0, 380.0), 640, 480);
    let out = h.push_and_pull(buffer).unwrap();
    assert!(!changed(&large, &frame(&large, ms(40)), &out).is_empty());
}

#[test]
fn a_patch_that_reaches_over_the_edge_is_cut() {
    let info = video_info(VideoFormat::Nv12, 320, 240);
    let mut h = harness(&info);
    let mut buffer = frame(&info, ms(0));
    PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, -30.0, 200.0), 320, 240);
    let out = h.push_and_pull(buffer).unwrap();
    let touched = changed(&info, &frame(&info, ms(0)), &out);
    assert!(!touched.is_empty() && touched.iter().all(|(x, y)| *x < 44 && *y >= 206));
}

#[test]
fn what_is_before_the_face_stays_in_every_format_and_elsewhere_the_patch_is_what_it_was() {
    for format in FORMATS {
        let info = video_info(format, 322, 242);
        let mut h = harness(&info);
        let mut pasted = |front: Option<Front>| {
            // The patch lies in the middle of the face; what is before it covers its left half.
            let face = lipstream_engines::tracker::Face { front, ..a_face(3, 60.0, 20.0, 160.0) };
            let mut buffer = frame_with(&info, ms(40), &[a_face(2, 250.0, 20.0, 60.0), face]);
            PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, 100.0, 60.0), 322, 242);
            h.push_and_pull(buffer).unwrap()
        };
        let side = occlusion::SIDE;
        let left = |i: usize| if i % side < side / 2 { 255 } else { 0 };
        let (open, covered) = (pasted(None), pasted(Front::new((0..side * side).map(left).collect())));
        let original = frame(&info, ms(40));
        let plain = {
            let mut buffer = frame(&info, ms(40));
            PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, 100.0, 60.0), 322, 242);
            harness(&info).push_and_pull(buffer).unwrap()
        };
        assert!(changed(&info, &plain, &open).is_empty(), "{format}: with nothing before it");
        let touched = changed(&info, &original, &covered);
        assert!(touched.len() > 1000 && touched.iter().all(|(x, _)| *x >= 138), "{format}: {} px", touched.len());
        assert!(changed(&info, &original, &open).iter().any(|(x, _)| *x < 130), "{format}");
    }
}

#[test]
fn a_label_is_in_its_corner_of_every_frame_and_can_change() {
    for format in [VideoFormat::Nv12, VideoFormat::I420, VideoFormat::Rgba] {
        let info = video_info(format, 322, 242);
        let mut h = harness(&info);
        let element = h.element().unwrap();
        let original = frame(&info, ms(0));
        let mut labelled = |text: Option<&str>, corner: &str| {
            element.set_property("label", text);
            element.set_property_from_str("label-corner", corner);
            let buffer = frame(&info, ms(0));
            // Somebody else holds the frame.
            let shared = buffer.clone();
            let out = h.push_and_pull(buffer).unwrap();
            assert!(changed(&info, &original, &shared).is_empty(), "{format}: a shared frame was written");
            (changed(&info, &original, &out), out)
        };
        let (touched, out) = labelled(Some("AI voice"), "top-right");
        assert!(touched.len() > 500, "{format}: {} px", touched.len());
        assert!(touched.iter().all(|(x, y)| *x > 161 && *y < 60), "{format}");
        let view = gst_video::VideoFrameRef::from_buffer_ref_readable(&out, &info).unwrap();
        let (data, stride, step) = (view.plane_data(0).unwrap(), view.plane_stride()[0], view.comp_pstride(0));
        let at = |(x, y): &(usize, usize)| data[y * stride as usize + x * step as usize];
        // Strokes of small letters are thinner than a pixel.
        assert!(touched.iter().any(|p| at(p) > 210), "{format}: no white");
        drop(view);
        let (moved, _) = labelled(Some("AI voice"), "bottom-left");
        assert!(!moved.is_empty() && moved.iter().all(|(x, y)| *x < 161 && *y > 180), "{format}");
        assert!(labelled(Some(""), "bottom-left").0.is_empty() && labelled(None, "top-left").0.is_empty(), "{format}");
    }
}

/// The first component of every pixel.
fn values(info: &VideoInfo, buffer: &gst::BufferRef) -> Vec<i32> {
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
    let (step, stride) = (frame.comp_pstride(0) as usize, frame.plane_stride()[0] as usize);
    let data = frame.plane_data(0).unwrap();
    (0..info.height() as usize)
        .flat_map(|y| {
            data[y * stride..]
                .iter()
                .step_by(step)
                .take(info.width() as usize)
                .map(|v| i32::from(*v))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn what_is_pasted_is_marked_a_little_in_every_format_turns_with_time_and_can_be_left_alone() {
    for format in FORMATS {
        let info = video_info(format, 322, 242);
        let (mut marking, mut plain) = (marking(&info), harness(&info));
        let make = |pts, front: Option<Front>| {
            let face = lipstream_engines::tracker::Face { front, ..a_face(3, 30.0, -30.0, 220.0) };
            let mut buffer = frame_with(&info, pts, &[a_face(2, 250.0, 20.0, 60.0), face]);
            PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, 100.0, 90.0), 322, 242);
            buffer
        };
        let mut mark = |pts, front: Option<Front>| {
            let without = values(&info, &plain.push_and_pull(make(pts, front.clone())).unwrap());
            let with = values(&info, &marking.push_and_pull(make(pts, front)).unwrap());
            with.iter().zip(&without).map(|(a, b)| a - b).collect::<Vec<i32>>()
        };
        let first = mark(ms(120), None);
        let squares: i32 = first.iter().map(|d| d * d).sum();
        let noise = f64::from(squares) / f64::from(72 * 72);
        let psnr = 10.0 * (255.0f64.powi(2) / noise).log10();
        assert!((42.0..52.0).contains(&psnr), "{format}: {psnr} dB");
        let touched =
            |mark: &[i32]| -> Vec<usize> { (0..mark.len()).filter(|i| mark[*i] != 0).map(|i| i % 322).collect() };
        let outside = (0..first.len()).filter(|i| !(106..174).contains(&(i % 322)) || !(96..164).contains(&(i / 322)));
        assert!(outside.into_iter().all(|i| first[i] == 0), "{format}: beside the patch");
        // The same signs until the chip ends, other ones after some chips, the same again after 63.
        let product =
            |other: &[i32]| f64::from(first.iter().zip(other).map(|(a, b)| a * b).sum::<i32>()) / f64::from(squares);
        assert!(product(&mark(ms(158), None)) > 0.95, "{format}");
        assert!((1..6).any(|chip| product(&mark(ms(120 + 160 * chip), None)) < 0.3), "{format}");
        assert!(product(&mark(ms(120 + 63 * 160), None)) > 0.95, "{format}");
        // What is before the face is not marked.
        let side = occlusion::SIDE;
        let left = |i: usize| if i % side < side / 2 { 255 } else { 0 };
        let behind = mark(ms(120), Front::new((0..side * side).map(left).collect()));
        assert!(touched(&behind).iter().all(|x| *x >= 138) && !touched(&behind).is_empty(), "{format}");
    }
}

#[test]
fn a_face_that_is_too_small_or_beyond_the_edge_is_pasted_all_the_same() {
    let info = video_info(VideoFormat::Nv12, 320, 240);
    for (x, y, side) in [(100.0, 60.0, 60.0), (-190.0, 150.0, 300.0), (1e7, 0.0, 200.0)] {
        let pushed = |h: &mut Harness| {
            let mut buffer = frame_with(&info, ms(0), &[a_face(1, x, y, side)]);
            PatchMeta::add(buffer.get_mut().unwrap(), a_patch(&info, -30.0, 200.0), 320, 240);
            h.push_and_pull(buffer).unwrap()
        };
        let (with, without) = (pushed(&mut marking(&info)), pushed(&mut harness(&info)));
        let far = changed(&info, &with, &without).iter().any(|(x, y)| *x >= 44 || *y < 206);
        assert!(!far && !changed(&info, &frame(&info, ms(0)), &with).is_empty(), "{side}");
    }
}
