//! Errors of the API: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{session::Refusal, tenants::Exceeded};

/// Seconds after which a client may ask again where the machine is full.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Longest detail, in bytes.
const MAX_DETAIL: usize = 2000;

/// Why a request failed and what helps.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Stays the same for one kind of problem: `urn:lipstream:` and the kind.
    #[serde(rename = "type")]
    #[schema(example = "urn:lipstream:unknown")]
    pub kind: Cow<'static, str>,
    /// The HTTP status in words.
    #[schema(example = "Not Found")]
    pub title: Cow<'static, str>,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    pub status: u16,
    /// Cause and cure.
    #[schema(example = "there is no session `anna`")]
    pub detail: String,
}

impl Problem {
    /// A problem whose kind is the status in words.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self::of(status, &title.to_ascii_lowercase().replace(' ', "-"), detail)
    }

    pub fn of(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:lipstream:{kind}").into(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: shortened(detail.into()),
        }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::NOT_FOUND, "unknown", detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// A value is wrong.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    pub fn media_type(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail)
    }

    pub fn internal(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail)
    }

    pub fn full(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, "full", detail)
    }
}

/// A problem may quote what was sent, and that may be long.
fn shortened(mut detail: String) -> String {
    if detail.len() > MAX_DETAIL {
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
        detail.push('…');
    }
    detail
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        Self::of(StatusCode::TOO_MANY_REQUESTS, "quota", exceeded.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, kind) = match refusal {
            Refusal::Unknown(_) | Refusal::UnknownEngine(_) => (StatusCode::NOT_FOUND, "unknown"),
            Refusal::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Refusal::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Refusal::Full(_) => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            Refusal::NotReady(_) => (StatusCode::CONFLICT, "not-ready"),
            Refusal::Exceeded(exceeded) => return exceeded.into(),
            Refusal::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        Self::of(status, kind, refusal.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lipstream\""));
            }
            _ => {}
        }
        response
    }
}
