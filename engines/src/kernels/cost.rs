//! The bytes that a kernel has to move, from which its shortest time on a card follows.

use super::Clip;

/// What one launch is for.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Pixels of a side of a crop, as large in an NV12 frame.
    pub crop: usize,
    /// Of a network's picture, which fills three fifths of a crop.
    pub side: usize,
    /// With guidance, and a trail.
    pub clip: Clip,
    /// Of the crop that `compact` warps.
    pub warped: usize,
}

/// Of LatentSync at 256 pixels, and `compact` at as many.
pub const PUBLISHED: Sizes =
    Sizes { crop: 384, side: 256, clip: Clip { channels: 4, frames: 16, kept: 0, plane: 32 * 32 }, warped: 256 };

/// Pixels that are compared at most, about, and bytes of what is noted of each.
const SAMPLES: usize = 3000;
const SAMPLE: usize = 32;
/// Cells of a lattice along a side; landmarks; pixels of a side of the refinement's window.
const CELLS: usize = 32;
const POINTS: usize = 101;
const WINDOW: usize = 128;

/// Bytes that a kernel reads and writes at least, each of them once; `None` of one that there is not.
pub fn bytes(kernel: &str, sizes: &Sizes) -> Option<usize> {
    let Sizes { crop, side, clip, warped } = *sizes;
    let (crop, side, warped, window) = (crop * crop, side * side, 3 * warped * warped, WINDOW * WINDOW);
    // Pixels of three bytes, a region of NV12, the part of a crop that a picture fills; planes of floats.
    let (pixels, region, inner, planes) = (3 * crop, crop * 3 / 2, 3 * crop * 3 / 5, 12 * side);
    let one = 4 * clip.channels * clip.plane;
    let (all, nodes) = (one * clip.frames, 8 * (CELLS + 1) * (CELLS + 1));
    Some(match kernel {
        "take" => region + pixels,
        "planar" => pixels + 12 * crop,
        // The picture, masked and whole, and the mask.
        "inset_cut" => inner + 2 * planes + 4 * side,
        "inset_put" => planes + inner,
        "convert" => 2 * pixels,
        // A byte of each pixel.
        "cover" => crop,
        // A pixel of the patch, of its mask and of the frame each.
        "compare" => SAMPLES * (SAMPLE + 7),
        "fit" => SAMPLES * SAMPLE,
        "blend" => crop + pixels + 2 * region,
        "draw" => one,
        // Latents and trail.
        "begin" => one + 2 * all,
        // Latents and both predictions; latents and trail.
        "advance" => 3 * all + 2 * all,
        // Mean, variance and noise of masked and whole faces; mask and both.
        "condition" => 3 * 2 * all + all * (1 + 2 * clip.channels) / clip.channels.max(1),
        "plain" => 2 * all,
        "all_finite" => planes * clip.frames,
        "spline_nodes" => nodes + 16 * POINTS,
        "spline_folds" => nodes,
        "warp" => 2 * warped + nodes,
        "window" => 3 * window + 12 * window,
        "shapes" => 8 * window,
        "correct" => 12 * window + 2 * 3 * window,
        // The picture, the one before and the new one.
        "finish" => 3 * warped,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::arguments::KERNELS;

    #[test]
    fn every_kernel_has_a_floor() {
        // A copy on an H100 moves so much a second, as `bench/gpu/floor.py` found.
        const A_SECOND: f64 = 3.0e12;
        for kernel in KERNELS {
            let bytes = bytes(kernel, &PUBLISHED).unwrap();
            println!("{kernel}: {:.1} kB, {:.2} us", bytes as f64 / 1e3, bytes as f64 / A_SECOND * 1e6);
            assert!(bytes > 1000, "{kernel}");
        }
        assert_eq!(bytes("none", &PUBLISHED), None);
        // Twice the frames, twice the latents.
        let longer = Sizes { clip: Clip { frames: 32, ..PUBLISHED.clip }, ..PUBLISHED };
        for kernel in ["advance", "condition", "plain", "all_finite"] {
            assert_eq!(bytes(kernel, &longer), bytes(kernel, &PUBLISHED).map(|bytes| 2 * bytes), "{kernel}");
        }
    }
}
