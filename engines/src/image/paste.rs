//! Blending a patch into a frame.
//!
//! Every pixel of the frame that the mask reaches asks the patch for its value: inverse mapping, one pass a plane, at
//! the plane's own resolution. Before that, the patch's colours are fitted to the frame's where the two overlap in the
//! feather of the mask: light changes between the moment that a reference was taken and now.

use std::ops::Range;

use super::{
    ColorSpace, Crop, Format, FrameMut, Patch, Pixels,
    balance::{Colour, RING, Sample},
    raster::{self, Cut, Raster, Walk},
};
use crate::{
    Error, Result,
    geometry::{Point, Rect, Similarity},
};

/// What [`paste`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PasteReport {
    /// The smallest box of frame pixels outside which nothing changed; empty when nothing did.
    pub touched: Rect,
    /// Pixels of the frame (of the luma plane, for YUV) that the patch contributes to; of a patch on a device those of the box.
    pub pixels: usize,
}

/// Blends `patch` into `frame`: sub-pixel inverse warp, cubic and averaged where the patch shrinks, weighted by the
/// patch's mask and opacity. Only pixels under the mask are read or written; alpha is left as it is. A patch of other
/// colours than the frame's is converted. A patch in the memory of a device is pasted there: only the part of the frame that
/// it reaches travels.
///
/// Errors: a mask that does not fit the pixels, a degenerate transform, a device that failed.
pub fn paste(frame: &mut FrameMut, patch: &Patch) -> Result<PasteReport> {
    paste_behind(frame, patch, None)
}

/// As [`paste`], behind what is before the face: `seen` says how much of each pixel of the patch is seen, 0..255, `[side * side]`.
/// The rest stays the frame's own, and no colours are compared there.
pub fn paste_behind(frame: &mut FrameMut, patch: &Patch, seen: Option<&[u8]>) -> Result<PasteReport> {
    let seen = seen.filter(|seen| seen.len() == patch.mask.len());
    if let Some(seen) = seen.filter(|_| patch.hard || matches!(patch.pixels, Pixels::There(_))) {
        let mask = patch.mask.iter().zip(seen).map(|(mask, seen)| times(*mask, *seen)).collect();
        return paste(frame, &Patch { mask, ..patch.clone() });
    }
    let pixels = match &patch.pixels {
        Pixels::Here(crop) => &**crop,
        Pixels::There(pixels) => {
            let touched = pixels.paste(frame, patch)?;
            return Ok(PasteReport { touched, pixels: touched.area() as usize });
        }
    };
    let side = pixels.side;
    if patch.mask.len() != side * side || pixels.data.len() != side * side * 3 {
        return Err(Error::invalid(format!(
            "a patch of {side}x{side} needs {} mask values and {} samples, found {} and {}",
            side * side,
            side * side * 3,
            patch.mask.len(),
            pixels.data.len()
        )));
    }
    let Some(inverse) = patch.to_frame.inverse().filter(|i| i.tx.is_finite() && i.ty.is_finite()) else {
        return Err(Error::invalid("the transform of a patch is degenerate"));
    };
    if patch.hard
        && let Some(report) = super::pixels::put(frame, patch, pixels)
    {
        return Ok(report);
    }
    let opacity = patch.opacity.clamp(0.0, 1.0);
    let Some(bounds) = mask_bounds(&patch.mask, side).filter(|_| opacity > 0.0) else {
        return Ok(PasteReport::default());
    };
    let to_crop = scaled(&inverse, side as f32);
    // Chroma is averaged the most; its filter goes two averages beyond what the mask reaches.
    let reach = raster::reduction(2.0 * to_crop.scale()).saturating_mul(4);
    let own = (pixels.space != frame.space()).then(|| converted(pixels, frame.space(), bounds, reach));
    let source = Source { crop: own.as_ref().unwrap_or(pixels), mask: &patch.mask, seen, bounds, to_crop, opacity };
    Ok(source.into_frame(frame))
}

/// The product of two parts of 255.
fn times(a: u8, b: u8) -> u8 {
    ((u32::from(a) * u32::from(b) + 127) / 255) as u8
}

/// `s` followed by a scaling.
pub(crate) fn scaled(s: &Similarity, by: f32) -> Similarity {
    Similarity { a: s.a * by, b: s.b * by, tx: s.tx * by, ty: s.ty * by }
}

/// Columns and rows of the mask that hold anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    x: [usize; 2],
    y: [usize; 2],
}

pub(crate) fn mask_bounds(mask: &[u8], side: usize) -> Option<Bounds> {
    let used = |row: &[u8]| row.iter().fold(0, |m, v| m | v) != 0;
    let mut rows = mask.chunks_exact(side);
    let top = rows.position(used)?;
    let bottom = side - mask.chunks_exact(side).rev().position(used)?;
    let mut any = vec![0u8; side];
    for row in mask[top * side..bottom * side].chunks_exact(side) {
        any.iter_mut().zip(row).for_each(|(a, v)| *a |= v);
    }
    let left = any.iter().position(|v| *v != 0)?;
    let right = side - any.iter().rev().position(|v| *v != 0)?;
    Some(Bounds { x: [left, right], y: [top, bottom] })
}

/// `crop` in another space, as far as the filter reaches around `bounds`.
fn converted(crop: &Crop, space: ColorSpace, bounds: Bounds, reach: usize) -> Crop {
    let mut out = Crop { space, ..crop.clone() };
    let reach = |[from, to]: [usize; 2]| from.saturating_sub(reach)..to.saturating_add(reach).min(crop.side);
    for y in reach(bounds.y) {
        let columns = reach(bounds.x);
        let row = &mut out.data[(y * crop.side + columns.start) * 3..(y * crop.side + columns.end) * 3];
        for p in row.as_chunks_mut::<3>().0 {
            *p = crop.space.convert(space, p.map(f32::from)).map(|v| (v + 0.5) as u8);
        }
    }
    out
}

/// A plane of the frame as the inner loop sees it: `B` bytes from one pixel to the next, the patch's channel `k` at
/// `offsets[k]` within a pixel.
struct Target<'a, const N: usize, const B: usize> {
    data: &'a mut [u8],
    stride: usize,
    size: (usize, usize),
    offsets: [usize; N],
}

/// Pixels that are compared at most, about.
const ENOUGH: usize = 3000;

struct Source<'a> {
    crop: &'a Crop,
    mask: &'a [u8],
    /// How much of each pixel is seen, where something is before it.
    seen: Option<&'a [u8]>,
    bounds: Bounds,
    /// From frame pixels to crop pixels.
    to_crop: Similarity,
    opacity: f32,
}

/// Columns and rows written, in pixels of the plane, and how many pixels.
#[derive(Default)]
struct Written {
    x: Range<usize>,
    y: Range<usize>,
    pixels: usize,
}

impl Source<'_> {
    fn into_frame(self, frame: &mut FrameMut) -> PasteReport {
        let size = (frame.width(), frame.height());
        let half = (size.0.div_ceil(2), size.1.div_ceil(2));
        let format = frame.format();
        let mut planes = frame.planes.iter_mut();
        let mut next = || planes.next().map(|p| (&mut *p.data, p.stride));
        let Some((data, stride)) = next() else { return PasteReport::default() };
        if let Some((offsets, bytes)) = format.packing() {
            let written = if bytes == 3 {
                self.blend::<3, 4, 3>(Target { data, stride, size, offsets }, 1.0, [0, 1, 2], true)
            } else {
                self.blend::<3, 4, 4>(Target { data, stride, size, offsets }, 1.0, [0, 1, 2], true)
            };
            return report(&[(written, 1)], size);
        }
        let mut all = vec![(self.blend::<1, 2, 1>(Target { data, stride, size, offsets: [0] }, 1.0, [0], true), 1)];
        match format {
            Format::Nv12 => {
                let Some((data, stride)) = next() else { return report(&all, size) };
                let target = Target { data, stride, size: half, offsets: [0, 1] };
                all.push((self.blend::<2, 3, 2>(target, 2.0, [1, 2], false), 2));
            }
            _ => {
                for channel in [1, 2] {
                    let Some((data, stride)) = next() else { break };
                    let target = Target { data, stride, size: half, offsets: [0] };
                    all.push((self.blend::<1, 2, 1>(target, 2.0, [channel], false), 2));
                }
            }
        }
        report(&all, size)
    }

    /// Blends the crop's `channels` into one plane, a pixel of which is `spacing` frame pixels wide. `C` = `N` + 1:
    /// the colours and the mask.
    fn blend<const N: usize, const C: usize, const B: usize>(
        &self,
        target: Target<N, B>,
        spacing: f32,
        channels: [usize; N],
        with_gain: bool,
    ) -> Written {
        const { assert!(C == N + 1) };
        let side = self.crop.side;
        let Some((cut, walker)) = placed(&self.to_crop, (side, self.bounds), spacing, target.size) else {
            return Written::default();
        };
        let read = |y: usize, x: Range<usize>, out: &mut [u8]| {
            let pixels = self.crop.data[(y * side + x.start) * 3..(y * side + x.end) * 3].as_chunks::<3>().0;
            let mask = &self.mask[y * side + x.start..y * side + x.end];
            for ((o, p), m) in out.as_chunks_mut::<C>().0.iter_mut().zip(pixels).zip(mask) {
                for k in 0..N {
                    o[k] = p[channels[k]];
                }
                o[N] = *m;
            }
            if let Some(seen) = self.seen {
                let seen = &seen[y * side + x.start..y * side + x.end];
                out.as_chunks_mut::<C>().0.iter_mut().zip(seen).for_each(|(o, seen)| o[N] = times(o[N], *seen));
            }
        };
        let raster = Raster::<C>::cut(cut, (side, side), read);
        let colour = self.fit(&target, &raster, (&cut, &walker), with_gain);
        self.write(target, &raster, (&cut, &walker), &colour)
    }

    /// Compares patch and frame in the feather and derives the correction.
    fn fit<const N: usize, const C: usize, const B: usize>(
        &self,
        target: &Target<N, B>,
        raster: &Raster<C>,
        (cut, walker): (&Cut, &Walker),
        with_gain: bool,
    ) -> Colour<N> {
        let texture = raster.texture();
        let stride = walker.stride();
        let mut samples = Vec::with_capacity(ENOUGH);
        for y in walker.rows.clone().step_by(stride) {
            let Some((columns, start)) = walker.line(y) else { continue };
            let walk = walker.walk(cut, start);
            for x in columns.clone().step_by(stride) {
                let (u, v) = walk.at(x - columns.start);
                let value = texture.sample(u, v);
                if !RING.contains(&(value[N] >> 8)) || self.hidden(cut, (u, v)) {
                    continue;
                }
                let at = y * target.stride + x * B;
                samples.push(Sample {
                    at: walker.centred(x, y),
                    patch: std::array::from_fn(|k| value[k] as f32 / 256.0),
                    frame: std::array::from_fn(|k| f32::from(target.data[at + target.offsets[k]])),
                });
            }
        }
        Colour::fit(&samples, with_gain)
    }

    /// Whether something is before the pixel of the crop at a place of the cut.
    fn hidden(&self, cut: &Cut, (u, v): (i32, i32)) -> bool {
        let Some(seen) = self.seen else { return false };
        let side = self.crop.side;
        let pixel = |place: i32, origin: i64| {
            let at = origin + i64::from(place >> raster::BITS) * cut.factor as i64 + cut.factor as i64 / 2;
            at.clamp(0, side as i64 - 1) as usize
        };
        seen[pixel(v, cut.origin[1]) * side + pixel(u, cut.origin[0])] != 255
    }

    fn write<const N: usize, const C: usize, const B: usize>(
        &self,
        target: Target<N, B>,
        raster: &Raster<C>,
        (cut, walker): (&Cut, &Walker),
        colour: &Colour<N>,
    ) -> Written {
        let texture = raster.texture();
        let weight = self.opacity / 255.0;
        // Nothing yet: the first pixel widens it to itself.
        #[allow(clippy::reversed_empty_ranges)]
        let mut written = Written { x: usize::MAX..0, y: usize::MAX..0, pixels: 0 };
        // Of one line.
        let (mut values, mut weights) = (Vec::new(), Vec::new());
        for y in walker.rows.clone() {
            let Some((columns, start)) = walker.line(y) else { continue };
            values.resize(columns.len(), [0.0; C]);
            texture.sample_line(walker.walk(cut, start), &mut values);
            weights.clear();
            let (mut first, mut last) = (usize::MAX, 0);
            for (i, value) in values.iter().enumerate() {
                // Below half a code of mask nothing would change.
                let covered = value[N] >= 0.5;
                weights.push(if covered { value[N] * weight } else { 0.0 });
                if covered {
                    written.pixels += 1;
                    first = first.min(i);
                    last = i;
                }
            }
            if first > last {
                continue;
            }
            let line = &mut target.data[y * target.stride + (columns.start + first) * B..][..(last + 1 - first) * B];
            let at = walker.centred(columns.start + first, y);
            let (values, weights) = (&values[first..=last], &weights[first..=last]);
            for k in 0..N {
                let pixels = line.as_chunks_mut::<B>().0.iter_mut();
                for (i, ((pixel, value), w)) in pixels.zip(values).zip(weights).enumerate() {
                    let p = colour.apply(k, value[k], at.x + i as f32 * walker.unit, at.y);
                    let f = f32::from(pixel[target.offsets[k]]);
                    pixel[target.offsets[k]] = (f + (p - f) * w + 0.5) as u8;
                }
            }
            written.x = written.x.start.min(columns.start + first)..written.x.end.max(columns.start + last + 1);
            written.y = written.y.start.min(y)..y + 1;
        }
        if written.pixels == 0 { Written::default() } else { written }
    }
}

/// The box of everything written, `spacing` frame pixels to a plane's pixel, cut to the frame.
fn report(planes: &[(Written, usize)], (width, height): (usize, usize)) -> PasteReport {
    let mut report = PasteReport { pixels: planes[0].0.pixels, ..Default::default() };
    let used = || planes.iter().filter(|(w, _)| w.pixels > 0);
    let span = |range: fn(&Written) -> &Range<usize>, limit: usize| {
        let from = used().map(|(w, s)| range(w).start * s).min()?;
        let to = used().map(|(w, s)| range(w).end * s).max()?.min(limit);
        Some((from as f32, to as f32))
    };
    if let (Some(x), Some(y)) = (span(|w| &w.x, width), span(|w| &w.y, height)) {
        report.touched = Rect { x: x.0, y: y.0, width: x.1 - x.0, height: y.1 - y.0 };
    }
    report
}

/// What is cut out of a patch of `side` whose mask has `bounds`, and how it is walked for a plane of `size`, a pixel of which
/// is `spacing` frame pixels wide. `None` where nothing is to be pasted.
pub(crate) fn placed(
    to_crop: &Similarity,
    (side, bounds): (usize, Bounds),
    spacing: f32,
    size: (usize, usize),
) -> Option<(Cut, Walker)> {
    // From pixels of the plane to pixels of the crop.
    let map = Similarity { a: to_crop.a * spacing, b: to_crop.b * spacing, ..*to_crop };
    let step = map.scale();
    if !step.is_normal() || step > raster::MAX_REDUCTION {
        return None;
    }
    let factor = raster::reduction(step);
    // Up to one (reduced) pixel beyond its last value the mask is more than nothing; nothing beyond the crop counts.
    let reach =
        |[from, to]: [usize; 2]| ((from as f32 - factor as f32).max(0.0), (to as f32 + factor as f32).min(side as f32));
    let ((left, right), (top, bottom)) = (reach(bounds.x), reach(bounds.y));
    let (low, high) = (Point::new(left, top), Point::new(right, bottom));
    Some((Cut::around((low, high), factor)?, Walker::new(map, low, high, size)))
}

/// The lines of a plane that cross a box of the crop.
pub(crate) struct Walker {
    /// From pixels of the plane to pixels of the crop.
    map: Similarity,
    low: Point,
    high: Point,
    pub rows: Range<usize>,
    width: usize,
    /// Centre of the box in pixels of the plane.
    pub centre: Point,
    /// One pixel of the plane in units of half the box.
    pub unit: f32,
}

impl Walker {
    /// `map` goes from pixels of the plane, of `width` x `height`, to those of the crop, in which the box is.
    pub fn new(map: Similarity, low: Point, high: Point, (width, height): (usize, usize)) -> Self {
        let nowhere = Self { map, low, high, rows: 0..0, width, centre: Point::default(), unit: 0.0 };
        let Some(back) = map.inverse() else { return nowhere };
        let corners = [low, Point::new(high.x, low.y), Point::new(low.x, high.y), high].map(|p| back.apply(p));
        let Some(rect) = Rect::around(&corners) else { return nowhere };
        let row = |v: f32| v.clamp(0.0, height as f32) as usize;
        let rows = row(rect.y.floor())..row((rect.y + rect.height).ceil());
        let unit = 2.0 * map.scale() / (high.x - low.x).max(high.y - low.y).max(1.0);
        Self { rows, centre: rect.centre(), unit, ..nowhere }
    }

    /// Pixels of the plane in the box, about.
    fn area(&self) -> usize {
        let scale = self.map.scale();
        ((self.high.x - self.low.x) * (self.high.y - self.low.y) / (scale * scale)) as usize
    }

    /// How far apart pixels are compared.
    pub fn stride(&self) -> usize {
        (self.area() / ENOUGH).isqrt().max(1)
    }

    /// In the crop, from one pixel of a line to the next.
    pub fn step(&self) -> Point {
        Point::new(self.map.a, self.map.b)
    }

    /// Through a cut from the crop's point `start` on.
    pub fn walk(&self, cut: &Cut, start: Point) -> Walk {
        cut.walk(start, self.step())
    }

    /// Where a pixel is, about -1..1 over the box.
    fn centred(&self, x: usize, y: usize) -> Point {
        (Point::new(x as f32 + 0.5, y as f32 + 0.5) - self.centre) * self.unit
    }

    /// The columns of row `y` whose centres lie in the box, and the crop's point for the first.
    pub fn line(&self, y: usize) -> Option<(Range<usize>, Point)> {
        let origin = self.map.apply(Point::new(0.5, y as f32 + 0.5));
        let (mut from, mut to) = (0.0f32, self.width as f32);
        for (start, step, low, high) in
            [(origin.x, self.map.a, self.low.x, self.high.x), (origin.y, self.map.b, self.low.y, self.high.y)]
        {
            if step.abs() < 1e-9 {
                if !(low..high).contains(&start) {
                    return None;
                }
            } else {
                let (a, b) = ((low - start) / step, (high - start) / step);
                (from, to) = (from.max(a.min(b)), to.min(a.max(b)));
            }
        }
        let columns =
            from.ceil().max(0.0) as usize..(to.floor().max(-1.0) as i64 + 1).clamp(0, self.width as i64) as usize;
        (columns.start < columns.end)
            .then(|| (columns.clone(), self.map.apply(Point::new(columns.start as f32 + 0.5, y as f32 + 0.5))))
    }
}
