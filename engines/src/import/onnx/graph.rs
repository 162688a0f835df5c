mod ops;

use std::{collections::HashMap, io::Write};

use prost::Message as _;

use super::{
    proto::{
        self, ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_STRING, Attribute, Dimension, DimensionValue, FLOAT, FLOAT16,
        Node, StringEntry, ValueInfo,
    },
    walk::{self, Cost},
};
use crate::{Error, Result, runtime::OWN};

const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;
/// Weights in another file begin at multiples of this, so that they can be mapped.
const ALIGNMENT: u64 = 64;

/// Arithmetic of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    Fp32,
    Fp16,
}

/// A value of a graph, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Value(String);

/// A dimension of an input or an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dim {
    Fixed(usize),
    /// Named by the caller of the network.
    Free(&'static str),
    /// The same, and taken for so many where cost is counted.
    Nominal(&'static str, usize),
}

impl Dim {
    fn size(self) -> Option<usize> {
        match self {
            Self::Fixed(n) | Self::Nominal(_, n) => Some(n),
            Self::Free(_) => None,
        }
    }
}

/// A convolution, of PyTorch's layout.
#[derive(Clone, Debug)]
pub struct Conv {
    /// `[out, in / groups, height, width]`, of a transposed one `[in, out / groups, height, width]`.
    pub shape: [usize; 4],
    pub weight: Vec<f32>,
    /// `[out]`
    pub bias: Vec<f32>,
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub groups: usize,
}

/// Where weights go.
enum Store<'a> {
    Inline,
    /// The name of the file, where it is written and how much has been.
    External {
        name: String,
        file: &'a mut dyn Write,
        at: u64,
    },
}

/// A graph in the making.
pub struct Graph<'a> {
    name: String,
    precision: Precision,
    store: Store<'a>,
    graph: proto::Graph,
    values: usize,
    /// Channels, height and width of the values that are pictures.
    sizes: HashMap<String, [usize; 3]>,
    /// How large dimensions are taken to be that the caller of the network chooses.
    nominal: HashMap<&'static str, usize>,
}

impl<'a> Graph<'a> {
    /// A graph that holds its weights.
    pub fn new(name: &str, precision: Precision) -> Self {
        Self {
            name: name.into(),
            precision,
            store: Store::Inline,
            graph: proto::Graph::default(),
            values: 0,
            sizes: HashMap::new(),
            nominal: HashMap::new(),
        }
    }

    /// A graph whose weights are written to `file`, which will lie beside it under the name `data`.
    pub fn with_data(name: &str, precision: Precision, data: &str, file: &'a mut dyn Write) -> Self {
        let store = Store::External { name: data.into(), file, at: 0 };
        Self { store, ..Self::new(name, precision) }
    }

    pub fn input(&mut self, name: &str, shape: &[Dim]) -> Value {
        let value = self.input_f32(name, shape);
        self.cast(value, self.kind())
    }

    /// An input that stays f32 whatever the precision.
    pub fn input_f32(&mut self, name: &str, shape: &[Dim]) -> Value {
        self.graph.input.push(port(name, shape));
        self.nominal.extend(shape.iter().filter_map(|dim| match dim {
            Dim::Nominal(name, size) => Some((*name, *size)),
            Dim::Fixed(_) | Dim::Free(_) => None,
        }));
        if let [_, channels, height, width] = shape
            && let (Some(c), Some(h), Some(w)) = (channels.size(), height.size(), width.size())
        {
            self.sizes.insert(name.into(), [c, h, w]);
        }
        Value(name.into())
    }

    pub fn output(&mut self, name: &str, shape: &[Dim], value: Value) {
        self.graph.output.push(port(name, shape));
        let (op, attributes) = match self.precision {
            Precision::Fp32 => ("Identity", vec![]),
            Precision::Fp16 => ("Cast", vec![int("to", FLOAT.into())]),
        };
        self.node(op, &[&value], attributes, Some(name));
    }

    pub fn conv(&mut self, x: &Value, conv: Conv) -> Result<Value> {
        let pads = [conv.padding, conv.padding].concat();
        self.conv_padded(x, conv, &pads)
    }

    /// As [`conv`](Self::conv), with a padding of its own at each side: top, left, bottom, right.
    pub fn conv_padded(&mut self, x: &Value, conv: Conv, pads: &[usize]) -> Result<Value> {
        let Conv { shape, weight, bias, stride, groups, .. } = conv;
        let size = self.size(x).filter(|size| size[0] == shape[1] * groups);
        let [_, height, width] = size.ok_or_else(|| misfit(&shape, self.size(x)))?;
        let along = |i: usize, length: usize| {
            (length + pads[i] + pads[2 + i]).checked_sub(shape[2 + i]).map(|rest| rest / stride[i] + 1)
        };
        let out = along(0, height).zip(along(1, width)).ok_or_else(|| misfit(&shape, size))?;
        let weight = self.weight(&shape, &weight)?;
        let bias = self.weight(&[shape[0]], &bias)?;
        let attributes = vec![
            ints("kernel_shape", &shape[2..]),
            ints("strides", &stride),
            ints("pads", pads),
            int("group", groups as i64),
        ];
        let y = self.node("Conv", &[x, &weight, &bias], attributes, None);
        self.sizes.insert(y.0.clone(), [shape[0], out.0, out.1]);
        Ok(y)
    }

    /// A transposed convolution; `output_padding` is added at the far ends.
    pub fn conv_transpose(&mut self, x: &Value, conv: Conv, output_padding: [usize; 2]) -> Result<Value> {
        let Conv { shape, weight, bias, stride, padding, groups } = conv;
        let size = self.size(x).filter(|size| size[0] == shape[0]);
        let [_, height, width] = size.ok_or_else(|| misfit(&shape, self.size(x)))?;
        let along = |i: usize, length: usize| {
            ((length - 1) * stride[i] + shape[2 + i] + output_padding[i]).saturating_sub(2 * padding[i])
        };
        let out = [shape[1] * groups, along(0, height), along(1, width)];
        let weight = self.weight(&shape, &weight)?;
        let bias = self.weight(&[bias.len()], &bias)?;
        let attributes = vec![
            ints("kernel_shape", &shape[2..]),
            ints("strides", &stride),
            ints("pads", &[padding, padding].concat()),
            ints("output_padding", &output_padding),
            int("group", groups as i64),
        ];
        let y = self.node("ConvTranspose", &[x, &weight, &bias], attributes, None);
        self.sizes.insert(y.0.clone(), out);
        Ok(y)
    }

    pub fn relu(&mut self, x: &Value) -> Value {
        self.alike("Relu", &[x])
    }

    pub fn sigmoid(&mut self, x: &Value) -> Value {
        self.alike("Sigmoid", &[x])
    }

    pub fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.alike("Add", &[a, b])
    }

    /// Joins along the channels; an error where height and width differ.
    pub fn concat(&mut self, values: &[&Value]) -> Result<Value> {
        let sizes: Option<Vec<[usize; 3]>> = values.iter().map(|value| self.size(value)).collect();
        let sizes = sizes.filter(|sizes| sizes.windows(2).all(|w| w[0][1..] == w[1][1..]));
        let Some(&[_, height, width]) = sizes.as_ref().and_then(|sizes| sizes.first()) else {
            let found: Vec<_> = values.iter().map(|value| self.size(value)).collect();
            return Err(Error::invalid(format!(
                "pictures of {found:?} cannot be joined: the weights are of another network"
            )));
        };
        let channels = sizes.iter().flatten().map(|size| size[0]).sum();
        let y = self.node("Concat", values, vec![int("axis", 1)], None);
        self.sizes.insert(y.0.clone(), [channels, height, width]);
        Ok(y)
    }

    /// All but the first dimension in one.
    pub fn flatten(&mut self, x: &Value) -> Value {
        self.node("Flatten", &[x], vec![int("axis", 1)], None)
    }

    /// Twice the height and width, linear between corners that stay in the corners.
    pub fn double(&mut self, x: &Value) -> Value {
        let scales = self.constant(&[1.0, 1.0, 2.0, 2.0]);
        let attributes = vec![string("mode", "linear"), string("coordinate_transformation_mode", "align_corners")];
        let none = Value(String::new());
        let y = self.node("Resize", &[x, &none, &scales], attributes, None);
        if let Some([channels, height, width]) = self.size(x) {
            self.sizes.insert(y.0.clone(), [channels, 2 * height, 2 * width]);
        }
        y
    }

    /// What one row of the batch costs.
    pub fn cost(&self) -> Result<Cost> {
        walk::cost(&self.graph, |name| self.nominal.get(name).copied().unwrap_or(1))
    }

    fn size(&self, value: &Value) -> Option<[usize; 3]> {
        self.sizes.get(&value.0).copied()
    }

    /// A node whose output is as large as its first input.
    fn alike(&mut self, op: &str, inputs: &[&Value]) -> Value {
        let y = self.node(op, inputs, vec![], None);
        if let Some(size) = inputs.first().and_then(|x| self.size(x)) {
            self.sizes.insert(y.0.clone(), size);
        }
        y
    }

    /// The file's bytes.
    pub fn finish(self) -> Vec<u8> {
        let graph = proto::Graph { name: self.name, ..self.graph };
        let opset = proto::OperatorSet { domain: String::new(), version: OPSET };
        proto::Model {
            ir_version: IR_VERSION,
            producer_name: OWN.into(),
            graph: Some(graph),
            opset_import: vec![opset],
        }
        .encode_to_vec()
    }

    fn kind(&self) -> i32 {
        match self.precision {
            Precision::Fp32 => FLOAT,
            Precision::Fp16 => FLOAT16,
        }
    }

    fn cast(&mut self, value: Value, kind: i32) -> Value {
        if kind == FLOAT {
            return value;
        }
        let size = self.size(&value);
        let cast = self.node("Cast", &[&value], vec![int("to", kind.into())], None);
        if let Some(size) = size {
            self.sizes.insert(cast.0.clone(), size);
        }
        cast
    }

    fn node(&mut self, op: &str, inputs: &[&Value], attribute: Vec<Attribute>, output: Option<&str>) -> Value {
        let output = output.map_or_else(|| self.fresh(), str::to_owned);
        self.graph.node.push(Node {
            input: inputs.iter().map(|v| v.0.clone()).collect(),
            output: vec![output.clone()],
            name: format!("{op}_{}", self.graph.node.len()),
            op_type: op.into(),
            attribute,
        });
        Value(output)
    }

    fn fresh(&mut self) -> String {
        self.values += 1;
        format!("v{}", self.values)
    }

    /// Numbers that are f32 whatever the precision.
    fn constant(&mut self, numbers: &[f32]) -> Value {
        let name = self.fresh();
        self.graph.initializer.push(proto::Tensor {
            dims: vec![numbers.len() as i64],
            data_type: FLOAT,
            name: name.clone(),
            raw_data: numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        });
        Value(name)
    }

    fn weight(&mut self, shape: &[usize], numbers: &[f32]) -> Result<Value> {
        self.stored(shape, numbers, self.kind())
    }

    fn stored(&mut self, shape: &[usize], numbers: &[f32], kind: i32) -> Result<Value> {
        if shape.iter().product::<usize>() != numbers.len() {
            return Err(Error::invalid(format!("{} numbers for a weight of {shape:?}", numbers.len())));
        }
        let bytes: Vec<u8> = match kind {
            FLOAT16 => numbers.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let name = self.fresh();
        let mut tensor = proto::Tensor {
            dims: shape.iter().map(|d| *d as i64).collect(),
            data_type: kind,
            name: name.clone(),
            ..Default::default()
        };
        match &mut self.store {
            Store::Inline => tensor.raw_data = bytes,
            Store::External { name, file, at } => {
                let failed = |e| Error::io(&*name, e);
                let gap = at.next_multiple_of(ALIGNMENT) - *at;
                file.write_all(&[0; ALIGNMENT as usize][..gap as usize]).map_err(failed)?;
                file.write_all(&bytes).map_err(failed)?;
                *at += gap;
                let entry = |key: &str, value: String| StringEntry { key: key.into(), value };
                tensor.external_data = vec![
                    entry("location", name.clone()),
                    entry("offset", at.to_string()),
                    entry("length", bytes.len().to_string()),
                ];
                tensor.data_location = 1;
                *at += bytes.len() as u64;
            }
        }
        self.graph.initializer.push(tensor);
        Ok(Value(name))
    }
}

fn misfit(shape: &[usize], found: Option<[usize; 3]>) -> Error {
    let found = found.map_or("nothing".into(), |size| format!("{size:?}"));
    Error::invalid(format!(
        "a convolution of {shape:?} does not fit a picture of {found}: the weights are of another network"
    ))
}

fn port(name: &str, shape: &[Dim]) -> ValueInfo {
    let dimension = |dim: &Dim| Dimension {
        value: Some(match dim {
            Dim::Fixed(n) => DimensionValue::Value(*n as i64),
            Dim::Free(symbol) | Dim::Nominal(symbol, _) => DimensionValue::Symbol((*symbol).into()),
        }),
    };
    let shape = proto::Shape { dim: shape.iter().map(dimension).collect() };
    let tensor_type = proto::TensorType { elem_type: FLOAT, shape: Some(shape) };
    ValueInfo { name: name.into(), r#type: Some(proto::Type { tensor_type: Some(tensor_type) }) }
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i, kind: ATTRIBUTE_INT, ..Default::default() }
}

fn ints(name: &str, values: &[usize]) -> Attribute {
    let ints = values.iter().map(|v| *v as i64).collect();
    Attribute { name: name.into(), ints, kind: ATTRIBUTE_INTS, ..Default::default() }
}

fn string(name: &str, text: &str) -> Attribute {
    Attribute { name: name.into(), s: text.into(), kind: ATTRIBUTE_STRING, ..Default::default() }
}
