//! Parts of a frame in the memory of a device.

use std::{ops::Range, sync::Arc};

use super::number;
use crate::{
    Error, Result,
    cuda::{Buffer, Memory, arguments},
    image::{Format, FrameMut, FrameView, raster::Cut},
};

/// Columns and rows of a plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Area {
    pub columns: Range<usize>,
    pub rows: Range<usize>,
}

impl Area {
    /// What a cut reads of a plane of `size`: beyond its edge, the pixels there.
    pub fn of_cut(cut: &Cut, size: (usize, usize)) -> Self {
        let span = |from: i64, count: usize, size: usize| {
            let last = size as i64 - 1;
            let end = from + (count * cut.factor) as i64 - 1;
            from.clamp(0, last) as usize..end.clamp(0, last) as usize + 1
        };
        Self { columns: span(cut.origin[0], cut.width, size.0), rows: span(cut.origin[1], cut.height, size.1) }
    }
}

/// The part of a frame that a kernel reads or writes.
pub struct Region {
    buffer: Buffer<u8>,
    /// Of each plane the part, where it begins in the buffer, and the bytes of a sample.
    parts: Vec<(Area, usize, usize)>,
    pub(super) channels: [arguments::Plane; 3],
}

/// Width and height of a plane.
pub(super) fn plane_size(format: Format, plane: usize, (width, height): (usize, usize)) -> (usize, usize) {
    if format.is_yuv() && plane > 0 { (width.div_ceil(2), height.div_ceil(2)) } else { (width, height) }
}

fn sample_bytes(format: Format, plane: usize) -> usize {
    match format {
        Format::Nv12 if plane == 1 => 2,
        Format::I420 | Format::Nv12 => 1,
        Format::Rgb => 3,
        Format::Rgba | Format::Bgra => 4,
    }
}

/// The plane of each channel, and its byte within a sample.
pub(super) fn channels(format: Format) -> [(usize, usize); 3] {
    match (format, format.packing()) {
        (_, Some((offsets, _))) => offsets.map(|offset| (0, offset)),
        (Format::Nv12, _) => [(0, 0), (1, 0), (1, 1)],
        _ => [(0, 0), (1, 0), (2, 0)],
    }
}

impl Region {
    /// Uploads `areas`: of the first plane, and of the others where there are some.
    pub(super) fn upload(memory: &Arc<dyn Memory>, frame: &FrameView, areas: [&Area; 2]) -> Result<Self> {
        let format = frame.format();
        let (mut bytes, mut parts) = (0, Vec::new());
        for i in 0..format.planes() {
            let (area, sample) = (areas[i.min(1)], sample_bytes(format, i));
            let size = plane_size(format, i, (frame.width(), frame.height()));
            if area.columns.end > size.0 || area.rows.end > size.1 {
                return Err(Error::invalid(format!("{area:?} lies outside of a plane of {size:?}")));
            }
            parts.push((area.clone(), bytes, sample));
            bytes += area.columns.len() * sample * area.rows.len();
        }
        let buffer = Buffer::room(memory, bytes)?;
        buffer.fill(0, bytes, |to| {
            for (i, (area, from, sample)) in parts.iter().enumerate() {
                let (plane, row) = (frame.plane(i), area.columns.len() * sample);
                for (k, y) in area.rows.clone().enumerate() {
                    let own = &plane.data[y * plane.stride + area.columns.start * sample..][..row];
                    to[from + k * row..][..row].copy_from_slice(own);
                }
            }
        })?;
        let mut planes = [arguments::Plane::default(); 3];
        for (channel, (plane, offset)) in planes.iter_mut().zip(channels(format)) {
            let (Area { columns, rows }, from, sample) = &parts[plane];
            *channel = arguments::Plane {
                data: buffer.on(memory, 0, bytes)?.beyond(from + offset),
                stride: number(columns.len() * sample)?,
                step: number(*sample)?,
                left: number(columns.start)?,
                top: number(rows.start)?,
                width: number(columns.len())?,
                height: number(rows.len())?,
            };
        }
        Ok(Self { buffer, parts, channels: planes })
    }

    /// Puts the region back into the frame that it came from.
    pub(super) fn download(&self, frame: &mut FrameMut) -> Result<()> {
        self.buffer.show(|bytes| {
            for (plane, (area, from, sample)) in frame.planes.iter_mut().zip(&self.parts) {
                let row = area.columns.len() * sample;
                for (i, y) in area.rows.clone().enumerate() {
                    let to = &mut plane.data[y * plane.stride + area.columns.start * sample..][..row];
                    to.copy_from_slice(&bytes[from + i * row..][..row]);
                }
            }
        })
    }

    /// Bytes that travel.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }
}
