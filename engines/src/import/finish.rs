//! Published graphs that work on faces beside an engine: enhancers, and maskers that say what of a picture is face.

use std::path::Path;

use super::{
    network::{Network, Origin, Stage},
    parts::{Parts, Section},
};
use crate::{
    Error, Result,
    enhance::SIDES,
    manifest::Family,
    occlusion::Ports,
    runtime::{Device, Model, Options},
};

/// Whose weights a file has, by how its publisher names it; their licence, and what that means.
const ENHANCERS: [(&str, &str, &str, Option<&str>); 3] = [
    ("gfpgan", "GFPGAN", "Apache-2.0", None),
    (
        "codeformer",
        "CodeFormer",
        "S-Lab License 1.0 (non-commercial)",
        Some("non-commercial: the S-Lab License 1.0 allows no commercial use of CodeFormer's weights"),
    ),
    (
        "gpen",
        "GPEN-BFR",
        "non-commercial, as yangxy/GPEN says",
        Some("non-commercial: the authors of GPEN allow no commercial use of their weights"),
    ),
];

/// An enhancer from its graph, as it is.
pub(super) fn of_enhancer(path: &Path) -> Result<Parts> {
    let model = Model::open(path, &Options { device: Device::Cpu, ..Options::default() })?;
    let ports = model.signature().inputs.iter().map(|port| &port.shape);
    let side = ports.filter_map(|shape| shape.last().copied().flatten()).find(|side| SIDES.contains(side));
    let side = side.ok_or_else(|| Error::invalid(format!("{}: has no picture of a known size", path.display())))?;
    let file = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let known = ENHANCERS.iter().find(|(start, ..)| file.starts_with(start));
    let name = known.map_or("an enhancer", |(_, name, ..)| name);
    let unknown =
        "the file's name does not say whose weights these are; those of CodeFormer and GPEN are non-commercial";
    Ok(Parts {
        family: Family::Enhancer,
        networks: vec![network("enhance", path)],
        section: Section::Tables(Vec::new()),
        description: format!("Face restoration by {name}, {side} pixels, an ONNX graph as it was published"),
        licence: known.map(|(_, _, licence, _)| *licence),
        terms: known.map_or(Some(unknown), |(.., terms)| *terms),
    })
}

/// A masker from its graph, as it is.
pub(super) fn of_masker(path: &Path) -> Result<Parts> {
    let model = Model::open(path, &Options { device: Device::Cpu, ..Options::default() })?;
    let ports =
        Ports::of(model.signature()).ok_or_else(|| Error::invalid(format!("{}: is no masker", path.display())))?;
    let published = if ports == Ports::Own { "" } else { ", an ONNX graph as it was published" };
    Ok(Parts {
        family: Family::Occlusion,
        networks: vec![network("mask", path)],
        section: Section::Tables(Vec::new()),
        description: format!("What is before a face, by {}{published}", ports.words()),
        licence: None,
        terms: Some("what a masker's weights may be used for is not known here: ask whoever publishes the file"),
    })
}

fn network(part: &'static str, path: &Path) -> Network {
    Network { part, from: Origin::Graph(path.to_owned()), stage: Stage::Refine, runs: 1.0 }
}
