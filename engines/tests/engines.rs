//! Imported engines: the folder that an import leaves, and the mouth that one makes.

mod common;
#[path = "common/tiny.rs"]
mod tiny;

use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration};

use common::Picture;
use lipstream_engines::{
    Error, Result,
    audio::{FrontEnd, Wav2LipMel, front_end},
    engine::{self, Asked, Engine, Moment, Patch, Sampling, Scene, Shown, complete},
    geometry::{Point, Rect, landmarks},
    image::Format,
    import::{
        self, Imported, Request,
        onnx::{Dim, Graph, Precision},
    },
    manifest::{Family, Package},
    runtime::{Device, Options},
    tracker::Face,
};
use safetensors::SafeTensors;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

fn request<'a>(files: &'a [PathBuf], name: &'a str) -> Request<'a> {
    Request {
        family: None,
        files,
        name: Some(name),
        precision: Precision::Fp32,
        features: None,
        licence: Some("of the test"),
        replace: false,
    }
}

fn import(request: &Request, folder: &Path) -> Result<Imported> {
    import::import(request, folder, &mut |_, _| Ok(()))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn an_import_leaves_a_sealed_folder_that_says_what_it_is() {
    let home = tempfile::tempdir().unwrap();
    let files = [tiny::wav2lip(home.path())];
    let engines = home.path().join("engines");
    let imported = import(&request(&files, "mouth"), &engines).unwrap();
    assert_eq!((imported.name.as_str(), imported.family), ("mouth", Family::Wav2Lip));
    assert_eq!(names(&engines), ["mouth"]);
    let folder = engines.join("mouth");
    assert_eq!(names(&folder), ["check.safetensors", "engine.toml", "generator.onnx", "generator.onnx.data"]);
    let package = Package::open(&folder).unwrap();
    let manifest = package.manifest();
    assert_eq!((manifest.licence.as_str(), manifest.wav2lip.as_ref().unwrap().side), ("of the test", 96));
    assert_eq!(manifest.sources[0].path, "wav2lip.safetensors");
    assert!(manifest.gflop > 0.0 && manifest.gflop < 0.1, "{}", manifest.gflop);
    let same = import::check(&package, &cpu(), None).unwrap().outputs;
    assert!(same.len() == 1 && same[0].name == "generator.picture" && same[0].relative < 1e-6, "{same:?}");
    // A second one of that name is refused, unless it shall take its place.
    let error = import(&request(&files, "mouth"), &engines).unwrap_err().to_string();
    assert!(error.contains("`mouth` is there already") && error.contains("--name"), "{error}");
    import(&Request { replace: true, precision: Precision::Fp16, ..request(&files, "mouth") }, &engines).unwrap();
    assert_eq!(names(&engines), ["mouth"]);
    let halved = fs::metadata(folder.join("generator.onnx.data")).unwrap().len();
    assert!(halved < 12_000, "{halved} bytes of fp16");
    // Weights that were altered since are refused.
    let data = folder.join("generator.onnx.data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[100] ^= 1;
    fs::write(&data, bytes).unwrap();
    let error = engine::load(&Package::open(&folder).unwrap(), &cpu()).err().unwrap().to_string();
    assert!(error.contains("generator.onnx.data (mouth): sha256"), "{error}");
}

#[test]
fn an_import_that_ends_early_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let files = [tiny::wav2lip(home.path())];
    let engines = home.path().join("engines");
    for stop in 1..=6 {
        let mut calls = 0;
        let outcome = import::import(&request(&files, "mouth"), &engines, &mut |_, _| {
            calls += 1;
            if calls == stop { Err(Error::invalid("interrupted")) } else { Ok(()) }
        });
        assert!(outcome.is_err(), "stop {stop} of {calls}");
        assert!(!engines.exists() || names(&engines).is_empty(), "stop {stop}: {:?}", names(&engines));
    }
    // What one left that was killed: the number is of no process.
    fs::create_dir_all(engines.join(".import-4194999-mouth")).unwrap();
    import(&request(&files, "mouth"), &engines).unwrap();
    assert_eq!(names(&engines), ["mouth"]);
}

/// A graph with Wav2Lip's ports and an input of its own.
fn three_inputs() -> Vec<u8> {
    let mut graph = Graph::new("more", Precision::Fp32);
    let fixed = |shape: [usize; 3]| [&[Dim::Free("batch")][..], &shape.map(Dim::Fixed)].concat();
    graph.input("audio", &fixed([1, 80, 16]));
    graph.input("face", &fixed([6, 96, 96]));
    let style = graph.input("style", &fixed([3, 96, 96]));
    let picture = graph.sigmoid(&style);
    graph.output("picture", &fixed([3, 96, 96]), picture);
    graph.finish()
}

#[test]
fn files_that_are_no_engine_are_refused_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let sound = tiny::wav2lip(home.path());
    let engines = home.path().join("engines");
    let write = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let whole = fs::read(&sound).unwrap();
    let mut misshapen = whole.clone();
    let at = whole.windows(22).position(|w| w == b"\"output_block.1.bias\":").unwrap();
    misshapen[at + 14] = b'7';
    for (files, family, cause) in [
        (vec![write("cut.pth", &whole[..whole.len() - 9])], None, "cut.pth: "),
        (vec![write("none.pth", b"")], None, "neither a safetensors file nor a PyTorch checkpoint"),
        (vec![write("misshapen.safetensors", &misshapen)], None, "tensor `output_block."),
        (vec![sound.clone(), sound.clone()], None, "are both a generator of Wav2Lip"),
        (vec![sound.clone()], Some(Family::SyncTalk2d), "of the family `wav2lip`, not `synctalk2d`"),
        (vec![], None, "no file was given"),
        (vec![write("graph.onnx", b"not a graph")], None, "graph.onnx: "),
        (vec![write("more.onnx", &three_inputs())], None, "ports: expected [batch, 1, 80, 16], [batch, 6, side, side]"),
    ] {
        let request = Request { family, ..request(&files, "mouth") };
        let error = import(&request, &engines).unwrap_err().to_string();
        assert!(error.contains(cause) && !error.contains('\n'), "{cause}: {error}");
        assert!(!engines.exists() || names(&engines).is_empty());
    }
    let files = [sound];
    for name in ["", "Two Words", "compact", "../up"] {
        let error = import(&request(&files, name), &engines).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")) && error.contains("--name"), "{error}");
    }
}

/// A level face whose jaw is `width` px wide around `middle`.
fn face(middle: Point, width: f32) -> Face {
    let mut points = vec![middle; landmarks::COUNT];
    for (k, i) in landmarks::JAW.enumerate() {
        let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
        points[i] = middle + Point::new(width / 2.0 * cos, 0.62 * width * sin);
    }
    landmarks::BROWS.for_each(|i| points[i] = middle - Point::new(0.0, 0.25 * width));
    points[landmarks::FOREHEAD.start] = middle - Point::new(0.0, 0.65 * width);
    common::face(points)
}

fn shown(engine: &Arc<dyn Engine>, audio: f32, face: &Face, picture: &Picture) -> Patch {
    let mut actor = engine.clone().actor(0, &Sampling::default()).unwrap();
    let identity: engine::Identity = Arc::new(());
    let audio = vec![audio; engine.spec().window.len()];
    let moment = Moment { face, later: &[], identity: &identity, audio: &audio, frame: &picture.view() };
    let Asked::Work(mut work) = actor.ask(&moment).unwrap() else { panic!("a face that can be cut out") };
    complete(engine.as_ref(), &mut work).unwrap();
    let scene = Scene { face, identity: &identity, gain: 1.0, time: None, gap: Duration::ZERO };
    match actor.show(work, &scene).unwrap() {
        Shown::Patch(patch) => patch,
        _ => panic!("a patch"),
    }
}

#[test]
fn an_imported_mouth_follows_the_voice_and_lies_on_the_lower_face() {
    let home = tempfile::tempdir().unwrap();
    let files = [tiny::wav2lip(home.path())];
    let imported = import(&request(&files, "mouth"), &home.path().join("engines")).unwrap();
    let package = Package::open(&imported.folder).unwrap();
    let engine = engine::load(&package, &cpu()).unwrap();
    let spec = engine.spec();
    assert_eq!((spec.steps, spec.references, spec.window.taps.len(), spec.window.dims), (None, false, 16, 80));
    // 16 columns of 12.5 ms and half an analysis frame.
    assert_eq!(spec.window.look_ahead, Duration::from_micros(15 * 12_500 + 25_000));
    assert_eq!(spec.front_end, front_end(&package, &cpu()).unwrap().key());
    let picture = common::noise(Format::I420, (320, 240), 3);
    let face = face(Point::new(160.3, 110.7), 100.0);
    let (quiet, loud) = (shown(&engine, -4.0, &face, &picture), shown(&engine, 2.0, &face, &picture));
    assert_eq!(quiet.pixels, shown(&engine, -4.0, &face, &picture).pixels, "the same for the same");
    assert_ne!(quiet.pixels, loud.pixels);
    // The mask's middle is below the nose, and its box within the jaw.
    let side = quiet.pixels.side();
    let place =
        |i: usize| quiet.to_frame.apply(Point::new((i % side) as f32 / side as f32, (i / side) as f32 / side as f32));
    let covered: Vec<Point> = (0..side * side).filter(|i| quiet.mask[*i] > 0).map(place).collect();
    let around = Rect::around(&covered).unwrap();
    assert!(around.x > 109.0 && around.x + around.width < 212.0, "{around:?}");
    assert!(around.y > 104.0 && around.y + around.height < 181.0, "{around:?}");
    // Moved by parts of a pixel, it moves by as much.
    let moved =
        Face { points: face.points.iter().map(|p| *p + Point::new(0.25, 0.0)).collect::<Vec<_>>().into(), ..face };
    let apart = shown(&engine, -4.0, &moved, &picture).to_frame.tx - quiet.to_frame.tx;
    assert!((apart - 0.25).abs() < 1e-3, "{apart}");
    let error = engine.actor(0, &Sampling { steps: Some(2), ..Sampling::default() }).err().unwrap().to_string();
    assert!(error.contains("`mouth` does not denoise") && error.contains("found 2"), "{error}");
}

/// Columns of a mel that is fed in pieces.
fn columns(front: &mut dyn FrontEnd, audio: &[f32], piece: usize) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    for samples in audio.chunks(piece) {
        front.push(samples, &mut |feature| all.push(feature.to_vec())).unwrap();
    }
    front.finish(&mut |feature| all.push(feature.to_vec())).unwrap();
    all
}

#[test]
fn the_mel_of_wav2lip_is_the_published_one_for_any_pieces() {
    let Some(path) = common::shared("golden/wav2lip/golden.safetensors") else { return };
    let bytes = fs::read(path).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let (audio, wanted) = (common::numbers(&golden, "audio"), common::numbers(&golden, "mel"));
    for piece in [32_000, 320, 7] {
        let found = columns(&mut Wav2LipMel::default(), &audio, piece);
        assert_eq!(found.len(), 161);
        let apart = |(c, column): (usize, &Vec<f32>)| {
            column.iter().enumerate().map(|(b, v)| (v - wanted[b * 161 + c]).abs()).fold(0.0, f32::max)
        };
        let worst = found.iter().enumerate().map(apart).fold(0.0, f32::max);
        assert!(worst < 2e-3, "pieces of {piece}: {worst}");
    }
}

#[test]
fn features_of_the_audio_visual_encoder_are_the_published_ones() {
    let Some(folder) = common::shared("golden/synctalk2d") else { return };
    let home = tempfile::tempdir().unwrap();
    let files = ["unet_160_ave.pth", "audio_visual_encoder.pth"].map(|name| folder.join(name));
    let imported = import(&request(&files, "person"), home.path()).unwrap();
    let package = Package::open(&imported.folder).unwrap();
    assert_eq!(engine::load(&package, &cpu()).unwrap().spec().window.look_ahead, Duration::from_micros(452_500));
    let golden = fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let voice = fs::read(folder.parent().unwrap().join("wav2lip/golden.safetensors")).unwrap();
    let audio = common::numbers(&SafeTensors::deserialize(&voice).unwrap(), "audio");
    let wanted = common::numbers(&golden, "ave_feats");
    let mut front = front_end(&package, &cpu()).unwrap();
    let found = columns(front.as_mut(), &audio, 333);
    assert!(found.len() >= 47, "{}", found.len());
    // The first row stands twice there; librosa pads with zeros, which changes the first and the last columns.
    for i in 1..45 {
        let apart = found[i].iter().zip(&wanted[(i + 1) * 512..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 5e-3, "feature {i}: {apart}");
    }
}
