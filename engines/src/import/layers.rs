//! Convolutions as PyTorch's state dicts name them.

use std::{cell::RefCell, collections::BTreeSet};

use super::onnx::{Conv, Graph, Value};
use crate::{Error, Result, tensor::Weights};

/// What batch normalisation adds to a variance (PyTorch's `BatchNorm2d`).
const EPSILON: f64 = 1e-5;
/// What a state dict holds besides weights.
const COUNTERS: &str = "num_batches_tracked";

/// A file of weights of which it is known what has been used.
pub(super) struct Taken<'a> {
    weights: &'a Weights,
    names: RefCell<BTreeSet<String>>,
    /// Beginnings of names that belong to other networks of the file.
    others: &'static [&'static str],
}

impl<'a> Taken<'a> {
    pub(super) fn new(weights: &'a Weights) -> Self {
        Self { weights, names: RefCell::default(), others: &[] }
    }

    /// As [`new`](Self::new), of a file that holds other networks too, whose names begin with one of `others`.
    pub(super) fn beside(weights: &'a Weights, others: &'static [&'static str]) -> Self {
        Self { others, ..Self::new(weights) }
    }

    pub(super) fn origin(&self) -> &str {
        self.weights.origin()
    }

    /// The shape of the tensor `name`; an error where there is none.
    pub(super) fn shape(&self, name: &str) -> Result<&'a [usize]> {
        self.weights.shape(name).ok_or_else(|| self.refuse(name, "a tensor", "nothing"))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.weights.shape(name).is_some()
    }

    /// The numbers of the tensor `name`, which must have `shape` and be finite.
    pub(super) fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let numbers = self.weights.f32(name, shape)?;
        if numbers.iter().any(|v| !v.is_finite()) {
            return Err(self.refuse(name, "finite numbers", "others"));
        }
        self.names.borrow_mut().insert(name.to_owned());
        Ok(numbers)
    }

    /// An error that names the first tensor that nothing has asked for: the file is of another network.
    pub(super) fn all(&self) -> Result<()> {
        let names = self.names.borrow();
        let other = |name: &str| name.ends_with(COUNTERS) || self.others.iter().any(|start| name.starts_with(start));
        let left = self.weights.names().find(|name| !names.contains(*name) && !other(name));
        match left {
            None => Ok(()),
            Some(name) => {
                Err(self.refuse(name, "nothing", &format!("{:?}", self.weights.shape(name).unwrap_or_default())))
            }
        }
    }

    pub(super) fn refuse(&self, name: &str, expected: &str, found: &str) -> Error {
        Error::Mismatch {
            model: self.weights.origin().into(),
            what: format!("tensor `{name}`"),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The shape of a convolution's weight.
    pub(super) fn kernel(&self, name: &str) -> Result<[usize; 4]> {
        let shape = self.shape(&format!("{name}.weight"))?;
        shape.try_into().map_err(|_| self.refuse(&format!("{name}.weight"), "four dimensions", &format!("{shape:?}")))
    }

    /// The convolution `name`, which takes `channels` at each of which `groups` look; without a bias where there is none.
    pub(super) fn conv(
        &self,
        name: &str,
        shape: [usize; 4],
        stride: [usize; 2],
        padding: usize,
        groups: usize,
    ) -> Result<Conv> {
        let weight = self.f32(&format!("{name}.weight"), &shape)?;
        let bias = format!("{name}.bias");
        let bias = if self.has(&bias) { self.f32(&bias, &shape[..1])? } else { vec![0.0; shape[0]] };
        Ok(Conv { shape, weight, bias, stride, padding: [padding; 2], groups })
    }

    /// As [`conv`](Self::conv), transposed: `shape` is `[in, out, height, width]`.
    pub(super) fn conv_transpose(&self, name: &str, shape: [usize; 4], stride: usize, padding: usize) -> Result<Conv> {
        let weight = self.f32(&format!("{name}.weight"), &shape)?;
        let bias = self.f32(&format!("{name}.bias"), &shape[1..2])?;
        Ok(Conv { shape, weight, bias, stride: [stride; 2], padding: [padding; 2], groups: 1 })
    }

    /// Folds the batch normalisation `name` that follows `conv` into it; `output` is the dimension of the channels that come
    /// out.
    pub(super) fn normalised(&self, mut conv: Conv, name: &str, output: usize) -> Result<Conv> {
        let channels = conv.shape[output];
        let of = |part: &str| self.f32(&format!("{name}.{part}"), &[channels]);
        let (gain, shift, mean, variance) = (of("weight")?, of("bias")?, of("running_mean")?, of("running_var")?);
        let scale: Vec<f64> =
            gain.iter().zip(&variance).map(|(g, v)| f64::from(*g) / (f64::from(*v) + EPSILON).sqrt()).collect();
        let inner: usize = conv.shape[output + 1..].iter().product();
        for (i, w) in conv.weight.iter_mut().enumerate() {
            *w = (f64::from(*w) * scale[i / inner % channels]) as f32;
        }
        for (i, b) in conv.bias.iter_mut().enumerate() {
            *b = ((f64::from(*b) - f64::from(mean[i])) * scale[i] + f64::from(shift[i])) as f32;
        }
        Ok(conv)
    }
}

/// Wav2Lip's block: convolution, batch normalisation, what came in where it is `residual`, ReLU.
pub(super) fn block(
    graph: &mut Graph,
    taken: &Taken,
    x: &Value,
    name: &str,
    (stride, padding, residual): ([usize; 2], usize, bool),
) -> Result<Value> {
    let inner = format!("{name}.conv_block");
    let shape = taken.kernel(&format!("{inner}.0"))?;
    let conv = taken.conv(&format!("{inner}.0"), shape, stride, padding, 1)?;
    let y = graph.conv(x, taken.normalised(conv, &format!("{inner}.1"), 0)?)?;
    let y = if residual { graph.add(&y, x) } else { y };
    Ok(graph.relu(&y))
}
