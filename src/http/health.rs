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
    if app.cluster.as_ref().is_some_and(|cluster| cluster.is_draining()) {
        return Err(Problem::full("this node is being drained: its sessions move to others, and it takes no new ones"));
    }
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
