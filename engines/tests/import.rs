//! Imported networks against what the published code computed.

mod common;

use lipstream_engines::{
    import::{
        onnx::{Graph, Precision},
        synctalk2d, wav2lip,
    },
    manifest::Features,
    runtime::{Device, Input, Model, Options},
    tensor::Weights,
};
use safetensors::SafeTensors;

/// Seeded random weights amplify the last bit: in double precision the same weights give outputs that lie up to 6e-4 of their
/// deviation from the stored ones, and PyTorch's own kernels differ by as much from each other.
const TOLERANCE: f32 = 2e-3;

fn run(bytes: &[u8], inputs: &[(&str, &[usize], &[f32])]) -> Vec<f32> {
    let options = Options { device: Device::Cpu, ..Options::default() };
    let model = Model::load("imported", bytes, &options).unwrap();
    let inputs: Vec<Input> = inputs.iter().map(|(name, shape, data)| Input { name, shape, data }).collect();
    model.run(&inputs).unwrap().swap_remove(0).data
}

/// Largest difference over the standard deviation of what is wanted.
fn apart(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let mean = wanted.iter().sum::<f32>() / wanted.len() as f32;
    let deviation = (wanted.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / wanted.len() as f32).sqrt();
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / deviation
}

/// Every `step`-th row and column of planes of `side`.
fn thinned(planes: &[f32], side: usize, step: usize) -> Vec<f32> {
    let rows = planes.chunks_exact(side * side).flat_map(|plane| plane.chunks_exact(side).step_by(step));
    rows.flat_map(|row| row.iter().copied().step_by(step)).collect()
}

/// BGR pixels as planes of 0..1.
fn planes(pixels: &[f32]) -> Vec<f32> {
    (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(|v| v / 255.0)).collect()
}

#[test]
fn wav2lip_is_the_published_one() {
    let Some(folder) = common::shared("golden/wav2lip") else { return };
    let golden = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let (mel, face) = (common::numbers(&golden, "mel_in"), common::numbers(&golden, "face_in"));
    for (file, output, step) in [("wav2lip.pth", "out", 1), ("wav2lip_zip.pth", "out_zip_even", 2)] {
        let weights = Weights::open(&folder.join(file)).unwrap();
        for (precision, limit) in [(Precision::Fp32, TOLERANCE), (Precision::Fp16, 0.3)] {
            let mut graph = Graph::new("wav2lip", precision);
            wav2lip::generator(&mut graph, &weights).unwrap();
            let audio: (&str, &[usize], &[f32]) = ("audio", &[1, 1, 80, 16], &mel[..1280]);
            let out = run(&graph.finish(), &[audio, ("face", &[1, 6, 96, 96], &face)]);
            let worst = apart(&thinned(&out, 96, step), &common::numbers(&golden, output));
            println!("{file} {precision:?}: {worst:e}");
            assert!(worst < limit, "{file} {precision:?}: {worst}");
        }
    }
}

#[test]
fn wav2lip_of_256_pixels_is_the_published_one() {
    let Some(folder) = common::shared("golden/wav2lip256") else { return };
    let golden = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let weights = Weights::open(&folder.join("wav2lip256.pth")).unwrap();
    let mut graph = Graph::new("wav2lip256", Precision::Fp32);
    wav2lip::generator(&mut graph, &weights).unwrap();
    let order = common::numbers(&golden, "order")[0] as usize;
    let pixels = &common::numbers(&golden, "faces")[order * 256 * 256 * 3..][..256 * 256 * 3];
    let whole = planes(pixels);
    let mut face = whole.clone();
    face.chunks_exact_mut(256 * 256).for_each(|plane| plane[128 * 256..].fill(0.0));
    face.extend(&whole);
    let mel = common::numbers(&golden, "mel_in");
    let out = run(&graph.finish(), &[("audio", &[1, 1, 80, 16], &mel[..1280]), ("face", &[1, 6, 256, 256], &face)]);
    let worst = apart(&out, &common::numbers(&golden, "out0"));
    println!("wav2lip256: {worst:e}");
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn synctalk_2d_is_the_published_one() {
    let Some(folder) = common::shared("golden/synctalk2d") else { return };
    let golden = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    // The whole picture, then with the black rectangle of inclusive corners.
    let faces = |name: &str, side: usize| {
        let whole = planes(&common::numbers(&golden, &format!("{name}/crop")));
        let mask = common::numbers(&golden, &format!("{name}/mask"));
        let [x0, y0, x1, y1] = [0, 1, 2, 3].map(|i| mask[i] as usize);
        let mut masked = whole.clone();
        for plane in masked.chunks_exact_mut(side * side) {
            (y0..=y1).for_each(|y| plane[y * side + x0..=y * side + x1].fill(0.0));
        }
        [whole, masked].concat()
    };
    let (small, large) = (faces("160", 160), faces("328", 320));
    for (file, features, audio, shape, face, side, output, step) in [
        ("unet_160_ave.pth", Features::Ave, "160/audio20", [32, 16, 16], &small, 160, "160/out", 1),
        ("unet_328_ave.pth", Features::Ave, "160/audio20", [32, 16, 16], &large, 320, "328/out_4th", 4),
        ("unet_160_hubert.pth", Features::Hubert, "hubert/audio", [32, 32, 32], &small, 160, "hubert/out_4th", 4),
        ("unet_160_wenet.pth", Features::Wenet, "wenet/audio", [16, 16, 32], &small, 160, "wenet/out_4th", 4),
    ] {
        let weights = Weights::open(&folder.join(file)).unwrap();
        let mut graph = Graph::new("unet", Precision::Fp32);
        synctalk2d::unet(&mut graph, &weights, features).unwrap();
        let shape = [1, shape[0], shape[1], shape[2]];
        let audio = common::numbers(&golden, audio);
        let out = run(&graph.finish(), &[("audio", &shape, &audio), ("face", &[1, 6, side, side], face)]);
        let worst = apart(&thinned(&out, side, step), &common::numbers(&golden, output));
        println!("{file}: {worst:e}");
        assert!(worst < TOLERANCE, "{file}: {worst}");
    }
    let weights = Weights::open(&folder.join("audio_visual_encoder.pth")).unwrap();
    let mut graph = Graph::new("ave", Precision::Fp32);
    synctalk2d::ave(&mut graph, &weights).unwrap();
    let bytes = graph.finish();
    let (mel, starts) = (common::numbers(&golden, "mel"), common::numbers(&golden, "mel_start"));
    let wanted = common::numbers(&golden, "ave_feats");
    let mut worst = 0.0f32;
    for i in [0, 10, 30, 46] {
        // From [column, band] to [band, column].
        let start = starts[i] as usize;
        let window: Vec<f32> =
            (0..80).flat_map(|b| (0..16).map(move |c| (b, c))).map(|(b, c)| mel[(start + c) * 80 + b]).collect();
        let out = run(&bytes, &[("mel", &[1, 1, 80, 16], &window)]);
        worst = worst.max(apart(&out, &wanted[(i + 1) * 512..][..512]));
    }
    println!("audio_visual_encoder.pth: {worst:e}");
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn a_file_of_another_network_is_refused_with_the_key_and_both_shapes() {
    let Some(folder) = common::shared("golden") else { return };
    let open = |path: &str| Weights::open(&folder.join(path)).unwrap();
    let mut graph = Graph::new("x", Precision::Fp32);
    let error = wav2lip::generator(&mut graph, &open("synctalk2d/unet_160_ave.pth")).unwrap_err().to_string();
    assert!(error.contains("`face_encoder_blocks.N`: expected 7 (96 pixels) or 8 (256 pixels), found 0"), "{error}");
    let error = synctalk2d::unet(&mut graph, &open("wav2lip/wav2lip.pth"), Features::Ave).unwrap_err().to_string();
    assert!(error.contains("tensor `audio_model.conv1.conv.0.weight`: expected a tensor, found nothing"), "{error}");
    let error = synctalk2d::ave(&mut graph, &open("wav2lip/wav2lip.pth")).unwrap_err().to_string();
    assert!(
        error.contains("wav2lip.pth: tensor `face_decoder_blocks.0.0.conv_block.0.bias`: expected nothing, found [64]"),
        "{error}"
    );
}

#[test]
fn a_narrow_network_says_what_pytorch_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/synctalk2d.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let pixel = |i: usize| {
        let [c, y, x] = [i / (160 * 160), i / 160 % 160, i % 160].map(|v| v as f64);
        (0.5 + 0.5 * (0.1 * (x + 1.0) * (c + 1.0) + 0.05 * y).sin()) as f32
    };
    let face: Vec<f32> = (0..6 * 160 * 160).map(pixel).collect();
    let feature = |i: usize| {
        let [c, y, x] = [i / 256, i / 16 % 16, i % 16].map(|v| v as f64);
        (0.3 * c + 0.2 * y - 0.1 * x).cos() as f32
    };
    let audio: Vec<f32> = (0..16 * 256).map(feature).collect();
    // SyncTalk_2D's modules are in lists, Ultralight's are not.
    let plain = |name: &str| name.replace("inc.inconv.0.", "inc.inconv.").replace("maxpool_conv.0.", "maxpool_conv.");
    for named in [&str::to_owned as &dyn Fn(&str) -> String, &plain] {
        // The file holds the answer beside the weights.
        let weights: Vec<_> = golden.tensors().into_iter().filter(|(name, _)| name != "golden.out").collect();
        let weights: Vec<_> = weights.into_iter().map(|(name, view)| (named(&name), view)).collect();
        let weights = Weights::from_bytes("narrow", safetensors::serialize(weights, None).unwrap()).unwrap();
        let mut graph = Graph::new("unet", Precision::Fp32);
        synctalk2d::unet(&mut graph, &weights, Features::Compact).unwrap();
        let out = run(&graph.finish(), &[("audio", &[1, 16, 16, 16], &audio), ("face", &[1, 6, 160, 160], &face)]);
        let worst = apart(&thinned(&out, 160, 8), &common::numbers(&golden, "golden.out"));
        assert!(worst < 1e-4, "{worst}");
    }
}
