//! What surrounds the networks of LatentSync and MuseTalk, against what their published programs made of the same input.

mod common;

use lipstream_engines::{
    audio::whisper::{recording, window},
    engine::latent::{blend, face, mask},
    geometry::{Point, Similarity, ThreePoint},
    image::PixelBox,
};
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

/// The sound of a golden file, and 32 s of it at changing levels.
fn sounds(golden: &SafeTensors, rounded: bool) -> (Vec<f32>, Vec<f32>) {
    let (audio, gains) = (common::numbers(golden, "audio"), common::numbers(golden, "whisper.long.gain"));
    let sample = |s: f32| if rounded { (s * 32768.0).round_ties_even() / 32768.0 } else { s };
    let long = gains.iter().flat_map(|gain| audio.iter().map(move |s| sample(s * gain))).collect();
    (audio, long)
}

fn worst(found: impl IntoIterator<Item = f32>, wanted: &[f32]) -> f32 {
    let found: Vec<f32> = found.into_iter().collect();
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn recordings_are_shown_to_whisper_as_latentsync_and_musetalk_show_them() {
    with("latentsync15", |golden| {
        let (audio, long) = sounds(golden, false);
        let short = recording::latentsync(&audio);
        assert_eq!((short.len(), short[0].columns, short[0].rows()), (1, 200, 100));
        let bins = (0..80).flat_map(|b| short[0].mel[b * 3000..][..200].to_vec());
        let off = worst(bins, &common::numbers(golden, "whisper.in.mel"));
        println!("latentsync: {off:e}");
        assert!(off < 1e-4, "{off:e}");
        let long = recording::latentsync(&long);
        assert_eq!(long.iter().map(|segment| segment.columns).collect::<Vec<_>>(), [3000, 200]);
        let at = |b: usize, k: usize| long[k / 3000].mel[b * 3000 + k % 3000];
        let bins = (0..80).flat_map(|b| [0, 100, 650, 2999, 3000, 3199].map(|k| at(b, k)));
        let off = worst(bins, &common::numbers(golden, "whisper.long.in.mel_columns"));
        println!("latentsync, 32 s: {off:e}");
        assert!(off < 1e-4, "{off:e}");
    });
    with("musetalk15", |golden| {
        let (audio, long) = sounds(golden, true);
        let short = recording::musetalk(&audio);
        assert_eq!((short.len(), recording::musetalk(&long).len()), (1, 2));
        let bins = (0..80).flat_map(|b| short[0].mel[b * 3000..][..204].to_vec());
        let off = worst(bins, &common::numbers(golden, "whisper.in.mel"));
        println!("musetalk: {off:e}");
        assert!(off < 1e-4, "{off:e}");
    });
}

#[test]
fn frames_take_the_rows_that_latentsync_and_musetalk_take() {
    with("latentsync15", |golden| {
        let numbers = |name: &str| common::numbers(golden, &format!("whisper.{name}"));
        for (name, fps) in [("out.index.fps25", 25.0), ("out.index.fps30", 30.0)] {
            let wanted = numbers(name);
            assert_eq!(window::latentsync_frames(fps, 100) as usize, wanted.len() / 10);
            for (frame, wanted) in (0..).zip(wanted.chunks_exact(10)) {
                let found = window::latentsync(frame, fps, 100).unwrap();
                assert!(found.iter().zip(wanted).all(|(a, b)| *a == *b as usize), "{name}, {frame}: {found:?}");
            }
        }
        let (states, windows) = (numbers("out.embeddings"), numbers("out.windows"));
        for (frame, wanted) in numbers("out.windows.frames").iter().zip(windows.chunks_exact(50 * 32)) {
            let rows = window::latentsync(*frame as u64, 25.0, 100).unwrap();
            assert_eq!(window::gather(&states, 5 * 32, rows.map(Some)), wanted, "frame {frame}");
        }
    });
    with("musetalk15", |golden| {
        let numbers = |name: &str| common::numbers(golden, &format!("whisper.{name}"));
        let states = numbers("out.hidden_states");
        let count = window::musetalk_rows(32_000);
        assert_eq!(count, 100);
        for (name, fps) in [("out.windows", 25), ("out.windows.fps30", 30)] {
            let windows = numbers(name);
            for (frame, wanted) in numbers(&format!("{name}.frames")).iter().zip(windows.chunks_exact(50 * 32)) {
                let rows = window::musetalk(*frame as u64, fps, count);
                assert_eq!(window::gather(&states, 5 * 32, rows), wanted, "{name}, frame {frame}");
            }
        }
    });
}

/// How far bytes are apart at most, and how many are.
fn apart(found: &[u8], wanted: &[u8]) -> (u8, usize) {
    assert_eq!(found.len(), wanted.len());
    let off = found.iter().zip(wanted).map(|(a, b)| a.abs_diff(*b));
    (off.clone().max().unwrap_or(0), off.filter(|d| *d > 0).count())
}

#[test]
fn faces_are_cut_out_and_put_back_as_latentsync_does() {
    with("latentsync15", |golden| {
        let bytes = |name: &str| golden.tensor(&format!("align.{name}")).unwrap().data().to_vec();
        let numbers = common::numbers(golden, "align.face.matrix");
        let map = Similarity { a: numbers[0], b: numbers[3], tx: numbers[2], ty: numbers[5] };
        let (frame, size, crop) = (bytes("face.in.frame"), (320, 240), (105, 140));
        let warped = apart(&face::warped(&frame, size, &map, crop).unwrap(), &bytes("face.out.warped"));
        let resized = apart(&face::crop(&frame, size, &map, crop, 128).unwrap(), &bytes("face.out.resized"));
        let painted: Vec<f32> = bytes("restore.in.face").iter().map(|v| f32::from(*v) / 255.0 * 2.0 - 1.0).collect();
        let mut found = frame.clone();
        face::restore(&mut found, size, &painted, 128, &map, crop).unwrap();
        let restored = apart(&found, &bytes("restore.out.frame"));
        println!("warped {warped:?}, resized {resized:?}, restored {restored:?}");
        assert!(warped.0 <= 1 && warped.1 < 10, "{warped:?}");
        assert!(resized.0 <= 1 && resized.1 < 100, "{resized:?}");
        assert!(restored.0 <= 1 && restored.1 < 100, "{restored:?}");
    });
}

#[test]
fn the_mask_is_that_of_latentsync_but_for_a_few_pixels() {
    with("latentsync15", |golden| {
        assert_eq!(mask::latents(256), common::numbers(golden, "mask.256.latent"));
        let (found, wanted) = (mask::pixels(64), common::numbers(golden, "chunk.in.mask"));
        let off: Vec<f32> = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).filter(|d| *d > 1e-6).collect();
        println!("64: {} differ, {:?} at most", off.len(), off.iter().copied().fold(0.0, f32::max));
        assert!(off.len() <= 11 && off.iter().all(|d| *d < 0.4), "{off:?}");
        assert_eq!(mask::latents(64), common::numbers(golden, "chunk.mid.mask"));
    });
    with("latentsync16", |golden| {
        let (found, latents) = (mask::pixels(512), mask::latents(512));
        let wanted = common::numbers(golden, "mask.512.latent");
        let off = worst(latents.iter().copied(), &wanted);
        assert!(off < 0.03, "{off}");
        let (row, column) = (common::numbers(golden, "mask.512.row384"), common::numbers(golden, "mask.512.column256"));
        let off = worst(found[384 * 512..385 * 512].iter().copied(), &row);
        assert!(off < 0.14, "{off}");
        let off = worst(found.iter().skip(256).step_by(512).copied(), &column);
        assert!(off < 1e-6, "{off}");
    });
}

#[test]
fn faces_are_blended_as_musetalk_blends_them() {
    with("musetalk15", |golden| {
        let bytes = |name: &str| golden.tensor(&format!("blend.{name}")).unwrap().data().to_vec();
        let whole = |name: &str| -> Vec<i32> {
            common::numbers(golden, &format!("blend.{name}")).iter().map(|v| *v as i32).collect()
        };
        let (boxes, crops, narrow) = (whole("in.boxes"), whole("out.crop"), whole("out.crop_expand12"));
        let (parsing, before) = (bytes("in.parsing"), bytes("in.frame_bgr"));
        for (i, sides) in boxes.as_chunks::<4>().0.iter().enumerate() {
            let [left, top, right, bottom] = *sides;
            let face = PixelBox { left, top, right, bottom };
            for (expand, wanted) in [(blend::EXPAND, &crops), (1.2, &narrow)] {
                let found = blend::crop(&face, expand).unwrap();
                let found = [found.left, found.top, found.right, found.bottom, found.size().0 as i32 / 2];
                assert_eq!(found, wanted[5 * i..][..5], "box {i}, {expand}");
            }
            let Ok(picture) = golden.tensor(&format!("blend.{i}.in.face_bgr")) else { continue };
            let crop = blend::crop(&face, blend::EXPAND).unwrap();
            let live = blend::mask(&parsing, (64, 64), &face, &crop, blend::LIVE).unwrap();
            let material = apart(&live, &bytes(&format!("{i}.out.material_mask")));
            let soft = blend::mask(&parsing, (64, 64), &face, &crop, blend::OFFLINE).unwrap();
            let mut frame = before.clone();
            blend::blend(&mut frame, (160, 120), picture.data(), &face, &soft, &crop).unwrap();
            let blended = apart(&frame, &bytes(&format!("{i}.out.frame_bgr")));
            println!("box {i}: mask {material:?}, frame {blended:?}");
            assert!(material.0 <= 1 && blended == (0, 0), "box {i}: {material:?} {blended:?}");
        }
    });
}
