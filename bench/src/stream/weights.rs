//! Engines of random numbers in the layouts in which they are published.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use lipstream_engines::{
    Error, Result,
    import::{self, Request, onnx::Precision},
    manifest::{Family, Features},
};
use serde_json::{Map, json};

use super::{
    layout::{self, Layout, Widths},
    pixel,
};

/// Where an engine is that was imported into a folder.
pub const ENGINE: &str = "engines/mouth";

/// Imports LatentSync or MuseTalk of these widths into `home`; the engine's folder.
pub fn latent(home: &Path, family: Family, widths: &Widths, precision: Precision) -> Result<PathBuf> {
    let shapes = json!({"norm_num_groups": widths.unet_groups, "attention_head_dim": widths.unet_heads});
    let data = json!({"num_frames": widths.frames, "resolution": widths.side});
    let (unet, config) = match family {
        Family::LatentSync => {
            let run = json!({"guidance_scale": 1.5, "inference_steps": 3});
            (layout::unet(widths, 13, true), json!({"model": shapes, "data": data, "run": run}))
        }
        _ => {
            let (groups, heads) = (&shapes["norm_num_groups"], &shapes["attention_head_dim"]);
            let config = json!({"norm_num_groups": groups, "attention_head_dim": heads, "data": data});
            (layout::unet(widths, 8, false), config)
        }
    };
    let files = [
        written(home, "unet", "diffusion_pytorch_model.safetensors", &config, &unet)?,
        written(
            home,
            "vae",
            "diffusion_pytorch_model.safetensors",
            &json!({"norm_num_groups": widths.vae_groups}),
            &layout::vae(widths),
        )?,
        written(
            home,
            "whisper",
            "model.safetensors",
            &json!({"encoder_attention_heads": widths.whisper_heads}),
            &layout::whisper(widths),
        )?,
    ];
    imported(home, family, &files, precision)
}

/// The same of Wav2Lip of 96 pixels or SyncTalk_2D of 328.
pub fn pixel(home: &Path, family: Family, widths: &Widths, precision: Precision) -> Result<PathBuf> {
    let layout = if family == Family::Wav2Lip { pixel::wav2lip(widths) } else { pixel::synctalk2d(widths) };
    let file = written(home, "pixel", "network.safetensors", &json!({}), &layout)?;
    imported(home, family, &[file], precision)
}

/// Imports files as `mouth`; the engine's folder. What they were made from is removed: it is as large again.
pub fn imported(home: &Path, family: Family, files: &[PathBuf], precision: Precision) -> Result<PathBuf> {
    let request = Request {
        family: Some(family),
        files,
        name: Some("mouth"),
        precision,
        features: (family == Family::SyncTalk2d).then_some(Features::Compact),
        licence: None,
        replace: true,
    };
    let made = import::import(&request, &home.join("engines"), &mut |_, _| Ok(()))?;
    files.iter().try_for_each(|file| fs::remove_file(file).map_err(|error| Error::io(file, error)))?;
    Ok(made.folder)
}

/// A checkpoint of random numbers with its configuration beside it.
pub fn written(home: &Path, folder: &str, file: &str, config: &serde_json::Value, layout: &Layout) -> Result<PathBuf> {
    let folder = home.join(folder);
    fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
    let beside = folder.join("config.json");
    fs::write(&beside, config.to_string()).map_err(|error| Error::io(&beside, error))?;
    let path = folder.join(file);
    checkpoint(&path, layout).map_err(|error| Error::io(&path, error))?;
    Ok(path)
}

/// A safetensors file, tensor by tensor: gigabytes need not be in memory.
fn checkpoint(path: &Path, layout: &Layout) -> std::io::Result<()> {
    let (mut header, mut at) = (Map::new(), 0);
    for (name, shape) in layout {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // Numbers begin at a multiple of their size.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let noise = Noise::new();
    let mut bytes = Vec::new();
    for (name, shape) in layout {
        bytes.clear();
        noise.weight(name, shape, &mut bytes);
        out.write_all(&bytes)?;
    }
    out.flush()
}

/// Numbers in -1..1 which all weights are taken from, each from a place of its own on.
struct Noise(Vec<f32>);

/// A prime, so that rows of a weight do not repeat.
const NUMBERS: usize = 1_048_573;

impl Noise {
    /// By SplitMix64 (Steele et al. 2014).
    fn new() -> Self {
        let mut state = 0u64;
        let mut number = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((x ^ (x >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        Self((0..NUMBERS).map(|_| number()).collect())
    }

    /// Weights that leave what passes them about as large as it was; norms are near 1, biases near 0.
    fn weight(&self, name: &str, shape: &[usize], bytes: &mut Vec<u8>) {
        let count = shape.iter().product();
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let from = (hash % NUMBERS as u64) as usize;
        let fan = shape[1..].iter().product::<usize>() as f32;
        let (middle, scale) = match () {
            () if shape.len() > 1 => (0.0, (3.0 / fan).sqrt()),
            () if name.ends_with("weight") || name.ends_with("running_var") => (1.0, 0.25),
            () => (0.0, 0.25),
        };
        bytes.reserve(4 * count);
        let mut rest = count;
        let mut part = &self.0[from..];
        while rest > 0 {
            let here = &part[..part.len().min(rest)];
            bytes.extend(here.iter().flat_map(|v| (middle + scale * v).to_le_bytes()));
            rest -= here.len();
            part = &self.0;
        }
    }
}
