use serde::Deserialize;

use crate::{Error, Result};

/// Fewest and most steps that a frame may take.
pub const STEPS: std::ops::RangeInclusive<usize> = 1..=50;

/// How a latent travels from noise to data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// Denoising diffusion implicit models with eta 0 (Song et al. 2020, arXiv 2010.02502, eq. 12).
    Ddim,
    /// DPM-Solver++ of second order, multistep, midpoint (Lu et al. 2022, arXiv 2211.01095, algorithm 2); the first and the
    /// last step are of first order.
    #[serde(rename = "dpm-solver++")]
    Dpm,
    /// Euler steps along a rectified flow (Liu et al. 2022, arXiv 2209.03003; Lipman et al. 2022, arXiv 2210.02747).
    FlowEuler,
    /// Multistep consistency sampling of a latent consistency model (Luo et al. 2023, arXiv 2310.04378, algorithm 2).
    Consistency,
}

impl Sampler {
    /// The spacing of few steps, of which the first begins at the last timestep, where there is nothing but noise: what diffusers
    /// gives DPM-Solver++, and for DDIM what Lin et al. 2023 (arXiv 2305.08891) find best. `None` for samplers that a model of
    /// noise knows nothing of.
    pub fn few_steps(self) -> Option<Spacing> {
        match self {
            Self::Ddim => Some(Spacing::Trailing),
            Self::Dpm => Some(Spacing::Linspace),
            Self::FlowEuler | Self::Consistency => None,
        }
    }

    /// As it is written in a manifest, and as [`from_str`](std::str::FromStr) reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Dpm => "dpm-solver++",
            Self::FlowEuler => "flow-euler",
            Self::Consistency => "consistency",
        }
    }
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

/// Which training timesteps n steps of a diffusion take, of T (Lin et al. 2023, arXiv 2305.08891, table 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spacing {
    /// From the last on, T/n apart: the first step starts from pure noise.
    #[default]
    Trailing,
    /// Multiples of T/n from 0 on, `steps_offset` later: the last timesteps are never seen.
    Leading,
    /// From the last on, (T-1)/n apart and rounded.
    Linspace,
}

/// Which steps are guided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guided {
    #[default]
    All,
    Last,
    None,
}

impl std::str::FromStr for Sampler {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Ddim, Self::Dpm, Self::FlowEuler, Self::Consistency];
        all.into_iter()
            .find(|sampler| sampler.name() == text)
            .ok_or_else(|| Error::invalid(format!("`{text}` is none of {}", all.map(Self::name).join(", "))))
    }
}

impl Guided {
    /// As it is written in a manifest, and as [`from_str`](std::str::FromStr) reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Last => "last",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for Guided {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            "last" => Ok(Self::Last),
            "none" => Ok(Self::None),
            _ => Err(Error::invalid(format!("`{text}` is none of all, last, none"))),
        }
    }
}

/// A schedule as a manifest has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    pub kind: Sampler,
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
    #[serde(default)]
    pub spacing: Spacing,
    /// Added to every timestep of leading spacing.
    #[serde(default)]
    pub steps_offset: usize,
    /// Whether DDIM's last step ends at `alpha_bar` 1, or at that of timestep 0.
    #[serde(default = "yes")]
    pub set_alpha_to_one: bool,
    /// Scale of classifier-free guidance; 1: none.
    #[serde(default = "one")]
    pub guidance: f32,
    #[serde(default)]
    pub guided: Guided,
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
fn yes() -> bool {
    true
}

impl ScheduleConfig {
    /// Evaluations of the network that `steps` steps take: two of one that is guided.
    pub fn evaluations(&self, steps: usize) -> usize {
        let guided = match self.guided {
            _ if self.guidance == 1.0 => 0,
            Guided::All => steps,
            Guided::Last => steps.min(1),
            Guided::None => 0,
        };
        steps + guided
    }

    /// The first key that is wrong, and why.
    pub fn check(&self) -> std::result::Result<(), (String, String)> {
        let fail = |key: &str, cause: String| Err((key.to_owned(), cause));
        if !STEPS.contains(&self.steps) {
            return fail("steps", format!("{} is outside {}..{}", self.steps, STEPS.start(), STEPS.end()));
        }
        if !(self.timestep_scale.is_finite() && self.timestep_scale > 0.0) {
            return fail("timestep_scale", format!("{} is not above 0", self.timestep_scale));
        }
        if !(*STEPS.end()..=100_000).contains(&self.train_timesteps) {
            return fail("train_timesteps", format!("{} is outside {}..100000", self.train_timesteps, STEPS.end()));
        }
        if !(self.beta_start > 0.0 && self.beta_start <= self.beta_end && self.beta_end < 1.0) {
            return fail("beta_end", "0 < beta_start <= beta_end < 1 does not hold".into());
        }
        if self.kind == Sampler::FlowEuler && self.prediction == Prediction::Epsilon {
            return fail("prediction", "a flow predicts `velocity` or `sample`".into());
        }
        if self.steps_offset > self.train_timesteps / STEPS.end() {
            let most = self.train_timesteps / STEPS.end();
            return fail("steps_offset", format!("{} is outside 0..{most}", self.steps_offset));
        }
        if self.kind == Sampler::Consistency && self.spacing != Spacing::Trailing {
            return fail("spacing", "consistency sampling is `trailing`".into());
        }
        if !(0.0..=20.0).contains(&self.guidance) {
            return fail("guidance", format!("{} is outside 0..20", self.guidance));
        }
        Ok(())
    }
}
