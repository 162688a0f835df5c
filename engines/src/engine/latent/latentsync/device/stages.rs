//! Encode, step and decode in the memory of a device. Nothing of an item changes before all of its batch has succeeded, so that a
//! batch that failed can be passed again in parts.

use std::sync::Arc;

use super::{ESTIMATE, Shared, trimmed};
use crate::{
    Error, Result,
    cuda::{Buffer, Place},
    engine::{
        Clip, DeviceTensor, KNOWN, LATENT, Stage, StageKind, TRAIL, Work,
        latent::{
            clip::{self, CLIPS, CONDITION, KNOWN_CONDITION, SOUND},
            coder::{CHANNELS, EPSILON, LOG_VARIANCE, MEAN, PICTURES, PIXELS, opened, scale_of},
            pictures_at_a_time,
        },
        stage::{padded, rows, warm_up},
        step::TIMESTEP,
    },
    kernels::{Painted, Sampled, advance, all_finite, plain},
    manifest::Package,
    runtime::{Bound, Model, Options},
    schedule::Step,
};

/// Channels of what a U-Net sees of a frame: its latents, and what it is painted by.
const CONDITIONS: usize = 1 + 2 * CHANNELS;
const SAMPLE: usize = CHANNELS + CONDITIONS;
/// How many times as many pictures a card takes at a time as the processor, whose caches they leave.
const ON_CARD: usize = 4;

/// The stages in the order of `engine::latent::clip`.
pub(super) fn load(
    shared: &Arc<Shared>,
    package: &Package,
    options: &Options,
    clip: Clip,
) -> Result<Vec<Box<dyn Stage>>> {
    let section = clip::section(package)?;
    let place = shared.memory.place();
    let network = |part: &str| -> Result<Arc<Model>> {
        let model = package.network(part, options)?;
        model.runs_at(place).map_err(Error::invalid)?;
        Ok(model)
    };
    let wide = if place == Place::Host { 1 } else { ON_CARD };
    let piece = pictures_at_a_time(shared.side) * wide;
    let (shared, scale) = (|| Arc::clone(shared), section.latent_scale);
    let pictures = CLIPS.iter().map(|clips| 2 * clips * clip.hop).collect();
    let rows = [1].into_iter().chain(CLIPS.map(|clips| 2 * clips)).collect();
    let plain_scale = 1.0 / scale_of(section.decoder, scale);
    let decoder = network(section.decoder.part())?;
    Ok(vec![
        Box::new(Encode { shared: shared(), model: network("encoder")?, scale, sizes: pictures, piece }),
        Box::new(Denoise { shared: shared(), model: network("unet")?, frames: clip.frames, sizes: rows }),
        Box::new(Decode { shared: shared(), model: decoder, scale: plain_scale, sizes: CLIPS.to_vec(), piece }),
    ])
}

/// An error where one of the first `count` numbers that a network said is none.
fn numbers(shared: &Shared, model: &Model, output: &str, values: &Buffer<f32>, count: usize) -> Result<()> {
    if all_finite(&shared.memory, values, count)? {
        return Ok(());
    }
    Err(Error::NotFinite { model: model.name().into(), output: output.into() })
}

/// Frames of a clip, and those of them that are known.
fn frames(work: &Work) -> Result<(usize, usize)> {
    let frames = work.there(LATENT)?.shape.get(2).copied().unwrap_or(0);
    let kept = work.there(KNOWN).ok().and_then(|known| known.shape.get(2).copied()).unwrap_or(0);
    Ok((frames, kept.min(frames)))
}

/// Faces and their masked copies to what a clip is painted by.
struct Encode {
    shared: Arc<Shared>,
    model: Arc<Model>,
    scale: f32,
    sizes: Vec<usize>,
    piece: usize,
}

impl Encode {
    /// `[1, 9, frames, small, small]`.
    fn condition(&self, work: &Work) -> Result<DeviceTensor> {
        let Shared { memory, side, small, small_mask, .. } = &*self.shared;
        let (pixels, epsilon) = (work.there(PIXELS)?, work.there(EPSILON)?);
        let (count, picture, one) = (rows(work, Some(&PIXELS)), 3 * side * side, CHANNELS * self.shared.plane());
        let mean = Buffer::room(memory, count * one)?;
        let log_variance = Buffer::room(memory, count * one)?;
        for from in (0..count).step_by(self.piece) {
            let rows = self.piece.min(count - from);
            let (seen, said) = ([rows, 3, *side, *side], [rows, CHANNELS, *small, *small]);
            let input = Bound { name: PIXELS, shape: &seen, buffer: &pixels.buffer, at: pixels.at + from * picture };
            let output = |name, buffer| Bound { name, shape: &said, buffer, at: from * one };
            self.model.run_bound(&[input], &[output(MEAN, &mean), output(LOG_VARIANCE, &log_variance)])?;
        }
        numbers(&self.shared, &self.model, MEAN, &mean, count * one)?;
        numbers(&self.shared, &self.model, LOG_VARIANCE, &log_variance, count * one)?;
        let (frames, kept) = frames(work)?;
        let known = work.there(KNOWN_CONDITION).ok().map(DeviceTensor::part);
        let sampled = Sampled {
            mean: &mean,
            log_variance: &log_variance,
            epsilon: epsilon.part(),
            mask: small_mask,
            known,
            scale: self.scale,
        };
        let out = Buffer::room(memory, CONDITIONS * frames * self.shared.plane())?;
        sampled.condition(memory, &self.shared.clip(frames, kept), &[(&out, 0)])?;
        Ok(DeviceTensor { shape: vec![1, CONDITIONS, frames, *small, *small], buffer: Arc::new(out), at: 0 })
    }
}

impl Stage for Encode {
    fn kind(&self) -> StageKind {
        StageKind::Encode
    }

    fn inputs(&self) -> &[&'static str] {
        &[PIXELS, EPSILON]
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let made = batch.iter().map(|work| self.condition(work)).collect::<Result<Vec<_>>>();
        let made = made.map_err(|error| trimmed(&*self.shared.memory, error))?;
        for (work, condition) in batch.iter_mut().zip(made) {
            work.place_there(CONDITION, condition);
            for used in [PIXELS, EPSILON] {
                drop(work.take_there(used)?);
            }
        }
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        warm_up(&self.model, &opened(self.shared.side, self.model.device()), None)
    }
}

/// One step of clips that share a batch; a guided one is asked twice, the second time without its sound.
struct Denoise {
    shared: Arc<Shared>,
    model: Arc<Model>,
    /// Of a clip as a rule.
    frames: usize,
    sizes: Vec<usize>,
}

/// What the network said of a batch: with their sound of all, then without it of those that are guided.
struct Said {
    steps: Vec<Step>,
    prediction: Buffer<f32>,
}

impl Denoise {
    fn ask(&self, batch: &[Work]) -> Result<Said> {
        let Shared { memory, small, sound: [lines, width], .. } = &*self.shared;
        let step = |work: &Work| {
            let step = work.next().and_then(|pass| pass.step);
            step.ok_or_else(|| Error::invalid("a stage of denoising was asked for no step"))
        };
        let steps = batch.iter().map(step).collect::<Result<Vec<_>>>()?;
        let guided: Vec<usize> = (0..batch.len()).filter(|i| steps[*i].guidance != 1.0).collect();
        let order: Vec<usize> = (0..batch.len()).chain(guided).collect();
        let rows = padded(&self.sizes, order.len());
        let Some(first) = batch.first() else { return Err(Error::invalid("a batch of nothing")) };
        // Items that share a batch have the same shapes.
        let (frames, _) = frames(first)?;
        let frame = frames * self.shared.plane();
        let (latent, condition, heard) = (CHANNELS * frame, CONDITIONS * frame, frames * lines * width);
        let sample = Buffer::room(memory, rows * SAMPLE * frame)?;
        let audio = Buffer::room(memory, rows * heard)?;
        let prediction = Buffer::room(memory, rows * latent)?;
        for (row, i) in order.iter().enumerate() {
            let at = row * SAMPLE * frame;
            for (name, to, length) in [(LATENT, at, latent), (CONDITION, at + latent, condition)] {
                let from = batch[*i].there(name)?;
                sample.copy(to, &from.buffer, from.at, (1, length), [length; 2])?;
            }
        }
        for (row, work) in batch.iter().enumerate() {
            let from = work.there(SOUND)?;
            audio.copy(row * heard, &from.buffer, from.at, (1, heard), [heard; 2])?;
        }
        audio.clear(batch.len() * heard, (rows - batch.len()) * heard)?;
        sample.clear(order.len() * SAMPLE * frame, (rows - order.len()) * SAMPLE * frame)?;
        let mut timesteps: Vec<f32> = order.iter().map(|i| steps[*i].timestep).collect();
        timesteps.resize(rows, 0.0);
        let timesteps = Buffer::of(memory, &timesteps)?;
        let shapes = (
            [rows, SAMPLE, frames, *small, *small],
            [rows, frames, *lines, *width],
            [rows],
            [rows, CHANNELS, frames, *small, *small],
        );
        let inputs = [
            Bound { name: "sample", shape: &shapes.0, buffer: &sample, at: 0 },
            Bound { name: "audio", shape: &shapes.1, buffer: &audio, at: 0 },
            Bound { name: TIMESTEP, shape: &shapes.2, buffer: &timesteps, at: 0 },
        ];
        let output = Bound { name: "noise", shape: &shapes.3, buffer: &prediction, at: 0 };
        self.model.run_bound(&inputs, &[output])?;
        numbers(&self.shared, &self.model, "noise", &prediction, rows * latent)?;
        Ok(Said { steps, prediction })
    }

    fn advance(&self, batch: &mut [Work], said: &Said) -> Result<()> {
        let mut without = batch.len();
        for (i, work) in batch.iter_mut().enumerate() {
            let (frames, kept) = frames(work)?;
            let clip = self.shared.clip(frames, kept);
            let count = CHANNELS * frames * self.shared.plane();
            let (latent, trail) = (work.there(LATENT)?.clone(), work.there(TRAIL)?.clone());
            let (estimate, known) = (work.there(ESTIMATE)?.clone(), work.there(KNOWN).ok().cloned());
            // The trail has a row before each step and one after the last.
            let row = trail.shape.first().and_then(|rows| rows.checked_sub(work.remaining_steps()));
            let row = row.ok_or_else(|| Error::invalid("a clip with more steps than its trail has rows"))?;
            let one = CHANNELS * kept * self.shared.plane();
            let copies = [(&*trail.buffer, trail.at + row * count)];
            let painted = Painted {
                clip,
                latent: latent.part(),
                known: known.as_ref().map(|known| (&*known.buffer, known.at + row * one)),
                copies: &copies,
            };
            let step = &said.steps[i];
            let guided = (step.guidance != 1.0).then(|| {
                without += 1;
                (&said.prediction, (without - 1) * count)
            });
            let own = (&said.prediction, i * count);
            advance(&self.shared.memory, &painted, step, (own, guided), estimate.part(), &mut work.noise)?;
        }
        Ok(())
    }
}

impl Stage for Denoise {
    fn kind(&self) -> StageKind {
        StageKind::Step
    }

    fn inputs(&self) -> &[&'static str] {
        &[LATENT, CONDITION, SOUND]
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let said = self.ask(batch).map_err(|error| trimmed(&*self.shared.memory, error))?;
        self.advance(batch, &said)
    }

    fn warm_up(&self) -> Result<()> {
        let open = opened(self.shared.side, self.model.device()).into_iter().chain([("frames", self.frames)]);
        warm_up(&self.model, &open.collect::<Vec<_>>(), None)
    }
}

/// Latents of the new frames to pictures.
struct Decode {
    shared: Arc<Shared>,
    model: Arc<Model>,
    /// From latents to what the decoder takes.
    scale: f32,
    sizes: Vec<usize>,
    piece: usize,
}

impl Decode {
    /// `[n, 3, side, side]`.
    fn pictures(&self, work: &Work) -> Result<DeviceTensor> {
        let Shared { memory, side, small, .. } = &*self.shared;
        let (frames, kept) = frames(work)?;
        let count = frames - kept;
        let (picture, one) = (3 * side * side, CHANNELS * self.shared.plane());
        let latents = Buffer::room(memory, count * one)?;
        plain(memory, &self.shared.clip(frames, kept), work.there(LATENT)?.part(), self.scale, (&latents, 0))?;
        let pictures = Buffer::room(memory, count * picture)?;
        for from in (0..count).step_by(self.piece) {
            let rows = self.piece.min(count - from);
            let (seen, said) = ([rows, CHANNELS, *small, *small], [rows, 3, *side, *side]);
            let input = Bound { name: "latents", shape: &seen, buffer: &latents, at: from * one };
            let output = Bound { name: "pixels", shape: &said, buffer: &pictures, at: from * picture };
            self.model.run_bound(&[input], &[output])?;
        }
        numbers(&self.shared, &self.model, "pixels", &pictures, count * picture)?;
        Ok(DeviceTensor { shape: vec![count, 3, *side, *side], buffer: Arc::new(pictures), at: 0 })
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
        let made = batch.iter().map(|work| self.pictures(work)).collect::<Result<Vec<_>>>();
        let made = made.map_err(|error| trimmed(&*self.shared.memory, error))?;
        batch.iter_mut().zip(made).for_each(|(work, pictures)| work.place_there(PICTURES, pictures));
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        warm_up(&self.model, &opened(self.shared.side, self.model.device()), None)
    }
}
