//! A front-end that hears words: the first blocks of Whisper's encoder (Radford et al. 2022, arXiv 2212.04356) behind a causal mask,
//! whose keys and values are kept, and a small recurrent head. A token is 20 ms.
//!
//! - [`mel`]: Whisper's log-mel under a running maximum.
//! - [`ring`]: keys and values of the last tokens of a stream.
//! - [`network`]: the ONNX file, and one evaluation for the streams of a process.
//! - [`settled`]: where lasting silence leads.
//! - [`stream`]: the front-end of one stream.
//! - [`windows`]: that of a file, by a network which hears both ways over windows of sound.

mod mel;
mod network;
mod ring;
mod settled;
mod stream;
mod windows;

pub use stream::Hearing;
pub use windows::Windowed;

#[cfg(test)]
#[path = "../../../tests/common/windowed.rs"]
mod tiny;

/// What PyTorch computed of the small network of the tests, `tests/data/hearing.onnx`: width 16, two blocks, 8 features, weights
/// at random, written by `engines/train/hearing/export.py`.
#[cfg(test)]
struct Golden(Vec<u8>);

#[cfg(test)]
impl Golden {
    fn numbers(&self, name: &str) -> Vec<f32> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

#[cfg(test)]
fn golden() -> Golden {
    Golden(include_bytes!("../../../tests/data/hearing.safetensors").to_vec())
}
