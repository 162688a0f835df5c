use serde::Deserialize;

use super::{Point, Similarity, landmarks};

/// How a face is brought into the crop that an engine works in: a similarity that takes some steady landmarks to
/// fixed places of the unit crop.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alignment {
    /// Indices into the 111 landmarks.
    pub anchors: Vec<usize>,
    /// Where each anchor belongs, in unit crop coordinates.
    pub points: Vec<Point>,
}

impl Alignment {
    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        if self.anchors.len() != self.points.len() || !(2..=landmarks::COUNT).contains(&self.anchors.len()) {
            return Err(format!(
                "needs as many anchors as points and at least two, found {} and {}",
                self.anchors.len(),
                self.points.len()
            ));
        }
        if let Some(a) = self.anchors.iter().find(|a| **a >= landmarks::COUNT) {
            return Err(format!("anchor {a} is not a landmark (0..{})", landmarks::COUNT - 1));
        }
        if self.points.iter().any(|p| !(-1.0..=2.0).contains(&p.x) || !(-1.0..=2.0).contains(&p.y)) {
            return Err("points must lie near the unit crop (-1..2)".into());
        }
        Ok(())
    }

    /// The similarity from the frame (pixels) to the unit crop; `None` for a degenerate face.
    pub fn fit(&self, points: &[Point]) -> Option<Similarity> {
        let from: Option<Vec<Point>> = self.anchors.iter().map(|a| points.get(*a).copied()).collect();
        Similarity::fit(&from?, &self.points)
    }
}
