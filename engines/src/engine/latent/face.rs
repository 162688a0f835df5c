//! LatentSync's crop of a face and its way back (bytedance/LatentSync, latentsync/utils/affine_transform.py and
//! image_processor.py). The map of a face, from the frame to the crop, is a [`ThreePoint`](crate::geometry::ThreePoint)'s,
//! and the centre of the first pixel is (0, 0) in both.

use crate::{
    geometry::Similarity,
    image::{SoftMask, antialias, gaussian, lanczos},
};

/// What lies outside of the frame, and of the crop. The program has it in 0..255 where the crop is taken, a grey, and as it is
/// among pixels in -1..1 on the way back, where it becomes white; the mask's erosion hides that.
const FILL: f64 = 127.0;
/// The width of the soft edge in parts of the root of the face's area.
const EDGE: usize = 20;

/// The face as the network sees it, `[side, side, 3]`: `frame` of `size` brought into a crop of `crop` columns and rows, cut
/// off to bytes, and squeezed to a square. `None` where `frame` is not that large, or the map has no inverse.
pub fn crop(
    frame: &[u8],
    size: (usize, usize),
    map: &Similarity,
    crop: (usize, usize),
    side: usize,
) -> Option<Vec<u8>> {
    lanczos::<3>(&warped(frame, size, map, crop)?, crop, (side, side))
}

/// The crop before it is squeezed.
pub fn warped(frame: &[u8], size: (usize, usize), map: &Similarity, crop: (usize, usize)) -> Option<Vec<u8>> {
    if size.0.checked_mul(size.1)?.checked_mul(3)? != frame.len() || crop.0.max(crop.1) > 1 << 14 {
        return None;
    }
    let back = Affine::inverse(map)?;
    let mut out = Vec::with_capacity(crop.0 * crop.1 * 3);
    for y in 0..crop.1 {
        for x in 0..crop.0 {
            let sample = sample(size, back.apply(x as f64, y as f64));
            // Cut off, not rounded.
            out.extend([0, 1, 2].map(|c| sample.value(FILL, |i| f64::from(frame[3 * i + c])) as u8));
        }
    }
    Some(out)
}

/// Puts a face `[3, side, side]`, -1..1, into `frame`, from a crop of `crop` columns and rows with the map that took it.
/// `None` where a size is wrong or the map has no inverse; the frame is then as it was.
///
/// The face is enlarged to the crop (bicubic with antialias), turned back (bilinear) and blended by a mask: the crop's own,
/// eroded by a pixel at its upper left, then by `2 e` and blurred by `2 e + 1` where `e` is `int(sqrt(area)) / 20` in whole
/// pixels. Results are cut off to bytes.
pub fn restore(
    frame: &mut [u8],
    size: (usize, usize),
    face: &[f32],
    side: usize,
    map: &Similarity,
    crop: (usize, usize),
) -> Option<()> {
    let count = side.checked_mul(side)?;
    let fits = size.0.checked_mul(size.1)?.checked_mul(3)? == frame.len() && count.checked_mul(3)? == face.len();
    if !fits || count == 0 || crop.0.max(crop.1) > 1 << 14 {
        return None;
    }
    let planes: Option<Vec<Vec<f32>>> =
        face.chunks_exact(count).map(|plane| antialias::plane(plane, (side, side), crop)).collect();
    let planes = planes?;
    let there = Affine::new(map);
    let Some(region) = Region::of(&Affine::inverse(map)?, crop, size) else {
        return Some(());
    };
    let samples: Vec<Sample> = region.pixels().map(|(x, y)| sample(crop, there.apply(x as f64, y as f64))).collect();
    let data = samples.iter().map(|sample| sample.inside() as f32).collect();
    let hard = SoftMask { width: region.width, height: region.height, data }.erode(1, 0);
    let area: f64 = hard.data.iter().map(|v| f64::from(*v)).sum();
    let edge = area.sqrt() as usize / EDGE;
    let soft = hard.clone().erode(edge, edge.saturating_sub(1)).blur(&gaussian(2 * edge + 1));
    for (i, (x, y)) in region.pixels().enumerate() {
        let (soft, hard) = (f64::from(soft.data[i]), f64::from(hard.data[i]));
        if soft == 0.0 {
            continue;
        }
        let pixel = &mut frame[3 * (y * size.0 + x)..][..3];
        for (c, byte) in pixel.iter_mut().enumerate() {
            let value = samples[i].value(FILL, |k| f64::from(planes[c][k]));
            let value = (value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0;
            *byte = (soft * hard * value + (1.0 - soft) * f64::from(*byte)) as u8;
        }
    }
    Some(())
}

/// A similarity in double precision.
struct Affine {
    a: f64,
    b: f64,
    tx: f64,
    ty: f64,
}

impl Affine {
    fn new(map: &Similarity) -> Self {
        Self { a: map.a.into(), b: map.b.into(), tx: map.tx.into(), ty: map.ty.into() }
    }

    fn inverse(map: &Similarity) -> Option<Self> {
        let Self { a, b, tx, ty } = Self::new(map);
        let d = a * a + b * b;
        let (a, b) = (a / d, -b / d);
        let back = Self { a, b, tx: -(a * tx - b * ty), ty: -(b * tx + a * ty) };
        (d.is_normal() && [back.a, back.b, back.tx, back.ty].iter().all(|v| v.is_finite())).then_some(back)
    }

    fn apply(&self, x: f64, y: f64) -> (f64, f64) {
        (self.a * x - self.b * y + self.tx, self.b * x + self.a * y + self.ty)
    }
}

/// Four pixels of a picture and their weights, of which those outside of it count for nothing.
struct Sample([(usize, f64); 4]);

fn sample((width, height): (usize, usize), (x, y): (f64, f64)) -> Sample {
    let (left, top) = (x.floor(), y.floor());
    let (right, below) = (x - left, y - top);
    let weights = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)].map(|(dx, dy)| {
        let weight = (1.0 - dx + (2.0 * dx - 1.0) * right) * (1.0 - dy + (2.0 * dy - 1.0) * below);
        let (x, y) = (left + dx, top + dy);
        let inside = (0.0..width as f64).contains(&x) && (0.0..height as f64).contains(&y);
        if inside { (y as usize * width + x as usize, weight) } else { (0, 0.0) }
    });
    Sample(weights)
}

impl Sample {
    /// The share that lies inside.
    fn inside(&self) -> f64 {
        self.0.iter().map(|(_, weight)| weight).sum()
    }

    /// The value there, of the pixels' values and of `fill` where there are none.
    fn value(&self, fill: f64, pixel: impl Fn(usize) -> f64) -> f64 {
        let sum: f64 = self.0.iter().filter(|(_, weight)| *weight > 0.0).map(|(i, weight)| weight * pixel(*i)).sum();
        sum + (1.0 - self.inside()) * fill
    }
}

/// The part of a frame that holds a crop and a ring of pixels around it.
struct Region {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Region {
    fn of(back: &Affine, crop: (usize, usize), size: (usize, usize)) -> Option<Self> {
        let (right, bottom) = (crop.0 as f64, crop.1 as f64);
        let corners = [(-1.0, -1.0), (right, -1.0), (-1.0, bottom), (right, bottom)].map(|(x, y)| back.apply(x, y));
        let span = |axis: fn(&(f64, f64)) -> f64, most: usize| {
            let all = corners.iter().map(axis);
            let (low, high) = (all.clone().fold(f64::MAX, f64::min), all.fold(f64::MIN, f64::max));
            let limit = |v: f64| v.clamp(0.0, most as f64) as usize;
            (limit(low - 2.0), limit(high + 3.0))
        };
        let ((left, right), (top, bottom)) = (span(|p| p.0, size.0), span(|p| p.1, size.1));
        (left < right && top < bottom).then(|| Self { left, top, width: right - left, height: bottom - top })
    }

    fn pixels(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (left, width, top) = (self.left, self.width, self.top);
        (top..top + self.height).flat_map(move |y| (left..left + width).map(move |x| (x, y)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (160, 200);
    const CROP: (usize, usize) = (52, 70);
    const MAP: Similarity = Similarity { a: 0.5, b: 0.1, tx: -8.0, ty: -20.0 };

    /// A gradient that grows to the right in one channel and down in another.
    fn frame() -> Vec<u8> {
        let pixel = |i: usize| [(i % SIZE.0) as u8, (i / SIZE.0) as u8, 90];
        (0..SIZE.0 * SIZE.1).flat_map(pixel).collect()
    }

    #[test]
    fn a_crop_holds_the_face_in_its_place_and_grey_around_the_frame() {
        let found = warped(&frame(), SIZE, &MAP, CROP).unwrap();
        let back = MAP.inverse().unwrap();
        for (x, y) in [(20, 20), (40, 10), (30, 50)] {
            let place = back.apply(crate::geometry::Point::new(x as f32, y as f32));
            let pixel = &found[3 * (y * CROP.0 + x)..][..3];
            assert!((f32::from(pixel[0]) - place.x).abs() <= 1.0 && (f32::from(pixel[1]) - place.y).abs() <= 1.0);
        }
        let far = Similarity { tx: 4000.0, ..MAP };
        assert!(warped(&frame(), SIZE, &far, CROP).unwrap().iter().all(|v| *v == 127));
        let square = crop(&frame(), SIZE, &MAP, CROP, 64).unwrap();
        assert_eq!(square.len(), 64 * 64 * 3);
        // Squeezed: the middle is the crop's middle.
        let (a, b) = (&square[3 * (32 * 64 + 32)..][..2], &found[3 * (35 * CROP.0 + 26)..][..2]);
        assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 2), "{a:?} {b:?}");
    }

    #[test]
    fn a_face_comes_back_to_where_it_was_and_nothing_else_changes() {
        let before = frame();
        let square = crop(&before, SIZE, &MAP, CROP, 64).unwrap();
        let planar = |c: usize| square.iter().skip(c).step_by(3).map(|v| f32::from(*v) / 127.5 - 1.0);
        let face: Vec<f32> = (0..3).flat_map(planar).collect();
        let mut after = before.clone();
        restore(&mut after, SIZE, &face, 64, &MAP, CROP).unwrap();
        for (i, (a, b)) in before.iter().zip(&after).enumerate() {
            let place = MAP.apply(crate::geometry::Point::new((i / 3 % SIZE.0) as f32, (i / 3 / SIZE.0) as f32));
            let inner = (8.0..CROP.0 as f32 - 8.0).contains(&place.x) && (8.0..CROP.1 as f32 - 8.0).contains(&place.y);
            // Cut off twice; at the edge the face is that of the repeated edge.
            let off = i16::from(*a) - i16::from(*b);
            assert!(if inner { (0..=2).contains(&off) } else { off.abs() <= 4 }, "{place:?}: {a} {b}");
        }
        let mut painted = before.clone();
        restore(&mut painted, SIZE, &[-1.0; 3 * 64 * 64], 64, &MAP, CROP).unwrap();
        let back = MAP.inverse().unwrap();
        let middle = back.apply(crate::geometry::Point::new(26.0, 35.0));
        let at = 3 * (middle.y as usize * SIZE.0 + middle.x as usize);
        assert_eq!(painted[at..at + 3], [0; 3]);
        for (i, (a, b)) in before.iter().zip(&painted).enumerate() {
            let place = MAP.apply(crate::geometry::Point::new((i / 3 % SIZE.0) as f32, (i / 3 / SIZE.0) as f32));
            // The blur reaches a little beyond the crop.
            let inside =
                (-2.0..CROP.0 as f32 + 1.0).contains(&place.x) && (-2.0..CROP.1 as f32 + 1.0).contains(&place.y);
            assert!(inside || a == b, "{place:?}");
        }
    }

    #[test]
    fn the_soft_edge_is_the_published_one_with_its_dark_line() {
        let mut frame = vec![200; SIZE.0 * SIZE.1 * 3];
        let map = Similarity { a: 1.0, b: 0.0, tx: -40.0, ty: -40.0 };
        restore(&mut frame, SIZE, &[1.0; 3 * 64 * 64], 64, &map, (60, 80)).unwrap();
        let row: Vec<u8> = (0..SIZE.0).map(|x| frame[3 * (80 * SIZE.0 + x)]).collect();
        // Columns 40 to 99, without the first by the first erosion; an edge of 3 takes three more at the left and two at the
        // right, and a Gaussian of 7 and 1.4 pixels gives three back, the last of which lies beyond the face: its weights are
        // 0.029, 0.104, 0.223 and 0.288.
        assert_eq!(row[39..47], [200, 200, 201, 207, 219, 235, 247, 253][..]);
        assert_eq!(row[95..103], [253, 247, 235, 219, 207, 194, 200, 200][..]);
    }

    #[test]
    fn a_face_beyond_the_frame_and_wrong_sizes_change_nothing() {
        let (before, face) = (frame(), [1.0; 3 * 64 * 64]);
        let mut after = before.clone();
        let far = Similarity { tx: 4000.0, ..MAP };
        assert_eq!(restore(&mut after, SIZE, &face, 64, &far, CROP), Some(()));
        let flat = Similarity { a: 0.0, b: 0.0, ..MAP };
        assert_eq!(restore(&mut after, SIZE, &face, 64, &flat, CROP), None);
        assert_eq!(restore(&mut after, SIZE, &face, 63, &MAP, CROP), None);
        assert_eq!(restore(&mut after, (160, 199), &face, 64, &MAP, CROP), None);
        assert_eq!(restore(&mut after, SIZE, &face, 64, &MAP, (0, 70)), None);
        assert_eq!(after, before);
        assert_eq!(warped(&before, SIZE, &flat, CROP), None);
        // So small that its edge has no width.
        let tiny = Similarity { a: 20.0, b: 0.0, tx: -1000.0, ty: -1000.0 };
        assert_eq!(restore(&mut after, SIZE, &face, 64, &tiny, CROP), Some(()));
    }
}
