//! Where a reference shows the person's skin.

use std::ops::Range;

use crate::{
    bank::Reference,
    geometry::{Point, landmarks},
    image::{ColorSpace, Crop, smooth_step},
};

/// Cells along a side of the grid on which skin is told from what is beside it.
const CELLS: usize = 64;
/// Colours this far from the nearest of the face's own (8-bit codes, root of the sum of squares) are skin, those from the
/// second on are not.
const NEAR: f32 = 28.0;
const FAR: f32 = 48.0;
/// Differences of colour count so much beside those of brightness.
const CHROMA: f32 = 2.0;
/// Landmarks whose colours are the skin's: cheeks and philtrum, and the nose, which hair never hides.
const SKIN: [Range<usize>; 2] = [landmarks::CHEEKS.start..landmarks::PHILTRUM.end, landmarks::NOSE];
/// Lips and nostrils are of other colours: so far around their landmarks (unit crop) everything is the face's.
const FACE: f32 = 0.03;
/// So many cells of skin beside what is none are left out: its edge is soft, and where a mask fades the colours of a paste are
/// compared, which shall be those of skin.
const MARGIN: usize = 2;
/// A landmark whose colour is further from the median of all lies on something else.
const STRAY: f32 = 70.0;

/// How much of each place of a crop is skin, 0..1, with hair, background and whatever else is before or beside the face left out.
/// Landmarks do not say it: of a head that is turned or thrown back, those of the jaw lie on hair and neck.
#[derive(Debug)]
pub(super) struct Skin {
    /// `[CELLS, CELLS]`
    shown: Vec<f32>,
}

impl Skin {
    pub(super) fn of(reference: &Reference) -> Self {
        let Reference { crop, points, .. } = reference;
        let colours = colours(crop, points);
        let cell = |i: usize| {
            let place = |v: usize| (v as f32 + 0.5) / CELLS as f32;
            let place = Point::new(place(i % CELLS), place(i / CELLS));
            if points[landmarks::LIPS].iter().chain(&points[landmarks::NOSE]).any(|p| p.distance(place) < FACE) {
                return 1.0;
            }
            let colour = colour(crop, place);
            let nearest = colours.iter().map(|c| apart(crop.space, c, &colour)).fold(f32::MAX, f32::min);
            1.0 - smooth_step((nearest - NEAR) / (FAR - NEAR))
        };
        let all: Vec<f32> = (0..CELLS * CELLS).map(cell).collect();
        let least = around(&all, MARGIN, &|near| near.fold(1.0, f32::min));
        let mean = |near: &mut dyn Iterator<Item = f32>| {
            let (sum, count) = near.fold((0.0, 0.0), |(sum, count), v| (sum + v, count + 1.0));
            sum / count
        };
        Self { shown: around(&least, 1, &mean) }
    }

    /// At a place of the crop (unit coordinates), linear between the cells; nothing beyond the crop.
    pub(super) fn at(&self, p: Point) -> f32 {
        if !(0.0..1.0).contains(&p.x) || !(0.0..1.0).contains(&p.y) {
            return 0.0;
        }
        let place = |v: f32| {
            let v = (v * CELLS as f32 - 0.5).clamp(0.0, (CELLS - 1) as f32);
            let low = (v as usize).min(CELLS - 2);
            (low, v - low as f32)
        };
        let ((x, u), (y, v)) = (place(p.x), place(p.y));
        let row = |y: usize| {
            let [a, b] = [x, x + 1].map(|x| self.shown[y * CELLS + x]);
            a + (b - a) * u
        };
        row(y) + (row(y + 1) - row(y)) * v
    }
}

/// `of` the cells up to `reach` beside each, and of itself.
fn around(values: &[f32], reach: usize, of: &dyn Fn(&mut dyn Iterator<Item = f32>) -> f32) -> Vec<f32> {
    let near = |v: usize| v.saturating_sub(reach)..(v + reach + 1).min(CELLS);
    let cell = |i: usize| {
        let places = near(i / CELLS).flat_map(|y| near(i % CELLS).map(move |x| (x, y)));
        of(&mut places.map(|(x, y)| values[y * CELLS + x]))
    };
    (0..CELLS * CELLS).map(cell).collect()
}

/// Mean colour of 3 x 3 places around one, as far apart as half a cell.
fn colour(crop: &Crop, p: Point) -> [f32; 3] {
    let step = 0.25 / CELLS as f32;
    let mut sum = [0.0; 3];
    for k in 0..9 {
        let at = |v: f32, k: usize| {
            (((v + (k as f32 - 1.0) * step) * crop.side as f32).max(0.0) as usize).min(crop.side - 1)
        };
        let i = (at(p.y, k / 3) * crop.side + at(p.x, k % 3)) * 3;
        sum.iter_mut().zip(&crop.data[i..i + 3]).for_each(|(s, v)| *s += f32::from(*v) / 9.0);
    }
    sum
}

fn apart(space: ColorSpace, a: &[f32; 3], b: &[f32; 3]) -> f32 {
    let d: [f32; 3] = std::array::from_fn(|k| a[k] - b[k]);
    match space {
        ColorSpace::Rgb => {
            // The same as of brightness and its differences to blue and red.
            let luma = 0.3 * d[0] + 0.59 * d[1] + 0.11 * d[2];
            let (blue, red) = (0.56 * (d[2] - luma), 0.71 * (d[0] - luma));
            (luma * luma + CHROMA * CHROMA * (blue * blue + red * red)).sqrt()
        }
        ColorSpace::Yuv(..) => (d[0] * d[0] + CHROMA * CHROMA * (d[1] * d[1] + d[2] * d[2])).sqrt(),
    }
}

/// The colours of the face: of the landmarks that lie on skin, and of the chin, which a beard may cover.
fn colours(crop: &Crop, points: &[Point]) -> Vec<[f32; 3]> {
    let of = |range: Range<usize>| points[range].iter().map(|p| colour(crop, *p)).collect::<Vec<_>>();
    let skin: Vec<[f32; 3]> = SKIN.into_iter().flat_map(of).collect();
    let middle = median(&skin);
    let chin = median(&of(landmarks::CHIN));
    let own = skin.into_iter().filter(|c| apart(crop.space, c, &middle) < STRAY);
    own.chain([middle, chin]).collect()
}

fn median(colours: &[[f32; 3]]) -> [f32; 3] {
    std::array::from_fn(|k| {
        let mut values: Vec<f32> = colours.iter().map(|c| c[k]).collect();
        let middle = values.len() / 2;
        *values.select_nth_unstable_by(middle, f32::total_cmp).1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Matrix, Range as Levels};

    const SIDE: usize = 256;

    /// A face in the left three quarters of its crop, shaded from above to below, with hair to the right of it.
    fn seen(space: ColorSpace, skin: [f32; 3], hair: [f32; 3]) -> Skin {
        let pixel = |i: usize| {
            let shade = 1.0 - 0.2 * (i / SIDE) as f32 / SIDE as f32;
            if i % SIDE < 3 * SIDE / 4 { skin.map(|v| v * shade) } else { hair }
        };
        let codes = |rgb: [f32; 3]| space.from_rgb(rgb).map(|v| v.round() as u8);
        let data = (0..SIDE * SIDE).flat_map(|i| codes(pixel(i))).collect();
        let points = vec![Point::new(0.5, 0.5); landmarks::COUNT];
        let crop = Crop { side: SIDE, space, data };
        let reference = Reference { id: 0, crop, points, sharpness: 1.0, yaw: 0.0, time: None, coarse: false };
        Skin::of(&reference)
    }

    #[test]
    fn hair_and_background_are_told_from_skin_in_any_colours() {
        let spaces = [ColorSpace::Rgb, ColorSpace::Yuv(Matrix::Bt709, Levels::Limited)];
        for space in spaces {
            for (skin, beside) in
                [([205.0, 160.0, 135.0], [60.0, 40.0, 30.0]), ([110.0, 75.0, 60.0], [30.0, 150.0, 60.0])]
            {
                let seen = seen(space, skin, beside);
                let at = |x: f32, y: f32| seen.at(Point::new(x, y));
                for y in [0.1, 0.5, 0.9] {
                    assert!(
                        at(0.3, y) > 0.9 && at(0.9, y) < 0.05,
                        "{space:?} {skin:?} {y}: {} {}",
                        at(0.3, y),
                        at(0.9, y)
                    );
                }
                // Not the soft edge of what is beside it, and nothing beyond the crop.
                assert!(at(0.745, 0.8) < 0.1, "{}", at(0.745, 0.8));
                assert_eq!((at(-0.01, 0.5), at(0.3, 1.0)), (0.0, 0.0));
            }
        }
    }
}
