//! LatentSync as an engine: a stream of frames as clips that join, and the patches of its faces.

mod common;
#[path = "common/narrow.rs"]
mod narrow;

use std::{path::Path, sync::Arc, time::Duration};

use common::{Picture, faces};
use lipstream_engines::{
    engine::{
        self, Actor, Asked, Engine, Identity, LATENT, Moment, Patch, Sampling, Scene, Shown, Work, Worker, complete,
    },
    geometry::Point,
    image::{Format, paste},
    manifest::{Family, Package},
    runtime::{Device, Options, Tensor},
    schedule::{Guided, Sampler},
    tracker::Face,
};

/// Pixels of a side of the narrow engine's picture.
const SIDE: usize = 64;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

/// An engine of few channels, its manifest changed by `change`.
fn package(home: &Path, change: impl Fn(String) -> String) -> Package {
    changed(&narrow::latentsync(home, SIDE), change)
}

fn changed(folder: &Path, change: impl Fn(String) -> String) -> Package {
    let path = folder.join("engine.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, change(text)).unwrap();
    Package::open(folder).unwrap()
}

/// The engine of the golden checkpoint; `None` where it is not at hand.
fn golden(home: &Path, change: impl Fn(String) -> String) -> Option<Package> {
    Some(changed(&common::golden_latentsync(home)?, change))
}

/// No overlap: as many new frames as a clip has.
fn apart(text: String) -> String {
    let changed = text.replace("clip = 8", "clip = 4");
    assert_ne!(changed, text);
    changed
}

/// What frame `i` hears: slow waves.
fn sound(engine: &dyn Engine, i: usize) -> Vec<f32> {
    let number = |k: usize| ((k as f32 * 0.37).sin() + (i as f32 * 0.21 + (k % 7) as f32).sin()) / 1.5;
    (0..engine.spec().window.len()).map(number).collect()
}

fn picture(shift: f32) -> Picture {
    Picture::new(Format::Rgb, (320, 240), |x, y| {
        let wave = |a: f32, b: f32| 127.0 + 60.0 * ((x - shift) * a + y * b).sin();
        [wave(0.05, 0.02), wave(0.03, -0.04), wave(-0.02, 0.06)]
    })
}

/// One stream of a moving face.
struct Stream {
    engine: Arc<dyn Engine>,
    seed: u64,
    actor: Box<dyn Actor>,
    frame: usize,
    gathered: usize,
}

impl Stream {
    fn new(engine: &Arc<dyn Engine>, seed: u64) -> Self {
        let actor = engine.clone().actor(seed, &Sampling::default()).unwrap();
        Self { engine: engine.clone(), seed, actor, frame: 0, gathered: 0 }
    }

    fn face(&self) -> Face {
        faces::upright(Point::new(150.3 + 0.4 * self.frame as f32, 110.6), 1.6, 0.0)
    }

    fn gather(&mut self) {
        let (face, picture) = (self.face(), picture(0.4 * self.frame as f32));
        let audio = sound(&*self.engine, self.frame);
        let identity: Identity = Arc::new(());
        let view = picture.view();
        let moment = Moment { face: &face, later: &[], identity: &identity, audio: &audio, frame: &view };
        assert!(matches!(self.actor.ask(&moment).unwrap(), Asked::Gathered));
        self.frame += 1;
        self.gathered += 1;
    }

    /// The work of the clip that `frames` more complete.
    fn sent(&mut self, frames: usize) -> Work {
        (0..frames).for_each(|_| self.gather());
        self.gathered = 0;
        self.actor.close().unwrap().unwrap()
    }

    /// Latents of the clip, `[frames][4 · h · w]`, and the work of its frames.
    fn clip(&mut self, frames: usize) -> (Vec<Vec<f32>>, Vec<Work>) {
        let mut work = self.sent(frames);
        complete(&*self.engine, &mut work).unwrap();
        let latents = by_frame(work.tensor(LATENT).unwrap());
        let parts = self.actor.parts(work).unwrap();
        assert_eq!(parts.len(), frames);
        (latents, parts)
    }

    fn shown(&mut self, work: Work) -> Patch {
        let (identity, face): (Identity, Face) = (Arc::new(()), self.face());
        let scene = Scene { face: &face, identity: &identity, gain: 1.0, time: None, gap: Duration::ZERO };
        let Shown::Patch(patch) = self.actor.show(work, &scene).unwrap() else { panic!("a patch") };
        patch
    }
}

fn by_frame(latents: &Tensor) -> Vec<Vec<f32>> {
    let [1, channels, frames, height, width] = latents.shape[..] else { panic!("{:?}", latents.shape) };
    let plane = height * width;
    let of = |frame: usize| {
        let channel = |c: usize| latents.data[(c * frames + frame) * plane..][..plane].to_vec();
        (0..channels).flat_map(channel).collect()
    };
    (0..frames).map(of).collect()
}

/// Median steps of the latents from frame to frame inside of clips and across their boundaries, of `clips` of four new frames.
fn steps(engine: &Arc<dyn Engine>, clips: usize) -> (f32, f32) {
    let mut stream = Stream::new(engine, 5);
    let (mut inside, mut across) = (Vec::new(), Vec::new());
    let mut last: Option<Vec<f32>> = None;
    for _ in 0..clips {
        let (latents, _) = stream.clip(4);
        for (i, frame) in latents[latents.len() - 4..].iter().enumerate() {
            if let Some(last) = &last {
                let step = frame.iter().zip(last).map(|(a, b)| (a - b).abs()).sum::<f32>() / frame.len() as f32;
                if i == 0 { &mut across } else { &mut inside }.push(step);
            }
            last = Some(frame.clone());
        }
    }
    let median = |values: &mut Vec<f32>| {
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    };
    (median(&mut inside), median(&mut across))
}

#[test]
fn clips_begin_with_the_last_frames_of_the_one_before_bit_for_bit() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine::load(&package(home.path(), |text| text), &cpu()).unwrap();
    let mut stream = Stream::new(&engine, 5);
    let (first, _) = stream.clip(4);
    let (second, _) = stream.clip(4);
    let (third, _) = stream.clip(4);
    let (short, _) = stream.clip(1);
    assert_eq!([first.len(), second.len(), third.len(), short.len()], [4, 8, 8, 5]);
    for (before, clip) in [(&first, &second), (&second, &third), (&third, &short)] {
        assert!(before[before.len() - 4..] == clip[..4]);
        assert!(clip[4..].iter().all(|frame| !before.contains(frame)));
    }
    // After a pause, and of another person, a clip begins anew.
    stream.actor.forget();
    assert_eq!(stream.clip(4).0.len(), 4);
    let work = stream.sent(2);
    assert_eq!(stream.sent(2).tensor(LATENT).unwrap().shape[2], 2, "what is not finished cannot be gone on from");
    drop(work);
}

#[test]
fn the_mouth_goes_on_over_the_boundary_of_clips() {
    let home = tempfile::tempdir().unwrap();
    let folder = narrow::latentsync(home.path(), SIDE);
    let joined = engine::load(&changed(&folder, |text| text), &cpu()).unwrap();
    let (inside, across) = steps(&joined, 6);
    let (inside_apart, across_apart) = steps(&engine::load(&changed(&folder, apart), &cpu()).unwrap(), 8);
    eprintln!("narrow: joined {inside} {across}, apart {inside_apart} {across_apart}");
    assert!(across <= 1.1 * inside, "{across} across, {inside} inside");
    assert!(across_apart / inside_apart > across / inside, "{across_apart} across, {inside_apart} inside");
}

#[test]
fn the_golden_checkpoints_mouth_goes_on_over_the_boundary_of_clips() {
    let home = tempfile::tempdir().unwrap();
    let Some(package) = golden(home.path(), |text| text) else { return };
    let (inside, across) = steps(&engine::load(&package, &cpu()).unwrap(), 6);
    let package = golden(home.path(), apart).unwrap();
    let (inside_apart, across_apart) = steps(&engine::load(&package, &cpu()).unwrap(), 8);
    eprintln!("golden: joined {inside} {across}, apart {inside_apart} {across_apart}");
    assert!(across <= 1.1 * inside, "{across} across, {inside} inside");
    assert!(across_apart / inside_apart > across / inside, "{across_apart} across, {inside_apart} inside");
}

#[test]
fn a_mouth_is_painted_into_the_lower_face_and_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine::load(&package(home.path(), |text| text), &cpu()).unwrap();
    let spec = engine.spec();
    assert_eq!((spec.family, spec.passes, spec.steps, spec.references), (Family::LatentSync, 2, Some(2), false));
    assert_eq!((spec.clip.frames, spec.clip.hop, spec.exact, spec.window.len()), (8, 4, false, 10 * 3 * 16));
    let kinds: Vec<&str> = engine.stages().iter().map(|stage| stage.kind().name()).collect();
    assert_eq!(kinds, ["encode", "step", "decode"]);
    engine.stages().iter().for_each(|stage| stage.warm_up().unwrap());
    let mut stream = Stream::new(&engine, 5);
    let (_, parts) = stream.clip(4);
    for (i, part) in parts.into_iter().enumerate() {
        let patch = stream.shown(part);
        let nose = 150.3 + 0.4 * i as f32;
        let mut pasted = picture(0.4 * i as f32);
        let before = pasted.clone();
        let report = paste(&mut pasted.frame(), &patch).unwrap();
        // The template's nose is at 37.5, 40 of 75 x 100 units; painted are rows 0.37 to 0.945 and columns 0.035 to 0.97.
        let (left, right) = (nose - 37.5 * 1.6, nose + 37.5 * 1.6);
        let (top, bottom) = (110.6 + (37.0 - 40.0) * 1.6, 110.6 + (94.5 - 40.0) * 1.6);
        let touched = report.touched;
        assert!(touched.x > left && touched.x + touched.width < right + 1.0, "{touched:?}");
        assert!(touched.y > top - 2.0 && touched.y + touched.height < bottom + 3.0, "{touched:?}");
        assert!(report.pixels > 5000, "{}", report.pixels);
        let mut changed = 0;
        pasted.each_byte(|plane, at, (x, y), _, padding| {
            let inside = (x as f32) > left && (x as f32) < right && (y as f32) > top - 2.0 && (y as f32) < bottom + 3.0;
            let same = pasted.planes[plane][at] == before.planes[plane][at];
            assert!(same || (inside && !padding), "{x} {y}");
            changed += usize::from(!same);
        });
        assert!(changed > 10_000, "{changed}");
        // It is held where the face is now.
        let held = stream.actor.hold(&faces::upright(Point::new(100.0, 100.0), 1.6, 0.0)).unwrap();
        assert!((held.to_frame.tx - patch.to_frame.tx - (100.0 - nose)).abs() < 0.05);
    }
    stream.actor.forget();
    assert!(stream.actor.hold(&stream.face()).is_none());
}

#[test]
fn streams_share_batches_and_do_not_change_each_other() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine::load(&package(home.path(), |text| text), &cpu()).unwrap();
    let alone: Vec<Vec<Vec<f32>>> = (1..3).map(|seed| Stream::new(&engine, seed).clip(4).0).collect();
    assert_ne!(alone[0], alone[1], "each has noise of its own");
    let mut streams: Vec<Stream> = (1..3).map(|seed| Stream::new(&engine, seed)).collect();
    // A batch waits for both.
    let worker = Arc::new(Worker::start(engine.clone(), 0, Duration::from_secs(60), 8));
    let open: Vec<_> = streams.iter().map(|_| worker.stream()).collect();
    let tickets: Vec<_> =
        streams.iter_mut().zip(&open).map(|(stream, open)| open.submit(stream.sent(4)).unwrap()).collect();
    let works: Vec<Work> = tickets.into_iter().map(|ticket| ticket.wait(None).unwrap()).collect();
    let counts: Vec<_> = worker.stats().stages.iter().map(|stage| (stage.batches, stage.items)).collect();
    assert_eq!(counts, [(1, 2), (2, 4), (1, 2)]);
    // To the last bit, since a processor evaluates each clip on its own.
    for ((work, alone), stream) in works.into_iter().zip(&alone).zip(&mut streams) {
        assert!(by_frame(work.tensor(LATENT).unwrap()) == *alone);
        let mut by_itself = Stream::new(&engine, stream.seed);
        let (_, alone) = by_itself.clip(4);
        for (together, alone) in stream.actor.parts(work).unwrap().into_iter().zip(alone) {
            assert!(stream.shown(together).pixels == by_itself.shown(alone).pixels);
        }
    }
}

/// `None` where there is no such device.
fn compiled(package: &Package) -> Option<(Options, Arc<dyn Engine>)> {
    let options = Options { device: Device::OpenVino, ..Options::default() };
    match engine::load(package, &options) {
        Ok(engine) => Some((options, engine)),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

#[test]
fn short_clips_need_no_programs_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    let package = package(home.path(), |text| text);
    let Some((options, engine)) = compiled(&package) else { return };
    engine.stages().iter().for_each(|stage| stage.warm_up().unwrap());
    let programs = || ["encoder", "unet", "decoder"].map(|part| package.network(part, &options).unwrap().programs());
    let before = programs();
    assert_eq!(before[1], 1);
    let mut stream = Stream::new(&engine, 5);
    // Before there is a past, with one, and of faces that were lost.
    for frames in [4, 4, 1, 3, 2] {
        let (latents, parts) = stream.clip(frames);
        assert!(latents.iter().flatten().all(|v| v.is_finite()));
        parts.into_iter().for_each(|part| drop(stream.shown(part)));
    }
    assert_eq!(programs(), before);
    // A clip whose last frame stays is what a short one is taken for.
    let on_cpu = engine::load(&package, &cpu()).unwrap();
    let short = Stream::new(&engine, 7).clip(4).0;
    let far = |clip: &[Vec<f32>]| {
        let apart = short.iter().flatten().zip(clip.iter().flatten()).map(|(a, b)| (a - b).abs());
        apart.fold(0.0, f32::max)
    };
    let plain = Stream::new(&on_cpu, 7).clip(4).0;
    assert!(far(&plain) > 1e-3, "norms over eight frames are not those over four");
}

#[test]
fn streams_are_denoised_as_they_ask_and_what_cannot_be_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine::load(&package(home.path(), |text| text), &cpu()).unwrap();
    let with = |sampling: Sampling| {
        let mut stream = Stream::new(&engine, 5);
        stream.actor = engine.clone().actor(5, &sampling).unwrap();
        let work = stream.sent(4);
        let steps = work.remaining() - 2;
        let mut work = work;
        complete(&*engine, &mut work).unwrap();
        (steps, work.tensor(LATENT).unwrap().data.clone())
    };
    let usual = with(Sampling::default());
    assert_eq!(usual.0, 2);
    let others = [
        Sampling { steps: Some(3), ..Sampling::default() },
        Sampling { sampler: Some(Sampler::Dpm), ..Sampling::default() },
        Sampling { guidance: Some(3.0), ..Sampling::default() },
        Sampling { guided: Some(Guided::None), ..Sampling::default() },
        Sampling { guided: Some(Guided::All), ..Sampling::default() },
    ];
    let found: Vec<_> = others.into_iter().map(with).collect();
    assert_eq!(found[0].0, 3);
    assert!(found.iter().all(|(_, latents)| *latents != usual.1));
    assert_eq!(
        with(Sampling { guidance: Some(1.0), ..Sampling::default() }).1,
        found[3].1,
        "a scale of 1 is no guidance"
    );
    for (sampling, cause) in [
        (Sampling { steps: Some(51), ..Sampling::default() }, "steps 51 is outside 1..50"),
        (Sampling { guidance: Some(f32::NAN), ..Sampling::default() }, "engine `mouth`: guidance NaN is outside 0..20"),
        (
            Sampling { sampler: Some(Sampler::FlowEuler), ..Sampling::default() },
            "is denoised by the samplers ddim and dpm-solver++, not by flow-euler",
        ),
    ] {
        let error = engine.clone().actor(0, &sampling).err().unwrap().to_string();
        assert!(error.contains(cause) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn an_exact_stream_puts_faces_back_as_they_were_taken_but_for_what_is_painted() {
    let home = tempfile::tempdir().unwrap();
    let package = package(home.path(), |text| text).exact().unwrap();
    let engine = engine::load(&package, &cpu()).unwrap();
    let spec = engine.spec();
    assert_eq!((spec.clip.frames, spec.clip.hop, spec.steps, spec.exact), (8, 8, Some(3), true));
    let mut stream = Stream::new(&engine, 5);
    let (first, parts) = stream.clip(8);
    let (second, _) = stream.clip(3);
    assert_eq!((first.len(), second.len()), (8, 3), "clips share no frames, and the last is shorter");
    for (i, part) in parts.into_iter().enumerate() {
        let patch = stream.shown(part);
        assert!(patch.hard);
        let before = picture(0.4 * i as f32);
        let mut pasted = before.clone();
        paste(&mut pasted.frame(), &patch).unwrap();
        let (mut painted, mut kept) = (0.0, 0.0f32);
        let nose = Point::new(150.3 + 0.4 * i as f32, 110.6);
        pasted.each_byte(|plane, at, (x, y), _, padding| {
            let far = f32::from(pasted.planes[plane][at].abs_diff(before.planes[plane][at]));
            let (u, v) = ((x as f32 - nose.x) / 1.6, (y as f32 - nose.y) / 1.6);
            match () {
                () if padding || u.abs() > 42.0 || !(-46.0..66.0).contains(&v) => assert_eq!(far, 0.0),
                () if u.abs() < 20.0 && (14.0..30.0).contains(&v) => painted += far,
                () if u.abs() < 25.0 && (-30.0..-8.0).contains(&v) => kept = kept.max(far),
                () => (),
            }
        });
        // Squeezed to 64 pixels and back: what is kept is smooth.
        assert!(kept <= 4.0 && painted > 10_000.0, "{kept} {painted}");
        assert!(stream.actor.hold(&stream.face()).is_none());
    }
}
