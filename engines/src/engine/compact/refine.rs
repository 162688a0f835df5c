//! Repair of the warped picture.

use super::{
    super::{NetworkStage, Scene, Stage, StageKind, Work, device::BoundStage},
    canvas::{Canvas, Picture},
    person::{Person, Pictured, Wanted, opening},
    render,
};
use crate::{
    Error, Result,
    geometry::{Point, Rect, landmarks},
    image::{ColorSpace, Crop, rgb_planar},
    manifest::Package,
    runtime::{Device, Options},
};

/// The file's name in a manifest; an engine may do without it.
const PART: &str = "refine";
/// Side of the crops that the network has learnt from, in pixels. Those of an engine may be so many times as large: then
/// the network sees them reduced, and what it corrects is enlarged.
const CROP: usize = 256;
/// Side of the window that it corrects, in pixels.
pub(super) const SIDE: usize = 128;
const PIXELS: usize = SIDE * SIDE;
/// Factor of the openings (unit crop) as the network takes them.
const OPENING_SCALE: f32 = 20.0;
/// A partner opens by this much more (unit crop) than the reference that it stands beside.
const WIDER: f32 = 0.01;
/// Scan lines of a pixel row of [`coverage`].
const LINES: usize = 4;
/// Ports of the network.
pub(super) const INPUTS: [&str; 4] = ["nearest", "second", "shapes", "openings"];
pub(super) const DELTA: &str = "delta";
/// Sizes of a batch on devices that gain by one. ONNX Runtime's CPU kernels do not (2.2 ms an item, alone or among four), and
/// a batch there keeps one core busy while the others wait.
const SIZES: [usize; 4] = [1, 2, 4, 8];

/// Repairs what a warp of the person's own frame cannot show: the mouth's inside, lips that meet, ghosts. A network on a
/// window of 128 x 128 pixels around the wanted lips, with the inputs `nearest` and `second` f32 `[B, 3, 128, 128]` (RGB,
/// 0..1: the warped reference and, warped alike, its partner), `shapes` f32 `[B, 2, 128, 128]` (coverage of the wanted
/// mouth's inside and of its lips) and `openings` f32 `[B, 3]` (20 times those wanted, of the reference and of its partner,
/// in unit crop coordinates), and the output `delta` f32 `[B, 3, 128, 128]`, which is added to `nearest` and is 0 at the
/// window's border.
pub(super) fn load(package: &Package, options: &Options, canvas: &Canvas) -> Result<Option<Box<dyn Stage>>> {
    if !package.manifest().files.contains_key(PART) {
        return Ok(None);
    }
    if !package.manifest().geometry.crop.is_multiple_of(CROP) {
        return Err(Error::Manifest {
            origin: package.location(),
            key: "geometry.crop".into(),
            cause: format!("must be a multiple of {CROP}, or there must be no `files.{PART}`"),
        });
    }
    let model = package.network(PART, options)?;
    let picture: &[usize] = &[3, SIDE, SIDE];
    for (input, shape) in INPUTS.iter().zip([picture, picture, &[2, SIDE, SIDE], &[3]]) {
        model.expect_input(input, shape)?;
    }
    model.expect_output(DELTA, picture)?;
    let sizes = if model.device() == Device::Cpu { &SIZES[..1] } else { &SIZES };
    let sizes = model.taken_of(sizes.to_vec());
    Ok(Some(match canvas {
        Canvas::Here => Box::new(NetworkStage::new(StageKind::Refine, model, &INPUTS, &[DELTA], sizes)),
        Canvas::There(device) => {
            model.runs_at(device.memory.place()).map_err(Error::invalid)?;
            let [nearest, second, shapes, openings] = INPUTS;
            let inputs: [(&str, &[usize]); 4] =
                [(nearest, picture), (second, picture), (shapes, &[2, SIDE, SIDE]), (openings, &[3])];
            let outputs = [(DELTA, picture)];
            Box::new(BoundStage::new(StageKind::Refine, &device.memory, model, &inputs, &outputs, sizes))
        }
    }))
}

/// Puts into `work` what the network reads of `picture`, in which the reference `nearest` (an id) has been warped to the
/// wanted points at least within [`area`]. False where that reference is gone.
pub(super) fn fill(
    canvas: &Canvas,
    work: &mut Work,
    picture: &Picture,
    (person, nearest): (&Person, u64),
    (wanted, warp): (&Wanted, &render::Warp),
    scene: &Scene,
) -> Result<bool> {
    let references = &person.references;
    let Some(nearest) = references.iter().find(|p| p.reference.id == nearest) else { return Ok(false) };
    let second = partner(references, nearest, |p| render::far(p.reference.time, scene));
    let plate = if second.reference.id == nearest.reference.id { None } else { warp.onto(second) };
    let beside = plate.map(|plate| canvas.warp(&plate, &second.reference, &area(wanted))).transpose()?;
    let openings = [&wanted.lower, &nearest.lower, &second.lower].map(|lower| opening(lower) * OPENING_SCALE);
    canvas.fill(work, picture, beside.as_ref(), wanted, openings)?;
    Ok(true)
}

/// The window at `corner` as planes of red, green and blue, 0..1, `[3, SIDE, SIDE]`.
pub(super) fn planes(crop: &Crop, corner: [usize; 2]) -> Vec<f32> {
    let (mut window, mut planes) = (vec![0; 3 * PIXELS], vec![0.0; 3 * PIXELS]);
    copy_window(crop, corner, &mut window);
    rgb_planar(&window, crop.space, &mut planes);
    planes
}

/// Coverage of the wanted mouth's inside and of its lips, `[2, SIDE, SIDE]`.
pub(super) fn shapes(wanted: &Wanted, corner: [usize; 2]) -> Vec<f32> {
    let mut shapes = vec![0.0; 2 * PIXELS];
    draw_shapes(wanted, corner, &mut shapes);
    shapes
}

/// Points of the unit crop in pixels of the window at `corner`.
pub(super) fn in_window(points: &[Point], [x, y]: [usize; 2]) -> Vec<Point> {
    let place = |p: &Point| Point::new(p.x * CROP as f32 - x as f32, p.y * CROP as f32 - y as f32);
    points.iter().map(place).collect()
}

/// How many times as large as those that the network has learnt from a crop of `side` is.
pub(super) fn zoom(side: usize) -> usize {
    side / CROP
}

/// Corrects `picture` by what the network said of the window at `corner`.
pub(super) fn apply(work: &mut Work, picture: &mut Crop, corner: [usize; 2]) -> Result<()> {
    let delta = work.take(DELTA)?.data;
    if delta.len() != 3 * PIXELS || !delta.iter().all(|v| v.is_finite()) {
        return Err(Error::invalid(format!("the network `{PART}` gave no finite `{DELTA}`")));
    }
    correct(picture, corner, &delta);
    Ok(())
}

/// Adds differences of RGB, `[3, SIDE, SIDE]`, to the window at `corner` (pixels of a crop of [`CROP`]).
pub(crate) fn correct(picture: &mut Crop, corner: [usize; 2], delta: &[f32]) {
    match zoom(picture.side) {
        1 => add(picture, corner, delta),
        zoom => add(picture, corner.map(|v| v * zoom), &enlarged(delta, zoom)),
    }
}

/// The part of the crop that the network looks at, in unit crop coordinates.
pub(super) fn area(wanted: &Wanted) -> Rect {
    let unit = |v: usize| v as f32 / CROP as f32;
    let [x, y] = corner(wanted).map(unit);
    Rect { x, y, width: unit(SIDE), height: unit(SIDE) }
}

/// First column and row of the window: the lips' box in its middle, as far as the crop allows.
pub(super) fn corner(wanted: &Wanted) -> [usize; 2] {
    let middle = Rect::around(&wanted.points[landmarks::LIPS]).unwrap_or_default().centre();
    [middle.x, middle.y].map(|v| {
        let first = (v * CROP as f32 + 0.5).floor() - (SIDE / 2) as f32;
        first.clamp(0.0, (CROP - SIDE) as f32) as usize
    })
}

/// The reference that stands beside `one`: the nearest of those that open wider, or, where none does, the widest of the
/// others. It depends on the bank alone, so it changes only when the reference does (unless some are not `usable`).
fn partner<'a>(references: &'a [Pictured], one: &'a Pictured, usable: impl Fn(&Pictured) -> bool) -> &'a Pictured {
    let gap = opening(&one.lower);
    let others = || references.iter().filter(|p| p.reference.id != one.reference.id && usable(p));
    let like = |a: &&Pictured, b: &&Pictured| {
        render::lips_distance(&a.lower, &one.lower).total_cmp(&render::lips_distance(&b.lower, &one.lower))
    };
    let wider = others().filter(|p| opening(&p.lower) >= gap + WIDER).min_by(like);
    wider.or_else(|| others().max_by(|a, b| opening(&a.lower).total_cmp(&opening(&b.lower)))).unwrap_or(one)
}

/// The window at `corner` (pixels of a crop of [`CROP`]), as means of squares of pixels where the crop is larger.
pub(crate) fn copy_window(crop: &Crop, [x, y]: [usize; 2], window: &mut [u8]) {
    let (stride, zoom) = (crop.side * 3, crop.side / CROP);
    let count = zoom * zoom;
    for (j, line) in window.chunks_exact_mut(SIDE * 3).enumerate() {
        let rows = &crop.data[(y + j) * zoom * stride..][..zoom * stride];
        if zoom == 1 {
            line.copy_from_slice(&rows[x * 3..(x + SIDE) * 3]);
            continue;
        }
        for (i, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let mut sums = [count / 2; 3];
            for row in rows.chunks_exact(stride) {
                for p in row[(x + i) * zoom * 3..][..zoom * 3].as_chunks::<3>().0 {
                    sums.iter_mut().zip(p).for_each(|(sum, v)| *sum += usize::from(*v));
                }
            }
            *pixel = sums.map(|sum| (sum / count) as u8);
        }
    }
}

/// Planes of [`SIDE`] made `zoom` times as large on a side, linear between the pixels; the edge is repeated.
fn enlarged(planes: &[f32], zoom: usize) -> Vec<f32> {
    let side = SIDE * zoom;
    let place = |k: usize| {
        let at = ((k as f32 + 0.5) / zoom as f32 - 0.5).clamp(0.0, (SIDE - 1) as f32);
        let low = (at as usize).min(SIDE - 2);
        (low, at - low as f32)
    };
    let places: Vec<_> = (0..side).map(place).collect();
    let mut out = Vec::with_capacity(planes.len() * zoom * zoom);
    let mut line = [0.0; SIDE];
    for plane in planes.chunks_exact(PIXELS) {
        for (j, t) in &places {
            let (upper, lower) = (&plane[j * SIDE..][..SIDE], &plane[(j + 1) * SIDE..][..SIDE]);
            line.iter_mut().zip(upper.iter().zip(lower)).for_each(|(v, (a, b))| *v = a + (b - a) * t);
            out.extend(places.iter().map(|(i, t)| line[*i] + (line[i + 1] - line[*i]) * t));
        }
    }
    out
}

/// Adds differences of RGB, `[3, side, side]`, to the square at `corner` of a picture in whatever colours.
fn add(picture: &mut Crop, [x, y]: [usize; 2], delta: &[f32]) {
    let space = picture.space;
    let zero = space.from_rgb([0.0; 3]);
    let count = delta.len() / 3;
    let side = count.isqrt();
    let (r, rest) = delta.split_at(count);
    let (g, b) = rest.split_at(count);
    for (j, row) in picture.data.chunks_exact_mut(picture.side * 3).skip(y).take(side).enumerate() {
        let line = j * side..(j + 1) * side;
        let pixels = row[x * 3..(x + side) * 3].as_chunks_mut::<3>().0.iter_mut();
        let colours = r[line.clone()].iter().zip(&g[line.clone()]).zip(&b[line]);
        for (pixel, ((r, g), b)) in pixels.zip(colours) {
            let step = match space {
                ColorSpace::Rgb => [r * 255.0, g * 255.0, b * 255.0],
                ColorSpace::Yuv(..) => {
                    let of = space.from_rgb([r * 255.0, g * 255.0, b * 255.0]);
                    std::array::from_fn(|c| of[c] - zero[c])
                }
            };
            for (value, step) in pixel.iter_mut().zip(step) {
                *value = (f32::from(*value) + step + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }
}

fn draw_shapes(wanted: &Wanted, corner: [usize; 2], shapes: &mut [f32]) {
    let (inner, lips) = shapes.split_at_mut(PIXELS);
    coverage(&wanted.points[landmarks::LIPS_INNER], corner, inner);
    coverage(&wanted.points[landmarks::LIPS_OUTER], corner, lips);
    leave_inside(lips, inner);
}

/// What of the lips' outline is not the mouth's inside.
pub(crate) fn leave_inside(lips: &mut [f32], inner: &[f32]) {
    lips.iter_mut().zip(inner).for_each(|(l, i)| *l = (*l - *i).max(0.0));
}

/// How much of each pixel of the window a polygon covers, 0..1: even-odd rule, four scan lines a row, exact along each.
pub(crate) fn coverage(polygon: &[Point], corner: [usize; 2], out: &mut [f32]) {
    let (part, polygon) = (1.0 / LINES as f32, in_window(polygon, corner));
    let limit = SIDE as f32;
    out.fill(0.0);
    let mut crossings = Vec::with_capacity(8);
    for (j, row) in out.chunks_exact_mut(SIDE).enumerate() {
        for line in 0..LINES {
            let level = j as f32 + (line as f32 + 0.5) * part;
            crossings.clear();
            for (a, b) in polygon.iter().zip(polygon.iter().cycle().skip(1)) {
                if (a.y <= level) != (b.y <= level) {
                    crossings.push(a.x + (b.x - a.x) * (level - a.y) / (b.y - a.y));
                }
            }
            crossings.sort_by(f32::total_cmp);
            for span in crossings.as_chunks::<2>().0 {
                let [left, right] = span.map(|v| v.clamp(0.0, limit));
                let pixels = row.iter_mut().enumerate().take(right.ceil() as usize);
                for (i, v) in pixels.skip(left as usize) {
                    *v += part * (right.min(i as f32 + 1.0) - left.max(i as f32)).max(0.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bank::Reference,
        image::{Matrix, Range},
    };

    fn ellipse(middle: Point, across: f32, down: f32) -> Vec<Point> {
        let at = |i: usize| (i as f32 / 20.0 * std::f32::consts::TAU).sin_cos();
        (0..20).map(|i| middle + Point::new(-at(i).1 * across, -at(i).0 * down)).collect()
    }

    /// A mouth whose lips are around `middle` and open by `opening`.
    fn mouth(middle: Point, opening: f32) -> Wanted {
        let mut points = vec![middle; landmarks::COUNT];
        points[landmarks::LIPS_OUTER].copy_from_slice(&ellipse(middle, 0.15, 0.05 + opening / 2.0));
        points[landmarks::LIPS_INNER].copy_from_slice(&ellipse(middle, 0.12, opening / 2.0));
        let lower = points[landmarks::LOWER].to_vec();
        Wanted { moved: vec![0.0; 84], points, lower, drift: vec![Point::default(); 84] }
    }

    #[test]
    fn the_window_is_around_the_lips_and_within_the_crop() {
        assert_eq!(corner(&mouth(Point::new(0.5, 0.5), 0.0)), [64, 64]);
        assert_eq!(corner(&mouth(Point::new(0.5, 0.95), 0.0)), [64, 128]);
        assert_eq!(corner(&mouth(Point::new(-0.4, 0.1), 0.0)), [0, 0]);
        assert_eq!(corner(&mouth(Point::new(f32::NAN, 0.1), 0.0))[1], 0);
    }

    #[test]
    fn a_partner_opens_wider_where_one_does() {
        let references: Vec<Pictured> = [0.0, 0.02, 0.05, 0.09]
            .iter()
            .enumerate()
            .map(|(id, open)| {
                let Wanted { points, mut lower, .. } = mouth(Point::new(0.5, 0.5), 0.0);
                lower[landmarks::INNER_BOTTOM].y += open;
                let crop = Crop { side: 1, space: ColorSpace::Rgb, data: vec![0; 3] };
                let reference =
                    Reference { id: id as u64, crop, points, sharpness: 1.0, yaw: 0.0, time: None, coarse: false };
                Pictured::new(reference.into(), lower)
            })
            .collect();
        let partners: Vec<u64> = references.iter().map(|p| partner(&references, p, |_| true).reference.id).collect();
        assert_eq!(partners, [1, 2, 3, 2]);
        assert_eq!(partner(&references[..1], &references[0], |_| true).reference.id, 0);
        assert_eq!(partner(&references, &references[1], |p| p.reference.id != 2).reference.id, 3);
    }

    #[test]
    fn coverage_is_the_polygons_area() {
        let square = [(0.25, 0.25), (0.5, 0.25), (0.5, 0.375), (0.25, 0.375)].map(|(x, y)| Point::new(x, y));
        let mut out = vec![9.0; PIXELS];
        coverage(&square, [64, 64], &mut out);
        assert!((out.iter().sum::<f32>() - 64.0 * 32.0).abs() < 0.01, "{}", out.iter().sum::<f32>());
        assert_eq!((out[0], out[64], out[31 * SIDE], out[32 * SIDE]), (1.0, 0.0, 1.0, 0.0));
        // A third of a pixel to the right and a quarter down, the part to the left of the window cut off.
        let moved = square.map(|p| p + Point::new((1.0 / 3.0 - 10.0) / CROP as f32, 0.25 / CROP as f32));
        coverage(&moved, [64, 64], &mut out);
        assert!((out.iter().sum::<f32>() - (54.0 + 1.0 / 3.0) * 32.0).abs() < 0.01, "{}", out.iter().sum::<f32>());
        assert!((out[0] - 0.75).abs() < 1e-5 && (out[54 + SIDE] - 1.0 / 3.0).abs() < 1e-3);
        assert!(out.iter().all(|v| (0.0..=1.0001).contains(v)));
    }

    #[test]
    fn shapes_are_the_mouths_inside_and_the_lips() {
        let mut shapes = vec![0.0; 2 * PIXELS];
        let wanted = mouth(Point::new(0.5, 0.5), 0.06);
        draw_shapes(&wanted, corner(&wanted), &mut shapes);
        let middle = 64 * SIDE + 64;
        assert_eq!((shapes[middle], shapes[PIXELS + middle]), (1.0, 0.0));
        let lip = (64 + 14) * SIDE + 64;
        assert_eq!((shapes[lip], shapes[PIXELS + lip]), (0.0, 1.0));
        assert_eq!((shapes[0], shapes[PIXELS]), (0.0, 0.0));
    }

    #[test]
    fn a_correction_stays_in_the_window_and_means_the_same_in_all_colours() {
        let mut delta = vec![0.0; 3 * PIXELS];
        delta[..PIXELS].fill(0.1);
        delta[2 * PIXELS..].fill(-0.05);
        let grey = Crop { side: CROP, space: ColorSpace::Rgb, data: vec![120; CROP * CROP * 3] };
        let mut rgb = grey.clone();
        add(&mut rgb, [128, 64], &delta);
        for space in [ColorSpace::Yuv(Matrix::Bt601, Range::Limited), ColorSpace::Yuv(Matrix::Bt709, Range::Full)] {
            let before = grey.convert(space);
            let mut yuv = before.clone();
            add(&mut yuv, [128, 64], &delta);
            for (i, pixel) in yuv.data.as_chunks::<3>().0.iter().enumerate() {
                let inside = (128..256).contains(&(i % CROP)) && (64..192).contains(&(i / CROP));
                if inside {
                    let back = space.to_rgb(pixel.map(f32::from));
                    let wanted = &rgb.data[i * 3..i * 3 + 3];
                    assert!(
                        back.iter().zip(wanted).all(|(a, b)| (a - f32::from(*b)).abs() < 3.0),
                        "{back:?} {wanted:?}"
                    );
                } else {
                    assert_eq!(pixel, &before.data[i * 3..i * 3 + 3]);
                }
            }
        }
        assert_eq!(rgb.data[(64 * CROP + 128) * 3..][..3], [146, 120, 107]);
        assert_eq!(rgb.data[(64 * CROP + 127) * 3..][..3], [120; 3]);
    }

    #[test]
    fn a_larger_crop_is_seen_reduced_and_corrected_as_widely() {
        let zoom = 2;
        let data = (0..zoom * CROP).flat_map(|y| (0..zoom * CROP).flat_map(move |x| [x / 4, y / 4, (x + y) % 2 * 9]));
        let data: Vec<u8> = data.map(|v| v as u8).collect();
        let mut crop = Crop { side: zoom * CROP, space: ColorSpace::Rgb, data };
        let mut window = vec![0; 3 * PIXELS];
        copy_window(&crop, [64, 32], &mut window);
        assert_eq!(window[(10 * SIDE + 20) * 3..][..3], [42, 21, 5]);
        // A correction that grows to the right by a code a pixel of the window.
        let delta: Vec<f32> = (0..3 * PIXELS).map(|i| (i % SIDE) as f32 / 255.0).collect();
        let large = enlarged(&delta, zoom);
        let line = &large[9 * SIDE * zoom..][..SIDE * zoom];
        let whole: Vec<f32> = line.iter().map(|v| v * 255.0).collect();
        for (k, wanted) in [(0, 0.0), (1, 0.25), (2, 0.75), (101, 50.25), (254, 126.75), (255, 127.0)] {
            assert!((whole[k] - wanted).abs() < 1e-3, "{k}: {}", whole[k]);
        }
        let before = crop.clone();
        add(&mut crop, [128, 64], &large);
        let grown =
            |x: usize, y: usize| i32::from(crop.data[(y * 512 + x) * 3]) - i32::from(before.data[(y * 512 + x) * 3]);
        assert_eq!([grown(127, 100), grown(128 + 100, 64), grown(128 + 100, 319), grown(384, 100)], [0, 50, 50, 0]);
        assert_eq!([grown(228, 63), grown(228, 320)], [0, 0]);
    }
}
