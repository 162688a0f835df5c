//! `lipstream serve` with a real Chromium: WHEP and WHIP as a browser does them. Candidates are hidden behind mDNS names,
//! as they are by default where a page has no camera.

mod chromium;
#[path = "../common/mod.rs"]
mod common;

use chromium::Chromium;
use common::service::Service;
use serde_json::Value;

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
    let service = Service::start("");
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
    let service = Service::start("");
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
