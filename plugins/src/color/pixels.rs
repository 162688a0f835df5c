//! What is done with the pixels of a picture.

use gst_video::{VideoConverter, VideoFrameRef, prelude::*};
use lipstream_engines::image::{
    PlaneMut, Recolor, ToneMap,
    alpha::{Samples, fill_hidden, fill_hidden_420},
};

use super::KEPT;

pub(super) fn map_picture(
    map: &ToneMap,
    from: &VideoFrameRef<&gst::BufferRef>,
    to: &mut VideoFrameRef<&mut gst::BufferRef>,
) -> lipstream_engines::Result<()> {
    let invalid = |_| lipstream_engines::Error::invalid("a plane of the picture cannot be read");
    let plane = |i: u32| {
        let stride = usize::try_from(from.plane_stride()[i as usize]).unwrap_or(0);
        from.plane_data(i).map(|data| (data, stride)).map_err(|_| ())
    };
    let size = (to.width() as usize, to.height() as usize);
    let strides: Vec<usize> = to.plane_stride().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
    let input = [plane(0).map_err(invalid)?, plane(1).map_err(invalid)?, plane(2).map_err(invalid)?];
    let [y, cb, cr, _] = to.planes_data_mut();
    map.picture(size, input, [(y, strides[0]), (cb, strides[1]), (cr, strides[2])])
}

pub(super) fn copy(
    converter: Option<&mut VideoConverter>,
    from: &VideoFrameRef<&gst::BufferRef>,
    to: &mut VideoFrameRef<&mut gst::BufferRef>,
) -> Result<(), gst::FlowError> {
    match converter {
        Some(converter) => converter.frame_ref(from, to),
        None => from.copy(to).map_err(|_| gst::FlowError::Error)?,
    }
    Ok(())
}

/// Gives the pixels of a frame the codes of other colours, in one of the first two formats of [`KEPT`].
pub(super) fn change(recolor: &Recolor, frame: &mut VideoFrameRef<&mut gst::BufferRef>) {
    let size = (frame.width() as usize, frame.height() as usize);
    let format = frame.format();
    let strides: Vec<usize> = frame.plane_stride().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
    let mut planes = frame.planes_data_mut().into_iter().zip(strides).map(|(data, stride)| PlaneMut { data, stride });
    if format == KEPT[0] {
        if let [Some(y), Some(cb), Some(cr)] = [planes.next(), planes.next(), planes.next()] {
            recolor.planar([y, cb, cr], size);
        }
    } else if let Some(pixels) = planes.next() {
        recolor.packed(pixels, [1, 2, 3], size);
    }
}

/// Gives the pixels that nobody sees the colours beside them, in one of the formats [`KEPT`].
pub(super) fn fill(frame: &mut VideoFrameRef<&mut gst::BufferRef>) {
    let size = (frame.width() as usize, frame.height() as usize);
    let format = frame.format();
    let strides: Vec<usize> = frame.plane_stride().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
    if format == KEPT[0] {
        let planes = frame.planes_data_mut().into_iter().zip(strides);
        let planes: Vec<_> = planes.map(|(data, stride)| PlaneMut { data, stride }).collect();
        if let Ok(planes) = <[PlaneMut; 4]>::try_from(planes) {
            fill_hidden_420(planes, size);
        }
        return;
    }
    // Alpha is the first byte of AYUV and the last of RGBA.
    let (alpha, channels) = if format == KEPT[1] { (0, [1, 2, 3]) } else { (3, [0, 1, 2]) };
    let stride = strides[0];
    let Ok(data) = frame.plane_data_mut(0) else { return };
    let rows = data.chunks(stride.max(1)).take(size.1);
    let weights: Vec<u8> = rows.flat_map(|row| row.chunks_exact(4).take(size.0).map(|pixel| pixel[alpha])).collect();
    fill_hidden(&mut Samples { data, stride, step: 4, offsets: &channels }, size, &weights);
}

/// Lays RGBA pixels on a colour; alpha is straight.
pub(super) fn flatten(frame: &mut VideoFrameRef<&mut gst::BufferRef>, background: u32) {
    let below = [background >> 16, background >> 8, background].map(|c| c & 0xff);
    let (width, stride) = (frame.width() as usize, frame.plane_stride()[0] as usize);
    let Ok(data) = frame.plane_data_mut(0) else { return };
    for row in data.chunks_mut(stride.max(1)) {
        for pixel in row.chunks_exact_mut(4).take(width) {
            let alpha = u32::from(pixel[3]);
            if alpha == 255 {
                continue;
            }
            for (channel, below) in pixel.iter_mut().zip(below) {
                *channel = ((u32::from(*channel) * alpha + below * (255 - alpha) + 127) / 255) as u8;
            }
            pixel[3] = 255;
        }
    }
}
