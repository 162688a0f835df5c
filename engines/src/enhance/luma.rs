//! The brightness of a part of a frame, and the way back.

use std::ops::Range;

use crate::image::{ColorSpace, FrameMut, Range as Quantisation};

/// BT.601-7's weights of R, G and B.
const WEIGHTS: [f32; 3] = [0.299, 0.587, 0.114];

/// The least and the highest code of the frame's brightness.
pub(super) fn range(frame: &FrameMut) -> [f32; 2] {
    match frame.space() {
        ColorSpace::Yuv(_, Quantisation::Limited) => [16.0, 235.0],
        ColorSpace::Yuv(..) | ColorSpace::Rgb => [0.0, 255.0],
    }
}

/// `[rows, columns]` in codes: the Y of a YUV frame as it is, BT.601 luma of an RGB one.
pub(super) fn read(frame: &FrameMut, columns: &Range<usize>, rows: &Range<usize>, out: &mut Vec<f32>) {
    out.clear();
    let Some(plane) = frame.planes.first() else { return };
    for y in rows.clone() {
        let line = &plane.data[y * plane.stride..];
        match frame.format().packing() {
            None => out.extend(line[columns.clone()].iter().map(|v| f32::from(*v))),
            Some((offsets, bytes)) => {
                let pixels = line[columns.start * bytes..columns.end * bytes].chunks_exact(bytes);
                out.extend(pixels.map(|p| {
                    offsets.iter().zip(WEIGHTS).map(|(offset, weight)| weight * f32::from(p[*offset])).sum::<f32>()
                }));
            }
        }
    }
}

/// Adds `change` to the brightness of a row's pixels from column `from` on, rounded; what is 0 leaves every byte as it is. R,
/// G and B are changed by the same, so that the colour stays. No value leaves `range` that was in it.
pub(super) fn add(frame: &mut FrameMut, y: usize, from: usize, change: &[f32], [low, high]: [f32; 2]) {
    let packing = frame.format().packing();
    let Some(plane) = frame.planes.first_mut() else { return };
    let line = &mut plane.data[y * plane.stride..];
    let moved = |value: &mut u8, by: f32| {
        let old = f32::from(*value);
        *value = ((old + by).clamp(low.min(old), high.max(old)) + 0.5) as u8;
    };
    match packing {
        None => line[from..].iter_mut().zip(change).for_each(|(value, by)| moved(value, *by)),
        Some((offsets, bytes)) => {
            for (pixel, by) in line[from * bytes..].chunks_exact_mut(bytes).zip(change) {
                offsets.iter().for_each(|offset| moved(&mut pixel[*offset], *by));
            }
        }
    }
}
