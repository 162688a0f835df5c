//! What a graph costs, worked out from its operations and the sizes of its inputs: multiplications, and how much of its values
//! is held at a time.
//!
//! Shapes that a graph computes from shapes are followed as numbers. What runtimes fuse or lay out anew is not known here: the
//! bytes are those of the graph as it is written, each value freed after its last use.

mod shapes;

use std::collections::HashMap;

use prost::Message as _;

use super::proto::{self, DimensionValue, FLOAT, FLOAT16, INT64};
use crate::{Error, Result};

/// Cost of one evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of convolutions and matrix products, each of which has an addition beside it.
    pub multiplications: u64,
    /// Most bytes of values at a time, weights apart.
    pub held: u64,
}

impl Cost {
    /// A multiply-add counts two.
    pub fn gflop(&self) -> f32 {
        (2.0 * self.multiplications as f64 / 1e9) as f32
    }
}

/// A value on its way.
#[derive(Clone, Debug, Default)]
struct Known {
    shape: Vec<usize>,
    /// Bytes of an element.
    element: usize,
    /// Its numbers, of the few that say shapes.
    numbers: Option<Vec<f64>>,
}

impl Known {
    fn bytes(&self) -> u64 {
        count(&self.shape) as u64 * self.element as u64
    }
}

/// Most numbers of a value.
const MOST: usize = 1 << 40;

/// Numbers of a shape.
fn count(shape: &[usize]) -> usize {
    shape.iter().fold(1, |n, d| usize::saturating_mul(n, *d))
}

/// Memory that a value lies in; values of the same numbers share one.
struct Buffer {
    bytes: u64,
    /// Place of the last node that reads it.
    last: usize,
}

/// Operations that give the numbers that they are given, under another shape.
const VIEWS: [&str; 6] = ["Reshape", "Flatten", "Identity", "Unsqueeze", "Squeeze", "Dropout"];

/// What one row of the batch costs of the graph of a file.
pub fn cost_of(file: &[u8]) -> Result<Cost> {
    let model = proto::Model::decode(file).map_err(|e| Error::invalid(format!("is no ONNX graph: {e}")))?;
    let graph = model.graph.ok_or_else(|| Error::invalid("holds no graph"))?;
    cost(&graph, |_| 1)
}

/// Walks through `graph`, whose inputs have `size` of the name of every dimension that is not fixed.
///
/// Errors: an operation that is not known, or whose inputs do not fit it.
pub fn cost(graph: &proto::Graph, size: impl Fn(&str) -> usize) -> Result<Cost> {
    let refuse = |node: &proto::Node, cause: &str| {
        Error::invalid(format!("the cost of `{}` ({}) is not known: {cause}", node.name, node.op_type))
    };
    let mut values: HashMap<&str, Known> = HashMap::new();
    for tensor in &graph.initializer {
        values.insert(&tensor.name, stored(tensor));
    }
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for input in &graph.input {
        // Old files list weights among the inputs.
        if values.contains_key(input.name.as_str()) {
            continue;
        }
        let known = given(input, &size)?;
        places.insert(&input.name, buffers.len());
        buffers.push(Buffer { bytes: known.bytes(), last: 0 });
        values.insert(&input.name, known);
    }
    let mut cost = Cost::default();
    for (at, node) in graph.node.iter().enumerate() {
        let inputs: Vec<Option<&Known>> = node.input.iter().map(|name| values.get(name.as_str())).collect();
        if let Some(name) = node.input.iter().find(|name| !name.is_empty() && !values.contains_key(name.as_str())) {
            return Err(refuse(node, &format!("`{name}` comes from nowhere")));
        }
        let made = shapes::of(node, &inputs).map_err(|cause| refuse(node, &cause))?;
        if made.outputs.iter().any(|known| count(&known.shape) > MOST) {
            return Err(refuse(node, "it gives more numbers than any memory holds"));
        }
        cost.multiplications = cost.multiplications.saturating_add(made.multiplications);
        for name in &node.input {
            if let Some(place) = places.get(name.as_str()) {
                buffers[*place].last = at;
            }
        }
        for (name, known) in node.output.iter().zip(made.outputs) {
            let shared = VIEWS.contains(&node.op_type.as_str());
            let own = node.input.first().and_then(|input| places.get(input.as_str())).copied().filter(|_| shared);
            let place = own.unwrap_or_else(|| {
                buffers.push(Buffer { bytes: known.bytes(), last: at });
                buffers.len() - 1
            });
            places.insert(name, place);
            values.insert(name, known);
        }
    }
    for output in &graph.output {
        if let Some(place) = places.get(output.name.as_str()) {
            buffers[*place].last = graph.node.len();
        }
    }
    cost.held = held(graph, &places, &buffers);
    Ok(cost)
}

/// The most that buffers take at a time: each from the node that makes it to the last that reads it.
fn held(graph: &proto::Graph, places: &HashMap<&str, usize>, buffers: &[Buffer]) -> u64 {
    let mut alive = vec![false; buffers.len()];
    let mut ends: HashMap<usize, Vec<usize>> = HashMap::new();
    buffers.iter().enumerate().for_each(|(place, buffer)| ends.entry(buffer.last).or_default().push(place));
    let mut now = 0;
    let begin = |alive: &mut Vec<bool>, now: &mut u64, place: usize| {
        if !std::mem::replace(&mut alive[place], true) {
            *now += buffers[place].bytes;
        }
    };
    for input in &graph.input {
        places.get(input.name.as_str()).into_iter().for_each(|place| begin(&mut alive, &mut now, *place));
    }
    let mut most = now;
    for (at, node) in graph.node.iter().enumerate() {
        for place in node.output.iter().filter_map(|name| places.get(name.as_str())) {
            begin(&mut alive, &mut now, *place);
        }
        most = most.max(now);
        for place in ends.get(&at).into_iter().flatten().filter(|place| alive[**place]) {
            now -= buffers[*place].bytes;
        }
    }
    most
}

/// A weight, or a few numbers.
fn stored(tensor: &proto::Tensor) -> Known {
    let shape: Vec<usize> = tensor.dims.iter().map(|d| dimension(*d)).collect();
    let few = count(&shape) <= 64;
    let numbers = match tensor.data_type {
        INT64 if !tensor.int64_data.is_empty() => tensor.int64_data.iter().map(|v| *v as f64).collect(),
        INT64 => tensor.raw_data.as_chunks().0.iter().map(|v| i64::from_le_bytes(*v) as f64).collect(),
        FLOAT if !tensor.float_data.is_empty() => tensor.float_data.iter().map(|v| f64::from(*v)).collect(),
        FLOAT if few => tensor.raw_data.as_chunks().0.iter().map(|v| f64::from(f32::from_le_bytes(*v))).collect(),
        _ => Vec::new(),
    };
    let numbers = Some(numbers).filter(|numbers| few && numbers.len() == count(&shape));
    Known { shape, element: element(tensor.data_type), numbers }
}

fn given(input: &proto::ValueInfo, size: &impl Fn(&str) -> usize) -> Result<Known> {
    let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    let (tensor, shape) = tensor
        .zip(shape)
        .ok_or_else(|| Error::invalid(format!("the input `{}` of the graph has no shape", input.name)))?;
    let along = |dim: &proto::Dimension| match &dim.value {
        Some(DimensionValue::Value(n)) => dimension(*n),
        Some(DimensionValue::Symbol(symbol)) => size(symbol),
        None => size(""),
    };
    let shape: Vec<usize> = shape.dim.iter().map(along).collect();
    Ok(Known { shape, element: element(tensor.elem_type), numbers: None })
}

/// A dimension as a file states it.
fn dimension(stated: i64) -> usize {
    stated.clamp(0, MOST as i64) as usize
}

/// Bytes of an element of `TensorProto.DataType`.
fn element(kind: i32) -> usize {
    match kind {
        INT64 | 11 => 8,
        FLOAT16 | 16 => 2,
        2 | 3 | 9 => 1,
        _ => 4,
    }
}
