//! Stages: one batched evaluation of a network each.

use std::{borrow::Cow, ops::Range, sync::Arc};

use super::work::Work;
use crate::{
    Error, Result,
    runtime::{Input, Model, Tensor},
};

/// What our importer calls the first dimension of its networks.
const BATCH: &str = "batch";

/// What an evaluation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// Pixels to latents.
    Encode,
    /// One step of denoising.
    Step,
    /// One pass from conditions to a picture.
    Forward,
    /// Latents to pixels.
    Decode,
    /// Repairs a picture.
    Refine,
}

impl StageKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Step => "step",
            Self::Forward => "forward",
            Self::Decode => "decode",
            Self::Refine => "refine",
        }
    }
}

/// One batched evaluation. Items of any stream whose inputs have the same shapes may share one.
pub trait Stage: Send + Sync {
    fn kind(&self) -> StageKind;

    /// Names of the tensors that it reads.
    fn inputs(&self) -> &[&'static str];

    /// Sizes of a batch that it was compiled for, ascending and not empty; smaller batches are padded.
    fn sizes(&self) -> &[usize];

    /// Passes all of `batch`, at most as many as the largest of its sizes: reads their tensors and leaves its outputs there.
    fn run(&self, batch: &mut [Work]) -> Result<()>;

    /// Runs it on nothing, since some runtimes compile a network when it first runs.
    fn warm_up(&self) -> Result<()> {
        Ok(())
    }

    /// Evaluates a batch of so many rows of made-up numbers, and returns when that has ended.
    fn try_out(&self, rows: usize) -> Result<()> {
        let _ = rows;
        self.warm_up()
    }
}

/// A stage, and what is done with each item's outputs once it has run.
pub(crate) struct Then<S> {
    stage: S,
    finish: fn(&mut Work) -> Result<()>,
}

impl<S: Stage> Then<S> {
    pub(crate) fn new(stage: S, finish: fn(&mut Work) -> Result<()>) -> Self {
        Self { stage, finish }
    }
}

impl<S: Stage> Stage for Then<S> {
    fn kind(&self) -> StageKind {
        self.stage.kind()
    }

    fn inputs(&self) -> &[&'static str] {
        self.stage.inputs()
    }

    fn sizes(&self) -> &[usize] {
        self.stage.sizes()
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        self.stage.run(batch)?;
        batch.iter_mut().try_for_each(self.finish)
    }

    fn warm_up(&self) -> Result<()> {
        self.stage.warm_up()
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        self.stage.try_out(rows)
    }
}

/// A network whose outputs are left as they are.
pub struct NetworkStage {
    kind: StageKind,
    model: Arc<Model>,
    inputs: Vec<&'static str>,
    outputs: Vec<&'static str>,
    /// What the network calls them.
    input_ports: Vec<String>,
    output_ports: Vec<String>,
    sizes: Vec<usize>,
    /// Sizes of dimensions that it leaves open, by their names; 1 of others.
    open: Vec<(&'static str, usize)>,
    /// Most rows of one evaluation.
    piece: Option<usize>,
}

impl NetworkStage {
    /// `inputs` and `outputs` are tensors of the work and ports of `model`, all with the batch as their first dimension.
    pub fn new(
        kind: StageKind,
        model: Arc<Model>,
        inputs: &[&'static str],
        outputs: &[&'static str],
        sizes: Vec<usize>,
    ) -> Self {
        let names = |ports: &[&'static str]| ports.iter().map(|port| (*port).to_owned()).collect();
        Self {
            kind,
            model,
            input_ports: names(inputs),
            output_ports: names(outputs),
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            sizes,
            open: Vec::new(),
            piece: None,
        }
    }

    /// The same for rows that do not look at each other: a batch is evaluated in pieces of at most so many, so that its values
    /// take no more memory than those of a piece. Batches are not padded; pieces are where the device compiles a program for
    /// each shape, and are no larger than the device has one for.
    pub fn in_pieces(self, rows: usize) -> Self {
        Self { piece: Some(largest_piece(&self.model, rows.max(1))), ..self }
    }

    /// The same for a network whose ports have names of their own.
    pub fn with_ports(mut self, inputs: &[String], outputs: &[String]) -> Self {
        (self.input_ports, self.output_ports) = (inputs.to_vec(), outputs.to_vec());
        self
    }

    /// The same for a network that leaves dimensions besides the batch open: their names, and the sizes that they have as a
    /// rule.
    pub(super) fn with_open(mut self, open: &[(&'static str, usize)]) -> Self {
        self.open = open.to_vec();
        self
    }
}

impl Stage for NetworkStage {
    fn kind(&self) -> StageKind {
        self.kind
    }

    fn inputs(&self) -> &[&'static str] {
        &self.inputs
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let rows: Vec<usize> = batch.iter().map(|work| rows(work, self.inputs.first())).collect();
        let total = rows.iter().sum();
        let padded = if self.piece.is_some() { total } else { padded(&self.sizes, total) };
        let stacked: Vec<Stacked> = self
            .inputs
            .iter()
            .map(|name| stack(batch.iter().map(|work| work.tensor(name)), padded))
            .collect::<Result<_>>()?;
        let ports: Vec<(&str, &Stacked)> = self.input_ports.iter().map(String::as_str).zip(&stacked).collect();
        let mut outputs = evaluate(&self.model, &ports, padded, self.piece)?;
        for (name, port) in self.outputs.iter().zip(&self.output_ports) {
            let output = taken(&self.model, &mut outputs, port)?;
            if let [work] = &mut *batch
                && rows[0] == padded
            {
                work.put(name, output);
                continue;
            }
            let mut rest = &output.data[..];
            let row = output.data.len() / padded.max(1);
            for (work, rows) in batch.iter_mut().zip(&rows) {
                let (own, others) = rest.split_at_checked(rows * row).ok_or_else(|| short(&self.model, name))?;
                let mut shape = output.shape.clone();
                if let Some(first) = shape.first_mut() {
                    *first = *rows;
                }
                work.put(name, Tensor { shape, data: own.to_vec() });
                rest = others;
            }
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

/// One evaluation of `rows` rows, or one after another of at most `piece`.
pub(super) fn evaluate(
    model: &Model,
    ports: &[(&str, &Stacked)],
    rows: usize,
    piece: Option<usize>,
) -> Result<Vec<Tensor>> {
    let mut whole: Vec<Tensor> = Vec::new();
    for from in (0..rows.max(1)).step_by(piece.unwrap_or(rows).max(1)) {
        let count = piece.unwrap_or(rows).min(rows - from);
        let padded = piece.map_or(count, |piece| piece_size(model, count, piece));
        let parts: Vec<Stacked> =
            ports.iter().map(|(_, tensor)| tensor.part(from..from + count, rows, padded)).collect();
        let inputs = ports.iter().zip(&parts);
        let inputs: Vec<Input> =
            inputs.map(|((name, _), part)| Input { name, shape: &part.shape, data: &part.data }).collect();
        let mut outputs = model.run(&inputs)?;
        for output in outputs.iter_mut().filter(|output| output.shape.first() == Some(&padded)) {
            output.data.truncate(output.data.len() / padded.max(1) * count);
            output.shape[0] = count;
        }
        if whole.is_empty() {
            whole = outputs;
            continue;
        }
        for (whole, output) in whole.iter_mut().zip(outputs) {
            whole.data.extend_from_slice(&output.data);
            if let Some(rows) = whole.shape.first_mut() {
                *rows += output.shape.first().copied().unwrap_or(0);
            }
        }
    }
    Ok(whole)
}

/// Rows of an item's tensor `name`.
pub(super) fn rows(work: &Work, name: Option<&&'static str>) -> usize {
    name.and_then(|name| work.shape(name)).and_then(|shape| shape.first().copied()).unwrap_or(1)
}

/// The size of a batch of so many rows.
pub(super) fn padded(sizes: &[usize], rows: usize) -> usize {
    sizes.iter().copied().find(|size| *size >= rows).unwrap_or(rows)
}

/// Rows of a batch.
pub(super) struct Stacked<'a> {
    pub shape: Vec<usize>,
    pub data: Cow<'a, [f32]>,
}

impl Stacked<'_> {
    /// Some of its `rows` rows, and zeros up to `padded`; what is not padded is lent.
    fn part(&self, range: Range<usize>, rows: usize, padded: usize) -> Stacked<'_> {
        let row = self.data.len() / rows.max(1);
        let shape = std::iter::once(padded).chain(self.shape.iter().skip(1).copied()).collect();
        let mut data = Cow::Borrowed(&self.data[range.start * row..range.end * row]);
        if padded * row > data.len() {
            data.to_mut().resize(padded * row, 0.0);
        }
        Stacked { shape, data }
    }
}

/// Tensors one after another along the first dimension, and zeros up to `padded` rows; one that fills them is lent.
pub(super) fn stack<'a>(mut tensors: impl Iterator<Item = Result<&'a Tensor>>, padded: usize) -> Result<Stacked<'a>> {
    let Some(first) = tensors.next().transpose()? else {
        return Err(Error::invalid("a batch of nothing"));
    };
    let row: usize = first.shape.iter().skip(1).product();
    let mut data = Cow::Borrowed(&first.data[..]);
    for tensor in tensors {
        data.to_mut().extend_from_slice(&tensor?.data);
    }
    if data.len() < padded * row {
        data.to_mut().resize(padded * row, 0.0);
    }
    let shape = std::iter::once(padded).chain(first.shape.iter().skip(1).copied()).collect();
    Ok(Stacked { shape, data })
}

/// The output of that name, which is taken out; an error where it is not finite.
pub(super) fn taken(model: &Model, outputs: &mut [Tensor], name: &str) -> Result<Tensor> {
    let at = model.signature().outputs.iter().position(|port| port.name == name);
    let output = at.and_then(|at| outputs.get_mut(at)).ok_or_else(|| short(model, name))?;
    if output.data.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite { model: model.name().into(), output: name.into() });
    }
    Ok(Tensor { shape: std::mem::take(&mut output.shape), data: std::mem::take(&mut output.data) })
}

fn short(model: &Model, name: &str) -> Error {
    Error::Runtime { model: model.name().into(), cause: format!("gave no whole output `{name}`") }
}

/// Sizes of pieces of at most `most` rows on a device that compiles a program for each shape: powers of two, and the largest.
pub(super) fn sizes_of_pieces(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1usize), |size| size.checked_mul(2)).take_while(move |size| *size < most).chain([most])
}

/// Rows of the largest piece that is asked for where nothing as small as wanted was built.
const LARGEST_PIECE: usize = 256;

/// The most rows of a piece, at most `most`, that a model has a program for; else the fewest above. Where there is none at all it is
/// `most`, which an error then says.
pub(super) fn largest_piece(model: &Model, most: usize) -> usize {
    let above = || sizes_of_pieces(LARGEST_PIECE).find(|rows| *rows > most && model.takes(*rows));
    sizes_of_pieces(most).filter(|rows| model.takes(*rows)).last().or_else(above).unwrap_or(most)
}

/// Rows that a piece of `count` rows, at most `piece`, is evaluated as: a device that compiles a program for each shape has few, and
/// TensorRT those that were built.
pub(super) fn piece_size(model: &Model, count: usize, piece: usize) -> usize {
    if !model.by_shape() {
        return count;
    }
    let mut fit = sizes_of_pieces(piece).filter(|rows| *rows >= count);
    fit.find(|rows| model.takes(*rows)).unwrap_or_else(|| count.next_power_of_two().min(piece))
}

/// Runs a model on zeros; the dimensions that it leaves open are as large as `open` says of their names, or 1. Where the device
/// compiles a program for each shape, once for each size of a piece of at most `piece` rows.
pub(super) fn warm_up(model: &Model, open: &[(&'static str, usize)], piece: Option<usize>) -> Result<()> {
    let mut sizes: Vec<usize> =
        (1..=piece.unwrap_or(1)).map(|count| piece_size(model, count, piece.unwrap_or(1))).collect();
    sizes.dedup();
    if !model.by_shape() {
        sizes.truncate(1);
    }
    sizes.into_iter().try_for_each(|rows| run_on(model, open, rows, || 0.0))
}

/// Runs a model on `rows` rows of numbers in -1..1, in pieces of at most `piece`.
pub(super) fn try_out(model: &Model, open: &[(&'static str, usize)], rows: usize, piece: Option<usize>) -> Result<()> {
    let mut state = 1u32;
    let mut number = || {
        // Numerical Recipes' linear congruential generator.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let most = piece.unwrap_or(rows).max(1);
    for from in (0..rows).step_by(most) {
        let count = most.min(rows - from);
        run_on(model, open, piece.map_or(count, |piece| piece_size(model, count, piece)), &mut number)?;
    }
    Ok(())
}

/// Runs a model once on `rows` rows that `fill` makes.
fn run_on(model: &Model, open: &[(&'static str, usize)], rows: usize, fill: impl FnMut() -> f32) -> Result<()> {
    let made = example(model, open, rows, fill)?;
    let inputs: Vec<Input> =
        made.iter().map(|(name, made)| Input { name, shape: &made.shape, data: &made.data }).collect();
    model.run(&inputs).map(drop)
}

/// Inputs of `rows` rows; the dimensions that a model leaves open are as large as `open` says of their names, or 1.
pub(super) fn example(
    model: &Model,
    open: &[(&'static str, usize)],
    rows: usize,
    fill: impl FnMut() -> f32,
) -> Result<Vec<(String, Tensor)>> {
    let size = |name: &str| match name {
        BATCH => rows,
        _ => open.iter().find(|(known, _)| *known == name).map_or(1, |(_, size)| *size),
    };
    model.example(size, fill)
}
