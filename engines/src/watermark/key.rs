use std::{f64::consts::TAU, time::Duration};

use super::{ACROSS, CHIP, CHIPS, DOWN, TILES};
use crate::{image::smooth_step, random};

/// Plane waves that make the field.
const WAVES: usize = 64;
/// Cycles of a wave over the unit crop: 10 to 18 pixels of a crop of 256.
const CYCLES: [f64; 2] = [14.0, 26.0];
/// Where the field fades out at the edge of the lower face, in unit crops.
const TAPER: f32 = 0.03;
/// Part of a chip in which the sign turns.
const RAMP: f32 = 0.25;
/// Sets the signs' random numbers apart from those of the waves.
const SIGNS: u64 = 0x5349_474e;

/// What a mark looks like.
#[derive(Clone, Debug)]
pub struct Key {
    waves: Vec<Wave>,
    /// -1 or 1, a row a chip.
    signs: Vec<[f32; TILES]>,
}

#[derive(Clone, Copy, Debug)]
struct Wave {
    /// Cycles over the unit crop.
    x: f64,
    y: f64,
    phase: f64,
}

impl Key {
    /// The one that is embedded and sought.
    pub const PUBLISHED: u64 = 0x6c69_7073_7472_6d31;

    /// The key of a number.
    pub fn new(number: u64) -> Self {
        let mut state = number;
        let mut uniform = || random::uniform(&mut state);
        let waves = (0..WAVES)
            .map(|_| {
                let (turn, cycles) = (uniform() * TAU, CYCLES[0] + (CYCLES[1] - CYCLES[0]) * uniform());
                Wave { x: cycles * turn.cos(), y: cycles * turn.sin(), phase: uniform() * TAU }
            })
            .collect();
        let mut state = number ^ SIGNS;
        let mut sign = || if random::next(&mut state) >> 63 == 0 { 1.0 } else { -1.0 };
        let signs = (0..CHIPS).map(|_| std::array::from_fn(|_| sign())).collect();
        Self { waves, signs }
    }

    /// The field over the unit crop, `[side * side]`: a mean of zero and a deviation of 1, faded out at the edge of the lower face,
    /// zero outside.
    pub(super) fn field(&self, side: usize) -> Vec<f32> {
        let place = |i: usize| (i as f64 + 0.5) / side as f64;
        let (mut field, height) = (vec![0.0f32; side * side], (2.0 / WAVES as f64).sqrt());
        for wave in &self.waves {
            // cos(a + b), so that the waves cost a table each.
            let (across, down): (Vec<_>, Vec<_>) = (0..side)
                .map(|i| ((TAU * wave.x * place(i)).sin_cos(), (TAU * wave.y * place(i) + wave.phase).sin_cos()))
                .unzip();
            for (row, (sin_y, cos_y)) in field.chunks_exact_mut(side).zip(&down) {
                for (value, (sin_x, cos_x)) in row.iter_mut().zip(&across) {
                    *value += (height * (cos_x * cos_y - sin_x * sin_y)) as f32;
                }
            }
        }
        let taper = |i: usize, [from, to]: [f32; 2]| {
            let unit = place(i) as f32;
            ((unit - from).min(to - unit) / TAPER).clamp(0.0, 1.0)
        };
        for (y, row) in field.chunks_exact_mut(side).enumerate() {
            let down = taper(y, DOWN);
            row.iter_mut().enumerate().for_each(|(x, value)| *value *= down * taper(x, ACROSS));
        }
        field
    }

    pub(super) fn signs(&self) -> &[[f32; TILES]] {
        &self.signs
    }

    /// The signs of the tiles at a time, on their way from one to the next at the beginning of a chip.
    pub(super) fn at(&self, time: Duration) -> [f32; TILES] {
        let chips = time.as_secs_f64() / CHIP.as_secs_f64();
        let (now, within) = ((chips as u64 % CHIPS as u64) as usize, chips.fract() as f32);
        let before = &self.signs[(now + CHIPS - 1) % CHIPS];
        let share = smooth_step(within / RAMP);
        std::array::from_fn(|k| before[k] + (self.signs[now][k] - before[k]) * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_the_waves_that_it_says_and_is_the_same_at_every_size() {
        let key = Key::new(Key::PUBLISHED);
        let (small, large) = (key.field(64), key.field(192));
        // The middle one of three by three pixels is where the pixel of the smaller one is.
        for (y, row) in small.chunks_exact(64).enumerate() {
            for (x, value) in row.iter().enumerate() {
                assert!((value - large[(3 * y + 1) * 192 + 3 * x + 1]).abs() < 1e-4);
            }
        }
        let inside: Vec<f32> = (90..170).flat_map(|y| (40..150).map(move |x| y * 192 + x)).map(|i| large[i]).collect();
        let mean = inside.iter().sum::<f32>() / inside.len() as f32;
        let deviation = (inside.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / inside.len() as f32).sqrt();
        assert!(mean.abs() < 0.1 && (0.8..1.2).contains(&deviation), "{mean} {deviation}");
        assert!(large[..192 * 72].iter().all(|v| *v == 0.0), "nothing above the lower face");
    }

    #[test]
    fn signs_last_a_chip_turn_within_a_quarter_of_it_and_begin_again() {
        let key = Key::new(7);
        let at = |ms: u64| key.at(Duration::from_millis(ms));
        assert_eq!(at(40), at(159));
        assert_eq!(at(50), key.signs()[0]);
        assert_eq!(at(170 + 40), key.signs()[1]);
        assert_eq!(at(50), at(50 + 63 * 160));
        let turning = at(180);
        assert!(
            turning
                .iter()
                .zip(key.signs()[0].iter().zip(&key.signs()[1]))
                .all(|(v, (a, b))| (v - (a + b) / 2.0).abs() < 1e-4)
        );
        let sum: f32 = key.signs().iter().flatten().sum();
        assert!(sum.abs() < 150.0, "as many of one sign as of the other, about: {sum}");
    }
}
