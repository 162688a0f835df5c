//! Shapes of what an operation gives, and its multiplications (onnx/docs/Operators.md).

use super::{Known, count, element};
use crate::import::onnx::proto::{Attribute, INT64, Node};

/// What a node gives.
pub(super) struct Made {
    pub outputs: Vec<Known>,
    pub multiplications: u64,
}

impl Made {
    fn one(known: Known) -> Self {
        Self { outputs: vec![known], multiplications: 0 }
    }

    fn computed(like: &Known, shape: Vec<usize>, factors: &[usize]) -> Self {
        let known = Known { shape, element: like.element, numbers: None };
        Self { outputs: vec![known], multiplications: count(factors) as u64 }
    }
}

/// Operations whose output is as large as their first input.
const ALIKE: &str = "Relu LeakyRelu Sigmoid Tanh Erf Sqrt Sin Cos Exp Log Clip Softmax Identity Elu Neg Reciprocal Abs HardSigmoid \
                     PRelu InstanceNormalization LayerNormalization BatchNormalization Dropout";

type Inputs<'a> = [Option<&'a Known>];

/// What `node` gives of `inputs`; an error says why that is not known.
pub(super) fn of(node: &Node, inputs: &Inputs) -> Result<Made, String> {
    let x = |i: usize| inputs.get(i).copied().flatten().ok_or_else(|| format!("input {i} is missing"));
    match node.op_type.as_str() {
        "Conv" => conv(node, x(0)?, x(1)?),
        "ConvTranspose" => conv_transpose(node, x(0)?, x(1)?),
        "MatMul" => product(x(0)?, x(1)?),
        "Gemm" => {
            let (a, b) = (x(0)?, x(1)?);
            let [rows, inside] = sides(a, truth(node, "transA"))?;
            let [_, across] = sides(b, truth(node, "transB"))?;
            Ok(Made::computed(a, vec![rows, across], &[rows, inside, across]))
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" => {
            let (a, b) = (x(0)?, x(1)?);
            Ok(Made::one(Known { shape: stretched(&a.shape, &b.shape)?, element: a.element, numbers: None }))
        }
        "Cast" => {
            let kind = integer(node, "to").unwrap_or(1);
            Ok(Made::one(Known { element: element(kind as i32), ..x(0)?.clone() }))
        }
        "Constant" => {
            let tensor = attribute(node, "value").and_then(|a| a.t.as_ref()).ok_or("it has no tensor")?;
            Ok(Made::one(super::stored(tensor)))
        }
        "Shape" => Ok(Made::one(numbers(x(0)?.shape.iter().map(|d| *d as f64).collect()))),
        "Gather" => gather(node, x(0)?, x(1)?),
        "Concat" => concat(node, &inputs.iter().flatten().copied().collect::<Vec<_>>()),
        "Split" => split(node, x(0)?, inputs.get(1).copied().flatten()),
        "Slice" => slice(inputs, x(0)?),
        "Transpose" => {
            let x = x(0)?;
            let order = integers(node, "perm").ok_or("it has no order")?;
            let shape = order.iter().map(|axis| x.shape.get(*axis as usize).copied()).collect::<Option<Vec<_>>>();
            Ok(Made::one(Known { shape: shape.ok_or("its order does not fit")?, element: x.element, numbers: None }))
        }
        "Reshape" => reshape(x(0)?, x(1)?),
        "Flatten" => {
            let x = x(0)?;
            let at = axis(integer(node, "axis").unwrap_or(1), x.shape.len());
            let (rows, rest) = x.shape.split_at_checked(at).ok_or("its axis does not fit")?;
            Ok(Made::one(Known { shape: vec![count(rows), count(rest)], ..x.clone() }))
        }
        "Unsqueeze" => {
            let x = x(0)?;
            let mut shape = x.shape.clone();
            for at in axes(node, inputs)? {
                let at = axis(at, shape.len() + 1);
                if at > shape.len() {
                    return Err("its axis does not fit".into());
                }
                shape.insert(at, 1);
            }
            Ok(Made::one(Known { shape, ..x.clone() }))
        }
        "Squeeze" => {
            let x = x(0)?;
            let gone: Vec<usize> = axes(node, inputs)?.into_iter().map(|at| axis(at, x.shape.len())).collect();
            let left = x.shape.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, d)| *d).collect();
            Ok(Made::one(Known { shape: left, ..x.clone() }))
        }
        "Expand" => {
            let x = x(0)?;
            let shape = stretched(&x.shape, &whole(inputs.get(1).copied().flatten())?)?;
            Ok(Made::one(Known { shape, element: x.element, numbers: None }))
        }
        "ReduceMean" | "ReduceSum" => {
            let x = x(0)?;
            let over: Vec<usize> = axes(node, inputs)?.into_iter().map(|at| axis(at, x.shape.len())).collect();
            let keeps = integer(node, "keepdims").unwrap_or(1) != 0;
            let each = x.shape.iter().enumerate();
            let shape = each.filter_map(|(i, d)| if over.contains(&i) { keeps.then_some(1) } else { Some(*d) });
            Ok(Made::one(Known { shape: shape.collect(), element: x.element, numbers: None }))
        }
        "Resize" => resize(x(0)?, inputs),
        "DepthToSpace" => {
            let (x, side) = (x(0)?, small(integer(node, "blocksize").unwrap_or(1)).max(1));
            let [pictures, channels, height, width] = x.shape[..] else { return Err("it is of no pictures".into()) };
            let larger = |length: usize| length.saturating_mul(side);
            let shape = vec![pictures, channels / (side * side), larger(height), larger(width)];
            Ok(Made::one(Known { shape, element: x.element, numbers: None }))
        }
        "AveragePool" | "MaxPool" => {
            let x = x(0)?;
            let kernel = integers(node, "kernel_shape").ok_or("it has no kernel")?;
            let kernel: Vec<usize> = kernel.iter().map(|n| small(*n)).collect();
            let shape = [&x.shape[..2.min(x.shape.len())], &windows(node, x, &kernel)?].concat();
            Ok(Made::one(Known { shape, element: x.element, numbers: None }))
        }
        "GlobalAveragePool" => {
            let x = x(0)?;
            let shape = x.shape.iter().enumerate().map(|(i, d)| if i < 2 { *d } else { 1 }).collect();
            Ok(Made::one(Known { shape, element: x.element, numbers: None }))
        }
        other if ALIKE.split(' ').any(|op| op == other) => Ok(Made::one(Known { numbers: None, ..x(0)?.clone() })),
        _ => Err("no such operation is counted".into()),
    }
}

/// Height and width, or however many there are, of what a kernel gives.
fn windows(node: &Node, x: &Known, kernel: &[usize]) -> Result<Vec<usize>, String> {
    let spatial = x.shape.get(2..).filter(|own| own.len() == kernel.len()).ok_or("its kernel does not fit")?;
    let each = |name: &str, default: usize, count: usize| -> Vec<usize> {
        integers(node, name).map_or(vec![default; count], |all| all.iter().map(|n| small(*n)).collect())
    };
    let (strides, pads) = (each("strides", 1, kernel.len()), each("pads", 0, 2 * kernel.len()));
    let spread = each("dilations", 1, kernel.len());
    if strides.len() != kernel.len() || pads.len() != 2 * kernel.len() || spread.len() != kernel.len() {
        return Err("its attributes do not fit".into());
    }
    let along = |i: usize| {
        let reach = usize::saturating_mul(spread[i], kernel[i].max(1) - 1) + 1;
        let rest = spatial[i].saturating_add(pads[i] + pads[kernel.len() + i]).checked_sub(reach)?;
        Some(rest / strides[i].max(1) + 1)
    };
    (0..kernel.len()).map(along).collect::<Option<_>>().ok_or_else(|| "its kernel is larger than the picture".into())
}

fn conv(node: &Node, x: &Known, weight: &Known) -> Result<Made, String> {
    let [out, _, kernel @ ..] = &weight.shape[..] else { return Err("its weight has too few dimensions".into()) };
    let spatial = windows(node, x, kernel)?;
    let factors = [x.shape[0], count(&spatial), count(&weight.shape)];
    Ok(Made::computed(x, [&[x.shape[0], *out], &spatial[..]].concat(), &factors))
}

fn conv_transpose(node: &Node, x: &Known, weight: &Known) -> Result<Made, String> {
    let [_, out, kernel @ ..] = &weight.shape[..] else { return Err("its weight has too few dimensions".into()) };
    let spatial = x.shape.get(2..).filter(|own| own.len() == kernel.len()).ok_or("its kernel does not fit")?;
    let at = |name: &str, i: usize, default: usize| {
        integers(node, name).and_then(|all| all.get(i)).map_or(default, |n| small(*n))
    };
    let along = |i: usize| {
        let steps = usize::saturating_mul(spatial[i].saturating_sub(1), at("strides", i, 1));
        let whole = steps.saturating_add(kernel[i]).saturating_add(at("output_padding", i, 0));
        whole.saturating_sub(at("pads", i, 0) + at("pads", kernel.len() + i, 0))
    };
    let groups = small(integer(node, "group").unwrap_or(1)).max(1);
    let sides: Vec<usize> = (0..kernel.len()).map(along).collect();
    let factors = [x.shape[0], count(spatial), count(&weight.shape)];
    let channels = usize::saturating_mul(*out, groups);
    Ok(Made::computed(x, [&[x.shape[0], channels], &sides[..]].concat(), &factors))
}

fn product(a: &Known, b: &Known) -> Result<Made, String> {
    let ([left @ .., rows, inside], [right @ .., other, across]) = (&a.shape[..], &b.shape[..]) else {
        return Err("it is of vectors".into());
    };
    if inside != other {
        return Err(format!("{:?} and {:?} do not multiply", a.shape, b.shape));
    }
    let shape = [&stretched(left, right)?[..], &[*rows, *across]].concat();
    let factors = [count(&shape), *inside];
    Ok(Made::computed(a, shape, &factors))
}

fn gather(node: &Node, x: &Known, at: &Known) -> Result<Made, String> {
    let along = axis(integer(node, "axis").unwrap_or(0), x.shape.len());
    let (before, rest) = x.shape.split_at_checked(along).ok_or("its axis does not fit")?;
    let shape = [before, &at.shape[..], rest.get(1..).unwrap_or_default()].concat();
    let picked = x.numbers.as_ref().zip(at.numbers.as_ref()).and_then(|(numbers, at)| {
        at.iter().map(|i| numbers.get(axis(*i as i64, numbers.len())).copied()).collect::<Option<Vec<_>>>()
    });
    Ok(Made::one(Known { shape, element: x.element, numbers: picked }))
}

fn concat(node: &Node, parts: &[&Known]) -> Result<Made, String> {
    let first = parts.first().ok_or("it joins nothing")?;
    let along = axis(integer(node, "axis").unwrap_or(0), first.shape.len());
    let mut shape = first.shape.clone();
    let alike = |other: &&&Known| {
        other.shape.len() == shape.len() && (0..shape.len()).all(|i| i == along || other.shape[i] == first.shape[i])
    };
    if along >= shape.len() || !parts.iter().all(|part| alike(&part)) {
        return Err("its parts do not fit".into());
    }
    shape[along] = parts.iter().fold(0, |sum, part| usize::saturating_add(sum, part.shape[along]));
    let joined = parts.iter().map(|part| part.numbers.clone()).collect::<Option<Vec<_>>>().map(|all| all.concat());
    Ok(Made::one(Known { shape, element: first.element, numbers: joined }))
}

fn split(node: &Node, x: &Known, sizes: Option<&Known>) -> Result<Made, String> {
    let along = axis(integer(node, "axis").unwrap_or(0), x.shape.len());
    let length = *x.shape.get(along).ok_or("its axis does not fit")?;
    let parts = node.output.len().max(1);
    let sizes = sizes.map_or_else(|| Ok(vec![length / parts; parts]), |sizes| whole(Some(sizes)))?;
    let part = |size: &usize| {
        let mut shape = x.shape.clone();
        shape[along] = *size;
        Known { shape, element: x.element, numbers: None }
    };
    Ok(Made { outputs: sizes.iter().map(part).collect(), multiplications: 0 })
}

fn slice(inputs: &Inputs, x: &Known) -> Result<Made, String> {
    let of = |i: usize| inputs.get(i).copied().flatten();
    let signed = |i: usize| of(i).and_then(|known| known.numbers.clone()).ok_or("its places are not known");
    let (starts, ends) = (signed(1)?, signed(2)?);
    let along = if of(3).is_some() { signed(3)? } else { (0..starts.len()).map(|i| i as f64).collect() };
    if of(4).is_some_and(|steps| steps.numbers.as_ref().is_none_or(|steps| steps.iter().any(|step| *step != 1.0))) {
        return Err("it leaves out numbers".into());
    }
    let mut shape = x.shape.clone();
    let mut numbers = x.numbers.clone();
    for ((start, end), at) in starts.iter().zip(&ends).zip(&along) {
        let length = shape.get_mut(axis(*at as i64, x.shape.len())).ok_or("its axis does not fit")?;
        let place = |v: f64| if v < 0.0 { v + *length as f64 } else { v }.clamp(0.0, *length as f64) as usize;
        let (start, end) = (place(*start), place(*end));
        *length = end.saturating_sub(start);
        numbers = numbers.and_then(|all| all.get(start..end.max(start)).map(<[f64]>::to_vec));
    }
    Ok(Made::one(Known { shape, element: x.element, numbers }))
}

fn reshape(x: &Known, shape: &Known) -> Result<Made, String> {
    let wanted = shape.numbers.as_ref().ok_or("its shape is not known")?;
    let all = count(&x.shape);
    let mut sizes = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, size) in wanted.iter().enumerate() {
        sizes.push(match *size as i64 {
            0 => *x.shape.get(i).ok_or("its shape keeps a dimension that is not there")?,
            -1 => {
                open = Some(i);
                1
            }
            size => usize::try_from(size).map_err(|_| "its shape is negative")?,
        });
    }
    let fixed = count(&sizes);
    if let Some(open) = open {
        sizes[open] = all / fixed.max(1);
    }
    if count(&sizes) != all {
        return Err(format!("{:?} is no {sizes:?}", x.shape));
    }
    Ok(Made::one(Known { shape: sizes, ..x.clone() }))
}

fn resize(x: &Known, inputs: &Inputs) -> Result<Made, String> {
    let of = |i: usize| inputs.get(i).copied().flatten().and_then(|known| known.numbers.as_ref());
    let shape: Vec<usize> = match (of(2).filter(|scales| !scales.is_empty()), of(3)) {
        (Some(scales), _) => x.shape.iter().zip(scales).map(|(d, scale)| (*d as f64 * scale) as usize).collect(),
        (None, Some(sizes)) => sizes.iter().map(|size| *size as usize).collect(),
        _ => return Err("its scales are not known".into()),
    };
    if shape.len() != x.shape.len() {
        return Err("its scales do not fit".into());
    }
    Ok(Made::one(Known { shape, element: x.element, numbers: None }))
}

/// The shape of two shapes stretched to each other (onnx/docs/Broadcasting.md).
fn stretched(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    let each = |i: usize| match (at(a, i), at(b, i)) {
        (1, other) | (other, 1) => Some(other),
        (own, other) => (own == other).then_some(own),
    };
    (0..rank).map(each).collect::<Option<_>>().ok_or_else(|| format!("{a:?} and {b:?} do not go together"))
}

fn numbers(all: Vec<f64>) -> Known {
    Known { shape: vec![all.len()], element: element(INT64), numbers: Some(all) }
}

/// Numbers of a value as sizes.
fn whole(known: Option<&Known>) -> Result<Vec<usize>, String> {
    let numbers = known.and_then(|known| known.numbers.as_ref()).ok_or("its sizes are not known")?;
    Ok(numbers.iter().map(|v| v.max(0.0) as usize).collect())
}

fn sides(x: &Known, turned: bool) -> Result<[usize; 2], String> {
    match x.shape[..] {
        [rows, across] => Ok(if turned { [across, rows] } else { [rows, across] }),
        _ => Err(format!("{:?} is no matrix", x.shape)),
    }
}

/// A number of an attribute; none that makes sense is larger.
fn small(n: i64) -> usize {
    n.clamp(0, 1 << 20) as usize
}

/// A dimension counted from the front.
fn axis(at: i64, rank: usize) -> usize {
    if at < 0 { (at + rank as i64).max(0) as usize } else { at as usize }
}

/// Axes as an attribute, or as the second input.
fn axes(node: &Node, inputs: &Inputs) -> Result<Vec<i64>, String> {
    let second = || inputs.get(1).copied().flatten().and_then(|known| known.numbers.as_ref());
    let given = integers(node, "axes").map(<[i64]>::to_vec);
    given
        .or_else(|| second().map(|all| all.iter().map(|v| *v as i64).collect()))
        .ok_or_else(|| "its axes are not known".into())
}

fn attribute<'a>(node: &'a Node, name: &str) -> Option<&'a Attribute> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn integer(node: &Node, name: &str) -> Option<i64> {
    attribute(node, name).map(|attribute| attribute.i)
}

fn integers<'a>(node: &'a Node, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|attribute| attribute.ints.as_slice())
}

fn truth(node: &Node, name: &str) -> bool {
    integer(node, name).unwrap_or(0) != 0
}
