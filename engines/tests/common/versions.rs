//! Small versions of the engine that is built in: they hear by the same front-end and draw from the person, without the refinement,
//! and what moves the mouth is made up.
#![allow(dead_code)]

use std::{fs, path::Path};

use lipstream_engines::{
    digest::sha256,
    import::onnx::{Dim, Graph, Precision},
};

const LATENT: usize = 12;
const DIMS: usize = 128;
const TAPS: usize = 7;

/// What a version does.
pub enum Motion {
    /// The mouth is held in one shape, another one for each number.
    Still(f32),
    /// As that, and what it says is not finite where the sum of features, each by its weight, is above so much in the mean of a window.
    Breaks { weights: Vec<f32>, above: f32 },
    /// Its file is no network.
    NoNetwork,
}

/// Writes a version to `folder`, which is made.
pub fn write(folder: &Path, name: &str, motion: &Motion) {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(match env!("CARGO_PKG_NAME") {
        "lipstream" => "engines/models/compact",
        _ => "../engines/models/compact",
    });
    fs::create_dir_all(folder).unwrap();
    for file in ["audio.onnx", "basis.safetensors"] {
        fs::copy(own.join(file), folder.join(file)).unwrap();
    }
    let network = match motion {
        Motion::Still(shape) => network(*shape, &[0.0; DIMS], f32::MAX),
        Motion::Breaks { weights, above } => network(0.0, weights, *above),
        Motion::NoNetwork => b"no network".to_vec(),
    };
    fs::write(folder.join("motion.onnx"), &network).unwrap();
    let text = fs::read_to_string(own.join("engine.toml")).unwrap();
    // Sections are told apart by empty lines.
    let sections = text.split("\n\n").filter(|section| !section.contains("[cost") && !section.contains("refine.onnx"));
    let section = |section: &str| match section.starts_with("[files.motion]") {
        true => format!("[files.motion]\npath = \"motion.onnx\"\nsha256 = \"{}\"", sha256(&network)),
        false => section.replace("name = \"compact\"", &format!("name = \"{name}\"")),
    };
    let text: Vec<String> = sections.map(section).collect();
    fs::write(folder.join("engine.toml"), text.join("\n\n") + "\n").unwrap();
}

fn network(shape: f32, weights: &[f32], above: f32) -> Vec<u8> {
    let mut graph = Graph::new("motion", Precision::Fp32);
    let rows = Dim::Free("rows");
    let latent = graph.input("latent", &[rows, Dim::Fixed(LATENT)]);
    let time = graph.input("timestep", &[rows]);
    let condition = graph.input("cond", &[rows, Dim::Fixed(TAPS * DIMS)]);
    let mean: Vec<f32> = weights.iter().cycle().take(TAPS * DIMS).map(|w| w / TAPS as f32).collect();
    let heard = graph.linear(&condition, [1, TAPS * DIMS], &mean, None).unwrap();
    let beyond = graph.affine(&heard, 1.0, -above);
    let beyond = graph.relu(&beyond);
    let huge = graph.affine(&beyond, 1e38, 0.0);
    let infinite = graph.affine(&huge, 1e38, 0.0);
    // Nothing of infinity is no number, and of nothing it is nothing.
    let broken = graph.affine(&infinite, 0.0, 0.0);
    let still = graph.affine(&latent, -0.9, shape);
    let time = graph.reshape(&time, &[-1, 1]);
    let time = graph.affine(&time, 0.0, 0.0);
    let still = graph.add(&still, &time);
    let prediction = graph.add(&still, &broken);
    graph.output("prediction", &[rows, Dim::Fixed(LATENT)], prediction);
    graph.finish()
}
