//! The folder of an adapted engine: written beside its place and renamed, so that it is there as a whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lipstream_engines::manifest::Package;

use super::shown;
use crate::error::{Failure, Result};

/// The engine's name: that of its folder, in the letters that a name may have.
pub fn name(folder: &Path) -> Result<String> {
    let stem = folder.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String = stem.chars().map(plain).take(64).collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        let cure = "name a folder such as anna.engine";
        return Err(Failure::output(format!("{}: no engine can be called so; {cure}", shown(folder))));
    }
    Ok(name.to_owned())
}

/// Refuses a place where something else than an engine is, before any work is done.
pub fn check(folder: &Path) -> Result<()> {
    let refuse = |cause: &str| Err(Failure::output(format!("{}: {cause}", shown(folder))));
    if folder.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
        return refuse("is there and no folder");
    }
    let empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if folder.is_dir() && !empty && !folder.join("engine.toml").is_file() {
        return refuse("is there and no engine; name another folder");
    }
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        Some(parent) => refuse(&format!("there is no folder {}", shown(parent))),
        None => Ok(()),
    }
}

/// A folder that goes away unless it becomes the engine.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Where even removing fails, the cause that brought us here is the one to report.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes `general` with the person's `bank` and, where it is known, their range in `person`.
pub fn engine(general: &Package, folder: &Path, name: &str, bank: &[u8], person: Option<&[u8]>) -> Result<()> {
    let failure = |cause: &dyn std::fmt::Display| Failure::output(format!("{}: {cause}", shown(folder)));
    let beside = |kind: &str| {
        let own = folder.file_name().unwrap_or_default().to_string_lossy();
        folder.with_file_name(format!(".{own}.{}.{kind}", std::process::id()))
    };
    let new = Unfinished(beside("part"));
    fs::create_dir(&new.0).map_err(|e| failure(&e))?;
    let description = format!("`{}`, adapted to one person", general.manifest().name);
    let mut more = vec![("bank", "bank.safetensors", bank)];
    more.extend(person.map(|bytes| ("person", "person.safetensors", bytes)));
    general.copy_to(&new.0, name, &description, &more).map_err(|e| failure(&e))?;
    let old = Unfinished(beside("old"));
    if folder.is_dir() {
        fs::rename(folder, &old.0).map_err(|e| failure(&e))?;
    }
    if let Err(e) = fs::rename(&new.0, folder) {
        // What was there stays there.
        let _ = fs::rename(&old.0, folder);
        return Err(failure(&e));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_folders() {
        let of = |path: &str| name(Path::new(path)).ok();
        assert_eq!(of("/x/Anna Smith.engine").as_deref(), Some("anna-smith"));
        assert_eq!(of("person.engine").as_deref(), Some("person"));
        assert_eq!(of("..").as_deref(), None);
        assert_eq!(of("---"), None);
    }
}
