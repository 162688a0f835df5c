//! Schedules as data: whatever the family, one step is `x' = keep x + predict f(x, t) + noise z`, with numbers that
//! are worked out once when the schedule is made.

use serde::Deserialize;

use crate::{Error, Result};

/// Fewest and most steps that a frame may take.
pub const STEPS: std::ops::RangeInclusive<usize> = 1..=8;

/// How a latent travels from noise to data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulerKind {
    /// Denoising diffusion implicit models with eta 0 (Song et al. 2020, arXiv 2010.02502, eq. 12).
    Ddim,
    /// Euler steps along a rectified flow (Liu et al. 2022, arXiv 2209.03003; Lipman et al. 2022, arXiv 2210.02747).
    FlowEuler,
    /// Multistep consistency sampling of a latent consistency model (Luo et al. 2023, arXiv 2310.04378, algorithm 2).
    Consistency,
}

/// What the network says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prediction {
    /// The noise in the latent.
    Epsilon,
    /// The clean latent.
    Sample,
    /// Diffusion: `sqrt(a) noise - sqrt(1 - a) data` (Salimans and Ho 2022, arXiv 2202.00512).
    /// Flow: `d latent / d t`.
    Velocity,
}

/// How the noise variance of a diffusion grows over its training timesteps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BetaSchedule {
    Linear,
    /// Linear in the square root (Rombach et al. 2022).
    #[default]
    ScaledLinear,
}

/// The `[scheduler]` section of a manifest.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    pub kind: SchedulerKind,
    pub prediction: Prediction,
    /// Steps where the caller does not say.
    pub steps: usize,
    /// Flow: the network sees `t * timestep_scale`, t = 0 at noise and 1 at data.
    #[serde(default = "one")]
    pub timestep_scale: f32,
    /// Diffusion: training timesteps and variances.
    #[serde(default = "thousand")]
    pub train_timesteps: usize,
    #[serde(default = "beta_start")]
    pub beta_start: f64,
    #[serde(default = "beta_end")]
    pub beta_end: f64,
    #[serde(default)]
    pub beta_schedule: BetaSchedule,
}

fn one() -> f32 {
    1.0
}
fn thousand() -> usize {
    1000
}
fn beta_start() -> f64 {
    0.00085
}
fn beta_end() -> f64 {
    0.012
}

impl ScheduleConfig {
    /// The first key that is wrong, and why.
    pub fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, cause: String| Err((key.to_owned(), cause));
        if !STEPS.contains(&self.steps) {
            return fail("steps", format!("{} is outside {}..{}", self.steps, STEPS.start(), STEPS.end()));
        }
        if !(self.timestep_scale.is_finite() && self.timestep_scale > 0.0) {
            return fail("timestep_scale", format!("{} is not above 0", self.timestep_scale));
        }
        if !(*STEPS.end()..=100_000).contains(&self.train_timesteps) {
            return fail("train_timesteps", format!("{} is outside 8..100000", self.train_timesteps));
        }
        if !(self.beta_start > 0.0 && self.beta_start <= self.beta_end && self.beta_end < 1.0) {
            return fail("beta_end", "0 < beta_start <= beta_end < 1 does not hold".into());
        }
        if self.kind == SchedulerKind::FlowEuler && self.prediction == Prediction::Epsilon {
            return fail("prediction", "a flow predicts `velocity` or `sample`".into());
        }
        Ok(())
    }

    /// `alpha_bar` of each training timestep.
    fn alphas_cumprod(&self) -> Vec<f64> {
        let n = self.train_timesteps;
        let at = |i: usize| i as f64 / (n - 1) as f64;
        let beta = |i: usize| match self.beta_schedule {
            BetaSchedule::Linear => self.beta_start + (self.beta_end - self.beta_start) * at(i),
            BetaSchedule::ScaledLinear => {
                let (a, b) = (self.beta_start.sqrt(), self.beta_end.sqrt());
                (a + (b - a) * at(i)).powi(2)
            }
        };
        let mut product = 1.0;
        (0..n)
            .map(|i| {
                product *= 1.0 - beta(i);
                product
            })
            .collect()
    }
}

/// One step: what the network is told, and how its answer moves the latent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub timestep: f32,
    pub keep: f32,
    pub predict: f32,
    /// Standard deviation of fresh noise that is added (0 but for consistency sampling).
    pub noise: f32,
}

/// The steps of one frame, first to last.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    steps: Vec<Step>,
}

impl Schedule {
    /// `steps` 0 takes the configuration's own number.
    pub fn new(config: &ScheduleConfig, steps: usize) -> Result<Self> {
        let n = if steps == 0 { config.steps } else { steps };
        if !STEPS.contains(&n) {
            return Err(Error::invalid(format!("steps {n} is outside {}..{}", STEPS.start(), STEPS.end())));
        }
        let steps = match config.kind {
            SchedulerKind::FlowEuler => (0..n).map(|i| flow(config, i, n)).collect(),
            SchedulerKind::Ddim | SchedulerKind::Consistency => diffusion(config, n),
        };
        Ok(Self { steps })
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Step {
    /// Moves `latent` by the network's `prediction`; `noise` is asked for fresh numbers only if the step adds any.
    pub fn apply(&self, latent: &mut [f32], prediction: &[f32], mut noise: impl FnMut() -> f32) {
        for (x, p) in latent.iter_mut().zip(prediction) {
            *x = self.keep * *x + self.predict * p;
            if self.noise > 0.0 {
                *x += self.noise * noise();
            }
        }
    }
}

fn flow(config: &ScheduleConfig, i: usize, n: usize) -> Step {
    let t = i as f64 / n as f64;
    let dt = 1.0 / n as f64;
    let (keep, predict) = match config.prediction {
        Prediction::Velocity => (1.0, dt),
        // On the straight path v = (data - x) / (1 - t).
        Prediction::Sample | Prediction::Epsilon => (1.0 - dt / (1.0 - t), dt / (1.0 - t)),
    };
    Step { timestep: t as f32 * config.timestep_scale, keep: keep as f32, predict: predict as f32, noise: 0.0 }
}

/// The clean latent as `x0 = a x + b prediction`.
fn clean(prediction: Prediction, alpha_bar: f64) -> (f64, f64) {
    let (a, s) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
    match prediction {
        Prediction::Epsilon => (1.0 / a, -s / a),
        Prediction::Sample => (0.0, 1.0),
        Prediction::Velocity => (a, -s),
    }
}

fn diffusion(config: &ScheduleConfig, n: usize) -> Vec<Step> {
    let alphas = config.alphas_cumprod();
    // Trailing spacing: the first step starts from pure noise (Lin et al. 2023, arXiv 2305.08891, section 3.3).
    let timestep = |i: usize| ((n - i) * config.train_timesteps / n) - 1;
    (0..n)
        .map(|i| {
            let t = timestep(i);
            let ab = alphas[t];
            let next = if i + 1 < n { alphas[timestep(i + 1)] } else { 1.0 };
            let (cx, cp) = clean(config.prediction, ab);
            let (keep, predict, noise) = match config.kind {
                SchedulerKind::Consistency => {
                    // Boundary condition of the consistency function (Luo et al., section 4.1): sigma_data 0.5,
                    // timesteps scaled by 10.
                    let scaled = 10.0 * t as f64;
                    let skip = 0.25 / (scaled * scaled + 0.25);
                    let out = scaled / (scaled * scaled + 0.25).sqrt();
                    let a = next.sqrt();
                    (a * (skip + out * cx), a * out * cp, (1.0 - next).sqrt())
                }
                _ => {
                    // eps = (x - sqrt(ab) x0) / sqrt(1 - ab); x' = sqrt(next) x0 + sqrt(1 - next) eps.
                    let ratio = ((1.0 - next) / (1.0 - ab)).sqrt();
                    let weight = next.sqrt() - ratio * ab.sqrt();
                    (ratio + weight * cx, weight * cp, 0.0)
                }
            };
            Step { timestep: t as f32, keep: keep as f32, predict: predict as f32, noise: noise as f32 }
        })
        .collect()
}
