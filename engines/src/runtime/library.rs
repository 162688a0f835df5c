//! Where libonnxruntime is found: `LIPSTREAM_ORT_LIB` (a file or a folder), else `.lipstream/ort` in a folder above
//! the code that asks (the plugin or the program), else `$XDG_DATA_HOME/lipstream/ort`, else the system's loader. Where NVIDIA's
//! driver is, a folder `ort-gpu` in these places comes before `ort`.

use std::{
    ffi::{CStr, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use etcetera::BaseStrategy;
use ort::environment::Environment;

use super::nvidia;
use crate::{Error, Result};

const VARIABLE: &str = "LIPSTREAM_ORT_LIB";
const TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";
const CURE: &str = "run `make setup`, or set LIPSTREAM_ORT_LIB to a libonnxruntime.so of 1.17 or later";

/// The library's file: found on disk, or a bare name for the system's loader.
pub fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        let named = PathBuf::from(named);
        return if named.is_file() { Some(named.clone()) } else { in_folder(&named) }.ok_or_else(|| {
            Error::invalid(format!("{VARIABLE}: {} holds no libonnxruntime.so; {CURE}", named.display()))
        });
    }
    let found = kinds(nvidia::driver()).iter().find_map(|name| places(name).find_map(|folder| in_folder(&folder)));
    Ok(found.unwrap_or_else(|| PathBuf::from("libonnxruntime.so")))
}

/// The folders of the runtimes that serve a machine, best first.
fn kinds(driver: bool) -> &'static [&'static str] {
    if driver { &["ort-gpu", "ort"] } else { &["ort"] }
}

/// The nearest folder of that name.
pub(crate) fn unpacked(name: &str) -> Option<PathBuf> {
    places(name).find(|folder| folder.is_dir())
}

/// Where a folder of that name may be, nearest first: `.lipstream` above the code that asks, then the user's data.
fn places(name: &str) -> impl Iterator<Item = PathBuf> {
    let below = PathBuf::from(".lipstream").join(name);
    let mut places: Vec<PathBuf> = [own_file(), std::env::current_exe().ok()]
        .into_iter()
        .flatten()
        .map(|file| file.canonicalize().unwrap_or(file))
        .flat_map(|file| file.ancestors().skip(1).map(|dir| dir.join(&below)).collect::<Vec<_>>())
        .collect();
    places.extend(etcetera::choose_base_strategy().ok().map(|user| user.data_dir().join("lipstream").join(name)));
    places.into_iter()
}

/// Keeps ONNX Runtime from telling its makers of this machine: builds from 1.31 on write an identifier to the user's cache and look
/// for a server of Microsoft's when they are loaded, before the program that loads them can refuse. `ORT_DISABLE_TELEMETRY` stays
/// what it is where somebody has set it.
///
/// # Safety
/// No other thread may read or write the environment meanwhile: to be called as a program or a plugin begins.
pub unsafe fn send_nothing() {
    if std::env::var_os(TELEMETRY).is_none() {
        // SAFETY: the caller's.
        unsafe { std::env::set_var(TELEMETRY, "1") };
    }
}

fn in_folder(dir: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.as_bytes().starts_with(b"libonnxruntime.so")))
        .collect();
    found.sort();
    found.pop()
}

/// The file that this code was loaded from: the program, or the plugin's shared object.
fn own_file() -> Option<PathBuf> {
    // SAFETY: dladdr fills `info` or returns 0; the address is that of a function of ours, and the name that it gives
    // is a C string owned by the dynamic linker for as long as this code is loaded.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(own_file as *const libc::c_void, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        Some(PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes())))
    }
}

/// The process's environment, made by the first caller.
pub(super) fn environment() -> Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
    let made = ENVIRONMENT.get_or_init(|| {
        let path = find().map_err(|e| e.to_string())?;
        nvidia::preload(&path);
        let fail = |cause: String| format!("ONNX Runtime: {}: {cause}; {CURE}", path.display());
        let builder = ort::init_from(&path).map_err(|e| fail(e.to_string()))?;
        let environment =
            builder.with_name("lipstream").with_telemetry(false).build().map_err(|e| fail(e.to_string()))?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        tracing::info!(library = %path.display(), "ONNX Runtime loaded");
        Ok(environment)
    });
    made.as_ref().map_err(|cause| Error::invalid(cause.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_for_cards_is_taken_where_a_driver_is() {
        assert_eq!(kinds(true).first(), Some(&"ort-gpu"));
        assert!(!kinds(false).contains(&"ort-gpu"), "its CUDA provider does not load, and it has no OpenVINO");
    }
}
