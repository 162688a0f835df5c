//! Metrics in Prometheus' format: what sessions say about themselves when they are asked, and what is counted here.

mod collect;
mod gpu;
mod tenants;

use std::{sync::Arc, time::Duration};

use axum::http::Method;
use parking_lot::Mutex;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder, proto::MetricFamily,
};

use crate::{cluster, rtmp, session::Manager, webrtc};

/// Upper bounds of the buckets for requests, in seconds.
const REQUEST_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];

/// See the module.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    servers: Mutex<Vec<Source>>,
}

/// Reads the metrics of a part of the service.
type Source = Box<dyn Fn() -> Vec<MetricFamily> + Send>;

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let requests = IntCounterVec::new(
            Opts::new("lipstream_http_requests_total", "HTTP requests that were answered"),
            &["method", "route", "status"],
        )
        .expect("the name is valid");
        let request_seconds = HistogramVec::new(
            HistogramOpts::new(
                "lipstream_http_request_duration_seconds",
                "Time until the head of the answer was ready",
            )
            .buckets(REQUEST_BUCKETS.to_vec()),
            &["route"],
        )
        .expect("the name is valid");
        let registry = Registry::new();
        registry.register(Box::new(requests.clone())).expect("is registered once");
        registry.register(Box::new(request_seconds.clone())).expect("is registered once");
        Self { registry, requests, request_seconds, servers: Mutex::default() }
    }

    /// Adds the RTMP server.
    pub fn watch_rtmp(&self, server: Arc<rtmp::Server>) {
        self.servers.lock().push(Box::new(move || collect::rtmp(&server.stats())));
    }

    /// Adds the cluster that this machine is in.
    pub fn watch_cluster(&self, member: Arc<cluster::Member>) {
        self.servers.lock().push(Box::new(move || collect::cluster(&member.stats())));
    }

    /// An answered request.
    pub fn request(&self, method: &Method, route: &str, status: u16, took: Duration) {
        // Made-up methods share one label.
        let known =
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::HEAD];
        let method = if known.contains(method) { method.as_str() } else { "other" };
        self.requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// Adds the WebRTC server.
    pub fn watch_webrtc(&self, server: Arc<webrtc::Server>) {
        self.servers.lock().push(Box::new(move || collect::webrtc(&server.totals())));
    }

    /// All metrics as text.
    pub fn text(&self, manager: &Manager) -> Vec<u8> {
        let mut families = collect::families(manager);
        families.extend(self.servers.lock().iter().flat_map(|read| read()));
        families.extend(self.registry.gather());
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}
