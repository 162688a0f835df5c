//! Agents that talk through `lipstream serve`: the WebSocket with the words of LiveAvatar's LITE mode, and clients that
//! speak them.

#[path = "../common/mod.rs"]
mod common;
mod liveavatar;
mod python;
mod socket;
#[path = "../common/websocket.rs"]
mod websocket;

use serde_json::Value;
use tokio::sync::Mutex;
use websocket::{Client, PATIENCE, pcm};

/// Services one after the other: two are more than a small machine holds.
static ALONE: Mutex<()> = Mutex::const_new(());

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

impl Client {
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
