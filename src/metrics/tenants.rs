//! What the tenants hold, and what has been counted for them since the server started.

use prometheus::proto::{MetricFamily, MetricType};

use super::collect::{family, metric};
use crate::tenants::{Held, Tenant, Tenants};

/// A metric of a tenant: name, help and how it is read.
type Reading = (&'static str, &'static str, fn(&Tenant) -> f64);

const GAUGES: [Reading; 3] = [
    ("lipstream_tenant_sessions", "Sessions of a tenant, running or not", |t| t.held(Held::Sessions) as f64),
    ("lipstream_tenant_viewers", "Viewers of a tenant's sessions", |t| t.held(Held::Viewers) as f64),
    ("lipstream_tenant_stored_bytes", "Bytes of a tenant's avatars, uploads and renders", |t| {
        t.held(Held::Bytes) as f64
    }),
];

const COUNTERS: [Reading; 4] = [
    ("lipstream_tenant_session_seconds_total", "Time for which graphs of a tenant's sessions ran", |t| {
        t.totals().session_us as f64 / 1e6
    }),
    ("lipstream_tenant_gpu_seconds_total", "Time of cards that a tenant's sessions and renders took", |t| {
        t.totals().gpu_us as f64 / 1e6
    }),
    ("lipstream_tenant_frames_total", "Frames that were made for a tenant", |t| t.totals().frames as f64),
    ("lipstream_tenant_egress_bytes_total", "Media that was handed to a tenant's viewers", |t| {
        t.totals().egress_bytes as f64
    }),
];

pub fn families(tenants: &Tenants) -> Vec<MetricFamily> {
    let list = tenants.list();
    let mut families = Vec::new();
    for (kind, readings) in [(MetricType::GAUGE, &GAUGES[..]), (MetricType::COUNTER, &COUNTERS[..])] {
        for (name, help, read) in readings {
            let of = |tenant: &std::sync::Arc<Tenant>| metric(kind, &[("tenant", &tenant.name)], read(tenant));
            families.push(family(name, help, kind, list.iter().map(of).collect()));
        }
    }
    let mut refused = Vec::new();
    for tenant in &list {
        let (quota, rate) = tenant.refused();
        for (reason, count) in [("quota", quota), ("rate", rate)] {
            let labels = [("tenant", tenant.name.as_str()), ("reason", reason)];
            refused.push(metric(MetricType::COUNTER, &labels, count as f64));
        }
    }
    families.push(family("lipstream_tenant_refused_total", "Requests over a quota", MetricType::COUNTER, refused));
    let lost = vec![metric(MetricType::COUNTER, &[], tenants.unrecorded() as f64)];
    families.push(family("lipstream_audit_lost_total", "Audit entries left out", MetricType::COUNTER, lost));
    families
}
