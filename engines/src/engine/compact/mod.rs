//! `compact`: the latent is a mouth's motion, a dozen numbers; pixels are the person's own, warped.
//!
//! - [`actor`]: one stream, from a feature window to a patch.
//! - [`basis`]: what a latent means as offsets of 84 landmarks.
//! - [`contrast`]: how far the mouth of a stream opens and shuts around its mean.
//! - [`person`]: rest shape and range of one person, from their bank.
//! - [`render`]: wanted landmarks, the nearest reference, the warp, the mask.
//! - [`skin`]: where a reference shows skin, and not what is beside the face.
//! - [`refine`]: a small network that repairs the mouth in the warped picture.
//! - [`canvas`]: where pictures are drawn: here, or in the memory of a card.
//! - [`adapted`], [`fit`]: what an engine that was adapted to a person brings, and how their range is found.

mod actor;
mod adapted;
mod basis;
mod canvas;
mod contrast;
mod fit;
mod mask;
mod person;
pub(crate) mod refine;
mod render;
mod skin;

use std::sync::Arc;

use actor::CompactActor;
use adapted::Own;
pub use adapted::person as person_file;
use basis::Basis;
use canvas::{Canvas, Device};
pub use fit::{Agreement, FEWEST, Fit, Pair, fit};
use person::Person;

use parking_lot::Mutex;

use super::{
    Actor, Clip, Engine, Identity, LATENT, Noise, Sampling, Spec, Stage, StepStage, Work, complete, device::on_card,
};
use crate::{
    Error, Result,
    audio::{FrontEnd, Pick, Tail, WindowSpec, front_end},
    bank::ReferenceBank,
    cuda::Memory,
    geometry::Point,
    manifest::{AudioSection, LatentSection, Package},
    runtime::{Options, Tensor},
    schedule::{Schedule, ScheduleConfig},
};

const MS: i64 = 1_000_000;
/// Places of the engine's stages.
const STEP: usize = 0;
const REFINE: usize = 1;
/// What the motion network reads besides the latent.
const CONDITION: &str = "cond";

/// The engine, loaded. Its motion network has inputs `latent` f32 `[B, D]`, `timestep` f32 `[B]` and `cond` f32
/// `[B, C]`, and the output `prediction` f32 `[B, D]`.
pub struct Compact {
    spec: Spec,
    latent: LatentSection,
    schedule: ScheduleConfig,
    /// The motion network, and the refinement where there is one.
    stages: Vec<Box<dyn Stage>>,
    lanes: usize,
    canvas: Canvas,
    basis: Basis,
    own: Option<Own>,
    /// Holds what streams share of it.
    _front_end: Mutex<Box<dyn FrontEnd>>,
}

impl Compact {
    /// On CUDA and TensorRT mouths are drawn, refined and pasted in the memory of the card, where it can run the kernels of
    /// [`crate::kernels`].
    pub fn load(package: &Package, options: &Options) -> Result<Self> {
        let device = package.network("motion", options)?.device();
        let there = |memory| Self::load_in(package, options, memory);
        match on_card(&package.manifest().name, device, there) {
            Some(engine) => Ok(engine),
            None => Self::load_through_host(package, options),
        }
    }

    /// With mouths that are drawn in the processor's memory, whatever the device.
    pub fn load_through_host(package: &Package, options: &Options) -> Result<Self> {
        Self::load_on(package, options, Canvas::Here)
    }

    /// With mouths that are drawn in `memory`, where the refinement must run.
    ///
    /// Errors: it runs elsewhere.
    pub fn load_in(package: &Package, options: &Options, memory: Arc<dyn Memory>) -> Result<Self> {
        Self::load_on(package, &options.without_graphs(), Canvas::There(Device::new(memory)))
    }

    fn load_on(package: &Package, options: &Options, canvas: Canvas) -> Result<Self> {
        let manifest = package.manifest();
        let missing =
            |key: &str| Error::Manifest { origin: package.location(), key: key.into(), cause: "is missing".into() };
        let audio = manifest.audio.as_ref().ok_or_else(|| missing("audio"))?;
        let latent = manifest.latent.clone().ok_or_else(|| missing("latent"))?;
        let schedule = manifest.scheduler.clone().ok_or_else(|| missing("scheduler"))?;
        let basis = Basis::read(&package.file_name("basis"), &package.file("basis")?, latent.len())?;
        let model = package.network("motion", options)?;
        let front_end = front_end(package, options)?;
        let window = window(audio, &*front_end);
        let width = latent.len();
        model.expect_input(LATENT, &[width])?;
        model.expect_input("timestep", &[])?;
        model.expect_input(CONDITION, &[window.len() + latent.past * width])?;
        model.expect_output("prediction", &[width])?;
        let lanes = model.at_a_time();
        let mut stages: Vec<Box<dyn Stage>> =
            vec![Box::new(StepStage::new(model, &[CONDITION], latent.batch_sizes.clone()))];
        stages.extend(refine::load(package, options, &canvas)?);
        let spec = Spec {
            name: manifest.name.clone(),
            family: manifest.family,
            front_end: front_end.key().to_owned(),
            window,
            steps: Some(schedule.steps),
            passes: stages.len() - 1,
            references: package.gathers(),
            exact: false,
            rates: None,
            later: 0,
            clip: Clip::SINGLE,
            crop: manifest.geometry.crop,
            alignment: manifest.geometry.alignment.clone(),
            gflop: manifest.frame_gflop(None),
        };
        let own = Own::load(package, &spec)?;
        Ok(Self { spec, latent, schedule, stages, lanes, canvas, basis, own, _front_end: Mutex::new(front_end) })
    }

    /// The latent that a face shows, whose landmarks are `points` (`[111]`, frame pixels); `None` where they cannot be
    /// aligned.
    pub fn seen(&self, identity: &Identity, points: &[Point]) -> Result<Option<Vec<f32>>> {
        let person = Self::person(identity)?;
        let Some(to_crop) = self.spec.alignment.fit(points) else { return Ok(None) };
        let points: Vec<_> = points.iter().map(|p| to_crop.apply(*p)).collect();
        Ok(Some(person.latent(&self.basis, &points)))
    }

    /// The latents that feature windows ask for, without noise and without a past.
    pub fn heard(&self, windows: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        let schedule = Schedule::new(&self.schedule, 0)?;
        let most = self.stages[STEP].sizes().last().copied().unwrap_or(1);
        let width = self.latent.len();
        let mut latents = Vec::with_capacity(windows.len());
        for batch in windows.chunks(most) {
            let mut conditions = Vec::new();
            for window in batch {
                conditions.extend(self.condition(window, std::iter::empty())?);
            }
            let rows = batch.len();
            let mut work = Work::new(Noise::default())
                .with(LATENT, Tensor { shape: vec![rows, width], data: vec![0.0; rows * width] })
                .with(CONDITION, Tensor { shape: vec![rows, conditions.len() / rows], data: conditions });
            work.denoise(STEP, &schedule);
            complete(self, &mut work)?;
            latents.extend(work.take(LATENT)?.data.chunks_exact(width).map(<[f32]>::to_vec));
        }
        Ok(latents)
    }

    /// Whether latents depend on earlier ones of their stream.
    pub fn looks_back(&self) -> bool {
        self.latent.past > 0
    }

    /// How much a latent opens the inner lips, in parts of the crop's side.
    pub fn opening(&self, latent: &[f32]) -> f32 {
        person::opening(&self.basis.motion(latent))
    }

    /// What the motion network is told: the window, then earlier latents, newest first, and zeros for those that there are
    /// not.
    fn condition<'a>(&self, audio: &[f32], past: impl Iterator<Item = &'a [f32]>) -> Result<Vec<f32>> {
        if audio.len() != self.spec.window.len() {
            return Err(Error::Mismatch {
                model: self.spec.name.clone(),
                what: "audio window".into(),
                expected: self.spec.window.len().to_string(),
                found: audio.len().to_string(),
            });
        }
        let mut vector = audio.to_vec();
        past.take(self.latent.past).for_each(|p| vector.extend_from_slice(p));
        vector.resize(audio.len() + self.latent.past * self.latent.len(), 0.0);
        Ok(vector)
    }

    fn person(identity: &Identity) -> Result<&Person> {
        identity.downcast_ref().ok_or_else(|| Error::invalid("this identity was prepared by another engine"))
    }
}

impl Engine for Compact {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn stages(&self) -> &[Box<dyn Stage>] {
        &self.stages
    }

    fn lanes(&self) -> usize {
        self.lanes
    }

    fn prepare(&self, bank: &ReferenceBank) -> Result<Identity> {
        let range = self.own.as_ref().map_or(1.0, |own| own.range);
        Ok(Arc::new(Person::new(bank, &self.basis).with_range(range)))
    }

    fn bank(&self) -> Option<&ReferenceBank> {
        self.own.as_ref().map(|own| &own.bank)
    }

    fn actor(self: Arc<Self>, seed: u64, sampling: &Sampling) -> Result<Box<dyn Actor>> {
        let steps = sampling.steps_alone(&self.spec.name)?;
        let schedule = Schedule::new(&self.schedule, steps.unwrap_or(0))?;
        let noise = Noise::new(seed, self.latent.noise_correlation, self.latent.temperature);
        Ok(Box::new(CompactActor::new(self, schedule, noise)))
    }
}

fn window(audio: &AudioSection, front_end: &dyn FrontEnd) -> WindowSpec {
    WindowSpec {
        hop: front_end.hop(),
        overhang: front_end.overhang(),
        taps: audio.taps_ms.iter().map(|ms| i64::from(*ms) * MS).collect(),
        look_ahead: audio.look_ahead(),
        dims: front_end.dims(),
        silence: front_end.silence().into(),
        pick: Pick::Between,
        tail: Tail::Silence,
    }
}
