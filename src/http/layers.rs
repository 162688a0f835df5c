//! What every request passes besides access: counting, CORS, headers, panics.

use std::{any::Any, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use super::problem::Problem;
use crate::metrics::Metrics;

/// Seconds for which a browser remembers what a preflight said.
const PREFLIGHT: &str = "3600";
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
/// What WHIP and WHEP clients read (RFC 9725).
const EXPOSED: &str = "Location, Link, ETag, Accept-Patch, Accept-Post, X-Digital-Source-Type";

pub async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}; /openapi.json lists what there is", uri.path()))
}

pub async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}; see the header Allow", uri.path()))
}

pub async fn json_text(text: Arc<str>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}

/// CORS (Fetch standard, section 3.3). Requests for OPTIONS that are no preflight go on: WHIP and WHEP answer them.
pub async fn cors(State(origins): State<Arc<Vec<String>>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| origins.iter().any(|o| o == "*" || o.as_bytes() == origin.as_bytes()));
    let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let preflight = request.method() == Method::OPTIONS && asks;
    let mut response = if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(allowed) = allowed else { return response };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT));
        if let Some(wanted) = wanted {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
    }
    response
}

/// Headers of every response.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // State changes by the second: nothing may be kept that does not say so.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Counts and times requests by route. A stream counts until its head is out.
pub async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let start = Instant::now();
    let response = next.run(request).await;
    // Routes that do not exist share one label: their number is not ours to bound.
    metrics.request(&method, route.as_deref().unwrap_or("none"), response.status().as_u16(), start.elapsed());
    response
}

/// A handler that panics fails its own request only.
pub fn catch_panic() -> CatchPanicLayer<Panicked> {
    CatchPanicLayer::custom(Panicked)
}

#[derive(Clone, Copy)]
pub struct Panicked;

impl ResponseForPanic for Panicked {
    type ResponseBody = axum::body::Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send>) -> Response {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        tracing::error!("a request handler panicked: {}", text.unwrap_or("no message"));
        Problem::internal("this is a fault of the server; its log says more").into_response()
    }
}
