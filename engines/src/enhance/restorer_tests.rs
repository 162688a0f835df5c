use super::*;
use crate::{
    geometry::{Point, Rect, landmarks},
    image::{Format, Matrix, PlaneMut, Range},
    import::onnx::{Conv, Dim, Graph, Precision},
    runtime::{Device, Options},
};

const SIZE: (usize, usize) = (240, 200);

/// A network of 256 pixels that takes any number of faces and makes `part` of each picture's colours and a lighter red.
fn network(folder: &std::path::Path, part: f32) -> Arc<Network> {
    let mut graph = Graph::new("enhance", Precision::Fp32);
    let shape = [Dim::Free("batch"), Dim::Fixed(3), Dim::Fixed(256), Dim::Fixed(256)];
    let x = graph.input("input", &shape);
    let mut weight = vec![0.0; 9];
    (0..3).for_each(|i| weight[4 * i] = part);
    let conv =
        Conv { shape: [3, 3, 1, 1], weight, bias: vec![0.25, 0.0, 0.0], stride: [1; 2], padding: [0; 2], groups: 1 };
    let y = graph.conv(&x, conv).unwrap();
    graph.output("output", &shape, y);
    let file = folder.join("gfpgan_small.onnx");
    std::fs::write(&file, graph.finish()).unwrap();
    Arc::new(Network::open(&file, &Options { device: Device::Cpu, ..Options::default() }).unwrap())
}

/// A face with its eyes, nose and mouth around there.
fn face(x: f32, y: f32) -> Face {
    let mut points = vec![Point::new(x, y); landmarks::COUNT];
    for (i, p) in points[landmarks::JAW].iter_mut().enumerate() {
        let (sin, cos) = (i as f32 / 20.0 * std::f32::consts::PI).sin_cos();
        *p = Point::new(x + 45.0 * cos, y + 55.0 * sin);
    }
    for (i, p) in points[landmarks::LIPS_OUTER].iter_mut().enumerate() {
        let (sin, cos) = (i as f32 / 20.0 * std::f32::consts::TAU).sin_cos();
        *p = Point::new(x + 17.0 * cos, y + 30.0 + 8.0 * sin);
    }
    points[landmarks::EYE_CORNERS].iter_mut().zip([-26.0, -14.0, 14.0, 26.0]).for_each(|(p, dx)| p.x += dx);
    points[landmarks::EYELIDS].iter_mut().zip([-20.0, -20.0, 20.0, 20.0]).for_each(|(p, dx)| p.x += dx);
    points[landmarks::EYE_CORNERS].iter_mut().for_each(|p| p.y -= 15.0);
    points[landmarks::EYELIDS].iter_mut().for_each(|p| p.y -= 15.0);
    points[landmarks::CORNER_RIGHT] = Point::new(x - 17.0, y + 30.0);
    points[landmarks::CORNER_LEFT] = Point::new(x + 17.0, y + 30.0);
    points[landmarks::NOSE_TIP] = Point::new(x, y + 8.0);
    points[landmarks::EYE_RIGHT] = Point::new(x - 20.0, y - 15.0);
    points[landmarks::EYE_LEFT] = Point::new(x + 20.0, y - 15.0);
    let rect = Rect::around(&points).unwrap();
    Face { track_id: 1, rect, points: points.into(), confidence: 1.0, yaw: 0.0, occluded: false, front: None }
}

/// A smooth picture that is `by` lighter than another, its face's middle at (x, y).
fn picture(by: u8) -> Vec<u8> {
    (0..SIZE.1)
        .flat_map(|y| (0..SIZE.0).flat_map(move |x| [60 + (x / 4) as u8 + by, 70 + (y / 4) as u8 + by, 90 + by]))
        .collect()
}

fn restore(restorer: &mut Restorer, data: &mut [u8], face: &Face, every: usize) -> usize {
    let planes = vec![PlaneMut { data, stride: 3 * SIZE.0 }];
    let mut frame = FrameMut::new(Format::Rgb, SIZE, Matrix::Bt709, Range::Full, planes).unwrap();
    let how = Restoring { strength: 1.0, mouth_protection: 0.0, weight: 0.5, every };
    restorer.restore(&mut frame, std::slice::from_ref(face), &how).unwrap()
}

/// Red, green and blue in the middle of a face.
fn at(data: &[u8], x: usize, y: usize) -> [u8; 3] {
    data[(y * SIZE.0 + x) * 3..][..3].try_into().unwrap()
}

fn most_apart(a: &[u8], b: &[u8]) -> u8 {
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn evaluations_come_as_often_as_half_of_the_time_allows() {
    let frame = Duration::from_millis(40);
    for (ms, every) in [(0.0, 1), (5.0, 1), (20.0, 1), (21.0, 2), (70.0, 4), (160.0, 8), (5000.0, 8)] {
        assert_eq!(fitting(ms / 1e3, frame), every, "{ms} ms");
    }
}

#[test]
fn strength_is_continuous_and_a_protected_mouth_stays_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (network, face) = (network(folder.path(), 1.0), face(110.0, 90.0));
    let with = |strength: f32, mouth_protection: f32| {
        let mut data = picture(0);
        let planes = vec![PlaneMut { data: &mut data, stride: 3 * SIZE.0 }];
        let mut frame = FrameMut::new(Format::Rgb, SIZE, Matrix::Bt709, Range::Full, planes).unwrap();
        let how = Restoring { strength, mouth_protection, weight: 0.5, every: 1 };
        Restorer::new(network.clone()).restore(&mut frame, std::slice::from_ref(&face), &how).unwrap();
        data
    };
    let (none, all) = (with(0.0, 0.0), with(1.0, 0.0));
    assert_eq!(none, picture(0));
    for step in 1..=20_u8 {
        let strength = f32::from(step) / 20.0;
        for ((now, none), all) in with(strength, 0.0).iter().zip(&none).zip(&all) {
            let wanted = f32::from(*none) + strength * (f32::from(*all) - f32::from(*none));
            assert!((f32::from(*now) - wanted).abs() <= 1.01, "{strength}: {now}, {wanted}");
        }
    }
    // The middle of the lips, and a cheek.
    let (lips, cheek) = ((110, 120), (85, 100));
    let red = |data: &[u8], (x, y): (usize, usize)| at(data, x, y)[0];
    let [kept, half] = [with(1.0, 1.0), with(1.0, 0.5)];
    assert_eq!(red(&kept, lips), red(&none, lips));
    assert_eq!(red(&kept, cheek), red(&all, cheek));
    let share = f32::from(red(&half, lips) - red(&none, lips)) / f32::from(red(&all, lips) - red(&none, lips));
    assert!((share - 0.5).abs() < 0.05, "{share}");
}

#[test]
fn what_was_changed_follows_a_face_that_moves_until_it_is_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let network = network(folder.path(), 1.0);
    let (mut seldom, mut always) = (Restorer::new(network.clone()), Restorer::new(network));
    for n in 0..5_usize {
        let (x, y) = (110.0 + 2.5 * n as f32, 90.0 + n as f32);
        let (mut a, mut b) = (picture(0), picture(0));
        let face = face(x, y);
        assert_eq!((restore(&mut seldom, &mut a, &face, 4), restore(&mut always, &mut b, &face, 1)), (1, 1));
        // What this network changes is the same wherever the face is.
        assert!(most_apart(&a, &b) <= 1, "frame {n}: {}", most_apart(&a, &b));
        let [red, green, blue] = at(&a, x as usize, y as usize);
        let [old, ..] = at(&picture(0), x as usize, y as usize);
        assert!(
            red.abs_diff(old) > 28 && (green, blue.abs_diff(90)) == (at(&picture(0), x as usize, y as usize)[1], 0)
        );
    }
}

#[test]
fn the_picture_of_the_frame_shows_through_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    // Without any of the picture: each evaluation gives the same grey.
    let mut restorer = Restorer::new(network(folder.path(), 0.0));
    let face = face(110.0, 90.0);
    let mut blue = |by: u8, every| {
        let mut data = picture(by);
        restore(&mut restorer, &mut data, &face, every);
        at(&data, 110, 90)[2]
    };
    let first = blue(0, 3);
    assert!(first.abs_diff(128) <= 1, "{first}");
    // Two frames with what was kept, which are lighter as the frame is; then it is looked at again.
    let found = [blue(10, 3), blue(20, 3), blue(30, 3), blue(40, 1)];
    let wanted = [138, 148, 128, 128];
    assert!(found.iter().zip(wanted).all(|(found, wanted)| found.abs_diff(wanted) <= 1), "{found:?}");
}

#[test]
fn faces_of_several_streams_share_an_evaluation_and_get_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let network = network(folder.path(), 1.0);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let network = &network;
            scope.spawn(move || {
                let level = n as f32 * 0.1 - 0.3;
                let (shown, made) = network.run(vec![level; 3 * 256 * 256], 0.5).unwrap();
                assert!(shown.iter().all(|v| *v == level));
                let [red, green] = [made[77], made[256 * 256 + 77]];
                assert!((red - level - 0.25).abs() < 1e-5 && (green - level).abs() < 1e-5, "{n}: {red}, {green}");
            });
        }
    });
    assert!(network.run(vec![0.0; 5], 0.5).is_err());
}
