//! From a part of a frame to a network's input.

use std::sync::Arc;

use super::{
    Order, Part, cut, matrix, number,
    region::{Area, Region, plane_size},
};
use crate::{
    Error, Result,
    cuda::{Buffer, Memory, arguments, launch, memory::TILE},
    geometry::{Rect, Similarity},
    image::{ColorSpace, Crop, FrameView, crop, raster::Walk},
};

/// A [`Crop`] in the memory of a device.
pub struct DeviceCrop {
    pub side: usize,
    pub space: ColorSpace,
    /// `[side, side, 3]`.
    pub data: Buffer<u8>,
}

/// Planes of red, green and blue that a crop becomes, `[3, side, side]` each: `value * scale + offset` of values 0..1.
pub struct Planes<'a> {
    pub side: usize,
    pub order: Order,
    pub scale: f32,
    pub offset: f32,
    /// Where they go, and the first number of them there.
    pub out: Part<'a>,
    /// Where they go with a part of them hidden.
    pub masked: Option<Masked<'a>>,
}

/// Planes of which a mask, `[side, side]`, keeps some: `value * mask + hidden * (1 - mask)`.
pub struct Masked<'a> {
    pub out: Part<'a>,
    pub mask: &'a Buffer<f32>,
    pub hidden: f32,
}

impl DeviceCrop {
    /// [`Crop::take`], and [`Crop::take_sharp`] where it is `sharp`: only the part of the frame that the crop shows is uploaded.
    /// `None` as there.
    pub fn take(
        memory: &Arc<dyn Memory>,
        frame: &FrameView,
        side: usize,
        to_crop: &Similarity,
        sharp: bool,
    ) -> Result<Option<Self>> {
        if side == 0 || side > Crop::MAX_SIDE {
            return Ok(None);
        }
        let Some(to_frame) = crop::to_frame(side, to_crop) else { return Ok(None) };
        let pairs = if frame.format().is_yuv() { crop::to_pairs(&to_frame) } else { to_frame };
        let all = [to_frame, pairs].map(|map| crop::placed(&map, (side, side)));
        let [Some((first, rows)), Some((second, rows_of_pairs))] = all else { return Ok(None) };
        let size = |plane: usize| plane_size(frame.format(), plane, (frame.width(), frame.height()));
        let areas = [Area::of_cut(&first, size(0)), Area::of_cut(&second, size(1))];
        let region = Region::upload(memory, frame, [&areas[0], &areas[1]])?;
        let places = |rows: &[Walk]| -> Vec<_> { rows.iter().map(|w| arguments::Place { x: w.x, y: w.y }).collect() };
        let lines = Buffer::of(memory, &[places(&rows), places(&rows_of_pairs)].concat())?;
        let step = |rows: &[Walk]| rows.first().map_or((0, 0), |walk| (walk.dx, walk.dy));
        let data = Buffer::room(memory, side * side * 3)?;
        let take = arguments::Take {
            out: data.on(memory, 0, side * side * 3)?,
            lines: lines.on(memory, 0, side)?,
            lines_of_pairs: lines.on(memory, side, side)?,
            planes: region.channels,
            cut: cut(&first, step(&rows))?,
            cut_of_pairs: cut(&second, step(&rows_of_pairs))?,
            side: number(side)?,
            sharp: sharp.into(),
        };
        // SAFETY: all are as large as the sides; samples are clamped to the region.
        unsafe { launch(memory, &take, [side, side], TILE)? };
        Ok(Some(Self { side, space: frame.space(), data }))
    }

    /// A crop of the CPU's.
    pub fn of(memory: &Arc<dyn Memory>, crop: &Crop) -> Result<Self> {
        Ok(Self { side: crop.side, space: crop.space, data: Buffer::of(memory, &crop.data)? })
    }

    pub fn read(&self) -> Result<Crop> {
        Ok(Crop { side: self.side, space: self.space, data: self.data.read()? })
    }

    /// The part `inner` of the crop as planes, the mean of four linear samples a pixel; without one the whole crop, pixel by
    /// pixel.
    ///
    /// Errors: planes that do not fit where they go, or that are not as large as the whole crop.
    pub fn show(&self, memory: &Arc<dyn Memory>, inner: Option<&Rect>, planes: &Planes) -> Result<()> {
        let Planes { side, order, scale, offset, out, masked } = planes;
        let count = 3 * side * side;
        if inner.is_none() && *side != self.side {
            return Err(Error::invalid(format!("a crop of {} pixels is not shown whole in {side}", self.side)));
        }
        let (masked, mask, hidden) = match masked {
            Some(Masked { out: (out, at), mask, hidden }) => {
                (out.on(memory, *at, count)?, mask.on(memory, 0, side * side)?, *hidden)
            }
            None => (arguments::Pointer::NONE, arguments::Pointer::NONE, 0.0),
        };
        let Rect { x, y, width, height } = inner.copied().unwrap_or_default();
        let show = arguments::Show {
            crop: self.data.on(memory, 0, self.side * self.side * 3)?,
            out: out.0.on(memory, out.1, count)?,
            masked,
            mask,
            matrix: matrix(self.space, *order),
            size: number(self.side)?,
            side: number(*side)?,
            x,
            y,
            width,
            height,
            scale: *scale,
            offset: *offset,
            hidden,
        };
        // SAFETY: all are as large as the sides, which are the same where the whole crop is shown; samples are clamped to the crop.
        unsafe {
            match inner {
                None => launch(memory, &show, [*side; 2], TILE),
                Some(_) => launch(memory, &arguments::Inset(show), [*side; 2], TILE),
            }
        }
    }
}
