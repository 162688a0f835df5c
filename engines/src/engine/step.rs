//! Steps of denoising: what a network is asked at each, and how its answer moves the latent.

use std::{borrow::Cow, sync::Arc};

use super::{
    known::{go_on, put_back, record},
    stage::{Stacked, Stage, StageKind, evaluate, padded, rows, stack, taken, try_out, warm_up},
    work::Work,
};
use crate::{
    Error, Result,
    runtime::{Model, Tensor},
    schedule::Step,
};

/// The latent of a work item, `[rows, channels, …]`.
pub const LATENT: &str = "latent";
pub(crate) const TIMESTEP: &str = "timestep";
const PREDICTION: &str = "prediction";

/// What a port of a denoiser is fed with.
pub struct Feed {
    /// Tensors of the work with the same rows and the same shape but for their second dimension, along which they are joined.
    pub tensors: Vec<&'static str>,
    pub port: String,
    /// Whether it is left out (zeros) where guidance asks without condition.
    pub condition: bool,
    /// Which dimension counts the frames of a clip, of a network that takes clips.
    pub frames: Option<usize>,
}

/// A denoiser: inputs as its feeds say, among them [`LATENT`], and `timestep` `[B]`; an output of the latent's shape. Of an
/// item whose step is guided it asks twice, once without condition.
pub struct StepStage {
    model: Arc<Model>,
    /// The first tensor of the first one is the latent.
    feeds: Vec<Feed>,
    output: String,
    tensors: Vec<&'static str>,
    sizes: Vec<usize>,
    /// Sizes of dimensions that it leaves open, by their names; 1 of others.
    open: Vec<(&'static str, usize)>,
    /// Most rows of one evaluation.
    piece: Option<usize>,
    /// Frames that a clip is made at least as long as.
    frames: usize,
}

impl StepStage {
    /// A network with the ports `latent`, `conditions` and `prediction`.
    pub fn new(model: Arc<Model>, conditions: &[&'static str], sizes: Vec<usize>) -> Self {
        let feed = |name: &'static str| Feed {
            tensors: vec![name],
            port: name.into(),
            condition: name != LATENT,
            frames: None,
        };
        let feeds = [LATENT].into_iter().chain(conditions.iter().copied()).map(feed).collect();
        let sizes = model.taken_of(sizes);
        Self::with_feeds(model, feeds, PREDICTION, sizes)
    }

    /// One whose ports have names of their own. The first feed begins with the latent.
    pub fn with_feeds(model: Arc<Model>, feeds: Vec<Feed>, output: &str, sizes: Vec<usize>) -> Self {
        let tensors = feeds.iter().flat_map(|feed| feed.tensors.iter().copied()).collect();
        Self { model, feeds, output: output.into(), tensors, sizes, open: Vec::new(), piece: None, frames: 0 }
    }

    /// The same, evaluated in pieces of at most so many rows. What a row becomes does not depend on those beside it then, to the
    /// last bit: products of matrices of other sizes add up in another order.
    pub(super) fn in_pieces(self, rows: usize) -> Self {
        Self { piece: Some(rows.max(1)), ..self }
    }

    /// The same for a device that compiles a program for each shape: a clip of fewer frames is evaluated as one of so many whose
    /// last frame stays.
    pub(super) fn with_frames(self, frames: usize) -> Self {
        Self { frames, ..self }
    }

    /// The same for a network that leaves dimensions besides the batch open: their names, and the sizes that they have as a
    /// rule.
    pub(super) fn with_open(mut self, open: &[(&'static str, usize)]) -> Self {
        self.open = open.to_vec();
        self
    }
}

impl Stage for StepStage {
    fn kind(&self) -> StageKind {
        StageKind::Step
    }

    fn inputs(&self) -> &[&'static str] {
        &self.tensors
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let step = |work: &Work| {
            let step = work.next().and_then(|pass| pass.step);
            step.ok_or_else(|| Error::invalid("a stage of denoising was asked for no step"))
        };
        let steps = batch.iter().map(step).collect::<Result<Vec<_>>>()?;
        for work in batch.iter_mut() {
            put_back(work, work.remaining_steps())?;
        }
        let rows: Vec<usize> = batch.iter().map(|work| rows(work, self.tensors.first())).collect();
        let guided: Vec<usize> = (0..batch.len()).filter(|i| steps[*i].guidance != 1.0).collect();
        // First all with their conditions, then the guided ones again without.
        let order = || (0..batch.len()).chain(guided.iter().copied());
        let total = order().map(|i| rows[i]).sum();
        let padded = if self.piece.is_some() { total } else { padded(&self.sizes, total) };
        let conditioned: usize = rows.iter().sum();
        let (mut tensors, mut own_frames) = (Vec::with_capacity(self.feeds.len()), None);
        for feed in &self.feeds {
            let mut stacked = match feed.tensors[..] {
                [name] => stack(order().map(|i| batch[i].tensor(name)), padded)?,
                _ => joined(order().map(|i| &batch[i]), &feed.tensors, padded)?,
            };
            if feed.condition && !guided.is_empty() {
                let row = stacked.data.len() / padded.max(1);
                stacked.data.to_mut()[conditioned * row..].fill(0.0);
            }
            if let Some((axis, count)) = feed.frames.and_then(|axis| Some((axis, *stacked.shape.get(axis)?)))
                && (1..self.frames).contains(&count)
            {
                stacked.data = of_length(&stacked.shape, &stacked.data, axis, self.frames).into();
                stacked.shape[axis] = self.frames;
                // The first one has the latent's dimensions.
                own_frames.get_or_insert((axis, count));
            }
            tensors.push(stacked);
        }
        let mut timesteps: Vec<f32> = order().flat_map(|i| std::iter::repeat_n(steps[i].timestep, rows[i])).collect();
        timesteps.resize(padded, 0.0);
        let mut ports: Vec<(&str, &Stacked)> = self.feeds.iter().map(|feed| feed.port.as_str()).zip(&tensors).collect();
        let timesteps = Stacked { shape: vec![padded], data: timesteps.into() };
        ports.push((TIMESTEP, &timesteps));
        let mut prediction = taken(&self.model, &mut evaluate(&self.model, &ports, padded, self.piece)?, &self.output)?;
        if let Some((axis, count)) = own_frames.filter(|(axis, _)| *axis < prediction.shape.len()) {
            prediction = Tensor { data: of_length(&prediction.shape, &prediction.data, axis, count), ..prediction };
        }
        let mut prediction = prediction.data;
        let row =
            batch.first().and_then(|work| work.get(LATENT)).map_or(0, |latent| latent.data.len() / rows[0].max(1));
        if prediction.len() != padded * row {
            return Err(Error::Mismatch {
                model: self.model.name().into(),
                what: format!("`{}`", self.output),
                expected: format!("{} numbers", padded * row),
                found: prediction.len().to_string(),
            });
        }
        let (conditioned, null) = prediction.split_at_mut(conditioned * row);
        let (mut at, mut at_null) = (0, 0);
        for (i, work) in batch.iter_mut().enumerate() {
            let length = rows[i] * row;
            let own = &mut conditioned[at..at + length];
            at += length;
            if steps[i].guidance != 1.0 {
                guide(own, &null[at_null..], steps[i].guidance);
                at_null += length;
            }
            // Once the network has answered: a batch that fails is passed again.
            record(work)?;
            advance(work, &steps[i], own)?;
        }
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        warm_up(&self.model, &self.open, self.piece)
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        try_out(&self.model, &self.open, rows, self.piece)
    }
}

/// A tensor as if its dimension `axis` had `length` places: the first ones, and the last one again where there are not as many.
fn of_length(shape: &[usize], data: &[f32], axis: usize, length: usize) -> Vec<f32> {
    let inner: usize = shape[axis + 1..].iter().product();
    let places = data.chunks_exact((shape[axis] * inner).max(1));
    let at = |whole: &'_ [f32], k: usize| whole[k.min(shape[axis] - 1) * inner..][..inner].to_vec();
    places.flat_map(|whole| (0..length).flat_map(move |k| at(whole, k))).collect()
}

/// Moves a prediction away from that without condition (Ho and Salimans 2022, arXiv 2207.12598).
pub(crate) fn guide(prediction: &mut [f32], null: &[f32], scale: f32) {
    prediction.iter_mut().zip(null).for_each(|(p, n)| *p = n + scale * (*p - n));
}

/// Takes a step, and puts back what is known after the last one.
pub(crate) fn advance(work: &mut Work, step: &Step, prediction: &[f32]) -> Result<()> {
    let Work { noise, estimate, .. } = work;
    let (mut noise, mut estimate) = (std::mem::take(noise), std::mem::take(estimate));
    if let Some(latent) = work.get_mut(LATENT) {
        step.apply(&mut latent.data, prediction, &mut estimate, || noise.normal());
    }
    (work.noise, work.estimate) = (noise, estimate);
    let left = work.remaining_steps().saturating_sub(1);
    go_on(work, left)?;
    if left > 0 {
        return Ok(());
    }
    put_back(work, 0)?;
    record(work)
}

/// Tensors of each item joined along their second dimension, items one after another, and zeros up to `padded` rows.
fn joined<'a>(items: impl Iterator<Item = &'a Work>, names: &[&'static str], padded: usize) -> Result<Stacked<'a>> {
    let mut data = Vec::new();
    let mut shape: Vec<usize> = Vec::new();
    for item in items {
        let tensors = names.iter().map(|name| item.tensor(name)).collect::<Result<Vec<_>>>()?;
        let first = tensors.first().map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
        let alike = |other: &[usize]| {
            other.len() == first.len() && other.len() > 1 && other[0] == first[0] && other[2..] == first[2..]
        };
        if let Some(other) = tensors.iter().find(|tensor| !alike(&tensor.shape)) {
            return Err(Error::invalid(format!("tensors of {first:?} and {:?} do not go together", other.shape)));
        }
        let mut own = first.to_vec();
        own[1] = tensors.iter().map(|tensor| tensor.shape[1]).sum();
        for row in 0..first[0] {
            for tensor in &tensors {
                let length = tensor.data.len() / first[0];
                data.extend_from_slice(&tensor.data[row * length..(row + 1) * length]);
            }
        }
        shape = own;
    }
    let Some(rows) = shape.first_mut() else { return Err(Error::invalid("a batch of nothing")) };
    *rows = padded;
    data.resize(shape.iter().product(), 0.0);
    Ok(Stacked { shape, data: Cow::Owned(data) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Noise;

    fn tensor(shape: &[usize], from: f32) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor { shape: shape.to_vec(), data: (0..count).map(|i| from + i as f32).collect() }
    }

    #[test]
    fn a_clip_is_lengthened_by_its_last_frame_and_cut_again() {
        // Two rows of one channel with three frames of two numbers.
        let data: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let longer = of_length(&[2, 1, 3, 2], &data, 2, 5);
        assert_eq!(longer[..10], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 5.0, 4.0, 5.0]);
        assert_eq!((longer.len(), longer[10]), (20, 6.0));
        assert_eq!(of_length(&[2, 1, 5, 2], &longer, 2, 3), data);
    }

    #[test]
    fn tensors_are_joined_along_their_channels_row_by_row() {
        let item = |from: f32| {
            Work::new(Noise::default()).with("a", tensor(&[2, 1, 2], from)).with("b", tensor(&[2, 2, 2], from + 50.0))
        };
        let items = [item(0.0), item(100.0)];
        let Stacked { shape, data } = joined(items.iter(), &["a", "b"], 5).unwrap();
        assert_eq!(shape, [5, 3, 2]);
        assert_eq!(data[..12], [0.0, 1.0, 50.0, 51.0, 52.0, 53.0, 2.0, 3.0, 54.0, 55.0, 56.0, 57.0]);
        assert_eq!((data[12], data[24..].iter().sum::<f32>()), (100.0, 0.0));
        let odd = item(0.0).with("b", tensor(&[2, 2, 3], 0.0));
        assert!(joined([odd].iter(), &["a", "b"], 2).is_err_and(|e| e.to_string().contains("do not go together")));
    }
}
