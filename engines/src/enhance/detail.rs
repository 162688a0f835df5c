//! Detail: what an edge-preserving filter takes away is added, so that skin, lashes and hair gain and edges stay
//! (K. He, J. Sun, X. Tang, "Guided image filtering", IEEE TPAMI 35(6), 2013, section 4 on detail enhancement).

use super::{blur::Window, sharpen::limited};

/// Radius of the window over the face's size.
const RADIUS: f32 = 1.0 / 24.0;
/// Variance, in squared codes, below which a window is texture: (0.04 · 255)².
const EDGE: f32 = 104.04;

/// The filter's window: its result reaches twice as far, for it is a mean of means.
pub(super) fn window(size: f32) -> Window {
    Window::of_radius((size * RADIUS).max(1.5))
}

/// Adds `amount` times the limited difference of `plane` `[rows, width]` and what the guided filter makes of it, guided by
/// itself: `q = mean(a) I + mean(b)`, `a = var / (var + EDGE)`, `b = (1 - a) mean`.
pub(super) fn detail(plane: &mut [f32], width: usize, size: f32, amount: f32, spare: &mut [Vec<f32>; 4]) {
    /// Near the values, so that squares keep their digits.
    const MIDDLE: f32 = 128.0;
    let [means, squares, moved, scratch] = spare;
    let window = window(size);
    moved.clear();
    moved.extend(plane.iter().map(|v| v - MIDDLE));
    window.blur(moved, width, means, scratch);
    moved.iter_mut().for_each(|v| *v *= *v);
    window.blur(moved, width, squares, scratch);
    for (mean, square) in means.iter_mut().zip(squares.iter_mut()) {
        let variance = (*square - *mean * *mean).max(0.0);
        let a = variance / (variance + EDGE);
        (*square, *mean) = (a, (1.0 - a) * *mean);
    }
    window.blur(squares, width, moved, scratch);
    std::mem::swap(squares, moved);
    window.blur(means, width, moved, scratch);
    for ((value, a), b) in plane.iter_mut().zip(squares).zip(moved) {
        let centred = *value - MIDDLE;
        *value += amount * limited(centred - (*a * centred + *b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guided_filter_takes_away_is_added() {
        let (width, size) = (30usize, 60.0);
        let rows = 26usize;
        let before: Vec<f32> = (0..width * rows)
            .map(|i| if i % width < 15 { 60.0 } else { 180.0 } + ((i * 7919 + i * i * 31) % 17) as f32)
            .collect();
        let mut after = before.clone();
        detail(&mut after, width, size, 0.8, &mut Default::default());
        // The formula in double precision, window by window.
        let radius: i64 = 3;
        let mean = |f: &dyn Fn(usize) -> f64, i: usize| {
            let (mut sum, mut all) = (0.0, 0.0);
            for dy in -radius..=radius {
                for dx in -radius..=radius {
                    let weight = |d: i64| (2.5 + 1.0 - d.abs() as f64).clamp(0.0, 1.0);
                    let x = ((i % width) as i64 + dx).clamp(0, width as i64 - 1) as usize;
                    let y = ((i / width) as i64 + dy).clamp(0, rows as i64 - 1) as usize;
                    let w = weight(dx) * weight(dy);
                    (sum, all) = (sum + w * f(y * width + x), all + w);
                }
            }
            sum / all
        };
        let value = |i: usize| f64::from(before[i]);
        let of_window: Vec<[f64; 2]> = (0..before.len())
            .map(|i| {
                let m = mean(&value, i);
                let variance = mean(&|k| value(k) * value(k), i) - m * m;
                let a = variance / (variance + 104.04);
                [a, (1.0 - a) * m]
            })
            .collect();
        for (i, found) in after.iter().enumerate() {
            let q = mean(&|k| of_window[k][0], i) * value(i) + mean(&|k| of_window[k][1], i);
            let d = value(i) - q;
            let wanted = value(i) + 0.8 * d / (1.0 + d.abs() / 18.0);
            assert!((f64::from(*found) - wanted).abs() < 0.02, "{i}: {found}, {wanted}");
        }
    }

    #[test]
    fn texture_gains_and_an_edge_has_no_halo() {
        let width = 60;
        let texture = |i: usize| if (i % width + i / width).is_multiple_of(2) { 4.0 } else { -4.0 };
        let mut fine: Vec<f32> = (0..width * 60).map(|i| 120.0 + texture(i)).collect();
        detail(&mut fine, width, 200.0, 1.0, &mut Default::default());
        assert!((fine[30 * width + 30] - 120.0).abs() > 6.0);
        let mut edge: Vec<f32> = (0..width * 60).map(|i| if i % width < 30 { 50.0 } else { 200.0 }).collect();
        detail(&mut edge, width, 200.0, 1.0, &mut Default::default());
        let off = edge.iter().enumerate().map(|(i, v)| (v - if i % width < 30 { 50.0 } else { 200.0 }).abs());
        let most = off.fold(0.0, f32::max);
        assert!(most < 2.5, "{most}");
    }
}
