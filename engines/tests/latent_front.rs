//! What surrounds the networks of LatentSync and MuseTalk, against what their published programs made of the same input.

mod common;

use lipstream_engines::geometry::{Point, ThreePoint};
use safetensors::SafeTensors;

/// Calls `test` with a golden file, where there is one.
fn with(engine: &str, test: impl FnOnce(&SafeTensors)) {
    let Some(path) = common::shared(&format!("golden/{engine}/golden.safetensors")) else { return };
    let file = std::fs::read(path).unwrap();
    test(&SafeTensors::deserialize(&file).unwrap());
}

fn points(numbers: &[f32]) -> Vec<Point> {
    numbers.chunks_exact(2).map(|p| Point::new(p[0], p[1])).collect()
}

#[test]
fn faces_are_aligned_as_latentsync_aligns_them() {
    with("latentsync15", |golden| {
        let numbers = |name: &str| common::numbers(golden, &format!("align.{name}"));
        let mut aligner = ThreePoint::new(128);
        for (found, wanted) in aligner.template().iter().zip(points(&numbers("template"))) {
            assert!(found.distance(wanted) < 1e-4, "{found:?} instead of {wanted:?}");
        }
        assert_eq!(aligner.size(), (105, 140));
        let (smooth, plain, bias) = (numbers("out.matrix"), numbers("out.matrix_unsmoothed"), numbers("out.p_bias"));
        for (i, face) in points(&numbers("in.points")).as_chunks::<3>().0.iter().enumerate() {
            let map = aligner.fit(face).unwrap();
            let (smoothed, carried) = (aligner.next(face).unwrap(), aligner.bias().unwrap());
            for (map, wanted) in [(map, &plain[6 * i..][..6]), (smoothed, &smooth[6 * i..][..6])] {
                let found = [map.a, -map.b, map.tx, map.b, map.a, map.ty];
                // Single precision in the original: the translation of the largest face is 800.
                let worst = found.iter().zip(wanted).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
                assert!(worst < 2e-6, "face {i}: {worst:e}, {found:?} instead of {wanted:?}");
            }
            assert!(carried.distance(Point::new(bias[2 * i], bias[2 * i + 1])) < 1e-5, "face {i}: {carried:?}");
        }
    });
}
