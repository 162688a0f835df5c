use super::{
    coder::{CHANNELS, Decode, EPSILON, Encode, FACTOR, LATENTS, PICTURES, PIXELS, opened},
    mask,
};
use crate::{
    Error, Result,
    engine::{Clip, Feed, KNOWN, LATENT, Noise, Stage, StepStage, TRAIL, Then, Work, pass_through},
    manifest::{LatentSyncSection, Package},
    runtime::{Device, Options, Tensor},
    schedule::Schedule,
};

/// Places of the stages.
pub(super) const ENCODE: usize = 0;
pub(super) const STEP: usize = 1;
pub(super) const DECODE: usize = 2;
/// Tensors of the work: what is heard, `[1, frames, rows, width]`, the mask as the U-Net sees it, `[side / 8, side / 8]`, and
/// what is painted by, `[1, 9, frames, side / 8, side / 8]`: mask, masked face, whole face; of the frames that are known too
/// before the others are encoded.
pub(super) const SOUND: &str = "sound";
const MASK: &str = "mask";
pub(super) const CONDITION: &str = "condition";
pub(super) const KNOWN_CONDITION: &str = "known condition";
/// One frame's picture of a finished clip, `[1, 3, side, side]`, RGB in about -1..1.
pub(super) const PICTURE: &str = "picture";
/// Clips in a batch.
pub(super) const CLIPS: [usize; 3] = [1, 2, 4];

/// LatentSync's networks (bytedance/LatentSync, latentsync/pipelines/lipsync_pipeline.py): faces and their masked copies are
/// encoded, the clip's latents are denoised, and they are decoded.
pub(crate) struct ClipStages {
    pub(super) stages: Vec<Box<dyn Stage>>,
    /// Batches that their device takes at a time.
    pub(super) lanes: usize,
    /// 1: kept, 0: painted; `[side, side]`.
    pub(super) mask: Vec<f32>,
    side: usize,
    /// Rows of sound of a frame, and their width.
    sound: [usize; 2],
}

/// What a clip is made from.
pub(crate) struct Ingredients<'a> {
    /// Aligned faces of its new frames, `[n, 3, side, side]`, RGB in -1..1.
    pub faces: &'a Tensor,
    /// 1: kept, 0: painted; `[side, side]`.
    pub mask: &'a [f32],
    /// What all of its frames hear, `[frames, rows, width]`.
    pub sound: Tensor,
    /// What latents begin as, the same in all frames, `[4, side / 8, side / 8]`.
    pub noise: Vec<f32>,
    /// What encoded pictures are sampled by, `[2 n, 4, side / 8, side / 8]`: of the masked faces, then of the whole.
    pub epsilon: Tensor,
    /// Its first frames, which are known.
    pub past: Option<Past>,
}

/// Frames that were finished before.
pub(crate) struct Past {
    /// Their latents before each step and after the last, `[steps + 1, 4, k, side / 8, side / 8]`,
    pub latents: Tensor,
    /// what they were painted by, `[1, 9, k, side / 8, side / 8]`,
    pub condition: Tensor,
    /// and what they heard, `[k, rows, width]`.
    pub sound: Vec<f32>,
}

impl Past {
    pub fn frames(&self) -> usize {
        self.latents.shape.get(2).copied().unwrap_or(0)
    }
}

/// A new frame of a stream.
pub(super) struct Fresh {
    /// The aligned face, `[3, side, side]`, RGB in -1..1.
    pub face: Vec<f32>,
    /// `[rows, width]`.
    pub sound: Vec<f32>,
    /// What its encoded pictures are sampled by, `[2, 4, side / 8, side / 8]`: of the masked face, then of the whole.
    pub epsilon: Vec<f32>,
}

/// The section of the family.
pub(super) fn section(package: &Package) -> Result<&LatentSyncSection> {
    package.manifest().latentsync.as_ref().ok_or_else(|| missing(package, "latentsync"))
}

pub(super) fn missing(package: &Package, key: &str) -> Error {
    Error::Manifest { origin: package.location(), key: key.into(), cause: "is missing".into() }
}

impl ClipStages {
    /// For clips of `clip`.
    pub(crate) fn load(package: &Package, options: &Options, clip: Clip) -> Result<Self> {
        let LatentSyncSection { side, latent_scale, decoder, sound, .. } = section(package)?;
        let sound = [sound.moments * sound.states, sound.width];
        let feeds = vec![
            Feed { tensors: vec![LATENT, CONDITION], port: "sample".into(), condition: false, frames: Some(2) },
            Feed { tensors: vec![SOUND], port: "audio".into(), condition: true, frames: Some(1) },
        ];
        let unet = package.network("unet", options)?;
        let lanes = unet.at_a_time();
        let pictures = CLIPS.iter().map(|clips| 2 * clips * clip.hop).collect();
        // Guidance asks for two clips at a time.
        let steps = [1].into_iter().chain(CLIPS.map(|clips| 2 * clips)).collect();
        let (device, by_shape) = (unet.device(), unet.by_shape());
        let frames = if device == Device::Cpu { 1 } else { clip.frames };
        let open: Vec<_> = opened(*side, device).into_iter().chain([("frames", frames)]).collect();
        let mut denoise = StepStage::with_feeds(unet, feeds, "noise", steps).with_open(&open);
        if !matches!(device, Device::Cuda(_)) {
            denoise = denoise.in_pieces(1);
        }
        // The published program's last clip is as short as it is.
        if by_shape && !package.is_exact() {
            denoise = denoise.with_frames(clip.frames);
        }
        let encode = Encode::new(package.network("encoder", options)?, *latent_scale, *side, pictures);
        let decode = Decode::load(package, options, *decoder, *latent_scale, *side, (CLIPS.to_vec(), clip.hop))?;
        Ok(Self {
            stages: vec![Box::new(Then::new(encode, mask_and_faces)), Box::new(denoise), Box::new(decode)],
            lanes,
            mask: mask::pixels(*side),
            side: *side,
            sound,
        })
    }

    /// The work of new frames of a stream after what is `past`; all latents begin as `noise`.
    ///
    /// Errors: frames of other sizes than the networks'.
    pub(super) fn continued(
        &self,
        fresh: &[Fresh],
        past: Option<Past>,
        noise: &[f32],
        schedule: &Schedule,
    ) -> Result<Work> {
        let (side, small, [rows, width]) = (self.side, self.side / FACTOR, self.sound);
        let one = CHANNELS * small * small;
        if let Some(frame) = fresh.iter().find(|frame| {
            frame.face.len() != 3 * side * side || frame.sound.len() != rows * width || frame.epsilon.len() != 2 * one
        }) {
            return Err(Error::invalid(format!(
                "a face of {} numbers with {} of sound and {} of noise is not one of {side} pixels with {rows} rows of {width}",
                frame.face.len(),
                frame.sound.len(),
                frame.epsilon.len()
            )));
        }
        let frames = past.as_ref().map_or(0, Past::frames) + fresh.len();
        let heard = past.iter().map(|past| &past.sound).chain(fresh.iter().map(|frame| &frame.sound));
        let sound = Tensor { shape: vec![frames, rows, width], data: heard.flatten().copied().collect() };
        let faces = fresh.iter().flat_map(|frame| frame.face.iter().copied()).collect();
        let half = |half: usize| fresh.iter().flat_map(move |frame| &frame.epsilon[half * one..][..one]);
        let epsilon = half(0).chain(half(1)).copied().collect();
        let ingredients = Ingredients {
            faces: &Tensor { shape: vec![fresh.len(), 3, side, side], data: faces },
            mask: &self.mask,
            sound,
            noise: noise.to_vec(),
            epsilon: Tensor { shape: vec![2 * fresh.len(), CHANNELS, small, small], data: epsilon },
            past,
        };
        self.work(ingredients, schedule)
    }

    /// The work of a clip.
    pub(crate) fn work(&self, ingredients: Ingredients, schedule: &Schedule) -> Result<Work> {
        let Ingredients { faces, mask, mut sound, noise, epsilon, past } = ingredients;
        let [count, 3, side, width] = faces.shape[..] else {
            return Err(Error::invalid(format!("faces of {:?} are not [n, 3, side, side]", faces.shape)));
        };
        let small = side / FACTOR;
        let plane = small * small;
        let frames = past.as_ref().map_or(0, Past::frames) + count;
        if side != width
            || side % FACTOR != 0
            || count == 0
            || mask.len() != side * side
            || noise.len() != CHANNELS * plane
            || sound.shape.first() != Some(&frames)
        {
            return Err(Error::invalid(format!(
                "faces of {:?}, {frames} in all, do not go with sound of {:?}, a mask of {} and noise of {} numbers",
                faces.shape,
                sound.shape,
                mask.len(),
                noise.len()
            )));
        }
        // What is painted is grey to the encoder.
        let hidden =
            faces.data.chunks_exact(side * side).flat_map(|face| face.iter().zip(mask).map(|(v, keep)| v * keep));
        let pixels = hidden.chain(faces.data.iter().copied()).collect();
        let nearest = (0..plane).map(|i| mask[i / small * FACTOR * side + i % small * FACTOR]).collect();
        let latent = noise.chunks_exact(plane).flat_map(|channel| channel.repeat(frames)).collect();
        sound.shape.insert(0, 1);
        let mut work = Work::new(Noise::default())
            .with(PIXELS, Tensor { shape: vec![2 * count, 3, side, side], data: pixels })
            .with(EPSILON, epsilon)
            .with(MASK, Tensor { shape: vec![small, small], data: nearest })
            .with(LATENT, Tensor { shape: vec![1, CHANNELS, frames, small, small], data: latent })
            .with(TRAIL, Tensor { shape: vec![0, CHANNELS, frames, small, small], data: Vec::new() })
            .with(SOUND, sound);
        if let Some(past) = past {
            work.put(KNOWN, past.latents);
            work.put(KNOWN_CONDITION, past.condition);
        }
        work.pass(ENCODE);
        work.denoise(STEP, schedule);
        work.pass(DECODE);
        Ok(work)
    }

    /// Finished latents of a clip, `[1, 4, frames, side / 8, side / 8]`, and pictures of its new frames, `[n, 3, side, side]`.
    pub(crate) fn complete(&self, mut work: Work) -> Result<(Tensor, Tensor)> {
        pass_through(&self.stages, &mut work)?;
        Ok((work.take(LATENT)?, work.take(PICTURES)?))
    }
}

/// The published composition of a face: `picture (1 - mask) + face mask`, not clamped.
pub(crate) fn composed(pictures: &mut Tensor, faces: &Tensor, mask: &[f32]) {
    let planes = pictures.data.chunks_exact_mut(mask.len().max(1)).zip(faces.data.chunks_exact(mask.len().max(1)));
    for (picture, face) in planes {
        for ((own, face), keep) in picture.iter_mut().zip(face).zip(mask) {
            *own = *own * (1.0 - keep) + face * keep;
        }
    }
}

/// Latents of masked and whole faces beside the mask, after those of the frames that are known.
fn mask_and_faces(work: &mut Work) -> Result<()> {
    let mut all = condition(&work.take(LATENTS)?, &work.tensor(MASK)?.data)?;
    if work.get(KNOWN_CONDITION).is_some() {
        all = after(&work.take(KNOWN_CONDITION)?, &all)?;
    }
    work.put(CONDITION, all);
    Ok(())
}

/// Frames `[1, channels, n, height, width]` after those that were before.
pub(crate) fn after(before: &Tensor, frames: &Tensor) -> Result<Tensor> {
    let mut shape = frames.shape.clone();
    let alike = before.shape.len() == 5
        && shape.len() == 5
        && before.shape.iter().zip(&shape).enumerate().all(|(i, (a, b))| i == 2 || a == b);
    if !alike {
        return Err(Error::invalid(format!("frames of {shape:?} do not go on from {:?}", before.shape)));
    }
    let frame = shape[3] * shape[4];
    let old = before.data.chunks_exact((before.shape[2] * frame).max(1));
    let channels = old.zip(frames.data.chunks_exact((shape[2] * frame).max(1)));
    let data = channels.flat_map(|(old, new)| old.iter().chain(new)).copied().collect();
    shape[2] += before.shape[2];
    Ok(Tensor { shape, data })
}

pub(crate) fn condition(latents: &Tensor, mask: &[f32]) -> Result<Tensor> {
    let [pictures, channels, height, width] = latents.shape[..] else {
        return Err(Error::invalid(format!("latents of {:?} are no pictures", latents.shape)));
    };
    let (frames, plane) = (pictures / 2, height * width);
    if mask.len() != plane {
        return Err(Error::invalid(format!("a mask of {} numbers for latents of {:?}", mask.len(), latents.shape)));
    }
    let mut data = mask.repeat(frames);
    for first in [0, frames] {
        for channel in 0..channels {
            for frame in first..first + frames {
                let from = (frame * channels + channel) * plane;
                data.extend_from_slice(&latents.data[from..from + plane]);
            }
        }
    }
    Ok(Tensor { shape: vec![1, 1 + 2 * channels, frames, height, width], data })
}
