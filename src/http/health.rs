//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use super::{App, problem::Problem};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(healthy)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// The process answers.
async fn healthy() -> &'static str {
    "ok\n"
}

/// The next session would be taken.
async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    match app.manager.capacity().full {
        None => Ok("ready\n"),
        Some(reason) => Err(Problem::full(reason)),
    }
}

/// Prometheus' text format, version 0.0.4.
async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.text(&app.manager);
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response()
}
