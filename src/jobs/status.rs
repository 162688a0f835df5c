use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Container;
use crate::media::Notice;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RenderState)]
pub enum Phase {
    Queued,
    Running,
    /// The result can be fetched.
    Done,
    Failed,
    Cancelled,
}

impl Phase {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What the API says about a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Render)]
pub struct Status {
    pub id: String,
    pub state: Phase,
    /// Done so far, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    pub progress: f32,
    /// Frames a second that are made of it, while it is rendered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// Until it is done, while it is rendered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    /// Jobs that are rendered before this one; 0 for one that is not queued.
    pub ahead: usize,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub container: Container,
    /// Seconds since 1970.
    pub created: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<f64>,
    /// Of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What was chosen, converted or missing in the inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

impl Status {
    /// Of a job that has just come and waits for `ahead` others.
    pub fn queued(id: String, container: Container, ahead: usize) -> Self {
        Self {
            id,
            state: Phase::Queued,
            progress: 0.0,
            fps: None,
            seconds_left: None,
            ahead,
            error: None,
            container,
            created: now(),
            started: None,
            finished: None,
            seconds: None,
            frames: None,
            bytes: None,
            notices: Vec::new(),
        }
    }
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
