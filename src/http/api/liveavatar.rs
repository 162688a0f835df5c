//! The calls of LiveAvatar's API that clients of its LITE mode make: a token, a session, its end.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    App, Errors,
    sessions::{FAULT, blocking},
};
use crate::{
    http::{
        Problem, extract,
        liveavatar::{self, Grant, Grants, LONGEST},
    },
    session::{Refusal, SessionSpec},
    tenants::Caller,
};

/// `code` of an answer that is no error.
const DONE: u32 = 100;
const GRAPH: &str = "avatar";

/// The session that is wanted. What is not listed, the encoding among it, is left alone.
#[derive(Deserialize, ToSchema)]
#[schema(as = LiveAvatarToken)]
pub struct Wanted {
    /// `LITE`: the client brings the voice.
    mode: Option<String>,
    /// Name of an avatar of this server.
    #[schema(example = "demo")]
    avatar_id: String,
    /// Seconds; at most a day.
    max_session_duration: Option<u32>,
    /// A LiveKit room cannot be joined: anything but null is refused.
    #[schema(value_type = Option<Object>)]
    livekit_config: Option<serde_json::Value>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LiveAvatarTokenAnswer)]
pub struct TokenAnswer {
    code: u32,
    message: &'static str,
    data: Token,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LiveAvatarTokenData)]
pub struct Token {
    session_id: String,
    /// Opens what shows this session and what speaks in it, until it ends: WHEP, WHIP of the voice, both WebSockets, `speak`
    /// and `interrupt`.
    session_token: String,
}

/// Ask for a session, in the form of LiveAvatar's `POST /v1/sessions/token`. The server's key goes into `X-API-KEY` or is a
/// bearer token.
#[utoipa::path(
    post, path = "/liveavatar/sessions/token", tag = "agents", request_body = Wanted,
    responses((status = 200, body = TokenAnswer), Errors),
)]
pub async fn token(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Json(wanted): extract::Json<Wanted>,
) -> Result<Json<TokenAnswer>, Problem> {
    if wanted.mode.as_deref().is_some_and(|mode| !mode.eq_ignore_ascii_case("LITE")) {
        return Err(Problem::invalid("mode: this server has the mode LITE, in which the client brings the voice"));
    }
    if wanted.livekit_config.is_some_and(|config| !config.is_null()) {
        return Err(Problem::invalid(
            "livekit_config: this server joins no LiveKit rooms; leave it out and watch the session by WHEP \
             (`whep_url`), or push it to the room's WHIP ingress (`push` of POST /api/v1/sessions)",
        ));
    }
    if app.manager.avatars().get_for(&wanted.avatar_id, &caller).is_none() {
        let names = app.manager.avatars().names_for(&caller);
        return Err(Problem::invalid(format!("avatar_id: there is no `{}`; there are {names}", wanted.avatar_id)));
    }
    let limit = wanted.max_session_duration.map_or(LONGEST, |seconds| Duration::from_secs(seconds.into()));
    let issued = app.grants.issue(caller, wanted.avatar_id, limit.min(LONGEST));
    let (session_token, grant) = issued.map_err(|full| Problem::full(full.to_string()))?;
    let data = Token { session_id: grant.id.clone(), session_token };
    Ok(Json(TokenAnswer { code: DONE, message: "Session token created", data }))
}

#[derive(Serialize, ToSchema)]
#[schema(as = LiveAvatarStartAnswer)]
pub struct StartAnswer {
    code: u32,
    message: &'static str,
    data: Started,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LiveAvatarSession)]
pub struct Started {
    session_id: String,
    /// The WebSocket with the words of the LITE mode; the token is in it.
    ws_url: String,
    /// Where the picture and the sound are played, by WHEP with the token as bearer.
    whep_url: String,
    max_session_duration: u64,
    /// Empty: this server has no LiveKit room.
    livekit_url: String,
    /// The session's token.
    livekit_client_token: String,
    /// The session's token.
    livekit_agent_token: String,
}

/// Begin the session of the token that is given as bearer, in the form of LiveAvatar's `POST /v1/sessions/start`.
#[utoipa::path(
    post, path = "/liveavatar/sessions/start", tag = "agents",
    responses((status = 201, body = StartAnswer), Errors),
)]
pub async fn start(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<StartAnswer>), Problem> {
    let (token, grant) = given(&app, &headers)?;
    if !grant.begin() {
        return Err(Problem::conflict("the session of this token has begun already; ask for another token"));
    }
    // The agent may come before anybody watches, as into a room.
    let spec =
        SessionSpec { avatar: Some(grant.avatar.clone()), always_on: true, ..SessionSpec::new(&grant.id, GRAPH) };
    // A client that leaves meanwhile must not leave a session that nobody ends.
    tokio::spawn(begin(app.clone(), grant.clone(), spec)).await.map_err(|_| Problem::internal(FAULT))??;
    let http = address(&app, &headers);
    let sockets = http.replacen("http", "ws", 1);
    let data = Started {
        ws_url: format!("{sockets}/api/v1/sessions/{}/agent?token={token}", grant.id),
        whep_url: format!("{http}/whep/{}", grant.id),
        max_session_duration: grant.limit.as_secs(),
        livekit_url: String::new(),
        livekit_client_token: token.clone(),
        livekit_agent_token: token,
        session_id: grant.id.clone(),
    };
    Ok((StatusCode::CREATED, Json(StartAnswer { code: DONE, message: "Session started", data })))
}

async fn begin(app: Arc<App>, grant: Arc<Grant>, spec: SessionSpec) -> Result<(), Problem> {
    let (manager, caller) = (app.manager.clone(), grant.caller.clone());
    if let Err(problem) = blocking(move || manager.create_for(&caller, spec)).await {
        grant.not_begun();
        return Err(problem);
    }
    let (grants, manager) = (Arc::downgrade(&app.grants), Arc::downgrade(&app.manager));
    tokio::spawn(Grants::look_after(grants, manager, grant));
    Ok(())
}

/// The session that ends.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = LiveAvatarStop)]
pub struct Stop {
    /// The token's own.
    session_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LiveAvatarStopAnswer)]
pub struct StopAnswer {
    code: u32,
    message: &'static str,
    #[schema(value_type = Option<Object>)]
    data: Option<()>,
}

/// End the session of the token that is given as bearer, in the form of LiveAvatar's `POST /v1/sessions/stop`.
#[utoipa::path(
    post, path = "/liveavatar/sessions/stop", tag = "agents", request_body = Stop,
    responses((status = 200, body = StopAnswer), Errors),
)]
pub async fn stop(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    extract::Json(Stop { session_id }): extract::Json<Stop>,
) -> Result<Json<StopAnswer>, Problem> {
    let (_, grant) = given(&app, &headers)?;
    if session_id.as_ref().is_some_and(|id| *id != grant.id) {
        return Err(Problem::invalid("session_id: is not the session of this token"));
    }
    app.grants.forget(&grant.id);
    let (manager, id, caller) = (app.manager.clone(), grant.id.clone(), grant.caller.clone());
    // One that has not begun has ended.
    let removed = blocking(move || match manager.remove_for(&id, &caller) {
        Err(Refusal::Unknown(_)) => Ok(()),
        other => other,
    });
    removed.await?;
    Ok(Json(StopAnswer { code: DONE, message: "Session stopped", data: None }))
}

fn given(app: &App, headers: &HeaderMap) -> Result<(String, Arc<Grant>), Problem> {
    let token = liveavatar::bearer(headers).ok_or_else(|| {
        let cure = "send `Authorization: Bearer SESSION_TOKEN`, from POST /api/v1/liveavatar/sessions/token";
        Problem::new(StatusCode::UNAUTHORIZED, cure)
    })?;
    let unknown = || Problem::new(StatusCode::UNAUTHORIZED, "the session token is not known; its session may be over");
    Ok((token.to_owned(), app.grants.find(token).ok_or_else(unknown)?))
}

/// Where the client reaches this server: the public URL, or what it asked.
fn address(app: &App, headers: &HeaderMap) -> String {
    if let Some(url) = &app.settings.public_url {
        return url.as_str().trim_end_matches('/').to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    format!("http://{host}")
}
