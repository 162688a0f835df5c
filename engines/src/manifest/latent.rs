use serde::Deserialize;

use crate::{
    audio::MOST_DIMS,
    schedule::{Guided, STEPS, Sampler, ScheduleConfig},
};

/// Most frames of a clip: the published motion modules have places for so many.
const LONGEST: usize = 24;

/// Which network turns latents into pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoder {
    /// The decoder of the autoencoder, the part `decoder`.
    #[default]
    Vae,
    /// The part `taesd`, where it was imported: a tiny decoder for about a twentieth of the cost, with less detail.
    Taesd,
}

impl Decoder {
    /// The part that it plays among an engine's files.
    pub fn part(self) -> &'static str {
        match self {
            Self::Vae => "decoder",
            Self::Taesd => "taesd",
        }
    }
}

/// The networks of the family `latentsync`: `whisper`, `encoder`, `unet`, `decoder` and, where it was imported, `taesd`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentSyncSection {
    /// Pixels of a side of its face.
    pub side: usize,
    /// Frames of a clip.
    pub frames: usize,
    /// Frames a second that it was trained at.
    pub frame_rate: f32,
    /// What latents of the autoencoder are multiplied by before the U-Net sees them.
    pub latent_scale: f32,
    #[serde(default)]
    pub decoder: Decoder,
    #[serde(default)]
    pub live: LiveSection,
    pub sound: SoundSection,
}

/// How LatentSync runs, but where it runs as its published program does: that denoises as the manifest's `scheduler` says, in
/// clips of `frames` that do not overlap.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveSection {
    /// Frames of a clip, and those of them that are new: it begins with frames of the clip before.
    pub clip: usize,
    pub hop: usize,
    pub steps: usize,
    pub sampler: Sampler,
    /// Scale of the guidance; that of the `scheduler` where it is left out.
    pub guidance: Option<f32>,
    /// Which steps are guided.
    pub guided: Guided,
}

impl Default for LiveSection {
    fn default() -> Self {
        Self { clip: 8, hop: 4, steps: 2, sampler: Sampler::Ddim, guidance: None, guided: Guided::Last }
    }
}

impl LiveSection {
    /// The schedule of a stream, of a checkpoint whose own is `own`.
    pub fn schedule(&self, own: &ScheduleConfig) -> ScheduleConfig {
        ScheduleConfig {
            kind: self.sampler,
            spacing: self.sampler.few_steps().unwrap_or_default(),
            steps: self.steps,
            guidance: self.guidance.unwrap_or(own.guidance),
            guided: self.guided,
            ..own.clone()
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        within("live.clip", self.clip, 1, LONGEST)?;
        within("live.hop", self.hop, 1, self.clip)?;
        within("live.steps", self.steps, *STEPS.start(), *STEPS.end())?;
        if !matches!(self.sampler, Sampler::Ddim | Sampler::Dpm) {
            return Err(("live.sampler".into(), "is neither ddim nor dpm-solver++".into()));
        }
        match self.guidance {
            Some(scale) if !(0.0..=20.0).contains(&scale) => {
                Err(("live.guidance".into(), format!("{scale} is outside 0..20")))
            }
            _ => Ok(()),
        }
    }
}

/// What MuseTalk puts back of its picture: in both the lower half of a face without the nose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// Down to a little below the chin, and without the outer cheeks, which then stay still.
    #[default]
    Jaw,
    /// As far as the face goes.
    Face,
}

/// The networks of the family `musetalk`: `whisper`, `encoder`, `unet`, `decoder` and, where it was imported, `taesd`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MuseTalkSection {
    /// Pixels of a side of its face.
    pub side: usize,
    /// Frames a second that it was trained at.
    pub frame_rate: f32,
    /// As [`LatentSyncSection::latent_scale`].
    pub latent_scale: f32,
    #[serde(default)]
    pub decoder: Decoder,
    #[serde(default)]
    pub mask: Mask,
    pub sound: SoundSection,
    /// Sizes of a batch that it takes, ascending.
    pub batch_sizes: Vec<usize>,
}

/// What a frame hears of Whisper's encoder: moments 20 ms apart, and of each the states after convolutions and blocks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoundSection {
    /// Moments of a frame.
    pub moments: usize,
    /// States of a moment, and numbers of a state.
    pub states: usize,
    pub width: usize,
    /// Milliseconds of sound that the encoder is shown each time of a stream, 500 to 4000 in twenties.
    #[serde(default = "window_ms")]
    pub window_ms: usize,
    /// Moments that are new each time, 1 to 10, and those after them that it is shown besides, at most 20: how late a stream
    /// hears.
    #[serde(default = "new_moments")]
    pub rows: usize,
    #[serde(default = "moments_ahead")]
    pub ahead: usize,
}

fn window_ms() -> usize {
    SoundSection::WINDOW_MS
}
fn new_moments() -> usize {
    SoundSection::ROWS
}
fn moments_ahead() -> usize {
    SoundSection::AHEAD
}

impl SoundSection {
    /// How a stream hears where the manifest does not say: every 40 ms the last four seconds are shown, of which the last 120 ms
    /// are there for the moments before them alone. docs/latentsync.md has what other numbers cost, measured on Whisper's weights.
    pub const WINDOW_MS: usize = 4000;
    pub const ROWS: usize = 2;
    pub const AHEAD: usize = 6;

    fn check(&self) -> Result<(), (String, String)> {
        // Both families take ten, as their U-Nets were trained.
        within("sound.moments", self.moments, 10, 10)?;
        within("sound.states", self.states, 1, 64)?;
        within("sound.width", self.width, 1, 4096)?;
        let numbers = self.states * self.width;
        if numbers > MOST_DIMS {
            let cause =
                format!("{} of {} numbers are {numbers} a moment, of {MOST_DIMS} at most", self.states, self.width);
            return Err(("sound.states".into(), cause));
        }
        within("sound.rows", self.rows, 1, 10)?;
        within("sound.ahead", self.ahead, 0, 20)?;
        within("sound.window_ms", self.window_ms, 500, 4000)?;
        if !self.window_ms.is_multiple_of(20) {
            return Err(("sound.window_ms".into(), format!("{} is not a multiple of 20", self.window_ms)));
        }
        Ok(())
    }
}

impl LatentSyncSection {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        check_picture(self.side, self.frame_rate, self.latent_scale)?;
        within("frames", self.frames, 1, LONGEST)?;
        self.live.check()?;
        self.sound.check()
    }
}

impl MuseTalkSection {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        check_picture(self.side, self.frame_rate, self.latent_scale)?;
        self.sound.check()
    }
}

/// Latents are halved three times, pixels as often before.
fn check_picture(side: usize, frame_rate: f32, scale: f32) -> Result<(), (String, String)> {
    within("side", side, 64, 1024)?;
    if !side.is_multiple_of(64) {
        return Err(("side".into(), format!("{side} is not a multiple of 64")));
    }
    if !(1.0..=240.0).contains(&frame_rate) {
        return Err(("frame_rate".into(), format!("{frame_rate} is outside 1..240")));
    }
    if !(scale > 0.0 && scale <= 100.0) {
        return Err(("latent_scale".into(), format!("{scale} is not above 0 and at most 100")));
    }
    Ok(())
}

fn within(key: &str, value: usize, least: usize, most: usize) -> Result<(), (String, String)> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err((key.into(), format!("{value} is outside {least}..{most}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_any_published_whisper_is_taken_and_no_larger_one() {
        let of = |states: usize, width: usize| {
            let section: SoundSection =
                toml::from_str(&format!("moments = 10\nstates = {states}\nwidth = {width}")).unwrap();
            section.check()
        };
        // Tiny, small and large.
        for (states, width) in [(5, 384), (13, 768), (33, 1280)] {
            assert_eq!(of(states, width), Ok(()));
        }
        let (key, cause) = of(64, 1280).unwrap_err();
        assert!(key == "sound.states" && cause.contains("81920"), "{key} {cause}");
    }
}
