//! The nodes of a cluster, and what is asked of all of them.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde_json::Value;

use super::{App, Errors, sessions};
use crate::{
    cluster::{Member, Node, forward},
    engines,
    http::Problem,
    session::{SessionSpec, Status},
    tenants::Caller,
};

/// Longest wait for what a node has.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Longest answer of a node that is read, in bytes.
const MAX_ANSWER: usize = 32 << 20;
/// Headers by which a caller is known.
const KEYS: [&str; 2] = ["authorization", "x-api-key"];

fn member(app: &App) -> Result<&Arc<Member>, Problem> {
    let cure = "this server is in no cluster: start it with --cluster nats://HOST:4222";
    app.cluster.as_ref().ok_or_else(|| Problem::of(StatusCode::NOT_FOUND, "no-cluster", cure))
}

/// The cluster, where a client asks and not another node.
pub(super) fn asked<'a>(app: &'a App, headers: &HeaderMap) -> Option<&'a Arc<Member>> {
    app.cluster.as_ref().filter(|member| !member.is_node(headers))
}

/// The nodes that live, and what each holds. For the operator.
#[utoipa::path(get, path = "/cluster", tag = "machine", responses((status = 200, body = Vec<Node>), Errors))]
pub async fn nodes(State(app): State<Arc<App>>) -> Result<Json<Vec<Node>>, Problem> {
    Ok(Json(member(&app)?.nodes()))
}

/// Drain this node: it takes no new sessions, those that it has move to other nodes at a pause of speech, and then it ends. For the
/// operator.
#[utoipa::path(
    post, path = "/drain", tag = "machine", responses((status = 202, description = "It is drained from now on"), Errors),
)]
pub async fn drain(State(app): State<Arc<App>>) -> Result<StatusCode, Problem> {
    member(&app)?.drain(app.drain);
    Ok(StatusCode::ACCEPTED)
}

fn request(method: &str, path: &str, from: &HeaderMap, body: Body) -> Result<Request, Problem> {
    let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    for name in KEYS {
        if let Some(value) = from.get(name) {
            request = request.header(name, value);
        }
    }
    request.body(body).map_err(|e| Problem::internal(e.to_string()))
}

/// The sessions of all nodes, those of `own` among them. A node that does not answer in time is left out.
pub(super) async fn list(member: &Member, headers: &HeaderMap, own: Vec<Status>) -> Result<Vec<Value>, Problem> {
    let others = member.nodes().into_iter().filter(|node| !member.is_own(node));
    let ask = |node: Node| async move {
        let request = request("GET", "/api/v1/sessions", headers, Body::empty()).ok()?;
        let answer = async {
            let answer = forward(&node.url, member.secret(), request).await.ok()?;
            let body = axum::body::to_bytes(answer.into_body(), MAX_ANSWER).await.ok()?;
            serde_json::from_slice::<Vec<Value>>(&body).ok()
        };
        tokio::time::timeout(PATIENCE, answer).await.ok()?
    };
    let answers = futures_util::future::join_all(others.map(ask)).await;
    let own = own.into_iter().filter_map(|status| serde_json::to_value(status).ok());
    let mut all: Vec<Value> = own.chain(answers.into_iter().flatten().flatten()).collect();
    let id = |status: &Value| status["id"].as_str().unwrap_or_default().to_owned();
    all.sort_by_cached_key(id);
    Ok(all)
}

/// Creates a session on the node where it fits best.
pub(super) async fn create(
    app: &App,
    member: &Arc<Member>,
    caller: Caller,
    headers: &HeaderMap,
    spec: SessionSpec,
) -> Result<Response, Problem> {
    let named = [spec.engine.as_ref(), spec.params.get("engine")];
    named.into_iter().flatten().try_for_each(|name| engines::check_name(name))?;
    let engine = spec.params.get("engine").or(spec.engine.as_ref()).unwrap_or(&app.manager.settings().engine).clone();
    let mut text = serde_json::to_value(&spec).map_err(|e| Problem::internal(e.to_string()))?;
    // What a spec never shows.
    if let (Some(key), Some(text)) = (&spec.stream_key, text.as_object_mut()) {
        text.insert("stream_key".into(), key.clone().into());
    }
    let text = text.to_string();
    let mut refused = None;
    for node in member.candidates(&engine) {
        let answer = if member.is_own(&node) {
            sessions::create_here(app, caller.clone(), spec.clone()).await
        } else {
            let request = request("POST", "/api/v1/sessions", headers, Body::from(text.clone()))?;
            forward(&node.url, member.secret(), request).await
        };
        let status = answer.as_ref().map_or_else(|problem| problem.status, |answer| answer.status().as_u16());
        // Others may have the room, or an avatar that this one is only fetching.
        if !matches!(status, 422 | 502 | 503) {
            return answer;
        }
        refused = Some(answer);
    }
    let full = || {
        let cause = "the cluster is full: no node has room for one more session; see /api/v1/cluster, end a session or add a node";
        Err(Problem::full(cause))
    };
    refused.unwrap_or_else(full)
}
