//! Bodies that nobody reads to their end: a request that is refused by its head or by its first bytes.
//!
//! Where a server closes a connection with bytes of the client still under way, the system answers those with a reset, and
//! the client sees a broken pipe in the place of the response (RFC 9112, section 9.6). What is left of such a body is
//! read and thrown away while the response goes out, within [`BYTES`] and [`PATIENCE`].

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    extract::Request,
    http::header,
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

/// What is thrown away of one body; whoever sends more sees the connection end.
const BYTES: usize = 32 << 20;
/// Time for which a body is thrown away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads what handlers leave of a body.
pub async fn linger(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() {
        body
    } else {
        // A client that asks beforehand has sent nothing until it is answered.
        let sent = !head.headers.contains_key(header::EXPECT);
        Body::from_stream(Left { body: Some(body.into_data_stream()), sent })
    };
    next.run(Request::from_parts(head, body)).await
}

/// A body whose rest is thrown away with it.
struct Left {
    /// `None` after its end.
    body: Option<BodyDataStream>,
    /// Whether the client sends, or has been told to.
    sent: bool,
}

impl Stream for Left {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sent = true;
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let piece = std::task::ready!(body.poll_next_unpin(context));
        if !matches!(piece, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let (Some(mut body), true) = (self.body.take(), self.sent) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(PATIENCE, async move {
            let mut left = BYTES;
            while let Some(Ok(piece)) = body.next().await {
                match left.checked_sub(piece.len()) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        }));
    }
}
