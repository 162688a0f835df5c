use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Decoder, Manifest};
use crate::schedule::ScheduleConfig;

/// What stages of a frame cost, in GFLOP (a multiply-add counts two).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageCosts {
    /// The features of its sound, where a network computes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_end: Option<f32>,
    /// Pixels to latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode: Option<f32>,
    /// One step of denoising without guidance; a guided one costs twice as much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<f32>,
    /// One pass from conditions to a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<f32>,
    /// Latents to pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<f32>,
    /// The same by the tiny autoencoder, where it is used in place of the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_tiny: Option<f32>,
    /// Repairs a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refine: Option<f32>,
}

impl StageCosts {
    /// Each by its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, f32)> {
        let Self { front_end, encode, step, forward, decode, decode_tiny, refine } = *self;
        [
            ("front_end", front_end),
            ("encode", encode),
            ("step", step),
            ("forward", forward),
            ("decode", decode),
            ("decode_tiny", decode_tiny),
            ("refine", refine),
        ]
        .into_iter()
        .filter_map(|(name, cost)| Some((name, cost?)))
    }

    /// Of a frame whose latent is denoised by so many evaluations, more where clips share frames, and decoded by the tiny autoencoder or not.
    pub fn total(&self, evaluations: f32, tiny: bool) -> f32 {
        let Self { front_end, encode, step, forward, decode, decode_tiny, refine } = *self;
        let decode = if tiny { decode_tiny } else { decode };
        let once: f32 = [front_end, encode, forward, decode, refine].into_iter().flatten().sum();
        once + step.unwrap_or(0.0) * evaluations
    }
}

/// What an evaluation takes, worked out from the graphs when they were written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostSection {
    pub gflop: StageCosts,
    /// Whether the graphs hold fp16 weights and compute in fp16; CPUs widen both.
    #[serde(default)]
    pub fp16: bool,
    /// Most megabytes (10^6 bytes) of values that one row of a batch holds at a time, by the part of its network.
    #[serde(default)]
    pub held_mb: BTreeMap<String, f32>,
}

/// Largest cost in GFLOP and in megabytes that is believed.
const MOST: f32 = 1e7;

impl CostSection {
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), (String, String)> {
        let costs = self.gflop.named().map(|(stage, cost)| (format!("gflop.{stage}"), cost));
        let held = self.held_mb.iter().map(|(part, megabytes)| (format!("held_mb.{part}"), *megabytes));
        if let Some((key, cost)) = costs.chain(held).find(|(_, cost)| !(0.0..=MOST).contains(cost)) {
            return Err((key, format!("{cost} is outside 0..{MOST}")));
        }
        if let Some(part) = self.held_mb.keys().find(|part| !manifest.files.contains_key(*part)) {
            return Err((format!("held_mb.{part}"), "is of no file of the engine".into()));
        }
        if self.gflop.step.is_some() && manifest.scheduler.is_none() {
            return Err((
                "gflop.step".into(),
                format!("is of no use: the family `{}` does not denoise", manifest.family),
            ));
        }
        Ok(())
    }
}

impl Manifest {
    /// Cost of one video frame of a stream in GFLOP (a multiply-add counts two), of `steps` steps of denoising or of as many as it
    /// says.
    pub fn frame_gflop(&self, steps: Option<usize>) -> f32 {
        let Some(cost) = &self.cost else { return self.gflop };
        let of = |config: &ScheduleConfig| config.evaluations(steps.unwrap_or(config.steps)) as f32;
        let evaluations = |own: &ScheduleConfig| match self.latentsync.as_ref().map(|section| &section.live) {
            // Frames that are known are evaluated again with those that are new.
            Some(live) => of(&live.schedule(own)) * live.clip as f32 / live.hop as f32,
            None => of(own),
        };
        let decoders = [self.latentsync.as_ref().map(|s| s.decoder), self.musetalk.as_ref().map(|s| s.decoder)];
        cost.gflop.total(self.scheduler.as_ref().map_or(0.0, evaluations), decoders.contains(&Some(Decoder::Taesd)))
    }
}
