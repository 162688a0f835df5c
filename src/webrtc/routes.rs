//! The HTTP of WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep).

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};

use super::{
    Server,
    offer::{Fragment, MAX_FRAGMENT, MAX_OFFER},
    server::{Opened, Sent},
};
use crate::{
    http::{Problem, body, extract::Path},
    marks,
    tenants::Caller,
};

/// Time for a body of a few kilobytes to come.
const PATIENCE: Duration = Duration::from_secs(15);
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

impl Server {
    /// The routes, to be mounted at the root. Who may use them is a layer of whoever mounts them.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/whep/{session}", entry(post(play)))
            .route("/whip/{session}", entry(publish(Sent::Source)))
            .route("/whip/{session}/voice", entry(publish(Sent::Voice)))
            .route("/whip/{session}/voice-b", entry(publish(Sent::SecondVoice)))
            .route("/whep/{session}/{peer}", peer())
            .route("/whip/{session}/{peer}", peer())
            .with_state(self.clone())
    }
}

fn entry(method: MethodRouter<Arc<Server>>) -> MethodRouter<Arc<Server>> {
    method.options(|State(server): State<Arc<Server>>| async move {
        let mut response = StatusCode::NO_CONTENT.into_response();
        allow(response.headers_mut(), "POST, OPTIONS", ACCEPT_POST, SDP);
        links(&server, response.headers_mut());
        response
    })
}

fn peer() -> MethodRouter<Arc<Server>> {
    axum::routing::patch(trickle).delete(end).options(|| async {
        let mut response = StatusCode::NO_CONTENT.into_response();
        allow(response.headers_mut(), "PATCH, DELETE, OPTIONS", ACCEPT_PATCH, FRAGMENT);
        response
    })
}

fn allow(headers: &mut HeaderMap, methods: &'static str, accept: HeaderName, media_type: &'static str) {
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    headers.insert(accept, HeaderValue::from_static(media_type));
}

async fn play(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path(session): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let opened = match read(&headers, body, SDP, MAX_OFFER).await {
        Ok(offer) => server.play(&caller, &session, &offer).await,
        Err(problem) => Err(problem),
    };
    created(&server, "whep", &session, opened)
}

/// What is published of a session.
fn publish(sent: Sent) -> MethodRouter<Arc<Server>> {
    post(
        move |State(server): State<Arc<Server>>,
              caller: Caller,
              Path(session): Path<String>,
              uri: Uri,
              headers: HeaderMap,
              body: Body| async move {
            let keys = given_keys(&uri, &headers);
            let opened = match read(&headers, body, SDP, MAX_OFFER).await {
                Ok(offer) => server.publish(&caller, (&session, sent), &keys, &offer).await,
                Err(problem) => Err(problem),
            };
            created(&server, "whip", &session, opened)
        },
    )
}

/// What may be the stream key: `?key=KEY`, as in RTMP, and the bearer token, where WHIP clients have a field for it.
fn given_keys(uri: &Uri, headers: &HeaderMap) -> Vec<String> {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim().into());
    query.filter(|(name, _)| name == "key").map(|(_, key)| key.into_owned()).chain(bearer).collect()
}

fn created(server: &Server, protocol: &str, session: &str, opened: Result<Opened, Problem>) -> Response {
    let opened = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            server.refused();
            return problem.into_response();
        }
    };
    let location = format!("/{protocol}/{session}/{}", opened.id);
    let mut response = (StatusCode::CREATED, opened.answer).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    for (name, value) in [(header::LOCATION, location), (header::ETAG, opened.etag)] {
        // The id of a session and random digits: always valid.
        headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
    }
    if opened.marked {
        headers.insert(HeaderName::from_static(marks::HEADER), HeaderValue::from_static(marks::SOURCE_TYPE));
    }
    links(server, headers);
    response
}

fn links(server: &Server, headers: &mut HeaderMap) {
    for link in server.settings.links() {
        if let Ok(value) = HeaderValue::try_from(link) {
            headers.append(header::LINK, value);
        }
    }
}

/// PATCH: candidates, or a restart of ICE.
async fn trickle(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path((session, peer)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let link = server.find(&caller, &session, &peer)?;
    let fragment = Fragment::read(&read(&headers, body, FRAGMENT, MAX_FRAGMENT).await?)?;
    match_etag(&headers, &link.etag())?;
    let Some(answer) = link.trickle(fragment).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = (StatusCode::OK, fragment_of(&answer)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
    headers.extend(HeaderValue::try_from(link.etag()).ok().map(|etag| (header::ETAG, etag)));
    Ok(response)
}

/// DELETE: answered when all is free.
async fn end(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Path((session, peer)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    server.find(&caller, &session, &peer)?.close().await;
    Ok(StatusCode::OK)
}

/// The credentials and candidates of an answer (RFC 8840 section 9).
fn fragment_of(answer: &str) -> String {
    let wanted = ["a=ice-lite", "a=ice-ufrag:", "a=ice-pwd:", "m=", "a=mid:", "a=candidate:", "a=end-of-candidates"];
    let lines = answer.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    lines.map(|line| format!("{line}\r\n")).collect()
}

/// RFC 9725 section 4.3.1: candidates name the ICE session that they are for. `*` is a restart, whichever it was.
fn match_etag(headers: &HeaderMap, etag: &str) -> Result<(), Problem> {
    let Some(wanted) = headers.get(header::IF_MATCH) else {
        return Ok(());
    };
    let matches =
        wanted.to_str().is_ok_and(|tags| tags.split(',').any(|tag| matches!(tag.trim(), t if t == etag || t == "*")));
    if matches {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            format!("`If-Match` is not {etag}: the ICE session has been replaced"),
        ))
    }
}

/// A body of `media_type`, checked by its head before any of it is awaited.
async fn read(headers: &HeaderMap, body: Body, media_type: &str, limit: usize) -> Result<Vec<u8>, Problem> {
    check(headers, media_type)?;
    body::whole(headers, body, limit, "a session description", PATIENCE).await
}

/// What is sent must be `media_type`, and for an offer it must be accepted as the answer.
fn check(headers: &HeaderMap, media_type: &str) -> Result<(), Problem> {
    let text =
        |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
    let sent = text(header::CONTENT_TYPE).map(|sent| essence(&sent)).unwrap_or_default();
    if sent != media_type {
        return Err(Problem::media_type(format!("`Content-Type` is `{sent}`: it must be {media_type}")));
    }
    let Some(accept) = text(header::ACCEPT) else { return Ok(()) };
    let accepted = accept
        .split(',')
        .map(&essence)
        .any(|range| range.is_empty() || range == "*/*" || range == "application/*" || range == media_type);
    if accepted {
        Ok(())
    } else {
        Err(Problem::new(StatusCode::NOT_ACCEPTABLE, format!("`Accept` is `{accept}`: the answer is {media_type}")))
    }
}
