//! Memory of a device and what runs on it, behind one trait: a card's, and in tests the processor's.

use std::{ffi::c_void, marker::PhantomData, sync::Arc};

use super::arguments::{Arguments, Pointer};
use crate::{Error, Result};

/// A device that runs kernels in the order in which they are launched.
///
/// Addresses are the device's own. Its functions are called by [`Buffer`] and [`launch`] alone.
pub trait Memory: Send + Sync {
    /// Room for `bytes`, all of them 0. Errors: there is not as much.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives room back once what was launched before has ended.
    ///
    /// # Safety
    /// `address` is of [`allocate`](Self::allocate) and is not used again.
    unsafe fn free(&self, address: u64, bytes: usize);

    /// # Safety
    /// There is room for `bytes` at `to`.
    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()>;

    /// Waits for what was launched before.
    ///
    /// # Safety
    /// There are as many bytes at `from`.
    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

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

/// `length` values in the memory of a device.
pub struct Buffer<T: Plain> {
    memory: Arc<dyn Memory>,
    address: u64,
    length: usize,
    values: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// Zeros.
    pub fn zeroed(memory: &Arc<dyn Memory>, length: usize) -> Result<Self> {
        let bytes = length.checked_mul(size_of::<T>()).ok_or_else(|| Error::invalid("a buffer beyond all memory"))?;
        let address = memory.allocate(bytes.max(1))?;
        Ok(Self { memory: Arc::clone(memory), address, length, values: PhantomData })
    }

    pub fn of(memory: &Arc<dyn Memory>, values: &[T]) -> Result<Self> {
        let buffer = Self::zeroed(memory, values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts values in from place `at` on. Errors: they do not fit.
    pub fn write(&self, at: usize, values: &[T]) -> Result<()> {
        let to = self.at(at, values.len())?;
        // SAFETY: the values have no padding, and there is room for them.
        unsafe {
            let bytes = std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values));
            self.memory.upload(to.address(), bytes)
        }
    }

    /// All of its values, once what was launched before has ended.
    pub fn read(&self) -> Result<Vec<T>> {
        let mut values = vec![T::default(); self.length];
        // SAFETY: any bytes are values, and there are as many at the address.
        unsafe {
            let bytes = std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), size_of_val(&values[..]));
            self.memory.download(self.address, bytes)?;
        }
        Ok(values)
    }

    /// Where `length` values from place `at` on are. Errors: there are not as many.
    pub fn at(&self, at: usize, length: usize) -> Result<Pointer<T>> {
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Error::invalid(format!("{length} values from {at} on, of a buffer of {}", self.length)));
        }
        Ok(Pointer::new(self.address + (at * size_of::<T>()) as u64))
    }

    /// Where all of them are.
    pub fn all(&self) -> Pointer<T> {
        Pointer::new(self.address)
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
/// The addresses in `arguments` are of buffers that live, and these are as large as the kernel's sizes say: those who fill the
/// structures of [`super::arguments`] see to it.
pub(crate) fn launch<A: Arguments>(
    memory: &Arc<dyn Memory>,
    arguments: &A,
    size: [usize; 2],
    block: [u32; 3],
) -> Result<()> {
    if size.contains(&0) {
        return Ok(());
    }
    let blocks = |size: usize, block: u32| {
        u32::try_from(size.div_ceil(block as usize)).map_err(|_| Error::invalid("a picture too large for a kernel"))
    };
    let grid = [blocks(size[0], block[0])?, blocks(size[1], block[1])?, 1];
    // SAFETY: the structure is the kernel's, and as above.
    unsafe { memory.launch(A::KERNEL, std::ptr::from_ref(arguments).cast(), grid, block) }
}
