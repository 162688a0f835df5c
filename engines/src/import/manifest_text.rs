//! The manifest of an imported engine.

use std::{fs::File, path::Path};

use serde::Serialize;

use super::{
    Request,
    network::{BATCH_SIZES, Written},
    parts::{Parts, Section},
};
use crate::{Error, Result, digest::sha256_of, manifest::Package};

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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<FileText>,
    files: std::collections::BTreeMap<&'static str, PartText>,
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
        gflop: f32,
        written: &[Written],
        sources: Vec<FileText>,
    ) -> Self {
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
        Self {
            name: name.into(),
            family: parts.family.to_string(),
            version: "1".into(),
            licence: request.licence.unwrap_or("unknown: as the publisher of the files says").into(),
            description: parts.description.clone(),
            gflop,
            sources,
            files: written.iter().map(|w| (w.part, part(w))).collect(),
            geometry: geometry(),
            wav2lip,
            synctalk2d,
            tables,
        }
    }
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
