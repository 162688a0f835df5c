use std::{fmt, sync::Arc};

use super::{ColorSpace, Crop, FrameMut};
use crate::{
    Result,
    geometry::{Rect, Similarity},
};

/// Generated pixels in crop space and where they belong.
#[derive(Clone, Debug)]
pub struct Patch {
    pub pixels: Pixels,
    /// Coverage of each pixel, 0..255, `[side * side]` row by row; feathered at the edge, zero on the border.
    pub mask: Arc<[u8]>,
    /// From unit crop coordinates to pixels of the frame.
    pub to_frame: Similarity,
    /// 0..1, multiplies the mask: cross-fades.
    pub opacity: f32,
    /// Its pixels are the frame's, one for one, and go there as they are: no colours are fitted. Where the transform says
    /// otherwise it is pasted as any other.
    pub hard: bool,
}

/// A square picture, wherever it is.
#[derive(Clone, Debug)]
pub enum Pixels {
    Here(Arc<Crop>),
    /// In the memory of a device, which pastes it too.
    There(Arc<dyn DevicePixels>),
}

/// A square picture in the memory of a device.
pub trait DevicePixels: fmt::Debug + Send + Sync {
    fn side(&self) -> usize;

    fn space(&self) -> ColorSpace;

    /// The picture, downloaded.
    fn read(&self) -> Result<Crop>;

    /// [`super::paste`] of a patch that has these pixels, as if it were not hard. What may have changed, in pixels of the frame;
    /// empty where nothing did.
    fn paste(&self, frame: &mut FrameMut, patch: &Patch) -> Result<Rect>;
}

impl Pixels {
    pub fn side(&self) -> usize {
        match self {
            Self::Here(crop) => crop.side,
            Self::There(pixels) => pixels.side(),
        }
    }

    pub fn space(&self) -> ColorSpace {
        match self {
            Self::Here(crop) => crop.space,
            Self::There(pixels) => pixels.space(),
        }
    }

    /// The picture in memory of the process. Errors: the device failed.
    pub fn crop(&self) -> Result<Arc<Crop>> {
        match self {
            Self::Here(crop) => Ok(Arc::clone(crop)),
            Self::There(pixels) => Ok(Arc::new(pixels.read()?)),
        }
    }
}

impl From<Crop> for Pixels {
    fn from(crop: Crop) -> Self {
        Self::Here(Arc::new(crop))
    }
}

impl From<Arc<Crop>> for Pixels {
    fn from(crop: Arc<Crop>) -> Self {
        Self::Here(crop)
    }
}

impl PartialEq for Pixels {
    /// Of two on devices whether they are the same piece of memory.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Here(a), Self::Here(b)) => a == b,
            (Self::There(a), Self::There(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}
