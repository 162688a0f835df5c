//! A push by WHIP (RFC 9725), to an SFU or another server that takes WebRTC.

use axum::body::{Body, to_bytes};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{Feed, Report, Settings, rtmp};
use crate::{address::Checked, webrtc};

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
    let token = token.filter(|token| !token.is_empty()).map(percent_decoded);
    let endpoint = Endpoint { checked: checked.clone(), settings: settings.clone(), token };
    let from = rtmp::connect(checked, settings).await?.local_addr().map_err(|error| error.to_string())?.ip();
    let (caller, offer) = webrtc::Caller::offer(from).await?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if url.path().is_empty() { "/" } else { url.path() };
    let answer = endpoint.ask(Method::POST, &format!("{path}{query}"), offer).await?;
    if answer.status != StatusCode::CREATED {
        let said = answer.body.lines().next().unwrap_or_default().chars().take(200).collect::<String>();
        return Err(format!("the server refuses: {} {said}", answer.status));
    }
    let base = url.join(answer.location.as_deref().unwrap_or_default()).map_err(|error| error.to_string())?;
    // Another host was not checked.
    let same = base.host_str() == url.host_str() && base.port() == url.port();
    let path = if same { base.path().to_owned() } else { url.path().to_owned() };
    let _resource = Resource { endpoint, path };
    let Feed { first, viewer } = feed;
    let first = first.ok_or("nothing to send")?;
    let call = caller.answer(&answer.body, settings.private_addresses, viewer, first)?;
    call.run(&webrtc::Settings::default(), || report.connected()).await
}

impl Endpoint {
    /// A request on a connection of its own, to the addresses that were checked.
    async fn ask(&self, method: Method, path: &str, body: String) -> Result<Answer, String> {
        let work = async {
            let socket = rtmp::connect(&self.checked, &self.settings).await?;
            if matches!(self.checked.url.scheme(), "https" | "whips") {
                let name = ServerName::try_from(self.checked.host.clone()).map_err(|error| error.to_string())?;
                let socket = TlsConnector::from(rtmp::tls()).connect(name, socket).await;
                self.exchange(socket.map_err(|error| format!("TLS: {error}"))?, method, path, body).await
            } else {
                self.exchange(socket, method, path, body).await
            }
        };
        timeout(self.settings.patience, work).await.map_err(|_| "the server did not answer in time".to_owned())?
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        socket: S,
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

/// What `%` stands for in a part of a URL.
fn percent_decoded(text: &str) -> String {
    let pairs = format!("={}", text.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(pairs.as_bytes()).next();
    decoded.map_or_else(String::new, |(_, value)| value.into_owned())
}
