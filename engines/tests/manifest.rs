use std::{fs, path::Path};

#[path = "manifest/repository.rs"]
mod repository;
#[path = "common/windowed.rs"]
mod windowed;

use lipstream_engines::{
    engine,
    manifest::{Manifest, Package},
};

const FILES: [&str; 4] = ["engine.toml", "audio.onnx", "motion.onnx", "basis.safetensors"];

fn compact() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/compact/engine.toml")).unwrap()
}

/// The shipped engine, copied to where it can be damaged.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/compact");
    for file in FILES {
        fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn refused(from: &str, to: &str) -> String {
    let text = compact();
    let damaged = text.replacen(from, to, 1);
    assert_ne!(text, damaged, "`{from}` is not in the manifest");
    Manifest::parse("test.toml", &damaged).unwrap_err().to_string()
}

#[test]
fn what_is_shipped_is_whole() {
    for (name, engine) in Package::installed() {
        let engine = engine.unwrap();
        for part in engine.manifest().files.keys() {
            engine.file(part).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[test]
fn the_engine_for_large_faces_is_the_other_one_with_larger_crops() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let large = fs::read_to_string(models.join("compact-hd/engine.toml")).unwrap();
    let own = |line: &&str| !["#", "name = ", "description = ", "crop = "].iter().any(|start| line.starts_with(start));
    let same = |text: &str| text.lines().filter(own).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(same(&large), same(&compact()));
    let engine = Package::open(&models.join("compact-hd")).unwrap();
    assert_eq!((engine.manifest().name.as_str(), engine.manifest().geometry.crop), ("compact-hd", 512));
    for part in engine.manifest().files.keys() {
        engine.file(part).unwrap();
    }
}

#[test]
fn an_engine_may_have_several_look_aheads_each_with_its_own_motion() {
    let of = |ms: u32| Package::find("compact-words").unwrap().with_look_ahead(ms);
    let [own, long, low] = [0, 160, 80].map(|ms| of(ms).unwrap());
    let taps = |package: &Package| package.manifest().audio.as_ref().unwrap().taps_ms.last().copied();
    assert_eq!([&own, &long, &low].map(taps), [Some(80), Some(120), Some(40)]);
    assert_ne!(own.file("motion").unwrap(), low.file("motion").unwrap());
    assert_eq!(long.file("motion").unwrap(), own.file("motion-160").unwrap());
    assert_eq!(low.file("motion").unwrap(), own.file("motion-80").unwrap());
    // Two tokens go together: a frame waits for the second of them.
    let ahead = |package: &Package| engine::look_ahead(package.manifest()).unwrap().as_millis();
    assert_eq!([&own, &long, &low].map(ahead), [140, 180, 100]);
    let error = of(100).unwrap_err().to_string();
    assert!(error.contains("`compact-words` has no look-ahead of 100 ms: it has 120, 160, 80 and 7140 ms"), "{error}");
}

#[test]
fn an_engine_may_hear_files_in_windows_of_sound() {
    let folder = tempfile::tempdir().unwrap();
    windowed::engine(folder.path(), (400, 75), 6640);
    let own = Package::open(folder.path()).unwrap();
    assert_eq!(own.look_aheads().collect::<Vec<_>>(), [120, 6640, 160]);
    assert_eq!(own.live_look_aheads().collect::<Vec<_>>(), [120, 160], "nobody waits for 7 s");
    let live = |ms| own.check_live_look_ahead(ms).map_err(|error| error.to_string());
    assert!(live(0).is_ok() && live(160).is_ok());
    let [files, none] = [6640, 70].map(|ms| live(ms).unwrap_err());
    assert!(
        files.contains("6640 ms of engine `compact-words` are for files") && files.ends_with("it has 120 and 160 ms"),
        "{files}"
    );
    assert!(none.contains("no look-ahead of 70 ms: it has 120 and 160 ms; 0 takes"), "{none}");
    let files = own.clone().with_look_ahead(6640).unwrap();
    assert_eq!(files.file("audio").unwrap(), own.file("tiny").unwrap());
    assert_ne!(files.file("motion").unwrap(), own.file("motion").unwrap());
    // The first of 250 tokens that are used waits for 324 more and the last one's 32.5 ms, a frame for 120 ms more.
    assert_eq!(engine::look_ahead(files.manifest()).unwrap().as_millis(), 6640);
    assert_eq!(engine::look_ahead(own.manifest()).unwrap().as_millis(), 140);
    let more = files.manifest().frame_gflop(None) - own.manifest().frame_gflop(None);
    assert!((more - (0.5 - 0.044)).abs() < 1e-5, "{more}");

    let text = fs::read_to_string(folder.path().join("engine.toml")).unwrap();
    let refused = |from: &str, to: &str| {
        let damaged = text.replacen(from, to, 1);
        assert_ne!(text, damaged, "`{from}` is not in the manifest");
        Manifest::parse("test.toml", &damaged).unwrap_err().to_string()
    };
    let window = "window = { tokens = 400, margin = 75 }";
    for (from, to, key, cause) in [
        ("tokens = 400", "tokens = 501", "alternatives.hearing.window.tokens", "501 is outside 1..500 of 20 ms"),
        ("tokens = 400", "tokens = 0", "alternatives.hearing.window.tokens", "0 is outside"),
        ("margin = 75", "margin = 151", "alternatives.hearing.window.margin", "151 leaves 98 of 400 tokens"),
        ("margin = 75", "margin = 9223372036854775807", "alternatives.hearing.window.margin", "leaves 0 of 400"),
        (window, "window = { tokens = 400 }", "alternatives", "missing field `margin`"),
        ("audio = \"tiny\"", "audio = \"large\"", "alternatives.hearing.audio", "`large` is none of `files`"),
        ("features = 96, window", "features = 0, window", "alternatives.hearing.features", "0 is outside 1..4096"),
        ("gflop = 0.5", "gflop = -1.0", "alternatives.hearing.gflop", "-1 is outside"),
        ("look_ahead_ms = 6640", "look_ahead_ms = 6630", "alternatives.look_ahead_ms", "the last tap needs, 6632.5"),
        ("hop_ms = 20", "hop_ms = 20\nwindow = { tokens = 9, margin = 1 }", "window", "the kind `windowed-whisper`"),
        ("kind = \"causal-whisper\"", "kind = \"windowed-whisper\"", "window", "is missing"),
    ] {
        let error = refused(from, to);
        assert!(error.starts_with(&format!("test.toml: `audio.{key}")), "{to}: {error}");
        assert!(error.contains(cause) && !error.contains('\n'), "{to}: {error}");
    }
}

#[test]
fn errors_name_the_manifest_the_key_and_the_cause() {
    for (from, to, key, cause) in [
        ("family = \"compact\"", "family = \"wav3lip\"", "family", "wav3lip"),
        ("crop = 256", "crop = 9999", "geometry.crop", "9999 is outside 32..1024"),
        ("crop = 256", "crop = \"big\"", "geometry.crop", "invalid type"),
        ("hop_ms = 20", "hop_ms = 7", "audio.hop_ms", "7 is not a multiple of 10"),
        ("look_ahead_ms = 80", "look_ahead_ms = 20", "audio.look_ahead_ms", "20 is less than"),
        ("shape = [12]", "shape = [0]", "latent.shape", "[0] must hold"),
        ("shape = [12]", "shape = [4294967296, 4294967296]", "latent.shape", "must hold"),
        ("steps = 2", "steps = 51", "scheduler.steps", "51 is outside 1..50"),
        ("prediction = \"velocity\"", "prediction = \"epsilon\"", "scheduler.prediction", "a flow predicts"),
        ("path = \"audio.onnx\"", "path = \"../../etc/passwd\"", "files.audio.path", "beside the manifest"),
        ("[files.motion]", "[files.movement]", "files.motion", "is missing"),
        ("anchors = [94,", "anchors = [194,", "geometry.alignment", "anchor 194"),
        ("past = 0", "past = 0\ncolour = 1", "latent.colour", "unknown field"),
        ("name = \"compact\"", "name = \"compact", "(syntax)", ""),
    ] {
        let error = refused(from, to);
        assert!(error.starts_with(&format!("test.toml: `{key}`: ")), "{to}: {error}");
        assert!(error.contains(cause) && !error.contains('\n'), "{to}: {error}");
    }
}

#[test]
fn a_changed_file_is_refused_with_both_hashes() {
    let folder = copy();
    let path = folder.path().join("motion.onnx");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let engine = Package::open(folder.path()).unwrap();
    engine.file("audio").unwrap();
    let error = engine.file("motion").unwrap_err().to_string();
    let expected = &engine.manifest().files["motion"].sha256;
    assert!(error.contains("motion.onnx") && error.contains(&format!("expected {expected}, found ")), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let folder = copy();
    fs::remove_file(folder.path().join("audio.onnx")).unwrap();
    let error = Package::open(folder.path()).unwrap().file("audio").unwrap_err().to_string();
    assert!(error.contains("`files.audio`: ") && error.contains("audio.onnx is missing; put it back"), "{error}");
    let error = Package::find("no-such-engine").unwrap_err().to_string();
    assert!(error.contains("`no-such-engine`") && error.contains("lipstream engines"), "{error}");
}

#[test]
fn a_manifest_that_lies_about_a_model_is_refused() {
    let folder = copy();
    let text = compact().replacen("shape = [12]", "shape = [10]", 1);
    fs::write(folder.path().join("engine.toml"), text).unwrap();
    let engine = Package::open(folder.path()).unwrap();
    let error = lipstream_engines::engine::load(&engine, &Default::default()).err().unwrap().to_string();
    assert!(error.contains("`basis`") && error.contains("expected f32 [168, 10]"), "{error}");
    assert!(error.contains("[168, 12]"), "{error}");
}

#[test]
fn an_engine_that_makes_no_faces_is_no_lip_sync_engine() {
    let error = lipstream_engines::engine::load(&Package::find("expert").unwrap(), &Default::default());
    assert!(error.err().unwrap().to_string().contains("`expert` judges sync"));
    let error = lipstream_engines::engine::load(&Package::find("tracker").unwrap(), &Default::default());
    assert!(error.err().unwrap().to_string().contains("`tracker` follows faces"));
}
