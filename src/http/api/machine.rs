//! What is installed, how much the machine holds, where its other doors are.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Errors};
use crate::{
    engines, graph,
    http::{IceServer, Problem},
    session::{Capacity, Video, Voice},
};

/// Engines that are installed.
#[utoipa::path(get, path = "/engines", tag = "machine", responses((status = 200, body = Vec<engines::Row>), Errors))]
pub async fn engines() -> Result<Json<Vec<engines::Row>>, Problem> {
    // It reads models from the disk and tries devices.
    let rows = tokio::task::spawn_blocking(engines::installed).await;
    rows.map(Json).map_err(|_| Problem::internal("the engines could not be listed; the server's log says more"))
}

/// A graph that sessions can have.
#[derive(Serialize, ToSchema)]
pub struct Graph {
    name: String,
    description: String,
    video: Video,
    voice: Voice,
    params: Vec<graph::Parameter>,
}

/// Graphs that sessions can have, with their parameters.
#[utoipa::path(get, path = "/graphs", tag = "machine", responses((status = 200, body = Vec<Graph>), Errors))]
pub async fn graphs(State(app): State<Arc<App>>) -> Json<Vec<Graph>> {
    // A user's file that is broken or none for sessions is left out; creating a session of it says why.
    let describe = |name: String| {
        let (graph, service) = app.manager.graph(&name).ok()?;
        let description = graph.description().split_whitespace().collect::<Vec<_>>().join(" ");
        Some(Graph { name, description, video: service.video, voice: service.voice, params: graph.params() })
    };
    Json(app.manager.graphs().into_iter().filter_map(describe).collect())
}

/// How many sessions run and how many more fit.
#[utoipa::path(get, path = "/capacity", tag = "machine", responses((status = 200, body = Capacity), Errors))]
pub async fn capacity(State(app): State<Arc<App>>) -> Json<Capacity> {
    Json(app.manager.capacity())
}

/// The server itself.
#[derive(Serialize, ToSchema)]
pub struct Server {
    version: &'static str,
    /// Where RTMP clients publish and play, without the session; none where RTMP is off.
    #[schema(example = "rtmp://127.0.0.1:1935/live")]
    rtmp_url: Option<String>,
    /// STUN and TURN servers for clients of WHIP and WHEP.
    ice_servers: Vec<IceServer>,
    /// CPU seconds that the process has taken.
    cpu_seconds: f64,
    memory_bytes: u64,
    threads: u64,
    /// Cores of the machine.
    cores: usize,
}

/// Version, addresses and what the process takes.
#[utoipa::path(get, path = "/server", tag = "machine", responses((status = 200, body = Server), Errors))]
pub async fn server(State(app): State<Arc<App>>) -> Json<Server> {
    let usage = crate::process::Usage::now();
    Json(Server {
        version: env!("CARGO_PKG_VERSION"),
        rtmp_url: app.settings.rtmp_url.clone(),
        ice_servers: app.settings.ice_servers.clone(),
        cpu_seconds: usage.cpu_seconds,
        memory_bytes: usage.memory_bytes,
        threads: usage.threads,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    })
}
