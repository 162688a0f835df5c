//! Agents that talk through `lipstream serve`: the WebSocket with the words of LiveAvatar's LITE mode, and clients that
//! speak them.

#[path = "../common/mod.rs"]
mod common;
mod liveavatar;
mod python;
mod socket;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{net::TcpStream, sync::Mutex};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// For one condition on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Services one after the other: two are more than a small machine holds.
static ALONE: Mutex<()> = Mutex::const_new(());

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A tone of so many samples at 24 kHz, 16 bits each.
fn pcm(samples: usize) -> Vec<u8> {
    (0..samples).flat_map(|n| ((12_000.0 * (n as f64 * 0.06).sin()) as i16).to_le_bytes()).collect()
}

/// A WebSocket of JSON.
struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn connect(url: &str) -> Self {
        Self(connect_async(url).await.unwrap_or_else(|e| panic!("{url}: {e}")).0)
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next event; `Null` when the server closed the connection.
    async fn event(&mut self) -> Value {
        // Pings come for ever, and are no events.
        let event = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    _ => return Value::Null,
                }
            }
        };
        tokio::time::timeout(PATIENCE, event).await.expect("an event comes")
    }

    /// The next event of one of these types.
    async fn next(&mut self, types: &[&str]) -> Value {
        loop {
            let event = self.event().await;
            assert_ne!(event, Value::Null, "the connection ended before any of {types:?}");
            let cut = event["type"] == "agent.speak_interrupted" && !types.contains(&"agent.speak_interrupted");
            assert!(!cut || types.contains(&"agent.interrupted"), "{event} came before any of {types:?}");
            if types.iter().any(|wanted| event["type"] == *wanted) {
                return event;
            }
        }
    }
}
