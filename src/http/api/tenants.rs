//! Tenants, their keys, what they have used, who did what.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{App, Errors};
use crate::{
    http::{Problem, extract},
    tenants::{Caller, Entry, Failure, KeyInfo, Limits, Month, NewKey, Row, TenantInfo, Tenants, csv},
};

/// Entries of the audit log in one answer.
const AUDITED: u16 = 1000;

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let detail = failure.to_string();
        match failure {
            Failure::Unknown(_) => Self::not_found(detail),
            Failure::Invalid(_) | Failure::Address(_) => Self::invalid(detail),
            Failure::Store(_) | Failure::Fault => {
                tracing::error!("{detail}");
                Self::of(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store",
                    "the store of tenants fails; the server's log says more",
                )
            }
        }
    }
}

fn tenants(app: &App) -> Result<&Arc<Tenants>, Problem> {
    let cure = "this server has no store of tenants: set auth.store";
    app.tenants.as_ref().ok_or_else(|| Problem::of(StatusCode::NOT_FOUND, "no-store", cure))
}

/// Tenants, their limits, what they hold now and have used of this month. For the operator.
#[utoipa::path(get, path = "/tenants", tag = "tenants", responses((status = 200, body = Vec<TenantInfo>), Errors))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<TenantInfo>>, Problem> {
    Ok(Json(tenants(&app)?.list().iter().map(|tenant| tenant.info()).collect()))
}

/// Make a tenant, or replace its limits. For the operator.
#[utoipa::path(
    put, path = "/tenants/{name}", tag = "tenants", request_body = Limits,
    params(("name" = String, Path, description = "Tenant", min_length = 1, max_length = 64)),
    responses((status = 200, body = TenantInfo), Errors),
)]
pub async fn put(
    State(app): State<Arc<App>>,
    extract::Path(name): extract::Path<String>,
    extract::Json(limits): extract::Json<Limits>,
) -> Result<Json<TenantInfo>, Problem> {
    let tenants = tenants(&app)?;
    tenants.store().put_tenant(&name, &limits).await?;
    tenants.read().await?;
    let gone = || Problem::conflict("the tenant has been removed meanwhile");
    Ok(Json(tenants.get(&name).ok_or_else(gone)?.info()))
}

/// Remove a tenant: its keys are revoked, its sessions end. Its avatars and its usage stay. For the operator.
#[utoipa::path(
    delete, path = "/tenants/{name}", tag = "tenants", params(("name" = String, Path, description = "Tenant")),
    responses((status = 204, description = "It is gone"), Errors),
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    extract::Path(name): extract::Path<String>,
) -> Result<StatusCode, Problem> {
    let tenants = tenants(&app)?;
    tenants.store().remove_tenant(&name).await?;
    tenants.read().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keys of all tenants, revoked ones too, without the keys themselves. For the operator.
#[utoipa::path(get, path = "/keys", tag = "tenants", responses((status = 200, body = Vec<KeyInfo>), Errors))]
pub async fn keys(State(app): State<Arc<App>>) -> Result<Json<Vec<KeyInfo>>, Problem> {
    let keys = tenants(&app)?.store().keys().await?;
    Ok(Json(keys.into_iter().map(|kept| kept.info).collect()))
}

/// A key that has just been made.
#[derive(Serialize, ToSchema)]
pub struct MadeKey {
    /// The key itself, which is not shown again.
    #[schema(example = "lsk_Zm9v")]
    key: String,
    #[serde(flatten)]
    info: KeyInfo,
}

/// Make a key of a tenant. It is shown in this answer only. For the operator.
#[utoipa::path(
    post, path = "/keys", tag = "tenants", request_body = NewKey,
    responses(
        (status = 201, body = MadeKey, headers(("Location" = String, description = "Path to revoke it"))),
        Errors,
    ),
)]
pub async fn add_key(
    State(app): State<Arc<App>>,
    extract::Json(new): extract::Json<NewKey>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<MadeKey>), Problem> {
    let tenants = tenants(&app)?;
    let (key, info) = tenants.store().add_key(&new).await?;
    tenants.read().await?;
    let location = format!("/api/v1/keys/{}", info.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(MadeKey { key, info })))
}

/// Revoke a key: it opens nothing from now on, and what it has opened ends. For the operator.
#[utoipa::path(
    delete, path = "/keys/{id}", tag = "tenants", params(("id" = String, Path, description = "Name of the key")),
    responses((status = 204, description = "It is revoked"), Errors),
)]
pub async fn revoke(
    State(app): State<Arc<App>>,
    extract::Path(id): extract::Path<String>,
) -> Result<StatusCode, Problem> {
    let tenants = tenants(&app)?;
    tenants.store().revoke(&id).await?;
    tenants.read().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Tenant; all where it is not said. Tenants see their own whatever they say.
    tenant: Option<String>,
    /// Month in UTC, as `2026-11`; all where it is not said.
    #[param(pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    month: Option<String>,
    /// `json` or `csv`; as `Accept` says where it is not said.
    #[param(pattern = "^(json|csv)$")]
    format: Option<String>,
}

/// What has been used, by tenant and month, the newest month first. Tenants see their own.
#[utoipa::path(
    get, path = "/usage", tag = "tenants", params(Which),
    responses((status = 200, content((Vec<Row> = "application/json"), (String = "text/csv"))), Errors),
)]
pub async fn usage(
    State(app): State<Arc<App>>,
    caller: Caller,
    extract::Query(Which { tenant, month, format }): extract::Query<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenants = tenants(&app)?;
    let wrong = |name: &str, must: &str| Problem::invalid(format!("{name}: must be {must}"));
    let month =
        month.map(|month| Month::parse(&month).ok_or_else(|| wrong("month", "a month as 2026-11"))).transpose()?;
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let as_csv = match format.as_deref() {
        Some("csv") => true,
        Some("json") => false,
        Some(_) => return Err(wrong("format", "json or csv")),
        None => accepted.split(',').next().is_some_and(|first| first.trim().starts_with("text/csv")),
    };
    // What the sessions have used until now is in it.
    app.manager.settle();
    tenants.write().await?;
    let tenant = caller.tenant().map(|tenant| tenant.name.clone()).or(tenant);
    let rows = tenants.store().usage(tenant.as_deref(), month).await?;
    Ok(match as_csv {
        true => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&rows)).into_response(),
        false => Json(rows).into_response(),
    })
}

/// What of the audit log is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Tenant; all, and the operator, where it is not said.
    tenant: Option<String>,
    /// Milliseconds since 1970: only what was before.
    before: Option<i64>,
    /// Entries, at most and where nothing is said 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
}

/// Who did what, the newest first: requests that change something, and WebSockets. For the operator.
#[utoipa::path(get, path = "/audit", tag = "tenants", params(Page), responses((status = 200, body = Vec<Entry>), Errors))]
pub async fn audit(
    State(app): State<Arc<App>>,
    extract::Query(Page { tenant, before, limit }): extract::Query<Page>,
) -> Result<Json<Vec<Entry>>, Problem> {
    let tenants = tenants(&app)?;
    tenants.write().await?;
    let limit = limit.unwrap_or(AUDITED).clamp(1, AUDITED);
    Ok(Json(tenants.store().audit(tenant.as_deref(), before.unwrap_or(i64::MAX), limit).await?))
}
