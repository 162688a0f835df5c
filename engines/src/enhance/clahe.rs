//! Contrast-limited adaptive histogram equalisation (K. Zuiderveld, "Contrast limited adaptive histogram equalization",
//! Graphics Gems IV, 1994), of the pixels of one face: each tile keeps its mean, so that a face is no brighter than the neck
//! below it, and its curve moves slowly, so that a face does not flicker as its pixels go from tile to tile.

/// Tiles across and down.
pub(super) const TILES: usize = 4;
/// A bin holds at most so many times what it would if all values were equally frequent.
const CLIP: f32 = 2.0;
/// Part of the whole face's histogram in each tile's, so that a tile with few pixels of the face has a curve.
const SHARED: f32 = 0.25;
/// How far a curve goes from frame to frame to the one of that frame.
const RATE: f32 = 0.12;

type Curve = [f32; 256];

/// What is added to each value, by tile; kept from frame to frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Clahe {
    /// `[TILES * TILES]`; empty before the first frame.
    curves: Vec<Curve>,
}

/// Where a pixel lies among the tiles' centres of one axis: the tile before it, the one after it, and how near it is to that.
fn between(at: f32, from: f32, to: f32) -> (usize, usize, f32) {
    let place = ((at - from) / (to - from).max(1.0) * TILES as f32 - 0.5).clamp(0.0, (TILES - 1) as f32);
    let tile = (place as usize).min(TILES - 2);
    (tile, tile + 1, place - tile as f32)
}

/// The change of each value by the clipped and equalised `histogram`, of which `range` are the least and the highest value,
/// without what it does to the mean.
fn curve(histogram: &[f32; 256], [low, high]: [f32; 2]) -> Curve {
    let total: f32 = histogram.iter().sum();
    let mut change = [0.0; 256];
    if total <= 0.0 {
        return change;
    }
    let bins = (high - low).clamp(1.0, 255.0) + 1.0;
    let limit = CLIP * total / bins;
    let excess: f32 = histogram.iter().map(|n| (n - limit).max(0.0)).sum();
    let share = excess / bins;
    let (mut below, mut mean) = (0.0, 0.0);
    for (value, change) in change.iter_mut().enumerate() {
        let at = value as f32;
        let clipped = if (low..=high).contains(&at) { histogram[value].min(limit) + share } else { 0.0 };
        // The middle of the bin, so that an even histogram changes nothing.
        *change = low - 0.5 + bins * (below + 0.5 * clipped) / total - at;
        below += clipped;
        mean += *change * histogram[value] / total;
    }
    change.iter_mut().for_each(|change| *change -= mean);
    change
}

impl Clahe {
    /// Moves the curves on to those of `plane` `[rows, width]`, whose first pixel is at `corner` of the frame. Pixels count
    /// where `counts` says so of a place of the plane. `extent`: left, top, right, bottom of the tiles.
    pub fn learn(
        &mut self,
        plane: &[f32],
        width: usize,
        (corner, extent): ([usize; 2], [f32; 4]),
        range: [f32; 2],
        counts: impl Fn(usize) -> bool,
    ) {
        let mut tiles = vec![[0.0f32; 256]; TILES * TILES];
        let mut all = [0.0f32; 256];
        let tile = |at: f32, from: f32, to: f32| {
            ((at - from) / (to - from).max(1.0) * TILES as f32).clamp(0.0, TILES as f32 - 1.0) as usize
        };
        let columns: Vec<usize> =
            (0..width).map(|x| tile((corner[0] + x) as f32 + 0.5, extent[0], extent[2])).collect();
        for (y, line) in plane.chunks_exact(width.max(1)).enumerate() {
            let row = tile((corner[1] + y) as f32 + 0.5, extent[1], extent[3]) * TILES;
            for (x, value) in line.iter().enumerate().filter(|(x, _)| counts(y * width + x)) {
                let bin = (value.clamp(range[0], range[1]) + 0.5) as usize;
                tiles[row + columns[x]][bin] += 1.0;
                all[bin] += 1.0;
            }
        }
        let share = SHARED / (TILES * TILES) as f32;
        let first = self.curves.is_empty();
        self.curves.resize(TILES * TILES, [0.0; 256]);
        for (kept, tile) in self.curves.iter_mut().zip(&mut tiles) {
            tile.iter_mut().zip(&all).for_each(|(n, all)| *n += share * all);
            let rate = if first { 1.0 } else { RATE };
            kept.iter_mut().zip(curve(tile, range)).for_each(|(kept, new)| *kept += rate * (new - *kept));
        }
    }

    /// Adds `amount` times what the curves of the four nearest tiles say of each value.
    pub fn apply(
        &self,
        plane: &mut [f32],
        width: usize,
        (corner, extent): ([usize; 2], [f32; 4]),
        range: [f32; 2],
        amount: f32,
    ) {
        if self.curves.is_empty() {
            return;
        }
        let columns: Vec<_> = (0..width).map(|x| between((corner[0] + x) as f32 + 0.5, extent[0], extent[2])).collect();
        for (y, line) in plane.chunks_exact_mut(width.max(1)).enumerate() {
            let (above, below, down) = between((corner[1] + y) as f32 + 0.5, extent[1], extent[3]);
            let (above, below) = (&self.curves[above * TILES..], &self.curves[below * TILES..]);
            for (value, (left, right, along)) in line.iter_mut().zip(&columns) {
                let at = value.clamp(range[0], range[1]);
                let (bin, part) = (at as usize, at.fract());
                let says = |curve: &Curve| curve[bin] + (curve[(bin + 1).min(255)] - curve[bin]) * part;
                let top = says(&above[*left]) * (1.0 - along) + says(&above[*right]) * along;
                let bottom = says(&below[*left]) * (1.0 - along) + says(&below[*right]) * along;
                *value += amount * (top + (bottom - top) * down);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [f32; 2] = [0.0, 255.0];

    #[test]
    fn an_even_histogram_changes_nothing_and_a_narrow_one_is_stretched_about_its_mean() {
        assert!(curve(&[10.0; 256], FULL).iter().all(|c| c.abs() < 0.01));
        assert!(curve(&[0.0; 256], FULL).iter().all(|c| *c == 0.0));
        let mut narrow = [0.0; 256];
        narrow[100..140].fill(50.0);
        let found = curve(&narrow, FULL);
        // 40 of 256 bins at the limit of twice the even share, the rest of the pixels spread over all bins.
        let slope = 2.0 + (1.0 - 2.0 * 40.0 / 256.0);
        assert!((found[120] - found[119] - (slope - 1.0)).abs() < 0.01, "{}", found[120] - found[119]);
        let mean: f32 = (100..140).map(|v| found[v] / 40.0).sum();
        assert!(mean.abs() < 0.01 && found[139] > 15.0 && found[100] < -15.0, "{mean}");
    }

    #[test]
    fn equalised_values_are_those_of_the_formula_between_four_tiles() {
        let (width, rows) = (64usize, 48usize);
        let before: Vec<f32> = (0..width * rows).map(|i| (80 + (i % width) + (i * 7919) % 23) as f32).collect();
        let place = ([10, 20], [10.0, 20.0, 74.0, 68.0]);
        let mut clahe = Clahe::default();
        let mut after = before.clone();
        clahe.apply(&mut after, width, place, FULL, 1.0);
        assert_eq!(after, before, "nothing has been learnt");
        clahe.learn(&before, width, place, FULL, |_| true);
        clahe.apply(&mut after, width, place, FULL, 0.5);
        let of_tile = |column: usize, row: usize| {
            let mut histogram = [0.0f32; 256];
            for (i, v) in before.iter().enumerate() {
                let inside = (i % width) / 16 == column && (i / width) / 12 == row;
                histogram[*v as usize] += if inside { 1.0 } else { 0.0 } + 0.25 / 16.0;
            }
            curve(&histogram, FULL)
        };
        for (x, y) in [(0, 0), (8, 6), (20, 15), (33, 30), (63, 47)] {
            let axis = |at: usize, tile: f32| ((at as f32 + 0.5) / tile - 0.5).clamp(0.0, 3.0);
            let (u, v) = (axis(x, 16.0), axis(y, 12.0));
            let (c, r) = ((u as usize).min(2), (v as usize).min(2));
            let (u, v) = (u - c as f32, v - r as f32);
            let old = before[y * width + x];
            let says = |c: usize, r: usize| of_tile(c, r)[old as usize];
            let change = (1.0 - v) * ((1.0 - u) * says(c, r) + u * says(c + 1, r))
                + v * ((1.0 - u) * says(c, r + 1) + u * says(c + 1, r + 1));
            let found = after[y * width + x];
            assert!((found - old - 0.5 * change).abs() < 0.01, "{x}, {y}: {found}, {old} + {change} / 2");
        }
    }

    #[test]
    fn curves_move_slowly_and_only_what_counts_is_learnt() {
        let (width, place) = (16usize, ([0, 0], [0.0, 0.0, 16.0, 16.0]));
        let dark: Vec<f32> = (0..256).map(|i| 40.0 + (i % 30) as f32).collect();
        let bright: Vec<f32> = dark.iter().map(|v| v + 100.0).collect();
        let mut clahe = Clahe::default();
        clahe.learn(&dark, width, place, FULL, |_| true);
        let before = clahe.curves[5][60];
        clahe.learn(&bright, width, place, FULL, |_| true);
        let (step, all) = ((clahe.curves[5][60] - before).abs(), {
            let mut other = Clahe::default();
            other.learn(&bright, width, place, FULL, |_| true);
            (other.curves[5][60] - before).abs()
        });
        assert!(all > 5.0 && (step / all - RATE).abs() < 0.01, "{step} of {all}");
        let mut none = Clahe::default();
        none.learn(&dark, width, place, FULL, |_| false);
        assert!(none.curves.iter().flatten().all(|c| *c == 0.0));
    }
}
