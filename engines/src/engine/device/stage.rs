use std::sync::Arc;

use super::{made_up, numbers, trimmed, warm_up};
use crate::{
    Error, Result,
    cuda::{Buffer, Memory},
    engine::{DeviceTensor, Stage, StageKind, Work, stage::padded},
    runtime::{Bound, Model},
};

/// A tensor of the work and its shape after the batch.
type Named = (&'static str, Vec<usize>);

/// As [`crate::engine::NetworkStage`], with tensors in the memory of a device: those of a batch are put together there, and each
/// item is left its part of what the network says. An item has one row.
///
/// Nothing of an item changes before all of its batch has succeeded, so that a batch that failed can be passed again in parts.
pub(in crate::engine) struct BoundStage {
    kind: StageKind,
    memory: Arc<dyn Memory>,
    model: Arc<Model>,
    inputs: Vec<Named>,
    names: Vec<&'static str>,
    outputs: Vec<Named>,
    /// What the network calls them.
    input_ports: Vec<String>,
    output_ports: Vec<String>,
    sizes: Vec<usize>,
}

impl BoundStage {
    pub fn new(
        kind: StageKind,
        memory: &Arc<dyn Memory>,
        model: Arc<Model>,
        inputs: &[(&'static str, &[usize])],
        outputs: &[(&'static str, &[usize])],
        sizes: Vec<usize>,
    ) -> Self {
        type Ports<'a> = &'a [(&'static str, &'a [usize])];
        let ports = |ports: Ports| ports.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        let named = |ports: Ports| ports.iter().map(|(name, shape)| (*name, shape.to_vec())).collect::<Vec<_>>();
        Self {
            kind,
            memory: Arc::clone(memory),
            model,
            names: inputs.iter().map(|(name, _)| *name).collect(),
            inputs: named(inputs),
            outputs: named(outputs),
            input_ports: ports(inputs),
            output_ports: ports(outputs),
            sizes,
        }
    }

    /// The same for a network whose ports have names of their own.
    pub fn with_ports(mut self, inputs: &[String], outputs: &[String]) -> Self {
        (self.input_ports, self.output_ports) = (inputs.to_vec(), outputs.to_vec());
        self
    }

    /// Rows of all items and zeros, `[rows, …]`, of each input.
    fn stacked(&self, batch: &[Work], rows: usize) -> Result<Vec<Buffer<f32>>> {
        let stack = |(name, shape): &Named| {
            let row: usize = shape.iter().product();
            let all = Buffer::room(&self.memory, rows * row)?;
            for (i, work) in batch.iter().enumerate() {
                let own = work.there(name)?;
                if own.shape.first() != Some(&1) || own.shape[1..] != shape[..] {
                    return Err(Error::Mismatch {
                        model: self.model.name().into(),
                        what: format!("`{name}`"),
                        expected: format!("one row of {shape:?}"),
                        found: format!("{:?}", own.shape),
                    });
                }
                all.copy(i * row, &own.buffer, own.at, (1, row), [row; 2])?;
            }
            all.clear(batch.len() * row, (rows - batch.len()) * row)?;
            Ok(all)
        };
        self.inputs.iter().map(stack).collect()
    }

    /// What the network says of `rows` rows.
    fn evaluated(&self, inputs: &[Buffer<f32>], rows: usize) -> Result<Vec<Buffer<f32>>> {
        let (asked, said) = (shapes(&self.inputs, rows), shapes(&self.outputs, rows));
        let rooms = said.iter().map(|shape| Buffer::room(&self.memory, shape.iter().product()));
        let outputs = rooms.collect::<Result<Vec<_>>>()?;
        let inputs = bound(&self.input_ports, &asked, inputs);
        self.model.run_bound(&inputs, &bound(&self.output_ports, &said, &outputs))?;
        Ok(outputs)
    }

    fn said(&self, batch: &[Work]) -> Result<Vec<Buffer<f32>>> {
        let rows = padded(&self.sizes, batch.len());
        let outputs = self.evaluated(&self.stacked(batch, rows)?, rows)?;
        for ((name, shape), output) in self.outputs.iter().zip(&outputs) {
            numbers(&self.memory, &self.model, name, output, batch.len() * shape.iter().product::<usize>())?;
        }
        Ok(outputs)
    }
}

/// The shapes of so many rows.
fn shapes(ports: &[Named], rows: usize) -> Vec<Vec<usize>> {
    ports.iter().map(|(_, shape)| [&[rows], &shape[..]].concat()).collect()
}

fn bound<'a>(ports: &'a [String], shapes: &'a [Vec<usize>], buffers: &'a [Buffer<f32>]) -> Vec<Bound<'a>> {
    let all = ports.iter().zip(shapes).zip(buffers);
    all.map(|((name, shape), buffer)| Bound { name, shape, buffer, at: 0 }).collect()
}

impl Stage for BoundStage {
    fn kind(&self) -> StageKind {
        self.kind
    }

    fn inputs(&self) -> &[&'static str] {
        &self.names
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let said = self.said(batch).map_err(|error| trimmed(&*self.memory, error))?;
        for ((name, shape), output) in self.outputs.iter().zip(said) {
            let (shape, buffer) = ([&[1], &shape[..]].concat(), Arc::new(output));
            let row: usize = shape.iter().product();
            for (i, work) in batch.iter_mut().enumerate() {
                let tensor = DeviceTensor { shape: shape.clone(), buffer: Arc::clone(&buffer), at: i * row };
                work.place_there(name, tensor);
            }
        }
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        warm_up(&self.model, &self.sizes, 1, |rows| self.try_out(rows))
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        let made = shapes(&self.inputs, rows).into_iter().map(|shape| made_up(&self.memory, shape.iter().product()));
        self.evaluated(&made.collect::<Result<Vec<_>>>()?, rows).map(drop)
    }
}
