//! An engine's versions: which there are, and which sessions have.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use lipstream_engines::manifest::Aliases;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{App, Errors, sessions::blocking};
use crate::{
    http::{Problem, extract},
    session::EngineReport,
    tenants::Caller,
};

/// An engine's versions, its aliases, and what its sessions have counted.
#[utoipa::path(
    get, path = "/engines/{name}", tag = "machine", params(("name" = String, Path, description = "Engine")),
    responses((status = 200, body = EngineReport), Errors),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(name): extract::Path<String>,
) -> Result<Json<EngineReport>, Problem> {
    let manager = app.manager.clone();
    // It reads manifests from the disk.
    Ok(Json(blocking(move || manager.engine(&name, &caller)).await?))
}

/// Which version sessions have. What is left out has no alias, and no share.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Versions by alias: `stable` is what the name alone stands for, `canary` what the share of the sessions has.
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Percent of the sessions that have the canary; a session that has it keeps it while the share grows.
    #[serde(default)]
    #[schema(maximum = 100)]
    share: u8,
}

/// Give sessions another version. It is loaded beside the one in use before this answers; sessions that run take it at the next pause
/// of speech.
#[utoipa::path(
    put, path = "/engines/{name}", tag = "machine", request_body = Rollout,
    params(("name" = String, Path, description = "Engine")),
    responses((status = 200, body = EngineReport), Errors),
)]
pub async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Path(name): extract::Path<String>,
    extract::Json(Rollout { aliases, share }): extract::Json<Rollout>,
) -> Result<Json<EngineReport>, Problem> {
    let manager = app.manager.clone();
    let change = move || {
        manager.change_engine(&name, Aliases { share, aliases })?;
        manager.engine(&name, &caller)
    };
    Ok(Json(blocking(change).await?))
}
