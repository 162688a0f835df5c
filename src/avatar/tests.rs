//! The demo avatar through the store and the player.

use std::{fs, path::Path, sync::Arc, time::Duration};

use super::{store::DEMO, *};
use crate::media::{Media, Notices, Reader};

fn demo(cache: &Path) -> Arc<Avatar> {
    gst::init().unwrap();
    let _ = gstlipstream::plugin_register_static();
    let store = Store::with_cache(&cache.join("store"), Some(cache.to_owned()), false).unwrap();
    store.get(DEMO).unwrap()
}

fn source() -> Vec<Vec<u8>> {
    let video = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/avatar.mp4");
    let mut reader = Reader::open(&video, Media::Video, &Notices::default()).unwrap();
    let frames = std::iter::from_fn(|| reader.next_sample().unwrap());
    frames.map(|sample| sample.buffer().unwrap().map_readable().unwrap()[..1280 * 720].to_vec()).collect()
}

fn luma(frame: &gst::Buffer) -> Vec<u8> {
    assert_eq!(frame.size(), 1280 * 720 * 3 / 2);
    frame.map_readable().unwrap()[..1280 * 720].to_vec()
}

fn difference(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn the_demo_is_shown_to_and_fro_frame_by_frame() {
    let cache = tempfile::tempdir().unwrap();
    let avatar = demo(cache.path());
    let source = source();
    let picture = avatar.picture;
    assert_eq!((picture.width, picture.height, picture.fps), (1280, 720, (25, 1)));
    assert_eq!(avatar.summary().clips, [("idle".to_owned(), 8.0)]);
    assert!(avatar.bank.as_ref().is_some_and(|bank| bank.is_file()));

    let mut player = Player::open(avatar.clone()).unwrap();
    let turns = [200, 199, 199];
    let expected = (0..turns[0]).chain((0..turns[1]).rev()).chain(1..=turns[2]).take(420);
    let mut time = Duration::ZERO;
    let mut before: Option<Vec<u8>> = None;
    let own = source.windows(2).map(|w| difference(&w[0], &w[1])).fold(0.0, f64::max);
    for wanted in expected {
        let (frame, duration) = player.next_frame().unwrap();
        let frame = luma(&frame);
        time += duration;
        let off = difference(&frame, &source[wanted]);
        assert!(off < 1.5, "frame {wanted} is off by {off:.2} codes");
        let neighbours = [wanted.checked_sub(1), Some(wanted + 1).filter(|n| *n < 200)];
        for other in neighbours.into_iter().flatten() {
            assert!(off < 0.3 + difference(&frame, &source[other]), "frame {wanted} is rather {other}");
        }
        if let Some(before) = &before {
            let step = difference(before, &frame);
            assert!(step < own + 0.5, "a step of {step:.2} codes at {wanted}; the clip's own are below {own:.2}");
        }
        before = Some(frame);
    }
    assert_eq!(time, Duration::from_millis(40 * 420));
}

#[test]
fn a_demo_that_was_broken_in_the_cache_is_made_again() {
    let cache = tempfile::tempdir().unwrap();
    let folder = demo(cache.path()).folder.clone();
    fs::write(folder.join("idle.index"), b"LIPCLIP1 and no more").unwrap();
    let avatar = demo(cache.path());
    assert_eq!(Player::open(avatar).unwrap().next_frame().unwrap().1, Duration::from_millis(40));
    let left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn a_hostile_store_gives_no_avatar_and_no_panic() {
    let cache = tempfile::tempdir().unwrap();
    let good = demo(cache.path()).folder.clone();
    let store = Store::with_cache(&cache.path().join("store"), Some(cache.path().to_owned()), false).unwrap();
    let place = |name: &str| cache.path().join("store").join(name);
    let copy = |name: &str| {
        fs::create_dir(place(name)).unwrap();
        for entry in fs::read_dir(&good).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), place(name).join(entry.file_name())).unwrap();
        }
    };
    let manifests = [
        ("none", ""),
        ("half", "{\"format\": 2, \"clips\""),
        ("outside", "{\"format\": 2, \"clips\": [\"../good/idle\"]}"),
        ("empty", "{\"format\": 2, \"clips\": []}"),
        ("more", "{\"format\": 2, \"clips\": [\"idle\"], \"hook\": \"rm\"}"),
        ("other", "{\"format\": 9, \"clips\": [\"idle\"]}"),
    ];
    for (name, manifest) in manifests {
        copy(name);
        fs::write(place(name).join("avatar.json"), manifest).unwrap();
    }
    copy("good");
    copy("cut");
    let frames = fs::OpenOptions::new().write(true).open(place("cut").join("idle.jpegs")).unwrap();
    frames.set_len(1000).unwrap();
    std::os::unix::fs::symlink(&good, place("link")).unwrap();
    fs::write(place("file"), b"").unwrap();
    let names: Vec<_> = store.list().into_iter().map(|a| a.name).collect();
    assert_eq!(names, [DEMO, "good"]);
    for name in ["../good", "..", "", "good/../good", "link", "cut"] {
        assert!(store.get(name).is_none(), "{name}");
    }
    assert!(store.remove("../store").is_err() && store.remove("link").is_err() && store.remove(DEMO).is_err());
    store.remove("good").unwrap();
    assert!(store.get("good").is_none() && !place("good").exists());
}

#[test]
fn frames_that_are_no_pictures_fail_by_name() {
    let cache = tempfile::tempdir().unwrap();
    let avatar = demo(cache.path());
    let path = avatar.folder.join("idle.jpegs");
    let size = fs::metadata(&path).unwrap().len();
    let mut player = Player::open(avatar).unwrap();
    fs::write(&path, vec![7; size as usize]).unwrap();
    assert!(player.next_frame().is_err());
}
