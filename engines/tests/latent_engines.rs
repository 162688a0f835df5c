//! Engines of LatentSync and MuseTalk from published files: their folders, and what is refused.

mod common;
#[path = "common/narrow.rs"]
mod narrow;

use std::{
    fs,
    path::{Path, PathBuf},
};

use lipstream_engines::{
    Result, engine,
    import::{self, Imported, Request, onnx::Precision},
    manifest::{Decoder, Family, Manifest, Package},
    runtime::{Device, Options},
};
use narrow::Narrow;

const CONFIG: &str = r#"{"model": {"norm_num_groups": 8, "attention_head_dim": 4}, "data": {"num_frames": 8, "resolution": 128},
    "run": {"guidance_scale": 1.25, "inference_steps": 10}}"#;
const MUSETALK: &str = r#"{"_class_name": "UNet2DConditionModel", "norm_num_groups": 8, "attention_head_dim": 4}"#;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

fn request<'a>(files: &'a [PathBuf], family: Option<Family>) -> Request<'a> {
    Request {
        family,
        files,
        name: Some("face"),
        precision: Precision::Fp32,
        features: None,
        licence: None,
        replace: true,
    }
}

fn import(files: &[PathBuf], family: Option<Family>, home: &Path) -> Result<Imported> {
    import::import(&request(files, family), &home.join("engines"), &mut |_, _| Ok(()))
}

/// Published files of few channels: folders as diffusers and transformers write them, and both U-Nets.
fn published(home: &Path) -> Narrow {
    let narrow = Narrow::open();
    let write = |folder: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(home.join(folder)).unwrap();
        fs::write(home.join(folder).join(name), bytes).unwrap();
    };
    for (folder, name, config) in [
        ("vae", "diffusion_pytorch_model.safetensors", r#"{"norm_num_groups": 4}"#),
        ("taesd", "diffusion_pytorch_model.safetensors", "{}"),
        ("whisper", "model.safetensors", r#"{"encoder_attention_heads": 4}"#),
    ] {
        write(folder, name, &narrow::file(&narrow.checkpoint(folder)));
        write(folder, "config.json", config.as_bytes());
    }
    write("latentsync", "unet.safetensors", &narrow::file(&narrow.checkpoint("latentsync")));
    write("latentsync", "stage2.json", CONFIG.as_bytes());
    write("musetalk", "unet.safetensors", &narrow::file(&narrow.checkpoint("musetalk")));
    write("musetalk", "musetalk.json", MUSETALK.as_bytes());
    narrow
}

fn paths(home: &Path, names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| home.join(name)).collect()
}

#[test]
fn an_import_of_latentsync_is_an_engine_that_is_checked() {
    let home = tempfile::tempdir().unwrap();
    published(home.path());
    let files = ["latentsync/unet.safetensors", "latentsync/stage2.json", "vae", "whisper", "taesd"];
    let imported = import(&paths(home.path(), &files), None, home.path()).unwrap();
    assert_eq!(imported.family, Family::LatentSync);
    assert!(imported.advice.is_some_and(|advice| advice.contains("RAIL")));
    let package = Package::open(&imported.folder).unwrap();
    let manifest = package.manifest();
    let parts: Vec<&str> = manifest.files.keys().map(String::as_str).collect();
    assert_eq!(parts, ["decoder", "encoder", "taesd", "unet", "whisper"]);
    assert_eq!(manifest.sources.len(), 5);
    let section = manifest.latentsync.as_ref().unwrap();
    assert_eq!((section.side, section.frames, section.frame_rate, section.latent_scale), (128, 8, 25.0, 0.18215));
    assert_eq!((section.sound.moments, section.sound.states, section.sound.width), (10, 3, 16));
    let scheduler = manifest.scheduler.as_ref().unwrap();
    assert_eq!((scheduler.steps, scheduler.guidance, scheduler.set_alpha_to_one), (10, 1.25, false));
    assert_eq!(section.decoder, Decoder::Vae);
    let text = fs::read_to_string(imported.folder.join("engine.toml")).unwrap();
    let tiny = Manifest::parse("x", &text.replace("decoder = \"vae\"", "decoder = \"taesd\"")).unwrap();
    assert_eq!(tiny.latentsync.unwrap().decoder, Decoder::Taesd);
    assert_eq!((scheduler.steps_offset, scheduler.beta_start, scheduler.beta_end), (1, 0.00085, 0.012));
    assert!(manifest.gflop > 0.0);
    // Every network says again what it said.
    let same = import::check(&package, &cpu(), None).unwrap().outputs;
    let names: Vec<&str> = same.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(
        names,
        ["decoder.pixels", "encoder.mean", "encoder.logvar", "taesd.pixels", "unet.noise", "whisper.states"]
    );
    assert!(same.iter().all(|output| output.relative < 1e-5), "{same:?}");
    assert!(engine::load(&package, &cpu()).is_ok());
    // Half the weights in fp16, and the same faces within what that costs.
    let whole = fs::metadata(imported.folder.join("unet.onnx.data")).unwrap().len();
    let files = paths(home.path(), &files);
    let halved = Request { precision: Precision::Fp16, ..request(&files, None) };
    import::import(&halved, &home.path().join("engines"), &mut |_, _| Ok(())).unwrap();
    let half = fs::metadata(imported.folder.join("unet.onnx.data")).unwrap().len();
    assert!(half < whole * 6 / 10, "{half} of {whole} bytes");
}

#[test]
fn an_import_of_musetalk_takes_the_configuration_beside_its_weights() {
    let home = tempfile::tempdir().unwrap();
    published(home.path());
    let files = paths(home.path(), &["musetalk/unet.safetensors", "vae", "whisper"]);
    let imported = import(&files, Some(Family::MuseTalk), home.path()).unwrap();
    let package = Package::open(&imported.folder).unwrap();
    let manifest = package.manifest();
    let section = manifest.musetalk.as_ref().unwrap();
    assert_eq!((section.side, section.sound.states, section.batch_sizes.first()), (256, 3, Some(&1)));
    assert!(manifest.scheduler.is_none());
    assert!(import::check(&package, &cpu(), None).unwrap().outputs.iter().all(|output| output.relative < 1e-5));
    assert_eq!(engine::clip(manifest), Some(engine::Clip::SINGLE));
    // A section of another family does not belong there.
    let text = fs::read_to_string(imported.folder.join("engine.toml")).unwrap();
    let error = Manifest::parse("x", &text.replace("[musetalk", "[latentsync")).unwrap_err().to_string();
    assert!(error.contains("`latentsync"), "{error}");
    let error = Manifest::parse("x", &text.replace("side = 256", "side = 250")).unwrap_err().to_string();
    assert!(error.contains("`musetalk.side`: 250 is not a multiple of 64"), "{error}");
    // What a user may choose.
    for (key, from, to, cause) in [
        ("files.taesd", "decoder = \"vae\"", "decoder = \"taesd\"", "is missing: the decoder `taesd` needs it"),
        ("musetalk.decoder", "decoder = \"vae\"", "decoder = \"tiny\"", "unknown variant `tiny`"),
        ("musetalk.mask", "mask = \"jaw\"", "mask = \"chin\"", "unknown variant `chin`"),
    ] {
        assert!(text.contains(from), "{text}");
        let error = Manifest::parse("x", &text.replace(from, to)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("x: `{key}`: {cause}")) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn parts_that_are_missing_or_of_another_version_are_refused_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let narrow = published(home.path());
    // A Whisper of other widths.
    let mut wide = narrow.checkpoint("whisper");
    let (_, shape, numbers) = wide.iter_mut().find(|(name, ..)| name.ends_with("conv1.weight")).unwrap();
    (*shape, *numbers) = (vec![24, 80, 3], vec![0.0; 24 * 80 * 3]);
    let write = |name: &str, bytes: &[u8]| fs::write(home.path().join(name), bytes).unwrap();
    write("wide.safetensors", &narrow::file(&wide));
    write("long.json", br#"{"data": {"num_frames": 25}, "model": {"norm_num_groups": 8, "attention_head_dim": 4}}"#);
    write("euler.json", br#"{"scheduler": {"_class_name": "EulerDiscreteScheduler"}}"#);
    write("odd.json", br#"{"data": {"resolution": 200}}"#);
    write("broken.json", b"{");
    fs::create_dir(home.path().join("empty")).unwrap();
    fs::copy(home.path().join("musetalk/unet.safetensors"), home.path().join("bare.safetensors")).unwrap();
    let unet = "latentsync/unet.safetensors";
    let with = |more: &[&'static str]| [&[unet][..], more].concat();
    for (files, family, cause) in [
        (with(&["vae"]), None, "needs a Whisper model beside it: add --from tiny.pt"),
        (
            with(&["whisper"]),
            None,
            "needs the image autoencoder of Stable Diffusion beside it: add --from sd-vae-ft-mse",
        ),
        (with(&["vae", "wide.safetensors"]), None, "has states of 24 numbers, and "),
        (with(&["vae", "whisper", "long.json"]), None, "takes 24 frames at a time, not 25"),
        (with(&["vae", "whisper", "euler.json"]), None, "`scheduler._class_name`: expected DDIMScheduler, found"),
        (with(&["vae", "whisper", "odd.json"]), None, "200 pixels are not a multiple of 64"),
        (with(&["vae", "whisper", "broken.json"]), None, "broken.json: is no configuration"),
        // Without a configuration it is taken for the published one.
        (vec!["bare.safetensors", "vae", "whisper"], None, "has no 32 groups; name its config.json by --from"),
        (with(&["vae", "whisper", "empty"]), None, "empty: is a folder without diffusion_pytorch_model.safetensors"),
        (with(&["vae", "vae", "whisper"]), None, "are both an image autoencoder"),
        (
            with(&["vae", "whisper", "latentsync/stage2.json", "musetalk/unet.safetensors"]),
            None,
            "is a U-Net of MuseTalk",
        ),
        (with(&["vae", "whisper", "latentsync/stage2.json"]), Some(Family::MuseTalk), "`latentsync`, not `musetalk`"),
        (vec!["vae", "whisper"], Some(Family::LatentSync), "is an image autoencoder"),
    ] {
        let error = import(&paths(home.path(), &files), family, home.path()).unwrap_err().to_string();
        assert!(error.contains(cause) && error.lines().count() == 1, "{files:?}: {error}");
        assert!(!home.path().join("engines/face").exists());
    }
}

#[test]
fn imported_engines_are_the_published_ones() {
    let Some(golden) = common::shared("golden") else { return };
    let home = tempfile::tempdir().unwrap();
    for (folder, files, count, faces) in [
        ("latentsync15", &["latentsync_unet.pt", "config.json", "vae", "tiny.pt", "taesd"][..], 13, 0),
        ("musetalk15", &["unet.pth", "musetalk.json", "vae", "whisper"], 3, 4),
    ] {
        let folder = golden.join(folder);
        let imported = import(&paths(&folder, files), None, home.path()).unwrap();
        let package = Package::open(&imported.folder).unwrap();
        let found = import::check(&package, &cpu(), Some(&folder.join("golden.safetensors"))).unwrap();
        let (outputs, pictures) = (found.outputs, found.pictures);
        for output in &outputs {
            println!("{}: {:e}", output.name, output.relative);
        }
        assert_eq!(outputs.len(), count, "{outputs:?}");
        assert!(outputs.iter().all(|output| output.relative < 1e-3), "{outputs:?}");
        // Whole faces, from pixels to pixels.
        for picture in &pictures {
            println!("{}: mean {:.5}, max {} of 255", picture.name, picture.mean, picture.max);
        }
        assert_eq!(pictures.len(), faces);
        assert!(pictures.iter().all(|picture| picture.max <= 1 && picture.mean < 0.01), "{pictures:?}");
        // A file of the other family has nothing of it.
        let other = golden.join("wav2lip/golden.safetensors");
        let error = import::check(&package, &cpu(), Some(&other)).unwrap_err().to_string();
        assert!(error.contains("holds no tensors of the family"), "{error}");
    }
}
