//! Sessions: graphs that live as long as somebody needs them, and never take one another down.

mod capacity;
pub(crate) mod clock;
mod encoder;
mod frame_meter;
mod graphs;
mod jitter_buffer;
mod links;
mod manager;
mod mix;
mod pacer;
mod peers;
mod reach;
mod rollout;
mod running_graph;
#[allow(clippy::module_inception, reason = "the type's own module")]
mod session;
mod spec;
mod status;
mod timemap;
mod track;

pub use self::{
    encoder::{Chosen as ChosenEncoder, Encoder},
    manager::{Manager, OnPublish, Settings},
    peers::Peers,
    rollout::{Report as EngineReport, RolledBack, VersionReport},
    session::{Session, voices::VoiceName},
    spec::{SessionSpec, Video, Voice},
    status::{Capacity, EngineStage, Phase, Resource, ResourceKind, SecondVoice, Status},
};

use crate::tenants::Exceeded;

/// Why a request to a session or the manager was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such session (404).
    #[error("there is no session `{0}`")]
    Unknown(String),
    /// There is no such engine (404).
    #[error("there is no engine `{0}`")]
    UnknownEngine(String),
    /// The id is taken, or the place already has a source (409).
    #[error("{0}")]
    Conflict(String),
    /// A value is wrong; the message names it and what is allowed (422).
    #[error("{0}")]
    Invalid(String),
    /// The machine cannot hold it in real time (503).
    #[error("{0}")]
    Full(String),
    /// The session has nothing to show yet: no source has come (409).
    #[error("{0}")]
    NotReady(String),
    /// The quota of its tenant does not allow it (429).
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// Its graph does not start (500).
    #[error("{0}")]
    Failed(String),
}
