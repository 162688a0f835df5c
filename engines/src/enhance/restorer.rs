//! Restores the faces of one stream by a network, each every so many frames.
//!
//! Between two evaluations of a face the last one's change of it, the network's picture less the crop that it was shown, is added to the
//! crop of the frame, whose alignment follows the face: what the network changed moves, turns and grows as the face does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Network, network,
    region::{Mouth, Region},
};
use crate::{Result, image::FrameMut, tracker::Face};

/// Most frames of a face for one evaluation.
pub const MOST_FRAMES: usize = 8;
/// Part of the time between two frames that evaluations may take where their rate follows from it: the rest is for what else is done.
const SHARE: f64 = 0.5;
/// How much of its estimate each evaluation's time is.
const FOLLOW: f64 = 0.2;

/// How the faces of a frame are restored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restoring {
    /// 0..1; 0 leaves every byte of the frame as it is.
    pub strength: f32,
    /// 0..1: how much of the mouth is kept from it.
    pub mouth_protection: f32,
    /// As of [`Network::run`].
    pub weight: f32,
    /// Frames of a face for one evaluation, 1 to [`MOST_FRAMES`].
    pub every: usize,
}

/// See the module.
pub struct Restorer {
    network: Arc<Network>,
    /// Of each face that the last frame had.
    faces: Vec<Kept>,
    /// Seconds of an evaluation, once known.
    evaluation: Option<f64>,
}

/// What the network last changed of a face.
struct Kept {
    track: u64,
    /// `[3, side, side]`, R, G, B in twice the range of a picture.
    change: Vec<f32>,
    /// Frames since.
    age: usize,
}

impl Restorer {
    pub fn new(network: Arc<Network>) -> Self {
        Self { network, faces: Vec::new(), evaluation: None }
    }

    /// Forgets the faces: the next frame is of another scene.
    pub fn reset(&mut self) {
        self.faces.clear();
    }

    /// Frames for one evaluation where a new frame comes after `frame`: as few as leave the evaluations of `faces` faces half of that time.
    pub fn fitting(&self, faces: usize, frame: Duration) -> usize {
        fitting(self.evaluation.unwrap_or(0.0) * faces as f64, frame)
    }

    /// Restores `faces`, whose points are pixels of `frame`; returns how many of them. Those that are smaller than 16 pixels or outside
    /// of the frame are left out.
    pub fn restore(&mut self, frame: &mut FrameMut, faces: &[Face], how: &Restoring) -> Result<usize> {
        let strength = how.strength.clamp(0.0, 1.0);
        if strength <= 0.0 || strength.is_nan() {
            self.reset();
            return Ok(0);
        }
        let mut before = std::mem::take(&mut self.faces);
        let mut done = 0;
        for face in faces {
            let shown = Region::of(face, (frame.width(), frame.height())).is_some();
            let Some(points) = network::five(face).filter(|_| shown) else { continue };
            let Some(prepared) = self.network.prepare(&frame.view(), &points) else { continue };
            let known = before.iter().position(|kept| kept.track == face.track_id).map(|at| before.swap_remove(at));
            let mouth = Mouth::of(face, how.mouth_protection.clamp(0.0, 1.0));
            let (made, kept): (Vec<f32>, _) = match known.filter(|kept| kept.age + 1 < how.every) {
                Some(kept) => {
                    let made = prepared.pixels.iter().zip(&kept.change).map(|(shown, change)| shown + change).collect();
                    (made, Kept { age: kept.age + 1, ..kept })
                }
                None => {
                    let begun = Instant::now();
                    let (shown, made) = self.network.run(prepared.pixels, how.weight.clamp(0.0, 1.0))?;
                    self.took(begun.elapsed());
                    // Nothing is kept where nothing of it is used.
                    let change = match how.every {
                        0 | 1 => Vec::new(),
                        _ => made.iter().zip(shown).map(|(made, shown)| made.clamp(-1.0, 1.0) - shown).collect(),
                    };
                    let age = if change.is_empty() { MOST_FRAMES } else { 0 };
                    (made, Kept { track: face.track_id, change, age })
                }
            };
            done += usize::from(self.network.put(frame, &made, &prepared.to_crop, (strength, mouth.as_ref())));
            self.faces.push(kept);
        }
        Ok(done)
    }

    fn took(&mut self, time: Duration) {
        let time = time.as_secs_f64();
        let known = self.evaluation.unwrap_or(time);
        self.evaluation = Some(known + (time - known) * FOLLOW);
    }
}

/// Frames for one evaluation that takes so many `seconds`, where a new frame comes after `frame`: as few as leave it half of that time.
pub fn fitting(seconds: f64, frame: Duration) -> usize {
    let room = (frame.as_secs_f64() * SHARE).max(1e-3);
    ((seconds / room).ceil() as usize).clamp(1, MOST_FRAMES)
}

#[cfg(test)]
#[path = "restorer_tests.rs"]
mod tests;
