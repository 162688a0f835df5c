//! Whether an engine's networks say what they said when it was imported, or what the published code says.

use std::path::Path;

use safetensors::{Dtype, tensor::TensorView};
use serde::Serialize;

use super::{PictureDifference, golden, pictures};
use crate::{
    Error, Result,
    engine::Noise,
    manifest::Package,
    runtime::{Input, Model, Options, Tensor},
    tensor::Weights,
};

/// File of an engine's folder with inputs of its networks and what they gave.
pub(super) const RECORD: &str = "check.safetensors";

/// How far one output is from what it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The network and its output, or the name of the golden tensor.
    pub name: String,
    /// Largest difference over the standard deviation of what it should be.
    pub relative: f64,
    /// Root mean square of the differences over that deviation.
    pub rms: f64,
    pub absolute: f64,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub outputs: Vec<Difference>,
    /// Whole frames, of golden files alone.
    pub pictures: Vec<PictureDifference>,
}

/// Runs every network of an engine on the inputs that were stored when it was imported, or on those of a golden file, and
/// compares each output; of a golden file, each whole frame as well.
pub fn check(package: &Package, options: &Options, golden: Option<&Path>) -> Result<Comparison> {
    if let Some(path) = golden {
        let file = Weights::open(path)?;
        let outputs = golden::compare(package, options, &file)?;
        return Ok(Comparison { outputs, pictures: pictures::compare(package, options, &file)? });
    }
    let path = package.folder().map(|folder| folder.join(RECORD)).filter(|path| path.exists());
    let path = path.ok_or_else(|| {
        let name = &package.manifest().name;
        Error::invalid(format!("engine `{name}` has no stored inputs; give a file of them by --golden"))
    })?;
    let outputs = Record::compare(package, options, &Weights::open(&path)?)?;
    Ok(Comparison { outputs, pictures: Vec::new() })
}

/// Stored inputs and outputs: `PART/in/PORT` and `PART/out/PORT`, f32.
pub(super) struct Record;

impl Record {
    /// Runs every network once on noise; the bytes of the file.
    pub(super) fn make(package: &Package, options: &Options) -> Result<Vec<u8>> {
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (seed, part) in package.manifest().files.keys().enumerate() {
            let model = package.network(part, options)?;
            let mut noise = Noise::new(seed as u64, 0.0, 0.5);
            let inputs = model.example(tried, || 0.5 + noise.normal() / 4.0)?;
            let outputs = run(&model, &inputs)?;
            let named = |kind: &str, (port, tensor): (String, Tensor)| (format!("{part}/{kind}/{port}"), tensor);
            tensors.extend(inputs.into_iter().map(|input| named("in", input)));
            tensors.extend(outputs.into_iter().map(|output| named("out", output)));
        }
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, t)| t.data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let failed = |e: safetensors::SafeTensorError| Error::invalid(e.to_string());
        let views = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, t), bytes)| Ok((name, TensorView::new(Dtype::F32, t.shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        safetensors::serialize(views, None).map_err(failed)
    }

    fn compare(package: &Package, options: &Options, file: &Weights) -> Result<Vec<Difference>> {
        let mut all = Vec::new();
        for part in package.manifest().files.keys() {
            let model = package.network(part, options)?;
            let inputs = model
                .signature()
                .inputs
                .iter()
                .map(|port| Ok((port.name.clone(), tensor(file, &format!("{part}/in/{}", port.name))?)))
                .collect::<Result<Vec<_>>>()?;
            for (port, found) in run(&model, &inputs)? {
                let wanted = tensor(file, &format!("{part}/out/{port}"))?;
                all.push(difference(format!("{part}.{port}"), &found.data, &wanted.data)?);
            }
        }
        Ok(all)
    }
}

/// How large a dimension of this name is where a network is tried: clips of a few frames and small pictures.
fn tried(dimension: &str) -> usize {
    match dimension {
        "frames" => 3,
        "latent_height" | "latent_width" => 8,
        "height" | "width" => 64,
        "mel_columns" => 100,
        _ => 1,
    }
}

/// Runs a network once; its outputs by name.
pub(super) fn run(model: &Model, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    let given: Vec<Input> = inputs.iter().map(|(name, t)| Input { name, shape: &t.shape, data: &t.data }).collect();
    let outputs = model.run(&given)?;
    let names = model.signature().outputs.iter().map(|port| port.name.clone());
    for (name, output) in names.clone().zip(&outputs) {
        if output.data.iter().any(|v| !v.is_finite()) {
            let cause = format!("the output `{name}` is not finite");
            return Err(Error::Runtime { model: model.name().into(), cause });
        }
    }
    Ok(names.zip(outputs).collect())
}

/// The tensor `name` of a file as f32.
pub(super) fn tensor(file: &Weights, name: &str) -> Result<Tensor> {
    let view = file.get(name).ok_or_else(|| Error::Mismatch {
        model: file.origin().into(),
        what: format!("tensor `{name}`"),
        expected: "numbers".into(),
        found: "nothing".into(),
    })?;
    Ok(Tensor { shape: view.shape.to_vec(), data: view.to_f32() })
}

pub(super) fn difference(name: String, found: &[f32], wanted: &[f32]) -> Result<Difference> {
    if found.len() != wanted.len() || found.is_empty() {
        return Err(Error::Mismatch {
            model: name,
            what: "numbers".into(),
            expected: wanted.len().to_string(),
            found: found.len().to_string(),
        });
    }
    let mean = wanted.iter().map(|v| f64::from(*v)).sum::<f64>() / wanted.len() as f64;
    let variance = wanted.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / wanted.len() as f64;
    let absolute = found.iter().zip(wanted).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    let squares = found.iter().zip(wanted).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let deviation = variance.sqrt().max(1e-12);
    let rms = (squares / wanted.len() as f64).sqrt() / deviation;
    Ok(Difference { name, relative: absolute / deviation, rms, absolute })
}
