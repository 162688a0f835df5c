use super::coder::{CHANNELS, Decode, EPSILON, Encode, FACTOR, LATENTS, PICTURES, PIXELS};
use crate::{
    Error, Result,
    engine::{Feed, KNOWN, LATENT, NOISE, Noise, Stage, StageKind, StepStage, Work, pass_through},
    manifest::{LatentSyncSection, Package},
    runtime::{Options, Tensor},
    schedule::Schedule,
};

/// Places of the stages.
const ENCODE: usize = 0;
const STEP: usize = 1;
const DECODE: usize = 2;
/// Tensors of the work: what is heard, `[1, frames, rows, width]`, the mask as the U-Net sees it, `[side / 8, side / 8]`, and
/// what is painted by, `[1, 9, frames, side / 8, side / 8]`: mask, masked face, whole face.
const SOUND: &str = "sound";
const MASK: &str = "mask";
const CONDITION: &str = "condition";
/// Clips in a batch.
const CLIPS: [usize; 3] = [1, 2, 4];

/// LatentSync's networks (bytedance/LatentSync, latentsync/pipelines/lipsync_pipeline.py): faces and their masked copies are
/// encoded, the clip's latents are denoised, and they are decoded.
pub(crate) struct ClipStages {
    stages: Vec<Box<dyn Stage>>,
}

/// What a clip is made from.
pub(crate) struct Ingredients<'a> {
    /// Aligned faces, `[frames, 3, side, side]`, RGB in -1..1.
    pub faces: &'a Tensor,
    /// 1: kept, 0: painted; `[side, side]`.
    pub mask: &'a [f32],
    /// `[frames, rows, width]`.
    pub sound: Tensor,
    /// What latents begin as, the same in all frames, `[4, side / 8, side / 8]`.
    pub noise: Vec<f32>,
    /// What encoded pictures are sampled by, `[2 frames, 4, side / 8, side / 8]`: of the masked faces, then of the whole.
    pub epsilon: Tensor,
    /// Finished latents of the clip's first frames, `[1, 4, k, side / 8, side / 8]`.
    pub known: Option<Tensor>,
}

impl ClipStages {
    pub(crate) fn load(package: &Package, options: &Options) -> Result<Self> {
        let missing =
            || Error::Manifest { origin: package.location(), key: "latentsync".into(), cause: "is missing".into() };
        let LatentSyncSection { side, latent_scale, frames, decoder, .. } =
            package.manifest().latentsync.as_ref().ok_or_else(missing)?;
        let pictures = CLIPS.iter().map(|clips| 2 * clips * frames).collect();
        let feeds = vec![
            Feed { tensors: vec![LATENT, CONDITION], port: "sample".into(), condition: false },
            Feed { tensors: vec![SOUND], port: "audio".into(), condition: true },
        ];
        // Guidance asks for two clips at a time.
        let steps = CLIPS.iter().map(|clips| 2 * clips).collect();
        Ok(Self {
            stages: vec![
                Box::new(Masked(Encode::new(package.network("encoder", options)?, *latent_scale, *side, pictures))),
                Box::new(StepStage::with_feeds(package.network("unet", options)?, feeds, "noise", steps)),
                Box::new(Decode::load(package, options, *decoder, *latent_scale, *side, CLIPS.to_vec())?),
            ],
        })
    }

    /// The work of a clip.
    pub(crate) fn work(&self, ingredients: Ingredients, schedule: &Schedule) -> Result<Work> {
        let Ingredients { faces, mask, mut sound, noise, epsilon, known } = ingredients;
        let [frames, 3, side, width] = faces.shape[..] else {
            return Err(Error::invalid(format!("faces of {:?} are not [frames, 3, side, side]", faces.shape)));
        };
        let small = side / FACTOR;
        let plane = small * small;
        if side != width
            || side % FACTOR != 0
            || frames == 0
            || mask.len() != side * side
            || noise.len() != CHANNELS * plane
        {
            return Err(Error::invalid(format!(
                "faces of {:?} do not go with a mask of {} and noise of {} numbers",
                faces.shape,
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
            .with(PIXELS, Tensor { shape: vec![2 * frames, 3, side, side], data: pixels })
            .with(EPSILON, epsilon)
            .with(MASK, Tensor { shape: vec![small, small], data: nearest })
            .with(LATENT, Tensor { shape: vec![1, CHANNELS, frames, small, small], data: latent })
            .with(SOUND, sound);
        if let Some(known) = known {
            work.put(NOISE, Tensor { shape: vec![1, CHANNELS, 1, small, small], data: noise });
            work.put(KNOWN, known);
        }
        work.pass(ENCODE);
        work.denoise(STEP, schedule);
        work.pass(DECODE);
        Ok(work)
    }

    /// Finished latents of a clip, `[1, 4, frames, side / 8, side / 8]`, and its pictures, `[frames, 3, side, side]`.
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

/// Encodes masked and whole faces, and lays them beside the mask.
struct Masked(Encode);

impl Stage for Masked {
    fn kind(&self) -> StageKind {
        self.0.kind()
    }

    fn inputs(&self) -> &[&'static str] {
        self.0.inputs()
    }

    fn sizes(&self) -> &[usize] {
        self.0.sizes()
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        self.0.run(batch)?;
        for work in batch {
            let condition = condition(&work.take(LATENTS)?, &work.tensor(MASK)?.data)?;
            work.put(CONDITION, condition);
        }
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        self.0.warm_up()
    }
}

fn condition(latents: &Tensor, mask: &[f32]) -> Result<Tensor> {
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
