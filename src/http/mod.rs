//! HTTP: the operator page, the REST API, WHIP and WHEP, metrics and health, on one router.
//!
//! ```text
//! listen ─► panics caught ─► counted ─► CORS ─► guard (host, origin, key, rate, scope, whose) ─► handler
//! ```
//!
//! Nothing behind [`guard`] is reached without passing it; who may what is in the table of [`crate::tenants::scope`].

mod access;
pub mod agent_socket;
mod api;
pub(crate) mod body;
mod diagram;
pub(crate) mod extract;
mod form;
mod guard;
mod health;
mod layers;
mod linger;
mod listen;
pub(crate) mod liveavatar;
mod nodes;
mod page;
mod problem;
pub mod speech_socket;
mod uploads;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::get};
use serde::Serialize;
use tokio::sync::Semaphore;
use url::Url;
use utoipa::ToSchema;

pub use self::{
    access::SUBPROTOCOL,
    api::openapi,
    listen::{Bounds, serve},
    liveavatar::Grants,
    problem::Problem,
    uploads::Uploads,
};
#[doc(hidden)]
pub use self::{
    access::decode_base64url,
    diagram::svg,
    form::read_all as read_form,
    liveavatar::{bearer, token_of},
};
use crate::{cluster::Member, jobs, metrics::Metrics, session::Manager, tenants::Tenants};

/// What the router is told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub bind: IpAddr,
    /// Bearer keys; none is open.
    pub keys: Vec<String>,
    pub public_url: Option<Url>,
    /// Origins of pages that may use the API besides our own; `*` is any.
    pub cors_origins: Vec<String>,
    pub limits: Limits,
    /// Where RTMP clients publish and play, without the session: `rtmp://127.0.0.1:1935/live`.
    pub rtmp_url: Option<String>,
    /// What the page gives to its peer connections.
    pub ice_servers: Vec<IceServer>,
}

/// A STUN or TURN server, as browsers take it (`RTCIceServer`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IceServer {
    pub urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Bounds on request bodies, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub json: usize,
    pub speak: u64,
    pub upload: u64,
    pub render: u64,
    /// Pause within a body after which it is given up.
    pub body_idle: Duration,
}

/// What handlers share.
pub struct App {
    pub manager: Arc<Manager>,
    pub metrics: Arc<Metrics>,
    pub uploads: Arc<Uploads>,
    pub renders: Arc<jobs::Renders>,
    /// Tokens for single sessions.
    pub grants: Arc<Grants>,
    /// Those who have keys besides the operator; `None` where there is no store of them.
    pub tenants: Option<Arc<Tenants>>,
    /// This machine as one of a cluster; `None` where it is alone.
    pub cluster: Option<Arc<Member>>,
    /// Time that sessions have to pause before they move, where the node is drained.
    pub drain: Duration,
    /// WebSockets that may still be opened: they are no longer connections of the listener.
    pub sockets: Arc<Semaphore>,
    pub settings: Settings,
}

/// All routes with everything in front of them. `more` are the routes of other protocols, WHIP and WHEP.
pub fn router(app: Arc<App>, more: Router) -> Router {
    let settings = &app.settings;
    let access = access::Access::new(
        settings.keys.clone(),
        settings.bind,
        settings.public_url.as_ref(),
        settings.cors_origins.clone(),
        app.grants.clone(),
        app.tenants.clone(),
    );
    let guarded = Arc::new(guard::Guard { access, app: app.clone() });
    let (api, document) = api::routes().split_for_parts();
    let document: Arc<str> = api::text(&document).into();
    let more = more.layer(DefaultBodyLimit::max(settings.limits.json));
    let own = Router::new()
        .merge(page::routes())
        .merge(health::routes())
        .merge(nodes::routes())
        .route("/openapi.json", get(move || layers::json_text(document.clone())))
        .merge(api)
        .layer(DefaultBodyLimit::max(settings.limits.json))
        .with_state(app.clone());
    own.merge(more)
        .fallback(layers::not_found)
        .method_not_allowed_fallback(layers::method_not_allowed)
        .layer(middleware::from_fn_with_state(guarded, guard::guard))
        // Around the guard, which refuses without reading.
        .layer(middleware::from_fn(linger::linger))
        // Around the guard: a page that may ask is to read why it was refused.
        .layer(middleware::from_fn_with_state(Arc::new(settings.cors_origins.clone()), layers::cors))
        .layer(middleware::from_fn(layers::headers))
        .layer(middleware::from_fn_with_state(app.metrics.clone(), layers::count))
        .layer(layers::catch_panic())
}
