//! Sessions: list, create, look at, end, interrupt, switch clips.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{App, Errors, cluster};
use crate::{
    engines,
    http::{Problem, diagram, extract},
    session::{Refusal, Session, SessionSpec, Status, VoiceName},
    tenants::Caller,
};

/// What is told of a panic.
pub(super) const FAULT: &str = "this is a fault of the server; its log says more";

/// Runs what may block, such as the start of a graph.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Problem::from),
        Err(_) => Err(Problem::internal(FAULT)),
    }
}

pub(super) fn find(app: &App, caller: &Caller, id: &str) -> Result<Arc<Session>, Problem> {
    Ok(app.manager.get_for(id, caller)?)
}

/// All sessions with their state.
#[utoipa::path(get, path = "/sessions", tag = "sessions", responses((status = 200, body = Vec<Status>), Errors))]
pub async fn list(State(app): State<Arc<App>>, caller: Caller, headers: HeaderMap) -> Result<Response, Problem> {
    let own: Vec<Status> = app.manager.list_for(&caller).iter().map(|session| session.status()).collect();
    Ok(match cluster::asked(&app, &headers) {
        Some(member) => Json(cluster::list(member, &headers, own).await?).into_response(),
        None => Json(own).into_response(),
    })
}

/// Create a session. It starts when it is watched, at once where it is always on.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions", request_body = SessionSpec,
    responses(
        (status = 201, body = Status, headers(("Location" = String, description = "Path of the session"))),
        Errors,
    ),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    extract::Json(spec): extract::Json<SessionSpec>,
) -> Result<Response, Problem> {
    match cluster::asked(&app, &headers) {
        Some(member) => cluster::create(&app, member, caller, &headers, spec).await,
        None => create_here(&app, caller, spec).await,
    }
}

pub(super) async fn create_here(app: &App, caller: Caller, spec: SessionSpec) -> Result<Response, Problem> {
    let manager = app.manager.clone();
    let create = move || {
        // What the operator may set to a path, a client may not.
        let engines = [spec.engine.as_ref(), spec.params.get("engine")];
        engines.into_iter().flatten().try_for_each(|name| engines::check_name(name))?;
        spec.params.get("enhance").map_or(Ok(()), |asked| engines::check_enhancer(asked))?;
        let marked = spec.params.get("watermark").is_none_or(|asked| matches!(asked.as_str(), "true" | "yes" | "1"));
        if caller.tenant().is_some() && !marked {
            return Err(Refusal::Invalid("watermark: nobody but the operator turns it off".into()));
        }
        manager.create_for(&caller, spec)
    };
    let session = blocking(create).await?;
    let location = format!("/api/v1/sessions/{}", session.id());
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(session.status())).into_response())
}

/// A session's state and counters.
#[utoipa::path(
    get, path = "/sessions/{id}", tag = "sessions", params(("id" = String, Path, description = "Session")),
    responses((status = 200, body = Status), Errors),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(find(&app, &caller, &id)?.status()))
}

/// What changes; the rest stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// One of the session's `clips`, shown from the next frame on where the two fit together.
    clip: Option<String>,
    /// Which of several faces speak: `largest`, `all`, `auto`, `left`, `right` or `track:N`.
    speaker: Option<String>,
    /// Which of the others its second voice moves, of a session that has one.
    speaker_b: Option<String>,
    /// Parameters of the graph that can change while it runs, such as `motion-gain`.
    #[serde(default)]
    params: BTreeMap<String, String>,
}

/// Change a session while it runs.
#[utoipa::path(
    patch, path = "/sessions/{id}", tag = "sessions", request_body = Change,
    params(("id" = String, Path, description = "Session")),
    responses((status = 200, body = Status), Errors),
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
    extract::Json(Change { clip, speaker, speaker_b, params }): extract::Json<Change>,
) -> Result<Json<Status>, Problem> {
    let session = find(&app, &caller, &id)?;
    let own = session.clone();
    blocking(move || {
        let speaker = speaker.iter().map(|speaker| ("speaker", speaker));
        let speaker = speaker.chain(speaker_b.iter().map(|speaker| ("speaker-b", speaker)));
        let params = params.iter().map(|(name, value)| (name.as_str(), value));
        params.chain(speaker).try_for_each(|(name, value)| own.set(name, value))?;
        clip.map_or(Ok(()), |clip| own.play_clip(&clip))
    })
    .await?;
    Ok(Json(session.status()))
}

/// The running graph as a picture.
#[utoipa::path(
    get, path = "/sessions/{id}/graph.svg", tag = "sessions",
    params(("id" = String, Path, description = "Session")),
    responses((status = 200, body = String, content_type = "image/svg+xml"), Errors),
)]
pub async fn graph(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let session = find(&app, &caller, &id)?;
    let drawn = blocking(move || Ok(session.dot().map(|dot| diagram::svg(&dot)))).await?;
    let idle = || Problem::of(StatusCode::CONFLICT, "not-ready", "no graph runs; it starts with the first viewer");
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    Ok((headers, drawn.ok_or_else(idle)?))
}

/// End a session with its viewers, publishers and pushes.
#[utoipa::path(
    delete, path = "/sessions/{id}", tag = "sessions", params(("id" = String, Path, description = "Session")),
    responses((status = 204, description = "It has ended"), Errors),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
) -> Result<StatusCode, Problem> {
    let manager = app.manager.clone();
    blocking(move || manager.remove_for(&id, &caller)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The speech is gone and the mouth at rest.
#[derive(Serialize, ToSchema)]
pub struct Interrupted {
    /// Milliseconds that it took.
    ms: f64,
}

/// Whose speech is cut short.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Interrupt {
    /// One of its voices; the other speaks on. All of them where it is missing.
    #[param(inline)]
    voice: Option<VoiceName>,
}

/// Throw away all queued speech and close the mouth.
#[utoipa::path(
    post, path = "/sessions/{id}/interrupt", tag = "sessions",
    params(("id" = String, Path, description = "Session"), Interrupt),
    responses((status = 200, body = Interrupted), Errors),
)]
pub async fn interrupt(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
    extract::Query(Interrupt { voice }): extract::Query<Interrupt>,
) -> Result<Json<Interrupted>, Problem> {
    let session = find(&app, &caller, &id)?;
    let took = match voice {
        Some(voice) => session.interrupt_voice(voice).await?,
        None => session.interrupt().await?,
    };
    Ok(Json(Interrupted { ms: took.as_secs_f64() * 1e3 }))
}

/// The clip to show.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// One of the session's `clips`.
    clip: String,
}

/// Show another clip of the avatar from the next frame on where the two fit together.
#[utoipa::path(
    post, path = "/sessions/{id}/clip", tag = "sessions", request_body = Clip,
    params(("id" = String, Path, description = "Session")),
    responses((status = 202, description = "The clip follows"), Errors),
)]
pub async fn clip(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
    extract::Json(Clip { clip }): extract::Json<Clip>,
) -> Result<StatusCode, Problem> {
    let session = find(&app, &caller, &id)?;
    blocking(move || session.play_clip(&clip)).await?;
    Ok(StatusCode::ACCEPTED)
}
