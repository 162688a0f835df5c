use std::path::PathBuf;

use etcetera::BaseStrategy;

/// `$XDG_CACHE_HOME/lipstream/<name>` (`~/.cache` by default), made if it is not there; `None` when it cannot be.
pub fn cache_dir(name: &str) -> Option<PathBuf> {
    let dir = etcetera::choose_base_strategy().ok()?.cache_dir().join("lipstream").join(name);
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir)
}
