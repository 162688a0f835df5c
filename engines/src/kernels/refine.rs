//! What goes into and comes out of the refinement of `compact`, and what follows it.

use std::sync::Arc;

use super::{DeviceCrop, Order, matrix, number, space};
use crate::{
    Error, Result,
    cuda::{Buffer, Memory, arguments, launch, memory::TILE},
    geometry::{Point, Rect},
    image::{ColorSpace, sharpen, steady},
};

/// Pixels of a side of the network's window, as in `engines/kernels/refine.cu`.
const SIDE: usize = 128;
/// Threads of a block that draws a row of it.
const LINE: [u32; 3] = [SIDE as u32, 1, 1];
/// Corners of an outline at most: each crosses a scan line once.
const CORNERS: usize = 64;

/// The window with its first column and row at `corner` (pixels of a crop of `side / zoom`), as planes of red, green and blue, 0..1,
/// `[3, 128, 128]` from number `at` of `out` on.
pub fn window(
    memory: &Arc<dyn Memory>,
    crop: &DeviceCrop,
    zoom: usize,
    corner: [usize; 2],
    (out, at): (&Buffer<f32>, usize),
) -> Result<()> {
    let [x, y] = corner;
    if zoom == 0 || (x.max(y) + SIDE) * zoom > crop.side {
        return Err(Error::invalid(format!("a window at {corner:?} leaves a crop of {} pixels", crop.side)));
    }
    let window = arguments::Window {
        crop: crop.data.on(memory, 0, crop.side * crop.side * 3)?,
        out: out.on(memory, at, 3 * SIDE * SIDE)?,
        matrix: matrix(crop.space, Order::Rgb),
        side: number(crop.side)?,
        zoom: number(zoom)?,
        x: number(x)?,
        y: number(y)?,
    };
    // SAFETY: the window lies in the crop.
    unsafe { launch(memory, &window, [SIDE; 2], TILE) }
}

/// How much of each pixel of the window is covered by the mouth's inside, and by its lips: `[2, 128, 128]` from number `at` of `out`
/// on. Outlines are in pixels of the window.
pub fn shapes(
    memory: &Arc<dyn Memory>,
    inner: &[Point],
    outer: &[Point],
    (out, at): (&Buffer<f32>, usize),
) -> Result<()> {
    if inner.len().max(outer.len()) > CORNERS {
        return Err(Error::invalid(format!("an outline of more than {CORNERS} points")));
    }
    let points: Vec<f32> = inner.iter().chain(outer).flat_map(|p| [p.x, p.y]).collect();
    let points = Buffer::of(memory, &points)?;
    let shapes = arguments::Shapes {
        out: out.on(memory, at, 2 * SIDE * SIDE)?,
        points: points.on(memory, 0, 2 * (inner.len() + outer.len()))?,
        inner: number(inner.len())?,
        outer: number(outer.len())?,
    };
    // SAFETY: there are so many points, and room for both planes.
    unsafe { launch(memory, &shapes, [SIDE * SIDE, 1], LINE) }
}

/// Adds the network's differences of red, green and blue, `[3, 128, 128]` from number `at` of `delta` on, to the square at `corner`
/// (pixels of a crop of `side / zoom`).
pub fn correct(
    memory: &Arc<dyn Memory>,
    picture: &mut DeviceCrop,
    zoom: usize,
    corner: [usize; 2],
    (delta, at): (&Buffer<f32>, usize),
) -> Result<()> {
    let [x, y] = corner.map(|v| v * zoom);
    if zoom == 0 || x.max(y) + SIDE * zoom > picture.side {
        return Err(Error::invalid(format!("a window at {corner:?} leaves a crop of {} pixels", picture.side)));
    }
    let correct = arguments::Correct {
        picture: picture.data.on(memory, 0, picture.side * picture.side * 3)?,
        delta: delta.on(memory, at, 3 * SIDE * SIDE)?,
        space: space(picture.space),
        side: number(picture.side)?,
        zoom: number(zoom)?,
        x: number(x)?,
        y: number(y)?,
    };
    // SAFETY: the window lies in the picture.
    unsafe { launch(memory, &correct, [SIDE * zoom; 2], TILE) }
}

/// What follows the refinement inside an area: by how much the picture is sharpened, and after how many frames of 40 ms it is
/// steadied.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    pub area: &'a Rect,
    pub amount: f32,
    pub reach: usize,
    /// The picture of the last frame.
    pub before: Option<(&'a DeviceCrop, f32)>,
    /// What is known to move, steadied as after so many more frames.
    pub moving: Option<(Rect, f32)>,
}

/// The picture sharpened and steadied; a picture before of another side or other colours does not count.
pub fn finish(memory: &Arc<dyn Memory>, picture: &DeviceCrop, finish: &Finish) -> Result<DeviceCrop> {
    let (side, reach) = (picture.side, finish.reach.max(1));
    let count = side * side * 3;
    let ends = |range: &std::ops::Range<usize>| -> Result<[i32; 2]> { Ok([number(range.start)?, number(range.end)?]) };
    let [columns, rows] = sharpen::sharpened(side, finish.area, reach).unwrap_or([0..0, 0..0]);
    let [calm_columns, calm_rows] = steady::steadied(side, finish.area);
    let [moving_columns, moving_rows] =
        finish.moving.map_or([0..0, 0..0], |(moving, _)| steady::steadied(side, &moving));
    let more = finish.moving.map_or(0.0, |(_, more)| more);
    let alike = |before: &&(&DeviceCrop, f32)| (before.0.side, before.0.space) == (side, picture.space);
    let before = finish.before.as_ref().filter(alike);
    let data = Buffer::room(memory, count)?;
    let arguments = arguments::Finish {
        from: picture.data.on(memory, 0, count)?,
        before: before.map(|before| before.0.data.on(memory, 0, count)).transpose()?.unwrap_or_default(),
        out: data.on(memory, 0, count)?,
        side: number(side)?,
        columns: ends(&columns)?,
        rows: ends(&rows)?,
        weight: sharpen::weight(finish.amount),
        reach: number(reach)?,
        calm_columns: ends(&calm_columns)?,
        calm_rows: ends(&calm_rows)?,
        calm: before.map_or(1.0, |before| steady::calm(before.1)),
        moving_columns: ends(&moving_columns)?,
        moving_rows: ends(&moving_rows)?,
        lively: before.map_or(1.0, |before| steady::calm(before.1 + more)),
        yuv: (picture.space != ColorSpace::Rgb).into(),
    };
    // SAFETY: all pictures are as large as the side.
    unsafe { launch(memory, &arguments, [side; 2], TILE)? };
    Ok(DeviceCrop { side, space: picture.space, data })
}
