//! Where libonnxruntime is found: `LIPSTREAM_ORT_LIB` (a file or a folder), else `.lipstream/ort` in a folder above
//! the code that asks (the plugin or the program), else `$XDG_DATA_HOME/lipstream/ort`, else the system's loader.

use std::{
    ffi::{CStr, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use etcetera::BaseStrategy;
use ort::environment::Environment;

use crate::{Error, Result};

const VARIABLE: &str = "LIPSTREAM_ORT_LIB";
const CURE: &str = "run `make setup`, or set LIPSTREAM_ORT_LIB to a libonnxruntime.so of 1.17 or later";

/// The library's file: found on disk, or a bare name for the system's loader.
pub fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        let named = PathBuf::from(named);
        return if named.is_file() { Some(named.clone()) } else { in_folder(&named) }.ok_or_else(|| {
            Error::invalid(format!("{VARIABLE}: {} holds no libonnxruntime.so; {CURE}", named.display()))
        });
    }
    let above = above("ort", in_folder);
    let shared = || in_folder(&etcetera::choose_base_strategy().ok()?.data_dir().join("lipstream/ort"));
    Ok(above.or_else(shared).unwrap_or_else(|| PathBuf::from("libonnxruntime.so")))
}

/// The folder `.lipstream/<name>` in a folder above the code that asks.
pub(crate) fn unpacked(name: &str) -> Option<PathBuf> {
    above(name, |folder| folder.is_dir().then(|| folder.to_owned()))
}

/// What the nearest of these folders gives.
fn above<T>(name: &str, of: impl Fn(&Path) -> Option<T>) -> Option<T> {
    [own_file(), std::env::current_exe().ok()].into_iter().flatten().find_map(|file| {
        let file = file.canonicalize().unwrap_or(file);
        file.ancestors().skip(1).find_map(|dir| of(&dir.join(".lipstream").join(name)))
    })
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
