//! Memory that is kept for later.

use std::{collections::BTreeMap, ffi::c_void};

use parking_lot::Mutex;

use super::memory::{Memory, Place, Rows, exhausted};
use crate::{Error, Result};

/// A device whose memory is not given back but kept for the next that asks for as much: streams ask for the same again and again.
///
/// All that is asked of a device happens one after another, so memory may change hands before it is no longer used.
pub struct Pool<M: Memory> {
    device: M,
    /// By their sizes.
    kept: Mutex<BTreeMap<usize, Vec<u64>>>,
}

/// What is really taken for so many bytes: a quarter of a power of two further at most, so that regions of a face that moves share
/// their sizes.
fn size(bytes: usize) -> usize {
    let unit = (bytes.next_power_of_two() / 8).max(256);
    bytes.checked_next_multiple_of(unit).unwrap_or(bytes)
}

impl<M: Memory> Pool<M> {
    pub fn new(device: M) -> Self {
        Self { device, kept: Mutex::default() }
    }

    pub fn device(&self) -> &M {
        &self.device
    }
}

impl<M: Memory> Drop for Pool<M> {
    fn drop(&mut self) {
        self.trim();
    }
}

// SAFETY: memory is the device's, lent to one at a time.
unsafe impl<M: Memory> Memory for Pool<M> {
    fn place(&self) -> Place {
        self.device.place()
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let size = size(bytes);
        if let Some(kept) = self.kept.lock().get_mut(&size).and_then(Vec::pop) {
            return Ok(kept);
        }
        match self.device.allocate(size) {
            Err(Error::OutOfMemory { .. }) => {
                self.trim();
                self.device.allocate(size).map_err(|_| exhausted(self.place(), size, self.device.available()))
            }
            other => other,
        }
    }

    unsafe fn free(&self, address: u64, bytes: usize) {
        self.kept.lock().entry(size(bytes)).or_default().push(address);
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.device.clear(address, bytes) }
    }

    unsafe fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.device.upload(to, bytes, fill) }
    }

    unsafe fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.device.download(from, bytes, take) }
    }

    unsafe fn copy(&self, to: u64, from: u64, rows: Rows) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.device.copy(to, from, rows) }
    }

    unsafe fn launch(
        &self,
        name: &'static str,
        arguments: *const c_void,
        grid: [u32; 3],
        block: [u32; 3],
    ) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.device.launch(name, arguments, grid, block) }
    }

    fn finish(&self) -> Result<()> {
        self.device.finish()
    }

    fn available(&self) -> Option<u64> {
        self.device.available()
    }

    fn trim(&self) {
        let kept = std::mem::take(&mut *self.kept.lock());
        for (size, addresses) in kept {
            // SAFETY: nobody has them, and they were allocated so.
            addresses.into_iter().for_each(|address| unsafe { self.device.free(address, size) });
        }
        self.device.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_at_least_what_is_asked_for_and_few() {
        let mut sizes = std::collections::BTreeSet::new();
        for bytes in (1..200_000).step_by(7) {
            let size = size(bytes);
            assert!(size >= bytes && size <= bytes + (bytes / 4).max(256), "{bytes}: {size}");
            sizes.insert(size);
        }
        assert!(sizes.len() < 50, "{}", sizes.len());
    }
}
