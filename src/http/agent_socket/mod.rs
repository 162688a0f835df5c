//! Speech over a WebSocket with the words of LiveAvatar's LITE mode, for agents that speak them.
//!
//! ```json
//! {"type": "agent.speak", "audio": "<base64>", "event_id": "answer-7"}
//! {"type": "agent.speak_end", "event_id": "answer-7"}
//! {"type": "agent.interrupt"}
//! {"type": "session.keep_alive"}
//! ```
//!
//! An utterance is all sound from an `agent.speak` to the next `agent.speak_end`, whatever their `event_id` is: some clients
//! give one to the utterance, others one to each message. It is named by the first. Of each utterance of this client are
//! told, when viewers are shown it: `agent.speak_started` and `agent.speak_ended`, or `agent.speak_interrupted`. After an
//! interruption, whoever made it, comes `agent.interrupted` when the mouth is at rest.
//!
//! Sound may come faster than it is spoken, as far as the session's queue holds it; a message for which there is no space is
//! refused as a whole. The socket is read all the time, so that an interruption never waits behind sound.

mod client;
mod line;
mod message;
mod shown;
mod utterance;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::ws::{WebSocket, WebSocketUpgrade},
    response::Response,
};
use futures_util::StreamExt;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

pub use self::message::{Command, Report};
use self::{client::Client, message::SessionState};
use crate::{http::liveavatar::Grant, session::Session};

/// Largest message, in bytes: 16 s of speech in base64.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Beyond this a message is not read to its end; a client that still sends then may miss why the connection ended.
const UNREAD: usize = 4 * MAX_MESSAGE;
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(10);
/// Accepts the connection with this protocol's bounds on messages. `place` is dropped when it has ended; `grant` is kept
/// from running out by what the client sends.
pub fn upgrade(
    upgrade: WebSocketUpgrade,
    session: Arc<Session>,
    grant: Option<Arc<Grant>>,
    place: impl Send + 'static,
    until: CancellationToken,
) -> Response {
    upgrade.max_message_size(UNREAD).max_frame_size(UNREAD).on_upgrade(move |connection| async move {
        let _place = place;
        tokio::select! {
            () = socket(connection, session, grant) => {}
            () = until.cancelled() => {}
        }
    })
}

/// Serves one client until it leaves; see the module.
async fn socket(connection: WebSocket, session: Arc<Session>, grant: Option<Arc<Grant>>) {
    let (sink, mut messages) = connection.split();
    let mut events = session.speech().events();
    let mut client = Client::new(sink, session, grant);
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let end = 'served: {
        for state in [SessionState::Connecting, SessionState::Connected] {
            if let Err(end) = client.line.tell(Report::Session { state }).await {
                break 'served Some(end);
            }
        }
        loop {
            let step = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => client.event(event).await,
                    // Newer ones follow; the client could not keep up.
                    Err(RecvError::Lagged(_)) => Ok(()),
                    Err(RecvError::Closed) => break None,
                },
                message = messages.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => client.handle(message).await,
                        Some(Err(error)) => Err(client.line.broken(&error).await),
                        None => break None,
                    }
                }
                _ = tick.tick() => client.look_after(heard).await,
            };
            if let Err(end) = step {
                break Some(end);
            }
        }
    };
    if let Some(end) = end {
        client.line.close(end).await;
    }
}
