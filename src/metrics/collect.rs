//! Metrics of the sessions, read from their state at the moment in which they are asked for.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::Usage;
use crate::session::{Manager, Phase, Status};

/// A metric of a session: name, help and how it is read.
type Reading = (&'static str, &'static str, fn(&Status) -> f64);

/// Counters start again with the session.
const COUNTERS: [Reading; 6] = [
    ("lipstream_session_frames_total", "Frames that left the graph", |s| s.frames as f64),
    ("lipstream_session_frames_held_total", "Frames shown again because none came", |s| s.frames_held as f64),
    ("lipstream_session_frames_late_total", "Frames shown with an older mouth", |s| s.frames_late as f64),
    ("lipstream_session_frames_dropped_total", "Frames never shown", |s| s.frames_dropped as f64),
    ("lipstream_session_samples_missing_total", "Audio samples filled with silence", |s| s.samples_missing as f64),
    ("lipstream_session_restarts_total", "Restarts of the graph after a fault", |s| s.restarts as f64),
];

const GAUGES: [Reading; 13] = [
    ("lipstream_session_running", "1 while the graph runs", |s| f64::from(s.phase == Some(Phase::Running))),
    ("lipstream_session_viewers", "Viewers", |s| s.viewers as f64),
    ("lipstream_session_fps", "Frames a second, over the last second", |s| s.fps),
    ("lipstream_session_uptime_seconds", "Time since the graph started", |s| s.uptime),
    ("lipstream_session_latency_seconds", "From voice in to lips out, inside the graph", |s| s.latency_ms / 1e3),
    ("lipstream_session_av_offset_seconds", "Video minus audio at the encoders", |s| s.av_offset_ms / 1e3),
    ("lipstream_session_skew_ratio", "How much faster the source's clock is than ours", |s| s.skew_ppm / 1e6),
    ("lipstream_session_speaking", "1 while speech is spoken", |s| f64::from(s.speaking)),
    ("lipstream_session_speech_queued_seconds", "Speech that waits", |s| s.speech_queued_ms / 1e3),
    ("lipstream_session_flush_seconds", "Time that the last interruption took", |s| {
        s.flush_ms.map_or(f64::NAN, |ms| ms / 1e3)
    }),
    ("lipstream_session_video_bits_per_second", "Bit rate that the video encoder is set to", |s| {
        f64::from(s.video_bitrate)
    }),
    ("lipstream_session_face", "1 while a face is followed", |s| f64::from(s.face)),
    ("lipstream_session_publishing", "1 while a source publishes", |s| f64::from(s.publishing)),
];

/// Everything that is not counted where it happens.
pub fn families(manager: &Manager) -> Vec<MetricFamily> {
    let statuses: Vec<Status> = manager.list().iter().map(|session| session.status()).collect();
    let mut families = Vec::new();
    for (kind, readings) in [(MetricType::COUNTER, &COUNTERS[..]), (MetricType::GAUGE, &GAUGES[..])] {
        for (name, help, read) in readings {
            let of = |s: &Status| metric(kind, &[("session", &s.id)], read(s));
            families.push(family(name, help, kind, statuses.iter().map(of).collect()));
        }
    }
    families.push(stages(&statuses));
    families.extend(pushes(&statuses));
    families.extend(machine(manager));
    families.extend(process());
    // A family without a metric is no valid text.
    families.retain(|family| !family.get_metric().is_empty());
    families
}

fn stages(statuses: &[Status]) -> MetricFamily {
    let mut metrics = Vec::new();
    for status in statuses {
        for stage in &status.stages {
            for (quantile, ms) in [("0.5", stage.p50_ms), ("0.95", stage.p95_ms), ("0.99", stage.p99_ms)] {
                let labels = [("session", status.id.as_str()), ("stage", &stage.name), ("quantile", quantile)];
                metrics.push(metric(MetricType::GAUGE, &labels, ms / 1e3));
            }
        }
    }
    let help = "Time that a stage of the graph takes for a frame";
    family("lipstream_stage_quantile_seconds", help, MetricType::GAUGE, metrics)
}

fn pushes(statuses: &[Status]) -> [MetricFamily; 2] {
    let (mut connected, mut reconnects) = (Vec::new(), Vec::new());
    for status in statuses {
        for (number, push) in status.pushes.iter().enumerate() {
            let number = number.to_string();
            let labels = [("session", status.id.as_str()), ("push", &number)];
            connected.push(metric(MetricType::GAUGE, &labels, f64::from(push.connected)));
            reconnects.push(metric(MetricType::COUNTER, &labels, push.reconnects as f64));
        }
    }
    [
        family("lipstream_push_connected", "1 while the push reaches its server", MetricType::GAUGE, connected),
        family("lipstream_push_reconnects_total", "Reconnections of a push", MetricType::COUNTER, reconnects),
    ]
}

fn machine(manager: &Manager) -> Vec<MetricFamily> {
    let capacity = manager.capacity();
    let one = |name, help, value| family(name, help, MetricType::GAUGE, vec![metric(MetricType::GAUGE, &[], value)]);
    vec![
        one("lipstream_sessions", "Sessions, running or not", capacity.sessions as f64),
        one("lipstream_capacity_cores", "Cores that sessions may use", capacity.cores),
        one("lipstream_capacity_cores_used", "Cores that sessions use", capacity.cores_used),
        one("lipstream_capacity_sessions_left", "720p25 sessions that still fit", capacity.sessions_left as f64),
        one("lipstream_ready", "1 while the next session would be taken", f64::from(capacity.full.is_none())),
    ]
}

/// Names that Prometheus' own client libraries use.
fn process() -> Vec<MetricFamily> {
    let usage = Usage::now();
    let one = |name, help, kind, value| family(name, help, kind, vec![metric(kind, &[], value)]);
    vec![
        one("process_cpu_seconds_total", "CPU time of the process", MetricType::COUNTER, usage.cpu_seconds),
        one("process_resident_memory_bytes", "Resident memory", MetricType::GAUGE, usage.memory_bytes as f64),
        one("process_threads", "Threads", MetricType::GAUGE, usage.threads as f64),
        one("process_open_fds", "Open file descriptors", MetricType::GAUGE, usage.open_files as f64),
    ]
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn metric(kind: MetricType, labels: &[(&str, &str)], value: f64) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut metric = Metric::from_label(labels.iter().map(pair).collect());
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
