//! A small network over windows of sound, with weights of noise, and an engine that has it for files.
#![allow(dead_code)]

use std::{fs, path::Path};

use lipstream_engines::{
    digest::sha256,
    engine::Noise,
    import::onnx::{Conv, Dim, Graph, Precision},
};

/// `mel` `[batch, 2 tokens + 3, 80]` to `feature` `[batch, tokens, features]`: each token looks at all of its window.
pub fn hearing(features: usize) -> Vec<u8> {
    let mut noise = Noise::new(7, 0.0, 1.0);
    let mut graph = Graph::new("windowed", Precision::Fp32);
    let free = |name| Dim::Free(name);
    let mel = graph.input("mel", &[free("batch"), free("frames"), Dim::Fixed(80)]);
    let x = graph.reshape(&mel, &[0, 1, -1, 80]);
    // Of 40 tokens, or of any.
    let x = graph.picture(x, [1, 83, 80]);
    let conv = Conv {
        shape: [features, 1, 5, 80],
        weight: (0..features * 400).map(|_| 0.03 * noise.normal()).collect(),
        bias: vec![0.1; features],
        stride: [2, 1],
        padding: [0, 0],
        groups: 1,
    };
    let y = graph.conv(&x, conv).unwrap();
    let y = graph.reshape(&y, &[0, features as i64, -1]);
    let tokens = graph.transpose(&y, &[0, 2, 1]);
    let scores = graph.product(&tokens, &y);
    let shares = graph.softmax(&scores);
    let seen = graph.product(&shares, &tokens);
    let feature = graph.add(&tokens, &seen);
    graph.output("feature", &[free("batch"), free("tokens"), Dim::Fixed(features)], feature);
    graph.finish()
}

/// `compact-words` with windows of `tokens` tokens less `margin` at either end, in `folder`, for a look-ahead of so many
/// milliseconds.
pub fn engine(folder: &Path, (tokens, margin): (usize, usize), look_ahead: u32) {
    let crates = ["", "engines", "../engines"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let shipped = crates.map(|folder| folder.join("models/compact-words")).into_iter().find(|folder| folder.exists());
    let shipped = shipped.expect("the engine is shipped");
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir(shipped).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let network = hearing(96);
    fs::write(folder.join("tiny.onnx"), &network).unwrap();
    let mut text = fs::read_to_string(folder.join("engine.toml")).unwrap();
    // In the place of the alternatives that it has.
    let (begin, end) = (text.find("[[audio.alternatives]]").unwrap(), text.find("[latent]").unwrap());
    let taps = "[-80, -60, -40, -20, 0, 20, 40, 60, 80, 100, 120]";
    text.replace_range(
        begin..end,
        &format!(
            "[[audio.alternatives]]\nlook_ahead_ms = {look_ahead}\ntaps_ms = {taps}\nmotion = \"motion-160\"\n\
             hearing = {{ audio = \"tiny\", features = 96, window = {{ tokens = {tokens}, margin = {margin} }}, gflop = 0.5 }}\n\n\
             [[audio.alternatives]]\nlook_ahead_ms = 160\ntaps_ms = {taps}\nmotion = \"motion-160\"\n\n"
        ),
    );
    text = text.replacen(
        "[files.audio]",
        &format!("[files.tiny]\npath = \"tiny.onnx\"\nsha256 = \"{}\"\n\n[files.audio]", sha256(&network)),
        1,
    );
    fs::write(folder.join("engine.toml"), text).unwrap();
}
