//! Requests that another node answers: passed on as they come, bodies while they flow, WebSockets in both directions.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Member, Node};
use crate::http::Problem;

/// Shows that a request comes from a node, which has looked for the session already: such a request goes no further.
pub const NODE_HEADER: HeaderName = HeaderName::from_static("lipstream-node");
/// Time for a connection to another node.
const PATIENCE: Duration = Duration::from_secs(2);
/// Headers that are of one connection only (RFC 9110, section 7.6.1).
const OWN: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
];

/// Sends `request` to the node at `url`, with `secret` to show where it comes from.
///
/// The origin of a page has been checked here, and is not passed on.
pub async fn forward(url: &str, secret: &str, request: Request) -> Result<Response, Problem> {
    forward_with(url, secret, request, ()).await
}

/// The same; `held` is dropped when a WebSocket that opens has closed.
async fn forward_with<H: Send + 'static>(
    url: &str,
    secret: &str,
    mut request: Request,
    held: H,
) -> Result<Response, Problem> {
    let away = |cause: String| {
        let cause = format!("the node that has this cannot be reached at {url}: {cause}");
        Problem::of(StatusCode::BAD_GATEWAY, "node", cause)
    };
    let authority = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(&authority)).await;
    let stream = stream.map_err(|_| away("no answer".into()))?.map_err(|e| away(e.to_string()))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(|e| away(e.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the connection to a node broke");
        }
    });
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse::<Uri>().map_err(|e| Problem::bad_request(e.to_string()))?;
    let headers = request.headers_mut();
    strip(headers);
    headers.remove(header::ORIGIN);
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    for (name, value) in [(header::HOST, &authority), (NODE_HEADER, &secret.to_owned())] {
        headers.insert(name, HeaderValue::try_from(value).map_err(|e| away(e.to_string()))?);
    }
    let mut answer = sender.send_request(request).await.map_err(|e| away(e.to_string()))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        strip(answer.headers_mut());
        return Ok(answer.map(Body::new));
    }
    let node = hyper::upgrade::on(&mut answer);
    if let Some(client) = client {
        tokio::spawn(async move {
            let _held = held;
            if let (Ok(client), Ok(node)) = tokio::join!(client, node) {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(node)).await;
            }
        });
    }
    Ok(answer.map(|_| Body::empty()))
}

fn strip(headers: &mut HeaderMap) {
    // Those that it names are of one connection too; an upgrade is put back.
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OWN {
        headers.remove(name);
    }
    headers.remove(header::UPGRADE);
}

impl Member {
    /// Sends a client's request to `node`; `held` is dropped when a WebSocket that opens has closed.
    pub async fn forward<H: Send + 'static>(
        &self,
        node: &Node,
        request: Request,
        held: H,
    ) -> Result<Response, Problem> {
        self.forwarded.fetch_add(1, Relaxed);
        forward_with(&node.url, self.secret(), request, held).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer k"),
            ("content-type", "audio/wav"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization", "content-type"]);
    }
}
