//! Pictures of `compact`: with and without its refinement network, with larger crops, after a pause.

mod common;

use std::{fs, path::Path, sync::Arc, time::Duration};

use common::{BT709, Picture, faces};
use lipstream_engines::{
    bank::{BankConfig, ReferenceBank},
    engine::{self, Actor, Engine, Identity, LATENT, Noise, Patch, Sampling, Scene, Shown, Work, complete},
    geometry::{Point, landmarks},
    image::{ColorSpace, Format, paste},
    manifest::Package,
    runtime::{Device, Options, Tensor},
    tracker::Face,
};

const SIZE: (usize, usize) = (320, 320);
const SIDE: usize = 256;
/// Numbers in one latent.
const LATENTS: usize = 12;

fn options() -> Options {
    Options { device: Device::Cpu, ..Default::default() }
}

/// The shipped engine, or a copy of it whose manifest names no refinement.
fn engine(refined: bool) -> Arc<dyn Engine> {
    let shipped = Package::find("compact").unwrap();
    if refined {
        return engine::load(&shipped, &options()).unwrap();
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/compact");
    let folder = tempfile::tempdir().unwrap();
    for name in ["audio.onnx", "motion.onnx", "basis.safetensors"] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let manifest = fs::read_to_string(source.join("engine.toml")).unwrap();
    let sections = manifest.split("\n\n").filter(|s| !s.starts_with("[files.refine]"));
    fs::write(folder.path().join("engine.toml"), sections.collect::<Vec<_>>().join("\n\n")).unwrap();
    engine::load(&Package::open(folder.path()).unwrap(), &options()).unwrap()
}

fn face(engine: &Arc<dyn Engine>, side: f32, open: f32) -> Face {
    faces::level(&**engine, Point::new(0.3, 0.2) * side, side, open)
}

fn render(engine: &Arc<dyn Engine>, format: Format, openings: &[f32]) -> Patch {
    render_of(engine, 200.0, openings, |open| common::noise(format, SIZE, (open * 1000.0) as u64))
}

/// A mouth of somebody whose face is `side` px large, whom `picture` shows with that opening.
fn render_of(engine: &Arc<dyn Engine>, side: f32, openings: &[f32], picture: impl Fn(f32) -> Picture) -> Patch {
    let identity = known(engine, side, openings, picture);
    let face = face(engine, side, 0.02);
    show(engine, actor(engine).as_mut(), 1.5, &scene(&face, &identity))
}

fn actor(engine: &Arc<dyn Engine>) -> Box<dyn Actor> {
    engine.clone().actor(0, &Sampling::default()).unwrap()
}

fn scene<'a>(face: &'a Face, identity: &'a Identity) -> Scene<'a> {
    Scene { face, identity, gain: 1.0, time: None, gap: Duration::ZERO }
}

/// What an actor shows of the motion whose first number is `motion` and the others nothing.
fn show(engine: &Arc<dyn Engine>, actor: &mut dyn Actor, motion: f32, scene: &Scene) -> Patch {
    let mut latent = vec![0.0; LATENTS];
    latent[0] = motion;
    let mut work = Work::new(Noise::default()).with(LATENT, Tensor { shape: vec![1, LATENTS], data: latent });
    loop {
        match actor.show(work, scene).unwrap() {
            Shown::Patch(patch) => return patch,
            Shown::Nothing => panic!("a patch"),
            Shown::More(more) => {
                work = more;
                complete(engine.as_ref(), &mut work).unwrap();
            }
        }
    }
}

fn known(engine: &Arc<dyn Engine>, side: f32, openings: &[f32], picture: impl Fn(f32) -> Picture) -> Identity {
    let config = BankConfig { capacity: 8, side: engine.spec().crop, alignment: engine.spec().alignment.clone() };
    let mut bank = ReferenceBank::new(config);
    for open in openings {
        let picture = picture(*open);
        // The second look confirms a shape that is far from the one before.
        for _ in 0..2 {
            bank.observe(&picture.view(), &face(engine, side, *open), None).unwrap();
        }
    }
    assert_eq!(bank.references().len(), openings.len());
    engine.prepare(&bank).unwrap()
}

#[test]
fn it_changes_the_mouth_and_nothing_else() {
    let (plain, refined) = (engine(false), engine(true));
    for format in [Format::Rgb, Format::I420] {
        for openings in [&[0.0, 0.04, 0.08][..], &[0.03]] {
            let before = render(&plain, format, openings);
            let after = render(&refined, format, openings);
            assert_eq!(before.mask, after.mask);
            assert_eq!(after.pixels.space() == ColorSpace::Rgb, format == Format::Rgb);
            let [old, new] = [&before, &after].map(|patch| patch.pixels.crop().unwrap());
            let changed: Vec<usize> = (0..SIDE * SIDE)
                .filter(|i| before.mask[*i] > 0 && old.data[i * 3..i * 3 + 3] != new.data[i * 3..i * 3 + 3])
                .collect();
            assert!(changed.len() > 100, "{format:?}: {} pixels", changed.len());
            // The lips' middle is near (0.5, 0.62) of the crop, and the mouth is at most a third of it wide.
            let inside = |i: &usize| (64..192).contains(&(i % SIDE)) && (95..223).contains(&(i / SIDE));
            assert!(changed.iter().all(inside), "{format:?}: beyond the window");
        }
    }
}

#[test]
fn it_is_the_same_for_the_same_frame() {
    let engine = engine(true);
    let [a, b] = [0, 1].map(|_| render(&engine, Format::Nv12, &[0.0, 0.05]));
    assert_eq!(a.pixels, b.pixels);
    assert_eq!(a.pixels.space(), BT709);
}

/// Luma of a patch of full-range RGB under its mask, reduced to 256 px: of each pixel the mean and the deviation.
fn luma(patch: &Patch) -> Vec<(f32, f32)> {
    let (side, zoom) = (patch.pixels.side(), patch.pixels.side() / SIDE);
    let crop = patch.pixels.crop().unwrap();
    let at = |x: usize, y: usize| f32::from(crop.data[(y * side + x) * 3 + 1]);
    let cell = |i: usize| {
        let (x, y) = (i % SIDE * zoom, i / SIDE * zoom);
        let all: Vec<f32> = (0..zoom * zoom).map(|k| at(x + k % zoom, y + k / zoom)).collect();
        let mean = all.iter().sum::<f32>() / all.len() as f32;
        (mean, all.iter().map(|v| (v - mean).abs()).sum::<f32>() / all.len() as f32)
    };
    let full = |i: usize| patch.mask[(i / SIDE * zoom) * side + i % SIDE * zoom] == 255;
    (0..SIDE * SIDE).map(|i| if full(i) { cell(i) } else { (0.0, 0.0) }).collect()
}

#[test]
fn larger_crops_show_the_same_mouth_with_more_of_its_detail() {
    let [small, large] =
        ["compact", "compact-hd"].map(|n| engine::load(&Package::find(n).unwrap(), &options()).unwrap());
    assert_eq!((small.spec().crop, large.spec().crop), (SIDE, 2 * SIDE));
    // Skin with slow changes, and, on a face of 800 px, with lines of 5 px: 1.6 pixels of the small crop.
    for (side, lines) in [(200.0, 0.0), (800.0, 30.0)] {
        let size = ((1.6 * side) as usize, (1.6 * side) as usize);
        let paint = |x: f32, y: f32| {
            let slow = 130.0 + 40.0 * (x / side * 9.0).sin() + 30.0 * (y / side * 7.0).cos();
            [slow + lines * (x * std::f32::consts::TAU / 5.0).sin(); 3]
        };
        let shown = [&small, &large]
            .map(|e| luma(&render_of(e, side, &[0.0, 0.04, 0.08], |_| Picture::new(Format::Rgb, size, paint))));
        let covered = |i: &usize| shown.iter().all(|s| s[*i].0 > 0.0);
        let both: Vec<usize> = (0..SIDE * SIDE).filter(covered).collect();
        assert!(both.len() > 5000, "{} pixels", both.len());
        let mean = |of: &dyn Fn(usize) -> f32| both.iter().map(|i| of(*i)).sum::<f32>() / both.len() as f32;
        let apart = mean(&|i| (shown[0][i].0 - shown[1][i].0).abs());
        let detail = [0, 1].map(|k| mean(&|i| shown[k][i].1));
        if lines == 0.0 {
            assert!(apart < 1.0, "{apart}");
        } else {
            // The least crop of `compact` is 256 px; of so large a face it takes one of 768.
            assert!(detail.iter().all(|d| *d > 0.25 * lines), "{detail:?}");
        }
    }
}

#[test]
fn after_a_pause_the_mouth_opens_as_far_as_before_it() {
    let engine = engine(true);
    let slow = |x: f32, y: f32| [130.0 + 40.0 * (x / 9.0).sin() + 30.0 * (y / 7.0).cos(); 3];
    let identity = known(&engine, 200.0, &[0.0, 0.04, 0.08], |_| Picture::new(Format::Rgb, SIZE, slow));
    let face = face(&engine, 200.0, 0.02);
    let scene = scene(&face, &identity);
    // A mouth that hardly moves around half open, as one does whose voice the engine does not know well.
    let half = |i: usize| 1.0 + 0.2 * (i as f32 * 0.9).sin();
    let (mut ongoing, mut paused) = (actor(&engine), actor(&engine));
    for i in 0..120 {
        show(&engine, ongoing.as_mut(), half(i), &scene);
        show(&engine, paused.as_mut(), half(i), &scene);
    }
    paused.forget();
    let fresh = show(&engine, actor(&engine).as_mut(), 1.4, &scene);
    let after = show(&engine, paused.as_mut(), 1.4, &scene);
    let ongoing = show(&engine, ongoing.as_mut(), 1.4, &scene);
    let apart = |a: &Patch, b: &Patch| {
        let pairs = a.mask.iter().zip(b.mask.iter());
        pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>()
    };
    assert!(apart(&fresh, &ongoing) > 1000.0, "{}", apart(&fresh, &ongoing));
    assert!(apart(&after, &ongoing) < 0.1 * apart(&fresh, &ongoing), "{}", apart(&after, &ongoing));
}

/// A face whose head is turned: what pose alone moves lies `aside` px further to the side than in one from the front, but for
/// what it is aligned by.
fn turned(engine: &Arc<dyn Engine>, side: f32, aside: f32) -> Face {
    let face = face(engine, side, 0.02);
    let aligned = &engine.spec().alignment.anchors;
    let mut points = face.points.to_vec();
    landmarks::STABLE.filter(|i| !aligned.contains(i)).for_each(|i| points[i].x += aside);
    Face { points: points.into(), ..face }
}

#[test]
fn what_lies_beside_the_face_of_a_reference_is_not_painted_on_a_head_that_is_turned_otherwise() {
    let engine = engine(true);
    let skin = [200.0, 150.0, 120.0];
    // Landmarks say that the cheek reaches to 0.92 of the crop, which ends at 260 px.
    let beside = |x: f32, _: f32| if x > 60.0 + 0.78 * 200.0 { [20.0, 160.0, 40.0] } else { skin };
    let identity = known(&engine, 200.0, &[0.0, 0.04, 0.08], |_| Picture::new(Format::Rgb, SIZE, beside));
    for (aside, green) in [(0.0, true), (6.0, false)] {
        let face = turned(&engine, 200.0, aside);
        let patch = show(&engine, actor(&engine).as_mut(), 1.5, &scene(&face, &identity));
        let mut frame = Picture::new(Format::Rgb, SIZE, |_, _| skin);
        paste(&mut frame.frame(), &patch).unwrap();
        let rows = frame.planes[0].chunks(frame.strides[0]).map(|row| &row[..3 * SIZE.0]);
        let greener = rows.flat_map(|row| row.as_chunks::<3>().0).map(|[r, g, _]| i32::from(*g) - i32::from(*r)).max();
        assert_eq!(greener.unwrap() > -40, green, "{aside}: {greener:?}");
        // The mouth itself is painted.
        let middle = (0.62 * SIDE as f32) as usize * SIDE + SIDE / 2;
        assert_eq!(patch.mask[middle], 255, "{aside}");
    }
}
