//! What engines hear by Whisper, through their front-end: in a stream, and as the published programs hear a recording.

mod common;
#[path = "common/windowed.rs"]
mod windowed;

use std::{
    path::{Path, PathBuf},
    sync::Barrier,
};

use lipstream_engines::{
    audio::{FrontEnd, Timeline, front_end},
    engine,
    import::{self, Request, onnx::Precision},
    manifest::{Family, Package},
    runtime::{Device, Options},
};
use safetensors::SafeTensors;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

/// The golden checkpoint of an engine, imported, and what its published program computes; `None` where it is not at hand.
fn golden(home: &Path, name: &str) -> Option<(Package, Vec<u8>)> {
    let folder = common::shared("golden")?.join(name);
    let (family, files): (_, &[&str]) = match name {
        "musetalk15" => (Family::MuseTalk, &["unet.pth", "musetalk.json", "vae", "whisper"]),
        _ => (Family::LatentSync, &["latentsync_unet.pt", "config.json", "vae", "tiny.pt"]),
    };
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    let request = Request {
        family: Some(family),
        files: &files,
        name: Some(name),
        precision: Precision::Fp32,
        features: None,
        licence: None,
        replace: true,
    };
    let imported = import::import(&request, &home.join("engines"), &mut |_, _| Ok(())).unwrap();
    Some((Package::open(&imported.folder).unwrap(), std::fs::read(folder.join("golden.safetensors")).unwrap()))
}

/// The features of a sound that comes in pieces of so many samples.
fn heard(front_end: &mut dyn FrontEnd, sound: &[f32], piece: usize) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    sound.chunks(piece).for_each(|piece| front_end.push(piece, &mut |row| rows.push(row.to_vec())).unwrap());
    front_end.finish(&mut |row| rows.push(row.to_vec())).unwrap();
    rows
}

fn apart(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn streams_hear_the_same_in_pieces_of_any_size_and_beside_others() {
    let home = tempfile::tempdir().unwrap();
    for name in ["latentsync15", "musetalk15"] {
        let Some((package, file)) = golden(home.path(), name) else { return };
        let sound = common::numbers(&SafeTensors::deserialize(&file).unwrap(), "audio");
        let mut alone = front_end(&package, &cpu()).unwrap();
        let whole = heard(&mut *alone, &sound, sound.len());
        assert_eq!((whole.len(), whole[0].len()), (sound.len().div_ceil(320), 5 * 32), "{name}");
        // Another stream of the engine asks the same network at the same time.
        let together = Barrier::new(2);
        let pieces = |sizes: &[usize]| {
            let mut stream = front_end(&package, &cpu()).unwrap();
            together.wait();
            for piece in sizes {
                let found = heard(&mut *stream, &sound, *piece);
                let worst = apart(&found.concat(), &whole.concat());
                assert!(worst < 1e-5, "{name}, pieces of {piece}: {worst:e}");
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| pieces(&[160, 480]));
            scope.spawn(|| pieces(&[333, 4096]));
        });
    }
}

#[test]
fn words_are_heard_the_same_in_pieces_of_any_size_at_each_look_ahead() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/compact-words");
    let tone = |n: usize, hertz: f32| (n as f32 / 16_000.0 * hertz * std::f32::consts::TAU).sin();
    let sound: Vec<f32> = (0..24_000).map(|n| 0.2 * tone(n, 150.0) * tone(n, 2.3).powi(2)).collect();
    let package = Package::open(&folder).unwrap();
    assert_eq!(package.look_aheads().collect::<Vec<_>>(), [120, 160, 80, 7140]);
    for (look_ahead, taps) in [(160, 11), (120, 9), (80, 7)] {
        let package = package.clone().with_look_ahead(look_ahead).unwrap();
        let spec = engine::load(&package, &cpu()).unwrap().spec().window.clone();
        assert_eq!((spec.taps.len(), spec.look_ahead.as_millis()), (taps, u128::from(look_ahead) + 20));
        let windows = |piece: usize| {
            let rows = heard(&mut *front_end(&package, &cpu()).unwrap(), &sound, piece);
            let mut timeline = Timeline::new(spec.clone(), rows.len());
            (0..).zip(&rows).for_each(|(i, row)| timeline.push(20_000_000 * i, row));
            (0..30).flat_map(|frame| timeline.window(40_000_000 * frame)).collect::<Vec<_>>()
        };
        let whole = windows(sound.len());
        for piece in [160, 777] {
            let worst = apart(&windows(piece), &whole);
            assert!(worst < 1e-5, "look-ahead {look_ahead}, pieces of {piece}: {worst:e}");
        }
    }
}

#[test]
fn windows_of_sound_are_another_front_end_with_features_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    windowed::engine(folder.path(), (40, 10), 740);
    let live = Package::open(folder.path()).unwrap();
    let files = live.clone().with_look_ahead(740).unwrap();
    let (spec, other) = (engine::load(&files, &cpu()).unwrap().spec().clone(), front_end(&live, &cpu()).unwrap());
    let mut hearing = front_end(&files, &cpu()).unwrap();
    assert_eq!(hearing.key(), spec.front_end);
    assert_ne!(hearing.key(), other.key());
    assert_eq!(hearing.hop() + hearing.overhang(), std::time::Duration::from_micros(632_500));
    // What a frame waits for is that of its last tap, 120 ms after it.
    assert_eq!((spec.window.look_ahead.as_millis(), spec.window.reach().as_micros()), (740, 127_500));
    let tone = |n: usize, hertz: f32| (n as f32 / 16_000.0 * hertz * std::f32::consts::TAU).sin();
    let sound: Vec<f32> = (0..40_000).map(|n| 0.2 * tone(n, 150.0) * tone(n, 2.3).powi(2)).collect();
    let whole = heard(&mut *hearing, &sound, sound.len());
    assert_eq!((whole.len(), whole[0].len()), (125, 96));
    let worst = apart(&heard(&mut *hearing, &sound, 333).concat(), &whole.concat());
    assert!(worst < 1e-5, "{worst:e}");
}

#[test]
fn frames_of_a_recording_hear_what_the_published_program_hears() {
    let home = tempfile::tempdir().unwrap();
    let Some((package, file)) = golden(home.path(), "musetalk15") else { return };
    let golden = SafeTensors::deserialize(&file).unwrap();
    let numbers = |name: &str| common::numbers(&golden, name);
    let package = package.exact().unwrap();
    let spec = engine::load(&package, &cpu()).unwrap().spec().window.clone();
    let rounded = |s: f32| (s * 32768.0).round_ties_even() / 32768.0;
    let short: Vec<f32> = numbers("audio").into_iter().map(rounded).collect();
    let long = numbers("whisper.long.gain")
        .iter()
        .flat_map(|g| numbers("audio").into_iter().map(|s| rounded(s * g)).collect::<Vec<_>>())
        .collect();
    for (name, sound) in [("whisper.out.windows", short), ("whisper.long.out.windows", long)] {
        let mut front_end = front_end(&package, &cpu()).unwrap();
        front_end
            .push(&sound[..sound.len() / 2], &mut |_| panic!("before the recording's end nothing is known"))
            .unwrap();
        let rows = heard(&mut *front_end, &sound[sound.len() / 2..], 1000);
        let mut timeline = Timeline::new(spec.clone(), rows.len());
        (0..).zip(&rows).for_each(|(i, row)| timeline.push(20_000_000 * i, row));
        timeline.end();
        let windows = numbers(name);
        for (frame, wanted) in numbers(&format!("{name}.frames")).iter().zip(windows.chunks_exact(50 * 32)) {
            let worst = apart(&timeline.window(*frame as u64 * 40_000_000), wanted);
            assert!(worst < 1e-3, "{name}, frame {frame}: {worst:e}");
        }
    }
}

#[test]
fn a_recording_of_more_than_an_hour_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let Some((package, _)) = golden(home.path(), "musetalk15") else { return };
    let mut front_end = front_end(&package.exact().unwrap(), &cpu()).unwrap();
    let minute = vec![0.0; 60 * 16_000];
    (0..60).for_each(|_| front_end.push(&minute, &mut |_| ()).unwrap());
    let error = front_end.push(&[0.0], &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("longer than an hour") && !error.contains('\n'), "{error}");
}
