//! A card's memory and its kernels.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::{CString, c_void},
    ptr::{null, null_mut},
    sync::Arc,
};

use cudarc::driver::{
    CudaContext, CudaStream,
    result::{self, DriverError},
    sys,
};
use parking_lot::Mutex;

use super::{
    arguments::KERNELS,
    cache,
    memory::{Memory, Place, Rows, exhausted},
    pinned::Pinned,
};
use crate::{Error, Result};

const DRIVER: &str = "install NVIDIA's driver (580 or later), or use device=cpu";

/// Bytes of memory of the card of that number that are free, and that there are; `None` where there is no such card.
pub fn memory_of(number: u32) -> Option<(u64, u64)> {
    /// Kept, since making one takes long.
    static CONTEXTS: Mutex<BTreeMap<u32, Arc<CudaContext>>> = Mutex::new(BTreeMap::new());
    // cudarc panics where a function is missing.
    // SAFETY: a library of NVIDIA's, which does nothing when it is loaded; the function is not called.
    unsafe {
        let driver = libloading::Library::new("libcuda.so.1").ok()?;
        driver.get::<unsafe extern "C" fn()>(b"cuMemGetInfo_v2\0").ok()?;
    }
    let mut contexts = CONTEXTS.lock();
    let context = match contexts.entry(number) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => free.insert(CudaContext::new(number as usize).ok()?),
    };
    context.bind_to_thread().ok()?;
    result::mem_get_info().ok().map(|(free, total)| (free as u64, total as u64))
}

/// One card: a stream of its own, in which all that is asked of this value happens one after another.
pub struct Card {
    name: String,
    number: u32,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    module: sys::CUmodule,
    functions: Vec<(&'static str, sys::CUfunction)>,
    pinned: Pinned,
}

// SAFETY: the driver's handles may be used by any thread that has the context, which every call sees to.
unsafe impl Send for Card {}
// SAFETY: as above; the driver locks what it shares.
unsafe impl Sync for Card {}

impl Card {
    /// The card of that number with the kernels loaded, compiled for it if they were not before.
    ///
    /// Errors: no libcuda, no card of that number, no libnvrtc, what the compiler or the driver said.
    pub fn open(number: usize) -> Result<Self> {
        let name = format!("cuda:{number}");
        let device = |cause: String, cure: &str| Error::Device { device: name.clone(), cause, cure: cure.into() };
        // SAFETY: a library of NVIDIA's, which does nothing when it is loaded.
        if !unsafe { sys::is_culib_present() } {
            return Err(device("libcuda.so.1 was not found".into(), DRIVER));
        }
        let failed = |error: DriverError| device(error.to_string(), "see `nvidia-smi`, or use device=cpu");
        let count = CudaContext::device_count().map_err(failed)?;
        if number >= count.max(0) as usize {
            return Err(device(
                format!("there are {count} cards"),
                "name one of them, from cuda:0 on, or use device=cpu",
            ));
        }
        let context = CudaContext::new(number).map_err(failed)?;
        let stream = context.new_stream().map_err(failed)?;
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let ptx = cache::ptx(&format!("compute_{major}{minor}"))?;
        let text = CString::new(ptx).map_err(|_| Error::invalid("the kernels' PTX has a NUL"))?;
        // SAFETY: the context is this thread's now, and the text ends with a NUL.
        let module = unsafe { result::module::load_data(text.as_ptr().cast()) };
        let module = module.map_err(|error| {
            device(format!("the kernels were refused: {error}"), "use a driver that is as new as libnvrtc")
        })?;
        let mut card = Self {
            name: name.clone(),
            number: number as u32,
            context,
            stream,
            module,
            functions: Vec::new(),
            pinned: Pinned::default(),
        };
        for kernel in KERNELS {
            let named = CString::new(*kernel).map_err(|_| Error::invalid("a kernel's name has a NUL"))?;
            // SAFETY: the module is loaded.
            let function = unsafe { result::module::get_function(card.module, named) };
            card.functions.push((*kernel, function.map_err(failed)?));
        }
        Ok(card)
    }

    fn failed(&self, what: &str, error: DriverError) -> Error {
        if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Error::OutOfMemory { model: self.name.clone(), cause: format!("{what}: {error}") };
        }
        Error::Runtime { model: self.name.clone(), cause: format!("{what}: {error}") }
    }

    fn bound(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|error| self.failed("context", error))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if self.finish().is_ok() && self.bound().is_ok() {
            self.pinned.clear();
            // SAFETY: nothing of the module runs any more.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

// SAFETY: memory is the driver's, and all that is asked for goes into one stream.
unsafe impl Memory for Card {
    fn place(&self) -> Place {
        Place::Card(self.number)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bound()?;
        // Of the whole card, not of the stream: networks use it in streams of their own.
        // SAFETY: the context is this thread's.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => exhausted(self.place(), bytes, self.available()),
            _ => self.failed(&format!("{bytes} bytes"), error),
        })
    }

    unsafe fn free(&self, address: u64, _: usize) {
        // Nothing that was launched may use it any more.
        if self.finish().is_err() || self.bound().is_err() {
            return;
        }
        // SAFETY: the caller's.
        if let Err(error) = unsafe { result::free_sync(address) } {
            tracing::warn!(device = self.name, %error, "memory of a card was not given back");
        }
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.bound()?;
        // SAFETY: the caller's; the stream lives as long as the card.
        let cleared = unsafe { result::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) };
        cleared.map_err(|error| self.failed("clear", error))
    }

    unsafe fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.bound()?;
        let failed = |error| self.failed("upload", error);
        let mut block = self.pinned.take(bytes).map_err(failed)?;
        fill(block.part(bytes));
        let stream = self.stream.cu_stream();
        // SAFETY: the caller's; the block is not used again before the copy has ended.
        let sent = unsafe { result::memcpy_htod_async(to, block.part(bytes), stream) };
        let sent = sent.and_then(|()| block.mark(stream));
        self.pinned.keep(block);
        sent.map_err(failed)
    }

    unsafe fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.bound()?;
        let failed = |error| self.failed("download", error);
        let mut block = self.pinned.take(bytes).map_err(failed)?;
        let stream = self.stream.cu_stream();
        // SAFETY: the caller's; it is waited for.
        let sent = unsafe { result::memcpy_dtoh_async(block.part(bytes), from, stream) };
        let sent = sent.and_then(|()| block.mark(stream)).and_then(|()| block.wait());
        if sent.is_ok() {
            take(block.part(bytes));
        }
        self.pinned.keep(block);
        sent.map_err(failed)
    }

    unsafe fn copy(&self, to: u64, from: u64, rows: Rows) -> Result<()> {
        self.bound()?;
        let Rows { count, bytes, to_stride, from_stride } = rows;
        let stream = self.stream.cu_stream();
        let whole = count == 1 || (to_stride == bytes && from_stride == bytes);
        // SAFETY: the caller's.
        let copied = unsafe {
            if whole {
                result::memcpy_dtod_async(to, from, count * bytes, stream)
            } else {
                let copy = sys::CUDA_MEMCPY2D {
                    srcXInBytes: 0,
                    srcY: 0,
                    srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                    srcHost: null(),
                    srcDevice: from,
                    srcArray: null_mut(),
                    srcPitch: from_stride,
                    dstXInBytes: 0,
                    dstY: 0,
                    dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                    dstHost: null_mut(),
                    dstDevice: to,
                    dstArray: null_mut(),
                    dstPitch: to_stride,
                    WidthInBytes: bytes,
                    Height: count,
                };
                sys::cuMemcpy2DAsync_v2(&copy, stream).result()
            }
        };
        copied.map_err(|error| self.failed("copy", error))
    }

    unsafe fn launch(
        &self,
        name: &'static str,
        arguments: *const c_void,
        grid: [u32; 3],
        block: [u32; 3],
    ) -> Result<()> {
        self.bound()?;
        let known = self.functions.iter().find(|(kernel, _)| *kernel == name);
        let (_, function) = known.ok_or_else(|| Error::invalid(format!("there is no kernel `{name}`")))?;
        let size = |[x, y, z]: [u32; 3]| (x, y, z);
        // SAFETY: the caller's; a kernel has one argument, which the driver copies before this returns.
        let launched = unsafe {
            let mut all = [arguments.cast_mut()];
            result::launch_kernel(*function, size(grid), size(block), 0, self.stream.cu_stream(), &mut all)
        };
        launched.map_err(|error| self.failed(name, error))
    }

    fn finish(&self) -> Result<()> {
        self.bound()?;
        self.stream.synchronize().map_err(|error| self.failed("waiting", error))
    }

    fn available(&self) -> Option<u64> {
        self.bound().ok()?;
        result::mem_get_info().ok().map(|(free, _)| free as u64)
    }
}
