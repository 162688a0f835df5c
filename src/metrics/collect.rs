//! Metrics of the sessions, read from their state at the moment in which they are asked for.

use std::collections::BTreeMap;

use lipstream_engines::{
    engine::Worker,
    stats::{BUCKETS_US, Totals},
};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::{gpu, tenants};
use crate::{
    cluster,
    process::Usage,
    rtmp,
    session::{Manager, Phase, Resource, Status},
    untouched, webrtc,
};

/// A metric of a session: name, help and how it is read.
type Reading = (&'static str, &'static str, fn(&Status) -> f64);

/// Counters start again with the session.
const COUNTERS: [Reading; 8] = [
    ("lipstream_session_frames_total", "Frames that left the graph", |s| s.frames as f64),
    ("lipstream_session_frames_held_total", "Frames shown again because none came", |s| s.frames_held as f64),
    ("lipstream_session_frames_late_total", "Frames shown with an older mouth", |s| s.frames_late as f64),
    ("lipstream_session_frames_dropped_total", "Frames never shown", |s| s.frames_dropped as f64),
    ("lipstream_session_frames_untouched_total", "Frames that keep their own mouth although another was wanted", |s| {
        untouched::total(&s.frames_untouched) as f64
    }),
    ("lipstream_session_samples_missing_total", "Audio samples filled with silence", |s| s.samples_missing as f64),
    ("lipstream_session_sync_corrections_total", "Times that a mouth that was off for long was corrected", |s| {
        s.sync_corrections as f64
    }),
    ("lipstream_session_restarts_total", "Restarts of the graph after a fault", |s| s.restarts as f64),
];

const GAUGES: [Reading; 18] = [
    ("lipstream_session_running", "1 while the graph runs", |s| f64::from(s.phase == Some(Phase::Running))),
    ("lipstream_session_viewers", "Viewers", |s| s.viewers as f64),
    ("lipstream_session_fps", "Frames a second, over the last second", |s| s.fps),
    ("lipstream_session_uptime_seconds", "Time since the graph started", |s| s.uptime),
    ("lipstream_session_latency_seconds", "From voice in to lips out, inside the graph", |s| s.latency_ms / 1e3),
    ("lipstream_session_av_offset_seconds", "Video minus audio at the encoders", |s| s.av_offset_ms / 1e3),
    ("lipstream_session_skew_ratio", "How much faster the source's clock is than ours", |s| s.skew_ppm / 1e6),
    ("lipstream_session_sync_offset_frames", "Frames of 40 ms by which the mouth that is made is late", |s| {
        s.sync_offset.map_or(f64::NAN, |frames| frames as f64)
    }),
    ("lipstream_session_sync_confidence", "Confidence of that", |s| s.sync_confidence.unwrap_or(f64::NAN)),
    ("lipstream_session_sync_shift_seconds", "How much later features are taken to correct it", |s| {
        s.sync_shift_ms / 1e3
    }),
    ("lipstream_session_source_sync_offset_frames", "Frames of 40 ms by which the source's own picture is late", |s| {
        s.source_sync_offset.map_or(f64::NAN, |frames| frames as f64)
    }),
    ("lipstream_session_source_sync_confidence", "Confidence of that", |s| {
        s.source_sync_confidence.unwrap_or(f64::NAN)
    }),
    ("lipstream_session_speaking", "1 while speech is spoken", |s| f64::from(s.speaking)),
    ("lipstream_session_speech_queued_seconds", "Speech that waits", |s| s.speech_queued_ms / 1e3),
    ("lipstream_session_flush_seconds", "Time that the last interruption took", |s| {
        s.flush_ms.map_or(f64::NAN, |ms| ms / 1e3)
    }),
    ("lipstream_session_video_bytes_per_second", "Bit rate that the video encoder is set to, in bytes", |s| {
        f64::from(s.video_bitrate) / 8.0
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
    families.extend(engine_stages());
    families.extend(engines());
    families.extend(versions(manager, &statuses));
    families.extend(pushes(&statuses));
    families.extend(machine(manager));
    families.extend(manager.tenants().map(|known| tenants::families(known)).unwrap_or_default());
    families.extend(gpu::families());
    families.extend(process());
    // A family without a metric is no valid text.
    families.retain(|family| !family.get_metric().is_empty());
    families
}

fn stages(statuses: &[Status]) -> MetricFamily {
    let mut metrics = Vec::new();
    for status in statuses {
        for stage in &status.stages {
            let mut metric = labelled(&[("session", &status.id), ("stage", &stage.name)]);
            metric.set_histogram(histogram(&stage.totals));
            metrics.push(metric);
        }
    }
    let help = "Time that a stage of the graph takes for a frame, or for a piece of sound";
    family("lipstream_stage_duration_seconds", help, MetricType::HISTOGRAM, metrics)
}

/// Of the engines that are loaded: an engine on two devices is counted as one.
fn engine_stages() -> [MetricFamily; 2] {
    let mut counts = BTreeMap::<(String, &str), (u64, u64)>::new();
    for worker in Worker::all() {
        for stage in worker.stats().stages {
            let count = counts.entry((worker.engine().spec().name.clone(), stage.kind.name())).or_default();
            count.0 += stage.batches;
            count.1 += stage.items;
        }
    }
    let family = |name, help, read: fn(&(u64, u64)) -> u64| {
        let of = |((engine, stage), count): (&(String, &str), &(u64, u64))| {
            metric(MetricType::COUNTER, &[("engine", engine), ("stage", stage)], read(count) as f64)
        };
        family(name, help, MetricType::COUNTER, counts.iter().map(of).collect())
    };
    [
        family("lipstream_engine_stage_batches_total", "Evaluations of a stage of an engine", |count| count.0),
        family("lipstream_engine_stage_items_total", "Frames, or steps of frames, in those evaluations", |count| {
            count.1
        }),
    ]
}

/// Queues and memory of the engines that are loaded.
fn engines() -> [MetricFamily; 4] {
    let (mut queued, mut waits, mut exhausted, mut most) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut of_name = BTreeMap::<String, (u64, f64, u64, BTreeMap<&str, usize>)>::new();
    for worker in Worker::all() {
        let stats = worker.stats();
        let of = of_name.entry(worker.engine().spec().name.clone()).or_default();
        of.0 += stats.queued as u64;
        of.1 = of.1.max(stats.batch_timeout.as_secs_f64());
        of.2 += stats.exhausted;
        for (name, fits) in stats.stages.iter().filter_map(|stage| Some((stage.kind.name(), stage.most?))) {
            of.3.entry(name).and_modify(|known| *known = fits.min(*known)).or_insert(fits);
        }
    }
    for (engine, (waiting, wait, failed, fits)) in &of_name {
        let labels = [("engine", engine.as_str())];
        queued.push(metric(MetricType::GAUGE, &labels, *waiting as f64));
        waits.push(metric(MetricType::GAUGE, &labels, *wait));
        exhausted.push(metric(MetricType::COUNTER, &labels, *failed as f64));
        for (stage, fits) in fits {
            most.push(metric(MetricType::GAUGE, &[("engine", engine.as_str()), ("stage", stage)], *fits as f64));
        }
    }
    let gauge = |name, help, metrics| family(name, help, MetricType::GAUGE, metrics);
    [
        gauge("lipstream_engine_queued_items", "Frames or clips that wait for a stage", queued),
        gauge("lipstream_engine_batch_timeout_seconds", "How long a batch waits for those of other sessions", waits),
        family(
            "lipstream_engine_out_of_memory_total",
            "Frames or clips for which there was no memory",
            MetricType::COUNTER,
            exhausted,
        ),
        gauge("lipstream_engine_stage_batch_limit_items", "Most of a batch since memory ended at more", most),
    ]
}

/// Versions of engines: which sessions have them, and how often one was taken back.
fn versions(manager: &Manager, statuses: &[Status]) -> [MetricFamily; 3] {
    let mut sessions = BTreeMap::<&str, u64>::new();
    for engine in statuses.iter().filter_map(|status| status.engine.as_deref()) {
        *sessions.entry(engine).or_default() += 1;
    }
    let of = |(engine, count): (&&str, &u64)| metric(MetricType::GAUGE, &[("engine", engine)], *count as f64);
    let (mut shares, mut rollbacks) = (Vec::new(), Vec::new());
    for (engine, share, count) in manager.rollouts().summary() {
        shares.push(metric(MetricType::GAUGE, &[("engine", &engine)], f64::from(share) / 100.0));
        rollbacks.push(metric(MetricType::COUNTER, &[("engine", &engine)], count as f64));
    }
    [
        family(
            "lipstream_engine_sessions",
            "Sessions whose graph runs with the engine",
            MetricType::GAUGE,
            sessions.iter().map(of).collect(),
        ),
        family("lipstream_engine_canary_ratio", "Part of the sessions that has the canary", MetricType::GAUGE, shares),
        family(
            "lipstream_engine_rollbacks_total",
            "Versions that were taken back because they were not healthy",
            MetricType::COUNTER,
            rollbacks,
        ),
    ]
}

fn histogram(totals: &Totals) -> Histogram {
    let bounds = BUCKETS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    let bucket = |(bound, count): (f64, &u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(*count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(bounds.zip(&totals.buckets).map(bucket).collect());
    histogram.set_sample_count(totals.count);
    histogram.set_sample_sum(totals.sum_us as f64 / 1e6);
    histogram
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

/// The RTMP server.
pub fn rtmp(stats: &rtmp::Stats) -> Vec<MetricFamily> {
    let gauge = |name, help, value: usize| single(name, help, MetricType::GAUGE, value as f64);
    let count = |name, help, value: u64| single(name, help, MetricType::COUNTER, value as f64);
    vec![
        gauge("lipstream_rtmp_connections", "RTMP connections", stats.connections),
        gauge("lipstream_rtmp_publishers", "RTMP publishers", stats.publishers),
        gauge("lipstream_rtmp_players", "RTMP players", stats.players),
        count("lipstream_rtmp_accepted_total", "RTMP connections that were taken", stats.accepted),
        count("lipstream_rtmp_rejected_total", "RTMP connections that were turned away", stats.rejected),
        count("lipstream_rtmp_received_bytes_total", "Bytes from RTMP clients", stats.bytes_in),
        count("lipstream_rtmp_sent_bytes_total", "Bytes to RTMP clients", stats.bytes_out),
        count("lipstream_rtmp_dropped_total", "Packets that came faster than they could be decoded", stats.dropped),
    ]
}

/// A counter of WebRTC peers: name, help and how it is read.
type Traffic = (&'static str, &'static str, fn(&webrtc::Counters) -> u64);

const TRAFFIC: [Traffic; 9] = [
    ("lipstream_webrtc_packets_total", "RTP packets, resent ones included", |c| c.packets),
    ("lipstream_webrtc_bytes_total", "Bytes of RTP", |c| c.bytes),
    ("lipstream_webrtc_packets_lost_total", "Packets reported as lost before any resend", |c| c.packets_lost),
    ("lipstream_webrtc_nacks_total", "Requests to send packets again", |c| c.nacks),
    ("lipstream_webrtc_plis_total", "Reports of a lost picture", |c| c.plis),
    ("lipstream_webrtc_firs_total", "Requests for a full picture", |c| c.firs),
    ("lipstream_webrtc_frames_skipped_total", "Frames that a slow network made us leave out", |c| c.frames_skipped),
    ("lipstream_webrtc_frames_total", "Video frames", |c| c.frames),
    ("lipstream_webrtc_sounds_total", "Audio packets", |c| c.sounds),
];

/// The WebRTC server.
pub fn webrtc(totals: &webrtc::Totals) -> Vec<MetricFamily> {
    let gauge = |name, help, value: usize| single(name, help, MetricType::GAUGE, value as f64);
    let count = |name, help, value: u64| single(name, help, MetricType::COUNTER, value as f64);
    let mut families = vec![
        gauge("lipstream_webrtc_viewers", "Viewers by WHEP", totals.viewers),
        gauge("lipstream_webrtc_publishers", "Publishers by WHIP", totals.publishers),
        count("lipstream_webrtc_opened_total", "Peers that have come", totals.opened),
        count("lipstream_webrtc_never_connected_total", "Peers that never connected", totals.never_connected),
        count("lipstream_webrtc_timed_out_total", "Peers whose network fell silent", totals.timed_out),
        count("lipstream_webrtc_refused_total", "Offers that were refused", totals.refused),
        count("lipstream_webrtc_stray_datagrams_total", "Datagrams that belonged to no peer", totals.stray_datagrams),
    ];
    for (name, help, read) in TRAFFIC {
        let directions = [("sent", &totals.sent), ("received", &totals.received)];
        let of =
            |(direction, counters)| metric(MetricType::COUNTER, &[("direction", direction)], read(counters) as f64);
        families.push(family(name, help, MetricType::COUNTER, directions.map(of).into()));
    }
    families
}

/// The cluster, as this node sees it.
pub fn cluster(stats: &cluster::Stats) -> Vec<MetricFamily> {
    let gauge = |name, help, value: f64| single(name, help, MetricType::GAUGE, value);
    let count = |name, help, value: u64| single(name, help, MetricType::COUNTER, value as f64);
    vec![
        gauge("lipstream_cluster_connected", "1 while the NATS servers answer", f64::from(stats.connected)),
        gauge("lipstream_cluster_nodes", "Nodes that live, this one among them", stats.nodes as f64),
        gauge("lipstream_cluster_sessions", "Sessions of all nodes", stats.sessions as f64),
        gauge("lipstream_cluster_draining", "1 while this node is drained", f64::from(stats.draining)),
        count("lipstream_cluster_taken_total", "Sessions of other nodes that went on here", stats.taken),
        count("lipstream_cluster_moved_total", "Sessions that moved away from here", stats.moved),
        count(
            "lipstream_cluster_yielded_total",
            "Sessions that ended here because another node had them",
            stats.yielded,
        ),
        count("lipstream_cluster_forwarded_total", "Requests that other nodes answered", stats.forwarded),
    ]
}

fn single(name: &str, help: &str, kind: MetricType, value: f64) -> MetricFamily {
    family(name, help, kind, vec![metric(kind, &[], value)])
}

fn machine(manager: &Manager) -> Vec<MetricFamily> {
    let capacity = manager.capacity();
    let left = manager.settings().max_sessions.saturating_sub(capacity.sessions);
    let free = if capacity.full.is_some() { 0 } else { capacity.sessions_left.min(left) };
    let one = |name, help, value| single(name, help, MetricType::GAUGE, value);
    let each = |name, help, read: fn(&Resource) -> f64| {
        let of =
            |r: &Resource| metric(MetricType::GAUGE, &[("device", &r.device), ("resource", r.kind.name())], read(r));
        family(name, help, MetricType::GAUGE, capacity.resources.iter().map(of).collect())
    };
    vec![
        each("lipstream_capacity_resource_used", "What the sessions that run take of it by their prices", |r| r.used),
        each("lipstream_capacity_resource_room", "What sessions may use of it", |r| r.room),
        each("lipstream_capacity_resource_per_session", "What one more session would add", |r| r.per_session),
        one("lipstream_sessions", "Sessions, running or not", capacity.sessions as f64),
        one("lipstream_capacity_cores", "Cores that sessions may use", capacity.cores),
        one("lipstream_capacity_cores_used", "Cores that sessions use", capacity.cores_used),
        one("lipstream_capacity_sessions_left", "720p25 sessions that still fit", capacity.sessions_left as f64),
        one("lipstream_sessions_free", "Sessions that would be taken now", free as f64),
        one("lipstream_ready", "1 while the next session would be taken", f64::from(capacity.full.is_none())),
    ]
}

/// Names that Prometheus' own client libraries use.
fn process() -> Vec<MetricFamily> {
    let usage = Usage::now();
    vec![
        single("process_cpu_seconds_total", "CPU time of the process", MetricType::COUNTER, usage.cpu_seconds),
        single("process_resident_memory_bytes", "Resident memory", MetricType::GAUGE, usage.memory_bytes as f64),
        single("process_threads", "Threads", MetricType::GAUGE, usage.threads as f64),
        single("process_open_fds", "Open file descriptors", MetricType::GAUGE, usage.open_files as f64),
    ]
}

pub(super) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

pub(super) fn metric(kind: MetricType, labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = labelled(labels);
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
