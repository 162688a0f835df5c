use safetensors::{Dtype, SafeTensors};

use crate::{
    Error, Result,
    geometry::{Point, landmarks},
};

const LOWER: usize = landmarks::LOWER.end;
const STABLE: usize = landmarks::STABLE.end - landmarks::STABLE.start;

/// What a latent means: offsets of the lower face's landmarks in unit crop coordinates, linear in the latent and in
/// the pose.
///
/// Tensors of the file, all f32, landmarks as x, y interleaved: `basis [168, D]`, `pose [168, 38]`, `rest [111, 2]`,
/// `project [D, 168]`, `spread [1]`.
#[derive(Debug)]
pub(super) struct Basis {
    latent: usize,
    /// `[168 * D]`, row by row.
    motion: Vec<f32>,
    /// `[D * 168]`, row by row: the latent of an offset.
    project: Vec<f32>,
    /// `[168 * 38]`, row by row: offset of the lower face from the stable landmarks' offset.
    pose: Vec<f32>,
    /// The population's closed mouth, `[111]`.
    pub(super) rest: Vec<Point>,
    /// The population's range of the opening, 5th to 95th percentile, unit crop coordinates.
    pub(super) spread: f32,
}

impl Basis {
    pub(super) fn read(name: &str, bytes: &[u8], latent: usize) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| Error::Runtime { model: name.into(), cause: format!("is not a safetensors file: {e}") })?;
        let tensor = |key: &str, shape: &[usize]| {
            let refuse = |found: String| Error::Mismatch {
                model: name.into(),
                what: format!("tensor `{key}`"),
                expected: format!("f32 {shape:?}"),
                found,
            };
            let view = file.tensor(key).map_err(|_| refuse("nothing".into()))?;
            if view.dtype() != Dtype::F32 || view.shape() != shape {
                return Err(refuse(format!("{:?} {:?}", view.dtype(), view.shape())));
            }
            let numbers: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            if numbers.iter().any(|v| !v.is_finite()) {
                return Err(refuse("a number that is not finite".into()));
            }
            Ok(numbers)
        };
        let rest = tensor("rest", &[landmarks::COUNT, 2])?;
        Ok(Self {
            latent,
            motion: tensor("basis", &[2 * LOWER, latent])?,
            project: tensor("project", &[latent, 2 * LOWER])?,
            pose: tensor("pose", &[2 * LOWER, 2 * STABLE])?,
            rest: rest.as_chunks::<2>().0.iter().map(|p| Point::from(*p)).collect(),
            spread: tensor("spread", &[1])?[0].max(1e-4),
        })
    }

    /// Offsets of the 84 lower landmarks for a latent.
    pub(super) fn motion(&self, latent: &[f32]) -> Vec<Point> {
        product(&self.motion, self.latent, latent)
    }

    /// What remains of offsets of the 84 lower landmarks when the motion in them is taken out.
    pub(super) fn remainder(&self, offsets: &[Point]) -> Vec<Point> {
        offsets.iter().zip(self.motion(&self.latent(offsets))).map(|(o, m)| *o - m).collect()
    }

    /// The latent whose motion is nearest to offsets of the 84 lower landmarks.
    pub(super) fn latent(&self, offsets: &[Point]) -> Vec<f32> {
        let flat: Vec<f32> = offsets.iter().flat_map(|p| [p.x, p.y]).collect();
        let dot = |row: &[f32]| row.iter().zip(&flat).map(|(m, v)| m * v).sum::<f32>();
        self.project.chunks_exact(2 * LOWER).map(dot).collect()
    }

    /// Offsets of the 84 lower landmarks that come with offsets of the stable ones: the head's pose.
    pub(super) fn pose(&self, stable: &[Point]) -> Vec<Point> {
        let flat: Vec<f32> = stable.iter().flat_map(|p| [p.x, p.y]).collect();
        product(&self.pose, 2 * STABLE, &flat)
    }

    /// The smallest latent that changes the opening of the mouth by `amount`.
    pub(super) fn open_by(&self, amount: f32) -> Vec<f32> {
        let row = |point: usize| &self.motion[(2 * point + 1) * self.latent..][..self.latent];
        let gradient: Vec<f32> =
            row(landmarks::INNER_BOTTOM).iter().zip(row(landmarks::INNER_TOP)).map(|(b, t)| b - t).collect();
        let norm: f32 = gradient.iter().map(|g| g * g).sum();
        gradient.iter().map(|g| if norm > 0.0 { amount * g / norm } else { 0.0 }).collect()
    }
}

fn product(matrix: &[f32], columns: usize, vector: &[f32]) -> Vec<Point> {
    let dot = |row: &[f32]| row.iter().zip(vector).map(|(m, v)| m * v).sum::<f32>();
    matrix.chunks_exact(2 * columns).map(|rows| Point::new(dot(&rows[..columns]), dot(&rows[columns..]))).collect()
}
