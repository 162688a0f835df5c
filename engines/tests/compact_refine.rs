//! `compact` with and without its refinement network.

mod common;

use std::{fs, path::Path, time::Duration};

use common::BT709;
use lipstream_engines::{
    bank::{BankConfig, ReferenceBank},
    denoise::{self, Denoiser, Patch, Scene},
    geometry::{Point, Rect, landmarks},
    image::{ColorSpace, Format},
    manifest::Engine,
    runtime::{Device, Options},
    tracker::Face,
};

const SIZE: (usize, usize) = (320, 320);
const SIDE: usize = 256;

fn options() -> Options {
    Options { device: Device::Cpu, ..Default::default() }
}

/// The shipped engine, or a copy of it whose manifest names no refinement.
fn engine(refined: bool) -> std::sync::Arc<dyn Denoiser> {
    let shipped = Engine::find("compact").unwrap();
    if refined {
        return denoise::load(&shipped, &options()).unwrap();
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/compact");
    let folder = tempfile::tempdir().unwrap();
    for name in ["audio.onnx", "motion.onnx", "basis.safetensors"] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let manifest = fs::read_to_string(source.join("engine.toml")).unwrap();
    let sections = manifest.split("\n\n").filter(|s| !s.starts_with("[files.refine]"));
    fs::write(folder.path().join("engine.toml"), sections.collect::<Vec<_>>().join("\n\n")).unwrap();
    denoise::load(&Engine::open(folder.path()).unwrap(), &options()).unwrap()
}

/// A level face of 200 px from crop edge to crop edge that opens its mouth by `open` crops.
fn face(engine: &dyn Denoiser, open: f32) -> Face {
    let alignment = &engine.spec().alignment;
    let mut points = vec![Point::new(0.5, 0.5); landmarks::COUNT];
    for (a, p) in alignment.anchors.iter().zip(&alignment.points) {
        points[*a] = *p;
    }
    let mut ring = |range: std::ops::Range<usize>, middle: f32, across: f32, down: f32| {
        let n = range.len() as f32;
        for (k, i) in range.enumerate() {
            let (sin, cos) = (std::f32::consts::TAU * k as f32 / n).sin_cos();
            points[i] = Point::new(0.5 - across * cos, middle - down * sin);
        }
    };
    ring(landmarks::LIPS_OUTER, 0.62, 0.15, 0.05 + open / 2.0);
    ring(landmarks::LIPS_INNER, 0.62, 0.12, 0.003 + open / 2.0);
    ring(landmarks::CHIN, 0.75, 0.08, 0.05);
    for (k, i) in landmarks::JAW.enumerate() {
        let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
        points[i] = Point::new(0.5 + 0.42 * cos, 0.4 + (0.5 + open / 2.0) * sin);
    }
    let points: Vec<Point> = points.iter().map(|p| Point::new(60.0, 40.0) + *p * 200.0).collect();
    Face {
        track_id: 1,
        rect: Rect::around(&points).unwrap(),
        points: points.into(),
        confidence: 0.99,
        yaw: 0.0,
        occluded: false,
    }
}

fn render(engine: &dyn Denoiser, format: Format, openings: &[f32]) -> Patch {
    let config = BankConfig { capacity: 8, side: SIDE, alignment: engine.spec().alignment.clone() };
    let mut bank = ReferenceBank::new(config);
    for open in openings {
        let picture = common::noise(format, SIZE, (open * 1000.0) as u64);
        // The second look confirms a shape that is far from the one before.
        for _ in 0..2 {
            bank.observe(&picture.view(), &face(engine, *open), None).unwrap();
        }
    }
    assert_eq!(bank.references().len(), openings.len());
    let identity = engine.prepare(&bank).unwrap();
    let mut latent = vec![0.0; engine.spec().latent];
    latent[0] = 1.5;
    let face = face(engine, 0.02);
    let scene = Scene { face: &face, gain: 1.0, last: None, time: None, gap: Duration::ZERO };
    engine.render(&latent, &identity, &scene).unwrap().expect("a patch")
}

#[test]
fn it_changes_the_mouth_and_nothing_else() {
    let (plain, refined) = (engine(false), engine(true));
    for format in [Format::Rgb, Format::I420] {
        for openings in [&[0.0, 0.04, 0.08][..], &[0.03]] {
            let before = render(plain.as_ref(), format, openings);
            let after = render(refined.as_ref(), format, openings);
            assert_eq!(before.mask, after.mask);
            assert_eq!(after.pixels.space == ColorSpace::Rgb, format == Format::Rgb);
            let changed: Vec<usize> = (0..SIDE * SIDE)
                .filter(|i| {
                    before.mask[*i] > 0 && before.pixels.data[i * 3..i * 3 + 3] != after.pixels.data[i * 3..i * 3 + 3]
                })
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
    let [a, b] = [0, 1].map(|_| render(engine.as_ref(), Format::Nv12, &[0.0, 0.05]));
    assert_eq!(a.pixels, b.pixels);
    assert_eq!(a.pixels.space, BT709);
}
