//! GStreamer's video frames as the engines see them, without a copy.

use std::sync::LazyLock;

use gst_video::{
    VideoColorMatrix, VideoColorRange, VideoColorimetry, VideoConverter, VideoFormat, VideoFrame, VideoInfo,
    prelude::*, video_frame::Writable,
};
use lipstream_engines::{
    Error, Result,
    image::{ColorSpace, Format, FrameMut, FrameView, Matrix, Plane, PlaneMut, Range},
};

/// 8-bit formats that the engines read and write as they are; the alpha of those that have it is kept.
pub const FORMATS: [VideoFormat; 6] =
    [VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Rgba, VideoFormat::Bgra, VideoFormat::Rgb, VideoFormat::A420];

/// What the video pads take.
pub fn caps() -> gst::Caps {
    gst_video::VideoCapsBuilder::new().format_list(FORMATS).width_range(16..=16384).height_range(16..=16384).build()
}

/// Templates of an element with one video pad in and one out, `sink` and `src`.
pub fn pad_templates() -> &'static [gst::PadTemplate] {
    static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
        [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
            .into_iter()
            .map(|(name, direction)| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps()).expect("a valid template")
            })
            .collect()
    });
    &TEMPLATES
}

/// What turns pictures of `from` into another format of these colours, and the picture that it fills.
pub(crate) fn converter(
    from: &VideoInfo,
    format: VideoFormat,
    colorimetry: &VideoColorimetry,
) -> Result<(VideoConverter, VideoFrame<Writable>), gst::glib::BoolError> {
    let to = VideoInfo::builder(format, from.width(), from.height()).colorimetry(colorimetry);
    let to = to.fps(from.fps()).par(from.par()).build()?;
    let buffer = gst::Buffer::with_size(to.size())?;
    let frame =
        VideoFrame::from_buffer_writable(buffer, &to).map_err(|_| gst::glib::bool_error!("no memory for a picture"))?;
    Ok((VideoConverter::new(from, &to, None)?, frame))
}

pub(crate) fn layout(info: &VideoInfo) -> Result<(Format, Matrix, Range)> {
    let format = match info.format() {
        // Its fourth plane is beside what the engines see.
        VideoFormat::I420 | VideoFormat::A420 => Format::I420,
        VideoFormat::Nv12 => Format::Nv12,
        VideoFormat::Rgba => Format::Rgba,
        VideoFormat::Bgra => Format::Bgra,
        VideoFormat::Rgb => Format::Rgb,
        other => return Err(Error::invalid(format!("video format {other} is not supported"))),
    };
    let matrix = matrix(info);
    let range = match info.colorimetry().range() {
        VideoColorRange::Range0_255 => Range::Full,
        _ => Range::Limited,
    };
    Ok((format, matrix, range))
}

/// What YUV is made by.
pub(crate) fn matrix(info: &VideoInfo) -> Matrix {
    match info.colorimetry().matrix() {
        VideoColorMatrix::Bt709 => Matrix::Bt709,
        VideoColorMatrix::Bt2020 => Matrix::Bt2020,
        _ => Matrix::Bt601,
    }
}

/// The colour space of crops that are taken from such frames.
pub fn space(info: &VideoInfo) -> Result<ColorSpace> {
    let (format, matrix, range) = layout(info)?;
    Ok(if format.is_yuv() { ColorSpace::Yuv(matrix, range) } else { ColorSpace::Rgb })
}

/// Calls `f` with the picture in `buffer`, read only.
pub fn with_view<T>(buffer: &gst::BufferRef, info: &VideoInfo, f: impl FnOnce(&FrameView) -> Result<T>) -> Result<T> {
    let (format, matrix, range) = layout(info)?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info)
        .map_err(|_| Error::invalid("a video buffer could not be mapped for reading"))?;
    let mut planes = Vec::with_capacity(format.planes());
    for i in 0..format.planes() {
        let data = frame.plane_data(i as u32).map_err(|e| Error::invalid(e.to_string()))?;
        planes.push(Plane { data, stride: stride(frame.plane_stride(), i)? });
    }
    f(&FrameView::new(format, (info.width() as usize, info.height() as usize), matrix, range, planes)?)
}

/// Calls `f` with the picture in `buffer` to be changed in place.
pub fn with_frame<T>(
    buffer: &mut gst::BufferRef,
    info: &VideoInfo,
    f: impl FnOnce(&mut FrameMut) -> Result<T>,
) -> Result<T> {
    let (format, matrix, range) = layout(info)?;
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info)
        .map_err(|_| Error::invalid("a video buffer could not be mapped for writing"))?;
    let strides: Vec<_> = (0..format.planes()).map(|i| stride(frame.plane_stride(), i)).collect::<Result<_>>()?;
    let alpha_stride = if info.format() == VideoFormat::A420 { Some(stride(frame.plane_stride(), 3)?) } else { None };
    let [first, second, third, fourth] = frame.planes_data_mut();
    let planes =
        [first, second, third].into_iter().zip(strides).map(|(data, stride)| PlaneMut { data, stride }).collect();
    let size = (info.width() as usize, info.height() as usize);
    let mut frame = FrameMut::new(format, size, matrix, range, planes)?;
    if let Some(stride) = alpha_stride {
        frame = frame.with_alpha(PlaneMut { data: fourth, stride })?;
    }
    f(&mut frame)
}

fn stride(strides: &[i32], plane: usize) -> Result<usize> {
    usize::try_from(strides[plane])
        .map_err(|_| Error::invalid("bottom-up frames (a negative stride) are not supported"))
}
