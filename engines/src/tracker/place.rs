//! Where the unit crop of a face lies: one alignment for all who look at what the tracker follows.

use std::sync::LazyLock;

use super::Face;
use crate::{
    geometry::{Alignment, Point, Similarity},
    manifest::Package,
};

static ALIGNMENT: LazyLock<Option<Alignment>> =
    LazyLock::new(|| Some(Package::find("tracker").ok()?.manifest().geometry.alignment.clone()));

/// From pixels of the frame to the unit crop of a face with these landmarks (`[111]`); `None` of a degenerate one.
pub fn place(points: &[Point]) -> Option<Similarity> {
    ALIGNMENT.as_ref()?.fit(points)
}

/// Of `faces` the one under a patch whose unit crop `to_frame` brings to pixels of the frame, and its [`place`]; `None` where none is.
pub fn under<'a>(faces: &'a [Face], to_frame: &Similarity) -> Option<(&'a Face, Similarity)> {
    /// About where a patch has its middle in the unit crop of its face.
    const MIDDLE: Point = Point { x: 0.5, y: 0.5 };
    let middle = to_frame.apply(MIDDLE);
    let away = |(_, place): &(&Face, Similarity)| place.apply(middle).distance(MIDDLE);
    let placed = faces.iter().filter_map(|face| Some((face, place(&face.points)?)));
    placed.min_by(|a, b| away(a).total_cmp(&away(b))).filter(|face| away(face) < 0.5)
}
