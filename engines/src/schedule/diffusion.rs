//! What diffusions have in common, and the samplers that look at one prediction at a time.

use super::{BetaSchedule, Prediction, Sampler, ScheduleConfig, Spacing, Step};

/// `alpha_bar` of each training timestep.
pub(super) fn alphas_cumprod(config: &ScheduleConfig) -> Vec<f64> {
    let n = config.train_timesteps;
    let at = |i: usize| i as f64 / (n - 1) as f64;
    let beta = |i: usize| match config.beta_schedule {
        BetaSchedule::Linear => config.beta_start + (config.beta_end - config.beta_start) * at(i),
        BetaSchedule::ScaledLinear => {
            let (a, b) = (config.beta_start.sqrt(), config.beta_end.sqrt());
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

/// The training timesteps of `n` steps, first to last.
pub(super) fn timesteps(config: &ScheduleConfig, n: usize) -> Vec<usize> {
    let all = config.train_timesteps;
    match config.spacing {
        Spacing::Trailing => (0..n).map(|i| (n - i) * all / n - 1).collect(),
        Spacing::Leading => (0..n).rev().map(|i| (i * (all / n) + config.steps_offset).min(all - 1)).collect(),
        Spacing::Linspace => {
            let at = |i: usize| ((all - 1) as f64 * i as f64 / n as f64).round_ties_even() as usize;
            (1..=n).rev().map(at).collect()
        }
    }
}

/// The clean latent as `x0 = a x + b prediction`.
pub(super) fn clean(prediction: Prediction, alpha_bar: f64) -> (f64, f64) {
    let (a, s) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
    match prediction {
        Prediction::Epsilon => (1.0 / a, -s / a),
        Prediction::Sample => (0.0, 1.0),
        Prediction::Velocity => (a, -s),
    }
}

pub(super) fn steps(config: &ScheduleConfig, n: usize) -> Vec<Step> {
    let alphas = alphas_cumprod(config);
    let timesteps = timesteps(config, n);
    let end = if config.set_alpha_to_one { 1.0 } else { alphas[0] };
    (0..n)
        .map(|i| {
            let t = timesteps[i];
            let next = timesteps.get(i + 1).map_or(end, |t| alphas[*t]);
            let (keep, predict, noise) = match config.kind {
                Sampler::Consistency => consistency(config.prediction, t, alphas[t], next),
                _ => ddim(config.prediction, alphas[t], next),
            };
            let step = Step::at(t as f64);
            Step { keep: keep as f32, predict: predict as f32, noise: noise as f32, ..step }
        })
        .collect()
}

/// `eps = (x - sqrt(a) x0) / sqrt(1 - a)`, `x' = sqrt(a') x0 + sqrt(1 - a') eps`.
fn ddim(prediction: Prediction, alpha_bar: f64, next: f64) -> (f64, f64, f64) {
    let (of_latent, of_prediction) = clean(prediction, alpha_bar);
    let ratio = ((1.0 - next) / (1.0 - alpha_bar)).sqrt();
    let weight = next.sqrt() - ratio * alpha_bar.sqrt();
    (ratio + weight * of_latent, weight * of_prediction, 0.0)
}

/// Boundary condition of the consistency function (Luo et al., section 4.1): sigma_data 0.5, timesteps scaled by 10.
fn consistency(prediction: Prediction, t: usize, alpha_bar: f64, next: f64) -> (f64, f64, f64) {
    let (of_latent, of_prediction) = clean(prediction, alpha_bar);
    let scaled = 10.0 * t as f64;
    let skip = 0.25 / (scaled * scaled + 0.25);
    let out = scaled / (scaled * scaled + 0.25).sqrt();
    let a = next.sqrt();
    (a * (skip + out * of_latent), a * out * of_prediction, (1.0 - next).sqrt())
}
