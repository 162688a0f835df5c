//! Renders of a cluster: any node takes them, any renders them, and each has one result however its workers end.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::{Value, json};

use super::{
    KEY, NO_DEMO, Server,
    common::{nats::Nats, *},
    storage::{FORM, form},
};

/// Nodes that share a place for files and the store of tenants.
struct Nodes {
    nodes: Vec<Server>,
    shared: tempfile::TempDir,
    _nats: Nats,
}

impl Nodes {
    fn start(names: &[&str], more: &[(&str, &str)]) -> Option<Self> {
        let shared = tempfile::tempdir().expect("a folder");
        let nats = Nats::start(&shared.path().join("nats"))?;
        let place = format!("file://{}", shared.path().join("objects").display());
        let store = format!("sqlite://{}", shared.path().join("tenants.db").display());
        let node = |name: &&str| {
            let mut environment = vec![
                NO_DEMO,
                ("LIPSTREAM_CLUSTER_URL", &nats.url),
                ("LIPSTREAM_CLUSTER_NODE", name),
                ("LIPSTREAM_CLUSTER_DRAIN_SECONDS", "0"),
                ("LIPSTREAM_STORAGE_URL", &place),
                ("LIPSTREAM_RENDERS_TAKEOVER_SECONDS", "2"),
                ("LIPSTREAM_AUTH_STORE", &store),
                ("LIPSTREAM_AUTH_KEYS", KEY),
            ];
            environment.extend(more);
            let mut server = Server::start(&environment);
            server.key = Some(KEY);
            server
        };
        let nodes = names.iter().map(node).collect();
        Some(Self { nodes, shared, _nats: nats })
    }

    /// Hands a render in at a node, with a key.
    fn submit(&self, node: usize, key: &str, seconds: f64, options: &str) -> String {
        let server = &self.nodes[node];
        let headers = [("content-type", FORM), ("x-api-key", key)];
        let body = form(seconds, self.shared.path(), options);
        let request = ureq::http::Request::builder().method("POST").uri(format!("{}/api/v1/renders", server.url));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut answer = server.agent.run(request.body(body).expect("is a request")).expect("is answered");
        let text = answer.body_mut().read_to_string().expect("is text");
        assert_eq!(answer.status().as_u16(), 202, "{text}");
        let render: Value = serde_json::from_str(&text).expect("is JSON");
        render["id"].as_str().expect("has an id").to_owned()
    }

    /// Which node renders, once it has begun.
    fn worker(&self, id: &str) -> usize {
        let mut found = None;
        self.nodes[0].wait("somebody renders", |_| {
            found = (0..self.nodes.len()).find(|node| !self.scratch(*node).is_empty());
            found.is_some()
        });
        let worker = found.expect("was found");
        let other = &self.nodes[1 - worker];
        other.wait("the other node hears of it", |s| s.get(&path(id))["progress"].as_f64() > Some(0.05));
        worker
    }

    fn scratch(&self, node: usize) -> Vec<String> {
        names(&self.nodes[node].folder.path().join("data/lipstream/renders"))
    }

    fn until_done(&self, node: usize, id: &str) -> Value {
        let mut status = Value::Null;
        self.nodes[node].wait("it is rendered", |s| {
            status = s.get(&path(id));
            assert!(status["state"] != "failed", "{status}");
            status["state"] == "done"
        });
        status
    }

    /// Objects of a job.
    fn objects(&self, id: &str) -> Vec<String> {
        let folder = self.shared.path().join("objects/renders").join(id);
        if folder.is_dir() { names(&folder) } else { Vec::new() }
    }

    fn signal(&self, node: usize, signal: &str) {
        succeed(Command::new("kill").args([signal, &self.nodes[node].child.id().to_string()]));
    }
}

fn path(id: &str) -> String {
    format!("/api/v1/renders/{id}")
}

const MKV: &str = "{\"container\":\"mkv\"}";

/// The frames that a tenant has used, as the store has them.
fn frames(server: &Server) -> u64 {
    let usage = server.get("/api/v1/usage");
    usage[0]["frames"].as_u64().unwrap_or_default()
}

fn frames_of(file: &Path) -> usize {
    probe(file, "v").frames()
}

#[test]
fn a_render_has_one_result_however_its_workers_end() {
    let Some(cluster) = Nodes::start(&["a", "b"], &[]) else { return };
    let first = &cluster.nodes[0];
    first.json("PUT", "/api/v1/tenants/anna", Some(json!({"stored_bytes": 50_000_000})), 200);
    let key = first.json("POST", "/api/v1/keys", Some(json!({"tenant": "anna", "scopes": ["operate"]})), 201);
    let key = key["key"].as_str().expect("is shown").to_owned();
    cluster.nodes[1].wait("the other node knows her", |s| s.get("/api/v1/tenants")[0]["name"] == "anna");

    // One that stands still for longer than is waited comes back to find that another has done it.
    let stalled = cluster.submit(0, &key, 1.0, MKV);
    let worker = cluster.worker(&stalled);
    cluster.signal(worker, "-STOP");
    let done = cluster.until_done(1 - worker, &stalled);
    cluster.signal(worker, "-CONT");
    first.wait("it gives up", |_| cluster.scratch(worker).is_empty());
    assert_eq!((&done["frames"], &done["container"]), (&json!(25), &json!("mkv")), "{done}");
    let objects = cluster.objects(&stalled);
    assert!(objects.len() == 1 && objects[0].starts_with("result-"), "{objects:?}");
    let kept = cluster.shared.path().join("objects/renders").join(&stalled).join(&objects[0]);
    assert_eq!((frames_of(&kept), kept.metadata().expect("is there").len()), (25, done["bytes"].as_u64().unwrap()));
    assert_eq!(cluster.until_done(worker, &stalled)["bytes"], done["bytes"], "both nodes say the same");
    let held = |s: &Server| s.get("/api/v1/tenants")[0]["stored_bytes"].as_u64();
    assert_eq!((held(first), held(&cluster.nodes[1])), (done["bytes"].as_u64(), done["bytes"].as_u64()));

    // One that is removed at another node stops where it is rendered.
    let cancelled = cluster.submit(1, &key, 30.0, MKV);
    let worker = cluster.worker(&cancelled);
    assert_eq!(cluster.nodes[1 - worker].send("DELETE", &path(&cancelled), "", b"").0, 204);
    first.wait("it stops", |_| cluster.scratch(worker).is_empty() && cluster.objects(&cancelled).is_empty());
    for node in &cluster.nodes {
        node.wait("it is forgotten", |s| s.send("GET", &path(&cancelled), "", b"").0 == 404);
    }

    // One that dies is followed by another.
    let killed = cluster.submit(0, &key, 1.6, MKV);
    let worker = cluster.worker(&killed);
    let left = 1 - worker;
    cluster.signal(worker, "-KILL");
    let done = cluster.until_done(left, &killed);
    assert_eq!(done["frames"], 40, "{done}");
    let server = &cluster.nodes[left];
    // What it was rendered from is removed once the result is known.
    let alone = |_: &Server| matches!(cluster.objects(&killed).as_slice(), [one] if one.starts_with("result-"));
    server.wait("the result is all that is left", alone);
    server.wait("it is counted", |s| frames(s) >= 65);
    // Long enough for what would be counted twice.
    server.wait("it is written again", |s| s.get("/api/v1/tenants")[0]["stored_bytes"].as_u64() > Some(0));
    assert_eq!(frames(server), 65, "each is counted once");
    let (status, ..) = server.send("DELETE", &path(&killed), "", b"");
    assert_eq!((status, cluster.objects(&stalled).len()), (204, 1));
    server.wait("it is removed", |_| cluster.objects(&killed).is_empty());
}

/// Times of the packets of a stream, and what is in them.
fn packets(file: &Path, kind: &str) -> (Vec<String>, String) {
    let asked = |arguments: &[&str]| {
        let output = succeed(Command::new(arguments[0]).args(&arguments[1..]));
        String::from_utf8(output.stdout).expect("is text")
    };
    let file = file.to_str().expect("is text");
    let shown = ["-select_streams", kind, "-show_entries", "packet=pts_time", "-of", "csv=p=0", file];
    let times = asked(&[&["ffprobe", "-v", "error"][..], &shown].concat());
    let sum =
        asked(&["ffmpeg", "-v", "error", "-i", file, "-map", &format!("0:{kind}"), "-c", "copy", "-f", "md5", "-"]);
    (times.lines().map(|line| line.trim_end_matches(',').to_owned()).collect(), sum)
}

#[test]
fn a_long_render_is_made_in_parts_and_joined_without_a_seam_though_a_worker_dies() {
    let Some(cluster) = Nodes::start(&["a", "b"], &[("LIPSTREAM_RENDERS_SPLIT_SECONDS", "2")]) else { return };
    // Encoded without loss: what differs was drawn differently.
    let lossless = "{\"crf\":0}";
    let id = cluster.submit(0, KEY, 6.0, lossless);
    let mut seen = BTreeSet::new();
    let mut look = || {
        let parts = cluster
            .objects(&id)
            .into_iter()
            .filter_map(|n| Some(n.strip_prefix("part-")?.split_once('-')?.0.to_owned()));
        seen.extend(parts);
        seen.len()
    };
    cluster.nodes[0].wait("a part is made", |_| look() > 0);
    let mut worker = None;
    cluster.nodes[0].wait("somebody renders another", |_| {
        worker = (0..2).find(|node| !cluster.scratch(*node).is_empty());
        worker.is_some()
    });
    let worker = worker.expect("was found");
    cluster.signal(worker, "-KILL");
    let left = &cluster.nodes[1 - worker];
    let mut done = Value::Null;
    left.wait("it is rendered", |s| {
        look();
        done = s.get(&path(&id));
        assert!(done["state"] != "failed", "{done}");
        done["state"] == "done"
    });
    assert_eq!(seen, ["0", "1", "2"].map(str::to_owned).into(), "the parts");
    assert_eq!((&done["frames"], &done["seconds"]), (&json!(150), &json!(6.0)), "{done}");
    let mut objects = Vec::new();
    left.wait("what it was made of is removed", |_| {
        objects = cluster.objects(&id);
        objects.len() == 1
    });
    assert!(objects[0].starts_with("result-"), "{objects:?}");
    let joined = cluster.shared.path().join("objects/renders").join(&id).join(&objects[0]);

    // The same by one machine in one piece.
    let folder = tempfile::tempdir().expect("a folder");
    let alone = Server::start(&[NO_DEMO]);
    let (status, _, text) = alone.send("POST", "/api/v1/renders", FORM, &form(6.0, folder.path(), lossless));
    assert_eq!(status, 202, "{text}");
    let own = serde_json::from_str::<Value>(&text).expect("is JSON")["id"].as_str().expect("has an id").to_owned();
    alone.wait("it is rendered", |s| s.get(&path(&own))["state"] == "done");
    let whole = alone.folder.path().join("data/lipstream/renders").join(&own).join("result.mp4");
    let ((times, sound), (times_joined, sound_joined)) = (packets(&whole, "a"), packets(&joined, "a"));
    assert_eq!((times, sound), (times_joined, sound_joined), "every bit of the sound");
    let (mut times, mut times_joined) = (packets(&whole, "v").0, packets(&joined, "v").0);
    times.sort();
    times_joined.sort();
    assert_eq!(times_joined, times, "every frame at its time, once");
    let (whole, joined) = (Luma::of(&whole, folder.path()), Luma::of(&joined, folder.path()));
    // The mouth: a lip that opens a frame sooner or later is 5 and more.
    let rect = (0.44, 0.47, 0.14, 0.16);
    let differences: Vec<f64> = (0..150).map(|n| whole.difference(n, &joined, n, rect)).collect();
    let (worst, mean) = (differences.iter().copied().fold(0.0, f64::max), differences.iter().sum::<f64>() / 150.0);
    eprintln!("mean difference {mean:.3}, worst frame {worst:.3}");
    assert!(worst < 2.0 && mean < 0.3, "{differences:?}");
}
