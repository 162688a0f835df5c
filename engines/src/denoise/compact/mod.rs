//! `compact`: the latent is a mouth's motion, a dozen numbers; pixels are the person's own, warped.
//!
//! - [`basis`]: what a latent means as offsets of 84 landmarks.
//! - [`contrast`]: how far the mouth of a stream opens and shuts around its mean.
//! - [`person`]: rest shape and range of one person, from their bank.
//! - [`render`]: wanted landmarks, the nearest reference, the warp, the mask.
//! - [`refine`]: a small network that repairs the mouth in the warped picture.
//! - [`adapted`], [`fit`]: what an engine that was adapted to a person brings, and how their range is found.

mod adapted;
mod basis;
mod contrast;
mod fit;
mod mask;
mod person;
mod refine;
mod render;

use std::{sync::Arc, time::Duration};

use adapted::Own;
pub use adapted::person as person_file;
use basis::Basis;
use contrast::Contrast;
pub use fit::{Agreement, FEWEST, Fit, Pair, fit};
use person::Person;
use refine::Refiner;

use super::{Conditions, Denoiser, Identity, Patch, Scene, Spec};
use crate::{
    Error, Result,
    audio::{Encoder, WindowSpec},
    bank::ReferenceBank,
    geometry::Point,
    image::{sharpen, steady},
    manifest::{AudioSection, Engine, LatentSection},
    runtime::{Input, Model, Options, Port},
};

const MS: i64 = 1_000_000;
/// What is taken, warped and pasted has been sampled three times: that much of the fine detail is given back.
const SHARPEN: f32 = 0.6;
/// What is smoothed over time is told for frames of this length, and works alike at every frame rate. Steps beyond
/// [`STEPS`] of them are held to be those.
const FRAME: Duration = Duration::from_millis(40);
const STEPS: std::ops::RangeInclusive<f32> = 0.1..=5.0;

/// The engine, loaded. Its motion network has inputs `latent` f32 `[B, D]`, `timestep` f32 `[B]` and `cond` f32
/// `[B, C]`, and the output `prediction` f32 `[B, D]`.
pub struct Compact {
    spec: Spec,
    model: Arc<Model>,
    basis: Basis,
    refiner: Option<Refiner>,
    own: Option<Own>,
}

/// What one frame of a stream leaves to the next.
struct Memory {
    /// The references that were shown.
    showing: render::Showing,
    drift: Vec<Point>,
    contrast: Contrast,
    /// [`Scene::time`].
    time: Option<Duration>,
}

impl Memory {
    /// Frames of [`FRAME`] between it and `scene`.
    fn frames_until(&self, scene: &Scene) -> f32 {
        let step = self.time.zip(scene.time).map(|(then, now)| then.abs_diff(now));
        step.map_or(1.0, |step| step.div_duration_f32(FRAME).clamp(*STEPS.start(), *STEPS.end()))
    }
}

impl Compact {
    pub fn load(engine: &Engine, options: &Options) -> Result<Self> {
        let manifest = engine.manifest();
        let missing =
            |key: &str| Error::Manifest { origin: engine.location(), key: key.into(), cause: "is missing".into() };
        let audio = manifest.audio.as_ref().ok_or_else(|| missing("audio"))?;
        let latent = manifest.latent.as_ref().ok_or_else(|| missing("latent"))?;
        let schedule = manifest.scheduler.clone().ok_or_else(|| missing("scheduler"))?;
        let basis = Basis::read(&engine.file_name("basis"), &engine.file("basis")?, latent.len())?;
        let name = engine.file_name("motion");
        let model = Model::shared(&name, &engine.file("motion")?, options)?;
        let window = window(audio, Encoder::new(engine, options)?.silence().into());
        let conditioning = window.len() + latent.past * latent.len();
        check_ports(&name, &model, latent, conditioning)?;
        let spec = Spec {
            name: manifest.name.clone(),
            latent: latent.len(),
            conditioning,
            window,
            past: latent.past,
            schedule,
            crop: manifest.geometry.crop,
            alignment: manifest.geometry.alignment.clone(),
            batch_sizes: latent.batch_sizes.clone(),
            noise_correlation: latent.noise_correlation,
            temperature: latent.temperature,
            gflop: manifest.gflop,
        };
        let refiner = Refiner::load(engine, options)?;
        let own = Own::load(engine, &spec)?;
        Ok(Self { spec, model, basis, refiner, own })
    }

    /// The latent that a face shows, whose landmarks are `points` (`[111]`, frame pixels); `None` where they cannot be
    /// aligned.
    pub fn seen(&self, identity: &Identity, points: &[Point]) -> Result<Option<Vec<f32>>> {
        let person = Self::person(identity)?;
        let Some(to_crop) = self.spec.alignment.fit(points) else { return Ok(None) };
        let points: Vec<_> = points.iter().map(|p| to_crop.apply(*p)).collect();
        Ok(Some(person.latent(&self.basis, &points)))
    }

    /// How much a latent opens the inner lips, in parts of the crop's side.
    pub fn opening(&self, latent: &[f32]) -> f32 {
        person::opening(&self.basis.motion(latent))
    }

    fn person(identity: &Identity) -> Result<&Person> {
        identity.downcast_ref().ok_or_else(|| Error::invalid("this identity was prepared by another engine"))
    }
}

/// How far apart the pixels lie that are sharpened against each other, in a crop of `side` whose pixels are `density` times
/// as dense as the frame's: as far as in a crop of 256, and nearer where the frame shows finer detail than that.
fn reach(side: usize, density: f32) -> usize {
    if density.is_finite() { (density.round() as usize).clamp(1, (side / 256).max(1)) } else { 1 }
}

/// How many times more a crop is sharpened whose pixels, as far apart as they are sharpened against each other, are
/// `density` times as dense as the frame's: what sampling loses lies in coarser detail of such a crop, where less is added.
fn finer(density: f32) -> f32 {
    if density.is_finite() { density.clamp(1.0, 1.5) } else { 1.0 }
}

fn window(audio: &AudioSection, silence: Arc<[f32]>) -> WindowSpec {
    WindowSpec {
        hop: Duration::from_millis(audio.hop_ms.into()),
        overhang: Duration::from_millis(audio.overhang_ms().into()),
        taps: audio.taps_ms.iter().map(|ms| i64::from(*ms) * MS).collect(),
        look_ahead: Duration::from_millis(audio.look_ahead_ms.into()),
        dims: audio.features,
        silence,
    }
}

fn check_ports(name: &str, model: &Model, latent: &LatentSection, conditioning: usize) -> Result<()> {
    let signature = model.signature();
    expect(name, &signature.inputs, "latent", &[latent.len()])?;
    expect(name, &signature.inputs, "timestep", &[])?;
    expect(name, &signature.inputs, "cond", &[conditioning])?;
    expect(name, &signature.outputs, "prediction", &[latent.len()])
}

/// Refuses a model without the port `wanted` of `shape` after the batch.
fn expect(name: &str, ports: &[Port], wanted: &str, shape: &[usize]) -> Result<()> {
    let port = ports.iter().find(|p| p.name == wanted);
    let fits = port.is_some_and(|p| {
        p.shape.len() == shape.len() + 1 && p.shape[1..].iter().zip(shape).all(|(is, want)| *is == Some(*want))
    });
    if fits {
        return Ok(());
    }
    Err(Error::Mismatch {
        model: name.into(),
        what: format!("`{wanted}`"),
        expected: format!("[batch{}]", shape.iter().map(|d| format!(", {d}")).collect::<String>()),
        found: port.map_or("nothing".into(), Port::describe),
    })
}

impl Denoiser for Compact {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn prepare(&self, bank: &ReferenceBank) -> Result<Identity> {
        let range = self.own.as_ref().map_or(1.0, |own| own.range);
        Ok(Arc::new(Person::new(bank, &self.basis).with_range(range)))
    }

    fn bank(&self) -> Option<&ReferenceBank> {
        self.own.as_ref().map(|own| &own.bank)
    }

    /// A motion of nothing.
    fn rest(&self) -> Option<Arc<[f32]>> {
        Some(vec![0.0; self.spec.latent].into())
    }

    fn condition(&self, conditions: &Conditions) -> Result<Vec<f32>> {
        let mut vector = Vec::with_capacity(self.spec.conditioning);
        vector.extend_from_slice(conditions.audio);
        conditions.past.iter().take(self.spec.past).for_each(|p| vector.extend_from_slice(p));
        if vector.len() < self.spec.conditioning && conditions.audio.len() == self.spec.window.len() {
            vector.resize(self.spec.conditioning, 0.0);
        }
        if vector.len() != self.spec.conditioning {
            return Err(Error::Mismatch {
                model: self.spec.name.clone(),
                what: "audio window".into(),
                expected: self.spec.window.len().to_string(),
                found: conditions.audio.len().to_string(),
            });
        }
        Ok(vector)
    }

    fn step(&self, latents: &[f32], timesteps: &[f32], conditions: &[f32]) -> Result<Vec<f32>> {
        let batch = timesteps.len();
        let outputs = self.model.run(&[
            Input { name: "latent", shape: &[batch, self.spec.latent], data: latents },
            Input { name: "timestep", shape: &[batch], data: timesteps },
            Input { name: "cond", shape: &[batch, self.spec.conditioning], data: conditions },
        ])?;
        outputs
            .into_iter()
            .next()
            .map(|t| t.data)
            .ok_or_else(|| Error::Runtime { model: self.model.name().into(), cause: "gave no output".into() })
    }

    fn render(&self, latent: &[f32], identity: &Identity, scene: &Scene) -> Result<Option<Patch>> {
        let (person, face) = (Self::person(identity)?, scene.face);
        let Some(to_crop) = self.spec.alignment.fit(&face.points) else { return Ok(None) };
        let points: Vec<_> = face.points.iter().map(|p| to_crop.apply(*p)).collect();
        let before = scene.last.and_then(|patch| patch.memory.as_ref()?.downcast_ref::<Memory>());
        let frames = before.map_or(1.0, |memory| memory.frames_until(scene));
        let heard = before.or_else(|| scene.heard?.downcast_ref());
        let mut contrast = heard.map(|memory| memory.contrast.clone()).unwrap_or_default();
        let latent = contrast.stretch(&self.basis, latent, frames);
        let drift = before.map(|memory| (memory.drift.as_slice(), frames));
        let wanted = person.wanted(&self.basis, &latent, &points, scene.gain, drift);
        let side = person.side().unwrap_or(self.spec.crop);
        let mask = mask::lower_face(side, &wanted, &points);
        let mut area = mask::area(&mask, side);
        if self.refiner.is_some() {
            area = area.union(&refine::area(&wanted));
        }
        let last = before.map(|memory| (memory.showing, frames));
        let Some(warp) = render::Warp::from(&wanted) else { return Ok(None) };
        let Some((mut pixels, showing)) = render::pixels(person, &wanted, &warp, scene, last, &area) else {
            return Ok(None);
        };
        if let Some(refiner) = &self.refiner {
            refiner.apply(&mut pixels, person, showing.reference, &wanted, &warp, scene)?;
        }
        let density = side as f32 * to_crop.scale();
        let reach = reach(side, density);
        let amount = if side > self.spec.crop { finer(density / reach as f32) * SHARPEN } else { SHARPEN };
        sharpen(&mut pixels, &area, amount, reach);
        if let Some(last) = scene.last {
            steady(&mut pixels, &last.pixels, &area, frames);
        }
        let Some(to_frame) = to_crop.inverse() else { return Ok(None) };
        tracing::trace!(opening = person::opening(&wanted.lower), ?showing, "rendered");
        Ok(Some(Patch {
            mask: mask.into(),
            pixels: Arc::new(pixels),
            to_frame,
            opacity: 1.0,
            memory: Some(Arc::new(Memory { showing, drift: wanted.drift, contrast, time: scene.time })),
        }))
    }
}
