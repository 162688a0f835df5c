//! From published files to an engine's folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    check::Record,
    config,
    manifest_text::{ManifestText, source},
    onnx::Precision,
    partial::{Partial, sweep},
    parts::parts,
};
use crate::{
    Error, Result,
    manifest::{Family, Features, Manifest, Package},
    runtime::{Device, Options},
};

/// What is to be imported.
pub struct Request<'a> {
    /// As the files tell, where it is left out.
    pub family: Option<Family>,
    /// Files, or folders as diffusers and transformers publish them.
    pub files: &'a [PathBuf],
    /// Name of the engine; the first file's, where it is left out.
    pub name: Option<&'a str>,
    pub precision: Precision,
    /// What computes the audio features of a SyncTalk_2D network.
    pub features: Option<Features>,
    /// Of the weights, as the user states it.
    pub licence: Option<&'a str>,
    /// Whether an engine of that name is replaced.
    pub replace: bool,
}

/// What came of an import.
#[derive(Debug)]
pub struct Imported {
    pub name: String,
    pub family: Family,
    pub folder: PathBuf,
    /// What the project says of its weights' use, where the user stated nothing.
    pub advice: Option<&'static str>,
}

/// Reads the files of `request` and writes an engine into a folder of its name below `engines`. `progress` is told what is
/// done and which part of the whole that is, and may end the import by an error. Nothing is left behind by one that ends
/// early: the folder takes its name when it is complete, and what a killed one left goes with the next import.
pub fn import(
    request: &Request,
    engines: &Path,
    progress: &mut dyn FnMut(&str, f64) -> Result<()>,
) -> Result<Imported> {
    progress("reading", 0.0)?;
    let files = request.files.iter().map(|path| config::weights(path)).collect::<Result<Vec<_>>>()?;
    let parts = parts(request, &files)?;
    let family = parts.family;
    let name = match request.name {
        Some(name) => name.to_owned(),
        None => suggested(request.files),
    };
    check_name(&name)?;
    let target = engines.join(&name);
    if target.exists() && !request.replace {
        return Err(Error::invalid(format!(
            "engine `{name}` is there already ({}); remove it by `lipstream engines remove {name}`, or give another --name",
            target.display()
        )));
    }
    fs::create_dir_all(engines).map_err(|e| Error::io(engines, e))?;
    sweep(engines);
    let partial = Partial::new(engines, &name)?;
    let folder = partial.folder();
    let mut written = Vec::new();
    let count = parts.networks.len() as f64;
    for (i, network) in parts.networks.iter().enumerate() {
        progress(network.part, 0.1 + 0.5 * i as f64 / count)?;
        written.push(network.write(folder, request.precision)?);
    }
    progress("hashing the sources", 0.6)?;
    let sources = files.iter().map(|path| source(path)).collect::<Result<Vec<_>>>()?;
    let manifest = ManifestText::new(&parts, &name, request, &written, sources)?;
    let text = toml::to_string(&manifest).map_err(|e| Error::invalid(e.to_string()))?;
    Manifest::parse("engine.toml", &text)?;
    write(&folder.join("engine.toml"), text.as_bytes())?;
    progress("trying it", 0.7)?;
    // Loaded as it will be, and run once on the CPU: a network that does not work must not be installed.
    let package = Package::open(folder)?;
    let options = Options { device: Device::Cpu, ..Options::default() };
    let record = Record::make(&package, &options)?;
    progress("trying it", 0.95)?;
    write(&folder.join(super::check::RECORD), &record)?;
    progress("done", 1.0)?;
    partial.become_engine(&target, request.replace)?;
    let advice = request.licence.is_none().then_some(parts.terms).flatten();
    Ok(Imported { name, family, folder: target, advice })
}

/// A name from the first file's: `Wav2Lip_GAN.pth` becomes `wav2lip-gan`.
fn suggested(files: &[PathBuf]) -> String {
    let stem =
        files.first().and_then(|path| path.file_stem()).map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    plain.trim_matches('-').chars().take(64).collect()
}

fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(Error::invalid(format!("the name `{name}` must be 1 to 64 of a-z, 0-9 and -; give one by --name")));
    }
    if Package::is_built_in(name) {
        return Err(Error::invalid(format!("`{name}` is built in; give another --name")));
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| Error::io(path, e))
}
