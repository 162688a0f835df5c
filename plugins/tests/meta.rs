//! Metas must come through the elements that stand between ours.

mod common;

use common::{a_face, frame, frame_with, init, ms, video_info};
use gst_video::VideoFormat;
use gstlipstream::meta::{PatchMeta, face, patch};
use lipstream_engines::{
    engine::Patch,
    geometry::{Point, Similarity},
    image::{ColorSpace, Crop},
    occlusion::{self, Front},
};

fn a_patch(to_frame: Similarity) -> Patch {
    Patch {
        pixels: Crop { side: 4, space: ColorSpace::Rgb, data: vec![9; 48] }.into(),
        mask: vec![255; 16].into(),
        to_frame,
        opacity: 1.0,
        hard: false,
    }
}

/// Sends a buffer from I420 320x240 to BGRA 640x480.
fn converted(buffer: gst::Buffer) -> gst::Buffer {
    let mut h = gst_check::Harness::new_parse(
        "videoconvert ! videoscale ! capsfilter caps=\"video/x-raw,format=BGRA,width=640,height=480\"",
    );
    h.set_src_caps(video_info(VideoFormat::I420, 320, 240).to_caps().unwrap());
    h.push_and_pull(buffer).unwrap()
}

#[test]
fn a_face_reads_back_as_it_was_written() {
    init();
    let info = video_info(VideoFormat::I420, 320, 240);
    let mut given = a_face(7, 60.0, 40.0, 150.0);
    (given.yaw, given.occluded) = (-12.5, true);
    let chance = (0..occlusion::SIDE * occlusion::SIDE).map(|i| i as u8).collect();
    given.front = Front::new(chance);
    let buffer = frame_with(&info, ms(0), std::slice::from_ref(&given));
    let [found] = face::faces(&buffer, 320, 240).try_into().unwrap();
    assert_eq!((found.track_id, found.yaw, found.occluded, found.confidence), (7, -12.5, true, 0.95));
    assert!(found.front.is_some() && found.front == given.front);
    assert!(given.points.iter().zip(found.points.iter()).all(|(a, b)| a.distance(*b) < 1e-3));
    assert!((found.rect.x - given.rect.x).abs() < 1e-3 && (found.rect.height - given.rect.height).abs() < 1e-3);
    let roi = buffer.meta::<gst_video::VideoRegionOfInterestMeta>().unwrap();
    assert_eq!((roi.roi_type(), roi.id()), ("face", 7));
    assert!(roi.rect().0.abs_diff(given.rect.x as u32) <= 1 && roi.rect().2.abs_diff(given.rect.width as u32) <= 1);
}

#[test]
fn a_face_that_leaves_the_frame_has_a_region_inside_of_it() {
    init();
    let info = video_info(VideoFormat::I420, 320, 240);
    let buffer = frame_with(&info, ms(0), &[a_face(1, -100.0, 150.0, 200.0)]);
    let (x, y, w, h) = buffer.meta::<gst_video::VideoRegionOfInterestMeta>().unwrap().rect();
    assert!(x == 0 && w > 0 && x + w <= 320 && h > 0 && y + h <= 240, "{x} {y} {w} {h}");
    assert!(face::faces(&buffer, 320, 240)[0].rect.x < 0.0);
}

#[test]
fn faces_survive_a_conversion_and_grow_with_the_frame() {
    init();
    let info = video_info(VideoFormat::I420, 320, 240);
    let given = [a_face(1, 20.0, 30.0, 120.0), a_face(2, 170.0, 30.0, 120.0)];
    let out = converted(frame_with(&info, ms(0), &given));
    let found = face::faces(&out, 640, 480);
    assert_eq!(found.iter().map(|f| f.track_id).collect::<Vec<_>>(), [1, 2]);
    for (a, b) in given.iter().zip(&found) {
        assert!(a.points.iter().zip(b.points.iter()).all(|(a, b)| (*a * 2.0).distance(*b) < 1e-2));
    }
}

#[test]
fn removing_faces_leaves_what_others_wrote() {
    init();
    let info = video_info(VideoFormat::I420, 320, 240);
    let mut buffer = frame_with(&info, ms(0), &[a_face(1, 20.0, 30.0, 120.0)]);
    let b = buffer.get_mut().unwrap();
    gst_video::VideoRegionOfInterestMeta::add(b, "car", (1, 2, 3, 4));
    face::remove(b);
    assert!(face::faces(b, 320, 240).is_empty());
    let left: Vec<_> = b.iter_meta::<gst_video::VideoRegionOfInterestMeta>().map(|r| r.roi_type().to_owned()).collect();
    assert_eq!(left, ["car"]);
}

#[test]
fn a_face_meta_that_is_not_whole_is_left_out() {
    init();
    let info = video_info(VideoFormat::I420, 320, 240);
    let mut buffer = frame(&info, ms(0));
    let b = buffer.get_mut().unwrap();
    let mut meta = gst::meta::CustomMeta::add(b, face::NAME).unwrap();
    meta.mut_structure().set("track-id", 1u64);
    meta.mut_structure().set("landmarks", gst::glib::Bytes::from_static(b"short"));
    assert!(face::faces(&buffer, 320, 240).is_empty());
}

#[test]
fn a_patch_survives_a_conversion_and_is_pasted_where_the_picture_went() {
    init();
    let info = video_info(VideoFormat::I420, 320, 240);
    let mut buffer = frame(&info, ms(0));
    let place = Similarity { a: 50.0, b: 5.0, tx: 30.0, ty: 40.0 };
    PatchMeta::add(buffer.get_mut().unwrap(), a_patch(place), 320, 240);
    let mut out = converted(buffer);
    let (taken, width, height) = PatchMeta::take(out.make_mut()).unwrap();
    assert_eq!((width, height), (320, 240));
    let moved = patch::scaled(taken, (width, height), (640, 480)).unwrap().to_frame;
    for p in [Point::new(0.0, 0.0), Point::new(1.0, 0.3)] {
        assert!(moved.apply(p).distance(place.apply(p) * 2.0) < 1e-3);
    }
    assert!(PatchMeta::take(out.make_mut()).is_none(), "a patch is taken once");
}

#[test]
fn a_patch_does_not_fit_a_picture_of_another_shape() {
    init();
    let place = Similarity { a: 50.0, b: 0.0, tx: 30.0, ty: 40.0 };
    assert!(patch::scaled(a_patch(place), (320, 240), (640, 240)).is_none());
    assert!(patch::scaled(a_patch(place), (320, 240), (161, 120)).is_some(), "a scaler rounds");
}
