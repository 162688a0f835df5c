//! Extractors of axum whose refusals are problems.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{App, body, problem::Problem};
use crate::tenants::Caller;

/// A JSON body that came whole in this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A JSON body.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &Arc<App>) -> Result<Self, Problem> {
        body::check_length(request.headers(), state.settings.limits.json as u64, "limits.json_kb")?;
        let read = tokio::time::timeout(PATIENCE, axum::Json::<T>::from_request(request, state)).await;
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come within 30 s");
        match read.map_err(late)? {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(JsonRejection::JsonDataError(error)) => Err(Problem::invalid(error.body_text())),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(Problem::media_type("the body must be JSON; send `Content-Type: application/json`"))
            }
            Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Problem::too_large("the JSON body is larger than limits.json_kb"))
            }
            Err(error) => Err(Problem::bad_request(error.body_text())),
        }
    }
}

/// Who asks, as the guard has found.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let missing = || Problem::internal("the request has not passed the guard");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// Parts of the path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let refused =
            |error: PathRejection| Problem::not_found(format!("the path does not fit: {}", error.body_text()));
        read.map(|axum::extract::Path(value)| Self(value)).map_err(refused)
    }
}

/// Parameters of the query.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let refused = |error: QueryRejection| Problem::bad_request(error.body_text());
        read.map(|axum::extract::Query(value)| Self(value)).map_err(refused)
    }
}
