//! What engines of latents share in the memory of a device: a face's crop becomes pictures of the network's, and a picture of its
//! a patch.
//!
//! - [`coder`]: the autoencoder as stages.

mod coder;

use std::sync::Arc;

pub(super) use coder::{CONDITIONS, Decode, Encode};

use super::coder::{CHANNELS, FACTOR};
use crate::{
    Result,
    cuda::{Buffer, Memory},
    engine::{
        DeviceTensor, KNOWN, LATENT, Patch, Work,
        device::{Coverage, DevicePicture},
    },
    geometry::{Rect, Similarity},
    kernels::{self, DeviceCrop, Masked, Order, Planes, put},
};

/// What streams share.
pub(super) struct Shared {
    pub memory: Arc<dyn Memory>,
    /// Pixels of a side of a picture, and numbers of a side of its latents.
    pub side: usize,
    pub small: usize,
    /// Rows of sound of a frame, and their width.
    pub sound: [usize; 2],
    /// 1: kept, 0: painted; `[side, side]`, and at an eighth of it, `[small, small]`.
    mask: Buffer<f32>,
    small_mask: Buffer<f32>,
    /// What painted pixels are to the encoder, in -1..1.
    hidden: f32,
}

impl Shared {
    /// `masks` are 1 where is kept and 0 where is painted, `[side, side]` and at an eighth of it; what is painted is `hidden` to the
    /// encoder.
    pub fn new(
        memory: &Arc<dyn Memory>,
        side: usize,
        sound: [usize; 2],
        masks: [&[f32]; 2],
        hidden: f32,
    ) -> Result<Self> {
        let [mask, small_mask] = masks.map(|mask| Buffer::of(memory, mask));
        let (memory, small) = (Arc::clone(memory), side / FACTOR);
        Ok(Self { memory, side, small, sound, mask: mask?, small_mask: small_mask?, hidden })
    }

    /// Numbers of a channel of latents.
    pub fn plane(&self) -> usize {
        self.small * self.small
    }

    /// Latents of a clip for the kernels.
    pub fn clip(&self, frames: usize, kept: usize) -> kernels::Clip {
        kernels::Clip { channels: CHANNELS, frames, kept, plane: self.plane() }
    }

    /// The part `inner` of a crop as the encoder sees it, -1..1, `[3, side, side]`: with what is painted hidden as picture
    /// `masked` of `pixels`, and whole as picture `whole`.
    pub fn show(
        &self,
        crop: &DeviceCrop,
        inner: &Rect,
        pixels: &Buffer<f32>,
        [masked, whole]: [usize; 2],
    ) -> Result<()> {
        let picture = 3 * self.side * self.side;
        let masked = Masked { out: (pixels, masked * picture), mask: &self.mask, hidden: self.hidden };
        let out = (pixels, whole * picture);
        let planes = Planes { side: self.side, order: Order::Rgb, scale: 2.0, offset: -1.0, out, masked: Some(masked) };
        crop.show(&self.memory, Some(inner), &planes)
    }

    /// A network's picture, `[1, 3, side, side]`, RGB in about -1..1, in the part `inner` of the crop that its face was taken from, as
    /// a patch. `None` where `to_crop` has no inverse.
    pub fn patch(
        &self,
        picture: &DeviceTensor,
        mut crop: DeviceCrop,
        (inner, to_crop): (&Rect, &Similarity),
        coverage: impl FnOnce() -> Result<Coverage>,
    ) -> Result<Option<Patch>> {
        let Some(to_frame) = to_crop.inverse() else { return Ok(None) };
        put(&self.memory, picture.part(), self.side, ((0.5, 0.5), Order::Rgb), &mut crop, inner)?;
        Ok(Some(DevicePicture::new(&self.memory, crop, coverage()?).patch(to_frame)))
    }
}

/// Frames of a clip, and those of them that are known.
pub(super) fn frames(work: &Work) -> Result<(usize, usize)> {
    let frames = work.there(LATENT)?.shape.get(2).copied().unwrap_or(0);
    let kept = work.there(KNOWN).ok().and_then(|known| known.shape.get(2).copied()).unwrap_or(0);
    Ok((frames, kept.min(frames)))
}
