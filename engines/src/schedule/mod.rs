//! Schedules as data: whatever the sampler, one step is
//! `x' = keep x + predict f(x, t) + prior d + noise z`, with numbers that are worked out once when the schedule is made.
//! `f` is what the network says, `d` the clean latent as the step before estimated it, `z` fresh noise.

mod config;
mod diffusion;
mod dpm;
mod flow;

pub use config::{BetaSchedule, Guided, Prediction, STEPS, Sampler, ScheduleConfig, Spacing};

use crate::{Error, Result};

/// One step: what the network is told, and how its answer moves the latent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What the network is told.
    pub timestep: f32,
    pub keep: f32,
    pub predict: f32,
    /// Factor of the step before's estimate of the clean latent; 0 but for multistep samplers.
    pub prior: f32,
    /// Standard deviation of fresh noise that is added; 0 but for consistency sampling.
    pub noise: f32,
    /// The estimate of the clean latent, as factors of the latent and of the prediction, where the next step asks for it.
    pub clean: Option<[f32; 2]>,
    /// Scale of the guidance, `null + scale (conditioned - null)` (Ho and Salimans 2022, arXiv 2207.12598); 1: none.
    pub guidance: f32,
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
        if !STEPS.contains(&n) || n > config.train_timesteps {
            return Err(Error::invalid(format!("steps {n} is outside {}..{}", STEPS.start(), STEPS.end())));
        }
        let mut steps = match config.kind {
            Sampler::FlowEuler => flow::steps(config, n),
            Sampler::Ddim | Sampler::Consistency => diffusion::steps(config, n),
            Sampler::Dpm => dpm::steps(config, n),
        };
        for i in 0..n {
            let guided = match config.guided {
                Guided::All => true,
                Guided::Last => i + 1 == n,
                Guided::None => false,
            };
            if guided {
                steps[i].guidance = config.guidance;
            }
            if steps.get(i + 1).is_none_or(|next| next.prior == 0.0) {
                steps[i].clean = None;
            }
        }
        Ok(Self { steps })
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Step {
    /// A step that does nothing but ask the network at `timestep`.
    fn at(timestep: f64) -> Self {
        Self { timestep: timestep as f32, keep: 1.0, predict: 0.0, prior: 0.0, noise: 0.0, clean: None, guidance: 1.0 }
    }

    /// Moves `latent` by the network's `prediction`, of the same length. `estimate` is what the step before left there, and
    /// what this one leaves for the next; `noise` is asked for fresh numbers only if the step adds any.
    pub fn apply(
        &self,
        latent: &mut [f32],
        prediction: &[f32],
        estimate: &mut Vec<f32>,
        mut noise: impl FnMut() -> f32,
    ) {
        let prior = (self.prior != 0.0).then(|| std::mem::take(estimate));
        if let Some([of_latent, of_prediction]) = self.clean {
            estimate.clear();
            estimate.extend(latent.iter().zip(prediction).map(|(x, p)| of_latent * x + of_prediction * p));
        }
        for (x, p) in latent.iter_mut().zip(prediction) {
            *x = self.keep * *x + self.predict * p;
        }
        if let Some(prior) = prior {
            latent.iter_mut().zip(&prior).for_each(|(x, d)| *x += self.prior * d);
        }
        if self.noise > 0.0 {
            latent.iter_mut().for_each(|x| *x += self.noise * noise());
        }
    }
}
