//! The engines that travel inside the binary, so that an element works wherever its shared object is put.

/// One engine: its manifest and the files that the manifest names.
#[derive(Debug)]
pub struct Bundle {
    pub name: &'static str,
    pub manifest: &'static str,
    pub files: &'static [(&'static str, &'static [u8])],
}

macro_rules! bundle {
    ($name:literal, $($file:literal),+) => {
        Bundle {
            name: $name,
            manifest: include_str!(concat!("../models/", $name, "/engine.toml")),
            files: &[$(($file, include_bytes!(concat!("../models/", $name, "/", $file)))),+],
        }
    };
}

pub static BUNDLES: [Bundle; 3] = [
    bundle!("compact", "audio.onnx", "motion.onnx", "basis.safetensors", "refine.onnx"),
    bundle!("expert", "lips.onnx", "voice.onnx"),
    bundle!("tracker", "detector.onnx", "landmarks.onnx"),
];
