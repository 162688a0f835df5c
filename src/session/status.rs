//! What a session and the machine say about themselves.

use std::collections::BTreeMap;

use gstlipstream::{stats::Times, sync::LipSyncStats, synccheck::Change};
use lipstream_engines::{engine::StageStats, stats::Totals};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    clock::{self, MS, Nanos, SECOND},
    jitter_buffer::Sent,
};
use crate::{link::LinkStatus, marks::Mark, untouched};

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No graph runs; it starts with the first viewer.
    Idle,
    /// The graph runs and waits for a publisher; it shows the last picture where there was one.
    Waiting,
    Running,
    /// A fault stopped the graph; it starts again after a pause.
    Restarting,
}

/// A moment of a session. Times are in milliseconds, counters since the session was created.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Status {
    pub id: String,
    pub graph: String,
    /// The node of the cluster that has it; null where there is no cluster.
    pub node: Option<String>,
    pub phase: Option<Phase>,
    /// Why the last graph stopped, or what the session waits for.
    pub reason: Option<String>,
    /// The engine in use, `NAME@VERSION` where it has versions; null where no graph runs.
    pub engine: Option<String>,
    /// Why that is not the one that it is to have.
    pub engine_reason: Option<String>,
    pub avatar: Option<String>,
    pub clip: Option<String>,
    pub clips: Vec<String>,
    /// Parameters of the graph that are set; the others have the graph's defaults.
    pub params: BTreeMap<String, String>,
    /// What may be done with it.
    pub video: Option<super::Video>,
    pub voice: Option<super::Voice>,
    pub publishing: bool,
    pub publishing_voice: bool,
    /// Who publishes, or who did last.
    pub source: Option<Source>,
    pub voice_source: Option<Source>,
    /// What says in its streams that a machine made a part of the picture.
    pub marks: Vec<Mark>,
    pub viewers: usize,
    pub width: u32,
    pub height: u32,
    /// Measured over the last second.
    pub fps: f64,
    /// Seconds since the graph started.
    pub uptime: f64,
    pub frames: u64,
    /// Held: the last frame again, because the publisher sent none. Late: shown with an older mouth. Dropped: never shown.
    pub frames_held: u64,
    pub frames_late: u64,
    pub frames_dropped: u64,
    /// Frames that keep their own mouth although another was wanted, by reason: `no-face`, `cut-off` (by the picture's edge),
    /// `too-small`, `turned-away`, `covered`, `unclear`, `late`. Reasons that there were none of are left out.
    pub frames_untouched: BTreeMap<String, u64>,
    /// Sample periods of silence, at 48 kHz, because the publisher sent no sound.
    pub samples_missing: u64,
    /// From voice in to lips out, inside the graph.
    pub latency_ms: f64,
    /// From a source's sound to its place in the output, for its jitter; 0 where there is no live source.
    pub source_delay_ms: f64,
    /// The 99th percentile of the time between frames that leave.
    pub interval_p99_ms: f64,
    /// How much later a picture is shown than the sound that belongs to it, in the graph; frames are placed by their
    /// timestamps exactly, so this is what the resampler of the sound has still to correct.
    pub av_offset_ms: f64,
    /// How fast the source's clock is against ours, in parts per million.
    pub skew_ppm: f64,
    /// Frames of 40 ms by which the mouth that is made is later than the voice, by the sync check; null before eight seconds of
    /// speech, and where lips and voice do not tell. What it says is right within one frame.
    pub sync_offset: Option<i64>,
    /// How much better they agree there than elsewhere, 0..1: above 0.1 in most faces.
    pub sync_confidence: Option<f64>,
    /// The same of the source's own lips: more than one frame means that its picture and sound are apart, about which
    /// nothing is done. Null where its voice is not the one that is heard.
    pub source_sync_offset: Option<i64>,
    pub source_sync_confidence: Option<f64>,
    /// The number of the face whose mouth is made, for `track:N`; of the largest where several are. Null where there is none.
    pub speaker_track: Option<u64>,
    /// With the speaker `auto`, by how much its lips follow the sound better than those of the next face, 0..1; null before that is known.
    pub speaker_confidence: Option<f64>,
    /// Times that the mouth was off for long and was corrected, and by how much later features are taken for that.
    pub sync_corrections: u64,
    pub sync_shift_ms: f64,
    pub speaking: bool,
    pub speech_queued_ms: f64,
    /// Its second voice; null where it has one only.
    pub voice_b: Option<SecondVoice>,
    /// Of the last interruption: until the mouth was at rest and the queue empty.
    pub flush_ms: Option<f64>,
    pub restarts: u64,
    pub video_bitrate: u32,
    pub face: bool,
    /// Stages of the graph with the 50th, 95th and 99th percentile of their time a frame.
    pub stages: Vec<StageTimes>,
    /// Stages of the engine, counted over all sessions that share it.
    pub engine_stages: Vec<EngineStage>,
    pub pushes: Vec<LinkStatus>,
    /// The URL that it reads.
    pub pull: Option<LinkStatus>,
}

/// What a source sends, before it is brought to the session's size and rate. What is not known is null.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Source {
    /// `RTMP 192.0.2.7:51234`, `a WHIP client`, ...
    pub who: String,
    pub video_codec: Option<String>,
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// By the source's own word; measured where it says none.
    pub fps: Option<f64>,
    pub audio_codec: Option<String>,
    pub sample_rate: Option<u32>,
    pub channels: Option<u32>,
    /// Since the last picture or sound of it came.
    pub seen_ms_ago: Option<f64>,
}

impl Source {
    /// `interval` is the measured time between frames.
    pub(super) fn new(sent: Sent, interval: Option<Nanos>) -> Self {
        let said = sent.picture.map(|picture| picture.fps).filter(|fps| fps.0 > 0);
        let measured = || Some(SECOND as f64 / interval.filter(|interval| *interval > 0)? as f64);
        Self {
            who: sent.who,
            video_codec: sent.video_codec,
            width: sent.picture.map(|picture| picture.width),
            height: sent.picture.map(|picture| picture.height),
            fps: said.map(|(frames, seconds)| f64::from(frames) / f64::from(seconds)).or_else(measured),
            audio_codec: sent.audio_codec,
            sample_rate: sent.sound.map(|(rate, _)| rate),
            channels: sent.sound.map(|(_, channels)| channels),
            seen_ms_ago: sent.seen.map(|seen| (clock::now() - seen) as f64 / MS as f64),
        }
    }
}

/// A moment of a session's second voice, of which the session's own `speaking`, `speech_queued_ms` and so on do not tell.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SecondVoice {
    pub speaking: bool,
    pub speech_queued_ms: f64,
    pub publishing: bool,
    /// Who publishes it, or who did last.
    pub source: Option<Source>,
    /// Sample periods of silence, at 48 kHz, because who publishes it sent no sound.
    pub samples_missing: u64,
    /// The number of the face whose mouth it moves; null where there is none.
    pub speaker_track: Option<u64>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Stage)]
pub struct StageTimes {
    pub name: String,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    /// For a histogram, since the graph started.
    #[serde(skip)]
    pub totals: Totals,
}

/// One batched evaluation of an engine's network.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EngineStage {
    /// `encode`, `step`, `forward`, `decode` or `refine`.
    pub name: String,
    /// Evaluations, and frames or steps of frames in them.
    pub batches: u64,
    pub items: u64,
    /// The median and the 95th percentile of an evaluation's time.
    pub p50_ms: f64,
    pub p95_ms: f64,
}

impl EngineStage {
    pub fn of(stats: &StageStats) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        Self {
            name: stats.kind.name().to_owned(),
            batches: stats.batches,
            items: stats.items,
            p50_ms: ms(stats.time.p50),
            p95_ms: ms(stats.time.p95),
        }
    }
}

/// What the machine holds. Cores are CPU seconds a second.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Capacity {
    pub sessions: usize,
    pub cores: f64,
    pub cores_used: f64,
    /// What one more 720p25 session would cost, measured.
    pub cores_per_session: f64,
    /// 720p25 sessions that still fit.
    pub sessions_left: usize,
    pub scarcest: ResourceKind,
    /// All that one more 720p25 session would share.
    pub resources: Vec<Resource>,
    /// Why the next one would be refused.
    pub full: Option<String>,
}

/// What sessions share; the scarcest of them ends first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceKind {
    /// CPU seconds a second.
    #[default]
    Cores,
    /// Seconds of a card's time a second.
    GpuTime,
    /// Bytes of a card's memory.
    GpuMemory,
}

impl ResourceKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::GpuTime => "gpu-time",
            Self::GpuMemory => "gpu-memory",
        }
    }
}

/// Something that sessions share: CPU seconds a second, seconds of a card's time a second, or bytes of its memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    pub kind: ResourceKind,
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// By the prices of the sessions that run; of memory what all programs have taken.
    pub used: f64,
    /// What sessions may use.
    pub room: f64,
    /// What one more 720p25 session would add.
    pub per_session: f64,
}

/// Takes what the bin `lipsync` says about itself.
pub(super) fn read_stats(status: &mut Status, stats: &LipSyncStats) {
    let ms = |us: u64| us as f64 / 1e3;
    status.frames_late += stats.frames.late;
    untouched::add(&mut status.frames_untouched, untouched::of(&stats.untouched));
    let check = &stats.check;
    (status.sync_offset, status.sync_confidence) = (check.sync.offset, check.sync.confidence);
    (status.speaker_track, status.speaker_confidence) = (stats.denoise.speaker.track, stats.denoise.speaker.confidence);
    (status.source_sync_offset, status.source_sync_confidence) = (check.source.offset, check.source.confidence);
    status.sync_corrections += check.corrections;
    status.sync_shift_ms = check.shift as f64;
    status.stages.extend(stats.times().map(|(_, name, Times { percentiles, totals })| StageTimes {
        name: name.to_owned(),
        p50_ms: ms(percentiles.p50),
        p95_ms: ms(percentiles.p95),
        p99_ms: ms(percentiles.p99),
        totals: *totals,
    }));
    status.engine_stages.extend(stats.denoise.stages.0.iter().map(|stage| EngineStage {
        name: stage.name.clone(),
        batches: stage.batches,
        items: stage.items,
        p50_ms: ms(stage.p50),
        p95_ms: ms(stage.p95),
    }));
}

/// Writes to the log what the sync check of a session has told.
pub(super) fn tell_sync(id: &str, change: Change) {
    let apart = |frames: i32| format!("{} ms {}", frames.abs() * 40, if frames > 0 { "late" } else { "early" });
    match change {
        Change::OutOfSync { frames } => {
            tracing::warn!("session `{id}`: the mouth is {} for its voice", apart(frames));
        }
        Change::InSync => tracing::info!("session `{id}`: mouth and voice are in sync again"),
        Change::Corrected { frames, shift } => tracing::warn!(
            "session `{id}`: the mouth was {} for long; features are taken {} ms later now",
            apart(frames),
            shift * 40
        ),
        Change::Beyond { frames } => tracing::warn!(
            "session `{id}`: the mouth is {} and corrected as far as it may be; `feature-shift` of the graph's lipsync shifts it further",
            apart(frames)
        ),
        Change::SourceOutOfSync { frames } => tracing::warn!(
            "session `{id}`: the source's own picture is {} for its sound, which is left as it is; delay the sound or the picture \
             where they are made",
            apart(frames)
        ),
        Change::SourceInSync => tracing::info!("session `{id}`: the source's picture and sound are in sync again"),
    }
}
