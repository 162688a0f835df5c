use std::ops::Range;

use crate::geometry::{Point, Rect};

/// Where a soft edge lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feather {
    /// Inside of the outline, which nothing of it leaves.
    Inside,
    /// Half of it on either side of the outline.
    Across,
}

/// Coverage of the pixels of a crop of `side`, 0..255, by an outline in unit crop coordinates: a polygon.
/// Its soft edge is what three box blurs of `2 radius + 1` pixels make: three radii to either side, of which [`Feather::Inside`]
/// takes the inner half. The crop's border is 0.
pub(crate) fn covered(side: usize, outline: &[Point], radius: usize, feather: Feather, inside: Inside) -> Vec<u8> {
    let mut mask = Mask::fill(side, outline, radius, inside);
    for _ in 0..3 {
        mask.blur_columns(radius);
    }
    mask.bytes(radius, feather)
}

/// What an outline that crosses itself encloses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Whatever it goes round an odd number of times.
    Odd,
    /// Whatever it goes round the way in which it goes round most of its area. A loop that turns the other way is outside: where
    /// a nose stands out beyond the far cheek of a head that is turned away, it is what lies between them.
    OneWay,
}

impl Inside {
    /// Whether a place is inside that has so many `turns` to its left, downwards less upwards, of an outline of this `sense`.
    fn holds(self, turns: i32, sense: i32) -> bool {
        match self {
            Self::Odd => turns % 2 != 0,
            Self::OneWay => turns * sense > 0,
        }
    }
}

/// The sign of the turns of a place within most of an outline.
fn sense(outline: &[Point]) -> i32 {
    let edges = outline.iter().zip(outline.iter().cycle().skip(1));
    let area: f32 = edges.map(|(a, b)| a.x * b.y - b.x * a.y).sum();
    if area > 0.0 { -1 } else { 1 }
}

/// The part of the crop that an outline can reach, as sums of box blurs that are not divided: whole numbers, in f32 exact
/// for crops of up to 430 pixels and far finer than a byte beyond.
struct Mask {
    side: usize,
    columns: Range<usize>,
    rows: Range<usize>,
    /// `[rows, columns]`
    sums: Vec<f32>,
}

impl Mask {
    /// The polygon at the pixels' centres, blurred three times along its rows. A row is a few spans, and three box blurs make
    /// the same ramp of every edge of one.
    fn fill(side: usize, outline: &[Point], radius: usize, inside: Inside) -> Self {
        let limit = side as f32;
        // Later blurs read up to three radii beyond what the first ones have filled.
        let margin = (3 * radius + 1) as f32;
        let range = |low: f32, high: f32| {
            let (low, high) = ((low * limit - margin).clamp(0.0, limit), (high * limit + margin).clamp(0.0, limit));
            low as usize..high.ceil() as usize
        };
        let rect = Rect::around(outline).unwrap_or_default();
        let (columns, rows) = (range(rect.x, rect.x + rect.width), range(rect.y, rect.y + rect.height));
        let ramp = ramp(radius);
        let full = ramp[ramp.len() - 1];
        let mut sums = vec![0.0; columns.len() * rows.len()];
        let (mut crossings, mut ends) = (Vec::with_capacity(8), Vec::with_capacity(8));
        let sense = sense(outline);
        for (line, row) in sums.chunks_exact_mut(columns.len().max(1)).zip(rows.clone()) {
            let y = (row as f32 + 0.5) / limit;
            crossings.clear();
            for (a, b) in outline.iter().zip(outline.iter().cycle().skip(1)) {
                if (a.y <= y) != (b.y <= y) {
                    let x = (a.x + (b.x - a.x) * (y - a.y) / (b.y - a.y)) * limit;
                    crossings.push((x, if b.y > a.y { 1 } else { -1 }));
                }
            }
            crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
            ends.clear();
            let mut turns = 0;
            for (x, way) in &crossings {
                let before = inside.holds(turns, sense);
                turns += way;
                if inside.holds(turns, sense) != before {
                    ends.push(*x);
                }
            }
            for span in ends.as_chunks::<2>().0 {
                let [from, to] = span.map(|x| (x - 0.5).ceil().clamp(0.0, limit) as usize);
                // The crop's edge repeats: a span that reaches it has no end there.
                let mut edge = |at: usize, sign: f32| {
                    if at == 0 {
                        line.iter_mut().for_each(|v| *v += sign * full);
                    } else if at < side {
                        // The ramp's first value lies 3 radii before the edge.
                        let first = at as i64 - 3 * radius as i64 - columns.start as i64;
                        let skip = (-first).max(0) as usize;
                        let begin = first.max(0) as usize;
                        let values = &ramp[skip.min(ramp.len())..];
                        for (v, r) in line.iter_mut().skip(begin).zip(values) {
                            *v += sign * r;
                        }
                        let after = (first + ramp.len() as i64).max(0) as usize;
                        line.iter_mut().skip(after).for_each(|v| *v += sign * full);
                    }
                };
                if from < to {
                    edge(from, 1.0);
                    edge(to, -1.0);
                }
            }
        }
        Self { side, columns, rows, sums }
    }

    /// Running sum of `2 radius + 1` pixels along each column; the edge repeats.
    fn blur_columns(&mut self, radius: usize) {
        let width = self.columns.len();
        if self.sums.is_empty() {
            return;
        }
        let last = self.rows.len() - 1;
        let source = std::mem::replace(&mut self.sums, vec![0.0; width * self.rows.len()]);
        let row = |i: i64| &source[i.clamp(0, last as i64) as usize * width..][..width];
        let mut sum = vec![0.0; width];
        for i in -(radius as i64)..=radius as i64 {
            sum.iter_mut().zip(row(i)).for_each(|(s, v)| *s += v);
        }
        for (i, out) in self.sums.chunks_exact_mut(width).enumerate() {
            out.copy_from_slice(&sum);
            let (comes, goes) = (row((i + radius + 1) as i64), row(i as i64 - radius as i64));
            for ((s, c), g) in sum.iter_mut().zip(comes).zip(goes) {
                *s += c - g;
            }
        }
    }

    /// The blurred values, or their upper half, stretched to 0..255; the crop's border stays 0.
    fn bytes(&self, radius: usize, feather: Feather) -> Vec<u8> {
        let side = self.side;
        let (part, from) = match feather {
            Feather::Inside => (2.0, 1.0),
            Feather::Across => (1.0, 0.0),
        };
        let scale = part / (2 * radius + 1).pow(6) as f32;
        let mut bytes = vec![0; side * side];
        for (line, y) in self.sums.chunks_exact(self.columns.len().max(1)).zip(self.rows.clone()) {
            let out = &mut bytes[y * side + self.columns.start..][..self.columns.len()];
            for (o, v) in out.iter_mut().zip(line) {
                *o = ((v * scale - from).clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
            }
        }
        for i in 0..side {
            for edge in [i, (side - 1) * side + i, i * side, i * side + side - 1] {
                bytes[edge] = 0;
            }
        }
        bytes
    }
}

/// What three running sums of `2 radius + 1` make of a step from 0 to 1, from the first value above 0 on to the full one.
/// The step is at index `3 radius`.
fn ramp(radius: usize) -> Vec<f32> {
    let width = 2 * radius + 1;
    let mut kernel = vec![1.0];
    for _ in 0..3 {
        let mut wider = vec![0.0; kernel.len() + width - 1];
        for (i, k) in kernel.iter().enumerate() {
            wider[i..i + width].iter_mut().for_each(|w| *w += k);
        }
        kernel = wider;
    }
    let mut sum = 0.0;
    kernel
        .iter()
        .map(|k| {
            sum += k;
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 128;
    /// A square with a notch from above.
    const NOTCHED: [[f32; 2]; 7] = [[0.2, 0.2], [0.4, 0.2], [0.5, 0.5], [0.6, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]];

    #[test]
    fn a_soft_edge_lies_inside_of_an_outline_or_across_it() {
        let outline = NOTCHED.map(Point::from);
        for (feather, at_edge) in [(Feather::Inside, 0), (Feather::Across, 127)] {
            let mask = covered(SIDE, &outline, 2, feather, Inside::OneWay);
            let at = |x: f32, y: f32| mask[(y * SIDE as f32) as usize * SIDE + (x * SIDE as f32) as usize];
            assert_eq!((at(0.5, 0.65), at(0.5, 0.25), at(0.1, 0.5), at(0.5, 0.9)), (255, 0, 0, 0), "{feather:?}");
            // The last pixel inside of the right edge.
            let right = at(0.8 - 0.5 / SIDE as f32, 0.65);
            assert!(right.abs_diff(at_edge) < 48, "{feather:?}: {right}");
            // One radius beyond it.
            assert_eq!(at(0.8 + 2.5 / SIDE as f32, 0.65) > 0, feather == Feather::Across);
        }
    }

    #[test]
    fn a_loop_that_turns_the_other_way_is_inside_by_one_rule_alone() {
        // A square whose upper left corner is crossed, with a small triangle beyond the crossing.
        let crossed = [[0.8, 0.2], [0.8, 0.8], [0.2, 0.8], [0.3, 0.1], [0.2, 0.2]].map(Point::from);
        let turned: Vec<Point> = crossed.iter().rev().copied().collect();
        for outline in [&crossed[..], &turned] {
            for (inside, loops) in [(Inside::Odd, 255), (Inside::OneWay, 0)] {
                let mask = covered(SIDE, outline, 0, Feather::Across, inside);
                let at = |x: f32, y: f32| mask[(y * SIDE as f32) as usize * SIDE + (x * SIDE as f32) as usize];
                assert_eq!((at(0.6, 0.5), at(0.27, 0.17), at(0.1, 0.5)), (255, loops, 0), "{inside:?}");
            }
        }
    }

    #[test]
    fn an_outline_beyond_the_crop_or_of_nothing_covers_nothing() {
        for outline in [
            vec![],
            vec![Point::new(f32::NAN, 0.5); 5],
            vec![Point::new(3.0, 3.0), Point::new(4.0, 3.0), Point::new(4.0, 9.0)],
        ] {
            assert!(covered(SIDE, &outline, 3, Feather::Across, Inside::Odd).iter().all(|v| *v == 0), "{outline:?}");
        }
        let all = [[-9.0, -9.0], [9.0, -9.0], [9.0, 9.0], [-9.0, 9.0]].map(Point::from);
        let mask = covered(SIDE, &all, 3, Feather::Across, Inside::OneWay);
        assert_eq!((mask[SIDE + 1], mask[SIDE / 2 * SIDE], mask[SIDE / 2 * SIDE + SIDE / 2]), (255, 0, 255));
    }
}
