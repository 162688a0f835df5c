//! A picture warped by a spline.

use std::ops::Range;

use super::{Crop, Texture, Walk};
use crate::geometry::{Point, Rect, ThinPlate};

/// A warp sampled on a square grid over the unit crop, linear between the nodes: cheap enough to move every pixel.
#[derive(Clone, Debug)]
pub struct Lattice {
    cells: usize,
    /// `[(cells + 1), (cells + 1)]`, row by row.
    nodes: Vec<Point>,
    /// Columns and rows of cells whose nodes are the spline's.
    area: [Range<usize>; 2],
}

impl Lattice {
    /// Samples `plate` at the corners of `cells` x `cells` squares (1..=256). Where the spline folds over itself (two
    /// neighbours wanted on opposite sides of each other) the nodes are relaxed until it does not.
    pub fn new(plate: &ThinPlate, cells: usize) -> Self {
        Self::over(plate, cells, &Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 })
    }

    /// As [`Lattice::new`], for use inside `area` (unit crop coordinates) alone.
    pub fn over(plate: &ThinPlate, cells: usize, area: &Rect) -> Self {
        let cells = cells.clamp(1, 256);
        let mut lattice = Self::sampled(plate, cells, Self::cells_of(cells, area));
        if !lattice.folded().is_empty() {
            // What relaxes a fold may lie outside of the area.
            lattice = Self::sampled(plate, cells, [0..cells, 0..cells]);
            lattice.unfold();
        }
        lattice
    }

    /// The columns and rows of `cells` that hold `area`.
    pub(crate) fn cells_of(cells: usize, area: &Rect) -> [Range<usize>; 2] {
        let range = |low: f32, length: f32| {
            let place = |v: f32| (v * cells as f32).clamp(0.0, cells as f32);
            place(low) as usize..(place(low + length).ceil() as usize).max(1)
        };
        [range(area.x, area.width), range(area.y, area.height)]
    }

    /// Its cells on a side, its nodes, and the columns and rows of cells whose nodes are the spline's.
    pub(crate) fn parts(&self) -> (usize, &[Point], &[Range<usize>; 2]) {
        (self.cells, &self.nodes, &self.area)
    }

    fn sampled(plate: &ThinPlate, cells: usize, area: [Range<usize>; 2]) -> Self {
        let place = |i: usize| i as f32 / cells as f32;
        let mut nodes: Vec<Point> =
            (0..=cells).flat_map(|j| (0..=cells).map(move |i| Point::new(place(i), place(j)))).collect();
        for j in area[1].start..=area[1].end {
            plate.apply_all(&mut nodes[j * (cells + 1) + area[0].start..=j * (cells + 1) + area[0].end]);
        }
        Self { cells, nodes, area }
    }

    /// Cells whose corners do not turn the right way round at one of them.
    fn folded(&self) -> Vec<(usize, usize)> {
        let row = self.cells + 1;
        let turn = |a: Point, b: Point, c: Point| (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
        let [columns, rows] = self.area.clone();
        let all = rows.flat_map(|j| columns.clone().map(move |i| (i, j)));
        all.filter(|(i, j)| {
            let at = j * row + i;
            let [a, b, c, d] = [at, at + 1, at + row + 1, at + row].map(|k| self.nodes[k]);
            turn(a, b, d) <= 0.0 || turn(b, c, a) <= 0.0 || turn(c, d, b) <= 0.0 || turn(d, a, c) <= 0.0
        })
        .collect()
    }

    fn unfold(&mut self) {
        let (row, last) = (self.cells + 1, self.cells);
        for _ in 0..40 {
            let folded = self.folded();
            if folded.is_empty() {
                return;
            }
            let mut marked = vec![false; row * row];
            for (i, j) in folded {
                for (x, y) in [(i, j), (i + 1, j), (i, j + 1), (i + 1, j + 1)] {
                    marked[y * row + x] = true;
                }
            }
            let before = self.nodes.clone();
            for j in 0..=last {
                for i in (0..=last).filter(|i| marked[j * row + i]) {
                    // A border node slides along its border only.
                    let (x, y) = (i.clamp(1, last.max(2) - 1), j.clamp(1, last.max(2) - 1));
                    let (across, along) = ((i > 0 && i < last), (j > 0 && j < last));
                    let mut sum = Point::default();
                    let mut count = 0.0;
                    if across {
                        sum = sum + before[j * row + x - 1] + before[j * row + x + 1];
                        count += 2.0;
                    }
                    if along {
                        sum = sum + before[(y - 1) * row + i] + before[(y + 1) * row + i];
                        count += 2.0;
                    }
                    if count > 0.0 {
                        self.nodes[j * row + i] = before[j * row + i].lerp(sum * (1.0 / count), 0.7);
                    }
                }
            }
        }
    }

    /// Where `p` of the warped picture comes from.
    pub fn at(&self, p: Point) -> Point {
        let cells = self.cells as f32;
        let (u, v) = ((p.x * cells).clamp(0.0, cells), (p.y * cells).clamp(0.0, cells));
        let (i, j) = ((u as usize).min(self.cells - 1), (v as usize).min(self.cells - 1));
        let at = j * (self.cells + 1) + i;
        let upper = self.nodes[at].lerp(self.nodes[at + 1], u - i as f32);
        let lower = self.nodes[at + self.cells + 1].lerp(self.nodes[at + self.cells + 2], u - i as f32);
        upper.lerp(lower, v - j as f32)
    }

    /// `out(p) = crop(lattice(p))` in unit coordinates, cubic between pixels; beyond the crop its edge is repeated. Outside of
    /// the lattice's area the crop stays as it is.
    pub fn warp(&self, crop: &Crop) -> Crop {
        let mut out = crop.clone();
        self.warp_into(crop, &mut out, |_, value| value);
        out
    }

    /// `out` with a `share` (0..=1) of [`Lattice::warp`] of `crop`, in place; outside of the lattice's area `out` stays as
    /// it is.
    pub fn warp_mixed_into(&self, crop: &Crop, out: &mut Crop, share: f32) {
        let share = (share.clamp(0.0, 1.0) * 256.0) as u16;
        self.warp_into(crop, out, |old, new| ((u16::from(old) * (256 - share) + u16::from(new) * share) >> 8) as u8);
    }

    #[inline(always)]
    fn warp_into(&self, crop: &Crop, out: &mut Crop, mix: impl Fn(u8, u8) -> u8) {
        let side = crop.side;
        let texture = Texture::<3> { data: &crop.data, width: side, height: side };
        let fixed = |v: f32| ((v * side as f32 - 0.5) * 65536.0) as i32;
        let (row, per_pixel) = (self.cells + 1, self.cells as f32 / side as f32);
        // Pixel columns, and rows, whose centres lie in each column of cells.
        let edge = |i: usize| ((i * side) as f32 / self.cells as f32 - 0.5).ceil().max(0.0) as usize;
        let edges: Vec<usize> = (0..=self.cells).map(|i| edge(i).min(side)).collect();
        let [columns, rows] = self.area.clone();
        let (mut line, mut values) = (vec![Point::default(); row], Vec::new());
        let lines = edges[rows.start]..edges[rows.end];
        for (y, pixels) in out.data.chunks_exact_mut(side * 3).enumerate().skip(lines.start).take(lines.len()) {
            let v = (y as f32 + 0.5) * per_pixel;
            let j = (v as usize).min(self.cells - 1);
            let (upper, lower) = (&self.nodes[j * row..][..row], &self.nodes[(j + 1) * row..][..row]);
            for ((p, a), b) in line.iter_mut().zip(upper).zip(lower) {
                *p = a.lerp(*b, v - j as f32);
            }
            for i in columns.clone() {
                let columns = edges[i]..edges[i + 1];
                let step = (line[i + 1] - line[i]) * per_pixel;
                let start = line[i] + step * ((columns.start as f32 + 0.5) - i as f32 / per_pixel);
                let (x, y) = (fixed(start.x), fixed(start.y));
                let (dx, dy) = ((step.x * side as f32 * 65536.0) as i32, (step.y * side as f32 * 65536.0) as i32);
                let cell = &mut pixels[columns.start * 3..columns.end * 3];
                values.resize(columns.len(), [0.0; 3]);
                texture.sample_line(Walk { x, y, dx, dy }, &mut values);
                for (pixel, value) in cell.as_chunks_mut::<3>().0.iter_mut().zip(&values) {
                    for (old, new) in pixel.iter_mut().zip(value) {
                        *old = mix(*old, (new + 0.5) as u8);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ColorSpace;

    /// Points scattered evenly and without a pattern.
    fn scatter(n: usize) -> Vec<Point> {
        let halton = |mut i: usize, base: usize| {
            let (mut f, mut v) = (1.0, 0.0);
            while i > 0 {
                f /= base as f32;
                v += f * (i % base) as f32;
                i /= base;
            }
            v
        };
        (1..=n).map(|i| Point::new(halton(i, 2), halton(i, 3))).collect()
    }

    fn moved(points: &[Point], by: f32) -> Vec<Point> {
        points.iter().map(|p| *p + Point::new((p.y * 9.0).sin() * by, (p.x * 7.0).cos() * by)).collect()
    }

    #[test]
    fn a_lattice_follows_its_spline() {
        let from = scatter(100);
        let plate = ThinPlate::fit(&from, &moved(&from, 0.03), 1e-5).unwrap();
        let lattice = Lattice::new(&plate, 32);
        for p in scatter(300) {
            // A quarter of a pixel of 256.
            assert!(lattice.at(p).distance(plate.apply(p)) < 1e-3);
        }
    }

    #[test]
    fn crossing_wishes_do_not_fold_the_picture() {
        let mut from = scatter(40);
        let mut to = from.clone();
        from.extend([Point::new(0.45, 0.5), Point::new(0.55, 0.5)]);
        to.extend([Point::new(0.62, 0.5), Point::new(0.38, 0.5)]);
        let plate = ThinPlate::fit(&from, &to, 0.0).unwrap();
        let folded = |p: Point| plate.apply(p + Point::new(0.03, 0.0)).x < plate.apply(p).x;
        assert!(folded(Point::new(0.48, 0.5)), "the test must ask for a fold");
        for cells in [8, 32] {
            assert_eq!(Lattice::new(&plate, cells).folded(), vec![], "{cells}");
        }
    }

    #[test]
    fn a_warp_moves_pixels_to_where_the_lattice_says() {
        // out(p) = crop(p + 0.1): a dot at (0.6, 0.5) appears at (0.5, 0.5).
        let from = scatter(12);
        let to: Vec<Point> = from.iter().map(|p| *p + Point::new(0.1, 0.0)).collect();
        let plate = ThinPlate::fit(&from, &to, 0.0).unwrap();
        let side = 100;
        let dot = |x: f32, y: f32| (220.0 * (-0.05 * ((x - 60.0).powi(2) + (y - 50.0).powi(2))).exp()) as u8;
        let data = (0..side * side).flat_map(|k| [dot((k % side) as f32 + 0.5, (k / side) as f32 + 0.5); 3]).collect();
        let out = Lattice::new(&plate, 13).warp(&Crop { side, space: ColorSpace::Rgb, data });
        let (mut sum, mut at) = (0.0, Point::default());
        for (k, p) in out.data.as_chunks::<3>().0.iter().enumerate() {
            assert!(p[0] == p[1] && p[1] == p[2]);
            sum += f32::from(p[0]);
            at = at + Point::new((k % side) as f32 + 0.5, (k / side) as f32 + 0.5) * f32::from(p[0]);
        }
        let centre = at * (1.0 / sum);
        assert!(centre.distance(Point::new(50.0, 50.0)) < 0.05, "{centre:?}");
    }

    #[test]
    fn inside_an_area_it_is_the_whole_warp_and_outside_the_crop() {
        let from = scatter(90);
        let plate = ThinPlate::fit(&from, &moved(&from, 0.03), 1e-4).unwrap();
        let side = 120;
        let crop = |salt: usize| Crop {
            side,
            space: ColorSpace::Rgb,
            data: (0..side * side * 3).map(|i| ((i * 31 + i / 97 * salt) % 251) as u8).collect(),
        };
        let area = Rect { x: 0.3, y: 0.4, width: 0.35, height: 0.5 };
        let (whole, part) = (Lattice::new(&plate, 32).warp(&crop(7)), Lattice::over(&plate, 32, &area));
        let warped = part.warp(&crop(7));
        let mut both = crop(5);
        part.warp_mixed_into(&crop(7), &mut both, 0.5);
        let (plain, under) = (crop(7).data, crop(5).data);
        for (k, p) in warped.data.iter().enumerate() {
            let unit = |v: usize| (v as f32 + 0.5) / side as f32;
            let (x, y) = (unit(k / 3 % side), unit(k / 3 / side));
            let inside = |margin: f32| {
                (area.x - margin..area.x + area.width + margin).contains(&x)
                    && (area.y - margin..area.y + area.height + margin).contains(&y)
            };
            if inside(0.0) {
                let mean = (u16::from(whole.data[k]) + u16::from(under[k])) / 2;
                assert_eq!((*p, both.data[k]), (whole.data[k], mean as u8));
            } else if !inside(1.0 / 32.0) {
                assert_eq!(*p, plain[k]);
            }
        }
    }

    #[test]
    fn the_identity_warps_to_the_same_picture() {
        let from = scatter(20);
        let plate = ThinPlate::fit(&from, &from, 0.0).unwrap();
        for (side, cells) in [(64, 32), (37, 10), (5, 32)] {
            let data: Vec<u8> = (0..side * side * 3).map(|i| (i * 31 % 251) as u8).collect();
            let crop = Crop { side, space: ColorSpace::Rgb, data };
            let out = Lattice::new(&plate, cells).warp(&crop);
            let worst = out.data.iter().zip(&crop.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= 2, "{side} {cells}: {worst}");
        }
    }
}
