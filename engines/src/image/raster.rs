//! Dense cuts of a picture that can be sampled anywhere between their pixels.
//!
//! Taking a crop and pasting a patch are the same act: cut the source's region out once, repeat its edges, average it
//! by a whole factor when it will be shown smaller, then walk it along straight lines.

use std::ops::Range;

use crate::geometry::Point;

/// Fractional bits of a sampling position.
pub(crate) const BITS: u32 = 16;

/// The largest reduction: beyond it a picture is not a face any more.
pub(crate) const MAX_REDUCTION: f32 = 64.0;

/// The whole factor by which to average a source before it is sampled `step` source pixels apart: the nearest one, so
/// that what is left for the filter is 0.75 to 1.5.
pub(crate) fn reduction(step: f32) -> usize {
    (step.round() as usize).max(1)
}

/// `C` interleaved channels of 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Texture<'a, const C: usize> {
    pub data: &'a [u8],
    pub width: usize,
    pub height: usize,
}

impl<const C: usize> Texture<'_, C> {
    /// The bilinear value, 8.8 fixed point, at `x`, `y`: 16.16 fixed point, 0 at the first pixel's centre. Positions
    /// outside repeat the edge.
    #[inline(always)]
    pub fn sample(&self, x: i32, y: i32) -> [u32; C] {
        let (x, y) = (x.clamp(0, self.last(self.width)), y.clamp(0, self.last(self.height)));
        let (column, row) = ((x >> BITS) as usize, (y >> BITS) as usize);
        let (fx, fy) = ((x as u32 >> (BITS - 8)) & 255, (y as u32 >> (BITS - 8)) & 255);
        let at = (row * self.width + column) * C;
        let below = if row + 1 < self.height { at + self.width * C } else { at };
        let right = if column + 1 < self.width { C } else { 0 };
        let (upper, lower) = (&self.data[at..at + right + C], &self.data[below..below + right + C]);
        let mut value = [0; C];
        // A loop and not array::from_fn, which is not inlined here.
        for (c, value) in value.iter_mut().enumerate() {
            let u = u32::from(upper[c]) * (256 - fx) + u32::from(upper[right + c]) * fx;
            let l = u32::from(lower[c]) * (256 - fx) + u32::from(lower[right + c]) * fx;
            *value = (u * (256 - fy) + l * fy + 128) >> 8;
        }
        value
    }

    pub(super) fn last(&self, count: usize) -> i32 {
        (count as i32 - 1) << BITS
    }
}

/// What is cut out of a picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Pixels of the cut.
    pub width: usize,
    pub height: usize,
    /// Left top corner in source pixels.
    pub origin: [i64; 2],
    /// Source pixels in one pixel of the cut.
    pub factor: usize,
}

/// A cut with its pixels.
pub(crate) struct Raster<const C: usize> {
    data: Vec<u8>,
    cut: Cut,
}

/// Positions along a line through a [`Texture`], in 16.16 fixed point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub x: i32,
    pub y: i32,
    pub dx: i32,
    pub dy: i32,
}

impl Walk {
    #[inline(always)]
    pub fn at(&self, i: usize) -> (i32, i32) {
        (self.x.wrapping_add(self.dx.wrapping_mul(i as i32)), self.y.wrapping_add(self.dy.wrapping_mul(i as i32)))
    }
}

impl Cut {
    /// What is needed to sample inside `low..high` (source pixels, edges and not centres), averaged by `factor`.
    ///
    /// `None` when the region is not finite or is absurdly large.
    pub fn around((low, high): (Point, Point), factor: usize) -> Option<Self> {
        const FAR: f32 = 1e6;
        if ![low.x, low.y, high.x, high.y].iter().all(|v| v.abs() < FAR) || low.x > high.x || low.y > high.y {
            return None;
        }
        let f = factor as f32;
        let first = |v: f32| (v / f).floor() as i64 - 1;
        let count = |lo: f32, hi: f32| ((hi / f).ceil() as i64 + 1 - first(lo)) as usize;
        let (width, height) = (count(low.x, high.x), count(low.y, high.y));
        let origin = [first(low.x) * factor as i64, first(low.y) * factor as i64];
        (width <= 16384 && height <= 16384).then_some(Self { width, height, origin, factor })
    }

    /// The walk whose first position is `start` and whose next are `step` further each, both in source pixels.
    pub fn walk(&self, start: Point, step: Point) -> Walk {
        let one = f64::from(1u32 << BITS);
        let place = |v: f32, origin: i64| ((f64::from(v) - origin as f64) / self.factor as f64 - 0.5) * one;
        let length = |v: f32| (f64::from(v) / self.factor as f64 * one).round() as i32;
        Walk {
            x: place(start.x, self.origin[0]).round() as i32,
            y: place(start.y, self.origin[1]).round() as i32,
            dx: length(step.x),
            dy: length(step.y),
        }
    }
}

impl<const C: usize> Raster<C> {
    /// The pixels of a cut of a picture of `width` x `height`. `read(y, x, out)` writes the interleaved pixels `x` of row `y`.
    pub fn cut(cut: Cut, size: (usize, usize), read: impl Fn(usize, Range<usize>, &mut [u8])) -> Self {
        let mut raster = Self { data: vec![0; cut.width * cut.height * C], cut };
        raster.fill(size, read);
        raster
    }

    fn fill(&mut self, (width, height): (usize, usize), read: impl Fn(usize, Range<usize>, &mut [u8])) {
        let Cut { width: columns, origin, factor, .. } = self.cut;
        let span = columns * factor;
        let from = origin[0].clamp(0, width as i64 - 1) as usize;
        let to = (origin[0] + span as i64).clamp(from as i64 + 1, width as i64) as usize;
        // Pixels of a line that lie left of the picture, or whose nearest pixel is its last.
        let before = (from as i64 - origin[0]).clamp(0, span as i64 - 1) as usize;
        let inside = (to - from).min(span - before);
        let line = |y: i64, out: &mut [u8]| {
            read(
                y.clamp(0, height as i64 - 1) as usize,
                from..from + inside,
                &mut out[before * C..(before + inside) * C],
            );
            let first: [u8; C] = std::array::from_fn(|c| out[before * C + c]);
            out[..before * C].as_chunks_mut::<C>().0.fill(first);
            let last: [u8; C] = std::array::from_fn(|c| out[(before + inside - 1) * C + c]);
            out[(before + inside) * C..].as_chunks_mut::<C>().0.fill(last);
        };
        if factor == 1 {
            for (r, out) in self.data.chunks_exact_mut(span * C).enumerate() {
                line(origin[1] + r as i64, out);
            }
            return;
        }
        let (mut row, mut sums) = (vec![0u8; span * C], vec![0u16; span * C]);
        let area = (factor * factor) as u32;
        for (r, out) in self.data.chunks_exact_mut(columns * C).enumerate() {
            sums.fill(0);
            for y in 0..factor {
                line(origin[1] + (r * factor + y) as i64, &mut row);
                sums.iter_mut().zip(&row).for_each(|(s, v)| *s += u16::from(*v));
            }
            for (out, group) in out.as_chunks_mut::<C>().0.iter_mut().zip(sums.chunks_exact(factor * C)) {
                let mut total = [0u32; C];
                for pixel in group.as_chunks::<C>().0 {
                    (0..C).for_each(|c| total[c] += u32::from(pixel[c]));
                }
                *out = total.map(|t| ((t + area / 2) / area) as u8);
            }
        }
    }

    pub fn texture(&self) -> Texture<'_, C> {
        Texture { data: &self.data, width: self.cut.width, height: self.cut.height }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture whose value is 2x + 3y.
    fn ramp(factor: usize, low: Point, high: Point) -> Raster<1> {
        Raster::cut(Cut::around((low, high), factor).unwrap(), (40, 30), |y, x, out| {
            out.iter_mut().zip(x).for_each(|(o, x)| *o = (2 * x + 3 * y) as u8);
        })
    }

    #[test]
    fn a_ramp_is_sampled_exactly_at_any_reduction() {
        for factor in [1, 2, 3, 4] {
            let raster = ramp(factor, Point::new(10.0, 8.0), Point::new(28.0, 20.0));
            for i in 0..60 {
                let p = Point::new(11.0 + 0.25 * i as f32, 9.0 + 0.15 * i as f32);
                let (x, y) = raster.cut.walk(p, Point::default()).at(0);
                let found = raster.texture().sample(x, y)[0] as f32 / 256.0;
                let wanted = 2.0 * (p.x - 0.5) + 3.0 * (p.y - 0.5);
                // Averages are rounded to 8 bits.
                assert!((found - wanted).abs() < 0.6, "{factor}: {p:?} {found} {wanted}");
            }
        }
    }

    #[test]
    fn outside_the_picture_its_edge_is_repeated() {
        for factor in [1, 3] {
            let raster = ramp(factor, Point::new(-30.0, -30.0), Point::new(90.0, 90.0));
            let at = |x: f32, y: f32| {
                let (x, y) = raster.cut.walk(Point::new(x, y), Point::default()).at(0);
                (raster.texture().sample(x, y)[0] + 128) >> 8
            };
            assert_eq!(at(-20.0, -20.0), 0);
            assert_eq!(at(80.0, 80.0), 2 * 39 + 3 * 29);
        }
        let off = ramp(1, Point::new(100.0, -50.0), Point::new(110.0, -40.0));
        assert_eq!((off.texture().sample(0, 0)[0] + 128) >> 8, 78);
        let left = ramp(2, Point::new(-100.0, 5.0), Point::new(-90.0, 9.0));
        assert!(left.texture().data.iter().all(|v| (6..=36).contains(v)));
    }

    #[test]
    fn regions_without_bounds_are_refused() {
        let cut = |lo: f32, hi: f32| Cut::around((Point::new(lo, 0.0), Point::new(hi, 4.0)), 1);
        assert!(cut(f32::NAN, 4.0).is_none());
        assert!(cut(0.0, f32::INFINITY).is_none());
        assert!(cut(0.0, 1e5).is_none());
    }
}
