//! Folders of engines in the making.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Their names begin with this; the number of the process and the engine's name follow.
const PARTIAL: &str = ".import-";

/// A folder in the making, which goes unless it becomes an engine.
pub(super) struct Partial(PathBuf);

impl Partial {
    /// Of the engine `name` below `engines`.
    pub(super) fn new(engines: &Path, name: &str) -> Result<Self> {
        let folder = engines.join(format!("{PARTIAL}{}-{name}", std::process::id()));
        fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Self(folder))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// Takes the name that it was made for.
    pub(super) fn become_engine(self, target: &Path, replace: bool) -> Result<()> {
        if replace && target.exists() {
            // Moved aside and not deleted first: the name is never without an engine for longer than two renames.
            let aside = Self(self.0.with_extension("old"));
            fs::rename(target, &aside.0).map_err(|e| Error::io(target, e))?;
            fs::rename(&self.0, target).map_err(|e| Error::io(target, e))?;
            return Ok(());
        }
        fs::rename(&self.0, target).map_err(|e| Error::io(target, e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After it has become an engine there is nothing of that name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what imports left that were killed: those of processes that are no more.
pub(super) fn sweep(engines: &Path) {
    let Ok(entries) = fs::read_dir(engines) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(PARTIAL).and_then(|rest| rest.split('-').next()) else { continue };
        let alive = process
            .parse::<u32>()
            .is_ok_and(|pid| pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists());
        if !alive {
            // It goes next time where it does not go now.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
