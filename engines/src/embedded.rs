//! The engines that travel inside the binary, so that an element works wherever its shared object is put.

/// One engine: its manifest and the files that the manifest names.
#[derive(Debug)]
pub struct Bundle {
    pub name: &'static str,
    pub manifest: &'static str,
    pub files: Files,
}

type Files = &'static [(&'static str, &'static [u8])];

macro_rules! files {
    ($folder:literal, $($file:literal),+) => {
        &[$(($file, include_bytes!(concat!("../models/", $folder, "/", $file)))),+]
    };
}

macro_rules! bundle {
    ($name:literal, $files:expr) => {
        Bundle { name: $name, manifest: include_str!(concat!("../models/", $name, "/engine.toml")), files: $files }
    };
}

static COMPACT: Files = files!("compact", "audio.onnx", "motion.onnx", "basis.safetensors", "refine.onnx");

pub static BUNDLES: [Bundle; 6] = [
    bundle!("compact", COMPACT),
    // The same weights, larger crops.
    bundle!("compact-hd", COMPACT),
    // Another hearing and motion, the same pictures.
    bundle!(
        "compact-words",
        files!(
            "compact-words",
            "audio.onnx",
            "audio-whole.onnx",
            "motion-whole.onnx",
            "motion-160.onnx",
            "motion-120.onnx",
            "motion-80.onnx",
            "basis.safetensors",
            "refine.onnx"
        )
    ),
    bundle!("expert", files!("expert", "lips.onnx", "voice.onnx")),
    bundle!("occlusion", files!("occlusion", "mask.onnx")),
    bundle!("tracker", files!("tracker", "detector.onnx", "landmarks.onnx", "lips.onnx")),
];
