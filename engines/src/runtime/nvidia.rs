//! NVIDIA's libraries that `scripts/setup-gpu.sh` unpacks beside the program: they are loaded from where they lie, so that no
//! environment variable names them.

use std::path::Path;

use libloading::Library;

use super::library;

/// Folders below `.lipstream` and what is loaded of each, what others need first. A library that needs one of these by its name
/// takes the one that is loaded; cuDNN and TensorRT find the rest of theirs in the folder that they were loaded from.
const LIBRARIES: [(&str, &[&str]); 2] = [
    ("cuda", &["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"]),
    ("tensorrt", &["libnvinfer.so.10", "libnvonnxparser.so.10"]),
];

/// Whether NVIDIA's driver is on this machine.
pub fn driver() -> bool {
    // SAFETY: the driver's library, which does nothing when it is loaded.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

/// Loads what is unpacked for the runtime at `runtime`, where that is one for NVIDIA's cards and a driver is here. They stay loaded.
pub(super) fn preload(runtime: &Path) {
    if !runtime.with_file_name("libonnxruntime_providers_cuda.so").is_file() || !driver() {
        return;
    }
    for (folder, names) in LIBRARIES {
        let Some(folder) = library::unpacked(folder) else { continue };
        for path in names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()) {
            // SAFETY: libraries of NVIDIA's, which do nothing when they are loaded.
            match unsafe { Library::new(&path) } {
                Ok(library) => std::mem::forget(library),
                Err(error) => tracing::warn!(library = %path.display(), %error, "not loaded"),
            }
        }
    }
}

/// A library that the providers of NVIDIA's cards need and that is neither unpacked nor known to the system's loader.
pub fn missing() -> Vec<&'static str> {
    let lacks = |folder: Option<&Path>, name: &str| {
        let unpacked = folder.is_some_and(|folder| folder.join(name).is_file());
        // SAFETY: as above.
        !unpacked && unsafe { Library::new(name) }.is_err()
    };
    let (folder, names) = LIBRARIES[0];
    let folder = library::unpacked(folder);
    names.iter().copied().filter(|name| lacks(folder.as_deref(), name)).collect()
}
