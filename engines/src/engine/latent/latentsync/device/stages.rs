//! Encode and decode in the memory of a device. Nothing of an item changes before all of its batch has succeeded, so that a
//! batch that failed can be passed again in parts.

use std::sync::Arc;

use super::{Shared, denoise::Denoise, trimmed};
use crate::{
    Error, Result,
    cuda::{Buffer, Place},
    engine::{
        Clip, DeviceTensor, KNOWN, LATENT, Stage, StageKind, Work,
        latent::{
            clip::{self, CLIPS, CONDITION, KNOWN_CONDITION},
            coder::{CHANNELS, EPSILON, FACTOR, LOG_VARIANCE, MEAN, PICTURES, PIXELS, scale_of},
            pictures_at_a_time,
        },
        stage::{example, rows},
    },
    kernels::{Sampled, all_finite, plain},
    manifest::Package,
    runtime::{Bound, Model, Options},
};

/// Channels of what a clip is painted by.
pub(super) const CONDITIONS: usize = 1 + 2 * CHANNELS;
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
    let with = |part: &str, options: &Options| -> Result<Arc<Model>> {
        let model = package.network(part, options)?;
        model.runs_at(place).map_err(Error::invalid)?;
        Ok(model)
    };
    // Pictures lie somewhere else in each clip.
    let network = |part: &str| with(part, &options.without_graphs());
    let unet = with("unet", options)?;
    let wide = if place == Place::Host { 1 } else { ON_CARD };
    let piece = pictures_at_a_time(shared.side) * wide;
    let (shared, scale) = (|| Arc::clone(shared), section.latent_scale);
    let pictures = CLIPS.iter().map(|clips| 2 * clips * clip.hop).collect();
    let rows = [1].into_iter().chain(CLIPS.map(|clips| 2 * clips)).collect();
    let plain_scale = 1.0 / scale_of(section.decoder, scale);
    let decoder = network(section.decoder.part())?;
    Ok(vec![
        Box::new(Encode { shared: shared(), model: network("encoder")?, scale, sizes: pictures, piece }),
        Box::new(Denoise::new(shared(), unet, clip.frames, rows)),
        Box::new(Decode {
            shared: shared(),
            model: decoder,
            scale: plain_scale,
            sizes: CLIPS.to_vec(),
            pictures: clip.hop,
            piece,
        }),
    ])
}

/// An error where one of the first `count` numbers that a network said is none.
pub(super) fn numbers(shared: &Shared, model: &Model, output: &str, values: &Buffer<f32>, count: usize) -> Result<()> {
    if all_finite(&shared.memory, values, count)? {
        return Ok(());
    }
    Err(Error::NotFinite { model: model.name().into(), output: output.into() })
}

/// The dimensions that networks of pictures leave open, for pictures of `side` pixels.
fn as_they_are(side: usize) -> [(&'static str, usize); 4] {
    [("height", side), ("width", side), ("latent_height", side / FACTOR), ("latent_width", side / FACTOR)]
}

/// Runs a network once in the device's memory, on made-up numbers of `rows` rows; `outputs` are its outputs' names and shapes.
fn run_there(
    shared: &Shared,
    model: &Model,
    open: &[(&'static str, usize)],
    rows: usize,
    outputs: &[(&str, &[usize])],
) -> Result<()> {
    let mut number = 0u32;
    let made = example(model, open, rows, || {
        number = number.wrapping_add(1);
        (number as f32 * 0.37).sin()
    })?;
    let memory = &shared.memory;
    let inputs = made.iter().map(|(_, tensor)| Buffer::of(memory, &tensor.data)).collect::<Result<Vec<_>>>()?;
    let made =
        made.iter().zip(&inputs).map(|((name, tensor), buffer)| Bound { name, shape: &tensor.shape, buffer, at: 0 });
    let rooms = outputs.iter().map(|(_, shape)| Buffer::room(memory, shape.iter().product()));
    let rooms = rooms.collect::<Result<Vec<_>>>()?;
    let outputs = outputs.iter().zip(&rooms).map(|((name, shape), buffer)| Bound { name, shape, buffer, at: 0 });
    model.run_bound(&made.collect::<Vec<_>>(), &outputs.collect::<Vec<_>>())
}

/// Frames of a clip, and those of them that are known.
pub(super) fn frames(work: &Work) -> Result<(usize, usize)> {
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
        self.sizes.first().map_or(Ok(()), |rows| self.try_out(*rows))
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        let Shared { side, small, .. } = *self.shared;
        for from in (0..rows).step_by(self.piece) {
            let rows = self.piece.min(rows - from);
            let said = [rows, CHANNELS, small, small];
            let outputs: [(&str, &[usize]); 2] = [(MEAN, &said), (LOG_VARIANCE, &said)];
            run_there(&self.shared, &self.model, &as_they_are(side), rows, &outputs)?;
        }
        Ok(())
    }
}

/// Latents of the new frames to pictures.
struct Decode {
    shared: Arc<Shared>,
    model: Arc<Model>,
    /// From latents to what the decoder takes.
    scale: f32,
    /// Clips of a batch, and pictures that one of them becomes as a rule.
    sizes: Vec<usize>,
    pictures: usize,
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
        self.sizes.first().map_or(Ok(()), |rows| self.try_out(*rows))
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        let Shared { side, .. } = *self.shared;
        let count = rows * self.pictures;
        for from in (0..count).step_by(self.piece) {
            let rows = self.piece.min(count - from);
            let said = [rows, 3, side, side];
            run_there(&self.shared, &self.model, &as_they_are(side), rows, &[("pixels", &said)])?;
        }
        Ok(())
    }
}
