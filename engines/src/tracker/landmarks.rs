use std::sync::Arc;

use super::{decode::KEYS, lips, scene::Thumbnail};
use crate::{
    Error, Result,
    geometry::{Point, Rect, Similarity, landmarks as face},
    image::{Crop, FrameView},
    runtime::{Input, Model},
};

/// Side of the network's crop in pixels.
const SIDE: usize = 128;
/// Side of the square over the larger side of the box of the points.
const MARGIN: f32 = 1.5;

/// What the network says of one square.
pub(super) struct Reading {
    /// `[111]`, frame pixels.
    pub points: Vec<Point>,
    /// Probability that this is a face.
    pub confidence: f32,
    /// The square in small.
    pub look: Thumbnail,
}

/// The landmark network: upright squares in, 111 points of each out.
pub(super) struct Network {
    model: Arc<Model>,
    /// Places of `points` and `face` among the outputs.
    outputs: [usize; 2],
    /// Reads the lips once more.
    lips: Option<lips::LipReader>,
}

impl Network {
    /// Errors: a model of another signature.
    pub fn new(model: Arc<Model>, lips: Option<lips::LipReader>) -> Result<Self> {
        let signature = model.signature();
        let mismatch = |what: &str, expected: &str, found: String| Error::Mismatch {
            model: model.name().into(),
            what: what.into(),
            expected: expected.into(),
            found,
        };
        match &signature.inputs[..] {
            [i] if i.name == "crop" && matches!(i.shape[..], [_, Some(3), Some(SIDE), Some(SIDE)]) => {}
            other => {
                let found: Vec<_> = other.iter().map(|p| format!("{} {}", p.name, p.describe())).collect();
                return Err(mismatch("inputs", "crop [batch, 3, 128, 128]", found.join(", ")));
            }
        }
        let place = |name: &str| {
            let found = || signature.outputs.iter().map(|o| o.name.clone()).collect::<Vec<_>>().join(", ");
            signature.outputs.iter().position(|o| o.name == name).ok_or_else(|| mismatch("outputs", name, found()))
        };
        Ok(Self { outputs: [place("points")?, place("face")?], model, lips })
    }

    /// Reads the squares that `squares` (frame pixels to unit crop) cut out of `frame`, all in one run. `None` for a
    /// square that cannot be cut.
    pub fn read(&self, frame: &FrameView, squares: &[Similarity]) -> Result<Vec<Option<Reading>>> {
        let crops: Vec<Option<Vec<f32>>> =
            squares.iter().map(|s| Crop::take(frame, SIDE, s).map(|c| c.to_rgb_planar())).collect();
        let count = crops.iter().flatten().count();
        if count == 0 {
            return Ok(squares.iter().map(|_| None).collect());
        }
        // Devices that compile a program for each shape see a handful of batch sizes only.
        let batch = count.next_power_of_two();
        let mut data = Vec::with_capacity(batch * 3 * SIDE * SIDE);
        crops.iter().flatten().for_each(|c| data.extend_from_slice(c));
        data.resize(batch * 3 * SIDE * SIDE, 0.0);
        let outputs = self.model.run(&[Input { name: "crop", shape: &[batch, 3, SIDE, SIDE], data: &data }])?;
        let [points, logits] = self.outputs.map(|i| &outputs[i].data);
        if points.len() != batch * face::COUNT * 2 || logits.len() != batch {
            return Err(Error::Mismatch {
                model: self.model.name().into(),
                what: "outputs".into(),
                expected: format!("{batch} x {} points and {batch} logits", face::COUNT),
                found: format!("{} and {} values", points.len(), logits.len()),
            });
        }
        let mut rows = points.chunks_exact(face::COUNT * 2).zip(logits);
        let read = squares.iter().zip(&crops).map(|(square, crop)| {
            let crop = crop.as_ref()?;
            let (points, logit) = rows.next()?;
            let back = square.inverse()?;
            Some(Reading {
                points: points.as_chunks::<2>().0.iter().map(|p| back.apply(Point::from(*p))).collect(),
                confidence: 1.0 / (1.0 + (-logit).exp()),
                look: Thumbnail::of_planes(crop, SIDE),
            })
        });
        let mut read: Vec<Option<Reading>> = read.collect();
        if let Some(lips) = &self.lips {
            let mut faces: Vec<_> = read.iter_mut().flatten().map(|r| r.points.as_mut_slice()).collect();
            lips.refine(frame, &mut faces)?;
        }
        Ok(read)
    }
}

/// The square at `centre`, `side` wide, turned by `angle`: frame pixels to unit crop.
fn square(centre: Point, side: f32, angle: f32) -> Option<Similarity> {
    let (a, b) = (angle.cos() / side, -angle.sin() / side);
    let s = Similarity { a, b, tx: 0.5 - (a * centre.x - b * centre.y), ty: 0.5 - (b * centre.x + a * centre.y) };
    (side.is_normal() && side > 0.0 && s.tx.is_finite() && s.ty.is_finite()).then_some(s)
}

/// The square that a face with these points is looked for in: eyes level, 1.5 x the larger side of their box.
pub(super) fn around(points: &[Point]) -> Option<Similarity> {
    let eyes = points[face::EYE_LEFT] - points[face::EYE_RIGHT];
    let angle = eyes.y.atan2(eyes.x);
    let turn = Similarity { a: angle.cos(), b: -angle.sin(), tx: 0.0, ty: 0.0 };
    let turned: Vec<Point> = points.iter().map(|p| turn.apply(*p)).collect();
    let rect = Rect::around(&turned)?;
    square(turn.inverse()?.apply(rect.centre()), rect.width.max(rect.height) * MARGIN, angle)
}

/// A first guess of that square from a detector's key points. The factors are the means over upright faces: the pupils
/// are 0.28 of the square apart, and as far from the mouth.
pub(super) fn from_keys(keys: &[Point; KEYS]) -> Option<Similarity> {
    let (eyes, mouth) = ((keys[0] + keys[1]) * 0.5, (keys[3] + keys[4]) * 0.5);
    let line = keys[1] - keys[0];
    let side = 3.6 * keys[0].distance(keys[1]).max(eyes.distance(mouth));
    square(eyes.lerp(mouth, 0.45), side, line.y.atan2(line.x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_square_levels_the_eyes_and_holds_the_face_in_two_thirds() {
        let mut points = vec![Point::new(0.0, 0.0); face::COUNT];
        let turn = Similarity { a: 0.8, b: 0.6, tx: 300.0, ty: 200.0 };
        for (i, p) in points.iter_mut().enumerate() {
            let t = i as f32 * 0.7;
            *p = turn.apply(Point::new(80.0 * t.cos(), 100.0 * t.sin()));
        }
        points[face::EYE_RIGHT] = turn.apply(Point::new(-40.0, -30.0));
        points[face::EYE_LEFT] = turn.apply(Point::new(40.0, -30.0));
        let s = around(&points).unwrap();
        let unit: Vec<Point> = points.iter().map(|p| s.apply(*p)).collect();
        assert!((unit[face::EYE_RIGHT].y - unit[face::EYE_LEFT].y).abs() < 1e-5);
        assert!(unit[face::EYE_RIGHT].x < unit[face::EYE_LEFT].x);
        let rect = Rect::around(&unit).unwrap();
        assert!((rect.height - 1.0 / 1.5).abs() < 1e-4 && rect.centre().distance(Point::new(0.5, 0.5)) < 1e-4);
    }
}
