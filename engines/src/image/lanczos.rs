//! Pictures of bytes in another size as OpenCV's `cv::resize` makes them with `INTER_LANCZOS4`, to the last bit: eight by eight
//! pixels, weights of 11 bits, one rounding. Nothing is averaged where the picture shrinks; beyond the edge the edge is repeated.

use std::f64::consts::FRAC_PI_4;

const TAPS: usize = 8;
/// One, in the weights, and bits of the product of two.
const UNIT: f32 = 2048.0;
const BITS: u32 = 22;

/// `C` interleaved channels of `from` (width and height) in the size `to`. `None` where a side is zero or `data` does not hold the
/// picture.
pub(crate) fn lanczos<const C: usize>(data: &[u8], from: (usize, usize), to: (usize, usize)) -> Option<Vec<u8>> {
    if [from.0, from.1, to.0, to.1].contains(&0) || data.len() != from.0.checked_mul(from.1)?.checked_mul(C)? {
        return None;
    }
    let (across, down) = (places(from.0, to.0), places(from.1, to.1));
    let line = |row: &[u8]| -> Vec<i64> {
        let value = |(at, weights): &([usize; TAPS], [i64; TAPS]), c: usize| {
            at.iter().zip(weights).map(|(x, w)| i64::from(row[x * C + c]) * w).sum::<i64>()
        };
        across.iter().flat_map(|place| (0..C).map(move |c| value(place, c))).collect()
    };
    let lines: Vec<Vec<i64>> = data.chunks_exact(from.0 * C).map(line).collect();
    let mut out = Vec::with_capacity(to.0 * to.1 * C);
    for (at, weights) in &down {
        out.extend((0..to.0 * C).map(|i| {
            let sum: i64 = at.iter().zip(weights).map(|(y, w)| lines[*y][i] * w).sum();
            ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
        }));
    }
    Some(out)
}

/// For each of `count` pixels the eight of `source` around it, and their weights.
fn places(source: usize, count: usize) -> Vec<([usize; TAPS], [i64; TAPS])> {
    let place = |i: usize| {
        let at = ((i as f64 + 0.5) * (source as f64 / count as f64) - 0.5) as f32;
        let first = at.floor();
        let near = |k: usize| (first as i64 - 3 + k as i64).clamp(0, source as i64 - 1) as usize;
        (std::array::from_fn(near), weights(f64::from(at - first)))
    };
    (0..count).map(place).collect()
}

/// Lanczos' window of four pixels to each side, normalised: `sinc(d) sinc(d / 4)` is `4 sin(pi d) sin(pi d / 4) / (pi d)^2`, and
/// the first sine is the same but for its sign at all eight.
fn weights(t: f64) -> [i64; TAPS] {
    if t < 1e-6 {
        return std::array::from_fn(|k| if k == 3 { UNIT as i64 } else { 0 });
    }
    let raw: [f64; TAPS] = std::array::from_fn(|k| {
        let y = (t + 3.0 - k as f64) * FRAC_PI_4;
        let sign = if k % 2 == 0 { -1.0 } else { 1.0 };
        sign * y.sin() / (y * y)
    });
    let sum: f64 = raw.iter().sum();
    raw.map(|w| ((w / sum) as f32 * UNIT).round_ties_even() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_rings_as_lanczos_does() {
        // What cv2.resize makes of it with INTER_LANCZOS4.
        let edge: Vec<u8> = (0..16).map(|x| if x < 8 { 255 } else { 0 }).collect();
        let found = lanczos::<1>(&edge, (16, 1), (32, 1)).unwrap();
        assert_eq!(found[8..24], [255, 255, 255, 248, 245, 255, 255, 199, 56, 0, 0, 10, 7, 0, 0, 0][..]);
    }

    #[test]
    fn a_flat_picture_stays_flat_and_no_picture_is_refused() {
        let flat = lanczos::<3>(&[7, 100, 255].repeat(35), (5, 7), (9, 4)).unwrap();
        assert_eq!(flat, [7, 100, 255].repeat(36));
        assert_eq!(lanczos::<3>(&[1; 12], (2, 2), (2, 2)), Some(vec![1; 12]));
        assert_eq!((lanczos::<3>(&[1; 11], (2, 2), (2, 2)), lanczos::<1>(&[], (0, 2), (2, 2))), (None, None));
    }
}
