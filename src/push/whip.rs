//! A push by WHIP (RFC 9725), to an SFU or another server that takes WebRTC.

use std::net::{SocketAddr, UdpSocket};

use axum::body::{Body, to_bytes};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{Feed, Settings, dial};
use crate::{
    address::{self, Checked},
    link::Report,
    webrtc,
};

/// Largest answer that is read.
const MAX_ANSWER: usize = 64 << 10;
const SDP: &str = "application/sdp";

/// Where to publish, and as whom.
#[derive(Clone)]
struct Endpoint {
    checked: Checked,
    settings: Settings,
    /// The bearer token: the password of the URL, or its user.
    token: Option<String>,
}

struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: String,
}

/// The session at the server: deleted when this is dropped.
struct Resource {
    endpoint: Endpoint,
    path: String,
}

impl Drop for Resource {
    fn drop(&mut self) {
        let (endpoint, path) = (self.endpoint.clone(), std::mem::take(&mut self.path));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A server that does not hear it sees the connection fall silent.
            runtime.spawn(async move { endpoint.ask(Method::DELETE, &path, String::new()).await.map(drop) });
        }
    }
}

/// Pushes until the connection breaks; `Ok` at the end of the session.
pub(super) async fn push(checked: &Checked, settings: &Settings, feed: Feed, report: &Report) -> Result<(), String> {
    let url = &checked.url;
    let token = url.password().filter(|password| !password.is_empty()).or(Some(url.username()));
    let token = token.filter(|token| !token.is_empty()).map(|token| address::decoded(&token.replace('+', "%2B")));
    let secrets = [token.clone(), url.path_segments().and_then(|mut parts| parts.next_back()).map(str::to_owned)];
    let endpoint = Endpoint { checked: checked.clone(), settings: settings.clone(), token };
    let pushed = publish(endpoint, feed, report).await;
    // Some servers repeat what they refuse.
    pushed.map_err(|error| {
        let secrets = secrets.iter().flatten().filter(|secret| !secret.is_empty());
        secrets.fold(error, |error, secret| error.replace(secret, "***"))
    })
}

async fn publish(endpoint: Endpoint, feed: Feed, report: &Report) -> Result<(), String> {
    let (url, private) = (endpoint.checked.url.clone(), endpoint.settings.private_addresses);
    let from = source(&endpoint.checked.addresses)?;
    let (caller, offer) = webrtc::Caller::offer(from.ip()).await?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if url.path().is_empty() { "/" } else { url.path() };
    let answer = endpoint.ask(Method::POST, &format!("{path}{query}"), offer).await?;
    if answer.status != StatusCode::CREATED {
        let said: String = answer.body.lines().next().unwrap_or_default().chars().take(200).collect();
        return Err(format!("the server refuses: {} {said}", answer.status));
    }
    // One at another host cannot be deleted: its address was not checked.
    let location = answer.location.and_then(|location| url.join(&location).ok());
    let location = location.filter(|at| at.host_str() == url.host_str() && at.port() == url.port());
    let _resource = location.map(|at| {
        let query = at.query().map(|query| format!("?{query}")).unwrap_or_default();
        Resource { endpoint, path: format!("{}{query}", at.path()) }
    });
    let Feed { first, viewer } = feed;
    let first = first.ok_or("nothing to send")?;
    let call = caller.answer(&answer.body, private, viewer, first)?;
    call.run(&webrtc::Settings::default(), || report.connected()).await
}

/// The address of this machine from which the first of `addresses` that has a route is reached. Connecting a UDP socket
/// sends nothing.
fn source(addresses: &[SocketAddr]) -> Result<SocketAddr, String> {
    let from = |to: &SocketAddr| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok()
    };
    addresses.iter().find_map(from).ok_or_else(|| "no route to the server".into())
}

impl Endpoint {
    /// A request on a connection of its own, to the addresses that were checked.
    async fn ask(&self, method: Method, path: &str, body: String) -> Result<Answer, String> {
        let work = async {
            let socket = dial::connect(&self.checked, &self.settings).await?;
            self.exchange(socket, method, path, body).await
        };
        timeout(self.settings.patience, work).await.map_err(|_| "the server did not answer in time".to_owned())?
    }

    async fn exchange(
        &self,
        socket: Box<dyn dial::Stream>,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Answer, String> {
        let http = |error: hyper::Error| format!("HTTP: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(http)?;
        tokio::spawn(connection);
        let port = self.checked.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}{port}", self.checked.host))
            .header(header::CONTENT_TYPE, SDP)
            .header(header::ACCEPT, SDP);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(http)?;
        let (head, body) = answer.into_parts();
        let location = head.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = to_bytes(Body::new(body), MAX_ANSWER).await.map_err(|error| format!("the answer: {error}"))?;
        Ok(Answer { status: head.status, location, body: String::from_utf8_lossy(&body).into_owned() })
    }
}
