//! Checkpoints of a few channels whose numbers follow from their names, and what PyTorch 2.15 computes of them
//! (`tests/data/latent.safetensors`): LatentSync's U-Net by its own code, the others by diffusers 0.32.2 and transformers
//! 4.48.0. The file has the names and shapes of each network's tensors as metadata.

#![allow(dead_code)]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use lipstream_engines::{
    import::{self, Request, onnx::Precision},
    tensor::Weights,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Names, shapes and numbers of a checkpoint.
pub type Checkpoint = Vec<(String, Vec<usize>, Vec<f32>)>;

pub struct Narrow {
    bytes: Vec<u8>,
    listings: HashMap<String, String>,
}

impl Narrow {
    pub fn open() -> Self {
        // The folder of this crate, or of one beside it.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines/tests/data/latent.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let listings = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
        Self { bytes, listings }
    }

    /// What PyTorch computed.
    pub fn wanted(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    /// The tensors of `latentsync`, `musetalk`, `vae`, `taesd` or `whisper`.
    pub fn checkpoint(&self, network: &str) -> Checkpoint {
        let entry = |line: &str| {
            let (name, shape) = line.split_once(' ').unwrap();
            let shape: Vec<usize> = shape.split('x').map(|n| n.parse().unwrap()).collect();
            let numbers = weight(name, &shape);
            (name.to_owned(), shape, numbers)
        };
        self.listings[network].lines().map(entry).collect()
    }
}

/// Writes MuseTalk's published files, of pictures of `side` pixels, into `home`, and imports them; the engine's folder.
pub fn musetalk(home: &Path, side: usize) -> PathBuf {
    let unet = format!(r#"{{"norm_num_groups": 8, "attention_head_dim": 4, "data": {{"resolution": {side}}}}}"#);
    imported(home, "musetalk", &unet)
}

/// The same of LatentSync's, with clips of 8 frames.
pub fn latentsync(home: &Path, side: usize) -> PathBuf {
    let unet = format!(
        r#"{{"model": {{"norm_num_groups": 8, "attention_head_dim": 4}}, "data": {{"num_frames": 8, "resolution": {side}}},
            "run": {{"guidance_scale": 1.5, "inference_steps": 3}}}}"#
    );
    imported(home, "latentsync", &unet)
}

fn imported(home: &Path, family: &str, unet: &str) -> PathBuf {
    let narrow = Narrow::open();
    let files = [
        (family, unet),
        ("vae", r#"{"norm_num_groups": 4}"#),
        ("taesd", "{}"),
        ("whisper", r#"{"encoder_attention_heads": 4}"#),
    ];
    let write = |(name, config): &(&str, &str)| {
        let folder = home.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), config).unwrap();
        let weights =
            folder.join(if *name == "whisper" { "model.safetensors" } else { "diffusion_pytorch_model.safetensors" });
        fs::write(&weights, file(&narrow.checkpoint(name))).unwrap();
        weights
    };
    let files: Vec<PathBuf> = files.iter().map(write).collect();
    let request = Request {
        family: None,
        files: &files,
        name: Some("mouth"),
        precision: Precision::Fp32,
        features: None,
        licence: None,
        replace: true,
    };
    import::import(&request, &home.join("engines"), &mut |_, _| Ok(())).unwrap().folder
}

/// A checkpoint as a safetensors file.
pub fn file(checkpoint: &Checkpoint) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        checkpoint.iter().map(|(.., numbers)| numbers.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = checkpoint
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

pub fn weights(checkpoint: &Checkpoint) -> Weights {
    Weights::from_bytes("narrow", file(checkpoint)).unwrap()
}

/// Numbers of an input.
pub fn input(name: &str, shape: &[usize]) -> Vec<f32> {
    noise(&format!("input.{name}"), shape.iter().product()).into_iter().map(|v| 1.5 * v).collect()
}

fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let numbers = noise(name, shape.iter().product());
    let scale = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32;
    let each = |v: f32| match () {
        () if shape.len() > 1 => v * scale,
        () if name.ends_with("weight") => 1.0 + 0.25 * v,
        () => 0.25 * v,
    };
    numbers.into_iter().map(each).collect()
}

/// Uniform in -1..1: SplitMix64 (Steele et al. 2014) from the FNV-1a hash of the name on.
fn noise(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let number = |i: usize| {
        let x = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(number).collect()
}
