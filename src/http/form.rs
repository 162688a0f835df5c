//! Forms with files (`multipart/form-data`, RFC 7578): files go to the disk as they come.

use axum::{
    body::Body,
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError, MultipartRejection},
    },
};
use futures_util::stream;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type},
};

use super::{
    App, body,
    problem::Problem,
    uploads::{Upload, Uploads},
};

/// Longest text field, in bytes.
const TEXT: usize = 4096;

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
    texts: &'static [&'static str],
    files: &'static [&'static str],
}

/// A field of it, with its name.
pub enum Part {
    Text(String, String),
    File(String, Upload),
}

impl Form {
    /// Opens a form of at most `limit` bytes; `key` is the configuration's name of that limit.
    pub async fn open(
        app: &App,
        request: Request,
        (limit, key): (u64, &'static str),
        texts: &'static [&'static str],
        files: &'static [&'static str],
    ) -> Result<Self, Problem> {
        body::check_length(request.headers(), limit, key)?;
        let (parts, body) = request.into_parts();
        let pieces = body::bounded(body, limit, key, app.settings.limits.body_idle);
        let request = Request::from_parts(parts, Body::from_stream(pieces));
        let refused = |e: MultipartRejection| Problem::media_type(e.body_text());
        let form = Multipart::from_request(request, &()).await.map_err(refused)?;
        Ok(Self { form, texts, files })
    }

    /// The next field; files are stored in `uploads`.
    pub async fn next(&mut self, uploads: &Uploads) -> Result<Option<Part>, Problem> {
        let Some(field) = self.form.next_field().await.map_err(broken)? else { return Ok(None) };
        let name = field.name().unwrap_or_default().to_owned();
        if self.texts.contains(&name.as_str()) {
            return Ok(Some(Part::Text(name, text(field).await?)));
        }
        if self.files.contains(&name.as_str()) {
            let pieces = stream::unfold(field, |mut field| async move {
                let piece = field.chunk().await.map_err(broken).transpose()?;
                Some((piece, field))
            });
            return Ok(Some(Part::File(name, uploads.receive(Box::pin(pieces)).await?)));
        }
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let known: Vec<&str> = self.texts.iter().chain(self.files).copied().collect();
        Err(Problem::bad_request(format!("the form has a field `{shown}`; it takes {}", known.join(", "))))
    }
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
