//! Bicubic resizing that averages where the picture shrinks, as Pillow has it and torchvision after it: R. Keys' convolution
//! with a = -1/2, as wide as a pixel of the smaller picture.

const A: f64 = -0.5;
/// Bits after the point in the weights for bytes.
const BITS: u32 = 22;

/// For each of `count` pixels the first of `source` that counts, and the weights from there on.
fn places(source: usize, count: usize) -> Vec<(usize, Vec<f64>)> {
    let step = source as f64 / count as f64;
    let wide = step.max(1.0);
    let place = |i: usize| {
        let centre = (i as f64 + 0.5) * step;
        let first = (centre - 2.0 * wide + 0.5).max(0.0) as usize;
        let end = ((centre + 2.0 * wide + 0.5) as usize).min(source);
        let raw: Vec<f64> = (first..end).map(|x| keys((x as f64 - centre + 0.5) / wide)).collect();
        let sum: f64 = raw.iter().sum();
        (first, raw.iter().map(|w| w / sum).collect())
    };
    (0..count).map(place).collect()
}

fn keys(d: f64) -> f64 {
    let d = d.abs();
    match d {
        _ if d < 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
        _ if d < 2.0 => (((d - 5.0) * d + 8.0) * d - 4.0) * A,
        _ => 0.0,
    }
}

/// One plane of numbers of `from` (width and height) in the size `to`. `None` where a side is zero or `data` does not hold
/// the plane.
pub(crate) fn plane(data: &[f32], from: (usize, usize), to: (usize, usize)) -> Option<Vec<f32>> {
    fits(data.len(), from, to)?;
    let (across, down) = (places(from.0, to.0), places(from.1, to.1));
    let sum = |values: &mut dyn Iterator<Item = f32>, weights: &[f64]| {
        values.zip(weights).map(|(v, w)| f64::from(v) * w).sum::<f64>() as f32
    };
    let line = |row: &[f32]| -> Vec<f32> {
        across.iter().map(|(first, weights)| sum(&mut row[*first..].iter().copied(), weights)).collect()
    };
    let lines: Vec<Vec<f32>> = data.chunks_exact(from.0).map(line).collect();
    let column =
        |(first, weights): &(usize, Vec<f64>), x: usize| sum(&mut lines[*first..].iter().map(|line| line[x]), weights);
    Some(down.iter().flat_map(|place| (0..to.0).map(move |x| column(place, x))).collect())
}

/// One plane of bytes in another size, as Pillow's `Image.resize` gives it: rounded after each of the two passes.
pub(crate) fn bytes(data: &[u8], from: (usize, usize), to: (usize, usize)) -> Option<Vec<u8>> {
    fits(data.len(), from, to)?;
    let whole = |source: usize, count: usize| -> Vec<(usize, Vec<i64>)> {
        let weight = |w: &f64| (w * f64::from(1u32 << BITS)).round() as i64;
        places(source, count)
            .into_iter()
            .map(|(first, weights)| (first, weights.iter().map(weight).collect()))
            .collect()
    };
    let (across, down) = (whole(from.0, to.0), whole(from.1, to.1));
    let sum = |values: &mut dyn Iterator<Item = u8>, weights: &[i64]| {
        let sum: i64 = values.zip(weights).map(|(v, w)| i64::from(v) * w).sum();
        ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
    };
    let line = |row: &[u8]| -> Vec<u8> {
        across.iter().map(|(first, weights)| sum(&mut row[*first..].iter().copied(), weights)).collect()
    };
    let lines: Vec<Vec<u8>> = data.chunks_exact(from.0).map(line).collect();
    let column =
        |(first, weights): &(usize, Vec<i64>), x: usize| sum(&mut lines[*first..].iter().map(|line| line[x]), weights);
    Some(down.iter().flat_map(|place| (0..to.0).map(move |x| column(place, x))).collect())
}

fn fits(len: usize, from: (usize, usize), to: (usize, usize)) -> Option<()> {
    (![from.0, from.1, to.0, to.1].contains(&0) && Some(len) == from.0.checked_mul(from.1)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_pillow() {
        let picture = [0, 0, 255, 255, 0, 255, 255, 0];
        // Image.fromarray(...).resize((3, 3)) and ((6, 2)).
        assert_eq!(bytes(&picture, (4, 2), (3, 3)), Some(vec![0, 120, 255, 32, 192, 159, 67, 255, 50]));
        assert_eq!(bytes(&picture, (4, 2), (6, 2)), Some(vec![0, 0, 31, 224, 255, 255, 0, 120, 255, 255, 120, 0]));
    }

    #[test]
    fn a_plane_keeps_its_size_its_mean_and_what_is_flat() {
        let wave: Vec<f32> = (0..40).map(|i| (i as f32 * 0.7).sin()).collect();
        assert_eq!(plane(&wave, (8, 5), (8, 5)), Some(wave.clone()));
        let flat = plane(&[0.25; 40], (8, 5), (3, 11)).unwrap();
        assert!(flat.len() == 33 && flat.iter().all(|v| (v - 0.25).abs() < 1e-6));
        // Checks of one pixel shrink to their mean.
        let checks: Vec<f32> = (0..64 * 64).map(|i| ((i + i / 64) % 2) as f32).collect();
        let small = plane(&checks, (64, 64), (9, 9)).unwrap();
        assert!(small.iter().all(|v| (v - 0.5).abs() < 0.02), "{small:?}");
        assert_eq!((plane(&wave, (7, 5), (2, 2)), bytes(&[1; 4], (2, 2), (0, 2))), (None, None));
    }
}
