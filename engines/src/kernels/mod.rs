//! The kernels of `engines/kernels` as functions over the memory of a device: from a part of a frame to a network's input, the
//! steps of denoising, and back into the frame.
//!
//! Each has a twin on the CPU, which is what it is tested against:
//!
//! | kernel | twin |
//! | --- | --- |
//! | `take` | [`crate::image::Crop::take`], [`crate::image::Crop::take_sharp`] |
//! | `planar`, `inset_cut` | [`crate::image::Crop::to_rgb_planar`], `image::inset::cut` |
//! | `draw`, `begin`, `condition`, `advance`, `plain`, `all_finite` | [`crate::engine::Noise`], [`crate::schedule::Step::apply`], `engine::known`, `engine::latent` |
//! | `inset_put`, `convert`, `compare`, `fit`, `blend` | `image::inset::put`, [`crate::image::Crop::convert`], [`crate::image::paste`] |
//! | `cover` | `engine::pixel::picture` |
//! | `spline_nodes`, `spline_folds`, `warp` | [`crate::image::Lattice`] |
//! | `window`, `shapes`, `correct`, `finish` | `engine::compact::refine`, `image::{sharpen, steady}` |
//!
//! Geometry is worked out here by what the CPU path itself works it out by: kernels are told where each row begins.

mod cost;
mod crop;
mod latents;
mod paste;
mod refine;
mod region;
#[cfg(test)]
mod tests;
mod warp;

pub use cost::{PUBLISHED, Sizes, bytes};
pub use crop::{DeviceCrop, Masked, Planes};
pub use latents::{Clip, Painted, Part, Sampled, advance, all_finite, begin, draw, plain};
pub use paste::{DevicePatch, convert, cover, paste, put};
pub use refine::{Finish, correct, finish, shapes, window};
pub use region::Region;
pub use warp::DeviceLattice;

use crate::{
    Error, Result,
    cuda::arguments,
    image::{ColorSpace, raster},
};

/// How a network orders the planes of its pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Order {
    #[default]
    Rgb,
    Bgr,
}

impl Order {
    /// Of red, green and blue the planes where they lie, and the other way round.
    fn places(self) -> [usize; 3] {
        match self {
            Self::Rgb => [0, 1, 2],
            Self::Bgr => [2, 1, 0],
        }
    }
}

/// A size or a place as kernels have it. Errors: it is beyond 2^31.
fn number<T: TryInto<i32> + Copy + std::fmt::Display>(value: T) -> Result<i32> {
    value.try_into().map_err(|_| Error::invalid(format!("{value} is too large for a kernel")))
}

fn space(space: ColorSpace) -> arguments::Space {
    let yuv = i32::from(space != ColorSpace::Rgb);
    let [kr, kb, offset, luma, chroma] = space.coefficients().unwrap_or_default();
    arguments::Space { yuv, kr, kb, offset, luma, chroma }
}

fn matrix(space: ColorSpace, order: Order) -> arguments::Matrix {
    let (rows, offset) = space.rgb_matrix();
    arguments::Matrix { rows: order.places().map(|i| rows[i]), offset: order.places().map(|i| offset[i]) }
}

/// A cut, walked by `dx` and `dy` from one pixel to the next.
fn cut(cut: &raster::Cut, (dx, dy): (i32, i32)) -> Result<arguments::Cut> {
    let raster::Cut { width, height, origin: [left, top], factor } = *cut;
    let (width, height, factor) = (number(width)?, number(height)?, number(factor)?);
    Ok(arguments::Cut { width, height, left: number(left)?, top: number(top)?, factor, dx, dy })
}
