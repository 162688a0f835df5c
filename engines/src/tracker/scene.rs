use crate::image::{Format, FrameView, luma};

/// Cells across and down.
const COLUMNS: usize = 16;
const ROWS: usize = 16;
const CELLS: usize = COLUMNS * ROWS;
/// Samples of a cell, across and down.
const TAPS: usize = 4;

/// A picture's luma in 16 x 16 cells.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Thumbnail([f32; CELLS]);

impl Thumbnail {
    /// Of a whole frame; reads 4096 pixels of it, whatever its size.
    pub fn of_frame(frame: &FrameView) -> Self {
        let (w, h) = (frame.width(), frame.height());
        let plane = frame.plane(0);
        let (offsets, bytes) = match frame.format() {
            Format::I420 | Format::Nv12 => ([0; 3], 1),
            Format::Rgb => ([0, 1, 2], 3),
            Format::Rgba => ([0, 1, 2], 4),
            Format::Bgra => ([2, 1, 0], 4),
        };
        let place = |i: usize, count: usize, size: usize| ((2 * i + 1) * size / (2 * count)).min(size - 1);
        let mut cells = [0.0; CELLS];
        for y in 0..ROWS * TAPS {
            let row = &plane.data[place(y, ROWS * TAPS, h) * plane.stride..];
            for x in 0..COLUMNS * TAPS {
                let at = place(x, COLUMNS * TAPS, w) * bytes;
                let value = if bytes == 1 { row[at] } else { luma(offsets.map(|o| row[at + o])) };
                cells[y / TAPS * COLUMNS + x / TAPS] += f32::from(value) / (TAPS * TAPS) as f32;
            }
        }
        Self(cells)
    }

    /// Of RGB planes, 0..1, of a square `side` pixels wide.
    pub fn of_planes(planes: &[f32], side: usize) -> Self {
        let mut cells = [0.0; CELLS];
        let n = side * side;
        let cell = side / COLUMNS;
        let scale = 255.0 / (cell * cell) as f32;
        for (plane, weight) in planes.chunks_exact(n).zip([0.299, 0.587, 0.114]) {
            for (y, row) in plane.chunks_exact(side).enumerate().take(ROWS * cell) {
                for (x, group) in row.chunks_exact(cell).enumerate().take(COLUMNS) {
                    cells[y / cell * COLUMNS + x] += group.iter().sum::<f32>() * weight * scale;
                }
            }
        }
        Self(cells)
    }

    /// Mean absolute difference, in codes of 0..255.
    pub fn difference(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a - b).abs()).sum::<f32>() / CELLS as f32
    }

    /// Pearson's correlation; 0 when one of the two is flat.
    pub fn correlation(&self, other: &Self) -> f32 {
        let mean = |t: &Self| t.0.iter().sum::<f32>() / CELLS as f32;
        let (ma, mb) = (mean(self), mean(other));
        let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
        for (a, b) in self.0.iter().zip(&other.0) {
            let (a, b) = (a - ma, b - mb);
            aa += a * a;
            bb += b * b;
            ab += a * b;
        }
        // Less than one code of contrast.
        if aa.min(bb) < CELLS as f32 { 0.0 } else { ab / (aa * bb).sqrt() }
    }

    /// Mean absolute difference of the rows in `rows` only, after taking out the difference of their means.
    pub fn difference_in(&self, other: &Self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) -> f32 {
        let cells = || rows.clone().flat_map(|y| columns.clone().map(move |x| y * COLUMNS + x));
        let count = cells().count().max(1) as f32;
        let shift = cells().map(|i| self.0[i] - other.0[i]).sum::<f32>() / count;
        cells().map(|i| (self.0[i] - other.0[i] - shift).abs()).sum::<f32>() / count
    }

    /// Moves this one towards `other`.
    pub fn follow(&mut self, other: &Self, weight: f32) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a += (b - *a) * weight);
    }
}

/// Two successive frames that show different scenes: they differ much and are not alike but for brightness (a flash or
/// a fade is no cut).
pub(super) fn is_cut(before: &Thumbnail, after: &Thumbnail) -> bool {
    const MUCH: f32 = 12.0;
    const ALIKE: f32 = 0.6;
    before.difference(after) > MUCH && before.correlation(after) < ALIKE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Matrix, Plane, Range};

    fn thumbnail(paint: impl Fn(usize, usize) -> f32) -> Thumbnail {
        let (w, h) = (160, 90);
        let data: Vec<u8> = (0..w * h).map(|i| paint(i % w, i / w).clamp(0.0, 255.0) as u8).collect();
        let chroma = vec![128; w * h / 2];
        let planes = vec![Plane { data: &data, stride: w }, Plane { data: &chroma, stride: w }];
        Thumbnail::of_frame(&FrameView::new(Format::Nv12, (w, h), Matrix::Bt709, Range::Limited, planes).unwrap())
    }

    fn room(x: usize, y: usize) -> f32 {
        100.0 + 60.0 * (x as f32 * 0.07).sin() + 40.0 * (y as f32 * 0.05).cos()
    }

    #[test]
    fn another_scene_is_a_cut() {
        let street = |x: usize, y: usize| 90.0 + 70.0 * (y as f32 * 0.11).sin() - 30.0 * (x as f32 * 0.02).cos();
        assert!(is_cut(&thumbnail(room), &thumbnail(street)));
        assert!(is_cut(&thumbnail(|_, _| 16.0), &thumbnail(room)));
    }

    #[test]
    fn a_flash_a_pan_and_a_still_are_none() {
        let still = thumbnail(room);
        assert!(!is_cut(&still, &still));
        assert!(!is_cut(&still, &thumbnail(|x, y| room(x, y) * 1.25 + 20.0)));
        assert!(!is_cut(&still, &thumbnail(|x, y| room(x + 6, y + 2))));
        let head = |dx: f32| {
            move |x: usize, y: usize| {
                let r = (x as f32 - 80.0 - dx).hypot(y as f32 - 50.0);
                room(x, y) + if r < 25.0 { 70.0 } else { 0.0 }
            }
        };
        assert!(!is_cut(&thumbnail(head(0.0)), &thumbnail(head(15.0))));
    }
}
