//! What one client says and is told.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::extract::ws::{Message, WebSocket, close_code};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use futures_util::stream::SplitSink;

use super::{
    MAX_MESSAGE,
    line::{End, Line},
    message::{self, AgentState, Command, FaultKind, Report, SessionState, Source},
    shown::Shown,
    utterance::{Open, Utterance},
};
use crate::{
    http::liveavatar::Grant,
    session::{Session, clock},
    speech::{Cut, Event, STUCK},
};

const MAX_ID: usize = 128;
/// Utterances of one client whose end has not been told.
const MAX_OPEN: usize = 256;
/// Between two pings, and the silence, pongs too, after which the client is gone.
const PING: Duration = Duration::from_secs(15);
const GONE: Duration = Duration::from_secs(60);
/// Base64 of RFC 4648, section 4; clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Numbers for utterances without an id.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// One connection, and what was said over it.
pub(super) struct Client {
    pub line: Line,
    session: Arc<Session>,
    grant: Option<Arc<Grant>>,
    utterance: Utterance,
    /// Utterances of this client whose end has not been told, first to last.
    open: VecDeque<String>,
    shown: Shown,
    state: AgentState,
    /// The `event_id` of interruptions that are under way.
    interrupting: VecDeque<Option<String>>,
    pinged: Instant,
}

impl Client {
    pub fn new(sink: SplitSink<WebSocket, Message>, session: Arc<Session>, grant: Option<Arc<Grant>>) -> Self {
        Self {
            line: Line::new(sink),
            session,
            grant,
            utterance: Utterance::None,
            open: VecDeque::new(),
            shown: Shown::default(),
            state: AgentState::Idle,
            interrupting: VecDeque::new(),
            pinged: Instant::now(),
        }
    }

    pub async fn handle(&mut self, message: Message) -> Result<(), End> {
        if let (Some(grant), Message::Text(_)) = (&self.grant, &message) {
            grant.touch();
        }
        match message {
            Message::Text(text) if text.len() > MAX_MESSAGE => Err(self.line.too_large().await),
            Message::Text(text) => match Command::parse(&text) {
                Ok(command) => self.command(command).await,
                Err(e) => {
                    let cure = "send agent.speak, agent.speak_end, agent.interrupt, agent.start_listening, \
                                agent.stop_listening or session.keep_alive as JSON";
                    self.line.error(FaultKind::InvalidMessage, None, &format!("no command: {e}; {cure}")).await
                }
            },
            Message::Binary(_) => {
                let message = "sound is sent as base64 in the field `audio` of agent.speak; binary messages are for \
                               the socket /audio";
                self.line.error(FaultKind::InvalidMessage, None, message).await
            }
            Message::Close(_) => Err(End { code: close_code::NORMAL, reason: "" }),
            // The library answers pings.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), End> {
        let id = command.event_id();
        if id.is_some_and(|id| id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control)) {
            let message = format!("event_id: must have 1 to {MAX_ID} bytes and no control characters");
            return self.line.error(FaultKind::InvalidMessage, None, &message).await;
        }
        match command {
            Command::Speak { audio, event_id } => self.speak(&audio, event_id.as_deref()).await,
            Command::SpeakEnd { event_id } => {
                if let Utterance::Open(open) = std::mem::replace(&mut self.utterance, Utterance::None) {
                    // One that was cut is told of by its event.
                    let _ = open.end();
                }
                self.line.tell(Report::Committed(Source::of(event_id.as_deref()))).await
            }
            Command::Interrupt { event_id } => self.interrupt(event_id).await,
            Command::StartListening { .. } if self.state == AgentState::Idle => self.turn(AgentState::Listening).await,
            Command::StopListening { .. } if self.state == AgentState::Listening => self.turn(AgentState::Idle).await,
            Command::StartListening { .. } | Command::StopListening { .. } | Command::KeepAlive { .. } => Ok(()),
        }
    }

    async fn speak(&mut self, audio: &str, event_id: Option<&str>) -> Result<(), End> {
        let bytes = match BASE64.decode(audio) {
            Ok(bytes) if bytes.starts_with(b"RIFF") => {
                let message = "audio: this is a WAV file; send its samples without the header";
                return self.line.error(FaultKind::InvalidAudio, event_id, message).await;
            }
            Ok(bytes) => bytes,
            Err(e) => {
                return self.line.error(FaultKind::InvalidAudio, event_id, &format!("audio: no base64: {e}")).await;
            }
        };
        if self.utterance.is_over(event_id) {
            return Ok(());
        }
        if !matches!(self.utterance, Utterance::Open(_)) {
            if bytes.is_empty() {
                return Ok(());
            }
            if let Err(message) = self.begin(event_id) {
                return self.line.error(FaultKind::BufferFull, event_id, &message).await;
            }
        }
        let Utterance::Open(open) = &mut self.utterance else { return Ok(()) };
        if open.group.as_deref() != event_id {
            open.group = None;
        }
        match open.add(&bytes) {
            Ok(true) => self.line.tell(Report::Appended(Source::of(event_id))).await,
            Ok(false) => {
                let queued = self.session.speech().queued().as_secs_f64();
                let message = format!(
                    "no space for this sound: {queued:.1} s wait to be spoken (sessions.speech_seconds); send it again later"
                );
                self.line.error(FaultKind::BufferFull, event_id, &message).await
            }
            Err(Cut) => {
                self.utterance.cut(true);
                Ok(())
            }
        }
    }

    /// Opens an utterance, or says why not.
    fn begin(&mut self, event_id: Option<&str>) -> Result<(), String> {
        if self.open.len() >= MAX_OPEN {
            return Err(format!("{MAX_OPEN} utterances wait to be spoken, which is the most; wait or interrupt"));
        }
        let made_up = || format!("speak-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let id = event_id.map_or_else(made_up, str::to_owned);
        // Before the queue tells of it.
        self.open.push_back(id.clone());
        let open = self.session.speech().writer(&id).map_err(|full| full.to_string());
        let open = open.and_then(|writer| {
            Open::new(writer, id, event_id.map(str::to_owned)).ok_or_else(|| "the rate is not taken".to_owned())
        });
        match open {
            Ok(open) => {
                self.utterance = Utterance::Open(Box::new(open));
                Ok(())
            }
            Err(message) => {
                self.open.pop_back();
                Err(message)
            }
        }
    }

    async fn interrupt(&mut self, event_id: Option<String>) -> Result<(), End> {
        self.utterance.cut(false);
        if let Utterance::Cut { unawares, .. } = &mut self.utterance {
            *unawares = false;
        }
        // The event `Flushed` tells that it is through.
        self.interrupting.push_back(event_id.clone());
        if let Err(refusal) = self.session.interrupt().await {
            self.interrupting.pop_back();
            return self.line.error(FaultKind::Failed, event_id.as_deref(), &refusal.to_string()).await;
        }
        self.line.tell(Report::Cleared(Source::of(event_id.as_deref()))).await
    }

    /// Something happened to the session's speech, whoever speaks.
    pub async fn event(&mut self, event: Event) -> Result<(), End> {
        let now = clock::now();
        match event {
            Event::Speaking { utterance } if self.is_own(&utterance) => {
                self.shown.wait(now, Report::Started(message::Utterance::of(&utterance)));
            }
            Event::Ended { utterance, spoken_ms, cut } if self.is_own(&utterance) => {
                if let Some(place) = self.open.iter().position(|open| *open == utterance) {
                    self.open.remove(place);
                }
                let spoken_ms = Some(spoken_ms);
                let report = message::Utterance { spoken_ms, cut, ..message::Utterance::of(&utterance) };
                if cut.is_none() {
                    self.shown.wait(now, Report::Ended(report));
                } else {
                    if matches!(&self.utterance, Utterance::Open(open) if open.id == utterance) {
                        self.utterance.cut(true);
                    }
                    for earlier in self.shown.cut(&utterance) {
                        self.show(earlier).await?;
                    }
                    self.show(Report::SpeakInterrupted(report)).await?;
                }
            }
            Event::Flushed { ms } => {
                let event_id = self.interrupting.pop_front().flatten();
                self.line.tell(Report::Interrupted { event_id, ms }).await?;
            }
            _ => {}
        }
        self.show_due().await
    }

    fn is_own(&self, utterance: &str) -> bool {
        self.open.iter().any(|open| open == utterance)
    }

    async fn show_due(&mut self) -> Result<(), End> {
        if self.shown.is_empty() {
            return Ok(());
        }
        let last = self.session.last_shown();
        while let Some(report) = self.shown.due(last) {
            self.show(report).await?;
        }
        Ok(())
    }

    /// Tells of speech, and of the state that follows from it.
    async fn show(&mut self, report: Report) -> Result<(), End> {
        let state = if matches!(report, Report::Started(_)) { AgentState::Talking } else { AgentState::Idle };
        self.line.tell(report).await?;
        self.turn(state).await
    }

    async fn turn(&mut self, state: AgentState) -> Result<(), End> {
        let previous_state = std::mem::replace(&mut self.state, state);
        if previous_state == state {
            return Ok(());
        }
        self.line.tell(Report::Agent { previous_state, new_state: state }).await
    }

    pub async fn look_after(&mut self, heard: Instant) -> Result<(), End> {
        self.show_due().await?;
        if heard.elapsed() > GONE {
            return Err(End { code: close_code::AWAY, reason: "no pong came for 60 s" });
        }
        if self.session.outlet().is_closed() {
            self.line.tell(Report::Session { state: SessionState::Closed }).await?;
            return Err(End { code: close_code::AWAY, reason: "the session has ended" });
        }
        let mut starved = None;
        if let Utterance::Open(open) = &mut self.utterance {
            if open.is_waiting() {
                // Its end is told by its event.
                let _ = open.flush();
            }
            starved = (open.heard.elapsed() > STUCK).then(|| open.id.clone());
        }
        if let Some(id) = starved {
            self.utterance = Utterance::None;
            let message = "no sound came for 30 s: the utterance was ended; send agent.speak_end at the end of each";
            self.line.error(FaultKind::AudioStarvation, Some(&id), message).await?;
        }
        if self.pinged.elapsed() < PING {
            return Ok(());
        }
        self.pinged = Instant::now();
        self.line.send(Message::Ping(Bytes::new())).await
    }
}
