//! Host memory that a card copies to and from by itself, kept for the next copy.

use cudarc::driver::{
    result::{self, DriverError},
    sys,
};
use parking_lot::Mutex;

/// Blocks beyond this are not made while there is one whose copy may be waited for.
const MOST: usize = 32;
const SMALLEST: usize = 4096;

/// One block, and the end of the last copy that it was in.
pub(super) struct Block {
    address: *mut u8,
    bytes: usize,
    event: sys::CUevent,
}

// SAFETY: host memory and an event, which any thread that has the context may use.
unsafe impl Send for Block {}

/// Blocks that nobody writes to or reads from; a card may still copy.
#[derive(Default)]
pub(super) struct Pinned(Mutex<Vec<Block>>);

impl Pinned {
    /// A block of at least so many bytes that no copy uses. The context is this thread's.
    pub fn take(&self, bytes: usize) -> Result<Block, DriverError> {
        let mut blocks = self.0.lock();
        let fits = |block: &Block| block.bytes >= bytes;
        // SAFETY: the event is the block's.
        let idle = |block: &Block| unsafe { result::event::query(block.event) }.is_ok();
        let found =
            (0..blocks.len()).filter(|i| fits(&blocks[*i]) && idle(&blocks[*i])).min_by_key(|i| blocks[*i].bytes);
        if let Some(found) = found {
            return Ok(blocks.swap_remove(found));
        }
        if let Some(busy) = blocks.iter().position(fits).filter(|_| blocks.len() >= MOST) {
            let block = blocks.swap_remove(busy);
            drop(blocks);
            block.wait()?;
            return Ok(block);
        }
        drop(blocks);
        Block::new(bytes.next_power_of_two().max(SMALLEST))
    }

    /// Keeps a block for later.
    pub fn keep(&self, block: Block) {
        self.0.lock().push(block);
    }

    /// Frees all blocks. The context is this thread's.
    pub fn clear(&self) {
        self.0.lock().drain(..).for_each(Block::free);
    }
}

impl Block {
    fn new(bytes: usize) -> Result<Self, DriverError> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: as many bytes as are asked for, page-locked; set before they are shown to anybody.
        let address = unsafe {
            let address = result::malloc_host(bytes, 0).inspect_err(|_| {
                let _ = result::event::destroy(event);
            })?;
            address.cast::<u8>().write_bytes(0, bytes);
            address.cast()
        };
        Ok(Self { address, bytes, event })
    }

    /// The first `bytes` of it, at most as many as were asked for.
    pub fn part(&mut self, bytes: usize) -> &mut [u8] {
        // SAFETY: there are as many, they are set, and the block is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.address, bytes.min(self.bytes)) }
    }

    /// Notes that a copy was asked for.
    pub fn mark(&self, stream: sys::CUstream) -> Result<(), DriverError> {
        // SAFETY: the event is the block's, and the stream is the caller's.
        unsafe { result::event::record(self.event, stream) }
    }

    /// Waits for the last copy.
    pub fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the event is the block's.
        unsafe { result::event::synchronize(self.event) }
    }

    fn free(self) {
        let _ = self.wait();
        // SAFETY: both are the block's, which goes. What could go wrong leaves nothing to do.
        unsafe {
            let _ = result::free_host(self.address.cast());
            let _ = result::event::destroy(self.event);
        }
    }
}
