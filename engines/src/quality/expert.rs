//! A second opinion on sync: two networks that were taught which mouths and which sounds belong together.
//!
//! As SyncNet (J. S. Chung, A. Zisserman, "Out of time: automated lip sync in the wild", ACCV 2016), on landmarks in
//! place of pictures: each frame's lips and each frame's sound become a vector of unit length, and those of what belongs
//! together point the same way.

use std::sync::Arc;

use super::series;
use crate::{
    Error, Result,
    audio::{BINS, FRAME_SAMPLES, HOP_SAMPLES, Mel},
    geometry::{Alignment, Point, landmarks},
    manifest::{Family, Package},
    runtime::{Input, Model, Options, Signature},
};

/// Frames by which picture and sound are shifted against each other at most.
pub const REACH: usize = 15;
/// Fewer frames than this (2 s) say nothing.
pub const FEWEST: usize = 50;
/// Mel frames in one video frame.
const MELS: usize = 4;
/// Samples in one video frame: 16 kHz at 25 frames a second.
const SAMPLES: usize = MELS * HOP_SAMPLES;
/// Numbers in one frame's lips.
const LIPS: usize = 2 * landmarks::LIPS.end;
/// Numbers in a vector.
const WIDTH: usize = 64;

/// Vectors of unit length, `[frames, 64]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows(Vec<f32>);

impl Rows {
    pub fn frames(&self) -> usize {
        self.0.len() / WIDTH
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.0[i * WIDTH..(i + 1) * WIDTH]
    }

    /// How well frame `i` of these goes with frame `j` of those: a cosine.
    ///
    /// # Panics
    /// Where there is no such frame.
    pub fn agreement(&self, i: usize, other: &Self, j: usize) -> f64 {
        self.row(i).iter().zip(other.row(j)).map(|(a, b)| f64::from(a * b)).sum()
    }
}

/// The lips of a face as the network sees them: x, y of 40 points in the unit aligned crop.
pub type Lips = [f32; LIPS];

/// How far picture and sound are apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Offset {
    /// Frames (40 ms) by which the picture is late.
    pub frames: i32,
    /// The best agreement less the median of all.
    pub confidence: f64,
    /// Agreement, a mean cosine, at `-REACH..=REACH` frames.
    pub curve: Vec<f64>,
}

/// The two networks.
pub struct Expert {
    lips: Arc<Model>,
    voice: Arc<Model>,
    alignment: Alignment,
}

impl Expert {
    /// Errors: an engine of another family, networks of other shapes.
    pub fn load(engine: &Package, options: &Options) -> Result<Self> {
        let manifest = engine.manifest();
        if manifest.family != Family::Expert {
            return Err(Error::invalid(format!(
                "engine `{}` is of the family `{}` and judges no sync; name one of the family `expert`",
                manifest.name, manifest.family
            )));
        }
        let open = |part: &str, input: &str, width: usize| {
            let model = engine.network(part, options)?;
            check(model.name(), model.signature(), input, width)?;
            Ok::<_, Error>(model)
        };
        Ok(Self {
            lips: open("lips", "lips", LIPS)?,
            voice: open("voice", "mel", BINS)?,
            alignment: manifest.geometry.alignment.clone(),
        })
    }

    /// Vectors of the lips of `faces`, 25 a second: 111 landmarks in pixels each, gaps filled by straight lines.
    pub fn lips(&self, faces: &[Option<Vec<Point>>]) -> Result<Rows> {
        self.rows(&faces.iter().map(|face| self.see(face.as_ref()?)).collect::<Vec<_>>())
    }

    /// The lips of a face of 111 landmarks, in pixels; `None` of a degenerate one.
    pub fn see(&self, points: &[Point]) -> Option<Lips> {
        let crop = self.alignment.fit(points)?;
        let mut lips = [0.0; LIPS];
        let places = lips.as_chunks_mut::<2>().0.iter_mut().zip(points.get(landmarks::LIPS)?);
        places.for_each(|(place, point)| *place = crop.apply(*point).into());
        Some(lips)
    }

    /// Vectors of lips as [`see`](Self::see) gives them, 25 a second, gaps filled by straight lines.
    pub fn rows(&self, seen: &[Option<Lips>]) -> Result<Rows> {
        let mut data = vec![0.0; seen.len() * LIPS];
        for i in 0..LIPS {
            let one: Vec<Option<f32>> = seen.iter().map(|lips| Some(lips.as_ref()?[i])).collect();
            data.iter_mut().skip(i).step_by(LIPS).zip(series::fill(&one)).for_each(|(d, v)| *d = v as f32);
        }
        rows(&self.lips, "lips", LIPS, &data, seen.len())
    }

    /// Vectors of a sound, 16 kHz in -1..1, the last frame completed with silence.
    pub fn voice(&self, samples: &[f32]) -> Result<Rows> {
        let frames = samples.len().div_ceil(SAMPLES);
        let mut data = Vec::with_capacity(frames * MELS * BINS);
        let mut mel = Mel::new();
        let mut keep = |frame: &[f32; BINS]| {
            data.extend_from_slice(frame);
            Ok(())
        };
        mel.push::<Error>(samples, &mut keep)?;
        let rest = vec![0.0; frames * SAMPLES + FRAME_SAMPLES - HOP_SAMPLES - samples.len()];
        mel.push::<Error>(&rest, &mut keep)?;
        rows(&self.voice, "mel", BINS, &data, frames)
    }
}

fn check(name: &str, signature: &Signature, input: &str, width: usize) -> Result<()> {
    let mismatch = |what: &str, expected: String, found: String| {
        Err(Error::Mismatch { model: name.into(), what: what.into(), expected, found })
    };
    let found = |ports: &[crate::runtime::Port]| {
        ports.iter().map(|p| format!("{} {}", p.name, p.describe())).collect::<Vec<_>>().join(", ")
    };
    match &signature.inputs[..] {
        [i] if i.name == input && matches!(i.shape[..], [None | Some(1), None, Some(w)] if w == width) => {}
        other => return mismatch("inputs", format!("{input} [1, frames, {width}]"), found(other)),
    }
    match &signature.outputs[..] {
        [o] if o.name == "embedding" && o.shape.len() == 3 => Ok(()),
        other => mismatch("outputs", format!("embedding [1, frames, {WIDTH}]"), found(other)),
    }
}

fn rows(model: &Model, input: &str, width: usize, data: &[f32], frames: usize) -> Result<Rows> {
    if frames == 0 {
        return Ok(Rows(Vec::new()));
    }
    let output = model.run(&[Input { name: input, shape: &[1, data.len() / width, width], data }])?.swap_remove(0);
    if output.data.len() != frames * WIDTH || !output.data.iter().all(|v| v.is_finite()) {
        return Err(Error::Mismatch {
            model: model.name().into(),
            what: "embedding".into(),
            expected: format!("{frames} x {WIDTH} finite numbers"),
            found: format!("{:?}, or numbers that are not finite", output.shape),
        });
    }
    Ok(Rows(output.data))
}

/// Seeks the shift at which lips and voice agree best. `None` where either lasts less than [`FEWEST`] frames.
pub fn offset(lips: &Rows, voice: &Rows) -> Option<Offset> {
    let n = lips.frames().min(voice.frames());
    if n < FEWEST {
        return None;
    }
    let reach = REACH as i32;
    let at = |shift: i32| {
        let by = shift.unsigned_abs() as usize;
        let (l, v) = if shift >= 0 { (by, 0) } else { (0, by) };
        (0..n - by).map(|i| lips.agreement(l + i, voice, v + i)).sum::<f64>() / (n - by) as f64
    };
    let curve: Vec<f64> = (-reach..=reach).map(at).collect();
    let best = (0..curve.len()).max_by(|a, b| curve[*a].total_cmp(&curve[*b]))?;
    Some(Offset { frames: best as i32 - reach, confidence: curve[best] - series::median(&curve)?, curve })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Directions that turn irregularly, `late` frames later.
    pub(in super::super) fn turning(frames: usize, late: usize) -> Rows {
        let row = |i: usize| {
            let mut state = ((i + 100 - late) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / 8_388_608.0 - 1.0
            };
            let row: Vec<f32> = (0..WIDTH).map(|_| next()).collect();
            let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row.into_iter().map(move |v| v / length)
        };
        Rows((0..frames).flat_map(row).collect())
    }

    #[test]
    fn a_picture_that_is_late_has_a_positive_offset() {
        let found = offset(&turning(80, 4), &turning(90, 0)).unwrap();
        assert_eq!(found.frames, 4);
        assert!(found.confidence > 0.9 && found.curve.len() == 31, "{found:?}");
        assert_eq!(offset(&turning(80, 0), &turning(80, 15)).unwrap().frames, -15);
        let unrelated = offset(&turning(80, 50), &turning(80, 0)).unwrap();
        assert!(unrelated.confidence < 0.2, "{unrelated:?}");
    }

    #[test]
    fn two_seconds_are_needed() {
        assert_eq!(offset(&turning(FEWEST - 1, 0), &turning(200, 0)), None);
        assert_eq!(offset(&turning(200, 0), &Rows(Vec::new())), None);
        assert!(offset(&turning(FEWEST, 0), &turning(FEWEST, 0)).is_some());
    }
}
