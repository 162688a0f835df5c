//! The HTTP listener: bounded connections, a bounded time for a request's head, an end within seconds.

use std::time::Duration;

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Bytes of a request's head.
const HEAD: usize = 64 << 10;
/// Time that open requests have to end.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after the system refuses a connection, for want of file descriptors as a rule.
const PAUSE: Duration = Duration::from_millis(100);
/// What a client over the limit is told.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";

/// Bounds of the listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections: usize,
    pub header: Duration,
}

/// Serves until `end`; open requests then have [`GRACE`].
pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds, end: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = end.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        if connections.len() >= bounds.connections {
            let mut stream = stream;
            // Whether the client hears of it is up to the client.
            let _ = tokio::time::timeout(PAUSE, stream.write_all(BUSY)).await;
            continue;
        }
        // Small packets, such as events of a WebSocket, must not wait for more.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let end = end.clone();
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let router = router.clone();
                async move { router.oneshot(request.map(axum::body::Body::new)).await }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.header)
                .max_buf_size(HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = end.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, drained).await.is_err() {
        tracing::info!("requests that were still open are cut");
    }
}
