use super::*;
use crate::{
    geometry::{Point, Rect, landmarks},
    image::{Format, Matrix, PlaneMut, Range},
};

const SIZE: (usize, usize) = (200, 160);
const FORMATS: [Format; 5] = [Format::I420, Format::Nv12, Format::Rgb, Format::Rgba, Format::Bgra];

/// A face of 90 by 110 pixels with its centre there, its mouth 30 below.
fn face(x: f32, y: f32) -> Face {
    let mut points = vec![Point::new(x, y); landmarks::COUNT];
    let ring = |points: &mut [Point], centre: (f32, f32), radii: (f32, f32), turn: f32| {
        let count = points.len() as f32;
        for (i, p) in points.iter_mut().enumerate() {
            let (sin, cos) = (i as f32 / count * turn).sin_cos();
            *p = Point::new(centre.0 + radii.0 * cos, centre.1 + radii.1 * sin);
        }
    };
    ring(&mut points[landmarks::JAW], (x, y), (45.0, 55.0), std::f32::consts::PI * 1.05);
    ring(&mut points[landmarks::FOREHEAD], (x, y), (45.0, -55.0), std::f32::consts::PI * 1.25);
    ring(&mut points[landmarks::LIPS_OUTER], (x, y + 30.0), (17.0, 8.0), std::f32::consts::TAU);
    points[landmarks::EYE_RIGHT] = Point::new(x - 20.0, y - 15.0);
    points[landmarks::EYE_LEFT] = Point::new(x + 20.0, y - 15.0);
    let rect = Rect::around(&points).unwrap();
    Face { track_id: 1, rect, points: points.into(), confidence: 1.0, yaw: 0.0, occluded: false, front: None }
}

/// Bytes of a picture with texture everywhere, plane after plane, and its planes' strides.
fn picture(format: Format) -> (Vec<Vec<u8>>, Vec<usize>) {
    let (width, height) = SIZE;
    let noise = |len: usize| (0..len).map(|i| 90 + ((i * 37 + (i / 101) * 53) % 64) as u8).collect::<Vec<u8>>();
    match format {
        Format::I420 => (
            vec![noise(width * height), noise(width * height / 4), noise(width * height / 4)],
            vec![width, width / 2, width / 2],
        ),
        Format::Nv12 => (vec![noise(width * height), noise(width * height / 2)], vec![width, width]),
        Format::Rgb => (vec![noise(width * height * 3)], vec![width * 3]),
        Format::Rgba | Format::Bgra => (vec![noise(width * height * 4)], vec![width * 4]),
    }
}

fn with_frame<T>(format: Format, data: &mut [Vec<u8>], strides: &[usize], f: impl FnOnce(&mut FrameMut) -> T) -> T {
    let planes = data.iter_mut().zip(strides).map(|(data, stride)| PlaneMut { data, stride: *stride }).collect();
    f(&mut FrameMut::new(format, SIZE, Matrix::Bt709, Range::Limited, planes).unwrap())
}

fn settings(filter: Filter, strength: f32, mouth_protection: f32) -> Settings {
    Settings { filter, strength, mouth_protection }
}

/// The first plane of an enhanced I420 picture, and as it was.
fn enhanced(of: &Face, settings: &Settings) -> (Vec<u8>, Vec<u8>) {
    let (mut data, strides) = picture(Format::I420);
    let before = data[0].clone();
    let count = with_frame(Format::I420, &mut data, &strides, |frame| {
        Enhancer::default().enhance(frame, std::slice::from_ref(of), settings)
    });
    assert_eq!(count, 1);
    (before, data.swap_remove(0))
}

fn inside(i: usize, centre: (f32, f32), radii: (f32, f32)) -> bool {
    let (x, y) = ((i % SIZE.0) as f32 + 0.5 - centre.0, (i / SIZE.0) as f32 + 0.5 - centre.1);
    (x / radii.0).powi(2) + (y / radii.1).powi(2) < 1.0
}

#[test]
fn every_filter_changes_the_face_and_nothing_else() {
    for filter in Filter::ALL {
        let (before, after) = enhanced(&face(100.0, 80.0), &settings(filter, 1.0, 0.0));
        let changed = |i: &usize| before[*i] != after[*i];
        let all = 0..before.len();
        let middle = all.clone().filter(|i| inside(*i, (100.0, 80.0), (30.0, 35.0)));
        let share = middle.clone().filter(changed).count() as f32 / middle.count() as f32;
        assert!(share > 0.7, "{filter}: {share}");
        let beyond = all.filter(|i| !inside(*i, (100.0, 80.0), (54.0, 66.0)));
        assert_eq!(beyond.filter(changed).count(), 0, "{filter}");
        assert_eq!(filter.name().parse::<Filter>().unwrap(), filter);
    }
    assert!("blur".parse::<Filter>().unwrap_err().to_string().contains("sharpen, clahe, detail, combined"));
}

#[test]
fn a_protected_mouth_stays_to_the_byte_and_an_unprotected_one_does_not() {
    for filter in Filter::ALL {
        let lips = |i: &usize| inside(*i, (100.0, 110.0), (17.0, 8.0));
        let changed = |protection: f32| {
            let (before, after) = enhanced(&face(100.0, 80.0), &settings(filter, 1.0, protection));
            (0..before.len()).filter(lips).map(|i| before[i].abs_diff(after[i])).map(u32::from).sum::<u32>()
        };
        let [none, half, all] = [changed(1.0), changed(0.5), changed(0.0)];
        assert_eq!(none, 0, "{filter}");
        assert!(all > 1000 && half.abs_diff(all / 2) < all / 8, "{filter}: {half} of {all}");
    }
}

#[test]
fn strength_is_continuous_from_the_frame_as_it_was_on() {
    for filter in Filter::ALL {
        let of = face(100.0, 80.0);
        let full = enhanced(&of, &settings(filter, 1.0, 0.0)).1;
        let mut last: Option<Vec<u8>> = None;
        for step in 0..=50 {
            let strength = step as f32 / 50.0;
            let (mut data, strides) = picture(Format::I420);
            let before = data[0].clone();
            with_frame(Format::I420, &mut data, &strides, |frame| {
                Enhancer::default().enhance(frame, std::slice::from_ref(&of), &settings(filter, strength, 0.0))
            });
            let now = data.swap_remove(0);
            if step == 0 {
                assert_eq!(now, before, "{filter}");
            }
            for ((now, before), full) in now.iter().zip(&before).zip(&full) {
                let wanted = f32::from(*before) + strength * (f32::from(*full) - f32::from(*before));
                assert!((f32::from(*now) - wanted).abs() <= 1.01, "{filter} {strength}: {now}, {wanted}");
            }
            if let Some(last) = last {
                let most = now.iter().zip(&last).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(most <= Some(2), "{filter} {strength}: {most:?}");
            }
            last = Some(now);
        }
    }
}

#[test]
fn every_format_keeps_its_colours_and_its_alpha() {
    for format in FORMATS {
        let (mut data, strides) = picture(format);
        let before = data.clone();
        with_frame(format, &mut data, &strides, |frame| {
            Enhancer::default().enhance(frame, &[face(100.0, 80.0)], &settings(Filter::Sharpen, 1.0, 0.0))
        });
        assert!(data[0] != before[0] && data[1..] == before[1..], "{format:?}");
        let bytes = match format {
            Format::I420 | Format::Nv12 => continue,
            Format::Rgb => 3,
            Format::Rgba | Format::Bgra => 4,
        };
        for (new, old) in data[0].chunks_exact(bytes).zip(before[0].chunks_exact(bytes)) {
            let by = [0, 1, 2].map(|c| i32::from(new[c]) - i32::from(old[c]));
            assert!(by.iter().all(|d| (d - by[0]).abs() <= 1), "{format:?}: {by:?}");
            assert_eq!(new.get(3), old.get(3));
        }
    }
}

#[test]
fn a_face_at_the_edge_too_small_or_without_a_shape_is_no_harm() {
    for filter in Filter::ALL {
        let (mut data, strides) = picture(Format::I420);
        let mut broken = face(100.0, 80.0);
        broken.points = vec![Point::new(f32::NAN, f32::INFINITY); landmarks::COUNT].into();
        let mut tiny = face(0.0, 0.0);
        tiny.points = tiny.points.iter().map(|p| Point::new(100.0 + p.x * 0.05, 80.0 + p.y * 0.05)).collect();
        let none = [broken, tiny, face(-500.0, 80.0), face(100.0, 1e9)];
        let mut enhancer = Enhancer::default();
        let mut run = |faces: &[Face]| {
            with_frame(Format::I420, &mut data, &strides, |frame| {
                enhancer.enhance(frame, faces, &settings(filter, 1.0, 0.5))
            })
        };
        assert_eq!(run(&none), 0, "{filter}");
        assert_eq!(run(&[face(0.0, 0.0), face(199.0, 159.0), face(100.0, -40.0)]), 3, "{filter}");
    }
}

#[test]
fn a_moving_face_is_changed_as_one_that_stays() {
    // A face that moves by whole pixels with its picture: what changes from frame to frame moves too.
    for filter in Filter::ALL {
        let mut enhancer = Enhancer::default();
        let texture = |x: i64, y: i64| (100 + ((x * 37 + y * 53 + x * y) % 40)) as u8;
        let shown = |enhancer: &mut Enhancer, by: i64| {
            let (mut data, strides) = picture(Format::I420);
            for (i, v) in data[0].iter_mut().enumerate() {
                *v = texture((i % SIZE.0) as i64 - by + 50, (i / SIZE.0) as i64);
            }
            with_frame(Format::I420, &mut data, &strides, |frame| {
                enhancer.enhance(frame, &[face(90.0 + by as f32, 80.0)], &settings(filter, 1.0, 0.0))
            });
            data.swap_remove(0)
        };
        let first = shown(&mut enhancer, 0);
        for by in 1..8usize {
            let next = shown(&mut enhancer, by as i64);
            for y in 0..SIZE.1 {
                for x in 0..SIZE.0 - by {
                    let (old, new) = (first[y * SIZE.0 + x], next[y * SIZE.0 + x + by]);
                    assert!(old.abs_diff(new) <= 1, "{filter}, moved by {by}: {old}, {new} at {x}, {y}");
                }
            }
        }
    }
}
