use super::{ACROSS, COLUMNS, DOWN, Key, LEAST_SIDE, ROWS, TILES, tiles_at};
use crate::{
    geometry::Similarity,
    image::{Crop, FrameView},
};

/// Side of the crop that is looked at.
const SIDE: usize = 128;
/// Half widths of the windows of the two means whose difference keeps the waves.
const FINE: usize = 1;
const COARSE: usize = 4;
/// What a new frame adds to the mean of those before it.
const FRESH: f32 = 0.1;
/// Changes beyond so many codes count less and less.
const LARGE: f32 = 3.0;

/// Correlates the frames of one face, 25 a second, with the fields of keys.
pub struct Reader {
    /// Of each key, over the lower face, row by row.
    fields: std::sync::Arc<Vec<Vec<f32>>>,
    /// Of the waves in the frames so far.
    mean: Option<Vec<f32>>,
}

/// What a frame says of a key: the correlation with its field, tile by tile.
pub type Tiles = [f32; TILES];

impl Reader {
    pub fn new(keys: &[Key]) -> Self {
        let (columns, rows) = (pixels(ACROSS), pixels(DOWN));
        let cut = |field: Vec<f32>| rows.clone().flat_map(|y| field[y * SIDE..][columns.clone()].to_vec()).collect();
        Self { fields: std::sync::Arc::new(keys.iter().map(|key| cut(key.field(SIDE))).collect()), mean: None }
    }

    /// One for another face.
    pub fn another(&self) -> Self {
        Self { fields: self.fields.clone(), mean: None }
    }

    /// Looks at the next frame, of which `place` goes from pixels to the unit crop of the face: a value a key. `None` where the face
    /// is too small to hold the mark.
    pub fn look(&mut self, frame: &FrameView, place: &Similarity) -> Option<Vec<Tiles>> {
        if place.inverse()?.scale() < LEAST_SIDE {
            return None;
        }
        let crop = Crop::take(frame, SIDE, place)?;
        let luma: Vec<f32> = crop.luma().into_iter().map(f32::from).collect();
        let waves: Vec<f32> =
            mean(&luma, FINE).iter().zip(&mean(&luma, COARSE)).map(|(fine, coarse)| fine - coarse).collect();
        let before = self.mean.get_or_insert_with(|| waves.clone());
        let (columns, rows) = (pixels(ACROSS), pixels(DOWN));
        let mut changes = Vec::with_capacity(columns.len() * rows.len());
        for y in rows {
            let row = y * SIDE..(y + 1) * SIDE;
            for (now, before) in waves[row.clone()][columns.clone()].iter().zip(&mut before[row][columns.clone()]) {
                let change = now - *before;
                *before += FRESH * change;
                changes.push(change / (1.0 + change.abs() / LARGE));
            }
        }
        Some(self.fields.iter().map(|field| tiles(&changes, field)).collect())
    }
}

fn pixels([from, to]: [f32; 2]) -> std::ops::Range<usize> {
    (from * SIDE as f32) as usize..(to * SIDE as f32).ceil() as usize
}

/// Sums of the product over the tiles, each pixel shared among the four around it.
fn tiles(changes: &[f32], field: &[f32]) -> Tiles {
    let (columns, rows) = (pixels(ACROSS), pixels(DOWN));
    let unit = |i: usize| (i as f32 + 0.5) / SIDE as f32;
    let across: Vec<_> = columns.clone().map(|x| tiles_at(unit(x), ACROSS, COLUMNS)).collect();
    let mut sums = [0.0; TILES];
    let lines = changes.chunks_exact(columns.len()).zip(field.chunks_exact(columns.len()));
    for (y, (changes, field)) in rows.zip(lines) {
        let mut line = [0.0; COLUMNS];
        for ((change, field), (column, share)) in changes.iter().zip(field).zip(&across) {
            let product = change * field;
            line[*column] += product * (1.0 - share);
            line[column + 1] += product * share;
        }
        let (row, share) = tiles_at(unit(y), DOWN, ROWS);
        for (x, value) in line.iter().enumerate() {
            sums[row * COLUMNS + x] += value * (1.0 - share);
            sums[(row + 1) * COLUMNS + x] += value * share;
        }
    }
    sums
}

/// Means over windows of `2 half + 1` pixels a side, the edge repeated.
fn mean(picture: &[f32], half: usize) -> Vec<f32> {
    let line = |from: &[f32], to: &mut [f32], count: usize, step: usize| {
        let at = |i: isize| from[i.clamp(0, count as isize - 1) as usize * step];
        let half = half as isize;
        let mut sum: f32 = (-half..=half).map(at).sum();
        for i in 0..count as isize {
            to[i as usize * step] = sum / (2 * half + 1) as f32;
            sum += at(i + half + 1) - at(i - half);
        }
    };
    let mut across = vec![0.0; picture.len()];
    for (from, to) in picture.chunks_exact(SIDE).zip(across.chunks_exact_mut(SIDE)) {
        line(from, to, SIDE, 1);
    }
    let mut down = vec![0.0; picture.len()];
    for x in 0..SIDE {
        line(&across[x..], &mut down[x..], SIDE, SIDE);
    }
    down
}
