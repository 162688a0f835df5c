//! Speech into a session: as a body, or over a WebSocket.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    body::Body,
    extract::{
        State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode, Uri, header},
    response::Response,
};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::{App, Errors, sessions::find};
use crate::{
    http::{
        Problem, SUBPROTOCOL, agent_socket, body, extract,
        form::Binary,
        liveavatar::{self, Grant},
        speech_socket,
    },
    session::VoiceName,
    speech::decode::{self, Spoken},
    tenants::Caller,
};

const LIMIT: &str = "limits.speak_mb";
/// Longest name of an utterance.
const NAME: usize = 64;

/// How the speech is called.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Speak {
    /// Name of the utterance in events; made up where it is missing.
    #[param(max_length = 64)]
    utterance: Option<String>,
    /// The session's second voice says it where this is `b`.
    #[serde(default)]
    #[param(inline)]
    voice: VoiceName,
}

/// Whose socket it is.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Socket {
    /// That of the session's second voice where this is `b`.
    #[serde(default)]
    #[param(inline)]
    voice: VoiceName,
}

/// Speak. The body is WAV, MP3, Ogg Opus or FLAC, or raw samples of the media type `audio/L16;rate=16000;channels=1`.
/// It is spoken while it comes; the answer comes when all of it is queued.
#[utoipa::path(
    post, path = "/sessions/{id}/speak", tag = "speech",
    params(("id" = String, Path, description = "Session"), Speak),
    request_body(content(
        (inline(Binary) = "audio/wav"), (inline(Binary) = "audio/mpeg"), (inline(Binary) = "audio/ogg"), (inline(Binary) = "audio/flac"),
        (inline(Binary) = "audio/L16"), (inline(Binary) = "application/octet-stream"),
    )),
    responses((status = 200, body = Spoken), Errors),
)]
pub async fn speak(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
    extract::Query(Speak { utterance, voice }): extract::Query<Speak>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Spoken>, Problem> {
    let session = find(&app, &caller, &id)?;
    let speech = session.speech_of(voice)?;
    let limits = app.settings.limits;
    body::check_length(&headers, limits.speak, LIMIT)?;
    let utterance = utterance.unwrap_or_else(made_up);
    if utterance.is_empty() || utterance.len() > NAME || utterance.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("utterance: must be 1 to {NAME} bytes without control characters")));
    }
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?").to_owned());
    // curl calls a body a form where nobody says otherwise; nobody speaks a form.
    let kind = kind.filter(|kind| kind != "application/x-www-form-urlencoded").unwrap_or_default();
    let pieces = body::bounded(body, limits.speak, LIMIT, body::Pace::live(limits.body_idle));
    let mut failed = None;
    // What stopped the body is told as it is, not as the decoder saw it.
    let pieces = futures_util::StreamExt::inspect(pieces, |piece| {
        if let Err(problem) = piece {
            failed = Some(problem.clone());
        }
    });
    let spoken = decode::stream(&kind, pieces, speech, &utterance).await;
    if let Some(cluster) = &app.cluster {
        cluster.speech_kept(&id).await;
    }
    spoken.map(Json).map_err(|error| failed.unwrap_or_else(|| problem(error)))
}

fn problem(error: decode::Error) -> Problem {
    use decode::Error;
    let detail = error.to_string();
    match error {
        Error::Unsupported(_) => Problem::media_type(detail),
        Error::Invalid(_) => Problem::invalid(detail),
        Error::Body(_) => Problem::bad_request(detail),
        Error::Timeout => Problem::new(StatusCode::REQUEST_TIMEOUT, detail),
        Error::Cut => Problem::of(StatusCode::CONFLICT, "interrupted", detail),
        Error::Untaken => Problem::of(StatusCode::CONFLICT, "not-ready", detail),
        Error::Full(_) => Problem::full(detail),
        Error::Failed(_) => Problem::internal(detail),
    }
}

fn made_up() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("speech-{:x}", now.as_micros())
}

/// Speak and be told over a WebSocket: 16-bit samples go up, `listening`, `speaking`, `ended`, `idle` and `flushed` come down.
/// A browser, which can set no header, gives its key, or the token of a session that was begun with `/liveavatar/sessions`,
/// as a second subprotocol: `lipstream, bearer.<key in base64url>`. A session of a token stays while the WebSocket is open.
#[utoipa::path(
    get, path = "/sessions/{id}/audio", tag = "speech",
    params(("id" = String, Path, description = "Session"), Socket),
    responses((status = 101, description = "The WebSocket is open"), Errors),
)]
pub async fn audio(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
    extract::Query(Socket { voice }): extract::Query<Socket>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let session = find(&app, &caller, &id)?;
    session.speech_of(voice)?;
    let grant = app.grants.offered(&headers).filter(|grant| grant.id == id);
    let (upgrade, place) = socket(&app, upgrade)?;
    Ok(speech_socket::upgrade(upgrade, (session, voice), (place, grant.map(Grant::stay)), caller.until()))
}

/// Speak and be told over a WebSocket with the words of LiveAvatar's LITE mode: `AgentCommand` goes up, `AgentEvent` comes
/// down. A key is given as to `/audio`; the token of a session that was begun with `/liveavatar/sessions` as `?token=`.
#[utoipa::path(
    get, path = "/sessions/{id}/agent", tag = "agents",
    params(
        ("id" = String, Path, description = "Session"),
        ("token" = Option<String>, Query, description = "Token of the session"),
    ),
    responses((status = 101, description = "The WebSocket is open"), Errors),
)]
pub async fn agent(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let session = find(&app, &caller, &id)?;
    let token = uri.query().and_then(liveavatar::token_of).or_else(|| liveavatar::bearer(&headers));
    let grant = token.and_then(|token| app.grants.find(token)).filter(|grant| grant.id == id);
    let (upgrade, place) = socket(&app, upgrade)?;
    Ok(agent_socket::upgrade(upgrade, session, grant, place, caller.until()))
}

/// A place for one more WebSocket.
fn socket(
    app: &App,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<(WebSocketUpgrade, OwnedSemaphorePermit), Problem> {
    let refused =
        |e: WebSocketUpgradeRejection| Problem::new(e.status(), format!("this is a WebSocket: {}", e.body_text()));
    let upgrade = upgrade.map_err(refused)?;
    let full = |_| Problem::full("too many WebSockets are open (limits.connections)");
    let place = app.sockets.clone().try_acquire_owned().map_err(full)?;
    Ok((upgrade.protocols([SUBPROTOCOL]), place))
}
