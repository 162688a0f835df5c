//! MuseTalk as an engine: from a face in a frame to a patch, alone and beside others.

mod common;
#[path = "common/narrow.rs"]
mod narrow;

use std::{path::Path, sync::Arc, time::Duration};

use common::{Picture, faces};
use lipstream_engines::{
    audio::{Timeline, front_end},
    engine::{self, Actor, Asked, Engine, Identity, LATENT, Moment, Patch, Sampling, Scene, Shown, Work, complete},
    geometry::{Point, landmarks},
    image::{Format, paste},
    manifest::{Family, Package},
    runtime::{Device, Input, Options, Tensor},
    tracker::Face,
};

/// Pixels of a side of the narrow engine's picture.
const SIDE: usize = 64;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

/// An engine of few channels; its manifest changed by `change`.
fn package(home: &Path, change: impl Fn(String) -> String) -> Package {
    let folder = narrow::musetalk(home, SIDE);
    let path = folder.join("engine.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, change(text)).unwrap();
    Package::open(&folder).unwrap()
}

fn sound(engine: &dyn Engine, from: usize) -> Vec<f32> {
    (0..engine.spec().window.len()).map(|i| ((i + from) as f32 * 0.37).sin()).collect()
}

fn asked(actor: &mut dyn Actor, face: &Face, picture: &Picture, audio: &[f32]) -> Option<Work> {
    let identity: Identity = Arc::new(());
    let moment = Moment { face, later: &[], identity: &identity, audio, frame: &picture.view() };
    match actor.ask(&moment).unwrap() {
        Asked::Work(work) => Some(work),
        Asked::Nothing => None,
        Asked::Gathered => panic!("frames are made one by one"),
    }
}

fn shown(actor: &mut dyn Actor, work: Work, face: &Face) -> Patch {
    let identity: Identity = Arc::new(());
    let scene = Scene { face, identity: &identity, gain: 1.0, time: None, gap: Duration::ZERO };
    let Shown::Patch(patch) = actor.show(work, &scene).unwrap() else { panic!("a patch") };
    patch
}

/// The patch of one face.
fn patch(engine: &Arc<dyn Engine>, seed: u64, face: &Face, picture: &Picture) -> Patch {
    let mut actor = engine.clone().actor(seed, &Sampling::default()).unwrap();
    let mut work = asked(&mut *actor, face, picture, &sound(&**engine, 0)).unwrap();
    complete(&**engine, &mut work).unwrap();
    shown(&mut *actor, work, face)
}

const MIDDLE: Point = Point::new(150.3, 105.6);

#[test]
fn a_mouth_is_painted_into_the_lower_face_and_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let package = package(home.path(), |text| text);
    let engine = engine::load(&package, &cpu()).unwrap();
    let spec = engine.spec();
    assert_eq!(
        (spec.family, spec.passes, spec.steps, spec.references, spec.later),
        (Family::MuseTalk, 3, None, false, 0)
    );
    assert_eq!((spec.clip.frames, spec.exact, spec.window.len()), (1, false, 10 * 3 * 16));
    // Ten rows of 20 ms, of which five follow; the first of two that come together waits for the other, for six more and for
    // half an analysis frame.
    assert_eq!(spec.window.taps, (-4..6).map(|row| row * 20_000_000).collect::<Vec<i64>>());
    assert_eq!(spec.window.look_ahead, Duration::from_micros(100_000 + 15 * 10_000 + 12_500));
    assert_eq!(engine::look_ahead(package.manifest()), Some(spec.window.look_ahead));
    assert_eq!(front_end(&package, &cpu()).unwrap().key(), spec.front_end);
    let kinds: Vec<&str> = engine.stages().iter().map(|stage| stage.kind().name()).collect();
    assert_eq!(kinds, ["encode", "forward", "decode"]);
    engine.stages().iter().for_each(|stage| stage.warm_up().unwrap());
    let face = faces::jawed(MIDDLE, 100.0);
    for format in [Format::I420, Format::Nv12, Format::Rgb, Format::Bgra] {
        let picture = common::noise(format, (320, 240), 3);
        let mut pasted = picture.clone();
        let patch = patch(&engine, 0, &face, &picture);
        assert_eq!((patch.pixels.space(), patch.hard), (picture.space(), false));
        let report = paste(&mut pasted.frame(), &patch).unwrap();
        // From the nose's bridge, which is the middle, to a little below the chin, 62 further down; from ear to ear.
        let touched = report.touched;
        assert!(touched.y >= 103.0 && touched.y + touched.height <= 105.6 + 62.0 + 6.0, "{format:?}: {touched:?}");
        assert!(touched.x >= 99.0 && touched.x + touched.width <= 201.0, "{format:?}: {touched:?}");
        assert!(report.pixels > 3000, "{format:?}: {}", report.pixels);
        let (mut inside, mut outside) = (0, 0);
        pasted.each_byte(|plane, at, (x, y), spacing, padding| {
            let covered = x * spacing >= 98 && x * spacing < 202 && y * spacing >= 102 && y * spacing < 175 && !padding;
            let changed = pasted.planes[plane][at] != picture.planes[plane][at];
            *(if covered { &mut inside } else { &mut outside }) += usize::from(changed);
        });
        assert!(outside == 0 && inside > 2000, "{format:?}: {inside} {outside}");
        // The mouth is another, the nose's tip is not.
        assert_ne!(pasted.rgb(150, 150), picture.rgb(150, 150), "{format:?}");
        assert_eq!(pasted.rgb(150, 110), picture.rgb(150, 110), "{format:?}");
    }
}

#[test]
fn a_frame_hears_the_rows_around_its_time_whatever_the_size_of_the_pieces() {
    let home = tempfile::tempdir().unwrap();
    let package = package(home.path(), |text| text);
    let spec = engine::load(&package, &cpu()).unwrap().spec().clone();
    let sound: Vec<f32> = (0..24_000).map(|n| 0.4 * (n as f32 * 0.09).sin() * (n as f32 * 9e-4).sin()).collect();
    let windows = |piece: usize| {
        let mut front_end = front_end(&package, &cpu()).unwrap();
        let mut timeline = Timeline::new(spec.window.clone(), 200);
        let mut rows = 0;
        let mut push = |row: &[f32]| {
            timeline.push(rows * 20_000_000, row);
            rows += 1;
        };
        sound.chunks(piece).for_each(|piece| front_end.push(piece, &mut push).unwrap());
        front_end.finish(&mut push).unwrap();
        assert_eq!(rows, 75);
        timeline.end();
        [0, 400, 440, 1000].map(|time| timeline.window(time * 1_000_000))
    };
    let [first, a, b, _] = windows(24_000);
    // The second of two frames has eight rows of the first.
    assert!(a[2 * 48..] == b[..8 * 48] && a != b);
    // Before the first sound there is silence, but next to it.
    assert!(first[..3 * 48].chunks_exact(48).all(|row| row == &*spec.window.silence));
    assert_eq!(windows(333), windows(24_000));
}

#[test]
fn a_face_that_is_given_back_as_it_was_leaves_no_trace() {
    let home = tempfile::tempdir().unwrap();
    let now = faces::jawed(MIDDLE, 100.0);
    for exact in [false, true] {
        let package = package(home.path(), |text| text);
        let package = if exact { package.exact().unwrap() } else { package };
        let engine = engine::load(&package, &cpu()).unwrap();
        for format in [Format::I420, Format::Rgba, Format::Bgra] {
            let picture =
                Picture::new(format, (320, 240), |x, y| [40.0 + 0.6 * x, 210.0 - 0.5 * y, 70.0 + 0.2 * (x + y)]);
            let mut actor = engine.clone().actor(0, &Sampling::default()).unwrap();
            let mut work = asked(&mut *actor, &now, &picture, &sound(&*engine, 0)).unwrap();
            // What the network is given is its picture: hidden first, then whole.
            let pixels = work.take("pixels").unwrap().data.split_off(3 * SIDE * SIDE);
            work.put("pictures", Tensor { shape: vec![1, 3, SIDE, SIDE], data: pixels });
            let patch = shown(&mut *actor, work, &now);
            let mut pasted = picture.clone();
            assert!(paste(&mut pasted.frame(), &patch).unwrap().pixels > 3000);
            let mut worst = 0;
            pasted.each_byte(|plane, at, _, _, _| {
                worst = worst.max(pasted.planes[plane][at].abs_diff(picture.planes[plane][at]));
            });
            assert!(worst <= 2, "{format:?}, exact {exact}: {worst}");
        }
    }
}

#[test]
fn a_seed_repeats_its_faces_and_another_does_not() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine::load(&package(home.path(), |text| text), &cpu()).unwrap();
    let (picture, face) = (common::noise(Format::I420, (320, 240), 3), faces::jawed(MIDDLE, 100.0));
    let [a, b, other] = [1, 1, 2].map(|seed| patch(&engine, seed, &face, &picture).pixels);
    assert!(a == b && a != other);
    // Of one stream, what is the same looks the same.
    let mut actor = engine.clone().actor(1, &Sampling::default()).unwrap();
    let mut again = || {
        let mut work = asked(&mut *actor, &face, &picture, &sound(&*engine, 0)).unwrap();
        complete(&*engine, &mut work).unwrap();
        shown(&mut *actor, work, &face).pixels
    };
    assert!(again() == a && again() == a);
    let error = engine.clone().actor(0, &Sampling { steps: Some(4), ..Sampling::default() }).err().unwrap().to_string();
    assert!(error.contains("takes no steps, found 4") && !error.contains('\n'), "{error}");
}

#[test]
fn faces_of_several_streams_in_one_batch_are_those_that_each_makes_alone() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine::load(&package(home.path(), |text| text), &cpu()).unwrap();
    let pictures = [3, 4, 5].map(|seed| common::noise(Format::Rgb, (320, 240), seed));
    let faces = [100.0, 80.0, 120.0].map(|width| faces::jawed(MIDDLE, width));
    let mut actors: Vec<_> = (0..3).map(|seed| engine.clone().actor(seed, &Sampling::default()).unwrap()).collect();
    let mut ask = |i: usize| asked(&mut *actors[i], &faces[i], &pictures[i], &sound(&*engine, 9 * i)).unwrap();
    let (mut alone, mut together): (Vec<Work>, Vec<Work>) =
        ((0..3).map(&mut ask).collect(), (0..3).map(&mut ask).collect());
    alone.iter_mut().for_each(|work| complete(&*engine, work).unwrap());
    // Three are padded to the next size of a batch.
    for stage in engine.stages() {
        assert!(stage.sizes().first().is_some_and(|size| *size <= 2), "{:?}", stage.sizes());
        stage.run(&mut together).unwrap();
    }
    for (i, (alone, together)) in alone.into_iter().zip(together).enumerate() {
        let [a, b] = [alone, together].map(|work| shown(&mut *actors[i], work, &faces[i]));
        let worst = a
            .pixels
            .crop()
            .unwrap()
            .data
            .iter()
            .zip(&b.pixels.crop().unwrap().data)
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap();
        assert!(worst <= 1 && a.mask == b.mask, "{i}: {worst}");
    }
}

#[test]
fn either_decoder_is_given_latents_of_its_own_scale() {
    let home = tempfile::tempdir().unwrap();
    let latents = Tensor { shape: vec![1, 4, 1, 8, 8], data: (0..256).map(|i| (i as f32 * 0.7).sin()).collect() };
    for (decoder, part, scale) in [("vae", "decoder", 0.18215), ("taesd", "taesd", 1.0)] {
        let change = |text: String| text.replace("decoder = \"vae\"", &format!("decoder = \"{decoder}\""));
        let package = package(home.path(), change);
        let engine = engine::load(&package, &cpu()).unwrap();
        let mut work = [Work::default().with(LATENT, latents.clone())];
        engine.stages()[2].run(&mut work).unwrap();
        let plain: Vec<f32> = latents.data.iter().map(|v| v / scale).collect();
        let given = [Input { name: "latents", shape: &[1, 4, 8, 8], data: &plain }];
        let wanted = package.network(part, &cpu()).unwrap().run(&given).unwrap().swap_remove(0);
        let found = work[0].tensor("pictures").unwrap();
        let worst = found.data.iter().zip(&wanted.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.shape == [1, 3, SIDE, SIDE] && worst < 1e-3, "{decoder}: {worst}");
    }
}

#[test]
fn a_face_without_size_asks_for_nothing_and_the_last_mouth_goes_with_its_face() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine::load(&package(home.path(), |text| text), &cpu()).unwrap();
    let picture = common::noise(Format::I420, (320, 240), 3);
    let mut actor = engine.clone().actor(0, &Sampling::default()).unwrap();
    let now = faces::jawed(MIDDLE, 100.0);
    assert!(actor.hold(&now).is_none());
    let flat = Face { points: vec![MIDDLE; landmarks::COUNT].into(), ..now.clone() };
    let broken = Face { points: vec![Point::new(f32::NAN, 1.0); landmarks::COUNT].into(), ..now.clone() };
    for bad in [&flat, &broken] {
        assert!(asked(&mut *actor, bad, &picture, &sound(&*engine, 0)).is_none());
    }
    let mut work = asked(&mut *actor, &now, &picture, &sound(&*engine, 0)).unwrap();
    complete(&*engine, &mut work).unwrap();
    let patch = shown(&mut *actor, work, &now);
    let moved = actor.hold(&faces::jawed(MIDDLE + Point::new(7.5, -3.25), 100.0)).unwrap();
    assert!((moved.to_frame.tx - patch.to_frame.tx - 7.5).abs() < 1e-3);
    assert!((moved.to_frame.ty - patch.to_frame.ty + 3.25).abs() < 1e-3 && moved.pixels == patch.pixels);
    assert!(actor.hold(&broken).is_none());
    // A pause, another person, another colour space.
    actor.forget_pixels();
    assert!(actor.hold(&now).is_none());
    // A window of another engine is refused.
    let identity: Identity = Arc::new(());
    let moment = Moment { face: &now, later: &[], identity: &identity, audio: &[0.0; 7], frame: &picture.view() };
    let error = actor.ask(&moment).unwrap_err().to_string();
    assert!(error.contains("7 of sound") && !error.contains('\n'), "{error}");
}

#[test]
fn an_exact_face_is_pasted_hard_where_its_mask_covers_it() {
    let home = tempfile::tempdir().unwrap();
    let mut lowest = Vec::new();
    for mask in ["jaw", "face"] {
        let change = |text: String| text.replace("mask = \"jaw\"", &format!("mask = \"{mask}\""));
        let package = package(home.path(), change).exact().unwrap();
        let engine = engine::load(&package, &cpu()).unwrap();
        assert!(engine.spec().exact && engine.spec().later == 0);
        let picture = common::noise(Format::Rgb, (320, 240), 3);
        let now = faces::jawed(MIDDLE, 100.0);
        let patch = patch(&engine, 0, &now, &picture);
        assert!(patch.hard && patch.mask.iter().all(|v| [0, 255].contains(v)));
        // From ear to ear, from 42 pixels above the bridge's point to ten below the chin.
        assert_eq!((patch.to_frame.tx, patch.to_frame.ty), (100.0, 43.0));
        let mut pasted = picture.clone();
        let report = paste(&mut pasted.frame(), &patch).unwrap();
        let touched = report.touched;
        // The crop's middle is in row 110; the mask's blur of 11 pixels reaches five rows further up.
        assert!(touched.y >= 105.0 && touched.y <= 110.0 && touched.y + touched.height <= 177.0, "{touched:?}");
        let mut changed = Vec::new();
        pasted.each_byte(|plane, at, (x, y), _, _| {
            if pasted.planes[plane][at] != picture.planes[plane][at] {
                changed.push((x, y));
            }
        });
        assert!(changed.iter().all(|(x, y)| (100..200).contains(x) && (105..177).contains(y)), "{mask}");
        assert!(changed.contains(&(150, 150)) && !changed.contains(&(150, 112)), "{mask}");
        lowest.extend(changed.iter().map(|(_, y)| *y).max());
        let mut actor = engine.clone().actor(0, &Sampling::default()).unwrap();
        assert!(actor.hold(&now).is_none());
        // Beside the frame there is nothing to be cut out.
        assert!(
            asked(&mut *actor, &faces::jawed(Point::new(-90.0, 100.0), 100.0), &picture, &sound(&*engine, 0)).is_none()
        );
        // Every frame is sampled anew.
        let mut again = || {
            let mut work = asked(&mut *actor, &now, &picture, &sound(&*engine, 0)).unwrap();
            complete(&*engine, &mut work).unwrap();
            shown(&mut *actor, work, &now).pixels
        };
        assert!(again() != again());
    }
    // The chin is in row 167, the jaw goes a little further.
    assert!(lowest[0] > lowest[1] && lowest[1] > 167, "{lowest:?}");
}
