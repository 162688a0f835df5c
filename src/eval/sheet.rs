//! A contact sheet: moments of a video side by side, and under them the curve of its sync.

use std::path::Path;

use crate::error::{Failure, Result};

/// Pictures on the sheet, and in one line of it.
const MOMENTS: usize = 10;
const COLUMNS: usize = 5;
/// Height of the curves in pixels.
const PLOT: usize = 200;
/// A PNG of this size takes less than a second; more than this is a machine that has stopped.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(30);

const GROUND: [u8; 3] = [24, 24, 24];
const GRID: [u8; 3] = [72, 72, 72];
/// Of the video, and of the truth.
const INKS: [[u8; 3]; 2] = [[255, 176, 32], [96, 200, 255]];

/// Middles of equal parts of `frames` frames.
pub fn moments(frames: usize) -> Vec<usize> {
    (0..MOMENTS).map(|i| (2 * i + 1) * frames / (2 * MOMENTS)).collect()
}

/// Pictures `[side, side, 3]`, one a moment.
pub type Row = Vec<Option<Vec<u8>>>;

/// A picture in red, green and blue.
pub struct Sheet {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Sheet {
    /// `rows` (the video, then the truth where there is one) above each other, five moments beside each other; under them
    /// the agreement of picture and sound over shifts.
    pub fn draw(rows: &[Row], side: usize, curves: &[&[f64]]) -> Self {
        let blocks = MOMENTS.div_ceil(COLUMNS);
        let plot = if curves.is_empty() { 0 } else { PLOT };
        let (width, height) = (COLUMNS * side, blocks * rows.len() * side + plot);
        let mut sheet = Self { width, height, data: GROUND.repeat(width * height) };
        for (r, row) in rows.iter().enumerate() {
            for (i, picture) in row.iter().enumerate() {
                let (left, top) = (i % COLUMNS * side, (i / COLUMNS * rows.len() + r) * side);
                for (y, line) in picture.iter().flat_map(|p| p.chunks_exact(3 * side)).enumerate() {
                    let at = ((top + y) * width + left) * 3;
                    sheet.data[at..at + line.len()].copy_from_slice(line);
                }
            }
        }
        sheet.plot(height - plot, curves);
        sheet
    }

    /// The curves between their lowest and their highest value, the shift of 0 and every fifth marked.
    fn plot(&mut self, top: usize, curves: &[&[f64]]) {
        let Some(count) = curves.iter().map(|c| c.len()).max().filter(|n| *n > 1) else { return };
        let column = |i: f64| ((i + 0.5) / count as f64 * self.width as f64) as usize;
        let (columns, middle): (Vec<usize>, _) = ((0..count).map(|i| column(i as f64)).collect(), count / 2);
        for (i, x) in columns.iter().enumerate().filter(|(i, _)| i.abs_diff(middle) % 5 == 0) {
            let half = usize::from(i == middle);
            self.fill(x.saturating_sub(half)..x + half + 1, top..self.height, GRID);
        }
        let (width, foot) = (self.width, self.height - 6);
        let values = || curves.iter().flat_map(|c| c.iter().copied());
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        let range = (high - low).max(f64::MIN_POSITIVE);
        let line = move |value: f64| foot - ((value - low) / range * (PLOT - 12) as f64) as usize;
        for (curve, ink) in curves.iter().zip(INKS) {
            for x in 0..width {
                let place = ((x as f64 + 0.5) / width as f64 * count as f64 - 0.5).clamp(0.0, (count - 1) as f64);
                let i = (place as usize).min(count - 2);
                let (Some(a), Some(b)) = (curve.get(i), curve.get(i + 1)) else { continue };
                let y = line(a + (b - a) * (place - i as f64));
                self.fill(x..x + 1, y.saturating_sub(1)..y + 2, ink);
            }
        }
    }

    fn fill(&mut self, columns: std::ops::Range<usize>, rows: std::ops::Range<usize>, ink: [u8; 3]) {
        for y in rows.start..rows.end.min(self.height) {
            for x in columns.start..columns.end.min(self.width) {
                self.data[(y * self.width + x) * 3..][..3].copy_from_slice(&ink);
            }
        }
    }

    /// Writes it as PNG.
    pub fn write(self, path: &Path) -> Result<()> {
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, self.width as u32, self.height as u32);
        let info = info.fps(gst::Fraction::new(25, 1)).build()?;
        let (stride, line) = (info.stride()[0] as usize, 3 * self.width);
        let mut padded = vec![0; stride * self.height];
        for (to, from) in padded.chunks_exact_mut(stride).zip(self.data.chunks_exact(line)) {
            to[..line].copy_from_slice(from);
        }
        let mut buffer = gst::Buffer::from_mut_slice(padded);
        buffer.make_mut().set_pts(gst::ClockTime::ZERO);
        let caps = info.to_caps()?;
        let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
        let png = gst::Caps::builder("image/png").build();
        let encoded = gst_video::convert_sample(&sample, &png, Some(PATIENCE)).map_err(|e| {
            Failure::run(format!("the sheet cannot be made a PNG: {}; `lipstream doctor` says what is missing", e))
        })?;
        let buffer = encoded.buffer().ok_or_else(|| Failure::run("an encoded sample without a buffer"))?;
        let map = buffer.map_readable().map_err(|_| Failure::run("an encoded picture cannot be read"))?;
        std::fs::write(path, &*map).map_err(|e| Failure::output(format!("{}: {e}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spread_and_within() {
        assert_eq!(moments(100), [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]);
        assert_eq!(moments(1), [0; 10]);
    }

    #[test]
    fn the_video_is_above_the_truth() {
        let picture = |v: u8| vec![Some(vec![v; 4 * 4 * 3]); MOMENTS];
        let mut made = picture(200);
        made[1] = None;
        let sheet = Sheet::draw(&[made, picture(100)], 4, &[&[0.0, 1.0, 0.0], &[0.2; 3]]);
        assert_eq!((sheet.width, sheet.height), (20, 16 + PLOT));
        let at = |x: usize, y: usize| sheet.data[(y * 20 + x) * 3];
        assert_eq!([at(0, 0), at(0, 4), at(0, 8), at(19, 12)], [200, 100, 200, 100]);
        assert_eq!(at(5, 1), GROUND[0]);
        let inked = |ink: [u8; 3]| sheet.data[20 * 16 * 3..].chunks(3).any(|p| p == ink);
        assert!(INKS.iter().all(|ink| inked(*ink)));
        let alone = Sheet::draw(&[picture(9)], 4, &[]);
        assert_eq!((alone.width, alone.height, alone.data.iter().all(|v| *v == 9)), (20, 8, true));
    }
}
