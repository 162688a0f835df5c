use super::*;
use crate::{
    cuda::Buffer,
    geometry::Rect,
    image::{Patch, inset, paste as on_cpu},
    kernels::{DeviceCrop, DevicePatch, Order, convert, cover, paste, put},
};

/// A soft round mask, a hard one over all of the crop, a single pixel, and none.
fn masks(side: usize) -> Vec<Vec<u8>> {
    let middle = side as f32 / 2.0;
    let soft = |i: usize| {
        let (x, y) = ((i % side) as f32 + 0.5 - middle, (i / side) as f32 + 0.5 - middle);
        ((1.0 - (x.hypot(y) / middle - 0.35) / 0.5).clamp(0.0, 1.0) * 255.0) as u8
    };
    let mut one = vec![0; side * side];
    one[side * side / 2] = 200;
    vec![(0..side * side).map(soft).collect(), vec![255; side * side], one, vec![0; side * side]]
}

#[test]
fn what_is_pasted_is_what_the_cpu_pastes_in_all_formats_and_at_the_edges() {
    let (mut worst, mut some) = (0, 0.0f32);
    for memory in host::orders() {
        for kind in FORMATS {
            for size in [(161, 121), (160, 90), (1, 1), (3, 2)] {
                let before = Picture::new(kind, size);
                let (w, h) = (size.0 as f32, size.1 as f32);
                let places = [
                    (64, around(w * 0.5, h * 0.5, 80.0, 0.0), 1.0),
                    (96, around(w * 0.47, h * 0.52, 57.3, 0.5), 0.6),
                    (65, around(w - 9.0, 5.0, 70.0, -0.8), 1.0),
                    (32, around(-100.0, 20.0, 50.0, 0.0), 1.0),
                    (32, around(w * 0.5, h * 0.5, 50.0, 0.3), 0.0),
                ];
                for (side, to_crop, opacity) in places {
                    for (space, mask) in [before.view().space(), ColorSpace::Rgb]
                        .iter()
                        .flat_map(|s| masks(side).into_iter().map(move |m| (*s, m)))
                    {
                        let to_frame = to_crop.inverse().unwrap();
                        let pixels = crop(side, space, 1);
                        let patch = Patch {
                            pixels: pixels.clone().into(),
                            mask: mask.clone().into(),
                            to_frame,
                            opacity,
                            hard: false,
                        };
                        let (mut wanted, mut found) = (before.clone(), before.clone());
                        let report = on_cpu(&mut wanted.frame(), &patch).unwrap();
                        let pixels = DeviceCrop::of(&memory, &pixels).unwrap();
                        let there = Buffer::of(&memory, &mask).unwrap();
                        let patch = DevicePatch { pixels: &pixels, mask: (&mask, &there), to_frame, opacity };
                        let touched = paste(&memory, &mut found.frame(), &patch).unwrap();
                        let (most, part) = differ(&found.bytes(), &wanted.bytes());
                        assert!(most <= 1, "{kind:?} {size:?} {side} {to_crop:?} {opacity} {space:?}: {most}");
                        (worst, some) = (worst.max(most), some.max(part));
                        let holds = |a: f32, length: f32, b: f32, within: f32| a <= b && b + within <= a + length;
                        let own = report.touched;
                        assert!(
                            report.pixels == 0
                                || (holds(touched.x, touched.width, own.x, 1.0)
                                    && holds(touched.y, touched.height, own.y, 1.0))
                        );
                    }
                }
            }
        }
    }
    println!("pasted: {worst} of 255 at most, in {:.3} % of the values at most", some * 100.0);
}

#[test]
fn colours_are_fitted_as_the_cpu_fits_them() {
    // Light that grew by a tenth, with a slope, a hand over a part of the feather, and noise beyond a camera's, so that the scale
    // of what counts is the residuals' own.
    for memory in host::orders() {
        for kind in [FORMATS[0], FORMATS[1], FORMATS[4]] {
            let mut before = Picture::new(kind, (200, 160));
            for (data, stride) in &mut before.planes {
                for (i, v) in data.iter_mut().enumerate() {
                    let (x, y) = (i % *stride, i / *stride);
                    let noise = ((x * 37 + y * 91 + x * y) % 13) as f32 - 6.0;
                    *v = (f32::from(*v) * 1.08 + 4.0 + x as f32 * 0.02 + noise) as u8;
                    if x < *stride / 3 && y < 50 {
                        *v = 30;
                    }
                }
            }
            let to_crop = around(100.0, 80.0, 128.0, 0.0);
            let picture = Picture::new(kind, (200, 160));
            let pixels = Crop::take_sharp(&picture.view(), 128, &to_crop).unwrap();
            let mask = masks(128)[0].clone();
            let to_frame = to_crop.inverse().unwrap();
            let patch =
                Patch { pixels: pixels.clone().into(), mask: mask.clone().into(), to_frame, opacity: 1.0, hard: false };
            let (mut wanted, mut found) = (before.clone(), before.clone());
            on_cpu(&mut wanted.frame(), &patch).unwrap();
            let (pixels, there) = (DeviceCrop::of(&memory, &pixels).unwrap(), Buffer::of(&memory, &mask).unwrap());
            let patch = DevicePatch { pixels: &pixels, mask: (&mask, &there), to_frame, opacity: 1.0 };
            paste(&memory, &mut found.frame(), &patch).unwrap();
            let (most, part) = differ(&found.bytes(), &wanted.bytes());
            assert!(most <= 1 && part < 0.01, "{kind:?}: {most}, {part}");
            // The patch is 16 codes darker than the frame, of which a correction may take twelve.
            let middle = 80 * before.planes[0].1 + 100 * (before.planes[0].1 / 200);
            let [patch, pasted] = [&picture, &found].map(|picture| picture.planes[0].0[middle]);
            assert!(pasted >= patch + 8, "{kind:?}: {patch} {pasted}");
        }
    }
}

#[test]
fn pictures_of_a_network_are_put_into_a_crop_as_the_cpu_puts_them() {
    let mut worst = 0;
    for memory in host::orders() {
        for space in [ColorSpace::Rgb, YUV, ColorSpace::Yuv(Matrix::Bt601, Range::Full)] {
            for (side, size) in [(64, 96), (23, 37), (96, 64), (1, 4)] {
                let inner = Rect { x: 0.2, y: 0.06, width: 0.61, height: 0.88 };
                // Beyond -1..1 too.
                let planes: Vec<f32> = (0..3 * side * side).map(|i| (i as f32 * 0.37).sin() * 1.2).collect();
                let unit: Vec<f32> = planes.iter().map(|v| v / 2.0 + 0.5).collect();
                let part = |c: usize| &unit[c * side * side..][..side * side];
                let mut wanted = crop(size, space, 5);
                let [mut found, mut turned] = [(); 2].map(|()| DeviceCrop::of(&memory, &wanted).unwrap());
                inset::put([part(0), part(1), part(2)], side, &mut wanted, &inner);
                let there = Buffer::of(&memory, &[&[9.0][..], &planes].concat()).unwrap();
                let scaled = ((0.5, 0.5), Order::Rgb);
                let backwards: Vec<f32> = planes.rchunks_exact(side * side).flatten().copied().collect();
                let backwards = Buffer::of(&memory, &backwards).unwrap();
                put(&memory, (&backwards, 0), side, ((0.5, 0.5), Order::Bgr), &mut turned, &inner).unwrap();
                put(&memory, (&there, 1), side, scaled, &mut found, &inner).unwrap();
                assert_eq!(turned.read().unwrap().data, found.read().unwrap().data);
                let (most, _) = differ(&found.read().unwrap().data, &wanted.data);
                assert!(most <= 1, "{space:?} {side} {size}: {most}");
                worst = worst.max(most);
                for other in [ColorSpace::Rgb, YUV] {
                    let (most, _) = differ(
                        &convert(&memory, &found, other).unwrap().read().unwrap().data,
                        &wanted.convert(other).data,
                    );
                    assert!(most <= 1, "{space:?} to {other:?}: {most}");
                }
                assert!(put(&memory, (&there, 2), side, scaled, &mut found, &inner).is_err());
            }
        }
    }
    println!("put: {worst} of 255 at most");
}

#[test]
fn a_mask_is_what_is_shown_of_columns_and_rows() {
    for memory in host::orders() {
        for side in [1, 7, 64, 192] {
            let share = |i: usize, k: f32| ((i as f32 + k) * 0.37).sin().clamp(0.0, 1.0);
            let [columns, rows] = [0.3, 5.1].map(|k| (0..side).map(|i| share(i, k)).collect::<Vec<_>>());
            let wanted: Vec<u8> =
                rows.iter().flat_map(|r| columns.iter().map(move |c| (r * c * 255.0 + 0.5) as u8)).collect();
            assert_eq!(cover(&memory, &columns, &rows).unwrap().read().unwrap(), wanted, "{side}");
            assert!(cover(&memory, &columns, &[]).is_err());
        }
    }
}

#[test]
fn patches_that_the_cpu_refuses_are_refused() {
    let [memory, _] = host::orders();
    let mut picture = Picture::new(FORMATS[0], (20, 20));
    let pixels = DeviceCrop::of(&memory, &crop(8, YUV, 0)).unwrap();
    let mask = vec![255; 64];
    let there = Buffer::of(&memory, &mask).unwrap();
    let flat = Similarity { a: 0.0, b: 0.0, tx: 0.0, ty: 0.0 };
    let good = around(9.0, 9.0, 9.0, 0.0).inverse().unwrap();
    for (mask, to_frame) in [(&mask[1..], good), (&mask[..], flat)] {
        let patch = DevicePatch { pixels: &pixels, mask: (mask, &there), to_frame, opacity: 1.0 };
        assert!(paste(&memory, &mut picture.frame(), &patch).is_err());
    }
}
