use std::time::Duration;

use super::{ACROSS, COLUMNS, DOWN, Key, LEAST_SIDE, ROWS, TILES, tiles_at};
use crate::{
    geometry::{Point, Similarity},
    image::{
        Format, FrameMut, FrameView, Patch,
        paste::{Walker, scaled},
    },
};

/// Side of the map of changes.
const SIDE: usize = 192;
/// Deviation of the mark in codes of brightness, before its picture's texture makes it weaker or stronger.
const STRENGTH: f32 = 1.2;
/// Cells of the grid on which the texture is measured, a side.
const CELLS: usize = 24;
/// Pixels of a cell that are looked at, a side.
const LOOKED: usize = 3;
/// Strength where nothing is to be seen but an even surface, what each code of mean deviation adds, and the most: with all that is
/// below, 42 dB and better.
const EVEN: f32 = 0.7;
const TEXTURED: f32 = 0.1;
const MOST: f32 = 1.4;
/// Parts of a code in the map.
const PARTS: i32 = 64;
/// Pixels of a row that are computed together, as processors do.
const BLOCK: usize = 16;
/// Codes of full range for one of limited range.
const FULL: f32 = 255.0 / 219.0;

/// Adds the mark to the frames of one stream.
#[derive(Debug)]
pub struct Embedder {
    key: Key,
    /// `[SIDE * SIDE]`
    field: Vec<f32>,
    /// What is added to each pixel of the unit crop, in [`PARTS`] of a code,
    map: Vec<i16>,
    /// and beside it, in the upper half, what is added to the next one: a pixel of the frame lies between two of them.
    pairs: Vec<u32>,
    /// What a code of the field is worth in the middle of each cell, and of each pixel of the line at hand.
    strengths: Vec<f32>,
    line: Vec<f32>,
    /// Of each pixel of a line, the cell before it and how far it is on the way to the next.
    between: Vec<(usize, f32)>,
}

impl Default for Embedder {
    fn default() -> Self {
        Self::new(Key::new(Key::PUBLISHED))
    }
}

impl Embedder {
    pub fn new(key: Key) -> Self {
        Self {
            field: key.field(SIDE),
            map: vec![0; SIDE * SIDE],
            pairs: vec![0; SIDE * SIDE],
            strengths: vec![0.0; CELLS * CELLS],
            line: vec![0.0; SIDE],
            between: (0..SIDE).map(|i| between((i as f32 + 0.5) / SIDE as f32)).collect(),
            key,
        }
    }

    /// Marks what `patch`, pasted before, covers of `frame`, as far as it is `seen` ([`crate::image::paste_behind`]). `place` goes
    /// from pixels of the frame to the unit crop of the face, `time` is the frame's. False where nothing was marked: the
    /// face is smaller than [`LEAST_SIDE`] or a transform degenerate.
    pub fn mark(
        &mut self,
        frame: &mut FrameMut,
        patch: &Patch,
        seen: Option<&[u8]>,
        place: &Similarity,
        time: Duration,
    ) -> bool {
        let side = patch.pixels.side();
        let seen = seen.filter(|seen| seen.len() == patch.mask.len());
        let (Some(to_frame), Some(to_patch)) = (place.inverse(), patch.to_frame.inverse()) else { return false };
        let way = scaled(&to_frame.then(&to_patch), side as f32);
        let finite = [way.a, way.b, way.tx, way.ty].iter().all(|v| v.is_finite());
        if side == 0 || patch.mask.len() != side * side || !finite || to_frame.scale() < LEAST_SIDE {
            return false;
        }
        self.weigh(&frame.view(), &to_frame, patch.opacity, time);
        let step = 1.0 / SIDE as f32;
        let (columns, rows) = (pixels(ACROSS), pixels(DOWN));
        let fixed = |v: f32| (v * 65536.0) as i64;
        let (du, dv) = (fixed(way.a * step), fixed(way.b * step));
        // Columns and rows that hold anything.
        let (mut left, mut right, mut top, mut bottom) = (SIDE, 0, SIDE, 0);
        for y in rows {
            self.weigh_line(y);
            let first = way.apply(Point::new((columns.start as f32 + 0.5) * step, (y as f32 + 0.5) * step));
            let (mut u, mut v) = (fixed(first.x), fixed(first.y));
            let line = y * SIDE + columns.start..y * SIDE + columns.end;
            let weighed = self.field[line.clone()].iter().zip(&self.line[columns.clone()]);
            for (x, (change, (field, strength))) in self.map[line].iter_mut().zip(weighed).enumerate() {
                // Negative places are far beyond the last pixel.
                let (column, row) = ((u >> 16) as usize, (v >> 16) as usize);
                (u, v) = (u.wrapping_add(du), v.wrapping_add(dv));
                *change = 0;
                if column < side && row < side {
                    let i = row * side + column;
                    let covered = match seen {
                        Some(seen) => f32::from(patch.mask[i]) * f32::from(seen[i]) * (1.0 / 255.0),
                        None => f32::from(patch.mask[i]),
                    };
                    *change = (field * strength * covered) as i16;
                    if *change != 0 {
                        (left, right) = (left.min(x), right.max(x + 1));
                        (top, bottom) = (top.min(y), y + 1);
                    }
                }
            }
            let (line, pairs) = (&self.map[y * SIDE..(y + 1) * SIDE], &mut self.pairs[y * SIDE..(y + 1) * SIDE]);
            for (pair, two) in pairs.iter_mut().zip(line.windows(2)) {
                *pair = u32::from(two[0] as u16) | u32::from(two[1] as u16) << 16;
            }
        }
        if left < right {
            let margin = |from: usize, to: usize| [from.saturating_sub(1) as f32, (to + 1) as f32];
            self.add(frame, place, margin(left + columns.start, right + columns.start), margin(top, bottom));
        }
        true
    }

    /// The worth of the cells of the lower face: sign, texture, opacity; for a mask of 0..255.
    fn weigh(&mut self, frame: &FrameView, to_frame: &Similarity, opacity: f32, time: Duration) {
        let signs: [f32; TILES] = self.key.at(time);
        let scale = STRENGTH * opacity.clamp(0.0, 1.0) * PARTS as f32 / 255.0;
        let scale = scale * if frame.format().is_yuv() { 1.0 } else { FULL };
        let brightness = Brightness::of(frame);
        let middle = |i: usize| (i as f32 + 0.5) / CELLS as f32;
        for y in cells(DOWN) {
            let (row, v) = tiles_at(middle(y), DOWN, ROWS);
            for x in cells(ACROSS) {
                let (column, u) = tiles_at(middle(x), ACROSS, COLUMNS);
                let sign = |row: usize| {
                    let (left, right) = (signs[row * COLUMNS + column], signs[row * COLUMNS + column + 1]);
                    left + (right - left) * u
                };
                let sign = sign(row) + (sign(row + 1) - sign(row)) * v;
                let values: [f32; LOOKED * LOOKED] = std::array::from_fn(|k| {
                    let place = |i: usize, k: usize| (i as f32 + (k as f32 + 0.5) / LOOKED as f32) / CELLS as f32;
                    brightness.at(to_frame.apply(Point::new(place(x, k % LOOKED), place(y, k / LOOKED))))
                });
                let mean = values.iter().sum::<f32>() / values.len() as f32;
                let deviation = values.iter().map(|v| (v - mean).abs()).sum::<f32>() / values.len() as f32;
                self.strengths[y * CELLS + x] = sign * scale * (EVEN + TEXTURED * deviation).min(MOST);
            }
        }
    }

    /// The worth of the pixels of a line of the map: between the cells above and below, then between those to the left and right.
    fn weigh_line(&mut self, y: usize) {
        let (row, share) = self.between[y];
        let mut cells = [0.0; CELLS];
        for (x, strength) in cells.iter_mut().enumerate() {
            let (above, below) = (self.strengths[row * CELLS + x], self.strengths[(row + 1) * CELLS + x]);
            *strength = above + (below - above) * share;
        }
        for (strength, (cell, share)) in self.line.iter_mut().zip(&self.between) {
            *strength = cells[*cell] + (cells[cell + 1] - cells[*cell]) * share;
        }
    }

    /// Adds the map, of which only a box holds anything, to the frame's brightness, linear between its pixels.
    fn add(&self, frame: &mut FrameMut, place: &Similarity, across: [f32; 2], down: [f32; 2]) {
        let (low, high) = (Point::new(across[0], down[0]), Point::new(across[1], down[1]));
        let walker = Walker::new(scaled(place, SIDE as f32), low, high, (frame.width(), frame.height()));
        let packing = frame.format().packing();
        let Some(plane) = frame.planes.first_mut() else { return };
        for y in walker.rows.clone() {
            let Some((columns, start)) = walker.line(y) else { continue };
            let row = &mut plane.data[y * plane.stride..];
            let step = walker.step();
            let fixed = |v: f32| (v * 65536.0) as i32;
            let (mut u, mut v) = (fixed(start.x - 0.5), fixed(start.y - 0.5));
            let (du, dv) = (fixed(step.x), fixed(step.y));
            let mut next = || {
                let changes = self.between((u, v), (du, dv));
                let block = BLOCK as i32;
                (u, v) = (u.wrapping_add(du.wrapping_mul(block)), v.wrapping_add(dv.wrapping_mul(block)));
                changes
            };
            let changed = |code: &mut u8, by: i32| *code = (i32::from(*code) + by).clamp(0, 255) as u8;
            match packing {
                None => {
                    let (blocks, rest) = row[columns].as_chunks_mut::<BLOCK>();
                    for block in blocks {
                        let changes = next();
                        // By numbers and not pairs: processors do such a loop at once.
                        (0..BLOCK).for_each(|i| changed(&mut block[i], changes[i]));
                    }
                    rest.iter_mut().zip(next()).for_each(|(code, by)| changed(code, by));
                }
                Some((offsets, bytes)) => {
                    for block in row[columns.start * bytes..columns.end * bytes].chunks_mut(BLOCK * bytes) {
                        for (pixel, by) in block.chunks_exact_mut(bytes).zip(next()) {
                            offsets.iter().for_each(|offset| changed(&mut pixel[*offset], by));
                        }
                    }
                }
            }
        }
    }

    /// Whole codes at places of the map in 16.16 fixed point, 0 at the first pixel's centre: the first, and others a step apart.
    #[inline(always)]
    fn between(&self, (u, v): (i32, i32), (du, dv): (i32, i32)) -> [i32; BLOCK] {
        const LAST: i32 = SIDE as i32 - 2;
        let (mut at, mut across, mut down) = ([0u32; BLOCK], [0i32; BLOCK], [0i32; BLOCK]);
        for i in 0..BLOCK {
            let (u, v) = (u.wrapping_add(du.wrapping_mul(i as i32)), v.wrapping_add(dv.wrapping_mul(i as i32)));
            at[i] = ((v >> 16).clamp(0, LAST) * SIDE as i32 + (u >> 16).clamp(0, LAST)) as u32;
            (across[i], down[i]) = ((u >> 8) & 255, (v >> 8) & 255);
        }
        let (mut upper, mut lower) = ([0u32; BLOCK], [0u32; BLOCK]);
        let pairs = &self.pairs[..SIDE * SIDE];
        for i in 0..BLOCK {
            let at = (at[i] as usize).min(SIDE * (SIDE - 1) - 1);
            (upper[i], lower[i]) = (pairs[at], pairs[at + SIDE]);
        }
        let mut changes = [0i32; BLOCK];
        for i in 0..BLOCK {
            let line = |pair: u32| {
                let (left, right) = (i32::from(pair as i16), pair as i32 >> 16);
                left * 256 + (right - left) * across[i]
            };
            let (upper, lower) = (line(upper[i]), line(lower[i]));
            // To the nearest, of both signs alike.
            changes[i] = (upper * 256 + (lower - upper) * down[i] + (PARTS << 15)) >> 22;
        }
        changes
    }
}

/// Pixels of the map that hold the lower face.
fn pixels([from, to]: [f32; 2]) -> std::ops::Range<usize> {
    (from * SIDE as f32) as usize..((to * SIDE as f32).ceil() as usize).min(SIDE)
}

/// Cells that pixels of the lower face lie between.
fn cells([from, to]: [f32; 2]) -> std::ops::Range<usize> {
    let (first, last) = (between(from).0, between(to).0 + 2);
    first..last.min(CELLS)
}

/// The cell whose middle comes before a place, and how far the place is on the way to the next.
fn between(unit: f32) -> (usize, f32) {
    let at = (unit * CELLS as f32 - 0.5).clamp(0.0, (CELLS - 1) as f32);
    let first = (at as usize).min(CELLS - 2);
    (first, at - first as f32)
}

/// The brightness of a frame, of packed formats the green.
struct Brightness<'a> {
    data: &'a [u8],
    stride: usize,
    bytes: usize,
    offset: usize,
    size: (usize, usize),
}

impl<'a> Brightness<'a> {
    fn of(frame: &FrameView<'a>) -> Self {
        let plane = frame.plane(0);
        let (offset, bytes) = match frame.format() {
            Format::I420 | Format::Nv12 => (0, 1),
            format => format.packing().map_or((0, 1), |(offsets, bytes)| (offsets[1], bytes)),
        };
        Self { data: plane.data, stride: plane.stride, bytes, offset, size: (frame.width(), frame.height()) }
    }

    /// Of the pixel that holds a place; outside of the frame of the nearest.
    fn at(&self, place: Point) -> f32 {
        let nearest = |v: f32, size: usize| (v.max(0.0) as usize).min(size - 1);
        let (x, y) = (nearest(place.x, self.size.0), nearest(place.y, self.size.1));
        f32::from(self.data[y * self.stride + x * self.bytes + self.offset])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::image::{ColorSpace, Crop, Matrix, PlaneMut, Range};

    const SIZE: usize = 192;
    const GREY: u8 = 120;

    /// An even grey frame whose face fills it, pasted with a patch of which the right half is covered.
    fn marked(format: Format, ms: u64, opacity: f32) -> (bool, Vec<i32>) {
        let (bytes, planes) = match format {
            Format::Nv12 => (1, vec![vec![GREY; SIZE * SIZE], vec![128; SIZE * SIZE / 2]]),
            _ => (4, vec![vec![GREY; SIZE * SIZE * 4]]),
        };
        let mut planes = planes;
        let views = planes.iter_mut().map(|data| PlaneMut { data, stride: SIZE * bytes }).collect();
        let mut frame = FrameMut::new(format, (SIZE, SIZE), Matrix::Bt601, Range::Limited, views).unwrap();
        let to_frame = Similarity { a: SIZE as f32, b: 0.0, tx: 0.0, ty: 0.0 };
        let mask: Vec<u8> = (0..16 * 16).map(|i| if i % 16 < 8 { 0 } else { 255 }).collect();
        let pixels = Crop { side: 16, space: ColorSpace::Rgb, data: vec![0; 16 * 16 * 3] };
        let patch = Patch { pixels: pixels.into(), mask: Arc::from(mask), to_frame, opacity, hard: false };
        let place = to_frame.inverse().unwrap();
        let done = Embedder::default().mark(&mut frame, &patch, None, &place, Duration::from_millis(ms));
        if format == Format::Nv12 {
            assert!(planes[1].iter().all(|c| *c == 128), "colours stay");
        } else {
            let pixels = planes[0].as_chunks::<4>().0;
            assert!(pixels.iter().all(|p| p[0] == p[1] && p[1] == p[2] && p[3] == GREY), "colours and alpha stay");
        }
        (done, planes[0].chunks_exact(bytes).map(|p| i32::from(p[0]) - i32::from(GREY)).collect())
    }

    /// Where map and frame have the same pixels, the change is the field times the signs between the tiles' middles.
    #[test]
    fn what_is_added_is_the_field_with_the_signs_of_the_moment() {
        let key = Key::new(Key::PUBLISHED);
        let (field, signs) = (key.field(SIZE), key.at(Duration::from_millis(1000)));
        for (format, scale) in [(Format::Nv12, 1.0), (Format::Rgba, FULL)] {
            let (done, changes) = marked(format, 1000, 1.0);
            assert!(done && changes.iter().any(|c| *c >= 2) && changes.iter().any(|c| *c <= -2));
            let mut checked = 0;
            for row in 1..ROWS - 1 {
                for column in COLUMNS / 2 + 1..COLUMNS - 1 {
                    // The middle of a tile has its own sign.
                    let middle =
                        |[from, to]: [f32; 2], i: usize, n: usize| from + (to - from) * (i as f32 + 0.5) / n as f32;
                    let x = (middle(ACROSS, column, COLUMNS) * SIZE as f32) as usize;
                    let y = (middle(DOWN, row, ROWS) * SIZE as f32) as usize;
                    let wanted = field[y * SIZE + x] * signs[row * COLUMNS + column] * STRENGTH * EVEN * scale;
                    // Half a code of rounding, and cells of eight pixels beside the middle.
                    let found = changes[y * SIZE + x] as f32;
                    assert!((found - wanted).abs() < 0.5 + 0.2 * wanted.abs(), "{format:?} {x} {y}: {found} {wanted}");
                    checked += 1;
                }
            }
            assert!(checked >= 3);
            let left = changes.iter().enumerate().filter(|(i, _)| i % SIZE < SIZE / 2).all(|(_, c)| *c == 0);
            assert!(left && changes[..SIZE * 72].iter().all(|c| *c == 0), "beside the mask and above the lower face");
        }
    }

    #[test]
    fn a_patch_that_fades_is_marked_less_and_what_cannot_be_placed_not_at_all() {
        let sum = |opacity: f32| marked(Format::Nv12, 500, opacity).1.iter().map(|c| c.abs()).sum::<i32>();
        let (full, half) = (sum(1.0), sum(0.5));
        assert!(half < full * 2 / 3 && half > 0 && sum(0.0) == 0, "{half} {full}");
        let mut data = vec![GREY; 64 * 64 * 3];
        let mut frame = |place: Similarity, side: usize| {
            let planes = vec![PlaneMut { data: &mut data, stride: 64 * 3 }];
            let mut frame = FrameMut::new(Format::Rgb, (64, 64), Matrix::Bt601, Range::Full, planes).unwrap();
            let pixels = Crop { side, space: ColorSpace::Rgb, data: vec![0; side * side * 3] };
            let to_frame = Similarity { a: 64.0, b: 0.0, tx: 0.0, ty: 0.0 };
            let patch =
                Patch { pixels: pixels.into(), mask: vec![255; 16].into(), to_frame, opacity: 1.0, hard: false };
            Embedder::default().mark(&mut frame, &patch, None, &place, Duration::ZERO)
        };
        let place = |side: f32| Similarity { a: 1.0 / side, b: 0.0, tx: 0.0, ty: 0.0 };
        assert!(!frame(place(LEAST_SIDE - 1.0), 4) && frame(place(LEAST_SIDE + 1.0), 4));
        assert!(!frame(place(100.0), 5), "a mask of another size");
        for odd in [0.0, f32::NAN, f32::INFINITY, 1e30] {
            frame(Similarity { a: odd, b: odd, tx: odd, ty: -odd }, 4);
        }
    }
}
