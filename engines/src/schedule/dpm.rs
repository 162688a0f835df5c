//! DPM-Solver++ (2M): exponential integrator of the data prediction in `lambda = ln(alpha / sigma)`, with the estimates of
//! two steps.

use super::{
    ScheduleConfig, Step,
    diffusion::{alphas_cumprod, clean, timesteps},
};

pub(super) fn steps(config: &ScheduleConfig, n: usize) -> Vec<Step> {
    let alphas = alphas_cumprod(config);
    let timesteps = timesteps(config, n);
    // alpha, sigma and lambda at each step's start; the end has no noise.
    let place = |alpha_bar: f64| {
        let (alpha, sigma) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        (alpha, sigma, alpha.ln() - sigma.ln())
    };
    let places: Vec<_> = timesteps.iter().map(|t| place(alphas[*t])).collect();
    (0..n)
        .map(|i| {
            let (_, sigma, lambda) = places[i];
            let (next_alpha, next_sigma, next_lambda) = places.get(i + 1).copied().unwrap_or((1.0, 0.0, f64::INFINITY));
            let h = next_lambda - lambda;
            // x' = (sigma' / sigma) x - alpha' (exp(-h) - 1) D
            let weight = -next_alpha * ((-h).exp() - 1.0);
            // The first step knows one estimate, and the last one ends without noise, where lambda is infinite.
            let second = i > 0 && i + 1 < n;
            // D = (1 + 1/2r) d - 1/2r d_before, r = h_before / h
            let mix = if second { h / (2.0 * (lambda - places[i - 1].2)) } else { 0.0 };
            let (of_latent, of_prediction) = clean(config.prediction, alphas[timesteps[i]]);
            let own = weight * (1.0 + mix);
            Step {
                keep: (next_sigma / sigma + own * of_latent) as f32,
                predict: (own * of_prediction) as f32,
                prior: (-weight * mix) as f32,
                clean: Some([of_latent as f32, of_prediction as f32]),
                ..Step::at(timesteps[i] as f64)
            }
        })
        .collect()
}
