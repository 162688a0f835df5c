use super::{Prediction, ScheduleConfig, Step};

/// Euler steps on t = 0, 1/n, …; `v` is the velocity, on the straight path `(data - x) / (1 - t)`.
pub(super) fn steps(config: &ScheduleConfig, n: usize) -> Vec<Step> {
    let dt = 1.0 / n as f64;
    let step = |i: usize| {
        let t = i as f64 / n as f64;
        let (keep, predict) = match config.prediction {
            Prediction::Velocity => (1.0, dt),
            Prediction::Sample | Prediction::Epsilon => (1.0 - dt / (1.0 - t), dt / (1.0 - t)),
        };
        let timestep = f64::from(t as f32 * config.timestep_scale);
        Step { keep: keep as f32, predict: predict as f32, ..Step::at(timestep) }
    };
    (0..n).map(step).collect()
}
