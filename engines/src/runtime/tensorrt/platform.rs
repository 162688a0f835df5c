//! What an engine is bound to besides its network: the card and the versions of what built it.

use std::{
    ffi::{CStr, c_char, c_int},
    fmt,
};

use libloading::Library;
use serde::{Deserialize, Serialize};

use super::super::{Device, library, nvidia, provider};
use crate::{Error, Result};

/// A card, and what builds and runs engines for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub card: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// As `10.13.3`.
    pub tensorrt: String,
    pub onnxruntime: String,
}

impl Platform {
    /// That of the card of this number, as CUDA counts.
    ///
    /// Errors: no driver, one that is too old, no such card; a library that is not there or is of another version.
    pub fn here(card: u32) -> Result<Self> {
        let device = Device::TensorRt(card);
        let refuse = |cause: String, cure: String| Error::Device { device: device.to_string(), cause, cure };
        if let Some((cause, cure)) = nvidia::refused(device) {
            return Err(refuse(cause, cure.into()));
        }
        let lacks = nvidia::lacks(device);
        if !lacks.is_empty() {
            return Err(refuse(lacks, provider::cure(device)));
        }
        let failed = |cause: String| refuse(cause, provider::cure(device));
        let tensorrt = nvidia::infer().and_then(|library| version(&library)).map_err(&failed)?;
        let onnxruntime = onnxruntime().map_err(&failed)?;
        let (card, capability) = named(card).map_err(|cause| refuse(cause, "see `nvidia-smi`".into()))?;
        Ok(Self { card, capability, tensorrt, onnxruntime })
    }

    /// A folder's name: small letters, digits, points and dashes.
    pub fn slug(&self) -> String {
        let (major, minor) = self.capability;
        let text = format!("{}-sm{major}{minor}-trt{}-ort{}", self.card, self.tensorrt, self.onnxruntime);
        let mut slug = String::new();
        for c in text.chars().map(|c| c.to_ascii_lowercase()) {
            match c {
                'a'..='z' | '0'..='9' | '.' => slug.push(c),
                _ if !slug.ends_with('-') && !slug.is_empty() => slug.push('-'),
                _ => {}
            }
        }
        slug.truncate(200);
        slug
    }

    /// In what it is unlike `other`, in words; empty where it is not.
    pub fn unlike(&self, other: &Self) -> String {
        let card = |p: &Self| format!("{} (sm_{}{})", p.card, p.capability.0, p.capability.1);
        let pairs = [
            (String::new(), card(self), card(other)),
            ("TensorRT ".into(), self.tensorrt.clone(), other.tensorrt.clone()),
            ("ONNX Runtime ".into(), self.onnxruntime.clone(), other.onnxruntime.clone()),
        ];
        let apart = pairs.into_iter().filter(|(_, own, other)| own != other);
        apart.map(|(what, own, _)| format!("{what}{own}")).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.capability;
        write!(f, "{} (sm_{major}{minor}), TensorRT {}, ONNX Runtime {}", self.card, self.tensorrt, self.onnxruntime)
    }
}

/// What TensorRT calls its version: 101303 is 10.13.3.
fn version(infer: &Library) -> Result<String, String> {
    // SAFETY: the function is TensorRT's, takes nothing and has no side effect.
    let number = unsafe {
        let ask = infer.get::<unsafe extern "C" fn() -> i32>(b"getInferLibVersion\0");
        ask.map_err(|error| format!("libnvinfer.so.10 does not tell its version: {error}"))?()
    };
    Ok(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
}

fn onnxruntime() -> Result<String, String> {
    let path = library::find().map_err(|error| error.to_string())?;
    let failed = |error: libloading::Error| format!("{}: {error}", path.display());
    // SAFETY: the library is the one that runs all networks, and stays loaded by them; its base lives as long as it does.
    unsafe {
        let library = Library::new(&path).map_err(failed)?;
        let base = library.get::<unsafe extern "system" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0");
        let base = base.map_err(failed)?().as_ref().ok_or_else(|| format!("{}: has no API", path.display()))?;
        let text = CStr::from_ptr((base.GetVersionString)()).to_string_lossy().into_owned();
        std::mem::forget(library);
        Ok(text)
    }
}

/// Name and compute capability of a card, as CUDA counts.
fn named(number: u32) -> Result<(String, (i32, i32)), String> {
    const MAJOR: c_int = 75;
    const MINOR: c_int = 76;
    type Init = unsafe extern "C" fn(u32) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    let failed = |error: libloading::Error| format!("libcuda.so.1: {error}");
    let checked = |what: &str, code: c_int| match code {
        0 => Ok(()),
        code => Err(format!("CUDA does not answer: {what} gave {code}")),
    };
    // SAFETY: functions of the driver with the types of cuda.h; what they write into lives here and is as long as they are told.
    unsafe {
        let driver = Library::new("libcuda.so.1").map_err(failed)?;
        let (mut device, mut capability, mut name) = (0, (0, 0), [0 as c_char; 128]);
        checked("cuInit", driver.get::<Init>(b"cuInit\0").map_err(failed)?(0))?;
        checked("cuDeviceGet", driver.get::<Get>(b"cuDeviceGet\0").map_err(failed)?(&mut device, number as c_int))?;
        let ask = driver.get::<Name>(b"cuDeviceGetName\0").map_err(failed)?;
        checked("cuDeviceGetName", ask(name.as_mut_ptr(), name.len() as c_int - 1, device))?;
        let ask = driver.get::<Attribute>(b"cuDeviceGetAttribute\0").map_err(failed)?;
        checked("cuDeviceGetAttribute", ask(&mut capability.0, MAJOR, device))?;
        checked("cuDeviceGetAttribute", ask(&mut capability.1, MINOR, device))?;
        std::mem::forget(driver);
        Ok((CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned(), capability))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h100() -> Platform {
        Platform {
            card: "NVIDIA H100 80GB HBM3".into(),
            capability: (9, 0),
            tensorrt: "10.13.3".into(),
            onnxruntime: "1.31.1".into(),
        }
    }

    #[test]
    fn a_folder_says_the_card_and_the_versions() {
        assert_eq!(h100().slug(), "nvidia-h100-80gb-hbm3-sm90-trt10.13.3-ort1.31.1");
        let hostile = Platform { card: "../../\0x/".into(), ..h100() };
        assert!(!hostile.slug().contains('/') && hostile.slug().starts_with(".."), "{}", hostile.slug());
    }

    #[test]
    fn what_differs_is_named_alone() {
        let older = Platform { tensorrt: "10.9.0".into(), ..h100() };
        assert_eq!(older.unlike(&h100()), "TensorRT 10.9.0");
        assert_eq!(h100().unlike(&h100()), "");
        let other = Platform { card: "A10".into(), capability: (8, 6), ..h100() };
        assert_eq!(other.unlike(&h100()), "A10 (sm_86)");
    }
}
