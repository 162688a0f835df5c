//! The words of the socket, as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a client says. Fields that are not listed are left alone: clients of other versions send more.
#[derive(Debug, PartialEq, Deserialize, ToSchema)]
#[serde(tag = "type")]
#[schema(as = AgentCommand)]
pub enum Command {
    /// Sound of what is to be said: 16-bit samples of one channel at 24 kHz, lower byte first, in base64. At most 1 MiB a
    /// message.
    #[serde(rename = "agent.speak")]
    Speak { audio: String, event_id: Option<String> },
    /// What is being said has no more sound.
    #[serde(rename = "agent.speak_end")]
    SpeakEnd { event_id: Option<String> },
    /// Drop all that is queued and close the mouth.
    #[serde(rename = "agent.interrupt")]
    Interrupt { event_id: Option<String> },
    /// The user speaks; told back as the agent's state.
    #[serde(rename = "agent.start_listening")]
    StartListening { event_id: Option<String> },
    #[serde(rename = "agent.stop_listening")]
    StopListening { event_id: Option<String> },
    /// The session is still wanted.
    #[serde(rename = "session.keep_alive")]
    KeepAlive { event_id: Option<String> },
}

impl Command {
    /// Reads a text message.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(super) fn event_id(&self) -> Option<&str> {
        match self {
            Self::Speak { event_id, .. }
            | Self::SpeakEnd { event_id }
            | Self::Interrupt { event_id }
            | Self::StartListening { event_id }
            | Self::StopListening { event_id }
            | Self::KeepAlive { event_id } => event_id.as_deref(),
        }
    }
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type")]
#[schema(as = AgentEvent)]
pub enum Report {
    #[serde(rename = "session.state_updated")]
    Session { state: SessionState },
    #[serde(rename = "agent.state_updated")]
    Agent { previous_state: AgentState, new_state: AgentState },
    /// The sound of a message is queued, as a whole.
    #[serde(rename = "agent.audio_buffer_appended")]
    Appended(Source),
    #[serde(rename = "agent.audio_buffer_committed")]
    Committed(Source),
    #[serde(rename = "agent.audio_buffer_cleared")]
    Cleared(Source),
    /// The first frame of the utterance has been shown.
    #[serde(rename = "agent.speak_started")]
    Started(Utterance),
    /// The frame of its last sample has been shown.
    #[serde(rename = "agent.speak_ended")]
    Ended(Utterance),
    /// It was cut, by an interruption or because no sound came; no `agent.speak_ended` follows.
    #[serde(rename = "agent.speak_interrupted")]
    SpeakInterrupted(Utterance),
    /// An interruption, whoever made it, is through: the queue is empty and the mouth at rest after so many milliseconds.
    #[serde(rename = "agent.interrupted")]
    Interrupted {
        /// Of the `agent.interrupt` that asked for it.
        event_id: Option<String>,
        ms: f64,
    },
    #[serde(rename = "error")]
    Error { error: Fault },
}

/// What an answer belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AgentSource)]
pub struct Source {
    pub event_id: Option<String>,
    /// The same.
    pub source_event_id: Option<String>,
}

impl Source {
    pub fn of(event_id: Option<&str>) -> Self {
        let event_id = event_id.map(str::to_owned);
        Self { source_event_id: event_id.clone(), event_id }
    }
}

/// An utterance, named by the `event_id` of its first `agent.speak`; made up where that has none.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AgentUtterance)]
pub struct Utterance {
    pub event_id: String,
    /// The same.
    pub source_event_id: String,
    pub task: Task,
    /// What was given to the graph of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spoken_ms: Option<f64>,
    /// Why it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<crate::speech::Cause>,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AgentTask)]
pub struct Task {
    /// The utterance's `event_id`.
    pub id: String,
}

impl Utterance {
    pub fn of(id: &str) -> Self {
        let own = || id.to_owned();
        Self { event_id: own(), source_event_id: own(), task: Task { id: own() }, spoken_ms: None, cut: None }
    }
}

/// Why something that the client said was not done.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AgentFault)]
pub struct Fault {
    #[serde(rename = "type")]
    pub kind: FaultKind,
    /// Cause and cure.
    pub message: String,
    /// Of what the client said.
    pub event_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It is no command of this socket.
    InvalidMessage,
    /// The sound cannot be read.
    InvalidAudio,
    /// The message is larger than one may be.
    TooLarge,
    /// There is no space for the sound now: send it again later.
    BufferFull,
    /// No sound came for 30 s; the utterance was ended.
    AudioStarvation,
    /// An interruption failed.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AgentSessionState)]
pub enum SessionState {
    Connecting,
    Connected,
    Closing,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    Idle,
    Listening,
    Talking,
}
