//! `lipstream serve` as its users meet it: the program, its ports, its answers.

mod common;
#[path = "serve/every_key.rs"]
mod every_key;
#[path = "serve/limits.rs"]
mod limits;
#[path = "serve/renders.rs"]
mod renders;
#[path = "serve/storage.rs"]
mod storage;
#[path = "serve/tenants.rs"]
mod tenants;
#[path = "serve/voices.rs"]
mod voices;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{fail, ffmpeg, lipstream, root, succeed};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Long enough for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "a-key-for-the-tests";

struct Server {
    child: Child,
    folder: TempDir,
    url: String,
    agent: ureq::Agent,
    key: Option<&'static str>,
}

impl Server {
    fn start(environment: &[(&str, &str)]) -> Self {
        Self::with_config("", environment)
    }

    /// As it comes, with the demo that other tests have prepared.
    fn with_demo() -> Self {
        Self::start(&[("XDG_CACHE_HOME", common::kept("cache").to_str().expect("is text"))])
    }

    /// On free ports, with its data in a folder of its own.
    fn with_config(config: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = lipstream(folder.path());
        command.arg("serve");
        if !config.is_empty() {
            let path = folder.path().join("config.toml");
            std::fs::write(&path, config).expect("is written");
            command.arg(path);
        }
        command
            .env("XDG_DATA_HOME", folder.path().join("data"))
            .envs([("LIPSTREAM_SERVER_PORT", "0"), ("LIPSTREAM_RTMP_PORT", "0")])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let (tell, told) = mpsc::channel();
        let out = child.stdout.take().expect("is piped");
        thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let deadline = Instant::now() + PATIENCE;
        let page = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = told.recv_timeout(left).unwrap_or_else(|e| panic!("the server does not say where it is: {e}"));
            if let Some(page) = line.strip_prefix("Page     ") {
                break page.trim_end_matches('/').to_owned();
            }
        };
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        Self { child, folder, url: page, agent: agent.into(), key: None }
    }

    fn authority(&self) -> &str {
        self.url.strip_prefix("http://").expect("is HTTP")
    }

    /// Status, media type and body.
    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String, String) {
        self.send_with(method, path, &[("content-type", kind)], body)
    }

    /// With headers; those without a value are left out.
    fn send_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String, String) {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        if let Some(key) = self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(body.to_vec()).expect("is a request");
        let mut response = self.agent.run(request).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let kind = response.headers().get("content-type").map(|v| v.to_str().expect("is text").to_owned());
        let text = response.body_mut().read_to_string().expect("is text");
        (response.status().as_u16(), kind.unwrap_or_default(), text)
    }

    #[track_caller]
    fn json(&self, method: &str, path: &str, body: Option<Value>, status: u16) -> Value {
        let (kind, body) = body.map_or(("", Vec::new()), |body| ("application/json", body.to_string().into_bytes()));
        let (got, kind, text) = self.send(method, path, kind, &body);
        assert_eq!(got, status, "{method} {path}: {text}");
        if text.is_empty() {
            return Value::Null;
        }
        let expected = if status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(kind, expected, "{method} {path}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{method} {path}: {e}: {text}"))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.json("GET", path, None, 200)
    }

    /// The answer to bytes that are sent as they are; empty where the server just hangs up.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.authority()).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("is set");
        // The server may have enough of it in the middle.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[track_caller]
    fn wait(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(self) {
            assert!(Instant::now() < deadline, "{what}: not within {} s", PATIENCE.as_secs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGTERM; the exit code and the time until then.
    fn end(mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        succeed(Command::new("kill").arg(self.child.id().to_string()));
        let status = self.child.wait().expect("ends");
        (status.code(), start.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NO_DEMO: (&str, &str) = ("LIPSTREAM_SESSIONS_DEMO", "false");

fn speech() -> Vec<u8> {
    std::fs::read(root().join("demo/speech.flac")).expect("the demo is there")
}

#[test]
fn without_configuration_the_demo_runs_and_says_what_it_is_sent() {
    let server = Server::with_demo();
    let (status, kind, page) = server.send("GET", "/", "", b"");
    assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.contains("<title>Lipstream</title>"));
    server.wait("the demo runs", |s| s.get("/api/v1/sessions/demo")["frames"].as_u64() > Some(25));

    let (status, kind, svg) = server.send("GET", "/api/v1/sessions/demo/graph.svg", "", b"");
    assert_eq!((status, kind.as_str()), (200, "image/svg+xml"));
    assert!(svg.contains("voice-in") && svg.contains("h264-encoder"), "{svg}");

    thread::scope(|scope| {
        let spoken = scope.spawn(|| server.send("POST", "/api/v1/sessions/demo/speak", "audio/flac", &speech()));
        server.wait("it speaks", |s| s.get("/api/v1/sessions/demo")["speaking"] == true);
        let (status, _, text) = spoken.join().expect("is answered");
        assert_eq!(status, 200, "{text}");
        let seconds = serde_json::from_str::<Value>(&text).expect("is JSON")["seconds"].as_f64();
        assert!(seconds > Some(1.0), "{text}");
    });
    let interrupted = server.json("POST", "/api/v1/sessions/demo/interrupt", None, 200);
    assert!(interrupted["ms"].as_f64() < Some(5000.0), "{interrupted}");
    let after = server.get("/api/v1/sessions/demo");
    assert_eq!((&after["speech_queued_ms"], &after["speaking"]), (&json!(0.0), &json!(false)));

    let (code, took) = server.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(15), "it ended after {took:?}");
}

#[test]
fn sessions_are_created_changed_and_deleted() {
    let server = Server::start(&[NO_DEMO]);
    assert_eq!(server.get("/api/v1/sessions"), json!([]));
    let relay = json!({"id": "stage", "graph": "relay", "stream_key": "secret-of-the-stream"});
    let created = server.json("POST", "/api/v1/sessions", Some(relay.clone()), 201);
    assert_eq!((&created["id"], &created["graph"]), (&json!("stage"), &json!("relay")));
    assert!(!created.to_string().contains("secret-of-the-stream"));
    server.json("POST", "/api/v1/sessions", Some(relay), 409);
    let wrong = server.json("POST", "/api/v1/sessions", Some(json!({"id": "b", "graph": "relai"})), 422);
    assert!(wrong["detail"].as_str().is_some_and(|detail| detail.contains("relay")), "{wrong}");
    for bad in [
        json!({"id": "../x", "graph": "relay"}),
        json!({"id": "", "graph": "relay"}),
        json!({"id": "b", "graph": "relay", "unknown": 1}),
        json!({"id": "b", "graph": "relay", "speaker": "middle"}),
        json!({"id": "b", "graph": "avatar", "avatar": "nobody"}),
        json!([]),
    ] {
        server.json("POST", "/api/v1/sessions", Some(bad), 422);
    }
    let gain = json!({"params": {"motion-gain": "1.5"}});
    server.json("PATCH", "/api/v1/sessions/stage", Some(json!({"clip": "wave"})), 409);
    server.json("PATCH", "/api/v1/sessions/nobody", Some(gain), 404);
    let changed = server.json("PATCH", "/api/v1/sessions/stage", Some(json!({"speaker": "right"})), 200);
    assert_eq!((&changed["params"]["speaker"], &changed["speaker_track"]), (&json!("right"), &Value::Null));
    let wrong = server.json("PATCH", "/api/v1/sessions/stage", Some(json!({"speaker": "track:left"})), 422);
    assert!(wrong["detail"].as_str().is_some_and(|detail| detail.contains("track:N")), "{wrong}");
    server.json("DELETE", "/api/v1/sessions/stage", None, 204);
    server.json("DELETE", "/api/v1/sessions/stage", None, 404);
    for path in ["/api/v1/engines", "/api/v1/graphs", "/api/v1/capacity", "/api/v1/server", "/api/v1/uploads"] {
        server.get(path);
    }
}

#[test]
fn an_engine_that_the_device_cannot_hold_is_refused_before_it_is_loaded() {
    let server = Server::start(&[NO_DEMO]);
    let engine = server.folder.path().join("data/lipstream/engines/huge");
    std::fs::create_dir_all(&engine).expect("is made");
    let own = root().join("engines/models/compact");
    for name in ["audio.onnx", "motion.onnx", "refine.onnx", "basis.safetensors"] {
        std::fs::copy(own.join(name), engine.join(name)).expect("is copied");
    }
    let manifest = std::fs::read_to_string(own.join("engine.toml")).expect("is there");
    let create = |cost: &str| {
        let text = manifest.replace("name = \"compact\"", "name = \"huge\"").replace("refine = 0.2839", cost);
        assert!(text.contains(cost));
        std::fs::write(engine.join("engine.toml"), text).expect("is written");
        let spec = json!({"id": "x", "graph": "relay", "engine": "huge", "params": {"steps": "4"}});
        let (status, kind, text) =
            server.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
        assert_eq!(kind.split(';').next(), Some("application/problem+json"), "{text}");
        (status, serde_json::from_str::<Value>(&text).expect("is JSON"))
    };
    // A million GFLOP a frame, 25 times a second.
    let (status, problem) = create("refine = 1e6");
    assert_eq!((status, problem["type"].as_str()), (503, Some("urn:lipstream:full")), "{problem}");
    let detail = problem["detail"].as_str().expect("is text");
    assert!(
        detail.starts_with("engine `huge` needs 25000 TFLOP/s at 25 fps and 4 steps, this device gave ")
            && detail.contains(" in 2 s of measuring; take fewer steps"),
        "{detail}"
    );
    let (status, problem) = create("refine = 0.2839\n\n[cost.held_mb]\nrefine = 9e6");
    let detail = problem["detail"].as_str().expect("is text");
    assert!(status == 503 && detail.starts_with("engine `huge` needs 9900.0 GB, "), "{status} {detail}");
    assert!(detail.contains(" GB are free; "), "{detail}");
}

#[test]
fn a_video_becomes_an_avatar_and_what_is_none_is_told_why() {
    let server = Server::start(&[NO_DEMO]);
    let job = |method: &str, path: &str, kind: &str, body: &[u8]| {
        let (status, _, text) = server.send(method, path, kind, body);
        assert_eq!(status, 202, "{text}");
        let job: Value = serde_json::from_str(&text).expect("is JSON");
        let path = format!("/api/v1/uploads/{}", job["id"].as_str().expect("has an id"));
        server.wait("it is prepared", |s| !matches!(s.get(&path)["state"].as_str(), Some("waiting" | "preparing")));
        server.get(&path)
    };
    let garbage = job("PUT", "/api/v1/avatars/noise/clips/idle", "", b"this is no video, whatever it is called");
    assert_eq!(garbage["state"], "rejected", "{garbage}");
    assert!(garbage["reason"].as_str().is_some_and(|reason| !reason.contains('/')), "{garbage}");

    let video = server.folder.path().join("anna.mp4");
    ffmpeg(&format!("-i {} -t 2 -c:v libx264 -an", root().join("demo/avatar.mp4").display()), &video);
    let video = std::fs::read(video).expect("is there");
    let mut form = b"--B\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\nanna\r\n\
        --B\r\ncontent-disposition: form-data; name=\"video\"; filename=\"a.mp4\"\r\n\r\n"
        .to_vec();
    form.extend_from_slice(&video);
    form.extend_from_slice(b"\r\n--B--\r\n");
    let done = job("POST", "/api/v1/avatars", "multipart/form-data; boundary=B", &form);
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!((&done["result"]["name"], &done["result"]["clips"][0][0]), (&json!("anna"), &json!("idle")));

    let spec = json!({"id": "anna", "graph": "avatar", "avatar": "anna"});
    server.json("POST", "/api/v1/sessions", Some(spec), 201);
    server.json("DELETE", "/api/v1/avatars/anna", None, 409);
    server.json("DELETE", "/api/v1/sessions/anna", None, 204);
    server.json("DELETE", "/api/v1/avatars/anna", None, 204);
    server.json("DELETE", "/api/v1/avatars/anna", None, 404);
    let left = std::fs::read_dir(server.folder.path().join("data/lipstream/avatars/.uploads")).expect("is there");
    assert_eq!(left.count(), 0, "uploads stay behind");
}

#[test]
fn avatars_need_a_consent_record_where_the_operator_wants_one() {
    let server = Server::start(&[NO_DEMO, ("LIPSTREAM_AVATARS_REQUIRE_CONSENT", "true")]);
    let video = server.folder.path().join("anna.mp4");
    ffmpeg(&format!("-i {} -t 1 -c:v libx264 -an", root().join("demo/avatar.mp4").display()), &video);
    let video = std::fs::read(video).expect("is there");
    let put = |clip: &str, consent: &str| {
        let path = format!("/api/v1/avatars/anna/clips/{clip}");
        let (status, _, text) = server.send_with("PUT", &path, &[("lipstream-consent", consent)], &video);
        (status, serde_json::from_str::<Value>(&text).expect("is JSON"))
    };
    let refused = |clip: &str, consent: &str, says: &str| {
        let (status, problem) = put(clip, consent);
        assert!(status == 422 && problem["detail"].as_str().is_some_and(|d| d.contains(says)), "{status} {problem}");
    };
    refused(
        "idle",
        "",
        "avatars.require_consent of this server demands: send `consent` with who agrees, when, to what",
    );
    refused("idle", r#"{"person": "Anna"}"#, "consent: missing field `date`");
    let consent = |day: u32| {
        format!(r#"{{"person": "Anna \u00d6", "date": "2026-11-{day}", "purpose": "Films", "statement": "abc"}}"#)
    };
    refused("idle", &consent(31), "`date` must be a day");
    let (status, job) = put("idle", &consent(28));
    assert_eq!(status, 202, "{job}");
    let path = format!("/api/v1/uploads/{}", job["id"].as_str().expect("has an id"));
    server.wait("it is prepared", |s| !matches!(s.get(&path)["state"].as_str(), Some("waiting" | "preparing")));
    let kept = server.get("/api/v1/avatars")[1]["consent"].clone();
    assert_eq!(
        (&kept["person"], &kept["date"], &kept["purpose"]),
        (&json!("Anna Ö"), &json!("2026-11-28"), &json!("Films"))
    );
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(kept["statement_sha256"] == hash && kept["recorded"].as_f64().is_some_and(|at| at > 1.7e9), "{kept}");
    refused("wave", &consent(27), "has a consent record of Anna Ö, 2026-11-28, which stays");

    // One from before it was demanded.
    let avatars = server.folder.path().join("data/lipstream/avatars");
    let old = avatars.join("old");
    std::fs::create_dir(&old).expect("is made");
    for file in std::fs::read_dir(avatars.join("anna")).expect("is stored").flatten() {
        std::fs::copy(file.path(), old.join(file.file_name())).expect("is copied");
    }
    let manifest = std::fs::read_to_string(old.join("avatar.json")).expect("is there");
    let mut manifest: Value = serde_json::from_str(&manifest).expect("is JSON");
    assert_eq!(manifest.as_object_mut().and_then(|m| m.remove("consent")), Some(kept), "it is stored");
    std::fs::write(old.join("avatar.json"), manifest.to_string()).expect("is written");
    let spec = |avatar: &str| json!({"id": avatar, "graph": "avatar", "avatar": avatar});
    server.json("POST", "/api/v1/sessions", Some(spec("anna")), 201);
    let problem = server.json("POST", "/api/v1/sessions", Some(spec("old")), 422);
    let detail = problem["detail"].as_str().expect("is text");
    assert!(detail.starts_with("avatar: `old` has no consent record, which avatars.require_consent"), "{detail}");
    let form = "--B\r\ncontent-disposition: form-data; name=\"avatar\"\r\n\r\nold\r\n--B\r\ncontent-disposition: form-data; \
        name=\"audio\"; filename=\"a.wav\"\r\n\r\nx\r\n--B--\r\n";
    let (status, _, text) = server.send("POST", "/api/v1/renders", "multipart/form-data; boundary=B", form.as_bytes());
    assert!(status == 422 && text.contains("`old` has no consent record"), "{status} {text}");
}

#[test]
fn keys_guard_everything_but_the_page() {
    let mut server = Server::with_config(&format!("[auth]\nkeys = [\"{KEY}\"]\n"), &[NO_DEMO]);
    for path in ["/", "/web/page.js", "/healthz", "/openapi.json"] {
        assert_eq!(server.send("GET", path, "", b"").0, 200, "{path}");
    }
    // Where the machine is busy with other tests it is not ready.
    assert!(matches!(server.send("GET", "/readyz", "", b"").0, 200 | 503));
    for path in ["/api/v1/sessions", "/metrics", "/api/v1/nothing", "/whep/demo", "//", "/web"] {
        let problem = server.json("GET", path, None, 401);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Bearer")), "{problem}");
    }
    server.json("GET", &format!("/api/v1/sessions?access_token={KEY}"), None, 401);
    server.json("POST", "/whep/demo", None, 401);
    server.key = Some("a-key-for-the-testz");
    server.json("GET", "/api/v1/sessions", None, 401);
    server.key = Some(KEY);
    server.get("/api/v1/sessions");
    assert_eq!(server.send("GET", "/metrics", "", b"").0, 200);
}

#[test]
fn a_page_elsewhere_cannot_use_a_server_without_keys() {
    let server = Server::start(&[NO_DEMO]);
    let answer = |host: &str, more: &str, line: &str| {
        server.raw(format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n").as_bytes())
    };
    let rebound = answer("evil.example", "", "GET /api/v1/sessions");
    assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
    let own = server.authority().to_owned();
    let foreign = answer(&own, "Origin: https://evil.example\r\n", "POST /api/v1/sessions/demo/interrupt");
    assert!(foreign.starts_with("HTTP/1.1 403 ") && foreign.contains("cors_origins"), "{foreign}");
    let preflight = "Origin: https://evil.example\r\nAccess-Control-Request-Method: DELETE\r\n";
    let answered = answer(&own, preflight, "OPTIONS /api/v1/sessions/demo");
    assert!(!answered.to_ascii_lowercase().contains("access-control-allow-origin"), "{answered}");
}

#[test]
fn an_origin_that_is_named_may_use_the_server() {
    let server = Server::start(&[NO_DEMO, ("LIPSTREAM_SERVER_CORS_ORIGINS", "https://app.example")]);
    let request = format!(
        "OPTIONS /whep/demo HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nOrigin: https://app.example\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n",
        server.authority()
    );
    let answer = server.raw(request.as_bytes()).to_ascii_lowercase();
    for line in ["access-control-allow-origin: https://app.example", "access-control-allow-headers: content-type"] {
        assert!(answer.contains(line), "{answer}");
    }
    assert!(answer.contains("access-control-expose-headers: location"), "{answer}");
}

#[test]
fn large_slow_and_crooked_requests_hurt_nobody() {
    let server = Server::start(&[
        NO_DEMO,
        ("LIPSTREAM_LIMITS_HEADER_SECONDS", "1"),
        ("LIPSTREAM_LIMITS_BODY_IDLE_SECONDS", "1"),
        ("LIPSTREAM_LIMITS_CONNECTIONS", "8"),
    ]);
    server.json("POST", "/api/v1/sessions", Some(json!({"id": "stage", "graph": "relay"})), 201);
    let host = format!("Host: {}\r\nConnection: close\r\n", server.authority());
    // A gigabyte is refused by its head.
    for (method, path) in [("PUT", "/api/v1/avatars/a/clips/b"), ("POST", "/api/v1/sessions/stage/speak")] {
        let answer =
            server.raw(format!("{method} {path} HTTP/1.1\r\n{host}Content-Length: 1000000000\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("_mb"), "{answer}");
    }
    let json = server.raw(
        format!("POST /api/v1/sessions HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n")
            .as_bytes(),
    );
    assert!(json.starts_with("HTTP/1.1 413 "), "{json}");
    // A body that stalls.
    let stalled = format!("PUT /api/v1/avatars/a/clips/b HTTP/1.1\r\n{host}Content-Length: 1000\r\n\r\nabc");
    let stalled = server.raw(stalled.as_bytes());
    assert!(stalled.starts_with("HTTP/1.1 408 "), "{stalled}");
    // A head that never ends, on every connection that there is; then the server answers again.
    let mut slow: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(server.authority()).expect("connects")).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"GET / HTTP/1.1\r\nX: ").expect("is written"));
    server.wait("slow heads are cut", |s| {
        s.raw(format!("GET /healthz HTTP/1.1\r\n{host}\r\n").as_bytes()).contains("ok")
    });
    drop(slow);
    for path in [
        "/../../etc/passwd",
        "/web/../Cargo.toml",
        "/web/%2e%2e/Cargo.toml",
        "/api/v1/sessions/..%2f..%2fetc",
        "/api/v1/sessions/%00",
        "/api/v1/sessions/%ff%fe",
        "/api/v1/sessions/%",
        "/api/v1/avatars/..%2f..%2fx/clips/y",
        "//api//v1//sessions",
        "*",
    ] {
        for method in ["GET", "DELETE", "PUT"] {
            let answer = server.raw(format!("{method} {path} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n").as_bytes());
            assert!(answer.starts_with("HTTP/1.1 4"), "{method} {path}: {answer}");
        }
    }
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/9.9\r\n\r\n", &[0; 70_000], b"\r\n\r\n"]
    {
        server.raw(bytes);
    }
    server.get("/api/v1/sessions");
}

#[test]
fn an_upload_that_is_refused_by_its_head_is_taken_to_its_end_and_answered() {
    let server = Server::start(&[NO_DEMO]);
    let mut stream = TcpStream::connect(server.authority()).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("is set");
    let head = format!(
        "POST /api/v1/sessions/nobody/speak HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: audio/wav\r\nContent-Length: 20000000\r\n\r\n",
        server.authority()
    );
    stream.write_all(head.as_bytes()).expect("is taken");
    // More than the system keeps on the way: clients that write all before they read must not see the connection end.
    stream.write_all(&vec![0; 20_000_000]).expect("is taken to its end");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("is answered");
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("nobody"), "{answer}");
}

#[test]
fn bodies_that_never_get_anywhere_are_refused_early() {
    let server = Server::start(&[NO_DEMO, ("LIPSTREAM_LIMITS_BODY_IDLE_SECONDS", "2")]);
    server.json("POST", "/api/v1/sessions", Some(json!({"id": "stage", "graph": "relay"})), 201);
    let head = |method: &str, path: &str, kind: &str, length: &str| {
        let host = server.authority();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {kind}\r\n{length}\r\n\r\n"
        )
    };
    // A session description of a gigabyte, by its head.
    for path in ["/whip/stage", "/whep/stage", "/whip/stage/voice"] {
        let answer = server.raw(head("POST", path, "application/sdp", "Content-Length: 1000000000").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("application/problem+json"), "{answer}");
    }
    // A part of a form whose head does not end would be kept until it did.
    for start in ["--x\r\nContent-Disposition: form-data; name=\"video\"; filename=\"", "--x\r\n", ""] {
        let mut body = head("POST", "/api/v1/avatars", "multipart/form-data; boundary=x", "Content-Length: 30000000");
        body.push_str(start);
        let started = Instant::now();
        let answer = server.raw(&[body.into_bytes(), vec![b'a'; 29_000_000]].concat());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
    let peak = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("is on Linux");
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("is told");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("is a number");
    assert!(peak < 200_000, "{peak} kB");
    // A byte now and then keeps no place.
    let mut slow = TcpStream::connect(server.authority()).expect("connects");
    slow.set_read_timeout(Some(PATIENCE)).expect("is set");
    let request = head("PUT", "/api/v1/avatars/a/clips/b", "video/mp4", "Content-Length: 1000");
    slow.write_all(request.as_bytes()).expect("is written");
    let mut writer = slow.try_clone().expect("is cloned");
    let drip = thread::spawn(move || {
        while writer.write_all(b"a").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    let mut answer = [0; 13];
    slow.read_exact(&mut answer).expect("is answered");
    assert_eq!(&answer, b"HTTP/1.1 408 ");
    drop(slow);
    drip.join().expect("ends");
}

#[test]
fn a_client_chooses_no_files_of_the_server() {
    let server = Server::start(&[NO_DEMO]);
    let own = server.folder.path().display().to_string();
    for engine in [own.as_str(), "/etc", "../compact", ""] {
        let spec = json!({"id": "x", "graph": "relay", "params": {"engine": engine}});
        let refused = server.json("POST", "/api/v1/sessions", Some(spec), 422);
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("compact")), "{refused}");
    }
    let spec = json!({"id": "x", "graph": "relay", "pull": "file:///etc/passwd"});
    let refused = server.json("POST", "/api/v1/sessions", Some(spec), 422);
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("sessions.files")), "{refused}");
    let long = json!({"id": "x", "graph": "g".repeat(100_000)});
    let refused = server.json("POST", "/api/v1/sessions", Some(long), 422);
    assert!(refused.to_string().len() < 4000);
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let server = Server::with_demo();
    server.wait("the demo runs", |s| s.get("/api/v1/sessions/demo")["frames"].as_u64() > Some(5));
    let (status, kind, text) = server.send("GET", "/metrics", "", b"");
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4"));
    let mut typed = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().expect("has a name").to_owned();
            assert!(typed.insert(name), "twice: {line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = name.split('{').next().expect("a name");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(typed.contains(name) || typed.contains(base), "{line}");
        }
    }
    let value = |line: &str| {
        let found = text.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in {text}"));
        found.trim().parse::<f64>().expect("is a number")
    };
    assert!(value("lipstream_session_frames_total{session=\"demo\"}") > 5.0);
    assert_eq!(value("lipstream_session_running{session=\"demo\"}"), 1.0);
    assert!(value("lipstream_stage_duration_seconds_count{session=\"demo\",stage=\"track\"}") > 1.0);
    assert!(value("lipstream_stage_duration_seconds_count{session=\"demo\",stage=\"prepare\"}") >= 0.0);
    assert!(value("lipstream_engine_stage_items_total{engine=\"compact-words\",stage=\"step\"}") >= 0.0);
    assert_eq!(value("lipstream_rtmp_connections"), 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_threads") > 1.0);
}

#[test]
fn a_port_that_is_taken_is_named_with_the_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = taken.local_addr().expect("has an address").port().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    for (key, other) in
        [("LIPSTREAM_SERVER_PORT", "LIPSTREAM_RTMP_PORT"), ("LIPSTREAM_RTMP_PORT", "LIPSTREAM_SERVER_PORT")]
    {
        let mut command = lipstream(folder.path());
        command.arg("serve").env("XDG_DATA_HOME", folder.path()).env("XDG_CACHE_HOME", common::kept("cache"));
        command.env(key, &port).env(other, "0");
        let (code, message) = fail(&mut command);
        assert_eq!(code, 1);
        assert!(message.contains(&port) && message.contains(key), "{message}");
    }
}

#[test]
fn the_printed_configuration_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let printed = succeed(lipstream(folder.path()).args(["serve", "--print-config"]));
    let text = String::from_utf8(printed.stdout).expect("is text");
    assert!(text.contains("[server]") && text.contains("port = 8080"));
    let server = Server::with_config(&text, &[NO_DEMO]);
    server.get("/api/v1/sessions");
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |text: &str| {
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).expect("is written");
        fail(lipstream(folder.path()).arg("serve").arg(path).env("XDG_DATA_HOME", folder.path()))
    };
    let (code, message) = refused("[server]\nprot = 1\n");
    assert!(code == 2 && message.contains("`prot`") && message.contains("`port`"), "{message}");
    let (code, message) = refused("[server]\nbind = \"0.0.0.0\"\n");
    assert!(code == 2 && message.contains("auth.keys"), "{message}");
    let (code, message) =
        refused("[[session]]\nid = \"a\"\ngraph = \"nothing\"\n[server]\nport = 0\n[rtmp]\nport = 0\n");
    assert!(code == 2 && message.contains("`a`") && message.contains("nothing"), "{message}");
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_and_when_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("is set");
    let heard = |socket: &UnixDatagram| {
        let mut text = [0; 64];
        let length = socket.recv(&mut text).expect("something is told");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let server = Server::start(&[NO_DEMO, ("NOTIFY_SOCKET", text(&path))]);
    assert_eq!(heard(&socket), "READY=1");
    let (code, _) = server.end();
    assert_eq!((heard(&socket).as_str(), code), ("STOPPING=1", Some(0)));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("is text")
}

#[test]
fn the_committed_openapi_document_is_that_of_the_code() {
    let path = root().join("docs/openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let current = lipstream::http::openapi();
    if std::env::var_os("LIPSTREAM_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &current).expect("is written");
    } else {
        assert!(
            committed == current,
            "docs/openapi.json is old: LIPSTREAM_WRITE_OPENAPI=1 cargo test --test serve openapi"
        );
    }
}
