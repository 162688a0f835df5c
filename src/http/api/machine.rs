//! What is installed, how much the machine holds, where its other doors are.

use std::sync::Arc;

use axum::{Json, extract::State};
use lipstream_engines::{engine::Worker, runtime::cards};
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Errors};
use crate::{
    engines, graph,
    http::{IceServer, Problem},
    session::{Capacity, EngineStage, Video, Voice},
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
    /// What encodes the H.264 of sessions.
    #[schema(example = "x264enc")]
    encoder: &'static str,
    /// NVIDIA's cards; none where no driver is.
    cards: Vec<Card>,
    /// Engines that are loaded.
    engines: Vec<Loaded>,
}

/// A card of NVIDIA's as its driver says it. What it does not say is left out.
#[derive(Serialize, ToSchema)]
pub struct Card {
    /// As the driver counts.
    number: u32,
    name: String,
    memory_bytes: u64,
    /// Of all programs.
    memory_used_bytes: u64,
    /// The part of the last moments in which a kernel ran, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    utilisation: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature_celsius: Option<f64>,
}

/// An engine that sessions share.
#[derive(Serialize, ToSchema)]
pub struct Loaded {
    name: String,
    /// Streams that it makes mouths for.
    streams: usize,
    /// Frames or clips that wait for a stage.
    queued: usize,
    /// How long a batch waits for those of other sessions.
    batch_timeout_ms: f64,
    stages: Vec<EngineStage>,
}

/// Cards and engines, the latter by their names.
fn hardware() -> (Vec<Card>, Vec<Loaded>) {
    let card = |card: cards::Card| Card {
        number: card.number,
        name: card.name,
        memory_bytes: card.memory,
        memory_used_bytes: card.memory_used,
        utilisation: card.busy,
        power_watts: card.power,
        temperature_celsius: card.temperature,
    };
    let loaded = |worker: Arc<Worker>| {
        let stats = worker.stats();
        Loaded {
            name: worker.engine().spec().name.clone(),
            streams: stats.streams,
            queued: stats.queued,
            batch_timeout_ms: stats.batch_timeout.as_secs_f64() * 1e3,
            stages: stats.stages.iter().map(EngineStage::of).collect(),
        }
    };
    let cards = cards::cards().map(|found| found.cards).unwrap_or_default();
    let mut engines: Vec<Loaded> = Worker::all().into_iter().map(loaded).collect();
    engines.sort_by(|a, b| a.name.cmp(&b.name));
    (cards.into_iter().map(card).collect(), engines)
}

/// Version, addresses and what the process takes.
#[utoipa::path(get, path = "/server", tag = "machine", responses((status = 200, body = Server), Errors))]
pub async fn server(State(app): State<Arc<App>>) -> Json<Server> {
    // The driver may take its time.
    let (cards, engines) = tokio::task::spawn_blocking(hardware).await.unwrap_or_default();
    let usage = crate::process::Usage::now();
    Json(Server {
        version: env!("CARGO_PKG_VERSION"),
        rtmp_url: app.settings.rtmp_url.clone(),
        ice_servers: app.settings.ice_servers.clone(),
        cpu_seconds: usage.cpu_seconds,
        memory_bytes: usage.memory_bytes,
        threads: usage.threads,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        encoder: app.manager.settings().encoder.name(),
        cards,
        engines,
    })
}
