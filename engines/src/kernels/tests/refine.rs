use super::*;
use crate::{
    cuda::Buffer,
    engine::compact::refine as twin,
    geometry::{Point, Rect},
    image::{rgb_planar, sharpen, steady},
    kernels::{DeviceCrop, Finish, correct, finish, shapes, window},
};

const SIDE: usize = 128;

fn ellipse(middle: (f32, f32), across: f32, down: f32, count: usize) -> Vec<Point> {
    let at = |i: usize| (i as f32 / count as f32 * std::f32::consts::TAU).sin_cos();
    (0..count).map(|i| Point::new(middle.0 - at(i).1 * across, middle.1 - at(i).0 * down)).collect()
}

fn windowed(crop: &Crop, corner: [usize; 2]) -> Vec<f32> {
    let (mut bytes, mut planes) = (vec![0; 3 * SIDE * SIDE], vec![0.0; 3 * SIDE * SIDE]);
    twin::copy_window(crop, corner, &mut bytes);
    rgb_planar(&bytes, crop.space, &mut planes);
    planes
}

fn drawn(inner: &[Point], outer: &[Point]) -> Vec<f32> {
    let mut out = vec![0.0; 2 * SIDE * SIDE];
    let (inside, lips) = out.split_at_mut(SIDE * SIDE);
    // In unit coordinates of a crop of 256.
    let unit = |points: &[Point]| points.iter().map(|p| *p * (1.0 / 256.0)).collect::<Vec<_>>();
    twin::coverage(&unit(inner), [0, 0], inside);
    twin::coverage(&unit(outer), [0, 0], lips);
    twin::leave_inside(lips, inside);
    out
}

#[test]
fn windows_and_shapes_are_those_of_the_cpu() {
    let mut worst = 0.0f32;
    for memory in host::orders() {
        for (zoom, space) in [(1, YUV), (2, ColorSpace::Rgb), (3, ColorSpace::Yuv(Matrix::Bt601, Range::Full))] {
            let crop = crop(256 * zoom, space, 4);
            let device = DeviceCrop::of(&memory, &crop).unwrap();
            for corner in [[0, 0], [128, 128], [61, 77]] {
                let out = Buffer::zeroed(&memory, 3 * SIDE * SIDE + 1).unwrap();
                window(&memory, &device, zoom, corner, (&out, 1)).unwrap();
                worst = worst.max(apart(&out.read().unwrap()[1..], &windowed(&crop, corner)));
                assert!(worst < 1e-5, "{zoom} {corner:?}: {worst}");
            }
            assert!(
                window(&memory, &device, zoom, [129, 0], (&Buffer::zeroed(&memory, 3 * SIDE * SIDE).unwrap(), 0))
                    .is_err()
            );
        }
        // In the window, over its edges, shut, outside of it; and one that crosses itself.
        let mouths = [
            ((60.0, 70.0), 30.0, 9.0),
            ((2.0, 120.0), 40.0, 22.0),
            ((64.0, 64.0), 25.0, 0.0),
            ((-90.0, 40.0), 20.0, 9.0),
        ];
        let star = (0..7).map(|i| ellipse((64.0, 64.0), 50.0, 40.0, 7)[i * 3 % 7]).collect::<Vec<_>>();
        let mut outlines: Vec<_> = mouths
            .map(|(middle, across, down)| {
                (ellipse(middle, across, down, 20), ellipse(middle, across + 8.0, down + 6.0, 20))
            })
            .into();
        outlines.push((star.clone(), star));
        for (inner, outer) in outlines {
            let out = Buffer::zeroed(&memory, 2 * SIDE * SIDE).unwrap();
            shapes(&memory, &inner, &outer, (&out, 0)).unwrap();
            let off = apart(&out.read().unwrap(), &drawn(&inner, &outer));
            assert!(off < 1e-5, "{off}");
            worst = worst.max(off);
        }
    }
    println!("windows and shapes: {worst:.1e} at most");
}

#[test]
fn corrections_are_added_as_on_the_cpu() {
    let delta: Vec<f32> = (0..3 * SIDE * SIDE).map(|i| (i as f32 * 0.0173).sin() * 0.6).collect();
    for memory in host::orders() {
        let there = Buffer::of(&memory, &delta).unwrap();
        for (zoom, space) in [(1, YUV), (1, ColorSpace::Rgb), (2, YUV), (3, ColorSpace::Rgb)] {
            for corner in [[0, 0], [128, 128], [61, 77]] {
                let mut wanted = crop(256 * zoom, space, 4);
                let mut found = DeviceCrop::of(&memory, &wanted).unwrap();
                twin::correct(&mut wanted, corner, &delta);
                correct(&memory, &mut found, zoom, corner, (&there, 0)).unwrap();
                let (most, part) = differ(&found.read().unwrap().data, &wanted.data);
                assert!(most <= 1 && part < 0.001, "{zoom} {space:?} {corner:?}: {most}, {part}");
            }
        }
    }
}

#[test]
fn pictures_are_sharpened_and_steadied_as_on_the_cpu() {
    let areas = [
        Rect { x: 0.2, y: 0.3, width: 0.6, height: 0.5 },
        Rect { x: -1.0, y: -1.0, width: 3.0, height: 3.0 },
        Rect::default(),
    ];
    for memory in host::orders() {
        for (side, space) in [(64, YUV), (64, ColorSpace::Rgb), (7, YUV), (4, ColorSpace::Rgb)] {
            let (plain, last) = (crop(side, space, 3), crop(side, space, 4));
            let (device, before) = (DeviceCrop::of(&memory, &plain).unwrap(), DeviceCrop::of(&memory, &last).unwrap());
            let small = DeviceCrop::of(&memory, &crop(5, space, 0)).unwrap();
            for area in &areas {
                for (amount, reach, frames) in [(0.6, 1, 1.0), (4.0, 2, 0.3), (0.0, 1, 5.0)] {
                    let mut wanted = plain.clone();
                    sharpen::sharpen(&mut wanted, area, amount, reach);
                    let sharp = wanted.data.clone();
                    steady::steady(&mut wanted, &last, area, frames, None);
                    let run = |before, moving| {
                        let asked = Finish { area, amount, reach, before, moving };
                        finish(&memory, &device, &asked).unwrap().read().unwrap()
                    };
                    for moving in [
                        (Rect { x: 0.4, y: 0.1, width: 0.3, height: 0.6 }, 2.5),
                        (Rect { x: -0.5, y: 0.5, width: 1.0, height: 3.0 }, 0.0),
                        (Rect::default(), 9.0),
                    ] {
                        let mut lively = plain.clone();
                        sharpen::sharpen(&mut lively, area, amount, reach);
                        steady::steady(&mut lively, &last, area, frames, Some(moving));
                        let found = run(Some((&before, frames)), Some(moving)).data;
                        assert_eq!(found, lively.data, "{side} {space:?} {area:?} {amount} {reach} {moving:?}");
                    }
                    assert_eq!(
                        run(Some((&before, frames)), None).data,
                        wanted.data,
                        "{side} {space:?} {area:?} {amount} {reach}"
                    );
                    assert_eq!(run(None, None).data, sharp);
                    assert_eq!(run(Some((&small, frames)), None).data, sharp);
                }
            }
        }
    }
}
