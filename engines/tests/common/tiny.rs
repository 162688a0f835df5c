//! A checkpoint of Wav2Lip with channels of a few numbers, for what needs no published one.

use std::{collections::BTreeMap, path::Path};

use lipstream_engines::engine::Noise;
use safetensors::{Dtype, tensor::TensorView};

/// Channels of every block but the first and the last.
const WIDTH: usize = 2;

/// Writes `wav2lip.safetensors` into `folder`, seeded noise in the published layout of 96 pixels.
pub fn wav2lip(folder: &Path) -> std::path::PathBuf {
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
    let mut noise = Noise::new(97, 0.0, 1.0);
    let mut put = |name: String, shape: Vec<usize>, mean: f32, spread: f32| {
        let numbers = (0..shape.iter().product()).map(|_| mean + spread * noise.normal()).collect();
        tensors.insert(name, (shape, numbers));
    };
    let mut block = |name: &str, shape: [usize; 4], out: usize| {
        let fan = (shape.iter().product::<usize>() / out) as f32;
        put(format!("{name}.conv_block.0.weight"), shape.to_vec(), 0.0, (2.0 / fan).sqrt());
        for (part, mean) in [("0.bias", 0.0), ("1.weight", 1.0), ("1.bias", 0.0), ("1.running_mean", 0.0)] {
            put(format!("{name}.conv_block.{part}"), vec![out], mean, 0.05);
        }
        put(format!("{name}.conv_block.1.running_var"), vec![out], 1.0, 0.0);
    };
    let w = WIDTH;
    for i in 0..13 {
        let (from, kernel) = (if i == 0 { 1 } else { w }, if i == 12 { 1 } else { 3 });
        block(&format!("audio_encoder.{i}"), [w, from, kernel, kernel], w);
    }
    for (i, count) in [1, 3, 4, 3, 3, 2, 2].into_iter().enumerate() {
        for j in 0..count {
            let (from, kernel) = match (i, j) {
                (0, _) => (6, 7),
                (6, 1) => (w, 1),
                _ => (w, 3),
            };
            block(&format!("face_encoder_blocks.{i}.{j}"), [w, from, kernel, kernel], w);
        }
    }
    for (i, count) in [1, 2, 3, 3, 3, 3, 3].into_iter().enumerate() {
        for j in 0..count {
            let shape = match (i, j) {
                (0, _) => [w, w, 1, 1],
                // Transposed: what comes in is first.
                (_, 0) => [2 * w, w, 3, 3],
                _ => [w, w, 3, 3],
            };
            block(&format!("face_decoder_blocks.{i}.{j}"), shape, w);
        }
    }
    block("output_block.0", [w, 2 * w, 3, 3], w);
    put("output_block.1.weight".into(), vec![3, w, 1, 1], 0.0, 0.7);
    put("output_block.1.bias".into(), vec![3], 0.0, 0.1);
    let bytes: Vec<Vec<u8>> =
        tensors.values().map(|(_, numbers)| numbers.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, (shape, _)), bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let path = folder.join("wav2lip.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}
