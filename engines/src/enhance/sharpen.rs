//! Unsharp masking: what a blur takes away is added (R. C. Gonzalez, R. E. Woods, "Digital Image Processing", 3.6).

use super::blur::Window;

/// Standard deviation of the blur over the face's size: a face of 180 pixels has 1.
const DEVIATION: f32 = 1.0 / 180.0;
/// Below this a blur takes nothing away.
const LEAST: f32 = 0.6;
/// Largest change in codes, see [`limited`].
const LIMIT: f32 = 18.0;

/// `d / (1 + |d| / LIMIT)`: fine differences as they are, an edge never beyond the limit, so that no bright line lies along it.
pub(super) fn limited(difference: f32) -> f32 {
    difference / (1.0 + difference.abs() * (1.0 / LIMIT))
}

/// The blur whose loss is added.
pub(super) fn window(size: f32) -> Window {
    Window::of_deviation((size * DEVIATION).max(LEAST), 2)
}

/// Adds `amount` times the limited difference of `plane` `[rows, width]` and its blur.
pub(super) fn sharpen(plane: &mut [f32], width: usize, size: f32, amount: f32, [blurred, scratch]: [&mut Vec<f32>; 2]) {
    window(size).blur(plane, width, blurred, scratch);
    plane.iter_mut().zip(blurred).for_each(|(value, blurred)| *value += amount * limited(*value - *blurred));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_blur_takes_away_is_added_within_a_limit() {
        let (width, size) = (24, 250.0);
        let before: Vec<f32> = (0..width * 20).map(|i| ((i * 7919 + i * i * 31) % 251) as f32).collect();
        let mut after = before.clone();
        sharpen(&mut after, width, size, 0.7, [&mut Vec::new(), &mut Vec::new()]);
        let (mut blurred, mut scratch) = (Vec::new(), Vec::new());
        Window::of_deviation(250.0 / 180.0, 2).blur(&before, width, &mut blurred, &mut scratch);
        for ((before, after), blurred) in before.iter().zip(&after).zip(&blurred) {
            let d = before - blurred;
            let wanted = before + 0.7 * d * 18.0 / (18.0 + d.abs());
            assert!((after - wanted).abs() < 1e-3, "{after}, {wanted}");
            assert!((after - before).abs() < 0.7 * 18.0);
        }
    }

    #[test]
    fn a_flat_picture_stays_and_a_step_is_steeper_without_a_bright_line() {
        let width = 40;
        let mut flat = vec![77.0; width * 30];
        sharpen(&mut flat, width, 200.0, 1.0, [&mut Vec::new(), &mut Vec::new()]);
        assert!(flat.iter().all(|v| (v - 77.0).abs() < 1e-3));
        let step = |x: usize| match x {
            0..=18 => 40.0,
            19 => 100.0,
            20 => 140.0,
            _ => 200.0,
        };
        let mut plane: Vec<f32> = (0..width * 30).map(|i| step(i % width)).collect();
        sharpen(&mut plane, width, 200.0, 1.0, [&mut Vec::new(), &mut Vec::new()]);
        let row = &plane[10 * width..][..width];
        assert!(row[21] - row[18] > 170.0, "{row:?}");
        assert!(row.iter().all(|v| (40.0 - 18.0..200.0 + 18.0).contains(v)), "{row:?}");
    }
}
