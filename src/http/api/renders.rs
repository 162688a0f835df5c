//! Offline renders: a video and a speech file go in, a video that says the speech comes out.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::stream;
use tokio::io::AsyncReadExt;
use utoipa::ToSchema;

use super::{App, Errors, sessions::blocking};
use crate::{
    http::{
        Problem, extract,
        form::{Binary, Form, Part},
        uploads::Upload,
    },
    jobs::{self, Options, Status, Video},
    tenants::{Caller, Totals},
};

const LIMIT: &str = "limits.render_mb";
/// Bytes of a result that are read at a time.
const PIECE: usize = 256 << 10;

/// Renders of this server.
#[utoipa::path(get, path = "/renders", tag = "renders", responses((status = 200, body = Vec<Status>), Errors))]
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Json<Vec<Status>> {
    Json(app.renders.list_for(&caller))
}

/// What is rendered: `video` or `avatar`, and `audio`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field")]
#[schema(as = RenderForm)]
pub struct Fields {
    /// Speech in any format that GStreamer decodes.
    audio: Binary,
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
    let mut form =
        Form::open(request, app.settings.limits.body_idle, limit, &["avatar", "options"], &["audio", "video"]).await?;
    let (mut audio, mut video, mut avatar, mut options) = (None, None, None, Options::default());
    while let Some(part) = form.next(&app.uploads, &caller).await? {
        match part {
            Part::File(name, upload) if name == "audio" => audio = Some(upload),
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
        let stored = [Some(&mut audio), video.as_mut()].into_iter().flatten().filter_map(Upload::take_place).collect();
        let request = jobs::Request { video: chosen, audio: audio.path().to_owned(), options, caller, stored };
        let status = renders.submit(request);
        // Not sooner: until here the files may be removed with what holds them.
        drop((video, audio, place));
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
    let removed = blocking(move || Ok(renders.remove(&own))).await?;
    removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| unknown(&id))
}

/// The rendered video.
#[utoipa::path(
    get, path = "/renders/{id}/result", tag = "renders", params(("id" = String, Path, description = "Render")),
    responses(
        (status = 200, content(
            (inline(Binary) = "video/mp4"), (inline(Binary) = "video/x-matroska"), (inline(Binary) = "video/webm"),
        )),
        Errors,
    ),
)]
pub async fn result(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
) -> Result<Response, Problem> {
    let status = find(&app, &caller, &id)?;
    let not_ready = || Problem::of(StatusCode::CONFLICT, "not-ready", format!("render `{id}` is {:?}", status.state));
    let (path, container) = app.renders.result(&id).ok_or_else(not_ready)?;
    let failure = |e: std::io::Error| Problem::internal(format!("the result cannot be read: {e}"));
    let file = tokio::fs::File::open(path).await.map_err(failure)?;
    let length = file.metadata().await.map_err(failure)?.len();
    let owner = app.renders.caller(&id).and_then(|owner| owner.tenant().cloned());
    let pieces = stream::try_unfold((file, owner), |(mut file, owner)| async move {
        let mut piece = vec![0; PIECE];
        let count = file.read(&mut piece).await?;
        piece.truncate(count);
        if let Some(tenant) = &owner {
            tenant.count(Totals { egress_bytes: count as u64, ..Totals::default() });
        }
        Ok::<_, std::io::Error>((count > 0).then_some((piece, (file, owner))))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(container.media_type()));
    headers.insert(header::CONTENT_LENGTH, length.into());
    let name = format!("attachment; filename=\"{}.{}\"", status.id, container.extension());
    headers.extend(HeaderValue::try_from(name).ok().map(|name| (header::CONTENT_DISPOSITION, name)));
    Ok(response)
}

/// Numbers of renders are never given twice, so that its owner stays the same.
fn find(app: &App, caller: &Caller, id: &str) -> Result<Status, Problem> {
    let seen = app.renders.caller(id).is_some_and(|owner| caller.sees_of(owner.tenant()));
    app.renders.get(id).filter(|_| seen).ok_or_else(|| unknown(id))
}

pub fn unknown(id: &str) -> Problem {
    let shown: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    Problem::not_found(format!("there is no render `{shown}`; old ones are forgotten"))
}
