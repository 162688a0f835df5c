//! How long each kernel takes.

use std::{ffi::c_void, sync::Mutex, time::Instant};

use super::{
    driver::Card,
    memory::{Memory, Place, Rows},
};
use crate::Result;

/// Launches of each kernel that are timed together.
const TIMES: u32 = 50;

/// A card that runs every kernel many times over where it is asked for once, and remembers how long it took. What kernels change
/// in place is then not what it should be.
pub struct Timed {
    card: Card,
    seconds: Mutex<Vec<(&'static str, f64)>>,
}

impl Timed {
    pub fn new(card: Card) -> Self {
        Self { card, seconds: Mutex::new(Vec::new()) }
    }

    /// Seconds of one launch of each kernel since the last time this was asked, in the order in which they were launched.
    pub fn take(&self) -> Vec<(&'static str, f64)> {
        self.seconds.lock().map(|mut seconds| std::mem::take(&mut *seconds)).unwrap_or_default()
    }
}

// SAFETY: the card's.
unsafe impl Memory for Timed {
    fn place(&self) -> Place {
        self.card.place()
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.card.allocate(bytes)
    }

    unsafe fn free(&self, address: u64, bytes: usize) {
        // SAFETY: the caller's.
        unsafe { self.card.free(address, bytes) }
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.card.clear(address, bytes) }
    }

    unsafe fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.card.upload(to, bytes, fill) }
    }

    unsafe fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.card.download(from, bytes, take) }
    }

    unsafe fn copy(&self, to: u64, from: u64, rows: Rows) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.card.copy(to, from, rows) }
    }

    fn finish(&self) -> Result<()> {
        self.card.finish()
    }

    fn available(&self) -> Option<u64> {
        self.card.available()
    }

    unsafe fn launch(
        &self,
        name: &'static str,
        arguments: *const c_void,
        grid: [u32; 3],
        block: [u32; 3],
    ) -> Result<()> {
        // SAFETY: the caller's; a kernel that runs again reads and writes what it did before.
        let run = || unsafe { self.card.launch(name, arguments, grid, block) };
        run()?;
        self.card.finish()?;
        let begun = Instant::now();
        for _ in 0..TIMES {
            run()?;
        }
        self.card.finish()?;
        let seconds = begun.elapsed().as_secs_f64() / f64::from(TIMES);
        if let Ok(mut all) = self.seconds.lock() {
            all.push((name, seconds));
        }
        Ok(())
    }
}
