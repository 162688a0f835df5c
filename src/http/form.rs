//! Forms with files (`multipart/form-data`, RFC 7578): files go to the disk as they come.

use std::{
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError, MultipartRejection},
    },
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type},
};

use super::{
    body::{self, Pace},
    problem::Problem,
    uploads::{Upload, Uploads},
};
use crate::tenants::Caller;

/// Longest text field, in bytes.
const TEXT: usize = 4096;

/// Longest head of a part, with what stands before it, in bytes.
const HEAD: usize = 16 << 10;
/// Bytes of a file that are taken at a time.
const AHEAD: usize = 256 << 10;

/// Bytes of a body, for the OpenAPI document.
pub struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Binary {}

/// A form that is being read.
pub struct Form {
    form: Multipart,
    lookahead: Arc<Mutex<Lookahead>>,
    texts: &'static [&'static str],
    files: &'static [&'static str],
}

/// A field of it, with its name.
pub enum Part {
    Text(String, String),
    File(String, Upload),
}

impl Form {
    /// Opens a form of at most `limit` bytes; `key` is the configuration's name of that limit. `idle` is the longest pause
    /// within it.
    pub async fn open(
        request: Request,
        idle: Duration,
        (limit, key): (u64, &'static str),
        texts: &'static [&'static str],
        files: &'static [&'static str],
    ) -> Result<Self, Problem> {
        body::check_length(request.headers(), limit, key)?;
        let (parts, body) = request.into_parts();
        let pieces = body::bounded(body, limit, key, Pace::files(idle));
        let lookahead = Arc::new(Mutex::new(Lookahead::default()));
        let request = Request::from_parts(parts, Body::from_stream(guarded(pieces, lookahead.clone())));
        let refused = |e: MultipartRejection| Problem::media_type(e.body_text());
        let form = Multipart::from_request(request, &()).await.map_err(refused)?;
        Ok(Self { form, lookahead, texts, files })
    }

    /// The next field; files are stored in `uploads` for `caller`.
    pub async fn next(&mut self, uploads: &Uploads, caller: &Caller) -> Result<Option<Part>, Problem> {
        *self.lookahead.lock() = Lookahead { head: true, ..Lookahead::default() };
        let Some(field) = self.form.next_field().await.map_err(broken)? else { return Ok(None) };
        *self.lookahead.lock() = Lookahead::default();
        let name = field.name().unwrap_or_default().to_owned();
        if self.texts.contains(&name.as_str()) {
            return Ok(Some(Part::Text(name, text(field).await?)));
        }
        if self.files.contains(&name.as_str()) {
            let pieces = stream::unfold(field, |mut field| async move {
                let piece = field.chunk().await.map_err(broken).transpose()?;
                Some((piece, field))
            });
            return Ok(Some(Part::File(name, uploads.receive(caller, Box::pin(pieces)).await?)));
        }
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let known: Vec<&str> = self.texts.iter().chain(self.files).copied().collect();
        Err(Problem::bad_request(format!("the form has a field `{shown}`; it takes {}", known.join(", "))))
    }
}

/// What the form's parser has been given since it last gave something: it takes all that there is and keeps it until
/// it finds what it looks for.
#[derive(Default)]
struct Lookahead {
    /// It looks for the head of a part.
    head: bool,
    taken: usize,
    /// It was made to look at what it has.
    held: bool,
}

/// `pieces` in portions, and no more of them than a head may have where the parser looks for one.
fn guarded(
    mut pieces: impl Stream<Item = Result<Bytes, Problem>> + Unpin,
    lookahead: Arc<Mutex<Lookahead>>,
) -> impl Stream<Item = Result<Bytes, Problem>> {
    stream::poll_fn(move |context| {
        let mut lookahead = lookahead.lock();
        if lookahead.taken >= if lookahead.head { HEAD } else { AHEAD } {
            if lookahead.head && lookahead.held {
                let cause = format!("a part of the form does not begin within {} kB", HEAD >> 10);
                return Poll::Ready(Some(Err(Problem::bad_request(cause))));
            }
            lookahead.held = true;
            if !lookahead.head {
                lookahead.taken = 0;
            }
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = ready!(pieces.poll_next_unpin(context));
        if let Some(Ok(piece)) = &piece {
            lookahead.taken += piece.len();
        }
        Poll::Ready(piece)
    })
}

async fn text(mut field: Field<'_>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(broken)? {
        if bytes.len() + piece.len() > TEXT {
            return Err(Problem::bad_request(format!("a text field of the form is longer than {TEXT} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| Problem::bad_request("a text field of the form is not UTF-8"))
}

/// What stopped the body beneath is told as it is.
fn broken(error: MultipartError) -> Problem {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(problem) = cause.downcast_ref::<Problem>() {
            return problem.clone();
        }
        source = cause.source();
    }
    Problem::bad_request(format!("the form cannot be read: {}", error.body_text()))
}

/// Reads a form as handlers do, for fuzzing: its files go to `uploads` and are removed.
pub async fn read_all(request: Request, uploads: &Uploads) -> Result<(), Problem> {
    let limit = (1 << 20, "limit");
    let mut form = Form::open(request, Duration::from_secs(1), limit, &["name", "clip", "consent"], &["video"]).await?;
    while form.next(uploads, &Caller::Operator).await?.is_some() {}
    Ok(())
}
