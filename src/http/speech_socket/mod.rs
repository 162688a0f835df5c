//! Speech over a WebSocket (RFC 6455), for agents and TTS that stream.
//!
//! From the client: text messages are commands, binary messages are sound, 16-bit samples of one channel, lower byte
//! first, in pieces of any size.
//!
//! ```json
//! {"type": "speak_start", "rate": 24000, "utterance": "answer-7"}
//! {"type": "speak_end"}
//! {"type": "interrupt"}
//! ```
//!
//! A socket is one voice's: the first one's, or with `?voice=b` that of a session's second one. `interrupt` cuts that one short, and
//! with `"all": true` both.
//!
//! `rate` is 8000, 11025, 12000, 16000, 22050, 24000 (as a rule), 32000, 44100 or 48000. To the client go what happens to
//! the voice's speech, whoever speaks, in the order that [`Event`] tells, and errors:
//!
//! ```json
//! {"type": "listening", "utterance": "answer-7"}
//! {"type": "speaking", "utterance": "answer-7"}
//! {"type": "ended", "utterance": "answer-7", "spoken_ms": 1840.0, "cut": "interrupted"}
//! {"type": "idle"}
//! {"type": "flushed", "ms": 41.5}
//! {"type": "error", "message": "..."}
//! ```
//!
//! Sound may come faster than it is spoken: it is queued up to the session's bound, after which the socket is not read
//! until there is space, commands in it neither; an interruption by HTTP gets through. Sound that comes slower is spoken
//! as it comes, 80 ms after its first piece, so that it does not break off. After an interruption, whoever made it, and
//! after a `speak_start` that was refused, sound is thrown away until the next `speak_start`.

mod message;
mod utterance;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    response::Response,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

pub use self::message::SpeechCommand;
use self::{
    message::Report,
    utterance::{Open, Utterance},
};
use crate::{
    session::{Session, VoiceName},
    speech::{Cut, Event, Pcm, Queue, RATES, STUCK, Upsampler},
};

/// Largest message, in bytes: half a minute of speech at 16 kHz.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Beyond this a message is not read to its end; a client that still sends then may miss why the connection ended.
const UNREAD: usize = 4 * MAX_MESSAGE;
/// Largest command.
const MAX_COMMAND: usize = 4 << 10;
const MAX_ID: usize = 128;
/// Rate where a client does not say one, in Hz.
const DEFAULT_RATE: u32 = 24_000;
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// Between two pings, and the silence, pongs too, after which the client is gone.
const PING: Duration = Duration::from_secs(15);
const GONE: Duration = Duration::from_secs(60);
/// Longest time that a client may take to accept a message.
const SENDING: Duration = Duration::from_secs(10);
/// Errors of a client that is let go after them.
const MAX_ERRORS: u32 = 32;

/// Numbers for utterances without an id.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Why a connection ends, with the code of RFC 6455, 7.4.1, that says so.
struct End {
    code: u16,
    reason: &'static str,
}

/// Accepts the connection with this protocol's bounds on messages; `place` is dropped when it has ended, which it does
/// when `until` is cancelled at the latest.
pub fn upgrade(
    upgrade: WebSocketUpgrade,
    (session, voice): (Arc<Session>, VoiceName),
    place: impl Send + 'static,
    until: CancellationToken,
) -> Response {
    upgrade.max_message_size(UNREAD).max_frame_size(UNREAD).on_upgrade(move |connection| async move {
        let _place = place;
        tokio::select! {
            () = socket(connection, session, voice) => {}
            () = until.cancelled() => {}
        }
    })
}

/// Serves one client until it leaves; see the module.
pub async fn socket(connection: WebSocket, session: Arc<Session>, voice: VoiceName) {
    // A voice that the session does not have is refused before.
    let Ok(speech) = session.speech_of(voice).cloned() else { return };
    let (sink, mut messages) = connection.split();
    let mut events = speech.events();
    let mut client =
        Client { sink, session, voice, speech, utterance: Utterance::None, errors: 0, pinged: Instant::now() };
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let end = loop {
        let full = client.is_full();
        let step = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => client.tell(&event).await,
                // Newer ones follow; the client could not keep up.
                Err(RecvError::Lagged(_)) => Ok(()),
                Err(RecvError::Closed) => break None,
            },
            () = client.write(), if full => Ok(()),
            message = messages.next(), if !full => {
                heard = Instant::now();
                match message {
                    Some(Ok(message)) => client.handle(message).await,
                    Some(Err(error)) => Err(client.broken(&error).await),
                    None => break None,
                }
            }
            _ = tick.tick() => {
                if full {
                    // Pongs are not read either.
                    heard = Instant::now();
                }
                client.look_after(heard).await
            }
        };
        if let Err(end) = step {
            break Some(end);
        }
    };
    if let Some(End { code, reason }) = end {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // The client may be gone already.
        let _ = time::timeout(SENDING, client.sink.send(close)).await;
    }
}

struct Client {
    sink: SplitSink<WebSocket, Message>,
    session: Arc<Session>,
    voice: VoiceName,
    /// What that has to say.
    speech: Arc<Queue>,
    utterance: Utterance,
    errors: u32,
    pinged: Instant,
}

impl Client {
    async fn handle(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Binary(sound) if sound.len() > MAX_MESSAGE => Err(self.too_large().await),
            Message::Binary(sound) => self.sound(&sound).await,
            Message::Text(text) if text.len() > MAX_COMMAND => {
                self.error(&format!("a command has at most {MAX_COMMAND} bytes, this one {}", text.len())).await
            }
            Message::Text(text) => match SpeechCommand::parse(&text) {
                Ok(command) => self.command(command).await,
                Err(e) => {
                    self.refuse();
                    self.error(&format!("no command: {e}; send speak_start, speak_end or interrupt as JSON")).await
                }
            },
            Message::Close(_) => Err(End { code: close_code::NORMAL, reason: "" }),
            // The library answers pings.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        }
    }

    async fn sound(&mut self, bytes: &Bytes) -> Result<(), End> {
        match &mut self.utterance {
            Utterance::Open(open) => open.add(bytes),
            Utterance::Cut => return Ok(()),
            Utterance::None => {
                self.refuse();
                return self.error("sound came outside of an utterance: send speak_start first").await;
            }
        }
        self.write_now();
        Ok(())
    }

    async fn command(&mut self, command: SpeechCommand) -> Result<(), End> {
        match command {
            SpeechCommand::SpeakStart { rate, utterance } => self.start(rate, utterance).await,
            SpeechCommand::SpeakEnd {} => match std::mem::replace(&mut self.utterance, Utterance::None) {
                Utterance::Open(mut open) => {
                    open.end();
                    self.utterance = Utterance::Open(open);
                    self.write_now();
                    Ok(())
                }
                Utterance::Cut => Ok(()),
                Utterance::None => self.error("no utterance is open: send speak_start before speak_end").await,
            },
            SpeechCommand::Interrupt { all } => {
                if !matches!(self.utterance, Utterance::None) {
                    self.utterance = Utterance::Cut;
                }
                // The event `flushed` tells the client.
                let done = match all {
                    true => self.session.interrupt().await,
                    false => self.session.interrupt_voice(self.voice).await,
                };
                match done {
                    Ok(_) => Ok(()),
                    Err(refusal) => self.error(&refusal.to_string()).await,
                }
            }
        }
    }

    /// Sound that may follow belongs to nothing: one error is enough.
    fn refuse(&mut self) {
        if matches!(self.utterance, Utterance::None) {
            self.utterance = Utterance::Cut;
        }
    }

    async fn start(&mut self, rate: Option<serde_json::Number>, id: Option<String>) -> Result<(), End> {
        // One that is still open ends where it is.
        self.utterance = Utterance::Cut;
        // JSON knows one kind of numbers: 24000.0 is 24000.
        let hertz = rate.as_ref().map_or(Some(f64::from(DEFAULT_RATE)), serde_json::Number::as_f64);
        let known = RATES.into_iter().find(|known| hertz == Some(f64::from(*known)));
        let Some(upsampler) = known.and_then(Upsampler::new) else {
            let rate = rate.map_or_else(String::new, |rate| rate.to_string());
            let rates = RATES.map(|rate| rate.to_string()).join(", ");
            return self.error(&format!("rate: {rate} is not taken; send one of {rates}")).await;
        };
        let id = id.unwrap_or_else(|| format!("utterance-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
            return self.error(&format!("utterance: an id has 1 to {MAX_ID} bytes and no control characters")).await;
        }
        match self.speech.writer(&id) {
            Ok(writer) => {
                self.utterance = Utterance::Open(Box::new(Open {
                    writer,
                    pcm: Pcm::default(),
                    upsampler,
                    waiting: Vec::new(),
                    at: 0,
                    ending: false,
                    heard: Instant::now(),
                }));
                Ok(())
            }
            Err(full) => self.error(&full.to_string()).await,
        }
    }

    /// Whether sound waits for space, so that no more is read.
    fn is_full(&self) -> bool {
        matches!(&self.utterance, Utterance::Open(open) if !open.is_written())
    }

    /// Queues what there is space for at once.
    fn write_now(&mut self) {
        let Utterance::Open(open) = &mut self.utterance else { return };
        match open.writer.add(&open.waiting[open.at..]) {
            Ok(count) => open.at += count,
            Err(Cut) => {
                self.utterance = if open.ending { Utterance::None } else { Utterance::Cut };
                return;
            }
        }
        self.written();
    }

    /// Waits until all of it is queued. May be given up at any time.
    async fn write(&mut self) {
        let Utterance::Open(open) = &mut self.utterance else { return };
        if open.writer.write_from(&open.waiting, &mut open.at).await == Err(Cut) {
            self.utterance = if open.ending { Utterance::None } else { Utterance::Cut };
            return;
        }
        open.heard = Instant::now();
        self.written();
    }

    fn written(&mut self) {
        if matches!(&self.utterance, Utterance::Open(open) if open.ending && open.is_written()) {
            self.utterance = Utterance::None;
        }
    }

    async fn look_after(&mut self, heard: Instant) -> Result<(), End> {
        if heard.elapsed() > GONE {
            return Err(End { code: close_code::AWAY, reason: "no pong came for 60 s" });
        }
        if self.session.outlet().is_closed() {
            return Err(End { code: close_code::AWAY, reason: "the session has ended" });
        }
        let full = self.is_full();
        let stuck = matches!(&self.utterance, Utterance::Open(open) if !full && open.heard.elapsed() > STUCK);
        if stuck {
            self.utterance = Utterance::Cut;
            self.error("no sound came for 30 s: the utterance was ended; send speak_start for the next one").await?;
        }
        if self.pinged.elapsed() < PING {
            return Ok(());
        }
        self.pinged = Instant::now();
        self.send(Message::Ping(Bytes::new())).await
    }

    async fn tell(&mut self, event: &Event) -> Result<(), End> {
        let text = serde_json::to_string(event).expect("events hold plain values");
        self.send(Message::text(text)).await
    }

    async fn error(&mut self, message: &str) -> Result<(), End> {
        self.errors += 1;
        let text = serde_json::to_string(&Report::Error { message }).expect("reports hold plain values");
        self.send(Message::text(text)).await?;
        if self.errors >= MAX_ERRORS {
            return Err(End { code: close_code::POLICY, reason: "too many errors" });
        }
        Ok(())
    }

    /// Tells the cause of a message that could not be read, as far as the client still listens.
    async fn broken(&mut self, error: &axum::Error) -> End {
        let text = error.to_string().to_ascii_lowercase();
        if text.contains("too long") || text.contains("capacity") {
            return self.too_large().await;
        }
        End { code: close_code::PROTOCOL, reason: "the message cannot be read" }
    }

    async fn too_large(&mut self) -> End {
        // The connection ends whether or not this arrives.
        let _ = self.error(&format!("a message has at most {MAX_MESSAGE} bytes: send smaller pieces")).await;
        End { code: close_code::SIZE, reason: "message too large" }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match time::timeout(SENDING, self.sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End { code: close_code::AWAY, reason: "the client does not listen" }),
        }
    }
}
