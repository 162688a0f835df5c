//! The same stream in the memory of a device: of a frame the region of the face goes there, and the region that is pasted comes
//! back. What is between stays: crop, latents, conditions, pictures, and the past that the next clip goes on from.
//!
//! - [`stages`], [`denoise`]: the networks and what is between them; [`clips`]: a stream as clips that join; [`actor`]: one stream.
//!
//! All of it is orchestration over [`Memory`], a card's or its stand-in's: what runs is the kernels of [`crate::kernels`], and the
//! networks bound to the same memory.

mod actor;
mod clips;
mod denoise;
mod stages;

use std::sync::Arc;

pub(super) use actor::DeviceActor;

use super::place::Place;
use crate::{
    Error, Result,
    cuda::{Buffer, Card, Memory, Pool},
    engine::{
        Clip, Stage,
        latent::{
            clip,
            coder::{CHANNELS, FACTOR},
            mask,
        },
    },
    kernels,
    manifest::Package,
    runtime::{Device, Options},
};

/// What the last steps made of the clean latents, as [`crate::engine::LATENT`].
const ESTIMATE: &str = "estimate";

/// What streams share.
pub(super) struct Shared {
    memory: Arc<dyn Memory>,
    /// Pixels of a side of a picture, and numbers of a side of its latents.
    side: usize,
    small: usize,
    /// Rows of sound of a frame, and their width.
    sound: [usize; 2],
    /// 1: kept, 0: painted; `[side, side]`, and as the U-Net sees it, `[small, small]`.
    mask: Buffer<f32>,
    small_mask: Buffer<f32>,
    /// How much of each pixel of a patch is painted, here and there.
    coverage: (Arc<[u8]>, Buffer<u8>),
}

impl Shared {
    /// Numbers of a channel of latents.
    fn plane(&self) -> usize {
        self.small * self.small
    }

    /// Latents of a clip for the kernels.
    fn clip(&self, frames: usize, kept: usize) -> kernels::Clip {
        kernels::Clip { channels: CHANNELS, frames, kept, plane: self.plane() }
    }
}

/// An engine's way through the memory of a device.
pub(super) struct DevicePath {
    pub stages: Vec<Box<dyn Stage>>,
    shared: Arc<Shared>,
}

impl DevicePath {
    /// With networks that run in `memory`.
    ///
    /// Errors: one runs elsewhere or does not take f32; memory ended.
    pub fn new(
        memory: Arc<dyn Memory>,
        package: &Package,
        options: &Options,
        clip: Clip,
        place: &Place,
    ) -> Result<Self> {
        let section = clip::section(package)?;
        let (side, small) = (section.side, section.side / FACTOR);
        let shared = Arc::new(Shared {
            side,
            small,
            sound: [section.sound.moments * section.sound.states, section.sound.width],
            mask: Buffer::of(&memory, &mask::pixels(side))?,
            small_mask: Buffer::of(&memory, &mask::latents(side))?,
            coverage: (Arc::clone(&place.coverage), Buffer::of(&memory, &place.coverage)?),
            memory,
        });
        let stages = stages::load(&shared, package, options, clip)?;
        Ok(Self { stages, shared })
    }
}

/// The card of a device, where it is CUDA's; `None` of others.
///
/// Errors: the card cannot run kernels of ours.
pub(super) fn card(device: Device) -> Result<Option<Arc<dyn Memory>>> {
    match device {
        Device::Cuda(number) => Ok(Some(Arc::new(Pool::new(Card::open(number as usize)?)))),
        _ => Ok(None),
    }
}

/// An error, after what is kept for later was given back where memory ended.
fn trimmed(memory: &dyn Memory, error: Error) -> Error {
    if matches!(error, Error::OutOfMemory { .. }) {
        memory.trim();
    }
    error
}
