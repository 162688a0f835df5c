//! Large bodies: read as they come, within bounds of size and patience.

use std::time::Duration;

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

/// The body in pieces; ends with a problem where it is larger than `limit`, stalls for `idle` or breaks off.
pub fn bounded(
    body: Body,
    limit: u64,
    key: &'static str,
    idle: Duration,
) -> impl Stream<Item = Result<Bytes, Problem>> + Send + Unpin {
    let start = Some((body.into_data_stream(), 0_u64));
    Box::pin(stream::unfold(start, move |state| async move {
        let (mut stream, read) = state?;
        match next(&mut stream, idle).await {
            Ok(Some(piece)) if read + piece.len() as u64 > limit => Some((Err(too_large(limit, key)), None)),
            Ok(Some(piece)) => {
                let read = read + piece.len() as u64;
                Some((Ok(piece), Some((stream, read))))
            }
            Ok(None) => None,
            Err(problem) => Some((Err(problem), None)),
        }
    }))
}

async fn next(stream: &mut BodyDataStream, idle: Duration) -> Result<Option<Bytes>, Problem> {
    match tokio::time::timeout(idle, stream.next()).await {
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("nothing of the body came for {} s (limits.body_idle_seconds)", idle.as_secs()),
        )),
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(error))) => Err(Problem::bad_request(format!("the body broke off: {error}"))),
    }
}

fn too_large(limit: u64, key: &str) -> Problem {
    let allowed = if limit < 1_000_000 { format!("{} kB", limit / 1000) } else { format!("{} MB", limit / 1_000_000) };
    Problem::too_large(format!("the body is larger than the {allowed} that {key} allows"))
}
