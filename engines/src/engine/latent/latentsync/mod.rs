//! LatentSync (Li et al. 2024, arXiv 2412.09262; bytedance/LatentSync, versions 1.5 and 1.6) on a stream: faces whose lower
//! part is hidden become, clip by clip, faces with another mouth by what is heard.
//!
//! - [`sequence`]: a stream as clips that join.
//! - [`place`]: where the network's picture lies on a face, and what of it is put back.
//! - [`actor`]: one stream; [`exact`]: one as the published program does it; [`device`]: one in the memory of a card.

mod actor;
mod device;
mod exact;
mod place;
mod sequence;

use std::sync::Arc;

use actor::LatentSyncActor;
use device::{DeviceActor, DevicePath};
use exact::ExactActor;
use place::Place;

use super::clip::{self, ClipStages};
use crate::{
    Error, Result,
    audio::{front_end, whisper},
    bank::ReferenceBank,
    cuda::Memory,
    engine::{Actor, Clip, Engine, Identity, Noise, Sampling, Spec, Stage, device::on_card},
    manifest::Package,
    runtime::Options,
    schedule::{Schedule, ScheduleConfig},
};

/// The engine, loaded.
pub struct LatentSync {
    spec: Spec,
    clips: ClipStages,
    /// Pixels of a side of the network's picture.
    side: usize,
    place: Place,
    /// How it denoises where nobody says.
    schedule: ScheduleConfig,
    /// Its way through the memory of its device.
    path: Option<DevicePath>,
}

impl LatentSync {
    /// On CUDA and TensorRT frames are cut, painted and pasted in the memory of the card, where it can run the kernels of
    /// [`crate::kernels`].
    pub fn load(package: &Package, options: &Options) -> Result<Self> {
        let mut engine = Self::load_through_host(package, options)?;
        if !engine.spec.exact {
            let device = package.network("unet", options)?.device();
            let path = |memory| DevicePath::new(&memory, package, options, engine.spec.clip, &engine.place);
            engine.path = on_card(&engine.spec.name, device, path);
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
        engine.path = Some(DevicePath::new(&memory, package, options, engine.spec.clip, &engine.place)?);
        Ok(engine)
    }

    /// With frames that travel through the processor's memory, whatever the device.
    pub fn load_through_host(package: &Package, options: &Options) -> Result<Self> {
        let manifest = package.manifest();
        let section = clip::section(package)?;
        let options = &options.without_graphs();
        let front_end = front_end(package, options)?;
        let exact = package.is_exact();
        let clip = if exact { Clip::whole(section.frames) } else { Clip::live(&section.live) };
        let own = manifest.scheduler.as_ref().ok_or_else(|| clip::missing(package, "scheduler"))?;
        let schedule = if exact { own.clone() } else { section.live.schedule(own) };
        let spec = Spec {
            name: manifest.name.clone(),
            family: manifest.family,
            front_end: front_end.key().to_owned(),
            window: whisper::engine::window_spec(package, &*front_end),
            steps: Some(schedule.steps),
            passes: 2,
            references: package.gathers(),
            exact,
            // The published program brings every video to its own rate first.
            rates: exact.then(|| section.frame_rate.round() as i32).map(|rate| rate..=rate),
            later: 0,
            clip,
            crop: manifest.geometry.crop,
            alignment: manifest.geometry.alignment.clone(),
            gflop: match exact {
                true => manifest.gflop,
                false => manifest.frame_gflop(None),
            },
        };
        let clips = ClipStages::load(package, options, clip)?;
        let place = Place::new(section.side, &clips.mask);
        Ok(Self { spec, clips, side: section.side, place, schedule, path: None })
    }

    /// The schedule of a stream.
    fn schedule(&self, sampling: &Sampling) -> Result<Schedule> {
        let mut config = self.schedule.clone();
        if let Some(sampler) = sampling.sampler.filter(|sampler| *sampler != config.kind) {
            config.spacing = sampler.few_steps().ok_or_else(|| {
                Error::invalid(format!(
                    "engine `{}` is denoised by the samplers ddim and dpm-solver++, not by {}",
                    self.spec.name,
                    sampler.name()
                ))
            })?;
            config.kind = sampler;
        }
        config.guidance = sampling.guidance.unwrap_or(config.guidance);
        config.guided = sampling.guided.unwrap_or(config.guided);
        config.check().map_err(|(key, cause)| Error::invalid(format!("engine `{}`: {key} {cause}", self.spec.name)))?;
        Schedule::new(&config, sampling.steps.unwrap_or(0))
    }
}

impl Engine for LatentSync {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn stages(&self) -> &[Box<dyn Stage>] {
        self.path.as_ref().map_or(&self.clips.stages, |path| &path.stages)
    }

    fn lanes(&self) -> usize {
        self.clips.lanes
    }

    /// Nothing: the face that is painted is the reference too.
    fn prepare(&self, _: &ReferenceBank) -> Result<Identity> {
        Ok(Arc::new(()))
    }

    fn actor(self: Arc<Self>, seed: u64, sampling: &Sampling) -> Result<Box<dyn Actor>> {
        let schedule = self.schedule(sampling)?;
        let noise = Noise::new(seed, 0.0, 1.0);
        if let Some(path) = &self.path {
            return Ok(Box::new(DeviceActor::new(Arc::clone(&self), path, noise, schedule)?));
        }
        Ok(match self.spec.exact {
            true => Box::new(ExactActor::new(self, noise, schedule)),
            false => Box::new(LatentSyncActor::new(self, noise, schedule)),
        })
    }
}

impl LatentSync {
    /// Frames of a clip.
    fn clip(&self) -> Clip {
        self.spec.clip
    }
}
