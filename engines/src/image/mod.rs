//! Frames as GStreamer lays them out, square crops taken from them with sub-pixel accuracy, and patches pasted back.
//!
//! A [`Crop`] keeps the colour family of the frame that it was taken from (YUV stays YUV, RGB stays RGB), so that the
//! way from a frame to the bank and back into a frame never converts colours. Networks ask for RGB with
//! [`Crop::to_rgb_planar`].

pub mod alpha;
pub(crate) mod antialias;
mod balance;
mod color;
pub(crate) mod crop;
mod cubic;
mod frame;
pub(crate) mod inset;
mod label;
mod lanczos;
mod outline;
pub(crate) mod paste;
mod patch;
mod pixels;
pub(crate) mod raster;
mod recolor;
mod resize;
pub(crate) mod sharpen;
mod soft;
pub(crate) mod steady;
mod tone;
mod warp;

pub use color::{ColorSpace, Matrix, Range};
pub use crop::Crop;
pub(crate) use crop::{luma, resample, rgb_planar};
pub use frame::{Format, FrameMut, FrameView, Plane, PlaneMut};
pub use label::{Corner, Label, MAX_LABEL};
pub(crate) use lanczos::lanczos;
pub(crate) use outline::{Feather, Inside, covered};
pub use paste::{PasteReport, paste, paste_behind};
pub use patch::{DevicePixels, Patch, Pixels};
pub use pixels::PixelBox;
pub(crate) use pixels::take;
pub(crate) use raster::{Texture, Walk};
pub use recolor::Recolor;
pub(crate) use resize::{Interpolation, resize};
pub(crate) use sharpen::sharpen;
pub(crate) use soft::{SoftMask, gaussian, gaussian_of_bytes, smooth_step};
pub(crate) use steady::steady;
pub use tone::{ToneMap, Transfer};
pub use warp::Lattice;
