//! What transformers and autoencoders need besides convolutions.
//!
//! Sizes that the caller of the network chooses are taken from shapes while it runs; a runtime that is told them folds these
//! nodes away. Norms are computed in f32 whatever the precision: variances overflow fp16.

use super::{FLOAT, Graph, Value, int, string};
use crate::{
    Error, Result,
    import::onnx::proto::{self, ATTRIBUTE_FLOAT, ATTRIBUTE_INTS, Attribute, INT64},
};

impl Graph<'_> {
    /// `x sigmoid(x)`
    pub fn silu(&mut self, x: &Value) -> Value {
        let gate = self.sigmoid(x);
        self.multiply(x, &gate)
    }

    /// `x (1 + erf(x / sqrt 2)) / 2`, in the order of operations that runtimes fuse.
    pub fn gelu(&mut self, x: &Value) -> Value {
        let [root, one, half] = [2f32.sqrt(), 1.0, 0.5].map(|v| self.scalar(v));
        let inner = self.alike("Div", &[x, &root]);
        let inner = self.alike("Erf", &[&inner]);
        let inner = self.alike("Add", &[&inner, &one]);
        let whole = self.multiply(x, &inner);
        self.multiply(&whole, &half)
    }

    pub fn multiply(&mut self, a: &Value, b: &Value) -> Value {
        self.alike("Mul", &[a, b])
    }

    /// `factor x + offset`
    pub fn affine(&mut self, x: &Value, factor: f32, offset: f32) -> Value {
        let [factor, offset] = [factor, offset].map(|v| self.scalar(v));
        let scaled = self.multiply(x, &factor);
        self.alike("Add", &[&scaled, &offset])
    }

    /// `limit tanh(x / limit)`
    pub fn soft_limit(&mut self, x: &Value, limit: f32) -> Value {
        let limit = self.scalar(limit);
        let inner = self.alike("Div", &[x, &limit]);
        let inner = self.alike("Tanh", &[&inner]);
        self.multiply(&inner, &limit)
    }

    pub fn clip(&mut self, x: &Value, from: f32, to: f32) -> Value {
        let [from, to] = [from, to].map(|v| self.scalar(v));
        self.alike("Clip", &[x, &from, &to])
    }

    pub fn sin_cos(&mut self, x: &Value) -> (Value, Value) {
        (self.alike("Sin", &[x]), self.alike("Cos", &[x]))
    }

    /// `x + numbers`, which have `shape` and are stretched to that of `x`.
    pub fn add_numbers(&mut self, x: &Value, shape: &[usize], numbers: &[f32]) -> Result<Value> {
        let numbers = self.weight(shape, numbers)?;
        Ok(self.add(x, &numbers))
    }

    /// Numbers of a weight as a value.
    pub fn numbers(&mut self, shape: &[usize], numbers: &[f32]) -> Result<Value> {
        self.weight(shape, numbers)
    }

    /// Numbers that stay f32 whatever the precision.
    pub fn numbers_f32(&mut self, shape: &[usize], numbers: &[f32]) -> Result<Value> {
        self.stored(shape, numbers, FLOAT)
    }

    /// `x W + b` of the last dimension: `weight` is `[out, in]` as PyTorch has it.
    pub fn linear(
        &mut self,
        x: &Value,
        [out, inside]: [usize; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Value> {
        if weight.len() != out * inside {
            return Err(Error::invalid(format!("{} numbers for a weight of [{out}, {inside}]", weight.len())));
        }
        let turned: Vec<f32> = (0..inside).flat_map(|i| (0..out).map(move |o| weight[o * inside + i])).collect();
        let weight = self.weight(&[inside, out], &turned)?;
        let y = self.node("MatMul", &[x, &weight], vec![], None);
        match bias {
            Some(bias) => self.add_numbers(&y, &[out], bias),
            None => Ok(y),
        }
    }

    /// The matrix product of two values.
    pub fn product(&mut self, a: &Value, b: &Value) -> Value {
        self.node("MatMul", &[a, b], vec![], None)
    }

    /// Along the last dimension.
    pub fn softmax(&mut self, x: &Value) -> Value {
        self.alike_with("Softmax", &[x], vec![int("axis", -1)])
    }

    pub fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.node("Transpose", &[x], vec![signed("perm", order)], None)
    }

    /// 0 keeps a dimension, -1 takes what is left.
    pub fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.integers(shape);
        self.node("Reshape", &[x, &shape], vec![], None)
    }

    /// A shape that was put together by [`join`](Self::join).
    pub fn reshape_to(&mut self, x: &Value, shape: &Value) -> Value {
        self.node("Reshape", &[x, shape], vec![], None)
    }

    /// The shape of a picture that has as many numbers.
    pub fn reshape_like(&mut self, x: &Value, picture: &Value) -> Value {
        let shape = self.node("Shape", &[picture], vec![], None);
        let y = self.reshape_to(x, &shape);
        self.sized(y, self.size(picture))
    }

    /// The size of one dimension, as an integer.
    pub fn dimension(&mut self, x: &Value, axis: i64) -> Value {
        let (shape, axis) = (self.node("Shape", &[x], vec![], None), self.integers(&[axis]));
        self.node("Gather", &[&shape, &axis], vec![int("axis", 0)], None)
    }

    pub fn integers(&mut self, numbers: &[i64]) -> Value {
        let name = self.fresh();
        self.graph.initializer.push(proto::Tensor {
            dims: vec![numbers.len() as i64],
            data_type: INT64,
            name: name.clone(),
            raw_data: numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        });
        Value(name)
    }

    /// Joins values along a dimension.
    pub fn join(&mut self, values: &[&Value], axis: i64) -> Value {
        self.node("Concat", values, vec![int("axis", axis)], None)
    }

    /// Joins values along a new dimension.
    pub fn stack(&mut self, values: &[Value], axis: i64) -> Value {
        let axes = self.integers(&[axis]);
        let each: Vec<Value> = values.iter().map(|v| self.node("Unsqueeze", &[v, &axes], vec![], None)).collect();
        self.join(&each.iter().collect::<Vec<_>>(), axis)
    }

    /// Repeats `x` as far as `shape` says.
    pub fn expand(&mut self, x: &Value, shape: &Value) -> Value {
        self.node("Expand", &[x, shape], vec![], None)
    }

    /// The first `count`, an integer value, along the first dimension.
    pub fn head(&mut self, x: &Value, count: &Value) -> Value {
        let zero = self.integers(&[0]);
        self.node("Slice", &[x, &zero, count, &zero], vec![], None)
    }

    /// So many parts along a dimension, which they divide.
    pub fn equal_parts(&mut self, x: &Value, axis: i64, parts: usize) -> Vec<Value> {
        let names: Vec<_> = (0..parts).map(|_| self.fresh()).collect();
        self.node("Split", &[x], vec![int("axis", axis)], names.first().map(String::as_str));
        if let Some(node) = self.graph.node.last_mut() {
            node.output.clone_from(&names);
        }
        names.into_iter().map(Value).collect()
    }

    /// Two parts along a dimension, of these sizes.
    pub fn split(&mut self, x: &Value, axis: i64, sizes: [usize; 2]) -> [Value; 2] {
        let parts = self.integers(&sizes.map(|n| n as i64));
        let halves = [self.fresh(), self.fresh()];
        let first = self.node("Split", &[x, &parts], vec![int("axis", axis)], Some(&halves[0]));
        if let Some(node) = self.graph.node.last_mut() {
            node.output.push(halves[1].clone());
        }
        [first, Value(halves[1].clone())]
    }

    /// Normalises groups of channels of each picture; `gain` and `shift` of each channel.
    pub fn group_norm(&mut self, x: &Value, groups: usize, epsilon: f32, gain: &[f32], shift: &[f32]) -> Result<Value> {
        let wide = self.cast_f32(x);
        let grouped = self.reshape(&wide, &[0, groups as i64, -1]);
        // A group of one channel of one pixel is a single number, of which ONNX Runtime's kernel for CUDA makes 0 / 0: it corrects
        // the variance that cuDNN divides by one number less.
        if gain.len() == groups {
            let norm = self.normalised(&grouped, epsilon, &[2]);
            let norm = self.reshape_like(&norm, x);
            return self.channels(&norm, gain, shift);
        }
        let (ones, zeros) = (self.constant(&vec![1.0; groups]), self.constant(&vec![0.0; groups]));
        let norm =
            self.node("InstanceNormalization", &[&grouped, &ones, &zeros], vec![float("epsilon", epsilon)], None);
        let norm = self.reshape_like(&norm, x);
        self.channels(&norm, gain, shift)
    }

    /// As [`group_norm`](Self::group_norm), over all pictures of a clip: `grouped` is the shape `[clips, pictures, groups, rest]`.
    pub fn clip_norm(
        &mut self,
        x: &Value,
        grouped: &Value,
        epsilon: f32,
        gain: &[f32],
        shift: &[f32],
    ) -> Result<Value> {
        let wide = self.cast_f32(x);
        let apart = self.reshape_to(&wide, grouped);
        let norm = self.normalised(&apart, epsilon, &[3, 1]);
        let norm = self.reshape_like(&norm, x);
        self.channels(&norm, gain, shift)
    }

    /// f32 numbers less their mean over `axes`, over their deviation.
    fn normalised(&mut self, x: &Value, epsilon: f32, axes: &[i64]) -> Value {
        let mean = self.mean(x, axes);
        let centred = self.node("Sub", &[x, &mean], vec![], None);
        let square = self.node("Mul", &[&centred, &centred], vec![], None);
        let variance = self.mean(&square, axes);
        let epsilon = self.constant(&[epsilon]);
        let variance = self.node("Add", &[&variance, &epsilon], vec![], None);
        let deviation = self.node("Sqrt", &[&variance], vec![], None);
        self.node("Div", &[&centred, &deviation], vec![], None)
    }

    /// Means over axes of one size in all rows, one axis after another, the inner first: runtimes have a kernel for each.
    fn mean(&mut self, x: &Value, axes: &[i64]) -> Value {
        axes.iter().fold(x.clone(), |x, axis| {
            self.node("ReduceMean", &[&x], vec![signed("axes", &[*axis]), int("keepdims", 1)], None)
        })
    }

    /// Gain and shift of each channel, in f32.
    fn channels(&mut self, x: &Value, gain: &[f32], shift: &[f32]) -> Result<Value> {
        let (gain, shift) =
            (self.stored(&[gain.len(), 1, 1], gain, FLOAT)?, self.stored(&[shift.len(), 1, 1], shift, FLOAT)?);
        let scaled = self.multiply(x, &gain);
        let moved = self.add(&scaled, &shift);
        Ok(self.cast(moved, self.kind()))
    }

    /// Normalises the last dimension.
    pub fn layer_norm(&mut self, x: &Value, epsilon: f32, gain: &[f32], shift: &[f32]) -> Result<Value> {
        let wide = self.cast_f32(x);
        let (gain, shift) = (self.stored(&[gain.len()], gain, FLOAT)?, self.stored(&[shift.len()], shift, FLOAT)?);
        let attributes = vec![int("axis", -1), float("epsilon", epsilon)];
        let y = self.node("LayerNormalization", &[&wide, &gain, &shift], attributes, None);
        Ok(self.cast(y, self.kind()))
    }

    /// Twice the height and width, each pixel four times.
    pub fn enlarge(&mut self, x: &Value) -> Value {
        let scales = self.constant(&[1.0, 1.0, 2.0, 2.0]);
        let attributes = vec![
            string("mode", "nearest"),
            string("coordinate_transformation_mode", "asymmetric"),
            string("nearest_mode", "floor"),
        ];
        let y = self.node("Resize", &[x, &Value(String::new()), &scales], attributes, None);
        self.sized(y, self.size(x).map(|[c, h, w]| [c, 2 * h, 2 * w]))
    }

    /// `x` as f32.
    pub fn cast_f32(&mut self, x: &Value) -> Value {
        match self.kind() {
            FLOAT => x.clone(),
            _ => {
                let y = self.node("Cast", &[x], vec![int("to", FLOAT.into())], None);
                self.sized(y, self.size(x))
            }
        }
    }

    /// `x`, which is f32, at the graph's precision.
    pub fn cast_back(&mut self, x: &Value) -> Value {
        self.cast(x.clone(), self.kind())
    }

    /// Channels, nominal height and width of a picture.
    pub fn size_of(&self, x: &Value) -> Result<[usize; 3]> {
        self.size(x)
            .ok_or_else(|| Error::invalid("a value of the graph is no picture: the weights are of another network"))
    }

    /// `x` as a picture of this nominal size.
    pub fn picture(&mut self, x: Value, size: [usize; 3]) -> Value {
        self.sized(x, Some(size))
    }

    fn sized(&mut self, x: Value, size: Option<[usize; 3]>) -> Value {
        if let Some(size) = size {
            self.sizes.insert(x.0.clone(), size);
        }
        x
    }

    fn alike_with(&mut self, op: &str, inputs: &[&Value], attributes: Vec<Attribute>) -> Value {
        let y = self.node(op, inputs, attributes, None);
        let size = inputs.first().and_then(|x| self.size(x));
        self.sized(y, size)
    }

    /// A number of the graph's precision.
    fn scalar(&mut self, v: f32) -> Value {
        let name = self.fresh();
        let raw_data = match self.kind() {
            FLOAT => v.to_le_bytes().to_vec(),
            _ => half::f16::from_f32(v).to_le_bytes().to_vec(),
        };
        let tensor = proto::Tensor { data_type: self.kind(), name: name.clone(), raw_data, ..Default::default() };
        self.graph.initializer.push(tensor);
        Value(name)
    }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.into(), f, kind: ATTRIBUTE_FLOAT, ..Default::default() }
}

fn signed(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: values.to_vec(), kind: ATTRIBUTE_INTS, ..Default::default() }
}
