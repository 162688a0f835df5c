//! What the general engine makes of the video's sound, and when the mouth says it.

use std::time::Duration;

use lipstream_engines::{
    audio::{SAMPLE_RATE, Timeline, front_end},
    engine::{
        Engine as _, Identity,
        compact::{Compact, Pair},
    },
    manifest::Package,
    quality::series,
    runtime,
};
use serde::Serialize;

use super::observe::Observed;
use crate::error::{Failure, Result};

/// Frames of 40 ms by which sound and picture may be apart.
const REACH: i32 = 10;
const FRAME: f64 = 0.04;
/// Below this correlation of the openings nothing can be learnt.
const LEAST_R: f64 = 0.15;
/// An offset must better the correlation without one by so much to be believed.
const BETTER: f64 = 0.02;
/// Longest sound that is listened to, in seconds.
const LONGEST: usize = 3600;

/// By how much the picture is late after its sound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Offset {
    pub milliseconds: i32,
    /// Correlation of the opening there.
    pub r: f64,
}

/// A frame whose mouth is seen clearly.
pub struct ShownLatent {
    time: f64,
    latent: Vec<f32>,
}

/// The latents that the frames show, stretch by stretch.
pub fn stretches(engine: &Compact, identity: &Identity, seen: &Observed) -> Result<Vec<Vec<ShownLatent>>> {
    let mut all = Vec::new();
    for stretch in &seen.stretches {
        let mut shown = Vec::with_capacity(stretch.len());
        for moment in stretch.iter().filter(|moment| moment.clear) {
            if let Some(latent) = engine.seen(identity, &moment.points)? {
                shown.push(ShownLatent { time: moment.time, latent });
            }
        }
        all.push(shown);
    }
    Ok(all)
}

/// The sound of a video, ready to be asked what the mouth does at any time.
pub struct Speech<'a> {
    engine: &'a Compact,
    timeline: Timeline,
    seconds: f64,
}

impl<'a> Speech<'a> {
    /// `samples` are mono at 16 kHz, from the video's first frame on.
    pub fn new(engine: &Package, compact: &'a Compact, options: &runtime::Options, samples: &[f32]) -> Result<Self> {
        let samples = &samples[..samples.len().min(LONGEST * SAMPLE_RATE as usize)];
        let spec = compact.spec();
        if compact.looks_back() {
            return Err(Failure::run(format!("engine `{}` looks at its own past, which is not adapted", spec.name)));
        }
        let mut encoder = front_end(engine, options)?;
        let hop = spec.window.hop.as_nanos() as u64;
        let capacity = samples.len() / (SAMPLE_RATE as usize / 1000) / spec.window.hop.as_millis().max(1) as usize;
        let mut timeline = Timeline::new(spec.window.clone(), capacity + 8);
        let mut hops = 0;
        let mut take = |feature: &[f32]| {
            timeline.push(hops * hop, feature);
            hops += 1;
        };
        encoder.push(samples, &mut take)?;
        encoder.finish(&mut take)?;
        timeline.end();
        let seconds = samples.len() as f64 / f64::from(SAMPLE_RATE);
        Ok(Self { engine: compact, timeline, seconds })
    }

    fn within(&self, time: f64) -> bool {
        (0.0..self.seconds).contains(&time)
    }

    fn window(&self, time: f64) -> Vec<f32> {
        self.timeline.window(Duration::from_secs_f64(time.max(0.0)).as_nanos() as u64)
    }

    /// The latents of audio windows, without noise.
    fn latents(&self, windows: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        Ok(self.engine.heard(windows)?)
    }
}

/// By how much picture and sound are apart, by the opening; `None` where they do not move together.
pub fn offset(engine: &Compact, speech: &Speech, stretches: &[Vec<ShownLatent>]) -> Result<Option<Offset>> {
    let frames: Vec<&ShownLatent> = stretches.iter().flatten().collect();
    let seen: Vec<f64> = frames.iter().map(|f| f64::from(engine.opening(&f.latent))).collect();
    let agreement = |lag: i32| -> Result<Option<Offset>> {
        let times = || frames.iter().map(|f| f.time - f64::from(lag) * FRAME);
        let windows: Vec<Vec<f32>> = times().map(|time| speech.window(time)).collect();
        let heard: Vec<f64> =
            speech.latents(&windows)?.iter().map(|latent| f64::from(engine.opening(latent))).collect();
        let both = times().zip(&heard).zip(&seen).filter(|((time, _), _)| speech.within(*time));
        let (heard, seen): (Vec<f64>, Vec<f64>) = both.map(|((_, heard), seen)| (*heard, *seen)).unzip();
        Ok(series::pearson(&heard, &seen).map(|r| Offset { milliseconds: lag * 40, r }))
    };
    let mut best = agreement(0)?;
    let straight = best.map_or(0.0, |b| b.r);
    for lag in (-REACH..=REACH).filter(|lag| *lag != 0) {
        let Some(found) = agreement(lag)? else { continue };
        tracing::debug!(lag, r = found.r, "offset");
        if found.r > best.map_or(0.0, |b| b.r).max(straight + BETTER) {
            best = Some(found);
        }
    }
    // At the border the true place may lie beyond it.
    Ok(best.filter(|b| b.r >= LEAST_R && b.milliseconds.abs() < REACH * 40))
}

/// Frames with sound, in the order of time.
pub fn pairs(speech: &Speech, stretches: &[Vec<ShownLatent>], offset: Offset) -> Result<Vec<Pair>> {
    let late = f64::from(offset.milliseconds) / 1000.0;
    let frames: Vec<&ShownLatent> = stretches.iter().flatten().filter(|f| speech.within(f.time - late)).collect();
    let windows: Vec<Vec<f32>> = frames.iter().map(|f| speech.window(f.time - late)).collect();
    let latents = speech.latents(&windows)?;
    let both = frames.into_iter().zip(latents);
    Ok(both.map(|(frame, heard)| Pair { heard, seen: frame.latent.clone() }).collect())
}
