/// Gaussian noise of one stream: reproducible by seed and, from one latent to the next, an AR(1) process, so that
/// successive frames start from neighbouring noise and do not jitter.
#[derive(Clone, Debug, Default)]
pub struct Noise {
    state: u64,
    spare: Option<f32>,
    last: Vec<f32>,
    correlation: f32,
    deviation: f32,
}

impl Noise {
    /// `correlation` of successive latents in 0..1, `deviation` the standard deviation of every number.
    pub fn new(seed: u64, correlation: f32, deviation: f32) -> Self {
        Self { state: seed, spare: None, last: Vec::new(), correlation, deviation }
    }

    /// The next initial latent of `len` numbers.
    pub fn latent(&mut self, len: usize) -> Vec<f32> {
        let (keep, fresh) = (self.correlation, (1.0 - self.correlation * self.correlation).sqrt());
        if self.last.len() == len {
            for i in 0..len {
                self.last[i] = keep * self.last[i] + fresh * self.normal();
            }
        } else {
            self.last = (0..len).map(|_| self.normal()).collect();
        }
        self.last.iter().map(|v| v * self.deviation).collect()
    }

    /// One number from the standard normal distribution (G. Box and M. Muller, 1958).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
    }

    /// 0..1 from SplitMix64 (G. Steele, D. Lea, C. Flood, 2014).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
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
}
