//! How far rows of states are from those that are wanted.

use serde::Serialize;

/// Of one layer: the states after the convolutions, or after a block.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Layer {
    /// Norm of the difference over the norm of what is wanted: of all rows together, in which a few large ones outweigh the others,
    /// and of single rows, the median.
    pub error: f64,
    pub row_error: f64,
    /// Cosine of the angle between a row and the one that is wanted, in the mean over rows.
    pub cosine: f64,
    /// The error once each number's own mean over the recording was taken from it: what changes with the sound.
    pub moving: f64,
}

/// Of rows of `dims` numbers, layers of `width` one after the other, as far as there are both.
pub fn layers(found: &[f32], wanted: &[f32], width: usize, dims: usize) -> Vec<Layer> {
    let rows = found.len().min(wanted.len()) / dims;
    let part = |states: &[f32], layer: usize| -> Vec<f64> {
        let row = |r: usize| states[r * dims + layer * width..][..width].iter().map(|v| f64::from(*v));
        (0..rows).flat_map(row).collect()
    };
    (0..dims / width).map(|layer| compared(&part(found, layer), &part(wanted, layer), width)).collect()
}

fn compared(found: &[f64], wanted: &[f64], width: usize) -> Layer {
    let cosines = found.chunks_exact(width).zip(wanted.chunks_exact(width)).map(|(a, b)| {
        let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        product / (norm(a) * norm(b)).max(f64::MIN_POSITIVE)
    });
    let rows = (wanted.len() / width).max(1) as f64;
    let pairs = found.chunks_exact(width).zip(wanted.chunks_exact(width));
    let mut each: Vec<f64> = pairs.map(|(a, b)| relative(a, b)).collect();
    each.sort_by(f64::total_cmp);
    Layer {
        error: rounded(relative(found, wanted)),
        row_error: rounded(each.get(each.len() / 2).copied().unwrap_or(0.0)),
        cosine: rounded(cosines.sum::<f64>() / rows),
        moving: rounded(relative(&centred(found, width), &centred(wanted, width))),
    }
}

fn relative(found: &[f64], wanted: &[f64]) -> f64 {
    let off: Vec<f64> = found.iter().zip(wanted).map(|(a, b)| a - b).collect();
    norm(&off) / norm(wanted).max(f64::MIN_POSITIVE)
}

fn norm(numbers: &[f64]) -> f64 {
    numbers.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Each column without its mean.
fn centred(rows: &[f64], width: usize) -> Vec<f64> {
    let count = (rows.len() / width).max(1) as f64;
    let mut mean = vec![0.0; width];
    rows.chunks_exact(width).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / count));
    rows.chunks_exact(width).flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - m)).collect()
}

/// To four decimals, which keeps the report small.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_no_movement_and_layers_are_apart() {
        let wanted: Vec<f32> = (0..40).map(|i| ((i * i) as f32 * 0.7).sin()).collect();
        // The second layer of each row is moved by a constant, the first one is doubled.
        let found: Vec<f32> =
            wanted.iter().enumerate().map(|(i, v)| if i % 4 < 2 { 2.0 * v } else { v + 3.0 }).collect();
        let [first, second] = layers(&found, &wanted, 2, 4)[..] else { panic!("two layers") };
        assert_eq!((first.error, first.row_error, first.cosine, first.moving), (1.0, 1.0, 1.0, 1.0));
        assert!(second.error > 2.0 && second.cosine < 0.9 && second.moving == 0.0, "{second:?}");
    }
}
