//! NVIDIA's compiler of CUDA C++, which needs neither a card nor a driver.
//!
//! libnvrtc is taken from `.lipstream/cuda` or `.lipstream/nvrtc` in a folder above the code that asks, else from where the system's
//! loader finds it.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::{Path, PathBuf},
    ptr::null_mut,
    sync::OnceLock,
};

use cudarc::nvrtc::sys;

use super::{FILES, PROGRAM};
use crate::{Error, Result, runtime::library};

/// `make setup-gpu` fills the first, the set-up of the tests the second.
const FOLDERS: [&str; 2] = ["cuda", "nvrtc"];
const CURE: &str = "run `make setup-gpu`";

/// What all programs are compiled with: numbers are to be the CPU's, so nothing is contracted.
pub(super) const OPTIONS: &[&str] = &["--std=c++17", "--fmad=false"];

/// A program as it was compiled.
pub struct Compiled {
    /// PTX.
    pub code: String,
    /// What the compiler said; empty where it had nothing to warn of.
    pub log: String,
}

/// The kernels for a virtual architecture (`compute_90`) as PTX.
///
/// Errors: no libnvrtc; what the compiler said.
pub fn kernels(architecture: &str) -> Result<Compiled> {
    compile("kernels.cu", PROGRAM, FILES, &[format!("--gpu-architecture={architecture}")])
}

/// What the assembler says of the kernels for an architecture (`sm_90`): registers, stack and shared memory of each.
pub fn usage(architecture: &str) -> Result<String> {
    let options = [format!("--gpu-architecture={architecture}"), "--ptxas-options=-v".into()];
    Ok(compile("kernels.cu", PROGRAM, FILES, &options)?.log)
}

/// Compiles one program that may include `files`.
///
/// Errors: no libnvrtc; what the compiler said.
pub fn compile(name: &str, program: &str, files: &[(&str, &str)], options: &[String]) -> Result<Compiled> {
    load()?;
    let text = |text: &str| CString::new(text).map_err(|_| Error::invalid(format!("{name}: a NUL in a program")));
    let (program, called) = (text(program)?, text(name)?);
    let names = files.iter().map(|(name, _)| text(name)).collect::<Result<Vec<_>>>()?;
    let bodies = files.iter().map(|(_, body)| text(body)).collect::<Result<Vec<_>>>()?;
    let options = OPTIONS.iter().map(|o| text(o)).chain(options.iter().map(|o| text(o))).collect::<Result<Vec<_>>>()?;
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<*const c_char>>();
    let (names, bodies, options) = (pointers(&names), pointers(&bodies), pointers(&options));
    let mut handle = null_mut();
    // SAFETY: the library is there; all pointers are to texts that outlive the call, as many as are counted.
    let made = unsafe {
        sys::nvrtcCreateProgram(
            &mut handle,
            program.as_ptr(),
            called.as_ptr(),
            files.len() as c_int,
            bodies.as_ptr(),
            names.as_ptr(),
        )
    };
    check(name, made)?;
    let handle = Handle(handle);
    // SAFETY: as above; the handle is that of a program.
    let compiled = unsafe { sys::nvrtcCompileProgram(handle.0, options.len() as c_int, options.as_ptr()) };
    let log = handle.text(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog).unwrap_or_default();
    if compiled != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(Error::invalid(format!("{name} does not compile ({compiled:?}): {}", log.trim())));
    }
    let code = handle.text(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX);
    Ok(Compiled { code: code.map_err(|result| failed(name, result))?, log: log.trim().to_owned() })
}

/// Major and minor.
pub fn version() -> Result<(i32, i32)> {
    load()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and writes two numbers.
    check("NVRTC", unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;
    Ok((major, minor))
}

/// A program that is destroyed with it.
struct Handle(sys::nvrtcProgram);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is a program, and not used any more. What could go wrong leaves nothing to do.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

type Size = unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult;
type Text = unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult;

impl Handle {
    /// One of its texts, which ends with a NUL.
    fn text(&self, size: Size, text: Text) -> Result<String, sys::nvrtcResult> {
        let ended = |result| if result == sys::nvrtcResult::NVRTC_SUCCESS { Ok(()) } else { Err(result) };
        let mut length = 0;
        // SAFETY: the program is alive; `length` is written, and there is room for as many bytes.
        unsafe {
            ended(size(self.0, &mut length))?;
            let mut bytes = vec![0u8; length.max(1)];
            ended(text(self.0, bytes.as_mut_ptr().cast()))?;
            let text = CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into_owned());
            Ok(text.unwrap_or_default())
        }
    }
}

fn failed(name: &str, result: sys::nvrtcResult) -> Error {
    Error::invalid(format!("{name}: NVRTC failed: {result:?}"))
}

fn check(name: &str, result: sys::nvrtcResult) -> Result<()> {
    if result == sys::nvrtcResult::NVRTC_SUCCESS { Ok(()) } else { Err(failed(name, result)) }
}

/// Loads the library once. Errors: there is none.
fn load() -> Result<()> {
    static THERE: OnceLock<bool> = OnceLock::new();
    let there = THERE.get_or_init(|| {
        let holds = |folder: &PathBuf| folder.join("libnvrtc.so.13").is_file();
        if let Some(folder) = FOLDERS.into_iter().filter_map(library::unpacked).find(holds) {
            // The compiler looks for its built-in functions by name: they are there already then.
            ["libnvrtc-builtins.so", "libnvrtc.so"].iter().for_each(|name| open(&folder, name));
        }
        // SAFETY: a library of NVIDIA's, which does nothing when it is loaded.
        unsafe { sys::is_culib_present() }
    });
    if *there { Ok(()) } else { Err(Error::invalid(format!("NVRTC: libnvrtc.so was not found; {CURE}"))) }
}

/// Loads the library of `folder` whose name begins so, for good.
fn open(folder: &Path, name: &str) {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let named = |file: &Path| file.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(name));
    let Some(path) = files.filter(|file| named(file)).max() else { return };
    if let Ok(path) = CString::new(path.as_os_str().as_encoded_bytes()) {
        // SAFETY: a path that ends with a NUL; a library that cannot be loaded gives a null pointer, and is then looked for elsewhere.
        unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    }
}
