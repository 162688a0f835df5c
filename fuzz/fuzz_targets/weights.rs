//! Weight files: safetensors, PyTorch's zip files and its legacy container, with the pickles in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream_engines::tensor::Weights;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(weights) = Weights::from_bytes("fuzz", bytes.to_vec()) {
        for name in weights.names() {
            if let Some(shape) = weights.shape(name).map(<[usize]>::to_vec) {
                drop(weights.f32(name, &shape));
            }
        }
    }
});
