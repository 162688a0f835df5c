//! The tracker on real frames. They are in the shared data: without it these tests say so and pass.

mod common;

use std::{process::Command, sync::OnceLock, time::Duration};

use common::{Picture, shared_data};
use lipstream_engines::{
    geometry::{Point, Rect, Similarity, landmarks},
    image::{Crop, Format},
    runtime::{Device, Options},
    tracker::{Face, Tracker, TrackerConfig},
};

fn config() -> TrackerConfig {
    TrackerConfig { options: Options { device: Device::Cpu, ..Default::default() }, ..Default::default() }
}

/// RGB frames of a clip at 25 fps.
struct Clip {
    size: (usize, usize),
    frames: Vec<Vec<u8>>,
}

impl Clip {
    /// `None`, and a printed line, when the clip or ffmpeg is not here.
    fn read(name: &str, count: usize, size: (usize, usize)) -> Option<Self> {
        Self::part(name, 0, count, size)
    }

    /// The same from frame `first` on.
    fn part(name: &str, first: usize, count: usize, size: (usize, usize)) -> Option<Self> {
        let path = shared_data()?.join(name);
        let filter = format!("fps=25,trim=start_frame={first},setpts=PTS-STARTPTS,scale={}:{}", size.0, size.1);
        let count_text = count.to_string();
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(&path)
            .args(["-vf", &filter, "-frames:v", &count_text, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
            .output();
        match output {
            Ok(o) if o.status.success() && !o.stdout.is_empty() => {
                let frames = o.stdout.chunks_exact(size.0 * size.1 * 3).map(<[u8]>::to_vec).collect();
                Some(Self { size, frames })
            }
            _ => {
                println!("skipped: {} or ffmpeg is not here", path.display());
                None
            }
        }
    }

    fn rgb(&self, frame: usize, x: f32, y: f32) -> [f32; 3] {
        let (x, y) = ((x as usize).min(self.size.0 - 1), (y as usize).min(self.size.1 - 1));
        let at = (y * self.size.0 + x) * 3;
        [0, 1, 2].map(|c| f32::from(self.frames[frame][at + c]))
    }

    fn picture(&self, format: Format, frame: usize) -> Picture {
        Picture::new(format, self.size, |x, y| self.rgb(frame, x, y))
    }
}

const ONE: &str = "talking/val/gen_joyhallo_en_4.mp4";
const TWO: &str = "talking/val/free_retalking4.mp4";

fn one() -> Option<&'static Clip> {
    static CLIP: OnceLock<Option<Clip>> = OnceLock::new();
    CLIP.get_or_init(|| Clip::read(ONE, 40, (512, 512))).as_ref()
}

fn two() -> Option<&'static Clip> {
    static CLIP: OnceLock<Option<Clip>> = OnceLock::new();
    CLIP.get_or_init(|| Clip::read(TWO, 40, (512, 512))).as_ref()
}

fn at(frame: usize) -> Option<Duration> {
    Some(Duration::from_millis(40 * frame as u64))
}

/// Both clips side by side; `swapped` puts the first one to the right.
fn pair(a: &Clip, b: &Clip, frame: usize, swapped: bool) -> Picture {
    Picture::new(Format::I420, (1024, 512), |x, y| {
        let (clip, x) = if (x < 512.0) != swapped { (a, x % 512.0) } else { (b, x % 512.0) };
        clip.rgb(frame, x, y)
    })
}

fn features(face: &Face) -> [Point; 3] {
    [landmarks::EYE_RIGHT, landmarks::EYE_LEFT, landmarks::CHIN_TIP].map(|i| face.points[i])
}

#[test]
fn every_format_gives_the_same_face() {
    let Some(clip) = one() else { return };
    let mut all = Vec::new();
    for format in [Format::I420, Format::Nv12, Format::Rgb, Format::Rgba, Format::Bgra] {
        let mut tracker = Tracker::new(config()).unwrap();
        let faces = tracker.process(&clip.picture(format, 0).view(), at(0)).unwrap();
        let [face] = &faces[..] else { panic!("{format:?}: {} faces", faces.len()) };
        assert!(face.confidence > 0.9 && face.yaw.abs() < 15.0 && !face.occluded, "{face:?}");
        let [right, left, chin] = features(face);
        assert!(right.x < left.x && chin.y > right.y && face.rect.height > 100.0);
        all.push(features(face));
    }
    let size = all[0][0].distance(all[0][1]);
    for points in &all[1..] {
        for (p, q) in points.iter().zip(&all[0]) {
            assert!(p.distance(*q) < 0.03 * size, "{p:?} {q:?}");
        }
    }
}

#[test]
fn a_face_keeps_its_number_and_follows_the_picture() {
    let Some(clip) = one() else { return };
    let mut tracker = Tracker::new(TrackerConfig { inference_interval: 10, ..config() }).unwrap();
    let mut first = None;
    for i in 0..30 {
        // A camera that pans 3 px a frame.
        let shifted =
            Picture::new(Format::I420, (512, 512), |x, y| clip.rgb(i, (x + 3.0 * i as f32 - 40.0).max(0.0), y));
        let faces = tracker.process(&shifted.view(), at(i)).unwrap();
        let [face] = &faces[..] else { panic!("frame {i}: {} faces", faces.len()) };
        let (id, rect) = first.get_or_insert((face.track_id, face.rect));
        assert_eq!(face.track_id, *id);
        let moved = face.rect.centre().x - rect.centre().x + 3.0 * i as f32;
        assert!(moved.abs() < 0.15 * rect.width, "frame {i}: {moved} px beside");
    }
}

#[test]
fn first_frame_is_as_good_as_later_ones() {
    let Some(clip) = one() else { return };
    let still = clip.picture(Format::Rgb, 3);
    let mut tracker = Tracker::new(config()).unwrap();
    let first = tracker.process(&still.view(), at(0)).unwrap().remove(0);
    let mut last = first.clone();
    for i in 1..12 {
        last = tracker.process(&still.view(), at(i)).unwrap().remove(0);
    }
    let size = last.rect.height;
    let worst = first.points.iter().zip(last.points.iter()).map(|(a, b)| a.distance(*b)).fold(0.0, f32::max);
    assert!(worst < 0.04 * size, "{worst} px of {size}");
}

#[test]
fn two_faces_keep_their_numbers_and_a_cut_gives_new_ones() {
    let (Some(a), Some(b)) = (one(), two()) else { return };
    let mut tracker = Tracker::new(TrackerConfig { max_faces: 3, inference_interval: 2, ..config() }).unwrap();
    let mut ids = None;
    let sides = |faces: &[Face]| {
        let id = |right: bool| faces.iter().find(|f| (f.rect.centre().x > 512.0) == right).map(|f| f.track_id);
        (id(false), id(true))
    };
    for i in 0..12 {
        let faces = tracker.process(&pair(a, b, i, false).view(), at(i)).unwrap();
        assert_eq!(faces.len(), 2, "frame {i}");
        assert!(faces[0].rect.area() >= faces[1].rect.area());
        assert_ne!(faces[0].track_id, faces[1].track_id);
        assert_eq!(sides(&faces), *ids.get_or_insert(sides(&faces)), "frame {i}");
    }
    let before = ids.unwrap();
    let faces = tracker.process(&pair(a, b, 12, true).view(), at(12)).unwrap();
    let after = sides(&faces);
    assert_eq!(faces.len(), 2, "found in the first frame after the cut");
    for id in [after.0, after.1] {
        assert!(id > before.0 && id > before.1, "{before:?} then {after:?}");
    }
    tracker.reset();
    let faces = tracker.process(&pair(a, b, 13, true).view(), at(13)).unwrap();
    assert!(faces.iter().all(|f| Some(f.track_id) > after.0 && Some(f.track_id) > after.1));
}

#[test]
fn one_face_in_place_of_another_is_another_face() {
    // The second person where the first one was, in the same surroundings: no cut of the scene tells.
    let (Some(a), Some(b)) = (one(), two()) else { return };
    let locate = |clip: &Clip| {
        let mut t = Tracker::new(config()).unwrap();
        t.process(&clip.picture(Format::Rgb, 0).view(), at(0)).unwrap().remove(0)
    };
    let (face_a, face_b) = (locate(a), locate(b));
    let anchors = |f: &Face| features(f).to_vec();
    let map = Similarity::fit(&anchors(&face_a), &anchors(&face_b)).unwrap();
    let Rect { x, y, width, height } = face_a.rect;
    let small = |p: Point| Point::new(p.x - 300.0, p.y - 40.0);
    let scene = |other: bool, frame: usize| {
        Picture::new(Format::I420, (1280, 720), |px, py| {
            let p = small(Point::new(px, py));
            let inside =
                p.x > x - 0.3 * width && p.x < x + 1.3 * width && p.y > y - 0.4 * height && p.y < y + 1.3 * height;
            if other && inside {
                let q = map.apply(p);
                b.rgb(frame, q.x.clamp(0.0, 511.0), q.y.clamp(0.0, 511.0))
            } else if (0.0..512.0).contains(&p.x) && (0.0..512.0).contains(&p.y) {
                a.rgb(frame, p.x, p.y)
            } else {
                [90.0 + px * 0.1, 120.0, 200.0 - py * 0.2]
            }
        })
    };
    let mut tracker = Tracker::new(config()).unwrap();
    let mut ids = Vec::new();
    for i in 0..6 {
        ids.extend(tracker.process(&scene(false, i).view(), at(i)).unwrap().iter().map(|f| f.track_id));
    }
    assert_eq!(ids, vec![ids[0]; 6]);
    let mut later = Vec::new();
    for i in 6..14 {
        later.extend(tracker.process(&scene(true, i).view(), at(i)).unwrap().iter().map(|f| f.track_id));
    }
    assert!(!later.is_empty() && later.iter().all(|id| *id != ids[0]), "{ids:?} then {later:?}");
}

#[test]
fn a_head_that_jerks_is_the_same_and_in_every_frame() {
    let Some(clip) = Clip::part("talking/val/free_latentsync2.mp4", 250, 25, (540, 960)) else { return };
    let mut tracker = Tracker::new(config()).unwrap();
    for i in 0..clip.frames.len() {
        let faces = tracker.process(&clip.picture(Format::I420, i).view(), at(i)).unwrap();
        assert_eq!(faces.iter().map(|f| f.track_id).collect::<Vec<_>>(), [0], "frame {i}");
    }
}

#[test]
fn a_face_that_was_away_for_seconds_is_the_same_and_another_is_not() {
    let (Some(a), Some(b)) = (one(), two()) else { return };
    let seen = |away: Option<&Clip>, millis: u64, tracker: &mut Tracker| {
        let picture = Picture::new(Format::I420, (1800, 900), |x, y| match (away, x - 600.0, y - 200.0) {
            (Some(clip), left, top) if (0.0..512.0).contains(&left) && (0.0..512.0).contains(&top) => {
                clip.rgb(0, left, top)
            }
            _ => wall(x, y),
        });
        let faces = tracker.process(&picture.view(), Some(Duration::from_millis(millis))).unwrap();
        faces.first().map(|face| face.track_id)
    };
    for (pause, other, same) in [(3000, false, true), (7000, false, false), (3000, true, false)] {
        let mut tracker = Tracker::new(config()).unwrap();
        for i in 0..4 {
            assert_eq!(seen(Some(a), 40 * i, &mut tracker), Some(0));
        }
        for i in 4..8 {
            assert_eq!(seen(None, 40 * i, &mut tracker), None);
        }
        let back = seen(Some(if other { b } else { a }), 320 + pause, &mut tracker);
        assert!(back.is_some() && (back == Some(0)) == same, "after {pause} ms: {back:?}, another: {other}");
    }
}

/// A background of strong contrast, so that what moves before it is no cut of the scene.
fn wall(x: f32, y: f32) -> [f32; 3] {
    [128.0 + 110.0 * (x / 180.0).sin() * (y / 90.0).cos(); 3]
}

#[test]
fn a_face_that_is_given_up_is_sought_in_the_same_frame() {
    let (Some(a), Some(b)) = (one(), two()) else { return };
    let mut tracker = Tracker::new(TrackerConfig { max_faces: 2, ..config() }).unwrap();
    // One of two faces moves on by a whole face before a wall that stays: no square around its last points shows it.
    let scene = |i: usize| {
        let along = if i < 4 { 0.0 } else { 300.0 };
        Picture::new(Format::I420, (1800, 900), move |x, y| match x - along {
            _ if y >= 512.0 => wall(x, y),
            left if (0.0..512.0).contains(&left) => a.rgb(0, left, y),
            _ if x >= 1288.0 => b.rgb(0, x - 1288.0, y),
            _ => wall(x, y),
        })
    };
    for i in 0..6 {
        let faces = tracker.process(&scene(i).view(), at(i)).unwrap();
        assert_eq!(faces.len(), 2, "frame {i}");
    }
}

#[test]
fn a_lost_face_is_gone_at_once_and_comes_back() {
    let Some(clip) = one() else { return };
    let mut tracker = Tracker::new(config()).unwrap();
    let id = tracker.process(&clip.picture(Format::I420, 0).view(), at(0)).unwrap()[0].track_id;
    let covered = |i: usize| {
        Picture::new(Format::I420, (512, 512), |x, y| {
            let edge = x < 60.0 || y < 20.0;
            if edge {
                clip.rgb(i, x, y)
            } else {
                clip.rgb(0, 30.0, 10.0).map(|v| v + 4.0 * ((x + 2.0 * y) * 0.05).sin())
            }
        })
    };
    for i in 1..4 {
        assert!(tracker.process(&covered(i).view(), at(i)).unwrap().is_empty(), "frame {i}");
    }
    let back: Vec<Face> =
        (4..8).flat_map(|i| tracker.process(&clip.picture(Format::I420, i).view(), at(i)).unwrap()).collect();
    assert!(back.len() >= 3, "found again within a frame");
    assert!(back.iter().all(|f| f.track_id >= id && f.track_id == back[0].track_id));
    let empty = Picture::new(Format::Rgb, (128, 128), |_, _| [0.0; 3]);
    assert!(tracker.process(&empty.view(), at(9)).unwrap().is_empty());
}

#[test]
fn detectors_as_published_find_the_same_face() {
    let (Some(clip), Some(data)) = (one(), shared_data()) else { return };
    let frame = clip.picture(Format::Nv12, 5);
    let own = Tracker::new(config()).unwrap().process(&frame.view(), at(0)).unwrap().remove(0);
    for file in ["yunet_n_dynamic.onnx", "scrfd_2.5g_kps.onnx"] {
        let path = data.join("models").join(file);
        if !path.exists() {
            println!("skipped: {} is not here", path.display());
            continue;
        }
        let mut tracker = Tracker::new(TrackerConfig { detector: Some(path.clone()), ..config() }).unwrap();
        let faces = tracker.process(&frame.view(), at(0)).unwrap();
        assert_eq!(faces.len(), 1, "{file}");
        let worst = faces[0].points.iter().zip(own.points.iter()).map(|(a, b)| a.distance(*b)).fold(0.0, f32::max);
        assert!(worst < 0.06 * own.rect.height, "{file}: {worst} px of {}", own.rect.height);
        // Tall, tiny and wide frames go through the same letterbox.
        for (w, h) in [(256, 512), (128, 128), (1024, 300)] {
            let scale = 512.0 / (w.min(h) as f32);
            let part = Picture::new(Format::I420, (w, h), |x, y| {
                let (px, py) = (x * scale, y * scale);
                if px < 512.0 && py < 512.0 { clip.rgb(5, px, py) } else { [20.0; 3] }
            });
            let mut tracker = Tracker::new(TrackerConfig { detector: Some(path.clone()), ..config() }).unwrap();
            let faces = tracker.process(&part.view(), at(0)).unwrap();
            assert_eq!(faces.len(), 1, "{file} {w}x{h}");
            assert!(
                faces[0].rect.centre().distance(own.rect.centre() * (1.0 / scale)) < 0.1 * own.rect.height / scale,
                "{file} {w}x{h}"
            );
        }
    }
}

#[test]
fn a_model_that_is_no_detector_is_refused_by_name() {
    let Some(data) = shared_data() else { return };
    let path = data.join("models/facemesh_468.onnx");
    if path.exists() {
        let message = Tracker::new(TrackerConfig { detector: Some(path), ..config() }).err().unwrap().to_string();
        assert!(
            message.contains("facemesh_468") && message.contains("YuNet") && message.contains("SCRFD"),
            "{message}"
        );
    }
    let missing = Tracker::new(TrackerConfig { detector: Some("no-such.onnx".into()), ..config() });
    assert!(missing.err().unwrap().to_string().contains("no-such.onnx"));
}

#[test]
fn lips_are_as_they_were_seen_and_the_rest_is_steadied() {
    let Some(clip) = one() else { return };
    let follow = |smoothing: f32| -> Vec<Face> {
        let mut tracker = Tracker::new(TrackerConfig { smoothing, ..config() }).unwrap();
        let frames = (0..clip.frames.len()).map(|i| clip.picture(Format::Rgb, i));
        frames.enumerate().flat_map(|(i, frame)| tracker.process(&frame.view(), at(i)).unwrap()).collect()
    };
    let (seen, steadied) = (follow(0.0), follow(1.0));
    assert!(seen.len() == steadied.len() && seen.len() > 10, "{} {}", seen.len(), steadied.len());
    let apart = |points: std::ops::Range<usize>| {
        let pairs = seen.iter().zip(&steadied);
        pairs.flat_map(|(a, b)| points.clone().map(|p| a.points[p].distance(b.points[p]))).fold(0.0, f32::max)
    };
    assert_eq!(apart(landmarks::LIPS), 0.0);
    assert!(apart(landmarks::STABLE) > 0.1);
}

#[test]
fn the_mouth_is_in_the_middle_of_the_lips() {
    // The landmarks' order, seen on pixels: inside the lips of an open mouth it is darker than on the chin.
    let Some(clip) = one() else { return };
    let mut tracker = Tracker::new(TrackerConfig { smoothing: 0.0, ..config() }).unwrap();
    let mut best: Option<(f32, Face, usize)> = None;
    for i in 0..clip.frames.len() {
        for face in tracker.process(&clip.picture(Format::Rgb, i).view(), at(i)).unwrap() {
            let open = landmarks::opening(&face.points);
            if best.as_ref().is_none_or(|b| open > b.0) {
                best = Some((open, face, i));
            }
        }
    }
    let (_, face, i) = best.unwrap();
    let frame = clip.picture(Format::Rgb, i);
    let mean = |centre: Point| {
        let size = 0.04 * face.rect.width;
        let s = 1.0 / size;
        let to_crop = Similarity { a: s, b: 0.0, tx: 0.5 - centre.x * s, ty: 0.5 - centre.y * s };
        let crop = Crop::take(&frame.view(), 8, &to_crop).unwrap();
        crop.luma().iter().map(|v| f32::from(*v)).sum::<f32>() / 64.0
    };
    let inner = face.points[landmarks::INNER_TOP].lerp(face.points[landmarks::INNER_BOTTOM], 0.5);
    let chin = face.points[landmarks::CHIN_TIP].lerp(face.points[landmarks::INNER_BOTTOM], 0.4);
    assert!(mean(inner) < mean(chin), "{} {}", mean(inner), mean(chin));
}
