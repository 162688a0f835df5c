//! Schedules against the formulas of the papers, worked out here another way round.

use lipstream_engines::denoise::{Prediction, Schedule, ScheduleConfig, SchedulerKind};

fn config(text: &str) -> ScheduleConfig {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/models/compact/engine.toml")).unwrap();
    let head = manifest.split("[scheduler]").next().unwrap();
    lipstream_engines::manifest::Manifest::parse("test", &format!("{head}[scheduler]\n{text}"))
        .unwrap()
        .scheduler
        .unwrap()
}

fn diffusion(kind: &str, prediction: &str) -> ScheduleConfig {
    config(&format!("kind = \"{kind}\"\nprediction = \"{prediction}\"\nsteps = 4"))
}

/// `alpha_bar` of Stable Diffusion's schedule, by its definition.
fn alpha_bar(t: usize) -> f64 {
    let beta = |i: usize| {
        let root = 0.00085f64.sqrt() + (0.012f64.sqrt() - 0.00085f64.sqrt()) * i as f64 / 999.0;
        root * root
    };
    (0..=t).map(|i| (1.0 - beta(i)).ln()).sum::<f64>().exp()
}

/// Runs a schedule on one number with an oracle network.
fn sample(config: &ScheduleConfig, steps: usize, start: f32, mut network: impl FnMut(f32, f32) -> f32) -> f32 {
    let schedule = Schedule::new(config, steps).unwrap();
    let mut x = [start];
    for step in schedule.steps() {
        let prediction = network(x[0], step.timestep);
        step.apply(&mut x, &[prediction], || 0.0);
    }
    x[0]
}

#[test]
fn a_straight_flow_arrives_in_any_number_of_steps() {
    let flow = config("kind = \"flow-euler\"\nprediction = \"velocity\"\nsteps = 2");
    for steps in 1..=8 {
        let end = sample(&flow, steps, -0.7, |_, _| 2.0 - -0.7);
        assert!((end - 2.0).abs() < 1e-5, "{steps} steps end at {end}");
    }
    let flow = config("kind = \"flow-euler\"\nprediction = \"sample\"\nsteps = 2");
    for steps in 1..=8 {
        assert!((sample(&flow, steps, -0.7, |_, _| 2.0) - 2.0).abs() < 1e-5);
    }
}

#[test]
fn euler_steps_are_the_published_ones() {
    // x' = x + (t' - t) v on t = 0, 1/4, 1/2, 3/4 with the field v = x.
    let mut flow = config("kind = \"flow-euler\"\nprediction = \"velocity\"\nsteps = 4");
    assert!((sample(&flow, 4, 1.0, |x, _| x) - 1.25f32.powi(4)).abs() < 1e-5);
    flow.timestep_scale = 1000.0;
    let seen: Vec<f32> = Schedule::new(&flow, 4).unwrap().steps().iter().map(|s| s.timestep).collect();
    assert_eq!(seen, [0.0, 250.0, 500.0, 750.0]);
}

#[test]
fn ddim_follows_equation_12_with_eta_0() {
    // With x_t = sqrt(a) x0 + sqrt(1 - a) e and the true e for an answer, every step stays on the same x0 and e.
    let (x0, e) = (0.8f64, -1.3f64);
    let at = |t: usize| alpha_bar(t).sqrt() * x0 + (1.0 - alpha_bar(t)).sqrt() * e;
    for (prediction, steps) in [("epsilon", 4), ("sample", 4), ("velocity", 8), ("epsilon", 1)] {
        let config = diffusion("ddim", prediction);
        let schedule = Schedule::new(&config, steps).unwrap();
        assert_eq!(schedule.steps()[0].timestep, 999.0);
        let mut x = [at(999) as f32];
        for (i, step) in schedule.steps().iter().enumerate() {
            let a = alpha_bar(step.timestep as usize);
            assert!((f64::from(x[0]) - at(step.timestep as usize)).abs() < 1e-3, "{prediction}, step {i}");
            let answer = match config.prediction {
                Prediction::Epsilon => e,
                Prediction::Sample => x0,
                Prediction::Velocity => a.sqrt() * e - (1.0 - a).sqrt() * x0,
            };
            step.apply(&mut x, &[answer as f32], || panic!("DDIM with eta 0 adds no noise"));
        }
        assert!((f64::from(x[0]) - x0).abs() < 2e-3, "{prediction}: {}", x[0]);
    }
}

#[test]
fn consistency_steps_denoise_and_noise_again() {
    // Luo et al., algorithm 2: f = c_skip x + c_out x0(x, t), x' = sqrt(a') f + sqrt(1 - a') z; the last gives f.
    let config = diffusion("consistency", "epsilon");
    assert_eq!(config.kind, SchedulerKind::Consistency);
    let schedule = Schedule::new(&config, 2).unwrap();
    let (t0, t1) = (999usize, 499usize);
    assert_eq!(schedule.steps().iter().map(|s| s.timestep as usize).collect::<Vec<_>>(), [t0, t1]);
    let f = |x: f64, e: f64, t: usize| {
        let s = 10.0 * t as f64;
        let x0 = (x - (1.0 - alpha_bar(t)).sqrt() * e) / alpha_bar(t).sqrt();
        0.25 / (s * s + 0.25) * x + s / (s * s + 0.25).sqrt() * x0
    };
    let mut x = [0.4f32];
    schedule.steps()[0].apply(&mut x, &[0.1], || 0.5);
    let expected = alpha_bar(t1).sqrt() * f(0.4, 0.1, t0) + (1.0 - alpha_bar(t1)).sqrt() * 0.5;
    assert!((f64::from(x[0]) - expected).abs() < 1e-3, "{} instead of {expected}", x[0]);
    let before = f64::from(x[0]);
    schedule.steps()[1].apply(&mut x, &[-0.2], || panic!("the last step adds no noise"));
    assert!((f64::from(x[0]) - f(before, -0.2, t1)).abs() < 1e-3);
}

#[test]
fn steps_outside_1_to_8_are_refused() {
    let flow = config("kind = \"flow-euler\"\nprediction = \"velocity\"\nsteps = 3");
    assert_eq!(Schedule::new(&flow, 0).unwrap().steps().len(), 3);
    assert!(Schedule::new(&flow, 9).unwrap_err().to_string().contains("9 is outside 1..8"));
}
