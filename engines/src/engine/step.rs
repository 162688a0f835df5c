//! Steps of denoising: what a network is asked at each, and how its answer moves the latent.

use std::{borrow::Cow, sync::Arc};

use super::{
    known::{go_on, put_back, record},
    stage::{Stacked, Stage, StageKind, padded, rows, stack, taken, warm_up},
    work::Work,
};
use crate::{
    Error, Result,
    runtime::{Input, Model},
    schedule::Step,
};

/// The latent of a work item, `[rows, channels, …]`.
pub const LATENT: &str = "latent";
const TIMESTEP: &str = "timestep";
const PREDICTION: &str = "prediction";

/// What a port of a denoiser is fed with.
pub struct Feed {
    /// Tensors of the work with the same rows and the same shape but for their second dimension, along which they are joined.
    pub tensors: Vec<&'static str>,
    pub port: String,
    /// Whether it is left out (zeros) where guidance asks without condition.
    pub condition: bool,
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
}

impl StepStage {
    /// A network with the ports `latent`, `conditions` and `prediction`.
    pub fn new(model: Arc<Model>, conditions: &[&'static str], sizes: Vec<usize>) -> Self {
        let feed = |name: &'static str| Feed { tensors: vec![name], port: name.into(), condition: name != LATENT };
        let feeds = [LATENT].into_iter().chain(conditions.iter().copied()).map(feed).collect();
        Self::with_feeds(model, feeds, PREDICTION, sizes)
    }

    /// One whose ports have names of their own. The first feed begins with the latent.
    pub fn with_feeds(model: Arc<Model>, feeds: Vec<Feed>, output: &str, sizes: Vec<usize>) -> Self {
        let tensors = feeds.iter().flat_map(|feed| feed.tensors.iter().copied()).collect();
        Self { model, feeds, output: output.into(), tensors, sizes, open: Vec::new() }
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
            record(work)?;
        }
        let rows: Vec<usize> = batch.iter().map(|work| rows(work, self.tensors.first())).collect();
        let guided: Vec<usize> = (0..batch.len()).filter(|i| steps[*i].guidance != 1.0).collect();
        // First all with their conditions, then the guided ones again without.
        let order = || (0..batch.len()).chain(guided.iter().copied());
        let padded = padded(&self.sizes, order().map(|i| rows[i]).sum());
        let conditioned: usize = rows.iter().sum();
        let mut tensors = Vec::with_capacity(self.feeds.len());
        for feed in &self.feeds {
            let mut stacked = match feed.tensors[..] {
                [name] => stack(order().map(|i| batch[i].tensor(name)), padded)?,
                _ => joined(order().map(|i| &batch[i]), &feed.tensors, padded)?,
            };
            if feed.condition && !guided.is_empty() {
                let row = stacked.data.len() / padded.max(1);
                stacked.data.to_mut()[conditioned * row..].fill(0.0);
            }
            tensors.push(stacked);
        }
        let mut timesteps: Vec<f32> = order().flat_map(|i| std::iter::repeat_n(steps[i].timestep, rows[i])).collect();
        timesteps.resize(padded, 0.0);
        let shape = [padded];
        let mut inputs: Vec<Input> = self
            .feeds
            .iter()
            .zip(&tensors)
            .map(|(feed, tensor)| Input { name: &feed.port, shape: &tensor.shape, data: &tensor.data })
            .collect();
        inputs.push(Input { name: TIMESTEP, shape: &shape, data: &timesteps });
        let mut prediction = taken(&self.model, &mut self.model.run(&inputs)?, &self.output)?.data;
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
            advance(work, &steps[i], own)?;
        }
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        warm_up(&self.model, &self.open)
    }
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
    use crate::{engine::Noise, runtime::Tensor};

    fn tensor(shape: &[usize], from: f32) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor { shape: shape.to_vec(), data: (0..count).map(|i| from + i as f32).collect() }
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
