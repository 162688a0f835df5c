//! Pictures of bytes in another size, as OpenCV's `cv::resize` makes them: what the published programs feed their networks
//! with, to the last bit where it can be.
//!
//! The centre of pixel `i` of `n` lies at `(i + 1/2) source / n - 1/2`; beyond the edge the edge is repeated, and nothing is
//! averaged where the picture shrinks.

/// What is between two pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interpolation {
    /// `INTER_LINEAR` of 8 bits: weights of 11 bits, and sums that lose four bits between the passes. Equal to OpenCV 4 and 5.
    Linear,
    /// `INTER_CUBIC`: R. Keys' convolution with a = -3/4 in single precision, rounded to even, as OpenCV's packages for x86
    /// compute it by Intel's IPP. Values within 3e-5 of a half may be rounded the other way: 1 in 100 000 of random noise.
    Cubic,
}

const CHANNELS: usize = 3;
/// One, in the weights of [`Interpolation::Linear`].
const UNIT: f32 = 2048.0;

/// Three interleaved channels of `from` (width and height) in the size `to`. `None` where a side is zero or `data` does not
/// hold the picture.
pub(crate) fn resize(
    data: &[u8],
    from: (usize, usize),
    to: (usize, usize),
    interpolation: Interpolation,
) -> Option<Vec<u8>> {
    if [from.0, from.1, to.0, to.1].contains(&0) || data.len() != from.0 * from.1 * CHANNELS {
        return None;
    }
    Some(match interpolation {
        Interpolation::Linear => linear(data, from, to),
        Interpolation::Cubic => cubic(data, from, to),
    })
}

/// Where pixel `i` of `count` lies among `source` pixels: the one before it, and the part of the way to the next.
fn place(i: usize, source: usize, count: usize) -> (i64, f64) {
    let at = (i as f64 + 0.5) * (source as f64 / count as f64) - 0.5;
    (at.floor() as i64, at - at.floor())
}

fn linear(data: &[u8], (width, height): (usize, usize), (columns, rows): (usize, usize)) -> Vec<u8> {
    // The place is rounded to single precision before it is taken apart.
    let single = |i: usize, source: usize, count: usize| {
        let at = ((i as f64 + 0.5) * (source as f64 / count as f64) - 0.5) as f32;
        (at.floor() as i64, at - at.floor())
    };
    let weights = |t: f32| [((1.0 - t) * UNIT).round_ties_even() as i32, (t * UNIT).round_ties_even() as i32];
    let last = width as i64 - 1;
    let across: Vec<(usize, usize, [i32; 2])> = (0..columns)
        .map(|x| {
            let (at, t) = single(x, width, columns);
            let t = if (0..last).contains(&at) { t } else { 0.0 };
            let at = at.clamp(0, last);
            (at as usize, (at + 1).min(last) as usize, weights(t))
        })
        .collect();
    let line = |y: i64| -> Vec<i32> {
        let row = &data[y.clamp(0, height as i64 - 1) as usize * width * CHANNELS..][..width * CHANNELS];
        let value = |(a, b, [v, w]): &(usize, usize, [i32; 2]), c: usize| {
            i32::from(row[a * CHANNELS + c]) * v + i32::from(row[b * CHANNELS + c]) * w
        };
        across.iter().flat_map(|column| (0..CHANNELS).map(move |c| value(column, c))).collect()
    };
    let mut out = Vec::with_capacity(columns * rows * CHANNELS);
    for y in 0..rows {
        let (at, t) = single(y, height, rows);
        let [v, w] = weights(t);
        let (upper, lower) = (line(at), line(at + 1));
        let part = |weight: i32, sum: i32| (weight * (sum >> 4)) >> 16;
        out.extend(upper.iter().zip(&lower).map(|(a, b)| ((part(v, *a) + part(w, *b) + 2) >> 2) as u8));
    }
    out
}

/// Weights of the pixel before a place, of the two around it and of the one after.
fn keys(t: f64) -> [f32; 4] {
    const A: f64 = -0.75;
    let far = |d: f64| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
    let near = |d: f64| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
    [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)].map(|w| w as f32)
}

fn cubic(data: &[u8], (width, height): (usize, usize), (columns, rows): (usize, usize)) -> Vec<u8> {
    let near = |at: i64, length: usize| -> [usize; 4] {
        std::array::from_fn(|k| (at - 1 + k as i64).clamp(0, length as i64 - 1) as usize)
    };
    let across: Vec<([usize; 4], [f32; 4])> = (0..columns)
        .map(|x| {
            let (at, t) = place(x, width, columns);
            (near(at, width), keys(t))
        })
        .collect();
    let lines: Vec<Vec<f32>> = data
        .chunks_exact(width * CHANNELS)
        .map(|row| {
            let value = |(places, weights): &([usize; 4], [f32; 4]), c: usize| {
                let products =
                    places.iter().zip(weights).map(|(x, w)| f64::from(row[x * CHANNELS + c]) * f64::from(*w));
                products.sum::<f64>() as f32
            };
            across.iter().flat_map(|column| (0..CHANNELS).map(move |c| value(column, c))).collect()
        })
        .collect();
    let mut out = Vec::with_capacity(columns * rows * CHANNELS);
    for y in 0..rows {
        let (at, t) = place(y, height, rows);
        let [a, b, c, d] = near(at, height).map(|y| &lines[y]);
        let [v, w, p, q] = keys(t);
        out.extend((0..columns * CHANNELS).map(|i| {
            let sum = (a[i] * v + b[i] * w) + (c[i] * p + d[i] * q);
            sum.round_ties_even().clamp(0.0, 255.0) as u8
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise that engines/train/pixel/resize.py gives OpenCV as well.
    fn noise(width: usize, height: usize) -> Vec<u8> {
        let mut state = (width * 1000 + height) as u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..width * height * CHANNELS).map(|_| next()).collect()
    }

    fn size(text: &str) -> (usize, usize) {
        let (width, height) = text.split_once('x').unwrap();
        (width.parse().unwrap(), height.parse().unwrap())
    }

    #[test]
    fn pictures_are_those_of_opencv() {
        let bytes = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/resize.safetensors"));
        let golden = safetensors::SafeTensors::deserialize(bytes).unwrap();
        assert_eq!(golden.len(), 10);
        for (name, wanted) in golden.tensors() {
            let [kind, from, to] = name.split('/').collect::<Vec<_>>().try_into().unwrap();
            let kind = if kind == "cubic" { Interpolation::Cubic } else { Interpolation::Linear };
            let (from, to) = (size(from), size(to));
            let found = resize(&noise(from.0, from.1), from, to, kind).unwrap();
            let worst = found.iter().zip(wanted.data()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(found.len() == wanted.data().len() && worst == Some(0), "{name}: {worst:?}");
        }
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert_eq!(resize(&[0; 12], (2, 2), (0, 3), Interpolation::Linear), None);
        assert_eq!(resize(&[0; 11], (2, 2), (3, 3), Interpolation::Cubic), None);
        assert_eq!(resize(&[7; 3], (1, 1), (2, 1), Interpolation::Cubic), Some(vec![7; 6]));
    }
}
