//! What goes into a network and what comes out, read from its graph.

use ort::value::{TensorElementType, ValueType};
use prost::{Message, Oneof};

use super::model::{Dtype, Port, Signature};

/// Who made a graph, where our importer did.
pub(crate) const OWN: &str = "lipstream";

/// The ports of a graph's bytes; `None` where it does not say all of them, so that a runtime must infer them.
pub(super) fn of(graph: &[u8]) -> Option<Signature> {
    let Model { producer_name, graph } = Model::decode(graph).ok()?;
    let graph = graph?;
    let weights: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|input| !weights.contains(&input.name.as_str()));
    let signature = Signature {
        inputs: inputs.map(port).collect::<Option<_>>()?,
        outputs: graph.output.iter().map(port).collect::<Option<_>>()?,
    };
    // Exporters leave sizes of outputs to be inferred; a batch alone may stay open. What our importer leaves open is open.
    let open = |port: &Port| producer_name != OWN && port.shape.iter().skip(1).any(Option::is_none);
    (!signature.outputs.is_empty() && !signature.outputs.iter().any(open)).then_some(signature)
}

/// Whether a graph's weights are fp16, most of them.
pub(super) fn is_half(graph: &[u8]) -> bool {
    let Ok(Model { graph: Some(graph), .. }) = Model::decode(graph) else { return false };
    let of = |kind: i32| graph.initializer.iter().filter(|tensor| tensor.data_type == kind).count();
    of(10) > of(1)
}

/// Whether a graph has convolutions.
pub(super) fn convolves(graph: &[u8]) -> bool {
    let Ok(Model { graph: Some(graph), .. }) = Model::decode(graph) else { return false };
    graph.node.iter().any(|node| matches!(node.op_type.as_str(), "Conv" | "ConvTranspose"))
}

fn port(value: &ValueInfo) -> Option<Port> {
    let tensor = value.r#type.as_ref()?.tensor_type.as_ref()?;
    let dims = &tensor.shape.as_ref()?.dim;
    let size = |dim: &Dimension| match dim.value {
        Some(DimensionValue::Value(n)) => usize::try_from(n).ok(),
        _ => None,
    };
    let symbol = |dim: &Dimension| match &dim.value {
        Some(DimensionValue::Symbol(symbol)) => symbol.clone(),
        _ => String::new(),
    };
    Some(Port {
        name: value.name.clone(),
        shape: dims.iter().map(size).collect(),
        dtype: dtype(tensor.elem_type),
        symbols: dims.iter().map(symbol).collect(),
    })
}

/// `TensorProto.DataType` of onnx/onnx.proto.
fn dtype(kind: i32) -> Dtype {
    match kind {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::Other("i8"),
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::Other("bool"),
        10 => Dtype::F16,
        11 => Dtype::F64,
        16 => Dtype::Other("bf16"),
        _ => Dtype::Other("another type"),
    }
}

/// The port as a loaded session says it.
pub(super) fn of_outlet(outlet: &ort::value::Outlet) -> Port {
    let (shape, dtype, symbols) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => (
            shape.iter().map(|d| usize::try_from(*d).ok()).collect(),
            match ty {
                TensorElementType::Float32 => Dtype::F32,
                TensorElementType::Float16 => Dtype::F16,
                TensorElementType::Float64 => Dtype::F64,
                TensorElementType::Int64 => Dtype::I64,
                TensorElementType::Int32 => Dtype::I32,
                TensorElementType::Uint8 => Dtype::U8,
                TensorElementType::Int8 => Dtype::Other("i8"),
                _ => Dtype::Other("another type"),
            },
            dimension_symbols.iter().map(|s| s.to_string()).collect(),
        ),
        _ => (Vec::new(), Dtype::Other("not a tensor"), Vec::new()),
    };
    Port { name: outlet.name().to_owned(), shape, dtype, symbols }
}

// The parts of onnx/onnx.proto that name ports, operations and types; everything else, weights above all, is passed over.

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Named>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    value: Option<DimensionValue>,
}

#[derive(Clone, PartialEq, Oneof)]
enum DimensionValue {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Symbol(String),
}
