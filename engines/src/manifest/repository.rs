//! Versions of an engine beside one another, as a model repository keeps them.
//!
//! ```text
//! engines/NAME/engine.toml            the engine itself, where it is not built in
//! engines/NAME/VERSION/engine.toml    versions of it, each with files of its own
//! engines/NAME/aliases.toml           which of them are called stable and canary
//! ```
//!
//! `NAME@VERSION` and `NAME@ALIAS` name one of them; `NAME` is what the alias `stable` stands for, without it the engine that is
//! built in or lies in the folder itself, without that the newest version. Within the process a version of a folder of its own is
//! called `NAME@VERSION`, so that nothing of it is taken for another's.
//!
//! What lies in the folder is not trusted: names that are none are passed over, a manifest must be of the engine whose folder it
//! is in, and no folder may lead out of that of all engines.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::package::{self, Package};
use crate::{Error, Result};

/// The alias that a name without a version stands for,
pub const STABLE: &str = "stable";
/// and that of a version which a share of the sessions gets.
pub const CANARY: &str = "canary";

const FILE: &str = "aliases.toml";
/// Largest file of aliases that is read.
const MAX_FILE: u64 = 64 << 10;
/// Versions and aliases of one engine that are looked at.
const MOST: usize = 64;
/// Longest name of a version or an alias.
const LONGEST: usize = 32;

/// What `aliases.toml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aliases {
    /// Percent of the sessions that get the version `canary`.
    #[serde(default)]
    pub share: u8,
    /// Versions by alias.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
}

impl Aliases {
    /// What is wrong with the names and the share, whatever versions there are.
    pub fn check(&self) -> Result<(), String> {
        if self.share > 100 {
            return Err(format!("share: {} is more than 100 percent", self.share));
        }
        if self.aliases.len() > MOST {
            return Err(format!("aliases: {} are more than {MOST}", self.aliases.len()));
        }
        for (alias, version) in &self.aliases {
            let plain = alias.starts_with(|c: char| c.is_ascii_lowercase())
                && alias.len() <= LONGEST
                && alias.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            if !plain {
                return Err(format!("aliases: `{alias}` must be 1 to {LONGEST} of a-z, 0-9 and -, a letter first"));
            }
            if !is_version(version) {
                return Err(format!("aliases.{alias}: `{version}` is no version"));
            }
        }
        if self.share > 0 && !self.aliases.contains_key(CANARY) {
            return Err(format!("share: {} percent of the sessions need an alias `{CANARY}`", self.share));
        }
        Ok(())
    }

    pub fn get(&self, alias: &str) -> Option<&str> {
        self.aliases.get(alias).map(String::as_str)
    }
}

/// The versions of one engine.
#[derive(Debug)]
pub struct Versions {
    name: String,
    /// The one that is built in or lies in the folder itself.
    own: Option<Package>,
    /// Its folder, where it cannot be opened.
    broken: Option<PathBuf>,
    /// The others, the oldest first.
    folders: Vec<(String, PathBuf)>,
    aliases: Aliases,
}

/// Whether `version` can be a version: 1 to 32 letters, digits, `.`, `_`, `-`, a letter or a digit first.
pub fn is_version(version: &str) -> bool {
    version.len() <= LONGEST
        && version.starts_with(|c: char| c.is_ascii_alphanumeric())
        && version.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// The engine and the version or alias of `NAME@VERSION`; `None` of a name without one.
pub fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('@')
}

impl Versions {
    /// Those of the engine `name`.
    ///
    /// Errors: a name that is none, an engine that is not installed, aliases that cannot be read.
    pub fn of(name: &str) -> Result<Self> {
        Self::within(name, package::data_folder().as_deref())
    }

    /// As [`of`](Self::of), of the folder of all engines.
    pub fn within(name: &str, engines: Option<&Path>) -> Result<Self> {
        let plain = !name.is_empty() && !name.contains(['/', '\\', '.', '@']);
        let built_in = Package::built_in(name).transpose()?;
        let folder = engines.map(|engines| engines.join(name)).filter(|folder| plain && folder.is_dir());
        let mut own = built_in;
        let mut broken = None;
        if let Some(folder) = folder.as_ref().filter(|folder| own.is_none() && folder.join(MANIFEST).exists()) {
            match Package::open(folder) {
                Ok(package) => own = Some(package),
                Err(_) => broken = Some(folder.clone()),
            }
        }
        let folders = match (&folder, engines) {
            (Some(folder), Some(engines)) => folders(folder, engines)?,
            _ => Vec::new(),
        };
        if own.is_none() && broken.is_none() && folders.is_empty() {
            return Err(Error::invalid(format!(
                "engine `{name}` is neither installed nor a path; `lipstream engines` lists what there is"
            )));
        }
        let aliases = folder.map_or(Ok(Aliases::default()), |folder| read(&folder.join(FILE)))?;
        let mut versions = Self { name: name.to_owned(), own, broken, folders, aliases };
        let plain = versions.own_version().map(str::to_owned);
        versions.folders.retain(|(version, _)| Some(version) != plain.as_ref());
        Ok(versions)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// Whether the engine of the folder itself cannot be opened; [`open`](Self::open) says why.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Whether there is more than the engine itself.
    pub fn is_versioned(&self) -> bool {
        !self.folders.is_empty()
    }

    /// All of them, the engine itself first, then the oldest.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        self.own_version().into_iter().chain(self.folders.iter().map(|(version, _)| version.as_str()))
    }

    /// What the name alone stands for where there is no alias `stable`.
    pub fn unnamed(&self) -> Option<&str> {
        let newest = || self.folders.last().map(|(version, _)| version.as_str());
        self.own_version().or_else(newest).filter(|_| self.broken.is_none())
    }

    /// The version of the engine that is built in or lies in the folder itself.
    fn own_version(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.manifest().version.as_str())
    }

    /// What a version or an alias stands for, and the name alone where nothing is `wanted`.
    ///
    /// Errors: what there is not, with what there is.
    pub fn resolve(&self, wanted: Option<&str>) -> Result<&str> {
        let missing = |what: String| {
            let known: Vec<&str> = self.versions().chain(self.aliases.aliases.keys().map(String::as_str)).collect();
            Error::invalid(format!("engine `{}` has no {what}; it has {}", self.name, known.join(", ")))
        };
        let Some(wanted) = wanted.or(self.aliases.get(STABLE)) else {
            return match &self.broken {
                Some(folder) => Err(Package::open(folder).err().unwrap_or_else(|| missing("version".into()))),
                None => self.unnamed().ok_or_else(|| missing("version".into())),
            };
        };
        let version = self.aliases.get(wanted).unwrap_or(wanted);
        let known = self.versions().find(|known| *known == version);
        known.ok_or_else(|| match version == wanted {
            true => missing(format!("version or alias `{wanted}`")),
            false => missing(format!("version `{version}`, which its alias `{wanted}` names")),
        })
    }

    /// The engine of a version, as [`resolve`](Self::resolve) finds it.
    ///
    /// Errors: what that says, a folder that leads elsewhere, a manifest that is broken or another engine's.
    pub fn open(&self, wanted: Option<&str>) -> Result<Package> {
        let version = self.resolve(wanted)?;
        if let Some(own) = self.own.as_ref().filter(|own| own.manifest().version == version) {
            return Ok(own.clone());
        }
        let folder = self.folders.iter().find(|(known, _)| known == version).map(|(_, folder)| folder);
        let folder = folder.ok_or_else(|| Error::invalid(format!("engine `{}` has no `{version}`", self.name)))?;
        Package::open(folder)?.called(&self.name, version)
    }

    /// What [`open`](Self::open) calls the engine of a version.
    pub fn called(&self, version: &str) -> String {
        match self.own_version() == Some(version) {
            true => self.name.clone(),
            false => format!("{}@{version}", self.name),
        }
    }

    /// Why these aliases cannot be the engine's.
    pub fn check(&self, aliases: &Aliases) -> Result<(), String> {
        aliases.check()?;
        for (alias, version) in &aliases.aliases {
            if self.versions().any(|known| known == alias) {
                return Err(format!("aliases: `{alias}` is a version"));
            }
            if !self.versions().any(|known| known == version) {
                let known: Vec<&str> = self.versions().collect();
                return Err(format!(
                    "aliases.{alias}: there is no version `{version}`; there are {}",
                    known.join(", ")
                ));
            }
        }
        Ok(())
    }
}

/// Keeps the aliases of the engine `name` for later starts.
pub fn write(name: &str, aliases: &Aliases) -> Result<()> {
    let folder = package::data_folder().map(|engines| engines.join(name)).filter(|folder| folder.is_dir());
    let folder = folder.ok_or_else(|| Error::invalid(format!("engine `{name}` has no folder")))?;
    let text = toml::to_string(aliases).map_err(|e| Error::invalid(e.to_string()))?;
    let (file, made) = (folder.join(FILE), folder.join(format!(".{FILE}")));
    std::fs::write(&made, text).map_err(|e| Error::io(&made, e))?;
    std::fs::rename(&made, &file).map_err(|e| Error::io(&file, e))
}

const MANIFEST: &str = "engine.toml";

fn read(file: &Path) -> Result<Aliases> {
    let refuse = |cause: String| Error::Manifest { origin: file.display().to_string(), key: "(file)".into(), cause };
    if !file.exists() {
        return Ok(Aliases::default());
    }
    let bytes = package::read(file, MAX_FILE)?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8 text".into()))?;
    let aliases: Aliases = toml::from_str(&text).map_err(|e| refuse(e.message().to_owned()))?;
    aliases.check().map_err(refuse)?;
    Ok(aliases)
}

/// Folders of versions in that of an engine, the oldest version first.
fn folders(folder: &Path, engines: &Path) -> Result<Vec<(String, PathBuf)>> {
    let inside = |path: &Path| match (path.canonicalize(), engines.canonicalize()) {
        (Ok(path), Ok(engines)) => path.starts_with(engines),
        _ => false,
    };
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let named = entries.flatten().filter_map(|entry| {
        let version = entry.file_name().into_string().ok()?;
        let path = entry.path();
        (is_version(&version) && path.join(MANIFEST).is_file() && inside(&path)).then_some((version, path))
    });
    let mut found: Vec<_> = named.take(MOST).collect();
    found.sort_by(|(a, _), (b, _)| compare(a, b));
    Ok(found)
}

/// Versions in the order in which people count them: `2` before `10`, `1.9` before `1.10`.
fn compare(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        let pieces = text.split(|c: char| !c.is_ascii_alphanumeric()).map(|piece| {
            let digits = piece.len() - piece.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            (piece[..digits].parse().unwrap_or(0), piece[digits..].to_owned())
        });
        pieces.collect()
    };
    parts(a).cmp(&parts(b)).then_with(|| a.cmp(b))
}
