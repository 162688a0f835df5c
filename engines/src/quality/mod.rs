//! What a mouth in a video is measured by: its motion in [`series`], its looks in [`picture`], and what an [`expert`] says
//! of its sync.
//!
//! `engines/train/evaluate.py` computes the same figures; a test holds them together.

pub mod expert;
pub mod picture;
pub mod series;
pub mod sync;
