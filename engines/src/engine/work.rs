//! What travels to the worker and back: a frame, or a clip of frames, as named tensors and the stages that it still has to
//! pass.

use std::{any::Any, collections::VecDeque, sync::Arc};

use super::Noise;
use crate::{
    Error, Result,
    cuda::Buffer,
    runtime::Tensor,
    schedule::{Schedule, Step},
};

/// One evaluation that a work item waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// Index into [`super::Engine::stages`].
    pub stage: usize,
    /// What a step of denoising does with the prediction.
    pub step: Option<Step>,
}

/// A tensor in the memory of a device, which may be a part of a buffer that others share.
#[derive(Clone, Debug)]
pub struct DeviceTensor {
    pub shape: Vec<usize>,
    pub buffer: Arc<Buffer<f32>>,
    /// Its first number.
    pub at: usize,
}

impl DeviceTensor {
    /// Where its numbers begin.
    pub(crate) fn part(&self) -> (&Buffer<f32>, usize) {
        (&self.buffer, self.at)
    }
}

/// One frame or clip on its way.
///
/// A tensor has the rows of this item along its first dimension. A stage reads those that it names, in whatever order they
/// were put in, and puts its outputs beside them.
#[derive(Debug, Default)]
pub struct Work {
    passes: VecDeque<Pass>,
    tensors: Vec<(&'static str, Tensor)>,
    /// Those in the memory of a device; a name is there or among the others.
    there: Vec<(&'static str, DeviceTensor)>,
    /// Fresh noise for samplers that add some.
    pub(crate) noise: Noise,
    /// The clean latent as the last step estimated it, for multistep samplers.
    pub(super) estimate: Vec<f32>,
    /// Place in its stream; set when it is submitted for the first time.
    pub(super) place: Option<u64>,
    /// What the actor wants to find again when it is finished.
    memory: Option<Box<dyn Any + Send>>,
}

impl Work {
    /// Nothing to do yet; `noise` is what its sampler adds.
    pub fn new(noise: Noise) -> Self {
        Self { noise, ..Self::default() }
    }

    /// Puts a tensor in, in place of the one of that name.
    pub fn put(&mut self, name: &'static str, tensor: Tensor) {
        match self.tensors.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = tensor,
            None => self.tensors.push((name, tensor)),
        }
    }

    pub fn with(mut self, name: &'static str, tensor: Tensor) -> Self {
        self.put(name, tensor);
        self
    }

    /// Keeps what the actor wants to find again.
    pub fn remembering(mut self, memory: impl Any + Send) -> Self {
        self.memory = Some(Box::new(memory));
        self
    }

    /// Takes what was kept, where it is a `T`.
    pub fn remembered<T: Any>(&mut self) -> Option<Box<T>> {
        self.memory.take()?.downcast().ok()
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(n, _)| *n == name).map(|(_, tensor)| tensor)
    }

    /// Puts a tensor of a device in, in place of the one of that name.
    pub(crate) fn put_there(&mut self, name: &'static str, shape: Vec<usize>, buffer: impl Into<Arc<Buffer<f32>>>) {
        let tensor = DeviceTensor { shape, buffer: buffer.into(), at: 0 };
        self.place_there(name, tensor);
    }

    /// As [`put_there`](Self::put_there), of a part of a buffer.
    pub(crate) fn place_there(&mut self, name: &'static str, tensor: DeviceTensor) {
        match self.there.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = tensor,
            None => self.there.push((name, tensor)),
        }
    }

    /// The tensor of that name in the memory of a device; an error that says so where there is none.
    pub fn there(&self, name: &str) -> Result<&DeviceTensor> {
        let found = self.there.iter().find(|(n, _)| *n == name).map(|(_, tensor)| tensor);
        found.ok_or_else(|| Error::invalid(format!("the work has no tensor `{name}` on a device")))
    }

    /// Takes a tensor of a device out.
    pub(crate) fn take_there(&mut self, name: &str) -> Result<DeviceTensor> {
        let at = self.there.iter().position(|(n, _)| *n == name);
        at.map(|at| self.there.swap_remove(at).1)
            .ok_or_else(|| Error::invalid(format!("the work has no tensor `{name}` on a device")))
    }

    /// The shape of the tensor of that name, wherever it is.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        let there = || self.there.iter().find(|(n, _)| *n == name).map(|(_, tensor)| &tensor.shape[..]);
        self.get(name).map(|tensor| &tensor.shape[..]).or_else(there)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        self.tensors.iter_mut().find(|(n, _)| *n == name).map(|(_, tensor)| tensor)
    }

    /// The tensor of that name; an error that says so where there is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.get(name).ok_or_else(|| Error::invalid(format!("the work has no tensor `{name}`")))
    }

    /// Takes a tensor out.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        let at = self.tensors.iter().position(|(n, _)| *n == name);
        at.map(|at| self.tensors.swap_remove(at).1)
            .ok_or_else(|| Error::invalid(format!("the work has no tensor `{name}`")))
    }

    /// Adds a stage at the end of its way.
    pub fn pass(&mut self, stage: usize) {
        self.passes.push_back(Pass { stage, step: None });
    }

    /// Adds all steps of a schedule.
    pub fn denoise(&mut self, stage: usize, schedule: &Schedule) {
        self.passes.extend(schedule.steps().iter().map(|step| Pass { stage, step: Some(*step) }));
    }

    /// What comes next; `None` once all is done.
    pub fn next(&self) -> Option<Pass> {
        self.passes.front().copied()
    }

    /// Stages that it still has to pass.
    pub fn remaining(&self) -> usize {
        self.passes.len()
    }

    /// Steps of denoising that it still has to take, the next one among them.
    pub(crate) fn remaining_steps(&self) -> usize {
        self.passes.iter().filter(|pass| pass.step.is_some()).count()
    }

    /// The stages that it still has to pass.
    pub(super) fn stages(&self) -> impl Iterator<Item = usize> {
        self.passes.iter().map(|pass| pass.stage)
    }

    /// Rows of a batch that its next pass takes, of a stage that reads `inputs`: those of its tensors, twice for a step
    /// that is guided.
    pub fn rows_of(&self, inputs: &[&'static str]) -> usize {
        let first = inputs.first().and_then(|name| self.shape(name)).and_then(|shape| shape.first().copied());
        let guided = self.next().and_then(|pass| pass.step).is_some_and(|step| step.guidance != 1.0);
        first.unwrap_or(1) * if guided { 2 } else { 1 }
    }

    /// Notes that the next stage was passed.
    pub fn advance(&mut self) {
        self.passes.pop_front();
    }
}
