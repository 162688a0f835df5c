//! From noise to a mouth: the trait behind which every engine stands, the schedules that say which steps a latent
//! takes, and the worker that runs steps of many streams in one batch.
//!
//! A latent is a flat vector, a mouth motion of a dozen numbers or an image of many thousand; schedules, worker and
//! batches do not care.

pub mod compact;
mod noise;
mod patch;
mod scheduler;
mod worker;

use std::{any::Any, sync::Arc, time::Duration};

pub use noise::Noise;
pub use patch::Patch;
pub use scheduler::{Prediction, Schedule, ScheduleConfig, SchedulerKind};
pub use worker::{Job, Stream, Ticket, WaitError, Worker, WorkerConfig, WorkerStats};

use crate::{Result, audio::WindowSpec, bank::ReferenceBank, geometry::Alignment, image::Crop, tracker::Face};

/// What the elements must know of an engine before its first frame.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Engine name as in the manifest.
    pub name: String,
    /// Numbers in one latent.
    pub latent: usize,
    /// Numbers in one conditioning vector.
    pub conditioning: usize,
    /// The audio features that a frame needs.
    pub window: WindowSpec,
    /// Earlier latents that [`Denoiser::condition`] looks at, newest first.
    pub past: usize,
    pub schedule: ScheduleConfig,
    /// Side of the square crop in pixels.
    pub crop: usize,
    pub alignment: Alignment,
    /// Batch sizes that the model was compiled for, ascending.
    pub batch_sizes: Vec<usize>,
    /// Coefficient of the AR(1) process that a stream's noise follows, 0..1 (0: independent frames).
    pub noise_correlation: f32,
    /// Standard deviation of the initial noise (1: the model's own).
    pub temperature: f32,
    /// Cost of one frame at the default number of steps, in GFLOP (a multiply-add counts two).
    pub gflop: f32,
}

/// A person as an engine knows them; made by [`Denoiser::prepare`], of a type that is the engine's own.
pub type Identity = Arc<dyn Any + Send + Sync>;

/// What a frame is conditioned on.
pub struct Conditions<'a> {
    pub face: &'a Face,
    /// The aligned crop of the current frame, for engines that ask for it.
    pub frame: Option<&'a Crop>,
    pub identity: &'a Identity,
    /// Features around the frame's time as [`WindowSpec`] lays them out, `[taps * dims]`.
    pub audio: &'a [f32],
    /// Earlier latents of the stream, newest first; fewer than [`Spec::past`] at the start.
    pub past: &'a [Arc<[f32]>],
}

/// The frame that a latent is rendered for, and how.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub face: &'a Face,
    /// Scales the motion (1: as learnt).
    pub gain: f32,
    /// What was rendered for the stream's previous frame.
    pub last: Option<&'a Patch>,
    /// [`Patch::memory`] of the last patch of the stream, however long ago, whoever was shown: the voice is the same.
    pub heard: Option<&'a (dyn Any + Send + Sync)>,
    /// Where in the video the frame stands, to be compared with [`crate::bank::Reference::time`].
    pub time: Option<Duration>,
    /// References nearer than this in time are not used: for measuring against the true mouth, which must not be seen.
    pub gap: Duration,
}

/// A loaded engine. All methods may be called from several threads.
pub trait Denoiser: Send + Sync {
    fn spec(&self) -> &Spec;

    /// What the engine keeps of a person, from the frames gathered so far. Called again as the bank grows, so it must
    /// cost less than a frame.
    fn prepare(&self, bank: &ReferenceBank) -> Result<Identity>;

    /// Pictures of the one person that the engine was adapted to; where there are any, none are gathered.
    fn bank(&self) -> Option<&ReferenceBank> {
        None
    }

    /// The latent of a mouth at rest, `[Spec::latent]`, for engines whose latents may be mixed with it.
    fn rest(&self) -> Option<Arc<[f32]>> {
        None
    }

    /// The conditioning vector, `[Spec::conditioning]`.
    fn condition(&self, conditions: &Conditions) -> Result<Vec<f32>>;

    /// One network evaluation of a batch: `latents` `[batch * latent]`, one timestep for each, `conditions`
    /// `[batch * conditioning]`. Returns the predictions, `[batch * latent]`, of the kind that the schedule names.
    fn step(&self, latents: &[f32], timesteps: &[f32], conditions: &[f32]) -> Result<Vec<f32>>;

    /// Pixels for a finished latent on the current face. `None` when the identity holds nothing to render from.
    fn render(&self, latent: &[f32], identity: &Identity, scene: &Scene) -> Result<Option<Patch>>;
}

/// Loads the engine of a manifest on a device.
pub fn load(engine: &crate::manifest::Engine, options: &crate::runtime::Options) -> Result<Arc<dyn Denoiser>> {
    use crate::manifest::Family;
    match engine.manifest().family {
        Family::Compact => Ok(Arc::new(compact::Compact::load(engine, options)?)),
        Family::Tracker => Err(crate::Error::invalid(format!(
            "engine `{}` follows faces and makes none; name one such as `compact`",
            engine.manifest().name
        ))),
        Family::Expert => Err(crate::Error::invalid(format!(
            "engine `{}` judges sync and makes no faces; name one such as `compact`",
            engine.manifest().name
        ))),
    }
}
