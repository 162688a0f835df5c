use super::*;
use crate::{
    cuda::Buffer,
    engine::{
        KNOWN, LATENT, Noise, TRAIL, Work,
        known::{put_back, record},
        latent::{clip, coder},
        step,
    },
    kernels::{Clip, Painted, Sampled, advance, all_finite, begin, draw, plain},
    runtime::Tensor,
    schedule::{BetaSchedule, Guided, Prediction, Sampler, Schedule, ScheduleConfig, Spacing, Step},
};

fn wave(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.7310 + seed).sin() * 1.7 + (i as f32 * 0.013 * seed).cos()).collect()
}

fn schedules() -> Vec<Schedule> {
    let predictions = [Prediction::Epsilon, Prediction::Sample, Prediction::Velocity];
    let kinds = [Sampler::Ddim, Sampler::Dpm, Sampler::FlowEuler, Sampler::Consistency];
    let mut all = Vec::new();
    for (kind, prediction) in kinds.into_iter().flat_map(|kind| predictions.map(|prediction| (kind, prediction))) {
        for (guided, steps) in [(Guided::None, 1), (Guided::Last, 4), (Guided::All, 3)] {
            let config = ScheduleConfig {
                kind,
                prediction,
                steps,
                train_timesteps: 1000,
                beta_schedule: BetaSchedule::ScaledLinear,
                beta_start: 0.00085,
                beta_end: 0.012,
                spacing: Spacing::Trailing,
                guidance: 1.7,
                guided,
                timestep_scale: 1.0,
                steps_offset: 0,
                set_alpha_to_one: true,
            };
            all.push(Schedule::new(&config, 0).unwrap());
        }
    }
    all
}

/// What a stage does before the network is asked.
fn before(work: &mut Work) {
    put_back(work, work.remaining_steps()).unwrap();
    record(work).unwrap();
}

/// And after it.
fn after(work: &mut Work, step: &Step, said: &[f32], without: &[f32]) {
    let mut said = said.to_vec();
    if step.guidance != 1.0 {
        step::guide(&mut said, without, step.guidance);
    }
    step::advance(work, step, &said).unwrap();
    work.advance();
}

#[test]
fn steps_are_those_of_the_cpu_with_every_sampler_guided_or_not_and_with_known_frames() {
    let (mut worst, mut noisy) = (0.0f32, 0);
    for memory in host::orders() {
        for schedule in schedules() {
            for (channels, frames, kept, plane) in
                [(4, 5, 2, 9), (4, 16, 0, 12), (2, 3, 3, 7), (64, 1, 0, 1), (1, 4, 1, 300)]
            {
                let steps = schedule.steps();
                let (count, one) = (channels * frames * plane, channels * kept * plane);
                let start = wave(channels * plane, 0.3);
                let shape = |frames: usize| vec![1, channels, frames, 1, plane];
                let all: Vec<f32> = start.chunks_exact(plane).flat_map(|c| c.repeat(frames)).collect();
                let known = wave((steps.len() + 1) * one, 2.0);
                let mut work = Work::new(Noise::new(11, 0.0, 1.0))
                    .with(LATENT, Tensor { shape: shape(frames), data: all })
                    .with(TRAIL, Tensor { shape: vec![0, channels, frames, 1, plane], data: Vec::new() });
                if kept > 0 {
                    let shape = vec![steps.len() + 1, channels, kept, 1, plane];
                    work.put(KNOWN, Tensor { shape, data: known.clone() });
                }
                work.denoise(0, &schedule);
                // The same on the device, with the network's batch of two rows, the latents among other channels.
                let clip = Clip { channels, frames, kept, plane };
                // None of them begins where its buffer does.
                let latent = Buffer::zeroed(&memory, count + 3).unwrap();
                let trail = Buffer::zeroed(&memory, (steps.len() + 1) * count).unwrap();
                let batch = Buffer::zeroed(&memory, 2 * (count + 5)).unwrap();
                let estimate = Buffer::zeroed(&memory, count + 2).unwrap();
                let there = Buffer::of(&memory, &known).unwrap();
                let mut noise = Noise::new(11, 0.0, 1.0);
                let noise_of_start = Buffer::of(&memory, &start).unwrap();
                for step in 0..=steps.len() {
                    let copies = [(&trail, step * count), (&batch, 0), (&batch, count + 5)];
                    let known = (kept > 0).then_some((&there, step * one));
                    let painted = Painted { clip, latent: (&latent, 3), known, copies: &copies };
                    if step == 0 {
                        begin(&memory, &painted, &noise_of_start).unwrap();
                        before(&mut work);
                    } else {
                        let step = steps[step - 1];
                        let said = wave(2 * count, step.timestep + 1.0);
                        let prediction = Buffer::of(&memory, &said).unwrap();
                        let without = (step.guidance != 1.0).then_some((&prediction, count));
                        advance(&memory, &painted, &step, ((&prediction, 0), without), (&estimate, 2), &mut noise)
                            .unwrap();
                        after(&mut work, &step, &said[..count], &said[count..]);
                        noisy += usize::from(step.noise > 0.0);
                        if work.next().is_some() {
                            before(&mut work);
                        }
                    }
                    let whole = latent.read().unwrap();
                    let found = &whole[3..];
                    assert_eq!(whole[..3], [0.0; 3]);
                    let batch = batch.read().unwrap();
                    assert_eq!((&batch[..count], &batch[count + 5..2 * count + 5]), (found, found));
                    assert!(batch[count..count + 5].iter().all(|v| *v == 0.0));
                    worst = worst.max(apart(found, &work.tensor(LATENT).unwrap().data));
                    assert!(worst < 1e-5, "{schedule:?} {clip:?}, after {step} steps: {worst}");
                }
                assert_eq!(work.tensor(TRAIL).unwrap().data.len(), (steps.len() + 1) * count);
                worst = worst.max(apart(&trail.read().unwrap(), &work.tensor(TRAIL).unwrap().data));
                assert!(worst < 1e-5, "{schedule:?} {clip:?}: {worst}");
                // Both have asked for as much noise.
                assert_eq!(noise.normal(), work.noise.normal());
            }
        }
    }
    assert!(noisy > 0);
    println!("latents: {worst:.1e} at most");
}

#[test]
fn noise_is_that_of_the_cpu_bit_for_bit_however_it_is_asked_for() {
    for memory in host::orders() {
        let (mut own, mut other) = (Noise::new(0xfeed_beef, 0.9, 0.8), Noise::new(0xfeed_beef, 0.9, 0.8));
        let last = Buffer::zeroed(&memory, 100_001).unwrap();
        for (i, length) in [1, 4096, 4096, 3, 3, 100_001].into_iter().enumerate() {
            // An odd number of numbers leaves one of a pair for the next.
            let goes_on = [2, 4].contains(&i);
            let out = Buffer::zeroed(&memory, length).unwrap();
            draw(&memory, &mut own, (&out, 0), length, Some((&last, goes_on))).unwrap();
            let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert!(bits(out.read().unwrap()) == bits(other.latent(length)), "{i}");
            assert_eq!(own.normal().to_bits(), other.normal().to_bits());
        }
    }
}

#[test]
fn what_a_clip_is_painted_by_and_what_is_decoded_are_those_of_the_cpu() {
    let mut worst = 0.0f32;
    for memory in host::orders() {
        for (channels, frames, kept, side) in [(4, 5, 2, 3), (4, 16, 0, 4), (2, 3, 2, 5), (4, 2, 1, 1)] {
            let (plane, fresh) = (side * side, frames - kept);
            let count = 2 * fresh * channels * plane;
            let (mean, log_variance, epsilon) = (wave(count, 1.0), wave(count, 2.0), wave(count, 3.0));
            let (mask, before) = (wave(plane, 4.0), wave((1 + 2 * channels) * kept * plane, 5.0));
            let scale = 0.18215;
            let tensor = |shape: &[usize], data: &[f32]| Tensor { shape: shape.to_vec(), data: data.to_vec() };
            let mut sampled = mean.clone();
            coder::sample(&mut sampled, &log_variance, &epsilon, scale);
            let latents = tensor(&[2 * fresh, channels, side, side], &sampled);
            let new = clip::condition(&latents, &mask).unwrap();
            let known = tensor(&[1, 1 + 2 * channels, kept, side, side], &before);
            let wanted = if kept > 0 { clip::after(&known, &new).unwrap() } else { new }.data;
            let device = |values: &[f32]| Buffer::of(&memory, values).unwrap();
            let later = |values: &[f32]| device(&[&[9.0; 5], values].concat());
            let (mean, log_variance, epsilon, mask, before) =
                (later(&mean), later(&log_variance), later(&epsilon), device(&mask), later(&before));
            let sampled = Sampled {
                mean: (&mean, 5),
                log_variance: (&log_variance, 5),
                epsilon: (&epsilon, 5),
                mask: &mask,
                known: (kept > 0).then_some((&before, 5)),
                scale,
            };
            let clip = Clip { channels, frames, kept, plane };
            let all = (1 + 2 * channels) * frames * plane;
            let out = Buffer::zeroed(&memory, 2 * all + 7).unwrap();
            sampled.condition(&memory, &clip, &[(&out, 3), (&out, all + 7)]).unwrap();
            let found = out.read().unwrap();
            worst = worst.max(apart(&found[3..all + 3], &wanted)).max(apart(&found[all + 7..], &wanted));
            assert!(worst < 1e-5 && found[..3] == [0.0; 3], "{clip:?}: {worst}");
            let latent = wave(channels * frames * plane, 6.0);
            let whole = tensor(&[1, channels, frames, side, side], &latent);
            let wanted = coder::frames(&whole, kept, 1.0 / scale).unwrap().data;
            let out = Buffer::zeroed(&memory, wanted.len() + 1).unwrap();
            plain(&memory, &clip, (&later(&latent), 5), 1.0 / scale, (&out, 1)).unwrap();
            worst = worst.max(apart(&out.read().unwrap()[1..], &wanted));
            assert!(worst < 1e-5, "{clip:?}: {worst}");
            assert!(plain(&memory, &clip, (&device(&latent), 0), 1.0, (&out, 2)).is_err());
            assert!(plain(&memory, &clip, (&device(&latent), 1), 1.0, (&out, 1)).is_err());
        }
    }
    println!("conditions: {worst:.1e} at most");
}

#[test]
fn one_number_that_is_none_is_seen_wherever_it_is_and_only_among_those_that_count() {
    for memory in host::orders() {
        for (at, wrong) in [(0, f32::NAN), (299, f32::INFINITY), (130, f32::NEG_INFINITY)] {
            let mut values = wave(300, 1.0);
            values[7] = f32::MAX;
            let there = Buffer::of(&memory, &values).unwrap();
            assert!(all_finite(&memory, &there, 300).unwrap());
            values[at] = wrong;
            there.write(0, &values).unwrap();
            assert!(!all_finite(&memory, &there, 300).unwrap());
            assert!(all_finite(&memory, &there, at).unwrap());
            assert!(all_finite(&memory, &there, 301).is_err());
        }
    }
}

#[test]
fn noise_without_a_latent_before_goes_where_it_is_asked_for() {
    let [memory, _] = host::orders();
    let (mut own, mut other) = (Noise::new(3, 0.0, 1.0), Noise::new(3, 0.0, 1.0));
    let out = Buffer::zeroed(&memory, 40).unwrap();
    for at in [20, 0] {
        draw(&memory, &mut own, (&out, at), 15, None).unwrap();
    }
    let wanted = [other.latent(15), other.latent(15)];
    let found = out.read().unwrap();
    assert_eq!((&found[20..35], &found[..15]), (&wanted[0][..], &wanted[1][..]));
    assert!(found[15..20].iter().chain(&found[35..]).all(|v| *v == 0.0));
    assert!(draw(&memory, &mut own, (&out, 30), 15, None).is_err());
}
