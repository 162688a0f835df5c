//! JSON messages with numbers over a WebSocket, as the DevTools protocol and WebDriver BiDi have them.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, runtime::Runtime};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

pub const PATIENCE: Duration = Duration::from_secs(90);

/// A connection to a browser.
pub struct Wire {
    runtime: Runtime,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next: u64,
}

impl Wire {
    pub fn open(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (socket, _) = runtime.block_on(tokio_tungstenite::connect_async(address)).unwrap();
        Self { runtime, socket, next: 1 }
    }

    /// Sends a message with a number and gives the whole answer of that number.
    pub fn ask(&mut self, mut message: Value) -> Value {
        let id = self.next;
        self.next += 1;
        message["id"] = json!(id);
        let socket = &mut self.socket;
        self.runtime.block_on(async {
            socket.send(Message::text(message.to_string())).await.unwrap();
            let answer = async {
                loop {
                    let Message::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
                    let answer: Value = serde_json::from_str(&text).unwrap();
                    if answer["id"] == id {
                        return answer;
                    }
                }
            };
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            answer.unwrap_or_else(|_| panic!("{}: no answer", message["method"]))
        })
    }
}
