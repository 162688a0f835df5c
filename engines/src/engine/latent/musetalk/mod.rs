//! MuseTalk (Zhang et al. 2024, arXiv 2410.10122; TMElyralab/MuseTalk, version 1.5): a face with its lower half black and the
//! same face whole, in latents, become the face with another mouth by what is heard, in one pass.
//!
//! - [`painter`]: its networks as stages, from a face's pixels to its picture.
//! - [`region`]: where the picture lies on a face, and what of it is put back.
//! - [`actor`]: one stream; [`exact`]: one as the published program does it; [`device`]: one in the memory of a card.

mod actor;
mod device;
mod exact;
pub(crate) mod painter;
mod region;

use std::{ops::RangeInclusive, sync::Arc};

use actor::MuseTalkActor;
use device::{DeviceActor, DevicePath};
use exact::ExactActor;
use painter::Painter;

use crate::{
    Error, Result,
    audio::{front_end, whisper},
    bank::ReferenceBank,
    cuda::Memory,
    engine::{Actor, Clip, Engine, Identity, Noise, Sampling, Spec, Stage, device::on_card},
    manifest::{Mask, Package},
    runtime::Options,
};

/// Rates of which the published program hears the moments that it hears at 25 frames a second: it counts frames by whole
/// numbers a second, and begins `2 ceil(50 / rate)` moments before a frame's own.
const EXACT_RATES: RangeInclusive<i32> = 25..=49;

/// The engine, loaded.
pub struct MuseTalk {
    spec: Spec,
    painter: Painter,
    /// Pixels of a side of the network's picture.
    side: usize,
    mask: Mask,
    /// Its way through the memory of its device.
    path: Option<DevicePath>,
}

impl MuseTalk {
    /// On CUDA and TensorRT frames are cut, painted and pasted in the memory of the card, where it can run the kernels of
    /// [`crate::kernels`].
    pub fn load(package: &Package, options: &Options) -> Result<Self> {
        let mut engine = Self::load_through_host(package, options)?;
        if !engine.spec.exact {
            let device = package.network("unet", options)?.device();
            engine.path = on_card(&engine.spec.name, device, |memory| DevicePath::new(&memory, package, options));
        }
        Ok(engine)
    }

    /// In `memory`, where its networks must run.
    ///
    /// Errors: they run elsewhere; the engine is run as its published program is; memory ended.
    pub fn load_in(package: &Package, options: &Options, memory: Arc<dyn Memory>) -> Result<Self> {
        let mut engine = Self::load_through_host(package, options)?;
        if engine.spec.exact {
            return Err(Error::invalid("what the published program does is done on the processor: leave exact=false"));
        }
        engine.path = Some(DevicePath::new(&memory, package, options)?);
        Ok(engine)
    }

    /// With frames that travel through the processor's memory, whatever the device.
    pub fn load_through_host(package: &Package, options: &Options) -> Result<Self> {
        let options = &options.without_graphs();
        let manifest = package.manifest();
        let section = painter::section(package)?;
        let front_end = front_end(package, options)?;
        let painter = Painter::load(package, options)?;
        let spec = Spec {
            name: manifest.name.clone(),
            family: manifest.family,
            front_end: front_end.key().to_owned(),
            window: whisper::engine::window_spec(package, &*front_end),
            steps: None,
            passes: painter.stages.len(),
            references: package.gathers(),
            exact: package.is_exact(),
            rates: package.is_exact().then_some(EXACT_RATES),
            later: 0,
            clip: Clip::SINGLE,
            crop: manifest.geometry.crop,
            alignment: manifest.geometry.alignment.clone(),
            gflop: manifest.frame_gflop(None),
        };
        Ok(Self { spec, painter, side: section.side, mask: section.mask, path: None })
    }
}

impl Engine for MuseTalk {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn stages(&self) -> &[Box<dyn Stage>] {
        self.path.as_ref().map_or(&self.painter.stages, |path| &path.stages)
    }

    fn lanes(&self) -> usize {
        self.painter.lanes
    }

    /// Nothing: the face that is painted is the reference too.
    fn prepare(&self, _: &ReferenceBank) -> Result<Identity> {
        Ok(Arc::new(()))
    }

    fn actor(self: Arc<Self>, seed: u64, sampling: &Sampling) -> Result<Box<dyn Actor>> {
        sampling.refuse(&self.spec.name)?;
        let noise = Noise::new(seed, 0.0, 1.0);
        if let Some(path) = &self.path {
            return Ok(Box::new(DeviceActor::new(Arc::clone(&self), path, noise)?));
        }
        Ok(match self.spec.exact {
            true => Box::new(ExactActor::new(self, noise)),
            false => Box::new(MuseTalkActor::new(self, noise)),
        })
    }
}
