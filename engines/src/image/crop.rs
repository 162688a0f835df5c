use std::ops::Range;

use super::{
    ColorSpace, Format, FrameView,
    raster::{self, Cut, Texture, Walk},
};
use crate::{
    geometry::{Point, Similarity},
    image::raster::Raster,
};

/// A square picture with three channels of full resolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Crop {
    /// Pixels.
    pub side: usize,
    pub space: ColorSpace,
    /// `[side, side, 3]`, row by row.
    pub data: Vec<u8>,
}

impl Crop {
    /// The largest side in pixels.
    pub const MAX_SIDE: usize = 4096;

    /// The crop of `side` pixels that `to_crop` (from frame pixels to unit crop coordinates) cuts out of `frame`, in
    /// the frame's own colours. Bilinear, averaged where the crop is smaller than what it shows; the frame's edge is
    /// repeated outside of it. `None` when the map is degenerate or shrinks more than 64 times.
    pub fn take(frame: &FrameView, side: usize, to_crop: &Similarity) -> Option<Self> {
        Self::taken(frame, side, to_crop, Filter::Linear)
    }

    /// As [`take`](Self::take), but cubic between pixels: for a crop that is shown again.
    pub fn take_sharp(frame: &FrameView, side: usize, to_crop: &Similarity) -> Option<Self> {
        Self::taken(frame, side, to_crop, Filter::Cubic)
    }

    fn taken(frame: &FrameView, side: usize, to_crop: &Similarity, filter: Filter) -> Option<Self> {
        if side == 0 || side > Self::MAX_SIDE {
            return None;
        }
        let data = resample_by(frame, (side, side), &to_frame(side, to_crop)?, filter)?;
        Some(Self { side, space: frame.space(), data })
    }

    /// The same picture with another side, cubic between pixels.
    pub(crate) fn enlarged(&self, side: usize) -> Self {
        let texture = Texture::<3> { data: &self.data, width: self.side, height: self.side };
        let step = self.side as f32 / side.max(1) as f32;
        let fixed = |v: f32| (v * (1u32 << raster::BITS) as f32) as i32;
        let place = |i: usize| fixed((i as f32 + 0.5) * step - 0.5);
        let (mut data, mut line) = (vec![0; side * side * 3], vec![[0.0; 3]; side]);
        for (y, out) in data.chunks_exact_mut((side * 3).max(1)).enumerate() {
            texture.sample_line(Walk { x: place(0), y: place(y), dx: fixed(step), dy: 0 }, &mut line);
            for (pixel, value) in out.as_chunks_mut::<3>().0.iter_mut().zip(&line) {
                *pixel = value.map(|v| (v + 0.5) as u8);
            }
        }
        Self { side, space: self.space, data }
    }

    /// `[3, side, side]`: red, green and blue planes, 0..1.
    pub fn to_rgb_planar(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.data.len()];
        rgb_planar(&self.data, self.space, &mut out);
        out
    }

    /// The inverse of [`Crop::to_rgb_planar`], in the colours of `space`; values outside 0..1 are clamped. `None`
    /// when `planes` does not hold three planes of `side` x `side`.
    pub fn from_rgb_planar(planes: &[f32], side: usize, space: ColorSpace) -> Option<Self> {
        let n = side * side;
        if planes.len() != 3 * n {
            return None;
        }
        let mut data = vec![0; 3 * n];
        for (i, out) in data.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let rgb = [planes[i], planes[n + i], planes[2 * n + i]].map(|v| v.clamp(0.0, 1.0) * 255.0);
            *out = space.from_rgb(rgb).map(|v| (v + 0.5) as u8);
        }
        Some(Self { side, space, data })
    }

    /// The same picture in other colours.
    pub fn convert(&self, space: ColorSpace) -> Self {
        let mut out = Self { space, ..self.clone() };
        if space != self.space {
            for p in out.data.as_chunks_mut::<3>().0 {
                *p = self.space.convert(space, p.map(f32::from)).map(|v| (v + 0.5) as u8);
            }
        }
        out
    }

    /// Brightness, `[side, side]`: the Y of a YUV crop as it is, BT.601 luma of an RGB one.
    pub fn luma(&self) -> Vec<u8> {
        let pixels = self.data.as_chunks::<3>().0.iter();
        match self.space {
            ColorSpace::Yuv(..) => pixels.map(|p| p[0]).collect(),
            ColorSpace::Rgb => pixels.map(|p| luma(*p)).collect(),
        }
    }
}

/// BT.601 luma of a full-range RGB pixel.
pub(crate) fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b) + 128) >> 8) as u8
}

/// Interleaved pixels of `space` to planes of RGB, 0..1.
pub(crate) fn rgb_planar(pixels: &[u8], space: ColorSpace, out: &mut [f32]) {
    let n = pixels.len() / 3;
    let (r, rest) = out.split_at_mut(n);
    let (g, b) = rest.split_at_mut(n);
    let (matrix, offset) = space.rgb_matrix();
    let planes = r.iter_mut().zip(g).zip(b);
    for (p, ((r, g), b)) in pixels.as_chunks::<3>().0.iter().zip(planes) {
        let p = p.map(f32::from);
        let channel =
            |m: &[f32; 3], o: f32| ((m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + o) * (1.0 / 255.0)).clamp(0.0, 1.0);
        *r = channel(&matrix[0], offset[0]);
        *g = channel(&matrix[1], offset[1]);
        *b = channel(&matrix[2], offset[2]);
    }
}

/// A picture of `width` x `height`, three interleaved channels, in the frame's colours. `to_frame` goes from the
/// pixels of that picture to the frame's.
pub(crate) fn resample(frame: &FrameView, size: (usize, usize), to_frame: &Similarity) -> Option<Vec<u8>> {
    resample_by(frame, size, to_frame, Filter::Linear)
}

/// What is between two pixels.
#[derive(Clone, Copy, PartialEq)]
enum Filter {
    Linear,
    Cubic,
}

fn resample_by(
    frame: &FrameView,
    (width, height): (usize, usize),
    to_frame: &Similarity,
    filter: Filter,
) -> Option<Vec<u8>> {
    let step = to_frame.scale();
    if !step.is_normal() || step > raster::MAX_REDUCTION {
        return None;
    }
    let mut out = vec![0; width * height * 3];
    let size = (frame.width(), frame.height());
    let planes: [_; 3] = std::array::from_fn(|i| (i < frame.format().planes()).then(|| frame.plane(i)));
    let half = to_pairs(to_frame);
    let chroma = (size.0.div_ceil(2), size.1.div_ceil(2));
    let row = |i: usize, y: usize| planes[i].map_or(&[][..], |p| &p.data[y * p.stride..]);
    match frame.format() {
        Format::I420 => {
            channels::<1>(size, ((width, height), filter), to_frame, 0, &mut out, |y, x, o| {
                o.copy_from_slice(&row(0, y)[x])
            })?;
            channels::<2>(chroma, ((width, height), filter), &half, 1, &mut out, |y, x, o| {
                let pairs = row(1, y)[x.clone()].iter().zip(&row(2, y)[x]);
                o.as_chunks_mut::<2>().0.iter_mut().zip(pairs).for_each(|(o, (u, v))| *o = [*u, *v]);
            })?;
        }
        Format::Nv12 => {
            channels::<1>(size, ((width, height), filter), to_frame, 0, &mut out, |y, x, o| {
                o.copy_from_slice(&row(0, y)[x])
            })?;
            channels::<2>(chroma, ((width, height), filter), &half, 1, &mut out, |y, x, o| {
                o.copy_from_slice(&row(1, y)[x.start * 2..x.end * 2]);
            })?;
        }
        Format::Rgb => channels::<3>(size, ((width, height), filter), to_frame, 0, &mut out, |y, x, o| {
            o.copy_from_slice(&row(0, y)[x.start * 3..x.end * 3]);
        })?,
        Format::Rgba => channels::<3>(size, ((width, height), filter), to_frame, 0, &mut out, |y, x, o| {
            let pixels = row(0, y)[x.start * 4..x.end * 4].as_chunks::<4>().0;
            o.as_chunks_mut::<3>().0.iter_mut().zip(pixels).for_each(|(o, p)| *o = [p[0], p[1], p[2]]);
        })?,
        Format::Bgra => channels::<3>(size, ((width, height), filter), to_frame, 0, &mut out, |y, x, o| {
            let pixels = row(0, y)[x.start * 4..x.end * 4].as_chunks::<4>().0;
            o.as_chunks_mut::<3>().0.iter_mut().zip(pixels).for_each(|(o, p)| *o = [p[2], p[1], p[0]]);
        })?,
    }
    Some(out)
}

/// From pixels of a crop of `side` to those of the frame.
pub(crate) fn to_frame(side: usize, to_crop: &Similarity) -> Option<Similarity> {
    let back = to_crop.inverse()?;
    let unit = 1.0 / side as f32;
    Some(Similarity { a: back.a * unit, b: back.b * unit, ..back })
}

/// `to_frame` where a pixel stands for two by two of the frame.
pub(crate) fn to_pairs(to_frame: &Similarity) -> Similarity {
    let Similarity { a, b, tx, ty } = to_frame;
    Similarity { a: a / 2.0, b: b / 2.0, tx: tx / 2.0, ty: ty / 2.0 }
}

/// What is cut out of a source for a picture of `width` x `height`, and how each of the picture's rows goes through it.
pub(crate) fn placed(to_source: &Similarity, (width, height): (usize, usize)) -> Option<(Cut, Vec<Walk>)> {
    let (w, h) = (width as f32, height as f32);
    let corners = [(0.0, 0.0), (w, 0.0), (0.0, h), (w, h)].map(|(x, y)| to_source.apply(Point::new(x, y)));
    let low = corners.iter().fold(corners[0], |m, p| Point::new(m.x.min(p.x), m.y.min(p.y)));
    let high = corners.iter().fold(corners[0], |m, p| Point::new(m.x.max(p.x), m.y.max(p.y)));
    let cut = Cut::around((low, high), raster::reduction(to_source.scale()))?;
    let step = Point::new(to_source.a, to_source.b);
    let row = |j: usize| cut.walk(to_source.apply(Point::new(0.5, j as f32 + 0.5)), step);
    Some((cut, (0..height).map(row).collect()))
}

/// Fills the channels `first..first + C` of `out` from a source of `size` pixels.
fn channels<const C: usize>(
    size: (usize, usize),
    ((width, height), filter): ((usize, usize), Filter),
    to_source: &Similarity,
    first: usize,
    out: &mut [u8],
    read: impl Fn(usize, Range<usize>, &mut [u8]),
) -> Option<()> {
    let (cut, rows) = placed(to_source, (width, height))?;
    let raster = Raster::<C>::cut(cut, size, read);
    let texture = raster.texture();
    let mut values = vec![[0.0; C]; if filter == Filter::Cubic { width } else { 0 }];
    for (line, walk) in out.chunks_exact_mut(width * 3).zip(rows) {
        if filter == Filter::Cubic {
            texture.sample_line(walk, &mut values);
            for (pixel, value) in line.as_chunks_mut::<3>().0.iter_mut().zip(&values) {
                (0..C).for_each(|c| pixel[first + c] = (value[c] + 0.5) as u8);
            }
            continue;
        }
        for (i, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (x, y) = walk.at(i);
            let value = texture.sample(x, y);
            (0..C).for_each(|c| pixel[first + c] = ((value[c] + 128) >> 8) as u8);
        }
    }
    Some(())
}
