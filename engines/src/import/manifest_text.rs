//! The manifest of an imported engine.

use std::{collections::BTreeMap, fs::File, path::Path};

use serde::Serialize;

use super::{
    Request,
    network::{BATCH_SIZES, Stage, Written},
    onnx::Precision,
    parts::{Parts, Section},
};
use crate::{
    Error, Result,
    digest::sha256_of,
    manifest::{Package, StageCosts},
    schedule::ScheduleConfig,
};

/// Side of the crops of an engine whose pictures are its own; nothing is cut by it.
const CROP: usize = 256;

/// The manifest as it is written; keys in the order of their importance.
#[derive(Serialize)]
pub(super) struct ManifestText {
    name: String,
    family: String,
    version: String,
    licence: String,
    description: String,
    gflop: f32,
    cost: CostText,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<FileText>,
    files: BTreeMap<&'static str, PartText>,
    geometry: toml::Table,
    #[serde(skip_serializing_if = "Option::is_none")]
    wav2lip: Option<toml::Table>,
    #[serde(skip_serializing_if = "Option::is_none")]
    synctalk2d: Option<toml::Table>,
    /// Those of other families.
    #[serde(flatten)]
    tables: toml::Table,
}

#[derive(Serialize)]
struct CostText {
    fp16: bool,
    gflop: StageCosts,
    held_mb: BTreeMap<&'static str, f32>,
}

#[derive(Serialize)]
pub(super) struct FileText {
    path: String,
    sha256: String,
}

#[derive(Serialize)]
struct PartText {
    path: String,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<FileText>,
}

impl ManifestText {
    pub(super) fn new(
        parts: &Parts,
        name: &str,
        request: &Request,
        written: &[Written],
        sources: Vec<FileText>,
    ) -> Result<Self> {
        let part = |w: &Written| PartText {
            path: w.path.clone(),
            sha256: w.sha256.clone(),
            data: w.data.as_ref().map(|(path, sha256)| FileText { path: path.clone(), sha256: sha256.clone() }),
        };
        let sizes = |sizes: &[usize]| toml::Value::Array(sizes.iter().map(|n| (*n as i64).into()).collect());
        let (mut wav2lip, mut synctalk2d, mut tables) = (None, None, toml::Table::new());
        match &parts.section {
            Section::Wav2Lip { side, ports, batch_sizes } => {
                let mut table = toml::Table::new();
                table.insert("side".into(), (*side as i64).into());
                table.insert("batch_sizes".into(), sizes(batch_sizes));
                if let Some([audio, face, picture]) = ports {
                    let ports = [("audio", audio), ("face", face), ("picture", picture)];
                    let ports: toml::Table = ports.into_iter().map(|(k, v)| (k.to_owned(), v.clone().into())).collect();
                    table.insert("ports".into(), ports.into());
                }
                wav2lip = Some(table);
            }
            Section::SyncTalk2d { side, features } => {
                let mut table = toml::Table::new();
                table.insert("side".into(), (*side as i64).into());
                table.insert("features".into(), features.name().into());
                table.insert("batch_sizes".into(), sizes(&BATCH_SIZES));
                synctalk2d = Some(table);
            }
            Section::Tables(all) => {
                tables.extend(all.iter().map(|(name, table)| ((*name).to_owned(), table.clone().into())));
            }
        }
        let costs = costs(parts, written);
        let scheduler: Option<ScheduleConfig> = tables
            .get("scheduler")
            .cloned()
            .map(toml::Value::try_into)
            .transpose()
            .map_err(|e| Error::invalid(e.to_string()))?;
        let gflop =
            costs.total(scheduler.map_or(0.0, |scheduler| scheduler.evaluations(scheduler.steps) as f32), false);
        Ok(Self {
            name: name.into(),
            family: parts.family.to_string(),
            version: "1".into(),
            licence: request.licence.or(parts.licence).unwrap_or("unknown: as the publisher of the files says").into(),
            description: parts.description.clone(),
            gflop,
            cost: CostText { gflop: costs, fp16: request.precision == Precision::Fp16, held_mb: held(written) },
            sources,
            files: written.iter().map(|w| (w.part, part(w))).collect(),
            geometry: geometry(),
            wav2lip,
            synctalk2d,
            tables,
        })
    }
}

/// What a frame costs in each stage.
fn costs(parts: &Parts, written: &[Written]) -> StageCosts {
    let mut costs = StageCosts::default();
    for (network, written) in parts.networks.iter().zip(written) {
        let Some(cost) = written.cost else { continue };
        let place = match network.stage {
            Stage::FrontEnd => &mut costs.front_end,
            Stage::Encode => &mut costs.encode,
            Stage::Step => &mut costs.step,
            Stage::Forward => &mut costs.forward,
            Stage::Decode => &mut costs.decode,
            Stage::DecodeTiny => &mut costs.decode_tiny,
            Stage::Refine => &mut costs.refine,
        };
        *place.get_or_insert(0.0) += cost.gflop() * network.runs;
    }
    costs
}

/// Megabytes that a row of each network's batch holds.
fn held(written: &[Written]) -> BTreeMap<&'static str, f32> {
    written.iter().filter_map(|w| Some((w.part, w.cost?.held as f32 / 1e6))).collect()
}

/// How a face is brought upright for what the elements ask of every engine: as `compact` does.
fn geometry() -> toml::Table {
    let mut table = toml::Table::new();
    table.insert("crop".into(), (CROP as i64).into());
    let compact = Package::find("compact").ok().map(|package| package.manifest().geometry.alignment.clone());
    let mut alignment = toml::Table::new();
    if let Some(own) = compact {
        let anchors = own.anchors.iter().map(|a| (*a as i64).into()).collect();
        let points = own.points.iter().map(|p| toml::Value::Array(vec![f64::from(p.x).into(), f64::from(p.y).into()]));
        alignment.insert("anchors".into(), toml::Value::Array(anchors));
        alignment.insert("points".into(), toml::Value::Array(points.collect()));
    }
    table.insert("alignment".into(), alignment.into());
    table
}

/// A published file's name and hash.
pub(super) fn source(path: &Path) -> Result<FileText> {
    let sha256 = File::open(path).and_then(sha256_of).map_err(|e| Error::io(path, e))?;
    let path = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(FileText { path, sha256 })
}
