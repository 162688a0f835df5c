use super::{ColorSpace, Matrix, Range};
use crate::{Error, Result};

/// Pixel layouts that the engines read and write without a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    I420,
    Nv12,
    Rgb,
    Rgba,
    Bgra,
}

impl Format {
    pub fn planes(self) -> usize {
        match self {
            Self::I420 => 3,
            Self::Nv12 => 2,
            Self::Rgb | Self::Rgba | Self::Bgra => 1,
        }
    }

    pub fn is_yuv(self) -> bool {
        matches!(self, Self::I420 | Self::Nv12)
    }

    /// Bytes of one pixel of a packed format; 1 or 2 for the samples of a plane otherwise.
    fn row_bytes(self, plane: usize, width: usize) -> usize {
        match (self, plane) {
            (Self::I420 | Self::Nv12, 0) => width,
            (Self::I420, _) => width.div_ceil(2),
            (Self::Nv12, _) => width.div_ceil(2) * 2,
            (Self::Rgb, _) => width * 3,
            (Self::Rgba | Self::Bgra, _) => width * 4,
        }
    }

    fn rows(self, plane: usize, height: usize) -> usize {
        if self.is_yuv() && plane > 0 { height.div_ceil(2) } else { height }
    }

    /// Byte offsets of R, G, B within a pixel, and the pixel's bytes, for packed formats.
    pub(crate) fn packing(self) -> Option<([usize; 3], usize)> {
        match self {
            Self::Rgb => Some(([0, 1, 2], 3)),
            Self::Rgba => Some(([0, 1, 2], 4)),
            Self::Bgra => Some(([2, 1, 0], 4)),
            Self::I420 | Self::Nv12 => None,
        }
    }
}

/// One plane of samples, read only.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// One plane of samples.
pub struct PlaneMut<'a> {
    pub data: &'a mut [u8],
    pub stride: usize,
}

/// A picture in somebody else's memory.
pub struct FrameView<'a> {
    format: Format,
    space: ColorSpace,
    width: usize,
    height: usize,
    planes: Vec<Plane<'a>>,
}

/// A picture in somebody else's memory that may be written.
pub struct FrameMut<'a> {
    format: Format,
    space: ColorSpace,
    width: usize,
    height: usize,
    pub(crate) planes: Vec<PlaneMut<'a>>,
    /// Of a format that has none of its own: one byte a pixel, straight.
    pub(crate) alpha: Option<PlaneMut<'a>>,
}

/// Refuses planes that do not hold the picture.
fn check(format: Format, width: usize, height: usize, planes: &[(usize, usize)]) -> Result<()> {
    if width == 0 || height == 0 || width > 16384 || height > 16384 {
        return Err(Error::invalid(format!("a frame of {width}x{height} is outside 1x1..16384x16384")));
    }
    if planes.len() < format.planes() {
        return Err(Error::invalid(format!("{format:?} has {} planes, found {}", format.planes(), planes.len())));
    }
    for (i, (len, stride)) in planes.iter().take(format.planes()).enumerate() {
        let (row, rows) = (format.row_bytes(i, width), format.rows(i, height));
        if *stride < row || *len < stride * (rows - 1) + row {
            return Err(Error::invalid(format!(
                "plane {i} of a {width}x{height} {format:?} frame is too small: {len} bytes with a stride of {stride}"
            )));
        }
    }
    Ok(())
}

fn space_of(format: Format, matrix: Matrix, range: Range) -> ColorSpace {
    if format.is_yuv() { ColorSpace::Yuv(matrix, range) } else { ColorSpace::Rgb }
}

impl<'a> FrameView<'a> {
    /// `matrix` and `range` count for YUV formats only. Planes as GStreamer orders them; chroma is sited at the left
    /// (MPEG-2) or the centre: the half sample between the two is below what a crop shows.
    pub fn new(
        format: Format,
        (width, height): (usize, usize),
        matrix: Matrix,
        range: Range,
        planes: Vec<Plane<'a>>,
    ) -> Result<Self> {
        let sizes: Vec<_> = planes.iter().map(|p| (p.data.len(), p.stride)).collect();
        check(format, width, height, &sizes)?;
        Ok(Self { format, space: space_of(format, matrix, range), width, height, planes })
    }

    pub fn format(&self) -> Format {
        self.format
    }
    pub fn space(&self) -> ColorSpace {
        self.space
    }
    pub fn width(&self) -> usize {
        self.width
    }
    pub fn height(&self) -> usize {
        self.height
    }
    pub fn plane(&self, index: usize) -> Plane<'a> {
        self.planes[index]
    }
}

impl<'a> FrameMut<'a> {
    /// As [`FrameView::new`].
    pub fn new(
        format: Format,
        (width, height): (usize, usize),
        matrix: Matrix,
        range: Range,
        planes: Vec<PlaneMut<'a>>,
    ) -> Result<Self> {
        let sizes: Vec<_> = planes.iter().map(|p| (p.data.len(), p.stride)).collect();
        check(format, width, height, &sizes)?;
        Ok(Self { format, space: space_of(format, matrix, range), width, height, planes, alpha: None })
    }

    /// With an alpha plane beside the format's own planes.
    pub fn with_alpha(mut self, plane: PlaneMut<'a>) -> Result<Self> {
        if plane.stride < self.width || plane.data.len() < plane.stride * (self.height - 1) + self.width {
            return Err(Error::invalid("an alpha plane is smaller than its picture"));
        }
        self.alpha = Some(plane);
        Ok(self)
    }

    pub fn format(&self) -> Format {
        self.format
    }
    pub fn space(&self) -> ColorSpace {
        self.space
    }
    pub fn width(&self) -> usize {
        self.width
    }
    pub fn height(&self) -> usize {
        self.height
    }

    /// The same picture, read only.
    pub fn view(&self) -> FrameView<'_> {
        FrameView {
            format: self.format,
            space: self.space,
            width: self.width,
            height: self.height,
            planes: self.planes.iter().map(|p| Plane { data: p.data, stride: p.stride }).collect(),
        }
    }
}
