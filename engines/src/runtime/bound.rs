//! Runs whose inputs and outputs lie in the memory of a device and stay there: IoBinding.
//!
//! The `ort` crate binds inputs that it does not own by a copy, so the binding is made through ONNX Runtime's own functions.

use std::{
    ffi::{CString, c_char},
    ptr::{NonNull, null, null_mut},
};

use ort::{
    AsPointer,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::Session,
    sys,
};

use super::{Device, Dtype, Model, Port, pool::Shapes, session};
use crate::{
    Error, Result,
    cuda::{
        Buffer, Place,
        memory::{Memory, megabytes},
    },
};

/// A tensor in the memory of a device.
#[derive(Clone, Copy)]
pub struct Bound<'a> {
    /// Of the port.
    pub name: &'a str,
    pub shape: &'a [usize],
    pub buffer: &'a Buffer<f32>,
    /// Its first number there.
    pub at: usize,
}

impl Model {
    /// Whether it runs in the memory of `place`, and why it does not.
    pub fn runs_at(&self, place: Place) -> Result<(), String> {
        let there = match (place, self.device()) {
            (Place::Host, Device::Cpu) => true,
            (Place::Card(own), Device::Cuda(other) | Device::TensorRt(other)) => own == other,
            _ => false,
        };
        if !there {
            return Err(format!("{} runs on {}", self.name(), self.device()));
        }
        let ports = self.signature().inputs.iter().chain(&self.signature().outputs);
        match ports.filter(|port| port.dtype != Dtype::F32).map(|port| &port.name).next() {
            Some(name) => Err(format!("`{name}` of {} is not f32", self.name())),
            None => Ok(()),
        }
    }

    /// Runs it once on numbers in the memory of its own device, where its outputs are put: all `inputs`, and the `outputs` that are
    /// asked for. It returns when they are there.
    ///
    /// Errors: tensors that do not fit the ports or their buffers, or lie elsewhere; what the runtime says, with what is free where
    /// memory ended.
    pub fn run_bound(&self, inputs: &[Bound], outputs: &[Bound]) -> Result<()> {
        let Some(first) = inputs.first() else { return Err(Error::invalid("a run without inputs")) };
        let memory = first.buffer.memory();
        self.runs_at(memory.place()).map_err(|cause| Error::invalid(format!("{cause}, not in {}", memory.place())))?;
        let (known, asked) = (&self.signature().inputs, &self.signature().outputs);
        if known.len() != inputs.len() {
            return Err(self.unlike("inputs".into(), known.len().to_string(), inputs.len().to_string()));
        }
        for (bound, ports) in inputs.iter().map(|b| (b, known)).chain(outputs.iter().map(|b| (b, asked))) {
            let port = ports.iter().find(|port| port.name == bound.name);
            if !port.is_some_and(|port| port.fits(bound.shape)) {
                let wanted = port.map_or("nothing".into(), Port::describe);
                return Err(self.unlike(format!("`{}`", bound.name), wanted, format!("{:?}", bound.shape)));
            }
        }
        let all = inputs.iter().chain(outputs);
        let addresses = all.map(|bound| {
            let count = bound.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
            Ok(bound.buffer.on(memory, bound.at, count)?.address())
        });
        let addresses: Vec<u64> = addresses.collect::<Result<_>>()?;
        let in_order = known.iter().filter_map(|port| inputs.iter().find(|bound| bound.name == port.name));
        let shapes: Vec<Vec<usize>> = in_order.map(|bound| bound.shape.to_vec()).collect();
        let key = if self.by_shape() { shapes } else { Shapes::new() };
        // The runtime has streams of its own: what was asked for before must have ended.
        memory.finish()?;
        let made = self.with_session(key, |session| {
            let mut run = || -> ort::Result<()> {
                let binding = Binding::new(session, memory.place())?;
                let (before, after) = addresses.split_at(inputs.len());
                for (bound, address) in inputs.iter().zip(before) {
                    binding.bind(bound, *address, ort::api().BindInput)?;
                }
                for (bound, address) in outputs.iter().zip(after) {
                    binding.bind(bound, *address, ort::api().BindOutput)?;
                }
                binding.run()
            };
            run().map_err(|error| session::failed(self.name(), &error))
        });
        made.map_err(|error| told(error, &**memory))
    }

    fn unlike(&self, what: String, expected: String, found: String) -> Error {
        Error::Mismatch { model: self.name().into(), what, expected, found }
    }
}

/// An error with what is free, where memory ended.
fn told(error: Error, memory: &dyn Memory) -> Error {
    match (error, memory.available()) {
        (Error::OutOfMemory { model, cause }, Some(free)) => {
            let cause = format!("{cause}, {} are free on {}", megabytes(free), memory.place());
            Error::OutOfMemory { model, cause }
        }
        (error, _) => error,
    }
}

type Bind = unsafe extern "system" fn(*mut sys::OrtIoBinding, *const c_char, *const sys::OrtValue) -> sys::OrtStatusPtr;

/// What a run is fed with and where its outputs go.
struct Binding<'a> {
    handle: NonNull<sys::OrtIoBinding>,
    memory: MemoryInfo<'static>,
    session: &'a mut Session,
}

impl<'a> Binding<'a> {
    fn new(session: &'a mut Session, place: Place) -> ort::Result<Self> {
        let (device, number) = match place {
            Place::Host => (AllocationDevice::CPU, 0),
            Place::Card(number) => (AllocationDevice::CUDA, number as i32),
        };
        let memory = MemoryInfo::new(device, number, AllocatorType::Device, MemoryType::Default)?;
        let mut handle = null_mut();
        // SAFETY: the session lives, and the handle is written where nothing failed.
        unsafe {
            let made = (ort::api().CreateIoBinding)(session.ptr().cast_mut(), &mut handle);
            ort::Error::result_from_status(made)?;
        }
        let handle = NonNull::new(handle).ok_or_else(|| ort::Error::new("no binding was made"))?;
        Ok(Self { handle, memory, session })
    }

    /// Binds `bound`, whose numbers are at `address`, as an input or as an output.
    fn bind(&self, bound: &Bound, address: u64, bind: Bind) -> ort::Result<()> {
        let name = CString::new(bound.name).map_err(|_| ort::Error::new("a port's name has a NUL"))?;
        let shape: Vec<i64> = bound.shape.iter().map(|d| *d as i64).collect();
        let bytes = bound.shape.iter().product::<usize>() * size_of::<f32>();
        let mut value = null_mut();
        // SAFETY: there are so many bytes at the address, which the caller's buffer keeps until the run has ended; the binding keeps
        // the value.
        unsafe {
            let made = (ort::api().CreateTensorWithDataAsOrtValue)(
                self.memory.ptr(),
                address as *mut _,
                bytes,
                shape.as_ptr(),
                shape.len(),
                sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                &mut value,
            );
            ort::Error::result_from_status(made)?;
            let bound = bind(self.handle.as_ptr(), name.as_ptr(), value);
            (ort::api().ReleaseValue)(value);
            ort::Error::result_from_status(bound)
        }
    }

    fn run(&self) -> ort::Result<()> {
        // SAFETY: all that is bound lives until this returns; providers have done their work by then.
        unsafe {
            let ran = (ort::api().RunWithBinding)(self.session.ptr().cast_mut(), null(), self.handle.as_ptr());
            ort::Error::result_from_status(ran)
        }
    }
}

impl Drop for Binding<'_> {
    fn drop(&mut self) {
        // SAFETY: it is the binding's own, and goes.
        unsafe { (ort::api().ReleaseIoBinding)(self.handle.as_ptr()) };
    }
}
