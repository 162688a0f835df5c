//! `lipstream serve` with a real Chromium: WHEP and WHIP as a browser does them. Candidates are hidden behind mDNS names,
//! as they are by default where a page has no camera.

mod chromium;
#[path = "../common/mod.rs"]
mod common;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use chromium::Chromium;
use serde_json::Value;
use tempfile::TempDir;

/// The service on free ports, with its demo avatar.
struct Service {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = common::lipstream(folder.path())
            .arg("serve")
            .env("XDG_DATA_HOME", folder.path().join("data"))
            .envs([("LIPSTREAM_SERVER_PORT", "0"), ("LIPSTREAM_RTMP_PORT", "0"), ("LIPSTREAM_SESSIONS_LOAD", "1")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("Page     ").map(|url| url.trim_end_matches('/').to_owned()));
        let url = url.expect("the server says where it is");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, _folder: folder }
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(Duration::from_secs(60))).build().new_agent();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", kind)
            .body(body.to_vec())
            .unwrap();
        let mut answer = agent.run(request).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(stats: &Value, name: &str) -> f64 {
    stats[name].as_f64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

fn assert_flows(stats: &Value, fps: f64) {
    println!("{stats}");
    // A machine that does other things too decodes some frames late.
    assert!((number(stats, "fps") - fps).abs() <= fps * 0.2, "{stats}");
    assert!(stats["lost"].as_array().unwrap().iter().all(|lost| lost.as_i64() == Some(0)), "{stats}");
}

#[test]
fn the_demo_avatar_is_seen_and_heard() {
    if !chromium::installed() {
        return;
    }
    let service = Service::start();
    let mut browser = Chromium::open(&service.url);
    assert_eq!(browser.run(include_str!("client.js")), "ready");
    browser.run("whep('/whep/demo').then((c) => { window.viewer = c; })");
    let silent = browser.run("sleep(3000).then(() => watch(viewer, 8))");
    assert_flows(&silent, 25.0);
    assert_eq!(silent["codecs"][0], "video/H264");
    assert!(number(&silent, "firstFrameMs") < 5000.0);

    let speech = std::fs::read(common::root().join("demo/speech.flac")).unwrap();
    let (status, text) = service.send("POST", "/api/v1/sessions/demo/speak", "audio/flac", &speech);
    assert!(status < 300, "{status} {text}");
    let spoken = browser.run("watch(viewer, 5)");
    assert_flows(&spoken, 25.0);
    assert!(number(&spoken, "energy") > 100.0 * number(&silent, "energy").max(1e-7), "{silent} {spoken}");
    assert!((number(&spoken, "sound") - 5.0).abs() < 0.5, "{spoken}");
    let offset = number(&spoken, "avOffsetMs");
    assert!(offset.abs() < 30.0, "the browser plays picture and sound {offset} ms apart");
    assert_eq!(browser.run("viewer.stop()"), 200);
}

#[test]
fn a_camera_and_a_microphone_go_in_by_whip() {
    if !chromium::installed() {
        return;
    }
    let service = Service::start();
    let spec = r#"{ "id": "studio", "graph": "relay" }"#;
    let (status, text) = service.send("POST", "/api/v1/sessions", "application/json", spec.as_bytes());
    assert_eq!(status, 201, "{text}");
    let mut browser = Chromium::open(&service.url);
    assert_eq!(browser.run(include_str!("client.js")), "ready");
    let state = browser.run(
        "whip('/whip/studio', { audio: true, video: { width: 320, height: 240, frameRate: 20 } })
            .then((c) => { window.publisher = c; return c.state; })",
    );
    assert_eq!(state, "connected");
    browser.run("whep('/whep/studio').then((c) => { window.viewer = c; })");
    let seen = browser.run("sleep(4000).then(() => watch(viewer, 6))");
    println!("{seen}");
    assert!((number(&seen, "fps") - 20.0).abs() <= 2.0, "{seen}");
    assert_eq!(seen["size"], serde_json::json!([320, 240]));
    assert!(number(&seen, "energy") > 0.0, "the fake microphone beeps: {seen}");
    let status: Value = serde_json::from_str(&service.send("GET", "/api/v1/sessions/studio", "", b"").1).unwrap();
    assert_eq!(status["publishing"], true, "{status}");
    assert_eq!(browser.run("publisher.stop()"), 200);
    // The microphone alone is the avatar's voice.
    let state = browser.run(
        "viewer.stop().then(() => whip('/whip/demo', { audio: true }))
            .then((c) => { window.voice = c; return c.state; })",
    );
    assert_eq!(state, "connected");
    browser.run("whep('/whep/demo').then((c) => { window.viewer = c; })");
    let heard = browser.run("sleep(2000).then(() => watch(viewer, 4))");
    println!("{heard}");
    assert!(number(&heard, "energy") > 0.0, "{heard}");
    assert_eq!(browser.run("voice.stop()"), 200);
}
