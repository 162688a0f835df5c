//! Enhancement of the faces in a finished frame.
//!
//! It is the last stage of any engine, and works on frames of any other origin: what it needs is the frame and where the faces
//! are. The filters here need no file; they change the brightness alone, inside an ellipse through each face's outline whose
//! edge is soft, and their sizes follow the face's, so that a face looks the same at every resolution.
//!
//! A pixel becomes `old + strength · w · (1 - protection · m) · (enhanced - old)`: `w` is the face's weight and `m` the mouth's,
//! 0..1 each. A [`Network`] of a published file restores a face instead, by a
//! [`Restorer`] of each stream.

mod blur;
mod clahe;
mod detail;
mod luma;
mod network;
mod region;
mod restorer;
mod sharpen;

use std::{fmt, str::FromStr};

pub(crate) use self::network::{crop, ffhq, five_of, is_enhancer};
use self::{clahe::Clahe, region::Region};
pub use self::{
    network::{Network, Prepared, SIDES, installed, is_file},
    restorer::{MOST_FRAMES, Restorer, Restoring, fitting},
};
use crate::{Error, Result, image::FrameMut, tracker::Face};

/// Pixels of more weight are the face's own.
const OWN: f32 = 0.9;

/// What is done to a face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Unsharp masking.
    Sharpen,
    /// Contrast-limited adaptive histogram equalisation.
    Clahe,
    /// Texture that a guided filter tells from edges.
    Detail,
    /// The three, each at half its amount: [`Clahe`](Self::Clahe), then [`Detail`](Self::Detail), then [`Sharpen`](Self::Sharpen).
    Combined,
}

impl Filter {
    pub const ALL: [Self; 4] = [Self::Sharpen, Self::Clahe, Self::Detail, Self::Combined];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sharpen => "sharpen",
            Self::Clahe => "clahe",
            Self::Detail => "detail",
            Self::Combined => "combined",
        }
    }

    /// Amounts of `clahe`, `detail` and `sharpen`.
    fn amounts(self) -> [f32; 3] {
        match self {
            Self::Sharpen => [0.0, 0.0, 1.0],
            Self::Clahe => [0.5, 0.0, 0.0],
            Self::Detail => [0.0, 1.0, 0.0],
            Self::Combined => [0.25, 0.5, 0.5],
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|filter| filter.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("`{text}` is no filter; there are {known}"))
        })
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub filter: Filter,
    /// 0..1; 0 leaves every byte of the frame as it is.
    pub strength: f32,
    /// 0..1: how much of the mouth is kept from it.
    pub mouth_protection: f32,
}

/// Enhances the faces of one stream, frame after frame.
#[derive(Default)]
pub struct Enhancer {
    /// Of each face that the last frame had, by its track.
    faces: Vec<(u64, Clahe)>,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    plane: Vec<f32>,
    weights: Vec<f32>,
    spare: [Vec<f32>; 4],
}

impl Enhancer {
    /// Forgets the faces: the next frame is of another scene.
    pub fn reset(&mut self) {
        self.faces.clear();
    }

    /// Enhances `faces`, whose points are pixels of `frame`; returns how many of them. Those that are smaller than 16 pixels or
    /// outside of the frame are left out.
    pub fn enhance(&mut self, frame: &mut FrameMut, faces: &[Face], settings: &Settings) -> usize {
        let strength = settings.strength.clamp(0.0, 1.0);
        if strength <= 0.0 || strength.is_nan() {
            self.reset();
            return 0;
        }
        let settings = Settings { strength, mouth_protection: settings.mouth_protection.clamp(0.0, 1.0), ..*settings };
        let mut before = std::mem::take(&mut self.faces);
        let mut done = 0;
        for face in faces {
            let Some(region) = Region::of(face, (frame.width(), frame.height())) else { continue };
            let known = before.iter().position(|(track, _)| *track == face.track_id);
            let mut clahe = known.map_or_else(Clahe::default, |at| before.swap_remove(at).1);
            self.scratch.enhance(frame, &region, &settings, &mut clahe);
            self.faces.push((face.track_id, clahe));
            done += 1;
        }
        done
    }
}

impl Scratch {
    fn enhance(&mut self, frame: &mut FrameMut, region: &Region, settings: &Settings, clahe: &mut Clahe) {
        let Self { plane, weights, spare } = self;
        let [equalised, detailed, sharpened] = settings.filter.amounts();
        let reach = (if detailed > 0.0 { 2 * detail::window(region.size).reach() } else { 0 })
            + (if sharpened > 0.0 { sharpen::window(region.size).reach() } else { 0 });
        // Filters see what lies around the pixels that are changed.
        let columns = region.columns.start.saturating_sub(reach)..(region.columns.end + reach).min(frame.width());
        let rows = region.rows.start.saturating_sub(reach)..(region.rows.end + reach).min(frame.height());
        let (width, range) = (columns.len(), luma::range(frame));
        luma::read(frame, &columns, &rows, plane);

        let inner = region.columns.len();
        weights.clear();
        weights.resize(inner * region.rows.len(), 0.0);
        let line = &mut spare[0];
        line.clear();
        line.resize(inner, 0.0);
        for (y, weights) in region.rows.clone().zip(weights.chunks_exact_mut(inner)) {
            region.weights(y, settings.mouth_protection, weights, line);
        }

        if equalised > 0.0 {
            let place = ([columns.start, rows.start], region.extent);
            // Where a pixel of the plane is the face's own: hair and what lies behind would move the skin's curve.
            let [left, top] = [region.columns.start - columns.start, region.rows.start - rows.start];
            let counts = |at: usize| {
                let (x, y) = ((at % width).wrapping_sub(left), (at / width).wrapping_sub(top));
                x < inner && weights.get(y.wrapping_mul(inner).wrapping_add(x)).is_some_and(|weight| *weight > OWN)
            };
            clahe.learn(plane, width, place, range, counts);
            clahe.apply(plane, width, place, range, equalised);
        }
        if detailed > 0.0 {
            detail::detail(plane, width, region.size, detailed, spare);
        }
        if sharpened > 0.0 {
            let [blurred, scratch, ..] = spare;
            sharpen::sharpen(plane, width, region.size, sharpened, [blurred, scratch]);
        }

        let [before, change, ..] = spare;
        for (y, weights) in region.rows.clone().zip(weights.chunks_exact(inner)) {
            let enhanced = &plane[(y - rows.start) * width + region.columns.start - columns.start..][..inner];
            luma::read(frame, &region.columns, &(y..y + 1), before);
            change.clear();
            let values = enhanced.iter().zip(&*before).zip(weights);
            change.extend(values.map(|((new, old), weight)| settings.strength * weight * (new - old)));
            luma::add(frame, y, region.columns.start, change, range);
        }
    }
}

#[cfg(test)]
mod tests;
