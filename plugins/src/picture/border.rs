//! The alpha of scaled pictures where the scaler gets it wrong: it paints borders black, and of a picture in I420 it makes one in A420 that is half
//! transparent (GStreamer 1.22).

use gst_video::{VideoFormat, VideoFrameRef, VideoInfo, prelude::*};

/// Where a picture lies within its borders: columns and rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
}

impl Inner {
    /// Of a picture of `shape` that is scaled into `size`, centred; `None` where it fills that.
    pub fn of(shape: (u32, u32), size: (u32, u32)) -> Option<Self> {
        let [w, h, width, height] = [shape.0, shape.1, size.0, size.1].map(u64::from);
        if w == 0 || h == 0 || w * height == h * width {
            return None;
        }
        let (across, along) = if w * height > h * width { (width, width * h / w) } else { (height * w / h, height) };
        let range = |part: u64, whole: u64| {
            let start = (whole - part.min(whole)) / 2;
            start as usize..(start + part.min(whole)) as usize
        };
        Some(Self { columns: range(across, width), rows: range(along, height) })
    }

    fn holds(&self, x: usize, y: usize) -> bool {
        self.rows.contains(&y) && self.columns.contains(&x)
    }
}

/// What is to be done with the alpha of pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mending {
    /// Nothing is seen outside of it.
    pub inner: Option<Inner>,
    /// All is seen within.
    pub opaque: bool,
}

impl Mending {
    /// A picture without alpha stays as it is.
    pub fn mend(&self, buffer: &mut gst::Buffer, info: &VideoInfo) {
        // The plane that has the alpha, its place in a pixel, and the bytes of one.
        let (plane, offset, step) = match info.format() {
            VideoFormat::A420 => (3, 0, 1),
            VideoFormat::Rgba | VideoFormat::Bgra => (0, 3, 4),
            _ => return,
        };
        let Ok(mut frame) = VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), info) else { return };
        let stride = usize::try_from(frame.plane_stride()[plane]).unwrap_or(0).max(1);
        let (width, height) = (info.width() as usize, info.height() as usize);
        let Ok(data) = frame.plane_data_mut(plane as u32) else { return };
        for (y, row) in data.chunks_mut(stride).take(height).enumerate() {
            for (x, pixel) in row.chunks_mut(step).take(width).enumerate() {
                let Some(alpha) = pixel.get_mut(offset) else { continue };
                if self.inner.as_ref().is_some_and(|inner| !inner.holds(x, y)) {
                    *alpha = 0;
                } else if self.opaque {
                    *alpha = 255;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_another_shape_lies_in_the_middle() {
        assert_eq!(Inner::of((640, 360), (1280, 720)), None);
        assert_eq!(Inner::of((100, 100), (200, 100)), Some(Inner { columns: 50..150, rows: 0..100 }));
        assert_eq!(Inner::of((200, 100), (100, 100)), Some(Inner { columns: 0..100, rows: 25..75 }));
        assert_eq!(Inner::of((0, 100), (100, 100)), None);
    }

    #[test]
    fn only_alpha_outside_is_cleared() {
        gst::init().unwrap();
        let inner = Inner::of((16, 16), (32, 16));
        for (format, plane) in [(VideoFormat::A420, 3), (VideoFormat::Rgba, 0), (VideoFormat::I420, 0)] {
            let info = VideoInfo::builder(format, 32, 16).build().unwrap();
            let mut buffer = gst::Buffer::from_mut_slice(vec![200_u8; info.size()]);
            Mending { inner: inner.clone(), opaque: false }.mend(&mut buffer, &info);
            let map = buffer.map_readable().unwrap();
            let step = if format == VideoFormat::Rgba { 4 } else { 1 };
            let alpha = |x: usize| map[info.offset()[plane] + x * step + step - 1];
            let outside = if format == VideoFormat::I420 { 200 } else { 0 };
            assert_eq!([alpha(7), alpha(8), alpha(23), alpha(24)], [outside, 200, 200, outside], "{format:?}");
            assert_eq!(map.iter().filter(|code| **code == 0).count(), if outside == 0 { 16 * 16 } else { 0 });
            drop(map);
            Mending { inner: None, opaque: true }.mend(&mut buffer, &info);
            let opaque = buffer.map_readable().unwrap().iter().filter(|code| **code == 255).count();
            assert_eq!(opaque, if outside == 0 { 32 * 16 } else { 0 }, "{format:?}");
        }
    }
}
