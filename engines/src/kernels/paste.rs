//! From what a network painted back into a frame.

use std::sync::Arc;

use super::{
    DeviceCrop, Order, cut, number,
    region::{Area, Region, channels, plane_size},
    space,
};
use crate::{
    Error, Result,
    cuda::{Buffer, Memory, arguments, launch, memory::TILE},
    geometry::{Rect, Similarity},
    image::{
        ColorSpace, Format, FrameMut, paste as twin,
        raster::{Cut, Walk},
    },
};

/// Threads of the block that fits colours.
const FIT: [u32; 3] = [256, 1, 1];
/// And of those that go through pixels one after another.
const PIXELS: [u32; 3] = [256, 1, 1];

/// Puts planes of red, green and blue, `[3, side, side]` in their order from number `at` on, into the part `inner` of a crop, cubic
/// between their pixels: `value * scale + offset`, which is 0..1.
pub fn put(
    memory: &Arc<dyn Memory>,
    (planes, at): (&Buffer<f32>, usize),
    side: usize,
    ((scale, offset), order): ((f32, f32), Order),
    crop: &mut DeviceCrop,
    inner: &Rect,
) -> Result<()> {
    let count = side * side;
    let plane = |c: usize| planes.on(memory, at + order.places()[c] * count, count);
    let Rect { x, y, width, height } = *inner;
    let put = arguments::Put {
        crop: crop.data.on(memory, 0, crop.side * crop.side * 3)?,
        planes: [plane(0)?, plane(1)?, plane(2)?],
        size: number(crop.side)?,
        side: number(side)?,
        x,
        y,
        width,
        height,
        scale,
        offset,
        space: space(crop.space),
    };
    // SAFETY: all are as large as their sides.
    unsafe { launch(memory, &put, [crop.side; 2], TILE) }
}

/// How much of each pixel of a crop is painted, 0..255, `[side, side]`: the share of its column times that of its row, 0..1.
///
/// Errors: another number of columns than of rows.
pub fn cover(memory: &Arc<dyn Memory>, columns: &[f32], rows: &[f32]) -> Result<Buffer<u8>> {
    let side = columns.len();
    if rows.len() != side {
        return Err(Error::invalid(format!("a mask of {side} columns and {} rows is not square", rows.len())));
    }
    let shares = Buffer::of(memory, &[columns, rows].concat())?;
    let out = Buffer::room(memory, side * side)?;
    let cover = arguments::Cover {
        out: out.on(memory, 0, side * side)?,
        columns: shares.on(memory, 0, side)?,
        rows: shares.on(memory, side, side)?,
        side: number(side)?,
    };
    // SAFETY: all are as large as the side.
    unsafe { launch(memory, &cover, [side; 2], TILE)? };
    Ok(out)
}

/// The same picture in other colours.
pub fn convert(memory: &Arc<dyn Memory>, crop: &DeviceCrop, wanted: ColorSpace) -> Result<DeviceCrop> {
    let pixels = crop.side * crop.side;
    let data = Buffer::room(memory, pixels * 3)?;
    // As it is where they are the same.
    let [from, to] = if crop.space == wanted { [ColorSpace::Rgb; 2] } else { [crop.space, wanted] };
    let convert = arguments::Convert {
        from: crop.data.on(memory, 0, pixels * 3)?,
        out: data.on(memory, 0, pixels * 3)?,
        pixels: i64::from(number(pixels)?),
        space: space(from),
        wanted: space(to),
    };
    // SAFETY: both have so many pixels.
    unsafe { launch(memory, &convert, [pixels, 1], PIXELS)? };
    Ok(DeviceCrop { side: crop.side, space: wanted, data })
}

/// A [`crate::image::Patch`] in the memory of a device.
pub struct DevicePatch<'a> {
    pub pixels: &'a DeviceCrop,
    /// `[side, side]`, here and there.
    pub mask: (&'a [u8], &'a Buffer<u8>),
    pub to_frame: Similarity,
    pub opacity: f32,
}

/// Channels that lie in one plane, where they go there, and how.
struct Group {
    channels: std::ops::Range<usize>,
    cut: Cut,
    lines: Vec<arguments::Line>,
    step: (i32, i32),
    area: Area,
    /// Middle, and a pixel in units of half of what is pasted.
    middle: [f32; 3],
    /// Pixels of the frame that one of the plane is wide, and how far apart pixels are compared.
    spacing: usize,
    stride: usize,
}

impl Group {
    /// `None` where nothing of it lies in the plane.
    fn of(
        channels: std::ops::Range<usize>,
        to_crop: &Similarity,
        mask: (usize, twin::Bounds),
        spacing: usize,
        size: (usize, usize),
    ) -> Result<Option<Self>> {
        let Some((cut, walker)) = twin::placed(to_crop, mask, spacing as f32, size) else { return Ok(None) };
        let (mut lines, mut step) = (Vec::with_capacity(walker.rows.len()), (0, 0));
        let (mut left, mut right) = (size.0, 0);
        for y in walker.rows.clone() {
            let Some((columns, start)) = walker.line(y) else {
                lines.push(arguments::Line::default());
                continue;
            };
            let Walk { x, y, dx, dy } = walker.walk(&cut, start);
            step = (dx, dy);
            (left, right) = (left.min(columns.start), right.max(columns.end));
            lines.push(arguments::Line { first: number(columns.start)?, end: number(columns.end)?, x, y });
        }
        if left >= right {
            return Ok(None);
        }
        let area = Area { columns: left..right, rows: walker.rows.clone() };
        let middle = [walker.centre.x, walker.centre.y, walker.unit];
        Ok(Some(Self { channels, cut, lines, step, area, middle, spacing, stride: walker.stride() }))
    }
}

/// [`crate::image::paste`] of a patch that is not hard; only the part of the frame that the mask reaches is moved. What may have
/// changed, in planes of full resolution; empty where nothing did.
///
/// Errors: a mask that does not fit the pixels, a degenerate transform.
pub fn paste(memory: &Arc<dyn Memory>, frame: &mut FrameMut, patch: &DevicePatch) -> Result<Rect> {
    let (side, format) = (patch.pixels.side, frame.format());
    if patch.mask.0.len() != side * side || patch.mask.1.len() != side * side {
        return Err(Error::invalid(format!("a mask of {} values for a patch of {side}x{side}", patch.mask.0.len())));
    }
    let Some(inverse) = patch.to_frame.inverse().filter(|i| i.tx.is_finite() && i.ty.is_finite()) else {
        return Err(Error::invalid("the transform of a patch is degenerate"));
    };
    let opacity = patch.opacity.clamp(0.0, 1.0);
    let Some(bounds) = twin::mask_bounds(patch.mask.0, side).filter(|_| opacity > 0.0) else {
        return Ok(Rect::default());
    };
    let to_crop = twin::scaled(&inverse, side as f32);
    let places: &[(std::ops::Range<usize>, usize)] = match format {
        Format::Nv12 => &[(0..1, 1), (1..3, 2)],
        Format::I420 => &[(0..1, 1), (1..2, 2), (2..3, 2)],
        Format::Rgb | Format::Rgba | Format::Bgra => &[(0..3, 1)],
    };
    let whole = (frame.width(), frame.height());
    let mut groups = Vec::new();
    for (own, spacing) in places {
        let size = plane_size(format, channels(format)[own.start].0, whole);
        groups.extend(Group::of(own.clone(), &to_crop, (side, bounds), *spacing, size)?);
    }
    let area = |first: bool| groups.iter().find(|g| (g.channels.start == 0) == first).map(|g| g.area.clone());
    let areas = [area(true).unwrap_or_default(), area(false).unwrap_or_default()];
    let region = Region::upload(memory, &frame.view(), [&areas[0], &areas[1]])?;
    let own =
        if patch.pixels.space == frame.space() { None } else { Some(convert(memory, patch.pixels, frame.space())?) };
    let pixels = own.as_ref().unwrap_or(patch.pixels);
    for group in &groups {
        blend(memory, &region, group, pixels, patch.mask.1, opacity)?;
    }
    region.download(frame)?;
    Ok(touched(&groups, whole))
}

/// The box of all planes' areas in pixels of the frame.
fn touched(groups: &[Group], size: (usize, usize)) -> Rect {
    let span = |range: fn(&Area) -> &std::ops::Range<usize>, most: usize| {
        let scaled = |g: &Group| (range(&g.area).start * g.spacing, (range(&g.area).end * g.spacing).min(most));
        let ends = groups.iter().map(scaled).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        ends.map_or((0.0, 0.0), |(from, to)| (from as f32, (to - from) as f32))
    };
    let ((x, width), (y, height)) = (span(|area| &area.columns, size.0), span(|area| &area.rows, size.1));
    Rect { x, y, width, height }
}

fn blend(
    memory: &Arc<dyn Memory>,
    region: &Region,
    group: &Group,
    pixels: &DeviceCrop,
    mask: &Buffer<u8>,
    opacity: f32,
) -> Result<()> {
    let side = number(pixels.side)?;
    let own = pixels.data.on(memory, 0, pixels.side * pixels.side * 3)?;
    let whole =
        |data, step| arguments::Plane { data, stride: side * step, step, left: 0, top: 0, width: side, height: side };
    let lines = Buffer::of(memory, &group.lines)?;
    let mut target = arguments::Target {
        mask: whole(mask.on(memory, 0, pixels.side * pixels.side)?, 1),
        cut: cut(&group.cut, group.step)?,
        lines: lines.on(memory, 0, group.lines.len())?,
        channels: number(group.channels.len())?,
        top: number(group.area.rows.start)?,
        rows: number(group.lines.len())?,
        x: group.middle[0],
        y: group.middle[1],
        unit: group.middle[2],
        ..Default::default()
    };
    for (i, channel) in group.channels.clone().enumerate() {
        target.frame[i] = region.channels[channel];
        target.patch[i] = whole(own.beyond(channel), 3);
    }
    let [columns, rows] = [group.area.columns.len(), group.lines.len()];
    let sampled = [columns, rows].map(|count| count.div_ceil(group.stride));
    let samples = Buffer::room(memory, sampled[0] * sampled[1])?;
    let colour = Buffer::room(memory, 1)?;
    let fit = arguments::Fit {
        target,
        samples: samples.on(memory, 0, sampled[0] * sampled[1])?,
        out: colour.on(memory, 0, 1)?,
        stride: number(group.stride)?,
        sample_rows: number(sampled[1])?,
        sample_columns: number(sampled[0])?,
        with_gain: i32::from(group.channels.start == 0),
    };
    let left = number(group.area.columns.start)?;
    let blend = arguments::Blend { target, colour: fit.out, left, weight: opacity / 255.0 };
    // SAFETY: patch and mask are as large as the side, the region holds the lines, and samples are as many as are compared.
    unsafe {
        launch(memory, &arguments::Compare(fit), sampled, TILE)?;
        launch(memory, &fit, [1, 1], FIT)?;
        launch(memory, &blend, [columns, rows], TILE)
    }
}
