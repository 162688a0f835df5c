use std::sync::Arc;

use super::Crop;
use crate::geometry::Similarity;

/// Generated pixels in crop space and where they belong.
#[derive(Clone, Debug)]
pub struct Patch {
    pub pixels: Arc<Crop>,
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
