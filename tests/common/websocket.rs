//! A session whose graph does not run, and a client of one of its WebSockets.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{path::Path, sync::Arc, time::Duration};

use axum::{Router, extract::WebSocketUpgrade, response::Response, routing::any};
use futures_util::{SinkExt, StreamExt};
use lipstream::{
    avatar,
    session::{Manager, Session, SessionSpec, Settings},
    speech::Queue,
};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// For one condition on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A session that holds `bound` seconds of speech. Its graph does not run: the test takes the speech in its place.
pub fn session(folder: &Path, bound: u64) -> Arc<Session> {
    session_of(folder, bound, SessionSpec::new("a", "relay"))
}

/// The same as `spec` says.
pub fn session_of(folder: &Path, bound: u64, spec: SessionSpec) -> Arc<Session> {
    gst::init().unwrap();
    let _ = gstlipstream::plugin_register_static();
    let settings = Settings { speech: Duration::from_secs(bound), ..Settings::default() };
    let manager = Manager::new(settings, avatar::Store::open(folder).unwrap());
    manager.create(spec).unwrap()
}

/// A WebSocket that carries JSON.
pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub async fn connect(url: &str) -> Self {
        Self(connect_async(url).await.unwrap_or_else(|e| panic!("{url}: {e}")).0)
    }

    /// Of a server that does nothing but `accept`.
    pub async fn of(accept: impl FnOnce(WebSocketUpgrade) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let route = any(async move |upgrade: WebSocketUpgrade| accept(upgrade));
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", route)).await });
        Self::connect(&format!("ws://{address}/")).await
    }

    pub async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next event; `Null` when the server closed the connection.
    pub async fn event(&mut self) -> Value {
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
}

/// A tone of so many samples, 16 bits each.
pub fn pcm(samples: usize) -> Vec<u8> {
    (0..samples).flat_map(|n| ((12_000.0 * (n as f64 * 0.06).sin()) as i16).to_le_bytes()).collect()
}

pub async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let waiting = async {
        while !ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

/// What a graph would take of the speech.
pub fn take(queue: &Queue, samples: usize) -> Vec<f32> {
    let mut out = vec![0.0; samples];
    queue.take(&mut out);
    out
}
