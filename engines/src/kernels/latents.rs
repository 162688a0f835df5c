//! Latents of a clip, `[channels, frames, plane]`: how they begin, what a step makes of them, and what goes to the decoder.

use std::sync::Arc;

use super::number;
use crate::{
    Error, Result,
    cuda::{Buffer, Memory, arguments, launch, memory::ROW},
    engine::Noise,
    schedule::Step,
};

/// A clip whose first `kept` frames are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip {
    pub channels: usize,
    pub frames: usize,
    pub kept: usize,
    /// Numbers of a channel of a frame.
    pub plane: usize,
}

/// The latents of a clip where they are.
pub struct Painted<'a> {
    pub clip: Clip,
    pub latent: Part<'a>,
    /// What is known, `[channels, kept, plane]`, as it is after the step.
    pub known: Option<Part<'a>>,
    /// Where the latents are put as well: their trail, and the network's next batch. At most three.
    pub copies: &'a [(&'a Buffer<f32>, usize)],
}

impl Clip {
    fn count(&self) -> usize {
        self.channels * self.frames * self.plane
    }
}

impl Painted<'_> {
    fn arguments(&self, memory: &Arc<dyn Memory>) -> Result<arguments::Clip> {
        let Clip { channels, frames, kept, plane } = self.clip;
        if kept > frames || self.copies.len() > 3 || self.known.is_some() != (kept > 0) {
            return Err(Error::invalid(format!(
                "{:?} with {} copies is no clip of a kernel",
                self.clip,
                self.copies.len()
            )));
        }
        let mut copies = [arguments::Pointer::NONE; 3];
        for (copy, (buffer, at)) in copies.iter_mut().zip(self.copies) {
            *copy = buffer.on(memory, *at, self.clip.count())?;
        }
        Ok(arguments::Clip {
            latent: self.latent.0.on(memory, self.latent.1, self.clip.count())?,
            known: self
                .known
                .map(|(known, at)| known.on(memory, at, channels * kept * plane))
                .transpose()?
                .unwrap_or_default(),
            copies,
            channels: number(channels)?,
            frames: number(frames)?,
            kept: number(kept)?,
            plane: number(plane)?,
        })
    }

    fn columns(&self) -> [usize; 2] {
        [self.clip.channels * self.clip.plane, 1]
    }
}

/// What `noise` says next, `count` numbers of it.
fn counted(noise: &mut Noise, count: usize) -> arguments::Noise {
    let (seed, pairs, spare) = noise.ahead(count);
    arguments::Noise { seed, pairs, spare: spare.unwrap_or_default(), has_spare: spare.is_some().into() }
}

/// A buffer, and its first number that counts.
pub type Part<'a> = (&'a Buffer<f32>, usize);

/// The latents before the first step: `noise`, `[channels, plane]`, in all frames but those that are known.
pub fn begin(memory: &Arc<dyn Memory>, painted: &Painted, noise: &Buffer<f32>) -> Result<()> {
    let noise = noise.on(memory, 0, painted.columns()[0])?;
    let begin = arguments::Begin { clip: painted.arguments(memory)?, noise };
    // SAFETY: all are as large as the clip.
    unsafe { launch(memory, &begin, painted.columns(), ROW) }
}

/// One step: guidance, [`Step::apply`], the frames after those that are known moved towards them, and these put back.
///
/// `prediction` is what the network said, and what it said without its condition where the step is guided, each with its first
/// number; `estimate` is kept from one step of a clip to the next.
pub fn advance(
    memory: &Arc<dyn Memory>,
    painted: &Painted,
    step: &Step,
    (prediction, without): (Part<'_>, Option<Part<'_>>),
    estimate: Part<'_>,
    noise: &mut Noise,
) -> Result<()> {
    let count = painted.clip.count();
    if without.is_none() && step.guidance != 1.0 {
        return Err(Error::invalid("a guided step needs a prediction without condition"));
    }
    let drawn = if step.noise > 0.0 { counted(noise, count) } else { arguments::Noise::default() };
    let [of_latent, of_prediction] = step.clean.unwrap_or_default();
    let without = without.filter(|_| step.guidance != 1.0);
    let advance = arguments::Advance {
        clip: painted.arguments(memory)?,
        prediction: prediction.0.on(memory, prediction.1, count)?,
        without: without.map(|(buffer, at)| buffer.on(memory, at, count)).transpose()?.unwrap_or_default(),
        estimate: estimate.0.on(memory, estimate.1, count)?,
        noise: drawn,
        guidance: step.guidance,
        keep: step.keep,
        predict: step.predict,
        prior: step.prior,
        deviation: step.noise,
        of_latent,
        of_prediction,
        estimates: step.clean.is_some().into(),
    };
    // SAFETY: all are as large as the clip.
    unsafe { launch(memory, &advance, painted.columns(), ROW) }
}

/// [`Noise::latent`], `length` numbers from one of `out` on: `last` is the latent before where it says that there is one, and becomes
/// this one. Without it latents have nothing to do with one another.
pub fn draw(
    memory: &Arc<dyn Memory>,
    noise: &mut Noise,
    (out, at): Part<'_>,
    length: usize,
    last: Option<(&Buffer<f32>, bool)>,
) -> Result<()> {
    let (keep, fresh, deviation) = noise.process();
    let draw = arguments::Draw {
        out: out.on(memory, at, length)?,
        last: last.map(|(last, _)| last.on(memory, 0, length)).transpose()?.unwrap_or_default(),
        noise: counted(noise, length),
        keep,
        fresh,
        deviation,
        length: number(length)?,
        goes_on: last.is_some_and(|(_, goes_on)| goes_on).into(),
    };
    // SAFETY: both have so many numbers, or there is no latent before.
    unsafe { launch(memory, &draw, [length, 1], ROW) }
}

/// What an encoder said of masked and then of whole faces, `[2 n, channels, plane]` each.
pub struct Sampled<'a> {
    pub mean: Part<'a>,
    pub log_variance: Part<'a>,
    /// What they are sampled by.
    pub epsilon: Part<'a>,
    /// `[plane]`.
    pub mask: &'a Buffer<f32>,
    /// Of the frames that are known, `[1 + 2 channels, kept, plane]`.
    pub known: Option<Part<'a>>,
    /// Of latents, to what a U-Net sees.
    pub scale: f32,
}

impl Sampled<'_> {
    /// What a clip is painted by, `[1 + 2 channels, frames, plane]`, in up to two places: mask, masked faces, whole faces.
    pub fn condition(&self, memory: &Arc<dyn Memory>, clip: &Clip, out: &[(&Buffer<f32>, usize)]) -> Result<()> {
        let Clip { channels, frames, kept, plane } = *clip;
        if kept > frames || out.len() > 2 || self.known.is_some() != (kept > 0) {
            return Err(Error::invalid(format!("{clip:?} in {} places is no clip of a kernel", out.len())));
        }
        let (own, all) = (2 * (frames - kept) * channels * plane, (1 + 2 * channels) * frames * plane);
        let mut places = [arguments::Pointer::NONE; 2];
        for (place, (buffer, at)) in places.iter_mut().zip(out) {
            *place = buffer.on(memory, *at, all)?;
        }
        let before = (1 + 2 * channels) * kept * plane;
        let condition = arguments::Condition {
            out: places,
            mask: self.mask.on(memory, 0, plane)?,
            mean: self.mean.0.on(memory, self.mean.1, own)?,
            log_variance: self.log_variance.0.on(memory, self.log_variance.1, own)?,
            epsilon: self.epsilon.0.on(memory, self.epsilon.1, own)?,
            known: self.known.map(|(known, at)| known.on(memory, at, before)).transpose()?.unwrap_or_default(),
            channels: number(channels)?,
            frames: number(frames)?,
            kept: number(kept)?,
            plane: number(plane)?,
            scale: self.scale,
        };
        // SAFETY: all are as large as the clip.
        unsafe { launch(memory, &condition, [all, 1], ROW) }
    }
}

/// The latents of the new frames as the decoder takes them, `[frames - kept, channels, plane]`, multiplied by `scale`.
pub fn plain(memory: &Arc<dyn Memory>, clip: &Clip, latent: Part<'_>, scale: f32, (out, at): Part<'_>) -> Result<()> {
    let Clip { channels, frames, kept, plane } = *clip;
    let count = frames.saturating_sub(kept) * channels * plane;
    let plain = arguments::Decoded {
        out: out.on(memory, at, count)?,
        latent: latent.0.on(memory, latent.1, clip.count())?,
        channels: number(channels)?,
        frames: number(frames)?,
        kept: number(kept)?,
        plane: number(plane)?,
        scale,
    };
    // SAFETY: both are as large as the clip.
    unsafe { launch(memory, &plain, [count, 1], ROW) }
}

/// Whether the first `count` numbers of `values` are finite; waits for them.
pub fn all_finite(memory: &Arc<dyn Memory>, values: &Buffer<f32>, count: usize) -> Result<bool> {
    let found = Buffer::<i32>::zeroed(memory, 1)?;
    let finite = arguments::Finite {
        values: values.on(memory, 0, count)?,
        found: found.on(memory, 0, 1)?,
        count: i64::from(number(count)?),
    };
    // SAFETY: there are so many values.
    unsafe { launch(memory, &finite, [count, 1], ROW)? };
    Ok(found.read()? == [0])
}
