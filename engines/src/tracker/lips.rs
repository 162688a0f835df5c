use std::sync::Arc;

use crate::{
    Error, Result,
    geometry::{Alignment, Point, Similarity, landmarks as face},
    image::{Crop, FrameView},
    manifest::Package,
    runtime::{Input, Model, Options},
};

/// Side of the network's window in pixels.
const SIDE: usize = 96;
/// Side of the window in sides of the aligned crop.
const WINDOW: f32 = 0.46;
/// Points of the lips.
const COUNT: usize = face::LIPS.end;
/// A point that lies further from the window's middle (unit window coordinates) is none of these lips.
const FAR: f32 = 0.75;

/// What the network looks at: the surroundings of a face's lips, cut out of a frame.
pub struct LipWindow {
    /// From frame pixels to the window's unit coordinates.
    to_window: Similarity,
    crop: Crop,
}

/// The lips network: a window around the lips that the landmark network found, in which they are seen twice and a half
/// as large, to the 40 points of the lips.
pub struct LipReader {
    model: Arc<Model>,
    alignment: Alignment,
}

impl LipReader {
    /// The tracker's own. Errors: a tracker without one, networks that do not load.
    pub fn load(options: &Options) -> Result<Self> {
        let engine = Package::find("tracker")?;
        Self::new(engine.network("lips", options)?, engine.manifest().geometry.alignment.clone())
    }

    /// Errors: a model of another signature.
    pub(super) fn new(model: Arc<Model>, alignment: Alignment) -> Result<Self> {
        let signature = model.signature();
        let ports = |ports: &[crate::runtime::Port]| {
            ports.iter().map(|p| format!("{} {}", p.name, p.describe())).collect::<Vec<_>>().join(", ")
        };
        let input = matches!(&signature.inputs[..], [i] if i.name == "window"
            && matches!(i.shape[..], [_, Some(3), Some(SIDE), Some(SIDE)]));
        let output = matches!(&signature.outputs[..], [o] if o.name == "points"
            && matches!(o.shape[..], [_, Some(COUNT), Some(2)]));
        if input && output {
            return Ok(Self { model, alignment });
        }
        Err(Error::Mismatch {
            model: model.name().into(),
            what: "inputs and outputs".into(),
            expected: "window [batch, 3, 96, 96], points [batch, 40, 2]".into(),
            found: format!("{}, {}", ports(&signature.inputs), ports(&signature.outputs)),
        })
    }

    /// The window around the lips of a face, `[111]` points in frame pixels. `None` where it cannot be cut.
    pub fn window(&self, frame: &FrameView, points: &[Point]) -> Option<LipWindow> {
        let to_window = window(&self.alignment, points)?;
        Some(LipWindow { crop: Crop::take(frame, SIDE, &to_window)?, to_window })
    }

    /// The 40 points of the lips in each window, in frame pixels, all in one run; `None` where no lips are found.
    pub fn read(&self, windows: &[&LipWindow]) -> Result<Vec<Option<Vec<Point>>>> {
        if windows.is_empty() {
            return Ok(Vec::new());
        }
        // Devices that compile a program for each shape see a handful of batch sizes only.
        let batch = windows.len().next_power_of_two();
        let mut data = Vec::with_capacity(batch * 3 * SIDE * SIDE);
        windows.iter().for_each(|window| data.extend_from_slice(&window.crop.to_rgb_planar()));
        data.resize(batch * 3 * SIDE * SIDE, 0.0);
        let outputs = self.model.run(&[Input { name: "window", shape: &[batch, 3, SIDE, SIDE], data: &data }])?;
        let found = outputs.first().map_or(&[][..], |o| &o.data);
        if found.len() != batch * COUNT * 2 {
            return Err(Error::Mismatch {
                model: self.model.name().into(),
                what: "points".into(),
                expected: format!("{batch} x {COUNT} points"),
                found: format!("{} values", found.len()),
            });
        }
        let near = |v: &f32| (v - 0.5).abs() < FAR;
        let lips = |(window, row): (&&LipWindow, &[f32])| {
            let back = window.to_window.inverse().filter(|_| row.iter().all(near))?;
            Some(row.as_chunks::<2>().0.iter().map(|p| back.apply(Point::from(*p))).collect())
        };
        Ok(windows.iter().zip(found.chunks_exact(COUNT * 2)).map(lips).collect())
    }

    /// Reads the lips of each face of `faces` (`[111]` points each, frame pixels) anew, in place. Those whose window cannot be
    /// cut, or in which no lips are found, stay as they are.
    pub(super) fn refine(&self, frame: &FrameView, faces: &mut [&mut [Point]]) -> Result<()> {
        let windows: Vec<Option<LipWindow>> = faces.iter().map(|points| self.window(frame, points)).collect();
        let mut read = self.read(&windows.iter().flatten().collect::<Vec<_>>())?.into_iter();
        for (points, _) in faces.iter_mut().zip(&windows).filter(|(_, window)| window.is_some()) {
            if let Some(lips) = read.next().flatten() {
                points[face::LIPS].copy_from_slice(&lips);
            }
        }
        Ok(())
    }
}

/// From frame pixels to the window's unit coordinates.
fn window(alignment: &Alignment, points: &[Point]) -> Option<Similarity> {
    let to_crop = alignment.fit(points)?;
    let lips = &points[face::LIPS];
    let middle = lips.iter().fold(Point::default(), |sum, p| sum + to_crop.apply(*p)) * (1.0 / COUNT as f32);
    let zoom = 1.0 / WINDOW;
    Some(to_crop.then(&Similarity { a: zoom, b: 0.0, tx: 0.5 - middle.x * zoom, ty: 0.5 - middle.y * zoom }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_level_and_has_the_lips_in_its_middle() {
        let alignment = Package::find("tracker").unwrap().manifest().geometry.alignment.clone();
        let turn = Similarity { a: 160.0, b: 90.0, tx: 300.0, ty: 200.0 };
        let mut points = vec![Point::new(0.5, 0.55); face::COUNT];
        alignment.anchors.iter().zip(&alignment.points).for_each(|(a, p)| points[*a] = *p);
        points[face::LIPS].iter_mut().enumerate().for_each(|(i, p)| p.x += if i % 2 == 0 { 0.1 } else { -0.1 });
        points.iter_mut().for_each(|p| *p = turn.apply(*p));
        let window = window(&alignment, &points).unwrap();
        let (left, right) = (window.apply(points[1]), window.apply(points[0]));
        assert!(left.lerp(right, 0.5).distance(Point::new(0.5, 0.5)) < 1e-4, "{left:?} {right:?}");
        assert!((right - left).distance(Point::new(0.2 / WINDOW, 0.0)) < 1e-3, "{left:?} {right:?}");
    }
}
