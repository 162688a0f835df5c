//! The reference bank: what it keeps, what it refuses, and its file.

mod common;

use std::time::Duration;

use common::{BT709, Picture};
use lipstream_engines::{
    bank::{BankConfig, ReferenceBank, Refusal, SHAPES},
    geometry::{Alignment, Point, Rect, landmarks},
    image::{ColorSpace, Format},
    occlusion::{self, Front},
    tracker::Face,
};

const SIZE: (usize, usize) = (320, 240);

/// The seven anchors of a level face whose eyes are half a crop apart.
fn alignment() -> Alignment {
    let points = [(0.24, 0.13), (0.40, 0.14), (0.60, 0.14), (0.76, 0.13), (0.5, 0.4), (0.4, 0.39), (0.6, 0.39)];
    Alignment { anchors: vec![94, 95, 96, 97, 89, 90, 91], points: points.map(|(x, y)| Point::new(x, y)).to_vec() }
}

fn config(capacity: usize) -> BankConfig {
    BankConfig { capacity, side: 80, alignment: alignment() }
}

/// A face in the middle of the frame, 100 px from crop edge to crop edge, its mouth open by `open` and `wide` (in
/// crops).
fn face(open: f32, wide: f32) -> Face {
    let mut points = vec![Point::new(0.5, 0.5); landmarks::COUNT];
    for (a, p) in alignment().anchors.iter().zip(alignment().points) {
        points[*a] = p;
    }
    let ring = |range: std::ops::Range<usize>, rx: f32, ry: f32, points: &mut [Point]| {
        let n = range.len() as f32;
        for (k, i) in range.enumerate() {
            let t = std::f32::consts::TAU * k as f32 / n;
            points[i] = Point::new(0.5 - rx * t.cos(), 0.62 - ry * t.sin());
        }
    };
    ring(landmarks::LIPS_OUTER, 0.15 + wide, 0.04 + open, &mut points);
    ring(landmarks::LIPS_INNER, 0.12 + wide, 0.005 + open, &mut points);
    ring(landmarks::CHIN, 0.08, 0.15 + open, &mut points);
    let points: Vec<Point> = points.iter().map(|p| Point::new(110.0, 70.0) + *p * 100.0).collect();
    Face {
        track_id: 4,
        rect: Rect::around(&points).unwrap(),
        points: points.into(),
        confidence: 0.99,
        yaw: 0.0,
        occluded: false,
        front: None,
    }
}

fn sharp() -> Picture {
    common::noise(Format::I420, SIZE, 11)
}

fn flat() -> Picture {
    Picture::new(Format::I420, SIZE, |x, y| [100.0 + x * 0.1, 90.0 + y * 0.1, 80.0])
}

/// Opens and closes slowly: no step that looks like a slip.
fn talk(bank: &mut ReferenceBank, picture: &Picture, frames: usize) -> usize {
    (0..frames)
        .filter(|i| {
            let t = *i as f32 * 0.07;
            let f = face(0.05 * (1.0 - t.cos()), 0.04 * (t * 0.37).sin());
            bank.observe(&picture.view(), &f, Some(Duration::from_millis(40 * *i as u64))).unwrap()
        })
        .count()
}

fn openings(bank: &ReferenceBank) -> (f32, f32) {
    let all = bank.references().iter().map(|r| landmarks::opening(&r.points));
    (all.clone().fold(f32::INFINITY, f32::min), all.fold(0.0, f32::max))
}

#[test]
fn a_bank_is_bounded_and_spans_what_it_saw() {
    let mut bank = ReferenceBank::new(config(8));
    let picture = sharp();
    let kept = talk(&mut bank, &picture, 1500);
    assert_eq!(bank.references().len(), 8);
    assert!((8..200).contains(&kept), "{kept} exchanges");
    assert_eq!((bank.shapes().count(), bank.observed()), (SHAPES, 1500));
    let (least, most) = openings(&bank);
    let widest = landmarks::opening(&face(0.1, 0.0).points);
    assert!(least < 0.1 * widest && most > 0.8 * widest, "{least}..{most} of 0..{widest}");
    let widths =
        bank.references().iter().map(|r| r.points[landmarks::CORNER_LEFT].distance(r.points[landmarks::CORNER_RIGHT]));
    assert!(widths.clone().fold(0.0, f32::max) - widths.fold(f32::INFINITY, f32::min) > 0.1, "wide and narrow mouths");
    for (i, a) in bank.references().iter().enumerate() {
        assert!(bank.references()[..i].iter().all(|b| a.id != b.id));
        assert_eq!((a.crop.side, a.crop.space), (80, BT709));
    }
    // Settled: the same again changes nothing much.
    let version = bank.version();
    assert!(talk(&mut bank, &picture, 500) <= 4);
    assert!(bank.version() <= version + 5);
}

#[test]
fn a_still_mouth_fills_one_place() {
    let mut bank = ReferenceBank::new(config(8));
    for i in 0..50 {
        bank.observe(&sharp().view(), &face(0.001 * (i % 3) as f32, 0.0), None).unwrap();
    }
    assert_eq!(bank.references().len(), 1);
    assert_eq!(bank.shapes().count(), 50);
}

#[test]
fn crops_and_points_are_aligned() {
    let mut bank = ReferenceBank::new(config(4));
    let picture = sharp();
    assert!(bank.observe(&picture.view(), &face(0.02, 0.0), None).unwrap());
    let r = &bank.references()[0];
    for (a, p) in alignment().anchors.iter().zip(alignment().points) {
        assert!(r.points[*a].distance(p) < 1e-4);
    }
    let to_crop = alignment().fit(&face(0.02, 0.0).points).unwrap();
    assert_eq!(r.crop, lipstream_engines::image::Crop::take(&picture.view(), 80, &to_crop).unwrap());
}

/// A face `times` as large as [`face`], the left top corner of its crop at (110, 70).
fn near(times: f32, open: f32) -> Face {
    let points = face(open, 0.0).points;
    let points: Vec<Point> =
        points.iter().map(|p| Point::new(110.0, 70.0) + (*p - Point::new(110.0, 70.0)) * times).collect();
    Face { rect: Rect::around(&points).unwrap(), points: points.into(), ..face(open, 0.0) }
}

#[test]
fn crops_are_as_large_as_the_face_asks_and_grow_when_it_comes_nearer() {
    let picture = common::noise(Format::I420, (600, 500), 11);
    let gather = |bank: &mut ReferenceBank, times: f32, frames: usize| {
        for i in 0..frames {
            let open = 0.05 * (1.0 - (i as f32 * 0.07).cos());
            bank.observe(&picture.view(), &near(times, open), None).unwrap();
        }
    };
    for (times, side) in [(0.5, 80), (1.1, 80), (1.3, 160), (1.6, 160), (1.7, 240), (3.0, 240)] {
        let mut bank = ReferenceBank::new(config(6));
        gather(&mut bank, times, 100);
        assert_eq!(bank.side(), side, "{times}");
        assert!(bank.references().iter().all(|r| r.crop.side == side && !r.coarse), "{times}");
    }
    let mut bank = ReferenceBank::new(config(6));
    gather(&mut bank, 1.0, 100);
    let count = bank.references().len();
    bank.observe(&picture.view(), &near(3.0, 0.0), None).unwrap();
    // Another size is no other shape: what was known from afar is at hand until it has been seen better.
    assert_eq!((bank.side(), bank.references().len()), (240, count));
    let large = &bank.references().iter().find(|r| r.coarse).expect("one from afar").crop;
    assert_eq!(large.data.len(), 240 * 240 * 3);
    gather(&mut bank, 3.0, 200);
    assert!(bank.references().iter().all(|r| !r.coarse), "all have been seen from near");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("near.bank");
    bank.save(&path).unwrap();
    let loaded = ReferenceBank::load(&path).unwrap();
    loaded.check(&config(6)).unwrap();
    assert_eq!((loaded.side(), &loaded.references()[0].crop), (240, &bank.references()[0].crop));
}

#[test]
fn faces_without_a_chin_are_taken_until_a_whole_one_comes() {
    let mut bank = ReferenceBank::new(config(8));
    let picture = sharp();
    let moved = |by: Point, open: f32| {
        let face = face(open, 0.0);
        Face { points: face.points.iter().map(|p| *p + by).collect(), ..face }
    };
    // Its crop begins at (110, 70) and is 100 px large: the chin at 147 px, the lower lip at 136 and the eyes from 134 to 186.
    let below = Point::new(0.0, 100.0);
    for i in 0..3 {
        bank.observe(&picture.view(), &moved(below, 0.01 * i as f32), None).unwrap();
        assert_eq!(bank.refusal(), None, "{i}");
    }
    assert_eq!((bank.references().len(), bank.observed()), (3, 3));
    // An eye is outside, or so much of a cheek that the rest of the face may be a guess.
    for aside in [136.0, -140.0] {
        assert!(!bank.observe(&picture.view(), &moved(Point::new(aside, 0.0), 0.0), None).unwrap());
        assert_eq!(bank.refusal(), Some(Refusal::CutOff), "{aside}");
    }
    assert!(bank.observe(&picture.view(), &face(0.0, 0.0), None).unwrap());
    assert_eq!(bank.references().len(), 1, "those that are cut off have gone");
    assert!(!bank.observe(&picture.view(), &moved(below, 0.03), None).unwrap(), "and none comes any more");
}

#[test]
fn faces_that_something_is_before_are_taken_until_one_is_seen_without() {
    let mut bank = ReferenceBank::new(config(8));
    let picture = sharp();
    let front = Front::new(vec![255; occlusion::SIDE * occlusion::SIDE].into());
    let before = |open: f32| Face { front: front.clone(), ..face(open, 0.0) };
    for i in 0..3 {
        assert!(bank.observe(&picture.view(), &before(0.01 * i as f32), None).unwrap(), "{i}");
    }
    assert_eq!(bank.references().len(), 3);
    assert!(bank.observe(&picture.view(), &face(0.03, 0.0), None).unwrap());
    assert_eq!(bank.references().len(), 1, "those with something before them have gone");
    assert!(!bank.observe(&picture.view(), &before(0.05), None).unwrap(), "and none comes any more");
}

#[test]
fn other_tracks_and_bad_frames_are_refused() {
    let mut bank = ReferenceBank::new(config(8));
    let picture = sharp();
    assert!(bank.observe(&picture.view(), &face(0.0, 0.0), None).unwrap());
    let seen = bank.observed();
    let mut other = face(0.03, 0.0);
    other.track_id = 5;
    let mut turned = face(0.03, 0.0);
    turned.yaw = -35.0;
    let mut covered = face(0.03, 0.0);
    covered.occluded = true;
    let mut unsure = face(0.03, 0.0);
    unsure.confidence = 0.4;
    let mut cut = face(0.03, 0.0);
    cut.points = cut.points.iter().map(|p| *p + Point::new(-160.0, 0.0)).collect();
    for (bad, why) in
        [(other, "track"), (turned, "yaw"), (covered, "cover"), (unsure, "confidence"), (cut, "frame's edge")]
    {
        assert!(!bank.observe(&picture.view(), &bad, None).unwrap(), "{why}");
    }
    assert_eq!((bank.references().len(), bank.observed(), bank.track()), (1, seen, Some(4)));
    // A jump of the points is believed only when the next frame agrees.
    assert!(!bank.observe(&picture.view(), &face(0.12, 0.0), None).unwrap());
    assert!(bank.observe(&picture.view(), &face(0.12, 0.0), None).unwrap());
    let mut short = face(0.0, 0.0);
    short.points = short.points[..68].into();
    assert!(bank.observe(&picture.view(), &short, None).unwrap_err().to_string().contains("68"));
}

#[test]
fn blurred_frames_stay_out_and_leave_when_sharper_ones_come() {
    let mut bank = ReferenceBank::new(config(6));
    talk(&mut bank, &sharp(), 200);
    let before: Vec<u64> = bank.references().iter().map(|r| r.id).collect();
    // Shapes that the bank has not seen, on a blurred picture.
    for i in 0..40 {
        bank.observe(&flat().view(), &face(0.1 + 0.002 * i as f32, 0.0), None).unwrap();
    }
    assert_eq!(bank.references().iter().map(|r| r.id).collect::<Vec<_>>(), before);

    let mut bank = ReferenceBank::new(config(6));
    talk(&mut bank, &flat(), 20);
    talk(&mut bank, &sharp(), 800);
    let blurred = bank.references().iter().filter(|r| r.sharpness < 5.0).count();
    assert_eq!(blurred, 0, "{:?}", bank.references().iter().map(|r| r.sharpness).collect::<Vec<_>>());
}

#[test]
fn a_file_brings_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("me.bank");
    let mut bank = ReferenceBank::new(config(6));
    talk(&mut bank, &sharp(), 300);
    bank.save(&path).unwrap();
    bank.save(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    let mut loaded = ReferenceBank::load(&path).unwrap();
    assert_eq!(loaded.config(), bank.config());
    assert_eq!((loaded.track(), loaded.space(), loaded.observed()), (None, Some(BT709), bank.observed()));
    for (a, b) in loaded.references().iter().zip(bank.references()) {
        assert_eq!((&a.crop, &a.points, a.sharpness, a.yaw, a.time), (&b.crop, &b.points, b.sharpness, b.yaw, b.time));
    }
    assert!(loaded.shapes().eq(bank.shapes()));
    loaded.check(bank.config()).unwrap();
    let message = loaded.check(&BankConfig { side: 256, ..config(6) }).unwrap_err().to_string();
    assert!(message.contains("80") && message.contains("256"), "{message}");

    // It goes on, for the track that it is bound to.
    loaded.bind(9);
    assert!(!loaded.observe(&sharp().view(), &face(0.0, 0.0), None).unwrap());
    assert_eq!(loaded.observed(), bank.observed());

    let version = loaded.version();
    loaded.set_space(ColorSpace::Rgb);
    assert_eq!((loaded.references()[0].crop.space, loaded.version()), (ColorSpace::Rgb, version + 1));
    assert!(bank.save(&folder.path().join("no/such/folder")).is_err());

    let empty = ReferenceBank::new(config(6));
    empty.save(&path).unwrap();
    assert!(ReferenceBank::load(&path).unwrap().references().is_empty());
}

#[test]
fn broken_files_are_refused_by_the_name_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("me.bank");
    let mut bank = ReferenceBank::new(config(6));
    talk(&mut bank, &sharp(), 100);
    bank.save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let refusal = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        ReferenceBank::load(&path).unwrap_err().to_string()
    };
    for len in [0, 7, 8, 100, good.len() / 2, good.len() - 1] {
        assert!(refusal(&good[..len]).contains("(file)"), "{len} bytes");
    }
    // Same length, so that only the value is wrong.
    let edited = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = good
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap_or_else(|| panic!("{from} is in the file"));
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        refusal(&bytes)
    };
    for (from, to, key) in [
        ("lipstream-bank-2", "lipstream-bank-9", "`format`"),
        ("bt709-limited", "bt709-latined", "`space`"),
        ("\"capacity\":\"6\"", "\"capacity\":\"0\"", "`capacity`"),
        ("\"observed\":\"100\"", "\"observed\":\"1e0\"", "`observed`"),
        ("\"sharpness\"", "\"sharpless\"", "`sharpness`"),
        ("\"side\":\"80\"", "\"side\":\"30\"", "`side`"),
    ] {
        let message = edited(from, to);
        assert!(message.contains(key) && message.contains("me.bank"), "{key}: {message}");
    }
    // A point that is not a number: the last bytes of the file are some tensor of floats.
    let mut bytes = good.clone();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let floats = bytes[header..].chunks_exact_mut(4).take(landmarks::COUNT);
    floats.for_each(|b| b.copy_from_slice(&f32::NAN.to_le_bytes()));
    let message = refusal(&bytes);
    assert!(message.contains("NaN") && message.contains('`'), "{message}");
}
