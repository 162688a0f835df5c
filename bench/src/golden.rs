//! Networks and frames of the published families beside what the published programs computed: golden checkpoints are imported in fp32
//! and in fp16 and checked on the device as `lipstream engines check --golden` checks them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lipstream_engines::{
    Result,
    import::{self, Comparison, Request, onnx},
    manifest::{Family, Features, Package},
    runtime::{Device, Options, Precision},
};
use serde::Serialize;

/// A folder of golden files, its family, the files of its checkpoint, what hears for it, and how far its fp16 may be.
type Checkpoint = (&'static str, Family, &'static [&'static str], Option<Features>, Option<f64>);

/// Small ones first.
const CHECKPOINTS: [Checkpoint; 5] = [
    ("wav2lip", Family::Wav2Lip, &["wav2lip.pth"], None, Some(0.3)),
    ("wav2lip256", Family::Wav2Lip, &["wav2lip256.pth"], None, Some(0.3)),
    // Random weights whose numbers fp16 does not hold: what it says is only stated.
    ("synctalk2d", Family::SyncTalk2d, &["unet_328_ave.pth", "audio_visual_encoder.pth"], Some(Features::Ave), None),
    ("musetalk15", Family::MuseTalk, &["unet.pth", "musetalk.json", "vae", "whisper"], None, Some(6e-2)),
    ("latentsync15", Family::LatentSync, &["latentsync_unet.pt", "config.json", "vae", "tiny.pt"], None, Some(6e-2)),
];

/// Largest difference in fp32 over the standard deviation of what is wanted.
const FP32: f64 = 2e-3;

/// An engine of golden weights on a device.
#[derive(Serialize)]
pub struct Golden {
    pub checkpoint: &'static str,
    /// Of its weights.
    pub weights: &'static str,
    device: String,
    /// Why nothing was compared.
    refused: Option<String>,
    outputs: Vec<Output>,
    pictures: Vec<Picture>,
    /// Whether all of it is as near as it has to be, where it has to.
    pub near: bool,
}

#[derive(Serialize)]
struct Output {
    name: String,
    /// Largest difference over the standard deviation of what it should be, and the mean one.
    relative: f64,
    rms: f64,
}

/// A whole frame, in codes of 255.
#[derive(Serialize)]
struct Picture {
    name: String,
    mean: f64,
    most: u8,
}

/// All checkpoints below `folder` whose name holds `only`, on a device; `each` is told one after another.
pub fn check(folder: &Path, device: Device, only: &str, mut each: impl FnMut(Golden)) -> Result<()> {
    let home = std::env::temp_dir().join(format!("lipstream-golden-{}", std::process::id()));
    for (name, family, files, features, half) in CHECKPOINTS.iter().filter(|(name, ..)| name.contains(only)) {
        for (precision, weights, limit) in
            [(onnx::Precision::Fp32, "fp32", Some(FP32)), (onnx::Precision::Fp16, "fp16", *half)]
        {
            let mut golden = Golden {
                checkpoint: name,
                weights,
                device: device.to_string(),
                refused: None,
                outputs: Vec::new(),
                pictures: Vec::new(),
                near: false,
            };
            let folder = folder.join(name);
            let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
            let request = Request {
                family: Some(*family),
                files: &files,
                name: Some("golden"),
                precision,
                features: *features,
                licence: None,
                replace: true,
            };
            match checked(&request, &home, device, &folder.join("golden.safetensors")) {
                Ok(found) => {
                    let outputs = found.outputs.into_iter();
                    golden.outputs =
                        outputs.map(|o| Output { name: o.name, relative: o.relative, rms: o.rms }).collect();
                    let pictures = found.pictures.into_iter();
                    golden.pictures = pictures.map(|p| Picture { name: p.name, mean: p.mean, most: p.max }).collect();
                    golden.near = golden.outputs.iter().all(|output| limit.is_none_or(|limit| output.relative < limit));
                }
                Err(error) => golden.refused = Some(error.to_string()),
            }
            print(&golden);
            each(golden);
        }
    }
    let _ = fs::remove_dir_all(&home);
    Ok(())
}

fn checked(request: &Request, home: &Path, device: Device, golden: &Path) -> Result<Comparison> {
    let made = import::import(request, &home.join("engines"), &mut |_, _| Ok(()))?;
    let options = Options { device, precision: Precision::Auto, ..Options::default() };
    import::check(&Package::open(&made.folder)?, &options, Some(golden))
}

fn print(golden: &Golden) {
    let Golden { checkpoint, weights, device, refused, outputs, pictures, near } = golden;
    let worst = outputs.iter().max_by(|a, b| a.relative.total_cmp(&b.relative));
    let said = match (refused, worst) {
        (Some(cause), _) => cause.clone(),
        (None, Some(worst)) => {
            let most = pictures.iter().map(|picture| picture.most).max();
            let frames = most.map_or(String::new(), |most| format!(", whole frames {most} of 255 at most"));
            let word = if *near { "near" } else { "not near" };
            format!("{word}: {} outputs, `{}` {:.1e} at most{frames}", outputs.len(), worst.name, worst.relative)
        }
        (None, None) => "nothing to compare".into(),
    };
    println!("golden {checkpoint} {weights} {device}: {said}");
}
