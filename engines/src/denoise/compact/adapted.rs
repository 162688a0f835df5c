//! What an adapted engine knows of one person's speech: a small linear correction of the finished latent.
//!
//! `z' = z + motion z + sound (a - s)`, where `z` is the general engine's latent, `a` the window of audio features and `s`
//! the same window in lasting silence, so that silence leaves the latent as it is.

use std::sync::Arc;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Error, Result};

/// No honest correction has a number beyond this; latents are in population deviations, features near 1.
const LARGEST: f32 = 100.0;
/// A latent is kept within so many population deviations.
const FAR: f32 = 12.0;
/// Of the file: 16384 features for a latent of 64 numbers would be 4 MiB.
const MAX_BYTES: usize = 16 << 20;

/// Tensors of the file, all f32: `motion [D, D]`, `sound [D, W]`, W being the numbers of an audio window.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// `[D * D]`, row by row.
    motion: Vec<f32>,
    /// `[D * W]`, row by row.
    sound: Vec<f32>,
    /// `[W]`
    silence: Arc<[f32]>,
}

impl Adapter {
    /// `silence` is the window of lasting silence, `[W]`. Refuses numbers that are not finite or out of all proportion.
    pub fn new(motion: Vec<f32>, sound: Vec<f32>, silence: Arc<[f32]>) -> Result<Self> {
        let latent = motion.len().isqrt();
        if motion.is_empty() || latent * latent != motion.len() || sound.len() != latent * silence.len() {
            return Err(Error::invalid("the correction's matrices do not fit each other"));
        }
        match motion.iter().chain(&sound).find(|v| v.is_nan() || v.abs() > LARGEST) {
            Some(v) => Err(Error::invalid(format!("the correction has {v}, outside -{LARGEST}..{LARGEST}"))),
            None => Ok(Self { motion, sound, silence }),
        }
    }

    /// Reads what [`serialize`](Self::serialize) wrote, for latents of `latent` numbers. `name` is what errors call it.
    pub(super) fn read(name: &str, bytes: &[u8], latent: usize, silence: Arc<[f32]>) -> Result<Self> {
        let runtime = |cause: String| Error::Runtime { model: name.into(), cause };
        if bytes.len() > MAX_BYTES {
            return Err(runtime(format!("is larger than {} MiB", MAX_BYTES >> 20)));
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| runtime(format!("is not a safetensors file: {e}")))?;
        let tensor = |key: &str, shape: [usize; 2]| {
            let refuse = |found: String| Error::Mismatch {
                model: name.into(),
                what: format!("tensor `{key}`"),
                expected: format!("f32 {shape:?}"),
                found,
            };
            let view = file.tensor(key).map_err(|_| refuse("nothing".into()))?;
            if view.dtype() != Dtype::F32 || view.shape() != shape {
                return Err(refuse(format!("{:?} {:?}", view.dtype(), view.shape())));
            }
            Ok(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>())
        };
        let (motion, sound) = (tensor("motion", [latent, latent])?, tensor("sound", [latent, silence.len()])?);
        Self::new(motion, sound, silence).map_err(|e| runtime(e.to_string()))
    }

    /// The file's bytes.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        let latent = self.motion.len().isqrt();
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (motion, sound) = (bytes(&self.motion), bytes(&self.sound));
        let view = |shape: [usize; 2], data| TensorView::new(Dtype::F32, shape.to_vec(), data);
        let file = || {
            let motion = view([latent, latent], &motion)?;
            let sound = view([latent, self.silence.len()], &sound)?;
            safetensors::serialize([("motion", motion), ("sound", sound)], None)
        };
        file().map_err(|e| Error::invalid(e.to_string()))
    }

    /// Corrects a finished latent, `[D]`, of the audio window `audio`, `[W]`; of others nothing is changed.
    pub fn apply(&self, latent: &mut [f32], audio: &[f32]) {
        if latent.len() * latent.len() != self.motion.len() || audio.len() != self.silence.len() {
            return;
        }
        let heard: Vec<f32> = audio.iter().zip(&*self.silence).map(|(a, s)| a - s).collect();
        let dot = |row: &[f32], vector: &[f32]| row.iter().zip(vector).map(|(m, v)| m * v).sum::<f32>();
        let rows = self.motion.chunks_exact(latent.len()).zip(self.sound.chunks_exact(heard.len()));
        let change: Vec<f32> = rows.map(|(motion, sound)| dot(motion, latent) + dot(sound, &heard)).collect();
        latent.iter_mut().zip(change).for_each(|(z, c)| *z = (*z + c).clamp(-FAR, FAR));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter() -> Adapter {
        let silence: Arc<[f32]> = vec![0.5, -0.5, 1.0].into();
        Adapter::new(vec![0.0, 1.0, 0.0, 0.0], vec![0.0, 0.0, 2.0, 1.0, 0.0, 0.0], silence).unwrap()
    }

    #[test]
    fn a_file_says_what_was_written() {
        let (adapter, silence) = (adapter(), adapter().silence);
        let bytes = adapter.serialize().unwrap();
        assert_eq!(Adapter::read("person", &bytes, 2, silence).unwrap(), adapter);
    }

    #[test]
    fn silence_leaves_a_mouth_at_rest() {
        let mut latent = [0.0, 0.0];
        adapter().apply(&mut latent, &[0.5, -0.5, 1.0]);
        assert_eq!(latent, [0.0, 0.0]);
        let mut latent = [1.0, 2.0];
        adapter().apply(&mut latent, &[1.5, -0.5, 2.0]);
        assert_eq!(latent, [5.0, 3.0]);
    }

    #[test]
    fn a_latent_stays_within_bounds_whatever_is_heard() {
        let mut latent = [1.0, 2.0];
        adapter().apply(&mut latent, &[1e6, 0.0, -1e6]);
        assert_eq!(latent, [-FAR, FAR]);
    }

    #[test]
    fn files_that_do_not_fit_are_refused_with_a_reason() {
        let (bytes, silence) = (adapter().serialize().unwrap(), adapter().silence);
        let read = |bytes: &[u8], latent| Adapter::read("p", bytes, latent, silence.clone()).unwrap_err().to_string();
        assert!(read(&bytes, 3).contains("`motion`: expected f32 [3, 3], found F32 [2, 2]"), "{}", read(&bytes, 3));
        assert!(read(&bytes[..40], 2).contains("not a safetensors file"));
        let mut wild = adapter();
        wild.sound[3] = f32::NAN;
        assert!(read(&wild.serialize().unwrap(), 2).contains("NaN"));
    }
}
