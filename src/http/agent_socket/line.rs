//! What goes to the client, and how the connection ends.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::{SinkExt, stream::SplitSink};
use tokio::time;

use super::{
    MAX_MESSAGE,
    message::{Fault, FaultKind, Report},
};

/// Longest time that a client may take to accept a message.
const SENDING: Duration = Duration::from_secs(10);
/// Errors of a client that is let go after them.
const MAX_ERRORS: u32 = 32;

/// Why a connection ends, with the code of RFC 6455, 7.4.1, that says so.
pub(super) struct End {
    pub code: u16,
    pub reason: &'static str,
}

/// The sending half of a connection.
pub(super) struct Line {
    sink: SplitSink<WebSocket, Message>,
    errors: u32,
}

impl Line {
    pub fn new(sink: SplitSink<WebSocket, Message>) -> Self {
        Self { sink, errors: 0 }
    }

    pub async fn close(&mut self, End { code, reason }: End) {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // The client may be gone already.
        let _ = time::timeout(SENDING, self.sink.send(close)).await;
    }

    pub async fn tell(&mut self, report: Report) -> Result<(), End> {
        let text = serde_json::to_string(&report).expect("reports hold plain values");
        self.send(Message::text(text)).await
    }

    pub async fn error(&mut self, kind: FaultKind, event_id: Option<&str>, message: &str) -> Result<(), End> {
        self.errors += 1;
        let error = Fault { kind, message: message.to_owned(), event_id: event_id.map(str::to_owned) };
        self.tell(Report::Error { error }).await?;
        // A full queue is no fault of the client's: it sends again.
        if kind == FaultKind::BufferFull {
            self.errors -= 1;
        }
        if self.errors >= MAX_ERRORS {
            return Err(End { code: close_code::POLICY, reason: "too many errors" });
        }
        Ok(())
    }

    /// Tells the cause of a message that could not be read, as far as the client still listens.
    pub async fn broken(&mut self, error: &axum::Error) -> End {
        let text = error.to_string().to_ascii_lowercase();
        if text.contains("too long") || text.contains("capacity") {
            return self.too_large().await;
        }
        End { code: close_code::PROTOCOL, reason: "the message cannot be read" }
    }

    pub async fn too_large(&mut self) -> End {
        let message = format!("a message has at most {MAX_MESSAGE} bytes: send smaller pieces");
        // The connection ends whether or not this arrives.
        let _ = self.error(FaultKind::TooLarge, None, &message).await;
        End { code: close_code::SIZE, reason: "message too large" }
    }

    pub async fn send(&mut self, message: Message) -> Result<(), End> {
        match time::timeout(SENDING, self.sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End { code: close_code::AWAY, reason: "the client does not listen" }),
        }
    }
}
