//! Memory of a device and what runs on it, behind one trait: a card's, and without one the processor's.

use std::{ffi::c_void, fmt, marker::PhantomData, sync::Arc};

use super::arguments::{Arguments, Pointer};
use crate::{Error, Result};

/// Where the memory of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Host,
    /// CUDA memory of the card of that number.
    Card(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("cpu"),
            Self::Card(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Rows of `bytes` bytes, which begin so many bytes after one another there and here.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub count: usize,
    pub bytes: usize,
    pub to_stride: usize,
    pub from_stride: usize,
}

/// A device that does what it is asked for one after another, as a stream of CUDA's does: copies, kernels, fills.
///
/// Its functions are called by [`Buffer`] and [`launch`] alone.
///
/// # Safety
/// What [`allocate`](Self::allocate) gives is as large as it says, at [`place`](Self::place), and nobody else's until it is freed.
pub unsafe trait Memory: Send + Sync {
    fn place(&self) -> Place;

    /// Room for `bytes`, which is more than 0; any bytes may be there. Errors: [`Error::OutOfMemory`], what is needed and what is free.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives room back; what was asked for before still finds it.
    ///
    /// # Safety
    /// `address` is of [`allocate`](Self::allocate) with as many bytes and is not used again.
    unsafe fn free(&self, address: u64, bytes: usize);

    /// Fills with zeros.
    ///
    /// # Safety
    /// There is room for `bytes` at `address`.
    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()>;

    /// Copies what `fill` writes into memory that the device reads from; all of it is to be written.
    ///
    /// # Safety
    /// There is room for `bytes` at `to`.
    unsafe fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<()>;

    /// Waits for what was asked for before, and shows `take` the bytes.
    ///
    /// # Safety
    /// There are as many bytes at `from`.
    unsafe fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(&[u8])) -> Result<()>;

    /// Copies within the memory.
    ///
    /// # Safety
    /// There are as many rows at `from`, and there is room for them at `to`; the two have no byte in common.
    unsafe fn copy(&self, to: u64, from: u64, rows: Rows) -> Result<()>;

    /// Runs the kernel `name` in `grid` blocks of `block` threads.
    ///
    /// # Safety
    /// `arguments` is the structure that the kernel takes, and what its addresses name is as large as the kernel needs.
    unsafe fn launch(
        &self,
        name: &'static str,
        arguments: *const c_void,
        grid: [u32; 3],
        block: [u32; 3],
    ) -> Result<()>;

    /// Waits for all that was asked for.
    fn finish(&self) -> Result<()>;

    /// Bytes that are free on the device; `None` where nobody knows.
    fn available(&self) -> Option<u64>;

    /// Gives back what is kept for later.
    fn trim(&self) {}
}

/// The error of an allocation that failed.
pub(crate) fn exhausted(place: Place, needed: usize, available: Option<u64>) -> Error {
    let free = available.map_or_else(String::new, |free| format!(", {} are free", megabytes(free)));
    Error::OutOfMemory { model: place.to_string(), cause: format!("{} are needed{free}", megabytes(needed as u64)) }
}

pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// What may lie in a device's memory: numbers, and structures of them, of which any bytes are a value.
///
/// # Safety
/// The type has no padding, and all bytes are a value of it.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for i32 {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}

/// The bytes of values.
pub(crate) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: the values have no padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// `length` values in the memory of a device.
pub struct Buffer<T: Plain> {
    memory: Arc<dyn Memory>,
    address: u64,
    length: usize,
    values: PhantomData<T>,
}

impl<T: Plain> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} on {})", self.length, self.memory.place())
    }
}

impl<T: Plain> Buffer<T> {
    /// Room whose values are to be written before they are read; until then they are any.
    pub fn room(memory: &Arc<dyn Memory>, length: usize) -> Result<Self> {
        let bytes = length.checked_mul(size_of::<T>()).ok_or_else(|| Error::invalid("a buffer beyond all memory"))?;
        let address = memory.allocate(bytes.max(1))?;
        Ok(Self { memory: Arc::clone(memory), address, length, values: PhantomData })
    }

    pub fn zeroed(memory: &Arc<dyn Memory>, length: usize) -> Result<Self> {
        let buffer = Self::room(memory, length)?;
        buffer.clear(0, length)?;
        Ok(buffer)
    }

    pub fn of(memory: &Arc<dyn Memory>, values: &[T]) -> Result<Self> {
        let buffer = Self::room(memory, values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn memory(&self) -> &Arc<dyn Memory> {
        &self.memory
    }

    /// Zeros in place of `length` values from place `at` on. Errors: there are not as many.
    pub fn clear(&self, at: usize, length: usize) -> Result<()> {
        let to = self.at(at, length)?;
        if length == 0 {
            return Ok(());
        }
        // SAFETY: there is room for them.
        unsafe { self.memory.clear(to.address(), length * size_of::<T>()) }
    }

    /// Puts values in from place `at` on. Errors: they do not fit.
    pub fn write(&self, at: usize, values: &[T]) -> Result<()> {
        let bytes = bytes_of(values);
        self.fill(at, values.len(), |to| to.copy_from_slice(bytes))
    }

    /// Puts in what `fill` writes: all bytes of `length` values from place `at` on. Errors: they do not fit.
    pub fn fill(&self, at: usize, length: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let to = self.at(at, length)?;
        if length == 0 {
            return Ok(());
        }
        // SAFETY: there is room for them, and any bytes are values.
        unsafe { self.memory.upload(to.address(), length * size_of::<T>(), &mut fill) }
    }

    /// All of its values, once what was asked for before has ended.
    pub fn read(&self) -> Result<Vec<T>> {
        let mut values = vec![T::default(); self.length];
        // SAFETY: any bytes are values, and there are as many.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), size_of_val(&values[..])) };
        self.show(|from| bytes.copy_from_slice(from))?;
        Ok(values)
    }

    /// Shows `take` the bytes of all values, once what was asked for before has ended.
    pub fn show(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        // SAFETY: there are as many bytes.
        unsafe { self.memory.download(self.address, self.length * size_of::<T>(), &mut take) }
    }

    /// Copies `count` rows of `length` values: the first from place `from` of `other` to place `at`, each as far on as the strides
    /// say, `[here, there]`.
    ///
    /// Errors: they do not fit, or `other` is of another device.
    pub fn copy(
        &self,
        at: usize,
        other: &Self,
        from: usize,
        (count, length): (usize, usize),
        strides: [usize; 2],
    ) -> Result<()> {
        if count == 0 || length == 0 {
            return Ok(());
        }
        if count > 1 && strides.iter().any(|stride| *stride < length) {
            return Err(Error::invalid("rows that lie over one another are not copied"));
        }
        let span = |stride: usize| (count - 1).checked_mul(stride).and_then(|all| all.checked_add(length));
        let [here, there] = strides.map(|stride| span(stride).unwrap_or(usize::MAX));
        let (to, from) = (self.at(at, here)?, other.on(&self.memory, from, there)?);
        if std::ptr::eq(self, other) {
            return Err(Error::invalid("a buffer is not copied into itself"));
        }
        let [to_stride, from_stride] = strides.map(|stride| stride * size_of::<T>());
        let rows = Rows { count, bytes: length * size_of::<T>(), to_stride, from_stride };
        // SAFETY: both are as large, and not the same.
        unsafe { self.memory.copy(to.address(), from.address(), rows) }
    }

    /// Where `length` values from place `at` on are, for a kernel on `memory`. Errors: there are not as many, or they are elsewhere.
    pub(crate) fn on(&self, memory: &Arc<dyn Memory>, at: usize, length: usize) -> Result<Pointer<T>> {
        if !Arc::ptr_eq(memory, &self.memory) {
            return Err(Error::invalid("a buffer of another device"));
        }
        self.at(at, length)
    }

    fn at(&self, at: usize, length: usize) -> Result<Pointer<T>> {
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Error::invalid(format!("{length} values from {at} on, of a buffer of {}", self.length)));
        }
        Ok(Pointer::new(self.address + (at * size_of::<T>()) as u64))
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: it is the buffer's own, which goes.
        unsafe { self.memory.free(self.address, (self.length * size_of::<T>()).max(1)) }
    }
}

/// Threads of a block for pictures, and for rows of numbers.
pub const TILE: [u32; 3] = [32, 8, 1];
pub const ROW: [u32; 3] = [128, 1, 1];

/// Runs a kernel in as many blocks of `block` threads as cover `size`; nothing where that is empty.
///
/// # Safety
/// The addresses in `arguments` are of buffers of `memory` that live, or none, and each is as large as the kernel's sizes say.
pub(crate) unsafe fn launch<A: Arguments>(
    memory: &Arc<dyn Memory>,
    arguments: &A,
    size: [usize; 2],
    block: [u32; 3],
) -> Result<()> {
    if size.contains(&0) {
        return Ok(());
    }
    // CUDA takes 2^31 - 1 blocks across and 65535 down.
    let blocks = |size: usize, block: u32, most: u32| {
        let blocks = u32::try_from(size.div_ceil(block as usize)).ok().filter(|blocks| *blocks <= most);
        blocks.ok_or_else(|| Error::invalid("a picture too large for a kernel"))
    };
    let grid = [blocks(size[0], block[0], i32::MAX as u32)?, blocks(size[1], block[1], u16::MAX.into())?, 1];
    // SAFETY: the structure is the kernel's, and the caller's.
    unsafe { memory.launch(A::KERNEL, std::ptr::from_ref(arguments).cast(), grid, block) }
}
