//! The thin-plate warp of `compact`.

use std::{ops::Range, sync::Arc};

use super::{DeviceCrop, number};
use crate::{
    Result,
    cuda::{Buffer, Memory, arguments, launch, memory::TILE},
    geometry::{Rect, ThinPlate},
    image::Lattice,
};

/// A [`Lattice`] in the memory of a device.
pub struct DeviceLattice {
    cells: usize,
    nodes: Buffer<arguments::Node>,
    area: [Range<usize>; 2],
}

fn ends(range: &Range<usize>) -> Result<[i32; 2]> {
    Ok([number(range.start)?, number(range.end)?])
}

impl DeviceLattice {
    /// [`Lattice::over`]. Where the spline folds over itself the CPU relaxes it.
    pub fn over(memory: &Arc<dyn Memory>, plate: &ThinPlate, cells: usize, area: &Rect) -> Result<Self> {
        let cells = cells.clamp(1, 256);
        let columns_and_rows = Lattice::cells_of(cells, area);
        let (parts, affine) = plate.parts();
        let count = parts[0].len();
        let spline = Buffer::of(memory, &parts.concat())?;
        let part = |i: usize| spline.on(memory, i * count, count);
        let corners = (cells + 1) * (cells + 1);
        let lattice = Self { cells, nodes: Buffer::zeroed(memory, corners)?, area: columns_and_rows };
        let folded = Buffer::<i32>::zeroed(memory, 1)?;
        let [columns, rows] = &lattice.area;
        let nodes = arguments::Nodes {
            nodes: lattice.nodes.on(memory, 0, corners)?,
            folded: folded.on(memory, 0, 1)?,
            x: part(0)?,
            y: part(1)?,
            wx: part(2)?,
            wy: part(3)?,
            affine,
            count: number(count)?,
            cells: number(cells)?,
            columns: ends(columns)?,
            rows: ends(rows)?,
        };
        // SAFETY: there are as many nodes as corners of cells, the area lies in them, and the spline's parts have `count` numbers.
        unsafe {
            launch(memory, &nodes, [cells + 1; 2], TILE)?;
            launch(memory, &arguments::Folds(nodes), [columns.len(), rows.len()], TILE)?;
        }
        if folded.read()? == [0] { Ok(lattice) } else { Self::of(memory, &Lattice::over(plate, cells, area)) }
    }

    pub fn of(memory: &Arc<dyn Memory>, lattice: &Lattice) -> Result<Self> {
        let (cells, nodes, area) = lattice.parts();
        let nodes: Vec<_> = nodes.iter().map(|p| arguments::Node { x: p.x, y: p.y }).collect();
        Ok(Self { cells, nodes: Buffer::of(memory, &nodes)?, area: area.clone() })
    }

    /// [`Lattice::warp`].
    pub fn warp(&self, memory: &Arc<dyn Memory>, crop: &DeviceCrop) -> Result<DeviceCrop> {
        let data = Buffer::zeroed(memory, crop.data.len())?;
        let mut out = DeviceCrop { side: crop.side, space: crop.space, data };
        self.run(memory, crop, &mut out, 256, true)?;
        Ok(out)
    }

    /// [`Lattice::warp_mixed_into`]; crops of one size.
    pub fn warp_mixed_into(
        &self,
        memory: &Arc<dyn Memory>,
        crop: &DeviceCrop,
        out: &mut DeviceCrop,
        share: f32,
    ) -> Result<()> {
        self.run(memory, crop, out, (share.clamp(0.0, 1.0) * 256.0) as i32, false)
    }

    fn run(
        &self,
        memory: &Arc<dyn Memory>,
        crop: &DeviceCrop,
        out: &mut DeviceCrop,
        share: i32,
        copies: bool,
    ) -> Result<()> {
        let (side, count) = (crop.side, crop.side * crop.side * 3);
        let warp = arguments::Warp {
            crop: crop.data.on(memory, 0, count)?,
            out: out.data.on(memory, 0, count)?,
            nodes: self.nodes.on(memory, 0, (self.cells + 1) * (self.cells + 1))?,
            side: number(side)?,
            cells: number(self.cells)?,
            columns: ends(&self.area[0])?,
            rows: ends(&self.area[1])?,
            share,
            copies: copies.into(),
        };
        // SAFETY: both crops are as large as the side, and there are as many nodes as corners of cells.
        unsafe { launch(memory, &warp, [side; 2], TILE) }
    }
}
