//! What NVRTC made of the kernels, kept in the user's cache, `kernels/<architecture>-<hash>.ptx`.

use std::path::PathBuf;

use super::{FILES, PROGRAM, nvrtc};
use crate::{Result, digest, runtime::cache_dir};

/// PTX of the kernels for an architecture (`compute_90`), from the cache or compiled now.
pub(super) fn ptx(architecture: &str) -> Result<String> {
    let file = file(architecture, nvrtc::version()?);
    if let Some(known) = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).filter(|text| whole(text)) {
        return Ok(known);
    }
    let begun = std::time::Instant::now();
    let made = nvrtc::kernels(architecture)?;
    tracing::info!(architecture, seconds = begun.elapsed().as_secs_f32(), "kernels compiled");
    // Another process may do the same: the file appears whole.
    if let Some(file) = file {
        let part = file.with_extension(format!("{}.part", std::process::id()));
        let kept = std::fs::write(&part, &made.code).and_then(|()| std::fs::rename(&part, &file));
        if let Err(error) = kept {
            tracing::warn!(file = %file.display(), %error, "compiled kernels are not kept");
        }
    }
    Ok(made.code)
}

/// `None` where there is no cache.
fn file(architecture: &str, version: (i32, i32)) -> Option<PathBuf> {
    let sources = FILES.iter().flat_map(|(name, text)| [*name, *text]).chain([PROGRAM]);
    let key = [sources.collect::<Vec<_>>().join("\0"), nvrtc::OPTIONS.join(" "), format!("{version:?}")].join("\0");
    let hash = digest::sha256(key.as_bytes());
    Some(cache_dir("kernels")?.join(format!("{architecture}-{}.ptx", &hash[..16])))
}

/// Whether a kept text has its first and its last kernel.
fn whole(text: &str) -> bool {
    super::arguments::KERNELS.iter().all(|kernel| text.contains(&format!(".entry {kernel}(")))
}
