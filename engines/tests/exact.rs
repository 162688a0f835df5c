//! Engines as their published programs run them: sound, boxes and whole frames.

mod common;
#[path = "common/tiny.rs"]
mod tiny;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use common::Picture;
use lipstream_engines::{
    audio::{Timeline, front_end},
    engine::{self, Asked, Engine, Identity, Moment, Patch, Sampling, Scene, Shown, complete},
    geometry::{Point, landmarks},
    image::{Format, paste},
    import::{self, Imported, Request, onnx::Precision},
    manifest::Package,
    runtime::{Device, Options},
    tracker::Face,
};
use safetensors::SafeTensors;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

fn import(files: &[PathBuf], folder: &Path) -> Imported {
    let request = Request {
        family: None,
        files,
        name: Some("mouth"),
        precision: Precision::Fp32,
        features: None,
        licence: Some("of the test"),
        replace: false,
    };
    import::import(&request, folder, &mut |_, _| Ok(())).unwrap()
}

#[test]
fn whole_frames_are_the_published_ones() {
    let Some(folder) = common::shared("golden") else { return };
    for (files, golden, names) in [
        (&["wav2lip/wav2lip.pth"][..], "wav2lip", &["pasted[0]", "pasted[1]"][..]),
        (&["wav2lip256/wav2lip256.pth"], "wav2lip256", &["pasted[0]", "pasted[1]"]),
        (
            &["synctalk2d/unet_160_ave.pth", "synctalk2d/audio_visual_encoder.pth"],
            "synctalk2d",
            &["160/pasted[0]", "160/pasted[1]", "160/pasted[2]"],
        ),
        (&["synctalk2d/unet_328_ave.pth", "synctalk2d/audio_visual_encoder.pth"], "synctalk2d", &["328/pasted[0]"]),
    ] {
        let home = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
        let imported = import(&files, home.path());
        let package = Package::open(&imported.folder).unwrap();
        let golden = folder.join(golden).join("golden.safetensors");
        let pictures = import::check(&package, &cpu(), Some(&golden)).unwrap().pictures;
        assert_eq!(pictures.iter().map(|picture| picture.name.as_str()).collect::<Vec<_>>(), names);
        for picture in pictures {
            println!("{}: mean {:.4}, max {} of 255", picture.name, picture.mean, picture.max);
            assert!(picture.mean <= 1.0 && picture.max <= 4, "{picture:?}");
        }
    }
}

/// The window of each frame at `fps`, of a file of sound.
fn windows(package: &Package, audio: &[f32], fps: f64, count: usize) -> Vec<Vec<f32>> {
    let mut front = front_end(package, &cpu()).unwrap();
    let spec = engine::load(package, &cpu()).unwrap().spec().clone();
    assert_eq!((spec.exact, &spec.front_end[..]), (true, front.key()));
    let hop = spec.window.hop.as_nanos() as u64;
    let mut timeline = Timeline::new(spec.window, 1000);
    let mut features = Vec::new();
    for samples in audio.chunks(333) {
        front.push(samples, &mut |feature| features.push(feature.to_vec())).unwrap();
    }
    front.finish(&mut |feature| features.push(feature.to_vec())).unwrap();
    (0..).zip(&features).for_each(|(i, feature)| timeline.push(i * hop, feature));
    timeline.end();
    (0..count).map(|i| timeline.window((i as f64 * 1e9 / fps) as u64)).collect()
}

fn apart(found: &[f32], wanted: impl Iterator<Item = f32>) -> f32 {
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn every_frame_hears_the_published_window_of_wav2lip() {
    let Some(folder) = common::shared("golden/wav2lip") else { return };
    let home = tempfile::tempdir().unwrap();
    let package = Package::open(&import(&[tiny::wav2lip(home.path())], home.path()).folder).unwrap().exact().unwrap();
    let golden = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let (audio, mel) = (common::numbers(&golden, "audio"), common::numbers(&golden, "mel"));
    for fps in [20.0, 25.0, 29.97, 30.0] {
        let starts = common::numbers(&golden, &format!("mel_start/fps{fps}"));
        // After the last frame that the published program writes the window stays.
        let found = windows(&package, &audio, fps, starts.len() + 1);
        for (i, window) in found.iter().enumerate() {
            let start = starts[i.min(starts.len() - 1)] as usize;
            let wanted = (0..16 * 80).map(|k| mel[k % 80 * 161 + start + k / 80]);
            let worst = apart(window, wanted);
            assert!(worst < 2e-3, "{fps} fps, frame {i}: {worst}");
        }
    }
}

#[test]
fn every_frame_hears_the_published_window_of_synctalk_2d() {
    let Some(folder) = common::shared("golden/synctalk2d") else { return };
    let home = tempfile::tempdir().unwrap();
    let files = ["unet_160_ave.pth", "audio_visual_encoder.pth"].map(|name| folder.join(name));
    let package = Package::open(&import(&files, home.path()).folder).unwrap().exact().unwrap();
    let voice = std::fs::read(folder.parent().unwrap().join("wav2lip/golden.safetensors")).unwrap();
    let audio = common::numbers(&SafeTensors::deserialize(&voice).unwrap(), "audio");
    let golden = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let found = windows(&package, &audio, 25.0, 50);
    for frame in [0, 20, 48] {
        let worst = apart(&found[frame], common::numbers(&golden, &format!("160/audio{frame}")).into_iter());
        println!("frame {frame}: {worst:e}");
        assert!(found[frame].len() == 16 * 512 && worst < 5e-3, "frame {frame}: {worst}");
    }
}

/// A level face whose jaw is `width` px wide around `middle`.
fn face(middle: Point, width: f32) -> Face {
    let mut points = vec![middle; landmarks::COUNT];
    for (k, i) in landmarks::JAW.enumerate() {
        let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
        points[i] = middle + Point::new(width / 2.0 * cos, 0.62 * width * sin);
    }
    points[landmarks::FOREHEAD.start] = middle - Point::new(0.0, 0.65 * width);
    common::face(points)
}

/// The patches of faces one after another.
fn shown(engine: &Arc<dyn Engine>, faces: &[Face], picture: &Picture) -> Vec<Patch> {
    let mut actor = engine.clone().actor(0, &Sampling::default()).unwrap();
    let identity: Identity = Arc::new(());
    let audio = vec![1.0; engine.spec().window.len()];
    let patch = |i: usize| {
        let later: Vec<&Face> = faces[i + 1..].iter().take(engine.spec().later).collect();
        let face = &faces[i];
        let moment = Moment { face, later: &later, identity: &identity, audio: &audio, frame: &picture.view() };
        let Asked::Work(mut work) = actor.ask(&moment).unwrap() else { panic!("a face that can be cut out") };
        complete(engine.as_ref(), &mut work).unwrap();
        let scene = Scene { face, identity: &identity, gain: 1.0, time: None, gap: Duration::ZERO };
        let Shown::Patch(patch) = actor.show(work, &scene).unwrap() else { panic!("a patch") };
        assert!(actor.hold(face).is_none());
        patch
    };
    (0..faces.len()).map(patch).collect()
}

#[test]
fn a_mouth_is_pasted_hard_into_a_box_of_whole_pixels_that_is_the_mean_of_five() {
    let home = tempfile::tempdir().unwrap();
    let package = Package::open(&import(&[tiny::wav2lip(home.path())], home.path()).folder).unwrap().exact().unwrap();
    let engine = engine::load(&package, &cpu()).unwrap();
    assert_eq!((engine.spec().exact, engine.spec().later), (true, 4));
    let picture = common::noise(Format::Rgb, (320, 240), 3);
    let faces: Vec<Face> = (0..6).map(|i| face(Point::new(150.6 + 3.0 * i as f32, 110.7), 100.0)).collect();
    let patches = shown(&engine, &faces, &picture);
    // 150.6 - 50 is 100, and the mean of it and of the four that follow 106; of the last five, the first is a mean already.
    let left: Vec<f32> = patches.iter().map(|patch| patch.to_frame.tx).collect();
    assert_eq!(left, [106.0, 109.0, 110.0, 111.0, 111.0, 111.0]);
    let mut pasted = picture.clone();
    let report = paste(&mut pasted.frame(), &patches[0]).unwrap();
    // From above the forehead, 45.7 - 0.13 * 127, to ten pixels below the chin at 172.7.
    assert_eq!((report.touched.x, report.touched.y), (106.0, 29.0));
    assert_eq!((report.touched.width, report.touched.height), (100.0, 182.0 - 29.0));
    assert_eq!(report.pixels, 100 * 153);
    let mut outside = true;
    pasted.each_byte(|plane, at, (x, y), _, padding| {
        let inside = (106..206).contains(&x) && (29..182).contains(&y) && !padding;
        outside &= inside || pasted.planes[plane][at] == picture.planes[plane][at];
    });
    assert!(outside, "what is outside of the box stays as it is");
}

#[test]
fn an_engine_that_no_published_program_runs_is_refused() {
    for name in ["compact", "expert"] {
        let error = Package::find(name).unwrap().exact().unwrap_err().to_string();
        assert!(error.contains(&format!("engine `{name}` cannot be exact")) && !error.contains('\n'), "{error}");
    }
}
