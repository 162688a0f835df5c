//! Networks that paint in latents of pictures against what the published code computed.

mod common;
#[path = "common/narrow.rs"]
mod narrow;

use std::path::Path;

use lipstream_engines::{
    import::{
        latentsync, musetalk,
        onnx::{Graph, Precision},
        taesd, vae,
        whisper::{self, Last},
    },
    runtime::{Device, Input, Model, Options, Tensor},
    tensor::Weights,
};
use narrow::Narrow;
use safetensors::SafeTensors;

/// Largest difference over the standard deviation of what is wanted, in fp32 and fp16.
const TOLERANCES: [(Precision, f32); 2] = [(Precision::Fp32, 1e-3), (Precision::Fp16, 3e-2)];

type Given<'a> = (&'a str, Vec<usize>, Vec<f32>);

fn run(bytes: &[u8], inputs: &[Given]) -> Vec<Tensor> {
    let options = Options { device: Device::Cpu, ..Options::default() };
    let model = Model::load("imported", bytes, &options).unwrap();
    let inputs: Vec<Input> = inputs.iter().map(|(name, shape, data)| Input { name, shape, data }).collect();
    model.run(&inputs).unwrap()
}

fn apart(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let mean = wanted.iter().sum::<f32>() / wanted.len() as f32;
    let deviation = (wanted.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / wanted.len() as f32).sqrt();
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / deviation
}

/// Builds a graph at each precision, runs it and compares its outputs with `wanted`.
fn equal(
    what: &str,
    precisions: &[(Precision, f32)],
    build: impl Fn(&mut Graph) -> lipstream_engines::Result<()>,
    inputs: &[Given],
    wanted: &[Vec<f32>],
) {
    for (precision, limit) in precisions {
        let mut graph = Graph::new(what, *precision);
        build(&mut graph).unwrap();
        let outputs = run(&graph.finish(), inputs);
        assert_eq!(outputs.len(), wanted.len());
        for (output, wanted) in outputs.iter().zip(wanted) {
            let worst = apart(&output.data[..wanted.len()], wanted);
            println!("{what} {precision:?}: {worst:e}");
            assert!(worst < *limit, "{what} {precision:?}: {worst}");
        }
    }
}

fn golden(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("golden.safetensors")).unwrap()
}

fn shape(file: &SafeTensors, name: &str) -> Vec<usize> {
    file.tensor(name).unwrap().shape().to_vec()
}

fn given<'a>(file: &SafeTensors, port: &'a str, name: &str) -> Given<'a> {
    (port, shape(file, name), common::numbers(file, name))
}

/// The mel with what stands for the rest of 30 seconds behind it.
fn whole_mel<'a>(file: &SafeTensors, fill: f32) -> Given<'a> {
    let (mel, columns) = (common::numbers(file, "whisper.in.mel"), shape(file, "whisper.in.mel")[1]);
    let row = |band: usize| {
        let own = mel[band * columns..][..columns].to_vec();
        [own, vec![fill; whisper::COLUMNS - columns]].concat()
    };
    ("mel", vec![1, 80, whisper::COLUMNS], (0..80).flat_map(row).collect())
}

#[test]
fn whisper_is_the_published_one() {
    let Some(folder) = common::shared("golden") else { return };
    let bytes = golden(&folder.join("latentsync15"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weights = Weights::open(&folder.join("latentsync15/tiny.pt")).unwrap();
    let heads = whisper::heads(&weights);
    assert_eq!(heads, 4);
    let build = |graph: &mut Graph| whisper::encoder(graph, &weights, heads, Last::Plain);
    equal("openai", &TOLERANCES, build, &[whole_mel(&file, 0.0)], &[common::numbers(&file, "whisper.out.embeddings")]);
    let bytes = golden(&folder.join("musetalk15"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weights = Weights::open(&folder.join("musetalk15/whisper/pytorch_model.bin")).unwrap();
    // Silence is the floor of the log-mel: the least that is there.
    let floor = common::numbers(&file, "whisper.in.mel").into_iter().fold(f32::MAX, f32::min);
    let build = |graph: &mut Graph| whisper::encoder(graph, &weights, 4, Last::Normed);
    equal(
        "transformers",
        &TOLERANCES,
        build,
        &[whole_mel(&file, floor)],
        &[common::numbers(&file, "whisper.out.hidden_states")],
    );
}

#[test]
fn the_autoencoder_is_the_published_one_by_either_names() {
    let Some(folder) = common::shared("golden") else { return };
    let bytes = golden(&folder.join("latentsync15"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let pixels = given(&file, "pixels", "vae.in.pixels");
    let latents = given(&file, "latents", "vae.in.latent");
    let wanted = ["vae.out.mean", "vae.out.logvar", "vae.out.decoded"].map(|name| common::numbers(&file, name));
    for path in ["latentsync15/vae/diffusion_pytorch_model.safetensors", "musetalk15/vae/diffusion_pytorch_model.bin"] {
        let weights = Weights::open(&folder.join(path)).unwrap();
        let encode = |graph: &mut Graph| vae::encoder(graph, &weights, 4, 64);
        equal("vae encoder", &TOLERANCES, encode, std::slice::from_ref(&pixels), &wanted[..2]);
        let decode = |graph: &mut Graph| vae::decoder(graph, &weights, 4, 8);
        equal("vae decoder", &TOLERANCES, decode, std::slice::from_ref(&latents), &wanted[2..]);
    }
}

#[test]
fn the_tiny_autoencoder_is_the_published_one() {
    let Some(folder) = common::shared("golden/latentsync15") else { return };
    let bytes = golden(&folder);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weights = Weights::open(&folder.join("taesd/diffusion_pytorch_model.safetensors")).unwrap();
    let decode = |graph: &mut Graph| taesd::decoder(graph, &weights, 8);
    let latents = given(&file, "latents", "taesd.in.latent");
    equal("taesd", &TOLERANCES, decode, &[latents], &[common::numbers(&file, "taesd.out.decoded")]);
}

#[test]
fn latentsync_is_the_published_one() {
    let Some(folder) = common::shared("golden") else { return };
    for (version, clip, steps) in
        [("latentsync15", 16, 2), ("latentsync15", 8, 2), ("latentsync16", 8, 1), ("latentsync16", 4, 1)]
    {
        let bytes = golden(&folder.join(version));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let weights = Weights::open(&folder.join(version).join("latentsync_unet.pt")).unwrap();
        let of = |name: &str| format!("unet.f{clip}.{name}");
        let sample = given(&file, "sample", &of("in.sample"));
        let width = latentsync::sound_width(&weights).unwrap();
        let whole = file.tensor(&of("in.audio")).is_ok();
        let name = if whole { "in.audio" } else { "in.audio_second_half" };
        let mut audio = common::numbers(&file, &of(name));
        if !whole {
            // Guidance asks once without sound.
            audio = [vec![0.0; clip * 50 * width], audio].concat();
        }
        // 1.6 is for 512 pixels, where attention comes in pieces.
        let side = if version == "latentsync16" { 64 } else { sample.1[3] };
        let shape = latentsync::Shape { groups: 8, heads: 8, rows: 50, frames: clip, side };
        let batch = sample.1[0];
        for step in 0..steps {
            let time = common::numbers(&file, &of(&format!("t{step}.in.timestep")))[0];
            let inputs = [
                sample.clone(),
                ("timestep", vec![batch], vec![time; batch]),
                ("audio", vec![batch, clip, 50, width], audio.clone()),
            ];
            let wanted = common::numbers(&file, &of(&format!("t{step}.out.sample")));
            let build = |graph: &mut Graph| latentsync::unet(graph, &weights, &shape);
            // A CPU takes its time in fp16.
            let precisions = if clip == 4 { &TOLERANCES[..] } else { &TOLERANCES[..1] };
            equal(&format!("{version} f{clip} t{step}"), precisions, build, &inputs, &[wanted]);
        }
    }
}

#[test]
fn musetalk_is_the_published_one() {
    let Some(folder) = common::shared("golden/musetalk15") else { return };
    let bytes = golden(&folder);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weights = Weights::open(&folder.join("unet.pth")).unwrap();
    assert!(apart(&musetalk::positions(50, 32), &common::numbers(&file, "pe.table")) < 1e-5);
    let shape = musetalk::Shape { groups: 8, heads: 8, rows: 50, side: 8 };
    let build = |graph: &mut Graph| musetalk::unet(graph, &weights, &shape);
    let inputs = [given(&file, "latents", "unet.in.latents"), given(&file, "audio", "unet.in.audio")];
    equal("musetalk", &TOLERANCES, build, &inputs, &[common::numbers(&file, "unet.out.latents")]);
}

fn made<'a>(port: &'a str, name: &str, shape: &[usize]) -> Given<'a> {
    (port, shape.to_vec(), narrow::input(name, shape))
}

#[test]
fn narrow_unets_say_what_pytorch_says() {
    let narrow = Narrow::open();
    let weights = narrow::weights(&narrow.checkpoint("latentsync"));
    let shape = latentsync::Shape { groups: 8, heads: 4, rows: 30, frames: 3, side: 8 };
    let inputs = [
        made("sample", "latentsync.sample", &[2, 13, 3, 8, 16]),
        ("timestep", vec![2], vec![951.0; 2]),
        // PyTorch has the frames of both clips in one dimension.
        made("audio", "latentsync.audio", &[2, 3, 30, 16]),
    ];
    let build = |graph: &mut Graph| latentsync::unet(graph, &weights, &shape);
    equal("latentsync", &TOLERANCES, build, &inputs, &[narrow.wanted("latentsync.noise")]);
    let weights = narrow::weights(&narrow.checkpoint("musetalk"));
    let shape = musetalk::Shape { groups: 8, heads: 4, rows: 30, side: 8 };
    let inputs = [made("latents", "musetalk.latents", &[2, 8, 8, 16]), made("audio", "musetalk.audio", &[2, 30, 16])];
    let build = |graph: &mut Graph| musetalk::unet(graph, &weights, &shape);
    equal("musetalk", &TOLERANCES, build, &inputs, &[narrow.wanted("musetalk.painted")]);
}

#[test]
fn narrow_autoencoders_say_what_pytorch_says() {
    let narrow = Narrow::open();
    let today = narrow.checkpoint("vae");
    let mut before = today.clone();
    for (name, ..) in &mut before {
        for (new, old) in [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")] {
            *name = name.replace(&format!(".{new}."), &format!(".{old}."));
        }
    }
    assert_ne!(today, before);
    let (pixels, latents) =
        (made("pixels", "vae.pixels", &[1, 3, 32, 48]), made("latents", "vae.latents", &[1, 4, 2, 3]));
    let wanted = ["vae.mean", "vae.logvar", "vae.pixels"].map(|name| narrow.wanted(name));
    for checkpoint in [today, before] {
        let weights = narrow::weights(&checkpoint);
        let encode = |graph: &mut Graph| vae::encoder(graph, &weights, 4, 32);
        equal("vae encoder", &TOLERANCES, encode, std::slice::from_ref(&pixels), &wanted[..2]);
        let decode = |graph: &mut Graph| vae::decoder(graph, &weights, 4, 4);
        equal("vae decoder", &TOLERANCES, decode, std::slice::from_ref(&latents), &wanted[2..]);
    }
    let weights = narrow::weights(&narrow.checkpoint("taesd"));
    let decode = |graph: &mut Graph| taesd::decoder(graph, &weights, 4);
    let latents = [made("latents", "taesd.latents", &[1, 4, 2, 3])];
    equal("taesd", &TOLERANCES, decode, &latents, &[narrow.wanted("taesd.pixels")]);
}

#[test]
fn a_narrow_whisper_says_what_pytorch_says_in_both_layouts() {
    let narrow = Narrow::open();
    let transformers = narrow.checkpoint("whisper");
    let mel = [made("mel", "whisper.mel", &[1, 80, 3000])];
    // Every hundredth moment of states after the convolutions and after both blocks, the last normed.
    let wanted = narrow.wanted("whisper.states");
    let run_with = |weights: &Weights, last: Last| {
        let mut graph = Graph::new("whisper", Precision::Fp32);
        whisper::encoder(&mut graph, weights, 4, last).unwrap();
        let states = run(&graph.finish(), &mel).swap_remove(0);
        assert_eq!(states.shape, [1, 1500, 3, 16]);
        states.data.chunks_exact(48).step_by(100).flatten().copied().collect::<Vec<f32>>()
    };
    let normed = run_with(&narrow::weights(&transformers), Last::Normed);
    assert!(apart(&normed, &wanted) < 1e-4);
    let openai = transformers.into_iter().map(|(name, shape, numbers)| {
        let name = name.strip_prefix("model.").unwrap().replace(".layers.", ".blocks.");
        let pairs = [
            ("embed_positions.weight", "positional_embedding"),
            ("self_attn_layer_norm", "attn_ln"),
            ("self_attn.q_proj", "attn.query"),
            ("self_attn.k_proj", "attn.key"),
            ("self_attn.v_proj", "attn.value"),
            ("self_attn.out_proj", "attn.out"),
            ("final_layer_norm", "mlp_ln"),
            ("fc1", "mlp.0"),
            ("fc2", "mlp.2"),
            ("encoder.layer_norm", "encoder.ln_post"),
        ];
        (pairs.iter().fold(name, |name, (from, to)| name.replace(from, to)), shape, numbers)
    });
    let plain = run_with(&narrow::weights(&openai.collect()), Last::Plain);
    let states = |all: &[f32], which: std::ops::Range<usize>| -> Vec<f32> {
        all.chunks_exact(48).flat_map(|moment| moment[16 * which.start..16 * which.end].to_vec()).collect()
    };
    assert!(apart(&states(&plain, 0..2), &states(&wanted, 0..2)) < 1e-4);
    assert!(apart(&states(&plain, 2..3), &states(&wanted, 2..3)) > 1e-2);
}

#[test]
fn a_network_of_another_version_is_refused_by_the_tensor() {
    let narrow = Narrow::open();
    let shape = latentsync::Shape { groups: 8, heads: 4, rows: 30, frames: 3, side: 8 };
    let build = |checkpoint: &narrow::Checkpoint, shape: &latentsync::Shape| {
        let mut graph = Graph::new("x", Precision::Fp32);
        latentsync::unet(&mut graph, &narrow::weights(checkpoint), shape).unwrap_err().to_string()
    };
    let whole = narrow.checkpoint("latentsync");
    let mut more = whole.clone();
    more.push(("class_embedding.weight".into(), vec![1], vec![0.0]));
    let error = build(&more, &shape);
    assert!(error.contains("tensor `class_embedding.weight`: expected nothing, found [1]"), "{error}");
    let mut less = whole.clone();
    less.retain(|(name, ..)| name != "mid_block.resnets.1.conv2.bias");
    less.retain(|(name, ..)| name != "mid_block.resnets.1.norm2.bias");
    let error = build(&less, &shape);
    assert!(error.contains("tensor `mid_block.resnets.1.norm2.bias`: expected [32], found nothing"), "{error}");
    let error = build(&whole, &latentsync::Shape { frames: 25, ..shape });
    assert!(error.contains("takes 24 frames at a time, not 25"), "{error}");
    let error = build(&whole, &latentsync::Shape { groups: 5, ..shape });
    assert!(error.contains("has no 5 groups") && error.contains("config.json"), "{error}");
    let error = build(&whole, &latentsync::Shape { heads: 5, ..shape });
    assert!(error.contains("has no 5 heads"), "{error}");
}
