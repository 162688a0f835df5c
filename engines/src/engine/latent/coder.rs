use std::sync::Arc;

use super::pictures_at_a_time;
use crate::{
    Error, Result,
    engine::{KNOWN, LATENT, NetworkStage, Stage, StageKind, Work},
    manifest::{self, Package},
    runtime::{Device, Model, Options, Tensor},
};

/// Pictures to be encoded, `[n, 3, side, side]`, RGB in -1..1.
pub(super) const PIXELS: &str = "pixels";
/// What latents are sampled by, standard normal, `[n, 4, side / 8, side / 8]`.
pub(super) const EPSILON: &str = "epsilon";
/// Encoded pictures as a U-Net sees them, `[n, 4, side / 8, side / 8]`.
pub(super) const LATENTS: &str = "latents";
/// Decoded pictures, as [`PIXELS`]; they may go a little beyond -1..1.
pub(super) const PICTURES: &str = "pictures";
/// Pixels of a latent's side.
pub(super) const FACTOR: usize = 8;
/// Channels of a latent.
pub(super) const CHANNELS: usize = 4;
pub(super) const MEAN: &str = "mean";
pub(super) const LOG_VARIANCE: &str = "logvar";
/// Latents as the decoder sees them.
const PLAIN: &str = "plain";

/// Pixels of a side of the smallest picture that all networks of pictures take: the U-Nets halve its latents three times.
const SMALLEST: usize = 8 * FACTOR;

/// Most pictures of one evaluation where a program is compiled for each number of them.
const PICTURES_COMPILED: usize = 4;

/// The dimensions that our networks of pictures leave open, as they are tried before the first picture of `side` pixels: as large
/// where the device compiles or chooses by them, and small on a processor, where a whole clip takes as long as ever.
pub(super) fn opened(side: usize, device: Device) -> [(&'static str, usize); 4] {
    let side = if device == Device::Cpu { side.min(SMALLEST) } else { side };
    let latents = side / FACTOR;
    [("height", side), ("width", side), ("latent_height", latents), ("latent_width", latents)]
}

/// Pictures of `side` pixels of one evaluation; few where every number of them is a program that is compiled.
fn pieces(side: usize, device: Device) -> usize {
    let most = pictures_at_a_time(side);
    if device.wants_fixed_shapes() { most.min(PICTURES_COMPILED) } else { most }
}

/// Pixels to latents: a sample of the posterior that the encoder gives (Kingma and Welling 2013, arXiv 1312.6114), scaled.
pub(super) struct Encode {
    network: NetworkStage,
    scale: f32,
}

impl Encode {
    /// `side` is that of its pictures as a rule; `sizes` are pictures.
    pub(super) fn new(model: Arc<Model>, scale: f32, side: usize, sizes: Vec<usize>) -> Self {
        let (open, pieces) = (opened(side, model.device()), pieces(side, model.device()));
        let network = NetworkStage::new(StageKind::Encode, model, &[PIXELS], &[MEAN, LOG_VARIANCE], sizes);
        Self { network: network.with_open(&open).in_pieces(pieces), scale }
    }
}

impl Stage for Encode {
    fn kind(&self) -> StageKind {
        self.network.kind()
    }

    fn inputs(&self) -> &[&'static str] {
        self.network.inputs()
    }

    fn sizes(&self) -> &[usize] {
        self.network.sizes()
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        self.network.run(batch)?;
        for work in batch {
            let (mut mean, log_variance) = (work.take(MEAN)?, work.take(LOG_VARIANCE)?);
            let epsilon = work.take(EPSILON)?;
            if epsilon.shape != mean.shape || log_variance.shape != mean.shape {
                return Err(Error::invalid(format!("noise of {:?} for latents of {:?}", epsilon.shape, mean.shape)));
            }
            sample(&mut mean.data, &log_variance.data, &epsilon.data, self.scale);
            work.put(LATENTS, mean);
        }
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        self.network.warm_up()
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        self.network.try_out(rows)
    }
}

/// A sample of normal distributions, multiplied by `scale`; `epsilon` is standard normal.
pub(crate) fn sample(mean: &mut [f32], log_variance: &[f32], epsilon: &[f32], scale: f32) {
    for ((value, log_variance), epsilon) in mean.iter_mut().zip(log_variance).zip(epsilon) {
        *value = (*value + (0.5 * log_variance).exp() * epsilon) * scale;
    }
}

/// What a decoder's latents are multiplied by for a U-Net that sees those of the autoencoder multiplied by `scale`: TAESD takes
/// latents as the U-Net has them.
pub(super) fn scale_of(decoder: manifest::Decoder, scale: f32) -> f32 {
    if decoder == manifest::Decoder::Taesd { 1.0 } else { scale }
}

/// Latents of clips, `[n, 4, frames, side, side]`, to pictures, `[n frames, 3, 8 side, 8 side]`; but for those of the frames that
/// are known, a clip's first.
pub(super) struct Decode {
    network: NetworkStage,
    scale: f32,
    /// Clips of a batch, and pictures that one of them becomes as a rule.
    sizes: Vec<usize>,
    pictures: usize,
}

impl Decode {
    /// The decoder that an engine takes, whose U-Net sees latents multiplied by `scale`; `side` is that of its pictures as a
    /// rule, and `sizes` are clips, each of which becomes `pictures`.
    pub(super) fn load(
        package: &Package,
        options: &Options,
        decoder: manifest::Decoder,
        scale: f32,
        side: usize,
        (sizes, pictures): (Vec<usize>, usize),
    ) -> Result<Self> {
        let model = package.network(decoder.part(), options)?;
        let scale = scale_of(decoder, scale);
        let (open, pieces) = (opened(side, model.device()), pieces(side, model.device()));
        let network = NetworkStage::new(StageKind::Decode, model, &[PLAIN], &[PICTURES], Vec::new())
            .with_ports(&["latents".into()], &["pixels".into()])
            .with_open(&open)
            .in_pieces(pieces);
        Ok(Self { network, scale, sizes, pictures })
    }
}

impl Stage for Decode {
    fn kind(&self) -> StageKind {
        StageKind::Decode
    }

    fn inputs(&self) -> &[&'static str] {
        &[LATENT]
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        for work in &mut *batch {
            let known = work.get(KNOWN).and_then(|known| known.shape.get(2)).copied().unwrap_or(0);
            let plain = frames(work.tensor(LATENT)?, known, 1.0 / self.scale)?;
            work.put(PLAIN, plain);
        }
        self.network.run(batch)?;
        for work in batch {
            drop(work.take(PLAIN)?);
        }
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        self.network.warm_up()
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        self.network.try_out(rows * self.pictures)
    }
}

/// `[n, channels, frames, h, w]` as `[n frames, channels, h, w]`, multiplied by `scale`, without the first frames of each, which
/// are `known`.
pub(crate) fn frames(clips: &Tensor, known: usize, scale: f32) -> Result<Tensor> {
    let [count, channels, frames, height, width] = clips.shape[..] else {
        return Err(Error::invalid(format!("latents of {:?} are no clips", clips.shape)));
    };
    let plane = height * width;
    let mut data = Vec::with_capacity(clips.data.len());
    for clip in clips.data.chunks_exact((channels * frames * plane).max(1)) {
        for frame in known..frames {
            for channel in 0..channels {
                let from = (channel * frames + frame) * plane;
                data.extend(clip[from..from + plane].iter().map(|v| v * scale));
            }
        }
    }
    Ok(Tensor { shape: vec![count * frames.saturating_sub(known), channels, height, width], data })
}
