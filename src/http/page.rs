//! The operator page: files of `web/`, part of the program.

use std::sync::Arc;

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use super::App;

/// Only what this server serves: no scripts or styles in the markup, no frames around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const PERMISSIONS: &str = "microphone=(self), camera=(self), autoplay=(self)";

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(|| file("text/html; charset=utf-8", include_str!("../../web/index.html"))))
        .route("/app.js", get(|| file("text/javascript; charset=utf-8", include_str!("../../web/app.js"))))
        .route("/app.css", get(|| file("text/css; charset=utf-8", include_str!("../../web/app.css"))))
        .route("/icon.svg", get(|| file("image/svg+xml", include_str!("../../web/icon.svg"))))
}

async fn file(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::HeaderName::from_static("permissions-policy"), PERMISSIONS),
    ];
    (headers, text).into_response()
}
