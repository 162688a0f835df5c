//! NVIDIA's libraries that `scripts/setup-gpu.sh` unpacks beside the program: they are loaded from where they lie, so that no
//! environment variable names them.

use std::path::Path;

use libloading::Library;

use super::{Device, cards, library};

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

/// Why a card cannot be used, as far as the driver alone tells, and the cure; `None` of other devices.
pub(super) fn refused(device: Device) -> Option<(String, &'static str)> {
    let (Device::Cuda(number) | Device::TensorRt(number)) = device else { return None };
    if !driver() {
        let cure = "install NVIDIA's driver (580 or newer) and run `make setup-gpu`, or use device=auto";
        return Some(("NVIDIA's driver is not installed (no libcuda.so.1)".into(), cure));
    }
    // Where the management library does not answer, CUDA may.
    let cards = cards::cards().ok()?;
    if let Some(cause) = cards.too_old() {
        return Some((cause, "install a newer one, or use device=auto"));
    }
    match cards.cards.len() {
        0 => Some(("the driver finds no card".into(), "see `nvidia-smi`, or use device=auto")),
        count if number as usize >= count => {
            Some((format!("there are {count} cards"), "name one of them, from cuda:0 on, or use device=auto"))
        }
        _ => None,
    }
}

/// What ONNX Runtime's error does not say of libraries that a device needs; empty where all are there.
pub(super) fn lacks(device: Device) -> String {
    let mut lacks: Vec<String> = Vec::new();
    if matches!(device, Device::Cuda(_) | Device::TensorRt(_)) {
        lacks.extend(missing().into_iter().map(|name| format!("{name} was not found")));
    }
    if matches!(device, Device::TensorRt(_)) {
        lacks.extend(tensorrt());
    }
    lacks.join(", ")
}

/// What is wrong with the TensorRT that is here.
fn tensorrt() -> Option<String> {
    let (folder, names) = LIBRARIES[1];
    let folder = library::unpacked(folder);
    let there = |name: &str| {
        // SAFETY: a library of NVIDIA's, which does nothing when it is loaded.
        folder.as_ref().is_some_and(|folder| folder.join(name).is_file()) || unsafe { Library::new(name) }.is_ok()
    };
    let wanted = *names.iter().find(|name| !there(name))?;
    let other = (8..20).find(|major| *major != 10 && there(&format!("libnvinfer.so.{major}")));
    Some(match other {
        Some(major) => format!("TensorRT {major} is here, and ONNX Runtime's provider needs TensorRT 10 ({wanted})"),
        None => format!("{wanted} was not found"),
    })
}

/// TensorRT's library.
pub(super) fn infer() -> Result<Library, String> {
    let (folder, names) = LIBRARIES[1];
    let unpacked = library::unpacked(folder).map(|folder| folder.join(names[0])).filter(|path| path.is_file());
    let path = unpacked.unwrap_or_else(|| names[0].into());
    // SAFETY: a library of NVIDIA's, which does nothing when it is loaded.
    unsafe { Library::new(&path) }.map_err(|error| format!("{}: {error}", path.display()))
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
