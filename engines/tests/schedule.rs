//! Schedules against the formulas of the papers, worked out here another way round.

mod common;

use lipstream_engines::schedule::{Prediction, Sampler, Schedule, ScheduleConfig};

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
    let (mut x, mut estimate) = ([start], Vec::new());
    for step in schedule.steps() {
        let prediction = network(x[0], step.timestep);
        step.apply(&mut x, &[prediction], &mut estimate, || 0.0);
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
            step.apply(&mut x, &[answer as f32], &mut Vec::new(), || panic!("DDIM with eta 0 adds no noise"));
        }
        assert!((f64::from(x[0]) - x0).abs() < 2e-3, "{prediction}: {}", x[0]);
    }
}

#[test]
fn consistency_steps_denoise_and_noise_again() {
    // Luo et al., algorithm 2: f = c_skip x + c_out x0(x, t), x' = sqrt(a') f + sqrt(1 - a') z; the last gives f.
    let config = diffusion("consistency", "epsilon");
    assert_eq!(config.kind, Sampler::Consistency);
    let schedule = Schedule::new(&config, 2).unwrap();
    let (t0, t1) = (999usize, 499usize);
    assert_eq!(schedule.steps().iter().map(|s| s.timestep as usize).collect::<Vec<_>>(), [t0, t1]);
    let f = |x: f64, e: f64, t: usize| {
        let s = 10.0 * t as f64;
        let x0 = (x - (1.0 - alpha_bar(t)).sqrt() * e) / alpha_bar(t).sqrt();
        0.25 / (s * s + 0.25) * x + s / (s * s + 0.25).sqrt() * x0
    };
    let mut x = [0.4f32];
    schedule.steps()[0].apply(&mut x, &[0.1], &mut Vec::new(), || 0.5);
    let expected = alpha_bar(t1).sqrt() * f(0.4, 0.1, t0) + (1.0 - alpha_bar(t1)).sqrt() * 0.5;
    assert!((f64::from(x[0]) - expected).abs() < 1e-3, "{} instead of {expected}", x[0]);
    let before = f64::from(x[0]);
    schedule.steps()[1].apply(&mut x, &[-0.2], &mut Vec::new(), || panic!("the last step adds no noise"));
    assert!((f64::from(x[0]) - f(before, -0.2, t1)).abs() < 1e-3);
}

#[test]
fn the_second_order_solver_ends_nearer_than_the_first() {
    // Data from a normal distribution of deviation s: the best estimate of x0 is a s^2 x / (a^2 s^2 + 1 - a^2), and a
    // start of x ends, by the flow of the probabilities, at x s / sqrt(a^2 s^2 + 1 - a^2).
    let ddim = diffusion("ddim", "sample");
    let mut dpm = diffusion("dpm-solver++", "sample");
    let spread = |t: f32| {
        let a = alpha_bar(t as usize);
        (a.sqrt(), a * 0.25 + 1.0 - a)
    };
    let apart = |config: &ScheduleConfig| {
        let end = sample(config, 40, 1.0, |x, t| (spread(t).0 * 0.25 / spread(t).1) as f32 * x);
        (f64::from(end) - 0.5 / spread(999.0).1.sqrt()).abs()
    };
    assert!(apart(&dpm) < 0.6 * apart(&ddim), "{} against {}", apart(&dpm), apart(&ddim));
    dpm.prediction = Prediction::Epsilon;
    let steps = Schedule::new(&dpm, 4).unwrap().steps().to_vec();
    assert_eq!(steps.iter().map(|s| s.prior != 0.0).collect::<Vec<_>>(), [false, true, true, false]);
    assert_eq!(steps.iter().map(|s| s.clean.is_some()).collect::<Vec<_>>(), [true, true, false, false]);
}

#[test]
fn spacings_are_those_of_the_paper() {
    let timesteps = |spacing: &str, n: usize| -> Vec<f32> {
        let text = format!("kind = \"ddim\"\nprediction = \"epsilon\"\nsteps = 4\n{spacing}");
        Schedule::new(&config(&text), n).unwrap().steps().iter().map(|s| s.timestep).collect()
    };
    // Lin et al. 2023, table 2, for 10 of 1000.
    assert_eq!(timesteps("spacing = \"leading\"\nsteps_offset = 1", 10)[..3], [901.0, 801.0, 701.0]);
    assert_eq!(timesteps("spacing = \"linspace\"", 10)[..3], [999.0, 899.0, 799.0]);
    assert_eq!(timesteps("spacing = \"trailing\"", 10)[..3], [999.0, 899.0, 799.0]);
    assert_eq!(timesteps("spacing = \"linspace\"", 4), [999.0, 749.0, 500.0, 250.0]);
}

#[test]
fn guidance_is_on_for_the_steps_that_are_named() {
    let scales = |guided: &str| -> Vec<f32> {
        let text =
            format!("kind = \"ddim\"\nprediction = \"epsilon\"\nsteps = 3\nguidance = 1.5\nguided = \"{guided}\"");
        Schedule::new(&config(&text), 0).unwrap().steps().iter().map(|s| s.guidance).collect()
    };
    assert_eq!(scales("all"), [1.5; 3]);
    assert_eq!(scales("last"), [1.0, 1.0, 1.5]);
    assert_eq!(scales("none"), [1.0; 3]);
}

#[test]
fn steps_outside_1_to_50_are_refused() {
    let flow = config("kind = \"flow-euler\"\nprediction = \"velocity\"\nsteps = 3");
    assert_eq!(Schedule::new(&flow, 0).unwrap().steps().len(), 3);
    assert!(Schedule::new(&flow, 51).unwrap_err().to_string().contains("51 is outside 1..50"));
}

/// What the published code computed with LatentSync's scheduler configuration, or `None` where it is absent.
fn golden() -> Option<Vec<u8>> {
    let path = common::shared("golden/latentsync15/golden.safetensors")?;
    Some(std::fs::read(path).unwrap())
}

const LATENTSYNC: &str =
    "prediction = \"epsilon\"\nsteps = 20\nset_alpha_to_one = false\nsteps_offset = 1\nguidance = 1.5\n";

#[test]
fn ddim_is_the_published_one() {
    let Some(bytes) = golden() else { return };
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let config = config(&format!("kind = \"ddim\"\nspacing = \"leading\"\n{LATENTSYNC}"));
    for n in [2, 3, 8, 20, 50] {
        let steps = Schedule::new(&config, n).unwrap().steps().to_vec();
        let timesteps: Vec<f32> = common::numbers(&file, &format!("ddim.timesteps.{n}"));
        assert_eq!(steps.iter().map(|s| s.timestep).collect::<Vec<_>>(), timesteps, "{n} steps");
        let alphas = common::numbers(&file, &format!("ddim.alphas.{n}"));
        for (step, pair) in steps.iter().zip(alphas.as_chunks::<2>().0) {
            // x' = sqrt(a'/a) x + (sqrt(1 - a') - sqrt(a' (1 - a) / a)) e
            let [a, next] = pair.map(f64::from);
            let keep = (next / a).sqrt();
            let predict = (1.0 - next).sqrt() - (next * (1.0 - a) / a).sqrt();
            assert!((f64::from(step.keep) - keep).abs() < 1e-5 * keep, "{n}: {} and {keep}", step.keep);
            assert!((f64::from(step.predict) - predict).abs() < 1e-5 * keep, "{n}: {} and {predict}", step.predict);
        }
    }
    first_step(&file, &config, "ddim", 3, 1e-5);
}

#[test]
fn dpm_solver_is_the_published_one() {
    let Some(bytes) = golden() else { return };
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let config = config(&format!("kind = \"dpm-solver++\"\nspacing = \"linspace\"\n{LATENTSYNC}"));
    let steps = Schedule::new(&config, 4).unwrap().steps().to_vec();
    let timesteps: Vec<f32> = common::numbers(&file, "chunk.dpm.timesteps");
    assert_eq!(steps.iter().map(|s| s.timestep).collect::<Vec<_>>(), timesteps);
    first_step(&file, &config, "dpm", 4, 1e-5);
    // The second step by the paper, with the sigmas that the published code had: the estimates are the network's.
    let sigmas: Vec<f64> = common::numbers(&file, "chunk.dpm.sigmas").into_iter().map(f64::from).collect();
    let place = |i: usize| {
        let alpha = 1.0 / (sigmas[i] * sigmas[i] + 1.0).sqrt();
        (alpha, sigmas[i] * alpha, -sigmas[i].ln())
    };
    let h = place(2).2 - place(1).2;
    let r = (place(1).2 - place(0).2) / h;
    let weight = -place(2).0 * ((-h).exp() - 1.0);
    let [_, second, ..] = &steps[..] else { panic!("four steps") };
    assert!((f64::from(second.prior) + weight / (2.0 * r)).abs() < 1e-5, "{}", second.prior);
    let own = weight * (1.0 + 1.0 / (2.0 * r));
    let keep = place(2).1 / place(1).1 + own / place(1).0;
    assert!(
        (f64::from(second.keep) - keep).abs() < 1e-5
            && (f64::from(second.predict) + own * place(1).1 / place(1).0).abs() < 1e-5
    );
}

/// The first step from the stored noise with the stored prediction, after guidance, gives the stored latents.
fn first_step(file: &safetensors::SafeTensors, config: &ScheduleConfig, name: &str, n: usize, tolerance: f32) {
    let noise = common::numbers(file, "chunk.in.noise");
    let prediction = common::numbers(file, &format!("chunk.{name}.step0.noise_pred"));
    let wanted = common::numbers(file, &format!("chunk.{name}.step0.latents"));
    // One noise of [4, 8, 8] for all of the 8 frames in [4, 8, 8, 8].
    let mut latent: Vec<f32> = (0..wanted.len()).map(|i| noise[i / 512 * 64 + i % 64]).collect();
    let schedule = Schedule::new(config, n).unwrap();
    schedule.steps()[0].apply(&mut latent, &prediction, &mut Vec::new(), || panic!("adds no noise"));
    let apart = latent.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < tolerance * 10.0, "{name}: {apart}");
}
