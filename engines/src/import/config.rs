//! What weights do not tell: the JSON files that diffusers and transformers write beside them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Result};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;
/// Names of such a file beside weights, and of the weights of a folder, the most wanted first.
const CONFIGS: [&str; 2] = ["config.json", "musetalk.json"];
const WEIGHTS: [&str; 4] =
    ["diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin", "pytorch_model.bin"];

/// A configuration; one that says nothing where there is no file.
#[derive(Debug, Default)]
pub(super) struct Config {
    path: PathBuf,
    value: Value,
}

/// The file of weights that a folder of diffusers or transformers holds; a file is itself.
pub(super) fn weights(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let found = WEIGHTS.iter().map(|name| path.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| Error::invalid(format!("{}: is a folder without {}", path.display(), WEIGHTS.join(", "))))
}

impl Config {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        if size > LARGEST {
            let cause = format!("{size} bytes are more than a configuration has");
            return Err(Error::invalid(format!("{}: {cause}", path.display())));
        }
        let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let value = serde_json::from_slice(&text)
            .map_err(|e| Error::invalid(format!("{}: is no configuration: {e}", path.display())))?;
        Ok(Self { path: path.to_owned(), value })
    }

    /// The one beside `weights`.
    pub(super) fn beside(weights: &Path) -> Result<Self> {
        let found = CONFIGS.iter().map(|name| weights.with_file_name(name)).find(|path| path.is_file());
        found.map_or_else(|| Ok(Self::default()), |path| Self::open(&path))
    }

    /// Where it was read from.
    pub(super) fn path(&self) -> Option<&Path> {
        Some(self.path.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// A whole number under the dotted name `key`, within 1..=`most`.
    pub(super) fn count(&self, key: &str, most: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=most).contains(n));
        count.map(Some).ok_or_else(|| self.refuse(key, &format!("a number of 1..{most}"), value))
    }

    /// A number that is finite.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().filter(|v| v.is_finite()).map(Some).ok_or_else(|| self.refuse(key, "a number", value))
    }

    pub(super) fn truth(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.refuse(key, "true or false", value))
    }

    /// One of the words `known`.
    pub(super) fn word(&self, key: &str, known: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let word = value.as_str().and_then(|text| known.iter().find(|word| **word == text));
        word.copied().map(Some).ok_or_else(|| self.refuse(key, &known.join(" or "), value))
    }

    /// What stands under the dotted name; nothing where it is null.
    fn get(&self, key: &str) -> Option<&Value> {
        key.split('.').try_fold(&self.value, |value, part| value.get(part)).filter(|value| !value.is_null())
    }

    fn refuse(&self, key: &str, expected: &str, found: &Value) -> Error {
        let found: String = found.to_string().chars().take(60).collect();
        Error::Mismatch {
            model: self.path.display().to_string(),
            what: format!("`{key}`"),
            expected: expected.into(),
            found,
        }
    }
}
