//! The same stream in the memory of a device: what is between a face's region and the region that is pasted stays there, and so
//! does the past that the next clip goes on from.
//!
//! - [`denoise`]: the steps; [`clips`]: a stream as clips that join; [`actor`]: one stream.

mod actor;
mod clips;
mod denoise;

use std::sync::Arc;

pub(super) use actor::DeviceActor;
use denoise::Denoise;

use super::place::Place;
use crate::{
    Result,
    cuda::Memory,
    engine::{
        Clip, Stage,
        device::{Coverage, network},
        latent::{
            clip::{self, CLIPS},
            device::{Decode, Encode, Shared},
            mask,
        },
    },
    manifest::Package,
    runtime::Options,
};

/// What the last steps made of the clean latents, as [`crate::engine::LATENT`].
const ESTIMATE: &str = "estimate";
/// What is painted is grey to the encoder.
const GREY: f32 = 0.0;

/// An engine's way through the memory of a device.
pub(super) struct DevicePath {
    pub stages: Vec<Box<dyn Stage>>,
    shared: Arc<Shared>,
    coverage: Coverage,
}

impl DevicePath {
    /// With networks that run in `memory`.
    ///
    /// Errors: one runs elsewhere or does not take f32; memory ended.
    pub fn new(
        memory: &Arc<dyn Memory>,
        package: &Package,
        options: &Options,
        clip: Clip,
        place: &Place,
    ) -> Result<Self> {
        let section = clip::section(package)?;
        let sound = [section.sound.moments * section.sound.states, section.sound.width];
        let masks = [mask::pixels(section.side), mask::latents(section.side)];
        let shared = Shared::new(memory, section.side, sound, masks.each_ref().map(|mask| &mask[..]), GREY)?;
        let shared = Arc::new(shared);
        let unet = network(&**memory, package, "unet", options)?;
        let pictures = CLIPS.iter().map(|clips| 2 * clips * clip.hop).collect();
        let rows = unet.taken_of([1].into_iter().chain(CLIPS.map(|clips| 2 * clips)).collect());
        let (scale, sizes) = (section.latent_scale, (CLIPS.to_vec(), clip.hop));
        let stages: Vec<Box<dyn Stage>> = vec![
            Box::new(Encode::load(&shared, package, options, scale, pictures)?),
            Box::new(Denoise::new(Arc::clone(&shared), unet, clip.frames, rows)),
            Box::new(Decode::load(&shared, package, options, (section.decoder, scale), sizes)?),
        ];
        Ok(Self { stages, shared, coverage: Coverage::new(memory, Arc::clone(&place.coverage))? })
    }
}
