use std::collections::BTreeMap;

use serde::Deserialize;

use super::{AudioSection, CostSection, Decoder, LatentSyncSection, MuseTalkSection};
use crate::{Error, Result, geometry::Alignment, schedule::ScheduleConfig};

/// Which code drives the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Face detector and landmarks.
    Tracker,
    /// Mouth motion from speech, rendered from the person's own frames.
    Compact,
    /// Which mouths and which sounds belong together.
    Expert,
    /// What is before a face.
    Occlusion,
    /// Makes a better face of a face.
    Enhancer,
    /// The lower half of a face from speech and the face itself (Prajwal et al. 2020, arXiv 2008.10010).
    Wav2Lip,
    /// SyncTalk_2D and Ultralight-Digital-Human: one person's mouth from speech and the masked face.
    SyncTalk2d,
    /// Clips of faces, denoised in the latents of their pictures (Li et al. 2024, arXiv 2412.09262).
    LatentSync,
    /// Faces, painted in the latents of their pictures (Zhang et al. 2024, arXiv 2410.10122).
    MuseTalk,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tracker => "tracker",
            Self::Compact => "compact",
            Self::Expert => "expert",
            Self::Occlusion => "occlusion",
            Self::Enhancer => "enhancer",
            Self::Wav2Lip => "wav2lip",
            Self::SyncTalk2d => "synctalk2d",
            Self::LatentSync => "latentsync",
            Self::MuseTalk => "musetalk",
        })
    }
}

/// `engine.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: String,
    pub family: Family,
    pub version: String,
    /// SPDX expression of the weights' licence.
    pub licence: String,
    pub description: String,
    /// Cost of one video frame at the default number of steps, in GFLOP (a multiply-add counts two): see
    /// [`frame_gflop`](Self::frame_gflop).
    pub gflop: f32,
    /// The same by stage, and memory.
    pub cost: Option<CostSection>,
    /// Model files by the part that they play.
    pub files: BTreeMap<String, FileEntry>,
    pub geometry: GeometrySection,
    /// What the engine hears; `compact` alone has it.
    pub audio: Option<AudioSection>,
    /// What it denoises; `compact` alone has it.
    pub latent: Option<LatentSection>,
    /// How it denoises; `compact` and `latentsync` have it.
    pub scheduler: Option<ScheduleConfig>,
    pub wav2lip: Option<Wav2LipSection>,
    pub synctalk2d: Option<SyncTalk2dSection>,
    pub latentsync: Option<LatentSyncSection>,
    pub musetalk: Option<MuseTalkSection>,
    /// The files that it was imported from.
    #[serde(default)]
    pub sources: Vec<FileEntry>,
}

/// The network `generator` of the family `wav2lip`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wav2LipSection {
    /// Pixels of a side of its picture.
    pub side: usize,
    /// Names of its ports.
    #[serde(default)]
    pub ports: Wav2LipPorts,
    /// Sizes of a batch that it takes, ascending.
    pub batch_sizes: Vec<usize>,
}

/// What the ports of a Wav2Lip network are called.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wav2LipPorts {
    /// Mel, `[batch, 1, 80, 16]`.
    pub audio: String,
    /// `[batch, 6, side, side]`
    pub face: String,
    /// `[batch, 3, side, side]`
    pub picture: String,
}

impl Default for Wav2LipPorts {
    fn default() -> Self {
        Self { audio: "audio".into(), face: "face".into(), picture: "picture".into() }
    }
}

/// The networks `unet` and, with the features `ave`, `ave` of the family `synctalk2d`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncTalk2dSection {
    /// Pixels of a side of its picture: 160 or 320.
    pub side: usize,
    pub features: Features,
    pub batch_sizes: Vec<usize>,
}

/// What computes the audio features of a SyncTalk_2D network. The weights for `ave` and `hubert` have equal shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Features {
    /// SyncTalk_2D's audio-visual encoder: `[32, 16, 16]`.
    Ave,
    /// HuBERT: `[32, 32, 32]`, of Ultralight `[16, 32, 32]`.
    Hubert,
    /// WeNet: `[256, 16, 32]`.
    Wenet,
    /// The front-end of `compact`: 32 features of 128 numbers, 20 ms apart, as `[16, 16, 16]`.
    Compact,
}

impl Features {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ave => "ave",
            Self::Hubert => "hubert",
            Self::Wenet => "wenet",
            Self::Compact => "compact",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name of a file beside the manifest.
    pub path: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Weights that lie beside a network.
    pub data: Option<DataEntry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataEntry {
    /// Name of a file beside the manifest, under which the network's graph looks for it.
    pub path: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeometrySection {
    /// Side of the square crop in pixels.
    pub crop: usize,
    /// How a face is brought into the crop.
    pub alignment: Alignment,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentSection {
    /// Shape of one latent.
    pub shape: Vec<usize>,
    /// Earlier latents that a frame is conditioned on.
    pub past: usize,
    /// Coefficient of the AR(1) noise of a stream, 0..1.
    pub noise_correlation: f32,
    /// Standard deviation of the initial noise.
    pub temperature: f32,
    /// Batch sizes that are compiled, ascending.
    pub batch_sizes: Vec<usize>,
}

impl Manifest {
    /// Reads and checks a manifest; `origin` is what errors call it.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        let refuse = |key: &str, cause: String| Error::Manifest { origin: origin.into(), key: key.into(), cause };
        let table = toml::Deserializer::parse(text).map_err(|e| refuse("(syntax)", first_line(e.message())))?;
        let manifest: Self = serde_path_to_error::deserialize(table).map_err(|e| {
            let key = e.path().to_string();
            refuse(&key, first_line(e.inner().message()))
        })?;
        manifest.check().map_err(|(key, cause)| refuse(&key, cause))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), (String, String)> {
        self.check_parts()?;
        let cost = self.cost.as_ref().map_or(Ok(()), |cost| cost.check(self));
        cost.map_err(|(key, cause)| (format!("cost.{key}"), cause))
    }

    fn check_parts(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, cause: String| Err((key.to_owned(), cause));
        let name_ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(name_ok) {
            return fail("name", format!("`{}` must be 1 to 64 of a-z, 0-9 and -", self.name));
        }
        if !(self.gflop.is_finite() && self.gflop >= 0.0) {
            return fail("gflop", format!("{} is not a cost", self.gflop));
        }
        for (part, file) in &self.files {
            let key = format!("files.{part}");
            check_file(&key, &file.path, &file.sha256)?;
            if let Some(data) = &file.data {
                check_file(&format!("{key}.data"), &data.path, &data.sha256)?;
            }
        }
        if !(32..=1024).contains(&self.geometry.crop) {
            return fail("geometry.crop", format!("{} is outside 32..1024", self.geometry.crop));
        }
        self.geometry.alignment.check().map_err(|cause| ("geometry.alignment".to_owned(), cause))?;
        let wanted: &[&str] = match self.family {
            Family::Tracker => &["detector", "landmarks"],
            Family::Compact => &["audio", "motion", "basis"],
            Family::Expert => &["lips", "voice"],
            Family::Occlusion => &["mask"],
            Family::Enhancer => &["enhance"],
            Family::Wav2Lip => &["generator"],
            Family::SyncTalk2d => &["unet"],
            Family::LatentSync | Family::MuseTalk => &["whisper", "encoder", "unet", "decoder"],
        };
        for part in wanted {
            if !self.files.contains_key(*part) {
                return fail(&format!("files.{part}"), format!("is missing: the family `{}` needs it", self.family));
            }
        }
        let alternatives = self.audio.iter().flat_map(|audio| &audio.alternatives);
        if let Some(lost) = alternatives.map(|a| &a.motion).find(|part| !self.files.contains_key(*part)) {
            return fail("audio.alternatives.motion", format!("`{lost}` is none of `files`"));
        }
        let hearings = self.audio.iter().flat_map(|audio| &audio.alternatives).filter_map(|a| a.hearing.as_ref());
        if let Some(lost) = hearings.map(|hearing| &hearing.audio).find(|part| !self.files.contains_key(*part)) {
            return fail("audio.alternatives.hearing.audio", format!("`{lost}` is none of `files`"));
        }
        let decoders = [self.latentsync.as_ref().map(|s| s.decoder), self.musetalk.as_ref().map(|s| s.decoder)];
        if decoders.contains(&Some(Decoder::Taesd)) && !self.files.contains_key("taesd") {
            let cause = "is missing: the decoder `taesd` needs it; import the engine with TAESD's folder, or say `vae`";
            return fail("files.taesd", cause.into());
        }
        let sections = [
            ("audio", self.audio.is_some(), &[Family::Compact][..]),
            ("latent", self.latent.is_some(), &[Family::Compact]),
            ("scheduler", self.scheduler.is_some(), &[Family::Compact, Family::LatentSync]),
            ("wav2lip", self.wav2lip.is_some(), &[Family::Wav2Lip]),
            ("synctalk2d", self.synctalk2d.is_some(), &[Family::SyncTalk2d]),
            ("latentsync", self.latentsync.is_some(), &[Family::LatentSync]),
            ("musetalk", self.musetalk.is_some(), &[Family::MuseTalk]),
        ];
        if let Some((key, _, of)) = sections.iter().find(|(_, there, of)| *there && !of.contains(&self.family)) {
            return fail(key, format!("belongs to the family `{}`, and this is `{}`", of[0], self.family));
        }
        let missing = |key: &str| (key.to_owned(), format!("is missing: the family `{}` needs it", self.family));
        match self.family {
            Family::Compact => (),
            Family::Tracker | Family::Expert | Family::Occlusion | Family::Enhancer => return Ok(()),
            Family::Wav2Lip => {
                let section = self.wav2lip.as_ref().ok_or_else(|| missing("wav2lip"))?;
                check_sides(section.side, &[96, 256], &section.batch_sizes)
                    .map_err(|(key, cause)| (format!("wav2lip.{key}"), cause))?;
                return Ok(());
            }
            Family::SyncTalk2d => {
                let section = self.synctalk2d.as_ref().ok_or_else(|| missing("synctalk2d"))?;
                check_sides(section.side, &[160, 320], &section.batch_sizes)
                    .map_err(|(key, cause)| (format!("synctalk2d.{key}"), cause))?;
                if section.features == Features::Ave && !self.files.contains_key("ave") {
                    return fail("files.ave", "is missing: the features `ave` need it".into());
                }
                return Ok(());
            }
            Family::LatentSync => {
                let section = self.latentsync.as_ref().ok_or_else(|| missing("latentsync"))?;
                section.check().map_err(|(key, cause)| (format!("latentsync.{key}"), cause))?;
                let scheduler = self.scheduler.as_ref().ok_or_else(|| missing("scheduler"))?;
                return scheduler.check().map_err(|(key, cause)| (format!("scheduler.{key}"), cause));
            }
            Family::MuseTalk => {
                let section = self.musetalk.as_ref().ok_or_else(|| missing("musetalk"))?;
                section.check().map_err(|(key, cause)| (format!("musetalk.{key}"), cause))?;
                return check_batches(&section.batch_sizes).map_err(|(key, cause)| (format!("musetalk.{key}"), cause));
            }
        }
        self.audio.as_ref().ok_or_else(|| missing("audio"))?.check()?;
        self.latent.as_ref().ok_or_else(|| missing("latent"))?.check()?;
        let scheduler = self.scheduler.as_ref().ok_or_else(|| missing("scheduler"))?;
        scheduler.check().map_err(|(key, cause)| (format!("scheduler.{key}"), cause))
    }
}

/// Whether a path is of a file beside the manifest, and a hash is one.
fn check_file(key: &str, path: &str, sha256: &str) -> Result<(), (String, String)> {
    if path.is_empty() || path.starts_with('.') || path.contains(['/', '\\', '\0']) {
        return Err((format!("{key}.path"), format!("`{path}` must be a file beside the manifest")));
    }
    if sha256.len() != 64 || !sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
        return Err((format!("{key}.sha256"), "must be 64 lower-case hexadecimal digits".into()));
    }
    Ok(())
}

/// Whether the side is one that the family has, and batches ascend from 1.
fn check_sides(side: usize, known: &[usize], batch_sizes: &[usize]) -> Result<(), (&'static str, String)> {
    if !known.contains(&side) {
        return Err(("side", format!("{side} is none of {known:?}")));
    }
    check_batches(batch_sizes)
}

fn check_batches(sizes: &[usize]) -> Result<(), (&'static str, String)> {
    let ascending = sizes.windows(2).all(|w| w[0] < w[1]);
    if sizes.first() != Some(&1) || !ascending || sizes.last() > Some(&256) {
        return Err(("batch_sizes", format!("{sizes:?} must ascend from 1 to at most 256")));
    }
    Ok(())
}

impl LatentSection {
    /// Numbers in one latent.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, cause: String| Err((format!("latent.{key}"), cause));
        let size = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
        if self.shape.is_empty() || !(1..=1 << 22).contains(&size) {
            return fail("shape", format!("{:?} must hold 1 to 4194304 numbers", self.shape));
        }
        if self.past > 16 {
            return fail("past", format!("{} is outside 0..16", self.past));
        }
        if !(0.0..1.0).contains(&self.noise_correlation) {
            return fail("noise_correlation", format!("{} is outside 0..1", self.noise_correlation));
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            return fail("temperature", format!("{} is outside 0..2", self.temperature));
        }
        check_batches(&self.batch_sizes).map_err(|(key, cause)| (format!("latent.{key}"), cause))
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}
