//! Large bodies: read as they come, within bounds of size and patience.

use std::time::{Duration, Instant};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::problem::Problem;

/// Refuses what says beforehand that it is larger than `limit` bytes; `key` is the configuration's name of the limit.
pub fn check_length(headers: &HeaderMap, limit: u64, key: &str) -> Result<(), Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    match length {
        Some(length) if length > limit => Err(too_large(limit, key)),
        _ => Ok(()),
    }
}

/// A whole body of at most `limit` bytes that comes within `patience`; `key` is as in [`check_length`].
pub async fn whole(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    key: &'static str,
    patience: Duration,
) -> Result<Vec<u8>, Problem> {
    check_length(headers, limit as u64, key)?;
    let read = async {
        let mut pieces = bounded(body, limit as u64, key, Pace::live(patience));
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    };
    let late =
        |_| Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {} s", patience.as_secs()));
    tokio::time::timeout(patience, read).await.map_err(late)?
}

/// How slowly a body may come: `least` bytes within `idle` of waiting for it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub idle: Duration,
    pub least: usize,
}

impl Pace {
    /// Of speech, which may be spoken as it comes.
    pub fn live(idle: Duration) -> Self {
        Self { idle, least: 1 }
    }

    /// Of files: who sends less than a telephone line holds only the place of others.
    pub fn files(idle: Duration) -> Self {
        Self { idle, least: 32 << 10 }
    }
}

/// The body in pieces; ends with a problem where it is larger than `limit`, comes too slowly or breaks off.
pub fn bounded(
    body: Body,
    limit: u64,
    key: &'static str,
    pace: Pace,
) -> impl Stream<Item = Result<Bytes, Problem>> + Send + Unpin {
    let start = Bounded { stream: body.into_data_stream(), read: 0, left: pace.idle, since: 0 };
    Box::pin(stream::unfold(Some(start), move |state| async move {
        let mut state = state?;
        match state.next(pace).await {
            Ok(Some(_)) if state.read > limit => Some((Err(too_large(limit, key)), None)),
            Ok(Some(piece)) => Some((Ok(piece), Some(state))),
            Ok(None) => None,
            Err(problem) => Some((Err(problem), None)),
        }
    }))
}

struct Bounded {
    stream: BodyDataStream,
    read: u64,
    /// What is left of the patience, and what has come since it was full.
    left: Duration,
    since: usize,
}

impl Bounded {
    async fn next(&mut self, pace: Pace) -> Result<Option<Bytes>, Problem> {
        let asked = Instant::now();
        let piece = match tokio::time::timeout(self.left, self.stream.next()).await {
            Err(_) => return Err(too_slow(pace)),
            Ok(None) => return Ok(None),
            Ok(Some(piece)) => piece.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?,
        };
        self.read += piece.len() as u64;
        self.since += piece.len();
        // Time in which nobody asked is not the client's.
        self.left = self.left.saturating_sub(asked.elapsed());
        if self.since >= pace.least {
            (self.left, self.since) = (pace.idle, 0);
        }
        Ok(Some(piece))
    }
}

fn too_slow(Pace { idle, least }: Pace) -> Problem {
    let came = if least > 1 { format!("less than {} kB", least >> 10) } else { "nothing".to_owned() };
    let cause = format!("{came} of the body came for {} s (limits.body_idle_seconds)", idle.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, cause)
}

fn too_large(limit: u64, key: &str) -> Problem {
    let allowed = if limit < 1_000_000 { format!("{} kB", limit / 1000) } else { format!("{} MB", limit / 1_000_000) };
    Problem::too_large(format!("the body is larger than the {allowed} that {key} allows"))
}
