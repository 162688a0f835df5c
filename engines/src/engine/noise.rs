use crate::random::philox;

/// Gaussian noise of one stream: reproducible by seed and, from one latent to the next, an AR(1) process, so that
/// successive frames start from neighbouring noise and do not jitter. Its numbers are counted (Philox), so that a card works out any
/// of them at once.
#[derive(Clone, Debug, Default)]
pub struct Noise {
    seed: u64,
    /// Pairs of numbers that were taken.
    pairs: u64,
    spare: Option<f32>,
    last: Vec<f32>,
    correlation: f32,
    deviation: f32,
}

impl Noise {
    /// `correlation` of successive latents in 0..1, `deviation` the standard deviation of every number.
    pub fn new(seed: u64, correlation: f32, deviation: f32) -> Self {
        Self { seed, pairs: 0, spare: None, last: Vec::new(), correlation, deviation }
    }

    /// The next initial latent of `len` numbers.
    pub fn latent(&mut self, len: usize) -> Vec<f32> {
        let (keep, fresh, _) = self.process();
        if self.last.len() == len {
            for i in 0..len {
                self.last[i] = keep * self.last[i] + fresh * self.normal();
            }
        } else {
            self.last = (0..len).map(|_| self.normal()).collect();
        }
        self.last.iter().map(|v| v * self.deviation).collect()
    }

    /// How a latent comes from the one before: factor of that one, of fresh numbers, and of the result.
    pub(crate) fn process(&self) -> (f32, f32, f32) {
        (self.correlation, (1.0 - self.correlation * self.correlation).sqrt(), self.deviation)
    }

    /// One number from the standard normal distribution (G. Box and M. Muller, 1958).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let [first, second] = uniform(self.seed, self.pairs);
        self.pairs = self.pairs.wrapping_add(1);
        let radius = (-2.0 * ln(1.0 - first)).sqrt();
        let (sin, cos) = turn(second);
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
    }

    /// The seed, the pairs that were taken and the number that is left of one before the next `count` numbers, which somebody else
    /// works out: it is then as if they had been asked for.
    pub(crate) fn ahead(&mut self, count: usize) -> (u64, u64, Option<f32>) {
        let before = (self.seed, self.pairs, self.spare);
        let fresh = count.saturating_sub(usize::from(self.spare.is_some()));
        if count > 0 {
            self.spare = None;
        }
        // All pairs but the last are counted only.
        self.pairs = self.pairs.wrapping_add(fresh as u64 / 2);
        if fresh % 2 == 1 {
            self.normal();
        }
        before
    }
}

/// Two numbers of 0..1, 53 bits of each, for the pair of this place.
fn uniform(seed: u64, pair: u64) -> [f64; 2] {
    let [a, b, c, d] = philox([pair as u32, (pair >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    let number = |low: u32, high: u32| ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 / (1u64 << 53) as f64;
    [number(a, b), number(c, d)]
}

/// The natural logarithm of a normal number: `ln m = 2 artanh((m - 1) / (m + 1))` for a mantissa in 0.7..1.4. As [`turn`], it
/// is made of operations that every processor and every card rounds alike, so that noise is the same everywhere.
fn ln(v: f64) -> f64 {
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    const MANTISSA: u64 = 0x000f_ffff_ffff_ffff;
    /// `2 / k`, of the highest power first.
    const SERIES: [f64; 11] = [
        2.0 / 21.0,
        2.0 / 19.0,
        2.0 / 17.0,
        2.0 / 15.0,
        2.0 / 13.0,
        2.0 / 11.0,
        2.0 / 9.0,
        2.0 / 7.0,
        2.0 / 5.0,
        2.0 / 3.0,
        2.0,
    ];
    let bits = v.to_bits().wrapping_sub(ROOT_HALF);
    let exponent = (bits.cast_signed() >> 52) as f64;
    let m = f64::from_bits((bits & MANTISSA).wrapping_add(ROOT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = SERIES.iter().fold(2.0 / 23.0, |sum, term| term + q * sum);
    exponent * std::f64::consts::LN_2 + s * series
}

/// Sine and cosine of a part of a turn, 0..1, by their series within an eighth of a turn.
fn turn(part: f64) -> (f64, f64) {
    /// `1 / (k (k + 1))` and `1 / (k (k - 1))` for k of 18, 16, … 2.
    const SERIES: [[f64; 2]; 9] = {
        let mut all = [[0.0; 2]; 9];
        let mut i = 0;
        while i < 9 {
            let k = (18 - 2 * i) as f64;
            all[i] = [1.0 / (k * (k + 1.0)), 1.0 / (k * (k - 1.0))];
            i += 1;
        }
        all
    };
    let quarter = (part * 4.0 + 0.5) as i32;
    let x = (part - f64::from(quarter) * 0.25) * std::f64::consts::TAU;
    let q = x * x;
    let (s, c) = SERIES.iter().fold((1.0, 1.0), |(s, c), [a, b]| (1.0 - q * s * a, 1.0 - q * c * b));
    let s = x * s;
    match quarter & 3 {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        _ => (-c, s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successive_latents_have_the_stated_correlation_and_deviation() {
        let mut noise = Noise::new(7, 0.9, 0.5);
        let latents: Vec<f32> = (0..20_000).map(|_| noise.latent(1)[0]).collect();
        let variance = latents.iter().map(|v| v * v).sum::<f32>() / latents.len() as f32;
        let lagged = latents.windows(2).map(|w| w[0] * w[1]).sum::<f32>() / latents.len() as f32;
        assert!((variance.sqrt() - 0.5).abs() < 0.05, "{variance}");
        assert!((lagged / variance - 0.9).abs() < 0.02, "{}", lagged / variance);
    }

    #[test]
    fn a_seed_repeats_its_noise_and_another_does_not() {
        let draw = |seed| Noise::new(seed, 0.5, 1.0).latent(8);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn logarithms_sines_and_cosines_are_those_of_the_library() {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-15 * b.abs().max(1.0);
        for i in 1..=100_000 {
            let v = f64::from(i) / 100_000.0;
            assert!(close(ln(v), v.ln()) && close(ln(v.powi(9)), v.powi(9).ln()), "{v}");
            let (sin, cos) = (std::f64::consts::TAU * (v - 1e-5)).sin_cos();
            let found = turn(v - 1e-5);
            assert!(close(found.0, sin) && close(found.1, cos), "{v}: {found:?} {sin} {cos}");
        }
    }

    #[test]
    fn what_is_worked_out_elsewhere_is_passed_over() {
        for (before, count) in [(0, 0), (0, 1), (0, 6), (1, 0), (1, 1), (1, 2), (3, 7)] {
            let (mut asked, mut passed) = (Noise::new(5, 0.0, 1.0), Noise::new(5, 0.0, 1.0));
            (0..before).for_each(|_| assert_eq!(asked.normal(), passed.normal()));
            passed.ahead(count);
            for _ in 0..count {
                asked.normal();
            }
            assert_eq!([(); 3].map(|_| asked.normal()), [(); 3].map(|_| passed.normal()), "{before} {count}");
        }
    }
}
