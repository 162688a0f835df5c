//! The processor as a device: the kernels compiled by g++ through `engines/kernels/host.h`. It shows, where there is no card, that
//! what runs on one says what the CPU path says. It is for tests and dry runs: kernels run thread by thread.

use std::{
    alloc::Layout,
    ffi::c_void,
    path::Path,
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use libloading::Library;
use parking_lot::Mutex;

use super::{
    FILES, PROGRAM,
    memory::{Memory, Place, Rows, exhausted},
};
use crate::{Error, Result};

/// Bytes before and behind each piece of memory, which nobody may change.
const GUARD: usize = 64;
const MARK: u8 = 0xa5;

type Kernel = unsafe extern "C" fn(*const c_void, *const u32, *const u32) -> i32;
type Size = unsafe extern "C" fn() -> usize;
type Reverse = unsafe extern "C" fn(i32);

/// The processor. What is asked of it is done before it returns, one thing at a time.
///
/// A kernel that writes beyond what it was given ends in a panic when that is freed.
pub struct Host {
    /// Whether threads and blocks run from the last to the first.
    reversed: bool,
    /// Bytes that there are.
    limit: AtomicUsize,
    used: AtomicUsize,
    most: AtomicUsize,
    allocations: AtomicUsize,
    uploaded: AtomicUsize,
    downloaded: AtomicUsize,
    turn: Mutex<()>,
}

/// What a [`Host`] was asked for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub allocations: usize,
    /// Bytes that are in use.
    pub used: usize,
    /// Bytes that were in use at a time at most.
    pub most: usize,
    pub uploaded: usize,
    pub downloaded: usize,
}

impl Host {
    /// Errors: no g++, or what it said.
    pub fn new() -> Result<Self> {
        library()?;
        let zero = || AtomicUsize::new(0);
        Ok(Self {
            reversed: false,
            limit: AtomicUsize::new(usize::MAX),
            used: zero(),
            most: zero(),
            allocations: zero(),
            uploaded: zero(),
            downloaded: zero(),
            turn: Mutex::new(()),
        })
    }

    /// The same with threads and blocks that run from the last to the first.
    pub fn reversed(self) -> Self {
        Self { reversed: true, ..self }
    }

    /// From now on it has so many bytes in all.
    pub fn limit(&self, bytes: usize) {
        self.limit.store(bytes, Relaxed);
    }

    pub fn asked(&self) -> Asked {
        Asked {
            allocations: self.allocations.load(Relaxed),
            used: self.used.load(Relaxed),
            most: self.most.load(Relaxed),
            uploaded: self.uploaded.load(Relaxed),
            downloaded: self.downloaded.load(Relaxed),
        }
    }

    /// Bytes of the structure that a kernel takes.
    pub fn size_of_arguments(kernel: &str) -> Result<usize> {
        // SAFETY: each kernel has such a function.
        Ok(unsafe { symbol::<Size>(&format!("{kernel}_size"))?() })
    }
}

fn library() -> Result<&'static Library> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| compile().map_err(|error| error.to_string()));
    library.as_ref().map_err(|cause| Error::invalid(cause.clone()))
}

fn symbol<T>(name: &str) -> Result<libloading::Symbol<'static, T>> {
    // SAFETY: the callers' types are those of the program.
    let found = unsafe { library()?.get::<T>(name) };
    found.map_err(|error| Error::invalid(format!("the kernels for the processor: {error}")))
}

fn compile() -> Result<Library> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let folder = std::env::temp_dir().join(format!("lipstream-kernels-{}-{now}", std::process::id()));
    // One that is there already is somebody else's.
    std::fs::create_dir(&folder).map_err(|error| Error::io(&folder, error))?;
    let built = build(&folder);
    // It stays loaded without its file.
    let _ = std::fs::remove_dir_all(&folder);
    built
}

fn build(folder: &Path) -> Result<Library> {
    let host = ("host.h", include_str!("../../kernels/host.h"));
    for (name, text) in FILES.iter().copied().chain([host, ("kernels.cu", PROGRAM)]) {
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(|error| Error::io(&file, error))?;
    }
    let file = folder.join("kernels.so");
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-U_FORTIFY_SOURCE"]);
    compiler
        .args(["-DLIPSTREAM_HOST", "-shared", "-fPIC", "-x", "c++"])
        .arg(folder.join("kernels.cu"))
        .arg("-o")
        .arg(&file);
    let said = compiler.output().map_err(|error| Error::invalid(format!("g++: {error}; run `make setup`")))?;
    if !said.status.success() {
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        return Err(Error::invalid(format!("the kernels do not compile for the processor: {words}")));
    }
    // SAFETY: a library without anything that runs when it is loaded.
    let loaded = unsafe { Library::new(&file) };
    loaded.map_err(|error| Error::invalid(format!("the kernels for the processor: {error}")))
}

fn layout(bytes: usize) -> Result<Layout> {
    let all = bytes.checked_add(2 * GUARD).and_then(|all| Layout::from_size_align(all, 64).ok());
    all.ok_or_else(|| Error::invalid("a buffer beyond all memory"))
}

// SAFETY: memory is the process's, with room before and behind it.
unsafe impl Memory for Host {
    fn place(&self) -> Place {
        Place::Host
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let _turn = self.turn.lock();
        let used = self.used.load(Relaxed);
        if used.saturating_add(bytes) > self.limit.load(Relaxed) {
            return Err(exhausted(self.place(), bytes, self.available()));
        }
        let layout = layout(bytes)?;
        self.used.store(used + bytes, Relaxed);
        self.most.fetch_max(used + bytes, Relaxed);
        self.allocations.fetch_add(1, Relaxed);
        // SAFETY: the layout has a size; all of it is filled.
        unsafe {
            let all = std::alloc::alloc(layout);
            if all.is_null() {
                std::alloc::handle_alloc_error(layout);
            }
            all.write_bytes(MARK, layout.size());
            Ok(all as u64 + GUARD as u64)
        }
    }

    unsafe fn free(&self, address: u64, bytes: usize) {
        let _turn = self.turn.lock();
        let Ok(layout) = layout(bytes) else { return };
        self.used.fetch_sub(bytes, Relaxed);
        let all = (address - GUARD as u64) as *mut u8;
        // SAFETY: it was allocated so.
        let written = unsafe {
            let whole = std::slice::from_raw_parts(all, bytes + 2 * GUARD);
            let written = whole[..GUARD].iter().chain(&whole[GUARD + bytes..]).any(|byte| *byte != MARK);
            std::alloc::dealloc(all, layout);
            written
        };
        assert!(!written || std::thread::panicking(), "a kernel wrote beyond {bytes} bytes");
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        let _turn = self.turn.lock();
        // SAFETY: the caller's.
        unsafe { (address as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    unsafe fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let _turn = self.turn.lock();
        self.uploaded.fetch_add(bytes, Relaxed);
        // SAFETY: the caller's.
        fill(unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) });
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        let _turn = self.turn.lock();
        self.downloaded.fetch_add(bytes, Relaxed);
        // SAFETY: the caller's.
        take(unsafe { std::slice::from_raw_parts(from as *const u8, bytes) });
        Ok(())
    }

    unsafe fn copy(&self, to: u64, from: u64, rows: Rows) -> Result<()> {
        let _turn = self.turn.lock();
        for row in 0..rows.count {
            let (to, from) = (to + (row * rows.to_stride) as u64, from + (row * rows.from_stride) as u64);
            // SAFETY: the caller's.
            unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, rows.bytes) };
        }
        Ok(())
    }

    unsafe fn launch(
        &self,
        name: &'static str,
        arguments: *const c_void,
        grid: [u32; 3],
        block: [u32; 3],
    ) -> Result<()> {
        let _turn = self.turn.lock();
        // SAFETY: the kernel takes the structure, and its sizes are three numbers each.
        let ended = unsafe {
            symbol::<Reverse>("lipstream_reverse")?(self.reversed.into());
            symbol::<Kernel>(name)?(arguments, grid.as_ptr(), block.as_ptr())
        };
        match ended {
            0 => Ok(()),
            _ => Err(Error::invalid(format!("`{name}`: a barrier was not reached by all threads"))),
        }
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn available(&self) -> Option<u64> {
        let limit = Some(self.limit.load(Relaxed)).filter(|limit| *limit != usize::MAX);
        limit.map(|limit| limit.saturating_sub(self.used.load(Relaxed)) as u64)
    }
}
