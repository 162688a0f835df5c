use super::*;
use crate::{
    cuda::Buffer,
    geometry::Rect,
    image::inset,
    kernels::{DeviceCrop, Masked, Order, Planes},
};

/// Faces within the frame, over its edges and corners, beyond it; enlarged, reduced, turned.
fn places((width, height): (usize, usize)) -> Vec<(usize, Similarity)> {
    let (w, h) = (width as f32, height as f32);
    vec![
        (64, around(w * 0.5, h * 0.5, 60.0, 0.0)),
        (96, around(w * 0.45, h * 0.55, 47.3, 0.4)),
        (33, around(w * 0.5, h * 0.5, 121.7, -1.1)),
        (17, around(w * 0.5, h * 0.4, 90.0, 2.8)),
        (64, around(3.0, h - 4.0, 50.0, 0.2)),
        (48, around(w, 0.0, 77.0, 0.0)),
        (32, around(w + 60.0, -70.0, 40.0, 0.1)),
        (8, around(w * 0.5, h * 0.5, 400.0, 0.3)),
    ]
}

#[test]
fn crops_are_those_of_the_cpu_in_all_formats_and_beyond_the_edges() {
    let (mut worst, mut some) = (0, 0.0f32);
    for memory in host::orders() {
        for kind in FORMATS {
            for size in [(161, 121), (160, 90), (1, 1), (2, 7)] {
                let picture = Picture::new(kind, size);
                for (side, to_crop) in places(size) {
                    for sharp in [false, true] {
                        let take = if sharp { Crop::take_sharp } else { Crop::take };
                        let wanted = take(&picture.view(), side, &to_crop).unwrap();
                        let found = DeviceCrop::take(&memory, &picture.view(), side, &to_crop, sharp).unwrap().unwrap();
                        let found = found.read().unwrap();
                        assert_eq!((found.side, found.space), (wanted.side, wanted.space));
                        let (most, part) = differ(&found.data, &wanted.data);
                        // Bilinear values are whole numbers here as there.
                        assert!(most <= u8::from(sharp), "{kind:?} {size:?} {side} {to_crop:?} {sharp}: {most}");
                        (worst, some) = (worst.max(most), some.max(part));
                    }
                }
            }
        }
    }
    println!("crops: {worst} of 255 at most, in {:.3} % of the values at most", some * 100.0);
}

#[test]
fn crops_that_the_cpu_refuses_are_refused() {
    let picture = Picture::new((Format::Nv12, Matrix::Bt709, Range::Limited), (64, 48));
    let [memory, _] = host::orders();
    let flat = Similarity { a: 0.0, b: 0.0, tx: 0.0, ty: 0.0 };
    let nowhere = Similarity { a: f32::NAN, ..flat };
    for (side, map) in [(0, around(9.0, 9.0, 9.0, 0.0)), (5000, around(9.0, 9.0, 9.0, 0.0)), (8, flat), (8, nowhere)] {
        assert!(DeviceCrop::take(&memory, &picture.view(), side, &map, true).unwrap().is_none());
        assert!(Crop::take_sharp(&picture.view(), side, &map).is_none());
    }
}

#[test]
fn planes_are_those_of_the_cpu_and_lie_in_their_slot_of_the_batch() {
    let inner = Rect { x: 0.17, y: 0.055, width: 0.66, height: 0.88 };
    let mut worst = 0.0f32;
    for memory in host::orders() {
        for space in [ColorSpace::Rgb, YUV, ColorSpace::Yuv(Matrix::Bt601, Range::Full)] {
            for (size, side) in [(96, 64), (64, 64), (37, 23), (1, 5)] {
                let crop = crop(size, space, 3);
                let device = DeviceCrop::of(&memory, &crop).unwrap();
                for inner in [Some(&inner), None] {
                    let side = if inner.is_some() { side } else { size };
                    let plain = inner.map_or_else(|| crop.to_rgb_planar(), |r| inset::cut(&crop, r, side).concat());
                    let wanted: Vec<f32> = plain.iter().map(|v| v * 2.0 - 1.0).collect();
                    let mask: Vec<f32> = (0..side * side).map(|i| (i % 5) as f32 / 4.0).collect();
                    let hidden: Vec<f32> = wanted
                        .iter()
                        .enumerate()
                        .map(|(i, v)| {
                            let kept = mask[i % (side * side)];
                            v * kept - 0.5 * (1.0 - kept)
                        })
                        .collect();
                    // Two slots: the masked picture and the whole one, with a number before, between and behind.
                    let count = 3 * side * side;
                    let out = Buffer::zeroed(&memory, 2 * count + 3).unwrap();
                    let mask = Buffer::of(&memory, &mask).unwrap();
                    let masked = Some(Masked { out: (&out, 1), mask: &mask, hidden: -0.5 });
                    let order = Order::Rgb;
                    let planes = Planes { side, order, scale: 2.0, offset: -1.0, out: (&out, count + 2), masked };
                    device.show(&memory, inner, &planes).unwrap();
                    let found = out.read().unwrap();
                    let all = [&[0.0][..], &hidden, &[0.0], &wanted, &[0.0]].concat();
                    worst = worst.max(apart(&found, &all));
                    assert!(worst < 1e-5, "{space:?} {size} {side} {inner:?}: {worst}");
                    let plain = Planes { order: Order::Bgr, out: (&out, 0), masked: None, ..planes };
                    device.show(&memory, inner, &plain).unwrap();
                    let turned: Vec<f32> = wanted.rchunks_exact(side * side).flatten().copied().collect();
                    assert!(apart(&out.read().unwrap()[..count], &turned) < 1e-5, "{space:?} {size} {side} {inner:?}");
                    let beyond = Planes { out: (&out, count + 4), masked: None, ..planes };
                    assert!(device.show(&memory, inner, &beyond).is_err());
                }
            }
        }
    }
    println!("planes: {worst:.1e} at most");
}
