//! How a link goes, and where it tells so.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

/// A connection that the session opens: a push of its output, or the URL that it reads. The URL is shown without its last path segment, which is a secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Push)]
pub struct LinkStatus {
    pub url: String,
    pub connected: bool,
    pub reconnects: u64,
    pub error: Option<String>,
}

/// Which way the media goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Push,
    Pull,
}

/// Where a link tells how it goes; clones are of one link.
#[derive(Clone)]
pub struct Report {
    status: Arc<Mutex<LinkStatus>>,
    direction: Direction,
}

impl Report {
    /// Of a link to `url`, which is shown as it is.
    pub fn new(url: String, direction: Direction) -> Self {
        let status = LinkStatus { url, connected: false, reconnects: 0, error: None };
        Self { status: Arc::new(Mutex::new(status)), direction }
    }

    pub fn status(&self) -> LinkStatus {
        self.status.lock().clone()
    }

    /// Media goes through.
    pub fn connected(&self) {
        let mut status = self.status.lock();
        if status.connected {
            return;
        }
        (status.connected, status.error) = (true, None);
        match self.direction {
            Direction::Push => tracing::info!("pushes to {}", status.url),
            Direction::Pull => tracing::info!("reads {}", status.url),
        }
    }

    /// The connection, or the try to make one, has failed. The same error is logged once.
    pub fn lost(&self, error: &str) {
        let mut status = self.status.lock();
        status.reconnects += u64::from(status.connected);
        status.connected = false;
        if status.error.as_deref() != Some(error) {
            match self.direction {
                Direction::Push => tracing::warn!("push to {}: {error}", status.url),
                Direction::Pull => tracing::warn!("{}: {error}", status.url),
            }
        }
        status.error = Some(error.to_owned());
    }

    /// There is nothing more to send or to read.
    pub fn ended(&self) {
        self.status.lock().connected = false;
    }
}
