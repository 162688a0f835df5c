use std::{fmt, sync::Arc};

use super::left;
use crate::{
    Result,
    cuda::{Buffer, Memory},
    geometry::{Rect, Similarity},
    image::{ColorSpace, Crop, DevicePixels, FrameMut, Patch, Pixels},
    kernels::{DeviceCrop, DevicePatch, cover, paste},
};

/// How much of each pixel of a picture is painted, 0..255, `[side, side]`, here and there.
#[derive(Clone)]
pub(in crate::engine) struct Coverage {
    here: Arc<[u8]>,
    there: Arc<Buffer<u8>>,
}

impl Coverage {
    pub fn new(memory: &Arc<dyn Memory>, here: impl Into<Arc<[u8]>>) -> Result<Self> {
        let here = here.into();
        Ok(Self { there: Arc::new(Buffer::of(memory, &here)?), here })
    }

    /// Of which columns and rows have each a share, `[side]`, 0..1: these travel, and it is made there too.
    pub fn product(
        memory: &Arc<dyn Memory>,
        here: impl Into<Arc<[u8]>>,
        [columns, rows]: &[Vec<f32>; 2],
    ) -> Result<Self> {
        Ok(Self { there: Arc::new(cover(memory, columns, rows)?), here: here.into() })
    }
}

/// A crop with a mouth in it, in the memory of a device.
pub(in crate::engine) struct DevicePicture {
    memory: Arc<dyn Memory>,
    pub crop: DeviceCrop,
    coverage: Coverage,
}

impl DevicePicture {
    pub fn new(memory: &Arc<dyn Memory>, crop: DeviceCrop, coverage: Coverage) -> Arc<Self> {
        Arc::new(Self { memory: Arc::clone(memory), crop, coverage })
    }

    /// The patch that it is where `to_frame` says.
    pub fn patch(self: Arc<Self>, to_frame: Similarity) -> Patch {
        let mask = Arc::clone(&self.coverage.here);
        Patch { pixels: Pixels::There(self), mask, to_frame, opacity: 1.0, hard: false }
    }
}

impl fmt::Debug for DevicePicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0} x {0} on {1}", self.crop.side, self.memory.place())
    }
}

impl DevicePixels for DevicePicture {
    fn side(&self) -> usize {
        self.crop.side
    }

    fn space(&self) -> ColorSpace {
        self.crop.space
    }

    fn read(&self) -> Result<Crop> {
        self.crop.read()
    }

    fn paste(&self, frame: &mut FrameMut, patch: &Patch) -> Result<Rect> {
        let Self { memory, coverage: Coverage { here, there }, .. } = self;
        let mut pasted = || {
            // Another mask than its own travels.
            let other = if Arc::ptr_eq(here, &patch.mask) { None } else { Some(Buffer::of(memory, &patch.mask)?) };
            let mask = (&*patch.mask, other.as_ref().unwrap_or(there));
            let patch = DevicePatch { pixels: &self.crop, mask, to_frame: patch.to_frame, opacity: patch.opacity };
            paste(memory, frame, &patch)
        };
        // Before all is there the frame is not touched.
        left(&**memory, pasted(), Rect::default())
    }
}
