//! Offline renders: a video and a speech file go in, a video that says the speech comes out.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;
use utoipa::ToSchema;

use super::{App, Errors, sessions::blocking};
use crate::{
    http::{
        Problem, extract,
        form::{Binary, Form, Part},
        uploads::Upload,
    },
    jobs::{self, Options, Status, Video},
    storage::{self, Asked, Span},
    tenants::{Caller, Totals},
};

const LIMIT: &str = "limits.render_mb";
/// Fields of the form that are files.
const FILES: [&str; 3] = ["audio", "audio_b", "video"];

/// Renders of this server.
#[utoipa::path(get, path = "/renders", tag = "renders", responses((status = 200, body = Vec<Status>), Errors))]
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Json<Vec<Status>> {
    Json(app.renders.list_for(&caller))
}

/// What is rendered: `video` or `avatar`, `audio`, and for another face `audio_b`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field")]
#[schema(as = RenderForm)]
pub struct Fields {
    /// Speech in any format that GStreamer decodes.
    audio: Binary,
    /// A second voice, mixed with the first and cut to its length, for the face that the option `speaker_b` names.
    audio_b: Option<Binary>,
    /// Video of a person.
    video: Option<Binary>,
    /// An avatar, whose idle clip is taken.
    avatar: Option<String>,
    /// `Options` as JSON.
    options: Option<String>,
}

/// Render a video file whose lips follow a speech file.
#[utoipa::path(
    post, path = "/renders", tag = "renders",
    request_body(content = inline(Fields), content_type = "multipart/form-data"),
    responses(
        (status = 202, body = Status, headers(("Location" = String, description = "Path of the render"))),
        Errors,
    ),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Status>), Problem> {
    // One that is being received counts as one that waits.
    let place = app.uploads.place()?;
    let limit = (app.settings.limits.render, LIMIT);
    let mut form = Form::open(request, app.settings.limits.body_idle, limit, &["avatar", "options"], &FILES).await?;
    let (mut audio, mut audio_b, mut video, mut avatar, mut options) = (None, None, None, None, Options::default());
    while let Some(part) = form.next(&app.uploads, &caller).await? {
        match part {
            Part::File(name, upload) if name == "audio" => audio = Some(upload),
            Part::File(name, upload) if name == "audio_b" => audio_b = Some(upload),
            Part::File(_, upload) => video = Some(upload),
            Part::Text(name, text) if name == "avatar" => avatar = Some(text),
            Part::Text(_, text) => {
                let wrong = |e| Problem::invalid(format!("options: {e}"));
                options = serde_json::from_str(&text).map_err(wrong)?;
            }
        }
    }
    let mut audio =
        audio.ok_or_else(|| Problem::bad_request("the form has no field `audio`, which holds the speech"))?;
    let chosen = match (&video, avatar) {
        (Some(file), None) => Video::File(file.path().to_owned()),
        (None, Some(name)) => Video::Avatar(name),
        _ => return Err(Problem::bad_request("the form must have one of the fields `video` and `avatar`")),
    };
    let renders = app.renders.clone();
    let status = blocking(move || {
        let files = [Some(&mut audio), audio_b.as_mut(), video.as_mut()];
        let stored = files.into_iter().flatten().filter_map(Upload::take_place).collect();
        let second = audio_b.as_ref().map(|file: &Upload| file.path().to_owned());
        let request =
            jobs::Request { video: chosen, audio: audio.path().to_owned(), audio_b: second, options, caller, stored };
        let status = renders.submit(request);
        // Not sooner: until here the files may be removed with what holds them.
        drop((video, audio, audio_b, place));
        status
    })
    .await?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, format!("/api/v1/renders/{}", status.id))], Json(status)))
}

/// How far a render is.
#[utoipa::path(
    get, path = "/renders/{id}", tag = "renders", params(("id" = String, Path, description = "Render")),
    responses((status = 200, body = Status), Errors),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
) -> Result<Json<Status>, Problem> {
    find(&app, &caller, &id).map(Json)
}

/// Cancel a render that is not over, and forget it with its result.
#[utoipa::path(
    delete, path = "/renders/{id}", tag = "renders", params(("id" = String, Path, description = "Render")),
    responses((status = 204, description = "It is gone"), Errors),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
) -> Result<StatusCode, Problem> {
    find(&app, &caller, &id)?;
    let (renders, own) = (app.renders.clone(), id.clone());
    let removed = blocking(move || renders.remove(&own)).await?;
    removed.then_some(StatusCode::NO_CONTENT).ok_or_else(|| unknown(&id))
}

/// The rendered video, or the part of it that a header `Range` of one range asks for.
#[utoipa::path(
    get, path = "/renders/{id}/result", tag = "renders",
    params(
        ("id" = String, Path, description = "Render"),
        ("range" = Option<String>, Header, description = "As `bytes=0-99`; several ranges are answered with all of it"),
        ("if-range" = Option<String>, Header, description = "The `ETag` of what the part is of; another is answered with all of it"),
    ),
    responses(
        (status = 200, content(
            (inline(Binary) = "video/mp4"), (inline(Binary) = "video/quicktime"), (inline(Binary) = "video/x-matroska"),
            (inline(Binary) = "video/webm"),
        ), headers(("ETag" = String, description = "Of this result"))),
        (status = 206, description = "The part", content(
            (inline(Binary) = "video/mp4"), (inline(Binary) = "video/quicktime"), (inline(Binary) = "video/x-matroska"),
            (inline(Binary) = "video/webm"),
        ), headers(("Content-Range" = String, description = "Which part it is"))),
        Errors,
    ),
)]
pub async fn result(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let status = find(&app, &caller, &id)?;
    let not_ready = || Problem::of(StatusCode::CONFLICT, "not-ready", format!("render `{id}` is {:?}", status.state));
    let kept = app.renders.kept(&id).ok_or_else(not_ready)?;
    let (storage, name) = kept.object().map_err(unreadable)?;
    let size = storage.size(&name).await.map_err(unreadable)?;
    let tag = format!("\"{}\"", kept.version);
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let same = text(header::IF_RANGE).is_none_or(|known| known == tag);
    let part = match text(header::RANGE).filter(|_| same).map_or(Asked::Whole, |range| Asked::of(range, size)) {
        Asked::Whole => None,
        Asked::Span(part) => Some(part),
        Asked::Beyond => {
            let cause = format!("the result has {size} bytes, and the range begins behind them");
            let mut response = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, cause).into_response();
            set(response.headers_mut(), header::CONTENT_RANGE, format!("bytes */{size}"));
            return Ok(response);
        }
    };
    let (_, pieces) = storage.read(&name, part).await.map_err(unreadable)?;
    let owner = app.renders.owner(&id);
    let pieces = pieces.inspect_ok(move |piece| {
        if let Some(tenant) = &owner {
            tenant.count(Totals { egress_bytes: piece.len() as u64, ..Totals::default() });
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kept.container.media_type()));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, part.map_or(size, Span::bytes).into());
    set(headers, header::ETAG, tag);
    let name = format!("attachment; filename=\"{}.{}\"", status.id, kept.container.extension());
    set(headers, header::CONTENT_DISPOSITION, name);
    if let Some(part) = part {
        set(headers, header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.first, part.last));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
}

/// The result is said to be there and cannot be read.
fn unreadable(failure: storage::Failure) -> Problem {
    tracing::error!("{failure}");
    match failure {
        storage::Failure::Missing(_) => Problem::internal("the result is no longer where it was kept"),
        _ => Problem::full("the storage of results does not give it now; the server's log says why"),
    }
}

/// Numbers of renders are never given twice, so that its owner stays the same.
fn find(app: &App, caller: &Caller, id: &str) -> Result<Status, Problem> {
    app.renders.get_for(id, caller).ok_or_else(|| unknown(id))
}

pub fn unknown(id: &str) -> Problem {
    let shown: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    Problem::not_found(format!("there is no render `{shown}`; old ones are forgotten"))
}
