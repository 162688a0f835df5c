//! Maskers that others have published, shown what facefusion 3.8.1 shows them (face_masker.py): its crop of 512 pixels by the template
//! `ffhq_512`.

use crate::{
    Error, Result,
    enhance::{crop, ffhq, five_of},
    geometry::{Point, Similarity},
    image::{ColorSpace, FrameView, paste::scaled, rgb_planar},
    runtime::{Input, Model, Port, Signature},
};

use super::SIDE;

/// Pictures in one run at most.
pub const MOST: usize = 4;
/// Pixels of the crop.
const CROP: usize = 512;
/// Statistics of ImageNet's R, G and B, which BiSeNet's picture is brought to.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
/// Classes of BiSeNet (CelebAMask-HQ's): all of 19.
const CLASSES: usize = 19;
/// Those that are before a face where they lie over it: what is no part of a head, necklaces, cloth, hair and hats. Skin, brows, eyes,
/// glasses, ears and what hangs on them, nose, mouth, lips and the neck are the face's own.
const BEFORE: [usize; 5] = [0, 15, 16, 17, 18];

/// A published masker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masker {
    /// DeepFaceLab's xseg: input [batch, 256, 256, 3], B, G, R 0..1; output [batch, 256, 256, 1], how much of a pixel is face.
    Xseg,
    /// BiSeNet: input [batch, 3, 512, 512], R, G, B by ImageNet's statistics; output [batch, 19, 512, 512], scores of classes.
    BiSeNet,
}

impl Masker {
    pub(super) fn of(signature: &Signature) -> Option<Self> {
        let [input] = &signature.inputs[..] else { return None };
        let output = signature.outputs.first()?;
        let is = |port: &Port, wanted: [usize; 3]| {
            port.shape.len() == 4
                && port.shape[1..].iter().zip(wanted).all(|(is, wanted)| is.is_none_or(|is| is == wanted))
        };
        let told = |port: &Port| port.shape.iter().skip(1).all(Option::is_some);
        if is(input, [256, 256, 3]) && told(input) && is(output, [256, 256, 1]) {
            return Some(Self::Xseg);
        }
        // By the channels alone it differs from an enhancer.
        let classes = output.shape.get(1).copied().flatten() == Some(CLASSES);
        (is(input, [3, 512, 512]) && told(input) && classes).then_some(Self::BiSeNet)
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Xseg => "xseg",
            Self::BiSeNet => "BiSeNet",
        }
    }

    fn side(self) -> usize {
        match self {
            Self::Xseg => CROP / 2,
            Self::BiSeNet => CROP,
        }
    }

    /// What it is shown of the face of these landmarks, and the way from places of the frame's pixels to those of a crop of 512; `None`
    /// of a face without a shape.
    pub(super) fn prepare(self, frame: &FrameView, points: &[Point]) -> Option<(Similarity, Vec<f32>)> {
        self.prepared(frame, &five_of(points)?)
    }

    fn prepared(self, frame: &FrameView, five: &[Point; 5]) -> Option<(Similarity, Vec<f32>)> {
        let (to_crop, data) = crop(frame, five, &ffhq(CROP), CROP)?;
        let planes = rounded(&data, frame.space());
        let shown = match self {
            Self::BiSeNet => {
                let mut planes = planes;
                for (plane, (mean, deviation)) in
                    planes.chunks_exact_mut(CROP * CROP).zip(MEAN.into_iter().zip(DEVIATION))
                {
                    plane.iter_mut().for_each(|v| *v = (*v - mean) / deviation);
                }
                planes
            }
            Self::Xseg => {
                let side = self.side();
                let mut shown = vec![0.0; side * side * 3];
                for (i, pixel) in shown.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                    let at = 2 * (i / side) * CROP + 2 * (i % side);
                    // B, G, R; the mean of four, in bytes, as OpenCV halves a picture.
                    *pixel = [2, 1, 0].map(|channel| {
                        let plane = &planes[channel * CROP * CROP..];
                        let sum = plane[at] + plane[at + 1] + plane[at + CROP] + plane[at + CROP + 1];
                        (sum / 4.0 * 255.0).round() / 255.0
                    });
                }
                shown
            }
        };
        Some((to_crop, shown))
    }

    /// How much of each pixel is face, 0..1, `[side * side]`, by one evaluation.
    pub(super) fn run(self, model: &Model, asked: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        let (side, count) = (self.side(), asked.len());
        let (shape, channels) = match self {
            Self::Xseg => ([count, side, side, 3], 1),
            Self::BiSeNet => ([count, 3, side, side], CLASSES),
        };
        let data: Vec<f32> = asked.iter().flat_map(|picture| picture.iter().copied()).collect();
        let name = &model.signature().inputs[0].name;
        let first = model.run(&[Input { name, shape: &shape, data: &data }])?.into_iter().next();
        let found = first.map(|output| output.data).unwrap_or_default();
        let pixels = side * side;
        if found.len() != count * channels * pixels || found.iter().any(|v| !v.is_finite()) {
            return Err(Error::Mismatch {
                model: model.name().into(),
                what: "the mask".into(),
                expected: format!("{} numbers", count * channels * pixels),
                found: format!("{} values, of which some may be no numbers", found.len()),
            });
        }
        let face = |found: &[f32]| match self {
            Self::Xseg => found.iter().map(|v| v.clamp(0.0, 1.0)).collect(),
            Self::BiSeNet => (0..pixels).map(|at| own(found, at, pixels)).collect(),
        };
        Ok(found.chunks_exact(channels * pixels).map(face).collect())
    }

    /// The chance that each pixel of the unit crop at `place` is covered, `[SIDE * SIDE]`, of a `face` that is seen through `to_crop`; what
    /// lies outside of that crop is not.
    pub(super) fn covered(self, face: &[f32], to_crop: &Similarity, place: &Similarity) -> Vec<f32> {
        let side = self.side();
        let Some(back) = place.inverse() else { return vec![0.0; SIDE * SIDE] };
        // From the unit crop to the frame's pixels, to places of theirs, to places of the crop's, to places of what was said.
        let half = Point::new(0.5, 0.5);
        let scale = side as f32 / CROP as f32;
        let width = width(to_crop, &back, scale);
        (0..SIDE * SIDE)
            .map(|i| {
                let unit = Point::new((i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5) * (1.0 / SIDE as f32);
                let at = (to_crop.apply(back.apply(unit) - half) + half) * scale;
                1.0 - mean(face, side, at, width)
            })
            .collect()
    }
}

/// Whether the class with the highest score at a pixel is the face's own.
fn own(scores: &[f32], at: usize, pixels: usize) -> f32 {
    let score = |class: usize| scores[class * pixels + at];
    let best = (1..CLASSES).fold(0, |best, class| if score(class) > score(best) { class } else { best });
    if BEFORE.contains(&best) { 0.0 } else { 1.0 }
}

/// Pixels of what was said that a pixel of the unit crop is wide.
fn width(to_crop: &Similarity, back: &Similarity, scale: f32) -> f32 {
    let way = scaled(&back.then(to_crop), scale);
    way.a.hypot(way.b) / SIDE as f32
}

/// The mean over a square of so many pixels around a place; all of it is face where that is outside.
fn mean(values: &[f32], side: usize, at: Point, width: f32) -> f32 {
    let reach = (width * 0.5).max(0.5);
    let span = |v: f32| {
        let first = (v - reach).round().max(0.0);
        let last = (v + reach).round().clamp(first + 1.0, (side as f32).max(first + 1.0));
        (first < side as f32 && v + reach > 0.0).then_some(first as usize..(last as usize).min(side))
    };
    let (Some(columns), Some(rows)) = (span(at.x), span(at.y)) else { return 1.0 };
    let (mut sum, mut count) = (0.0, 0.0_f32);
    for y in rows {
        for v in &values[y * side..][columns.clone()] {
            (sum, count) = (sum + v, count + 1.0);
        }
    }
    sum / count.max(1.0)
}

/// R, G and B of a crop as bytes have them, `[3, side, side]`, 0..1.
fn rounded(data: &[u8], space: ColorSpace) -> Vec<f32> {
    let mut planes = vec![0.0; data.len()];
    rgb_planar(data, space, &mut planes);
    planes.iter_mut().for_each(|v| *v = (*v * 255.0).round() / 255.0);
    planes
}

#[cfg(test)]
#[path = "published_tests.rs"]
mod tests;
