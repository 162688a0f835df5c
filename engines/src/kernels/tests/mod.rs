//! The kernels, compiled for the processor, beside the functions whose twins they are.

mod crop;
mod host;
mod latents;
mod paste;
mod refine;
mod warp;

use crate::{
    geometry::Similarity,
    image::{ColorSpace, Crop, Format, FrameMut, FrameView, Matrix, Plane, PlaneMut, Range},
};

type Kind = (Format, Matrix, Range);

/// All formats, YUV with matrices and ranges of its own.
const FORMATS: [Kind; 6] = [
    (Format::I420, Matrix::Bt709, Range::Limited),
    (Format::Nv12, Matrix::Bt601, Range::Full),
    (Format::Nv12, Matrix::Bt2020, Range::Limited),
    (Format::Rgb, Matrix::Bt709, Range::Full),
    (Format::Rgba, Matrix::Bt709, Range::Full),
    (Format::Bgra, Matrix::Bt709, Range::Full),
];

/// A picture in memory of its own, with rows longer than they need be.
#[derive(Clone)]
struct Picture {
    format: Format,
    matrix: Matrix,
    range: Range,
    size: (usize, usize),
    planes: Vec<(Vec<u8>, usize)>,
}

/// Waves with a little noise: smooth, as faces are, and different in every channel.
fn value(x: usize, y: usize, channel: usize) -> u8 {
    let (u, v, c) = (x as f32 * 0.11, y as f32 * 0.07, channel as f32);
    let wave = (u + c).sin() * 45.0 + (v * 1.3 - c).cos() * 40.0 + ((u + v) * 0.5).sin() * 25.0;
    (125.0 + wave + ((x * 31 + y * 17 + channel * 7) % 13) as f32) as u8
}

impl Picture {
    fn new((format, matrix, range): Kind, size: (usize, usize)) -> Self {
        let half = (size.0.div_ceil(2), size.1.div_ceil(2));
        let plane = |(width, height): (usize, usize), bytes: usize, first: usize| {
            let stride = width * bytes + 5;
            let data = (0..stride * height).map(|i| value(i % stride / bytes, i / stride, first + i % stride % bytes));
            (data.collect(), stride)
        };
        let planes = match format {
            Format::I420 => vec![plane(size, 1, 0), plane(half, 1, 1), plane(half, 1, 2)],
            Format::Nv12 => vec![plane(size, 1, 0), plane(half, 2, 1)],
            Format::Rgb => vec![plane(size, 3, 0)],
            Format::Rgba | Format::Bgra => vec![plane(size, 4, 0)],
        };
        Self { format, matrix, range, size, planes }
    }

    fn view(&self) -> FrameView<'_> {
        let planes = self.planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
        FrameView::new(self.format, self.size, self.matrix, self.range, planes).unwrap()
    }

    fn frame(&mut self) -> FrameMut<'_> {
        let planes = self.planes.iter_mut().map(|(data, stride)| PlaneMut { data, stride: *stride }).collect();
        FrameMut::new(self.format, self.size, self.matrix, self.range, planes).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        self.planes.iter().flat_map(|(data, _)| data.iter().copied()).collect()
    }
}

/// A crop of waves.
fn crop(side: usize, space: ColorSpace, shift: usize) -> Crop {
    let data = (0..side * side * 3).map(|i| value(i / 3 % side + shift, i / 3 / side + 2 * shift, i % 3));
    Crop { side, space, data: data.collect() }
}

const YUV: ColorSpace = ColorSpace::Yuv(Matrix::Bt709, Range::Limited);

/// From frame pixels to a crop: `width` pixels of the frame around a point, turned.
fn around(x: f32, y: f32, width: f32, turn: f32) -> Similarity {
    let (sin, cos) = turn.sin_cos();
    let (a, b) = (cos / width, sin / width);
    Similarity { a, b, tx: 0.5 - (a * x - b * y), ty: 0.5 - (b * x + a * y) }
}

/// The largest difference, and the part of values that differ.
fn differ(a: &[u8], b: &[u8]) -> (u8, f32) {
    assert_eq!(a.len(), b.len());
    let off = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    let some = off.clone().filter(|d| *d > 0).count();
    (off.max().unwrap_or(0), some as f32 / a.len().max(1) as f32)
}

/// The largest difference; infinite where one is no number.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |most, d| if d >= 0.0 { d.max(most) } else { f32::INFINITY })
}
