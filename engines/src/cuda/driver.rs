//! A card's memory and its kernels.

use std::{
    ffi::{CString, c_void},
    sync::Arc,
};

use cudarc::driver::{
    CudaContext, CudaStream,
    result::{self, DriverError},
    sys,
};

use super::{arguments::KERNELS, cache, memory::Memory};
use crate::{Error, Result};

const DRIVER: &str = "install NVIDIA's driver (580 or later), or use device=cpu";

/// One card: a stream of its own, in which all that is asked of this value happens one after another.
pub struct Card {
    name: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    module: sys::CUmodule,
    functions: Vec<(&'static str, sys::CUfunction)>,
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
        let mut card = Self { name: name.clone(), context, stream, module, functions: Vec::new() };
        for kernel in KERNELS {
            let named = CString::new(*kernel).map_err(|_| Error::invalid("a kernel's name has a NUL"))?;
            // SAFETY: the module is loaded.
            let function = unsafe { result::module::get_function(card.module, named) };
            card.functions.push((*kernel, function.map_err(failed)?));
        }
        Ok(card)
    }

    /// Waits for all that was launched.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| self.failed("waiting", error))
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
        if self.synchronize().is_ok() && self.bound().is_ok() {
            // SAFETY: nothing of the module runs any more.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

impl Memory for Card {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bound()?;
        let stream = self.stream.cu_stream();
        // SAFETY: the stream lives as long as the card; the memory is filled before it is read.
        let address = unsafe {
            let address = match self.context.has_async_alloc() {
                true => result::malloc_async(stream, bytes),
                false => result::malloc_sync(bytes),
            };
            address.and_then(|address| result::memset_d8_async(address, 0, bytes, stream).map(|()| address))
        };
        address.map_err(|error| self.failed(&format!("{bytes} bytes"), error))
    }

    unsafe fn free(&self, address: u64, _: usize) {
        if self.bound().is_err() {
            return;
        }
        // SAFETY: the caller's; freed in the order of the stream, or after all of it.
        let freed = unsafe {
            match self.context.has_async_alloc() {
                true => result::free_async(address, self.stream.cu_stream()),
                false => result::free_sync(address),
            }
        };
        if let Err(error) = freed {
            tracing::warn!(device = self.name, %error, "memory of a card was not given back");
        }
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.bound()?;
        // SAFETY: the caller's; the driver has read memory that is not pinned before this returns.
        let sent = unsafe { result::memcpy_htod_async(to, bytes, self.stream.cu_stream()) };
        sent.map_err(|error| self.failed("upload", error))
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.bound()?;
        // SAFETY: the caller's; it is waited for.
        let sent = unsafe { result::memcpy_dtoh_async(bytes, from, self.stream.cu_stream()) };
        sent.map_err(|error| self.failed("download", error))?;
        self.synchronize()
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
}
