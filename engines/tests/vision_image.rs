//! Crops taken from frames and patches pasted back, in each pixel format.

mod common;

use common::{BT709, Picture};
use lipstream_engines::{
    engine::Patch,
    geometry::{Point, Similarity},
    image::{ColorSpace, Crop, Format, Matrix, Range, paste, paste_behind},
};

const FORMATS: [Format; 5] = [Format::I420, Format::Nv12, Format::Rgb, Format::Rgba, Format::Bgra];

/// Frame to unit crop: a square of `width` pixels at `centre`, turned by `angle`.
fn square(centre: Point, width: f32, angle: f32) -> Similarity {
    let (a, b) = (angle.cos() / width, -angle.sin() / width);
    Similarity { a, b, tx: 0.5 - (a * centre.x - b * centre.y), ty: 0.5 - (b * centre.x + a * centre.y) }
}

/// Full in the middle, falling to zero over `feather` pixels inside a disc.
fn disc(side: usize, radius: f32, feather: f32) -> Vec<u8> {
    let middle = side as f32 / 2.0;
    let at = |i: usize| i as f32 + 0.5 - middle;
    (0..side * side)
        .map(|k| {
            let r = at(k % side).hypot(at(k / side));
            ((radius - r) / feather * 255.0).clamp(0.0, 255.0) as u8
        })
        .collect()
}

fn patch(pixels: Crop, mask: Vec<u8>, to_crop: &Similarity) -> Patch {
    Patch { pixels: pixels.into(), mask: mask.into(), to_frame: to_crop.inverse().unwrap(), opacity: 1.0, hard: false }
}

/// Dark background with one bright Gaussian dot.
fn dot(format: Format, size: (usize, usize), at: Point, sigma: f32) -> Picture {
    Picture::new(format, size, |x, y| {
        let r = (x - at.x).hypot(y - at.y) / sigma;
        [40.0 + 160.0 * (-0.5 * r * r).exp(); 3]
    })
}

/// The centre of what is brighter than the background, in frame pixels.
fn centroid(picture: &Picture) -> Point {
    let (mut sum, mut at) = (0.0, Point::default());
    for y in 0..picture.size.1 {
        for x in 0..picture.size.0 {
            let v = (picture.rgb(x, y)[1] - 45.0).max(0.0);
            sum += v;
            at = at + Point::new(x as f32 + 0.5, y as f32 + 0.5) * v;
        }
    }
    at * (1.0 / sum)
}

#[test]
fn a_crop_pasted_back_stays_within_a_quarter_pixel() {
    for format in FORMATS {
        // Sharper and coarser than the frame, straight and turned.
        for (side, width, angle) in [(256, 180.0, 0.0), (128, 150.0, 0.3), (96, 200.0, -0.5), (128, 60.0, 0.1)] {
            let at = Point::new(150.3, 119.6);
            let sigma = width / 16.0;
            let with_dot = dot(format, (320, 240), at, sigma);
            let to_crop = square(Point::new(152.0, 121.0), width, angle);
            let crop = Crop::take(&with_dot.view(), side, &to_crop).unwrap();
            let mut target = Picture::new(format, (320, 240), |_, _| [40.0; 3]);
            let mask = disc(side, side as f32 * 0.49, side as f32 * 0.05);
            paste(&mut target.frame(), &patch(crop, mask, &to_crop)).unwrap();
            let shift = centroid(&target).distance(centroid(&with_dot));
            assert!(shift <= 0.25, "{format:?} {side} px of {width}: the dot moved by {shift} px");
            let error = (target.rgb(150, 119)[1] - with_dot.rgb(150, 119)[1]).abs();
            assert!(error < 12.0, "{format:?} {side} px of {width}: the dot's height is off by {error}");
        }
    }
}

#[test]
fn chroma_is_where_luma_is() {
    // A red dot: its chroma must come back to the same place as its luma.
    for format in [Format::I420, Format::Nv12] {
        let at = Point::new(90.0, 70.0);
        let red = |x: f32, y: f32| {
            let r = (x - at.x).hypot(y - at.y) / 12.0;
            [60.0 + 150.0 * (-0.5 * r * r).exp(), 60.0, 60.0]
        };
        let picture = Picture::new(format, (181, 141), red);
        let crop = Crop::take(&picture.view(), 128, &square(Point::new(92.0, 69.0), 100.0, 0.2)).unwrap();
        let rgb = crop.to_rgb_planar();
        let weigh = |plane: usize, base: f32| {
            let (mut sum, mut p) = (0.0, Point::default());
            for (i, v) in rgb[plane * 128 * 128..(plane + 1) * 128 * 128].iter().enumerate() {
                let v = (v * 255.0 - base).max(0.0);
                sum += v;
                p = p + Point::new((i % 128) as f32, (i / 128) as f32) * v;
            }
            p * (1.0 / sum)
        };
        let red_centre = weigh(0, 70.0);
        let wanted = square(Point::new(92.0, 69.0), 100.0, 0.2).apply(at) * 128.0 - Point::new(0.5, 0.5);
        assert!(red_centre.distance(wanted) < 0.4, "{format:?}: {red_centre:?} instead of {wanted:?}");
    }
}

#[test]
fn nothing_outside_the_reported_box_changes() {
    for format in FORMATS {
        let mut picture = common::noise(format, (161, 121), 7);
        let before = picture.clone();
        let to_crop = square(Point::new(80.0, 60.0), 70.0, 0.4);
        let bright = Crop { side: 128, space: before.space(), data: vec![200; 128 * 128 * 3] };
        let report = paste(&mut picture.frame(), &patch(bright, disc(128, 50.0, 10.0), &to_crop)).unwrap();
        let t = report.touched;
        assert!(t.width > 40.0 && t.width < 75.0 && t.height > 40.0 && t.height < 75.0, "{format:?}: {t:?}");
        assert!((report.pixels as f32) > 1500.0 && (report.pixels as f32) < t.area(), "{format:?}: {report:?}");
        let inside = |x: usize, y: usize, spacing: usize| {
            let (x, y) = ((x * spacing) as f32, (y * spacing) as f32);
            x >= t.x - 1.0 && x < t.x + t.width && y >= t.y - 1.0 && y < t.y + t.height
        };
        assert!(picture.planes[0] != before.planes[0], "{format:?}: nothing was pasted");
        before.each_byte(|plane, at, (x, y), spacing, alpha| {
            if alpha || !inside(x, y, spacing) {
                let (old, new) = (before.planes[plane][at], picture.planes[plane][at]);
                assert_eq!(old, new, "{format:?} plane {plane} at {x},{y}");
            }
        });
    }
}

#[test]
fn a_patch_that_leaves_the_frame_is_cut_and_one_outside_does_nothing() {
    for format in FORMATS {
        let mut picture = common::noise(format, (65, 49), 3);
        let before = picture.clone();
        let bright = || Crop { side: 64, space: before.space(), data: vec![220; 64 * 64 * 3] };
        let corner = square(Point::new(0.0, 48.0), 40.0, 0.3);
        let report = paste(&mut picture.frame(), &patch(bright(), disc(64, 30.0, 6.0), &corner)).unwrap();
        assert!(report.pixels > 100 && report.touched.x == 0.0, "{format:?}: {report:?}");
        let t = report.touched;
        assert!(t.x + t.width <= 65.0 && t.y + t.height <= 49.0, "{format:?}: {t:?}");

        let after = picture.clone();
        let away = square(Point::new(-100.0, 300.0), 40.0, 0.3);
        let report = paste(&mut picture.frame(), &patch(bright(), disc(64, 30.0, 6.0), &away)).unwrap();
        assert_eq!((report.pixels, report.touched.area()), (0, 0.0));
        let mut faded = patch(bright(), disc(64, 30.0, 6.0), &square(Point::new(30.0, 20.0), 40.0, 0.0));
        faded.opacity = 0.0;
        assert_eq!(paste(&mut picture.frame(), &faded).unwrap().pixels, 0);
        assert!(picture.planes == after.planes, "{format:?}");
    }
}

#[test]
fn the_feather_is_monotone_and_opacity_scales_it() {
    let to_crop = square(Point::new(100.0, 100.0), 160.0, 0.0);
    let profile = |opacity: f32, side: usize| {
        let mut picture = Picture::new(Format::Rgb, (200, 200), |_, _| [100.0; 3]);
        let flat = Crop { side, space: ColorSpace::Rgb, data: vec![180; side * side * 3] };
        let mut p = patch(flat, disc(side, side as f32 * 0.45, side as f32 * 0.2), &to_crop);
        p.opacity = opacity;
        paste(&mut picture.frame(), &p).unwrap();
        (100..200).map(|x| picture.rgb(x, 100)[0]).collect::<Vec<_>>()
    };
    for side in [64, 160, 512] {
        let full = profile(1.0, side);
        assert!(full.windows(2).all(|w| w[1] <= w[0]), "{full:?}");
        let steps = full.windows(2).map(|w| w[0] - w[1]).fold(0.0f32, f32::max);
        assert!(steps <= 5.0, "side {side}: a step of {steps} codes in a feather of 32 pixels");
        // The offset of 80 codes is matched by 12 at most.
        assert!((full[0] - 168.0).abs() <= 1.0, "side {side}: {}", full[0]);
        assert_eq!(full[99], 100.0);
        let half = profile(0.5, side)[0];
        assert!((half - 134.0).abs() <= 1.0, "{half}");
    }
}

#[test]
fn a_known_offset_and_gain_of_colour_is_removed() {
    let texture = |x: f32, y: f32| {
        let v = (x * 0.21).sin() * 18.0 + (y * 0.17).cos() * 14.0;
        [130.0 + v, 110.0 + v, 100.0 + v]
    };
    for format in FORMATS {
        let truth = Picture::new(format, (200, 200), texture);
        let to_crop = square(Point::new(100.0, 100.0), 150.0, 0.1);
        let wrong = Picture::new(format, (200, 200), |x, y| texture(x, y).map(|v| (v - 110.0) * 0.92 + 110.0 + 6.0));
        let crop = Crop::take(&wrong.view(), 150, &to_crop).unwrap();
        let mut result = truth.clone();
        paste(&mut result.frame(), &patch(crop, disc(150, 70.0, 20.0), &to_crop)).unwrap();
        let mut worst = 0.0f32;
        for y in 70..130 {
            for x in 70..130 {
                let (a, b) = (result.rgb(x, y), truth.rgb(x, y));
                worst = (0..3).map(|c| (a[c] - b[c]).abs()).fold(worst, f32::max);
            }
        }
        assert!(worst <= 4.5, "{format:?}: {worst} codes are left of an offset of 6 and a gain of 0.92");
    }
}

#[test]
fn a_hand_over_a_part_of_the_feather_does_not_tint_the_patch() {
    let mut frame =
        Picture::new(Format::Rgb, (200, 200), |x, _| if x > 130.0 { [250.0, 40.0, 40.0] } else { [120.0; 3] });
    let grey = Crop { side: 100, space: ColorSpace::Rgb, data: vec![117; 100 * 100 * 3] };
    let to_crop = square(Point::new(100.0, 100.0), 100.0, 0.0);
    paste(&mut frame.frame(), &patch(grey, disc(100, 45.0, 15.0), &to_crop)).unwrap();
    let found = frame.rgb(95, 100);
    assert!(found.iter().all(|v| (v - 120.0).abs() <= 2.0), "{found:?}");
}

#[test]
fn a_patch_of_other_colours_is_converted() {
    let mut yuv = Picture::new(Format::I420, (120, 120), |_, _| [180.0, 120.0, 90.0]);
    let want = yuv.rgb(60, 60);
    let data = [180, 120, 90].repeat(64 * 64);
    let crop = Crop { side: 64, space: ColorSpace::Rgb, data };
    paste(&mut yuv.frame(), &patch(crop, disc(64, 30.0, 8.0), &square(Point::new(60.0, 60.0), 80.0, 0.0))).unwrap();
    let found = yuv.rgb(60, 60);
    assert!((0..3).all(|c| (found[c] - want[c]).abs() <= 2.0), "{found:?} {want:?}");
}

#[test]
fn a_shrunk_checkerboard_is_grey_and_not_moire() {
    // One pixel squares of the frame at a quarter of the size, and of the patch in a frame where it is small.
    let board = |x: f32, y: f32| if (x as i32 + y as i32) % 2 == 0 { [255.0; 3] } else { [0.0; 3] };
    let picture = Picture::new(Format::Rgb, (512, 512), board);
    let crop = Crop::take(&picture.view(), 96, &square(Point::new(256.0, 256.0), 384.0, 0.0)).unwrap();
    assert!(crop.data.iter().all(|v| (i32::from(*v) - 128).abs() < 16), "aliasing in a crop");

    let data = (0..256 * 256).flat_map(|i| board((i % 256) as f32, (i / 256) as f32).map(|v| v as u8)).collect();
    let crop = Crop { side: 256, space: ColorSpace::Rgb, data };
    let mut small = Picture::new(Format::Rgb, (100, 100), |_, _| [128.0; 3]);
    paste(&mut small.frame(), &patch(crop, disc(256, 120.0, 20.0), &square(Point::new(50.0, 50.0), 60.0, 0.0)))
        .unwrap();
    assert!((35..65).all(|x| (small.rgb(x, 50)[0] - 128.0).abs() < 16.0), "aliasing in a patch");
}

#[test]
fn rgb_planes_follow_the_colour_matrix() {
    for space in [
        ColorSpace::Rgb,
        BT709,
        ColorSpace::Yuv(Matrix::Bt601, Range::Full),
        ColorSpace::Yuv(Matrix::Bt2020, Range::Limited),
    ] {
        let data: Vec<u8> = (0..16 * 16 * 3).map(|i| (60 + (i * 37) % 120) as u8).collect();
        let crop = Crop { side: 16, space, data };
        let planes = crop.to_rgb_planar();
        for i in 0..256 {
            let p = space.to_rgb([0, 1, 2].map(|c| f32::from(crop.data[3 * i + c])));
            for c in 0..3 {
                assert!((planes[c * 256 + i] * 255.0 - p[c]).abs() < 0.02, "{space:?}");
            }
        }
        let back = Crop::from_rgb_planar(&planes, 16, ColorSpace::Rgb).unwrap();
        let once = crop.convert(ColorSpace::Rgb);
        assert!(back.data.iter().zip(&once.data).all(|(a, b)| a.abs_diff(*b) <= 1));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let mut picture = Picture::new(Format::Rgb, (64, 64), |_, _| [9.0; 3]);
    let nothing = Similarity { a: 0.0, b: 0.0, tx: 0.0, ty: 0.0 };
    let tiny = Similarity { a: 1e-9, ..Similarity::IDENTITY };
    let broken = Similarity { tx: f32::NAN, ..Similarity::IDENTITY };
    for map in [nothing, tiny, broken] {
        assert!(Crop::take(&picture.view(), 32, &map).is_none(), "{map:?}");
    }
    let crop = Crop { side: 8, space: ColorSpace::Rgb, data: vec![0; 8 * 8 * 3] };
    let mut bad = patch(crop, vec![255; 64], &Similarity::IDENTITY);
    bad.to_frame = nothing;
    assert!(paste(&mut picture.frame(), &bad).is_err());
    bad.to_frame = Similarity::IDENTITY;
    bad.mask = vec![255; 63].into();
    assert!(paste(&mut picture.frame(), &bad).unwrap_err().to_string().contains("63"));
}

#[test]
fn what_is_before_a_patch_stays_and_says_nothing_of_its_colours() {
    for format in FORMATS {
        // Bright is what is before the left half of it; right of it the patch is 8 codes too bright.
        let skin = |x: f32, y: f32| 110.0 + (x * 0.21).sin() * 18.0 + (y * 0.17).cos() * 14.0;
        let frame = |cover: bool| {
            Picture::new(format, (200, 200), |x, y| [if cover && x < 100.0 { 240.0 } else { skin(x, y) }; 3])
        };
        let side = 160;
        let to_crop = square(Point::new(100.0, 100.0), 160.0, 0.0);
        let taken = Crop::take_sharp(&frame(false).view(), side, &to_crop).unwrap();
        let brighter = taken.data.iter().enumerate().map(|(i, v)| {
            let luma = !taken.space.eq(&ColorSpace::Rgb) && i % 3 > 0;
            if luma { *v } else { v + 8 }
        });
        let made = patch(Crop { data: brighter.collect(), ..taken.clone() }, disc(side, 72.0, 30.0), &to_crop);
        let seen: Vec<u8> = (0..side * side).map(|i| if i % side < side / 2 { 0 } else { 255 }).collect();

        let (before, mut covered, mut open) = (frame(true), frame(true), frame(false));
        paste_behind(&mut covered.frame(), &made, Some(&seen)).unwrap();
        let mut same = open.clone();
        paste(&mut open.frame(), &made).unwrap();
        paste_behind(&mut same.frame(), &made, Some(&vec![255; side * side])).unwrap();
        assert!(same.planes == open.planes, "{format:?}: all of it is seen");
        let (mut kept, mut moved) = (0.0f32, 0.0f32);
        for (x, y) in (40..160).flat_map(|y| (30..170).map(move |x| (x, y))) {
            let apart = |a: &Picture, b: &Picture| (a.rgb(x, y)[1] - b.rgb(x, y)[1]).abs();
            match x {
                ..98 => kept = kept.max(apart(&covered, &before)),
                103.. => moved = moved.max(apart(&covered, &open)),
                _ => (),
            }
        }
        assert_eq!(kept, 0.0, "{format:?}");
        assert!(moved <= 2.5, "{format:?}: colours were fitted to what is before the face, {moved} codes");
        let wrong = paste_behind(&mut covered.frame(), &made, Some(&[0; 3]));
        assert!(wrong.is_ok_and(|report| report.pixels > 0), "what does not fit the patch is before nothing of it");
    }
}
