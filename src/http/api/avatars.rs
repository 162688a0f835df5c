//! Avatars: list, upload, follow the preparation, delete.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
};
use utoipa::ToSchema;

use super::{App, Errors};
use crate::{
    avatar::{Consent, Given, Summary},
    http::{
        Problem, body, extract,
        form::{Binary, Form, Part},
        uploads::Job,
    },
    tenants::Caller,
};

const LIMIT: &str = "avatars.max_upload_mb";
/// The clip that an upload without a name becomes.
const IDLE: &str = "idle";
/// Header with the consent of an upload as the body.
const CONSENT: &str = "lipstream-consent";

type Accepted = (StatusCode, [(HeaderName, String); 1], Json<Job>);

/// Avatars that are ready.
#[utoipa::path(get, path = "/avatars", tag = "avatars", responses((status = 200, body = Vec<Summary>), Errors))]
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Vec<Summary>>, Problem> {
    let store = app.manager.avatars().clone();
    let listed = tokio::task::spawn_blocking(move || store.list_for(&caller)).await;
    listed.map(Json).map_err(|_| Problem::internal("the avatars could not be listed; the server's log says more"))
}

/// What a browser's form sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field")]
#[schema(as = AvatarForm)]
pub struct Fields {
    /// 1 to 64 of `a-z A-Z 0-9 . _ -`, starting with a letter or a digit.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    name: String,
    /// Name of the clip; the first clip of an avatar is its idle one.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    clip: Option<String>,
    /// What the person agrees to, a `ConsentGiven` as JSON; the server may demand it.
    consent: Option<String>,
    video: Binary,
}

/// Upload a video of a person as a form. It is checked and prepared by a job.
#[utoipa::path(
    post, path = "/avatars", tag = "avatars",
    request_body(content = inline(Fields), content_type = "multipart/form-data"),
    responses(
        (status = 202, body = Job, headers(("Location" = String, description = "Path of the job"))),
        Errors,
    ),
)]
pub async fn upload(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Result<Accepted, Problem> {
    let place = app.uploads.place()?;
    let limit = (app.settings.limits.upload, LIMIT);
    let mut form =
        Form::open(request, app.settings.limits.body_idle, limit, &["name", "clip", "consent"], &["video"]).await?;
    let (mut name, mut clip, mut consent, mut video) = (None, IDLE.to_owned(), None, None);
    while let Some(part) = form.next(&app.uploads, &caller).await? {
        match part {
            Part::File(_, upload) => video = Some(upload),
            Part::Text(field, text) if field == "name" => name = Some(text),
            Part::Text(field, text) if field == "consent" => consent = Some(self::consent(&text)?),
            Part::Text(_, text) => clip = text,
        }
    }
    let name = name.ok_or_else(|| Problem::bad_request("the form has no field `name`, which names the avatar"))?;
    check_names(&name, &clip)?;
    let (store, asks, wanted) = (app.manager.avatars().clone(), caller.clone(), name.clone());
    if tokio::task::spawn_blocking(move || store.is_taken(&wanted, &asks)).await.unwrap_or(true) {
        return Err(taken(&name));
    }
    let video = video.ok_or_else(|| Problem::bad_request("the form has no field `video`, which holds the file"))?;
    check_consent(&app, &name, consent.clone()).await?;
    Ok(accepted(app.uploads.prepare(caller, place, video, (name, clip), consent)))
}

/// Upload a video as the body: `curl -T me.mp4 .../api/v1/avatars/me/clips/idle`. It is checked and prepared by a job.
#[utoipa::path(
    put, path = "/avatars/{name}/clips/{clip}", tag = "avatars",
    params(
        ("name" = String, Path, description = "Avatar, made where there is none"),
        ("clip" = String, Path, description = "Clip; the first clip of an avatar is its idle one"),
        (
            "Lipstream-Consent" = Option<String>, Header,
            description = "What the person agrees to, a `ConsentGiven` as JSON; the server may demand it",
        ),
    ),
    request_body(content = inline(Binary), content_type = "application/octet-stream"),
    responses(
        (status = 202, body = Job, headers(("Location" = String, description = "Path of the job"))),
        Errors,
    ),
)]
pub async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path((name, clip)): extract::Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Accepted, Problem> {
    let limits = app.settings.limits;
    body::check_length(&headers, limits.upload, LIMIT)?;
    check_names(&name, &clip)?;
    let consent = headers.get(CONSENT).map(|value| {
        let text = std::str::from_utf8(value.as_bytes());
        consent(text.map_err(|_| Problem::invalid("Lipstream-Consent: is not UTF-8"))?)
    });
    let checked = match consent.transpose() {
        Ok(consent) => check_consent(&app, &name, consent.clone()).await.map(|()| consent),
        Err(problem) => Err(problem),
    };
    let place = app.uploads.place()?;
    let pieces = body::bounded(body, limits.upload, LIMIT, body::Pace::files(limits.body_idle));
    let upload = app.uploads.receive(&caller, pieces).await?;
    // Not sooner: who is still sending does not read why it is refused.
    let consent = checked?;
    Ok(accepted(app.uploads.prepare(caller, place, upload, (name, clip), consent)))
}

/// Uploads of this process and what became of them.
#[utoipa::path(get, path = "/uploads", tag = "avatars", responses((status = 200, body = Vec<Job>), Errors))]
pub async fn uploads(State(app): State<Arc<App>>, caller: Caller) -> Json<Vec<Job>> {
    Json(app.uploads.list(&caller))
}

/// How far an upload is.
#[utoipa::path(
    get, path = "/uploads/{id}", tag = "avatars", params(("id" = String, Path, description = "Upload")),
    responses((status = 200, body = Job), Errors),
)]
pub async fn progress(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(id): extract::Path<String>,
) -> Result<Json<Job>, Problem> {
    app.uploads.get(&id, &caller).map(Json)
}

/// Delete an avatar with all its clips.
#[utoipa::path(
    delete, path = "/avatars/{name}", tag = "avatars", params(("name" = String, Path, description = "Avatar")),
    responses((status = 204, description = "It is gone"), Errors),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(name): extract::Path<String>,
) -> Result<StatusCode, Problem> {
    let used = app.manager.list().iter().any(|session| session.spec().avatar.as_ref() == Some(&name));
    if used {
        return Err(Problem::conflict(format!("a session shows avatar `{name}`; end the session first")));
    }
    let (store, wanted) = (app.manager.avatars().clone(), name.clone());
    let removed = move || {
        let avatar = store.get_for(&wanted, &caller).ok_or_else(|| unknown(&wanted))?;
        store.remove(&wanted).map_err(|rejection| Problem::conflict(rejection.to_string()))?;
        Ok(avatar.owner.clone())
    };
    let owner = tokio::task::spawn_blocking(removed).await;
    let owner = owner.unwrap_or_else(|_| Err(Problem::internal("this is a fault of the server; its log says more")))?;
    if let (Some(tenants), Some(owner)) = (app.tenants.clone(), owner) {
        // It reads the disk; one that panics has been logged.
        let _ = tokio::task::spawn_blocking(move || tenants.count_avatars(&owner)).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub fn unknown(name: &str) -> Problem {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Problem::not_found(format!("there is no avatar `{shown}`"))
}

/// It tells no more than that.
pub fn taken(name: &str) -> Problem {
    Problem::conflict(format!("the name `{name}` is taken: choose another one"))
}

fn accepted(job: Job) -> Accepted {
    (StatusCode::ACCEPTED, [(header::LOCATION, format!("/api/v1/uploads/{}", job.id))], Json(job))
}

fn consent(json: &str) -> Result<Consent, Problem> {
    Given::parse(json).map_err(Problem::invalid)
}

/// Refuses an upload whose consent is missing or is another than the avatar's.
async fn check_consent(app: &App, name: &str, consent: Option<Consent>) -> Result<(), Problem> {
    let (store, name) = (app.manager.avatars().clone(), name.to_owned());
    match tokio::task::spawn_blocking(move || store.check_consent(&name, consent.as_ref())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(rejection)) => Err(Problem::invalid(rejection.to_string())),
        Err(_) => Err(Problem::internal("this is a fault of the server; its log says more")),
    }
}

/// They become parts of paths: checked before anything is stored, whatever the store does.
fn check_names(avatar: &str, clip: &str) -> Result<(), Problem> {
    for (what, name) in [("avatar", avatar), ("clip", clip)] {
        let bytes = name.as_bytes();
        let good = (1..=64).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
            && bytes[0].is_ascii_alphanumeric();
        if !good {
            let rule = "take 1 to 64 of a-z A-Z 0-9 . _ -, starting with a letter or a digit";
            return Err(Problem::invalid(format!("the name of the {what} is not allowed; {rule}")));
        }
    }
    Ok(())
}
