//! `lipstream serve` with a real Chromium and a real Firefox: WHEP and WHIP as a browser does them. Candidates are
//! hidden behind mDNS names, as they are by default where a page has no camera.

mod alpha;
mod avatar;
mod chromium;
#[path = "../common/mod.rs"]
mod common;
mod firefox;
#[allow(dead_code)]
#[path = "../cluster/harness.rs"]
mod harness;
mod janus;
mod page;
mod wire;

use std::sync::{Mutex, PoisonError};

use chromium::Chromium;
use common::service::Service;
use firefox::Firefox;
use serde_json::Value;

fn number(stats: &Value, name: &str) -> f64 {
    stats[name].as_f64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

/// Browsers, services and their encoders one after the other: two pairs are more than a small machine holds.
static ALONE: Mutex<()> = Mutex::new(());

/// What `script` sees once the picture is steady: nothing lost, `fps` frames a second within `slack`, picture and sound less than
/// `apart` ms from each other. A machine that was busy with something else for a moment gets another look.
#[track_caller]
fn steady(browser: &mut Chromium, script: &str, (fps, slack): (f64, f64), apart: f64) -> Value {
    let mut seen = Value::Null;
    for _ in 0..8 {
        seen = browser.run(script);
        println!("{seen}");
        let whole = seen["lost"].as_array().unwrap().iter().all(|lost| lost.as_i64() == Some(0));
        let together = seen["avOffsetMs"].as_f64().is_some_and(|offset| offset.abs() < apart);
        if whole && together && (number(&seen, "fps") - fps).abs() <= slack {
            return seen;
        }
    }
    panic!("not {fps} fps with picture and sound together: {seen}");
}

#[test]
fn the_demo_avatar_is_seen_and_heard() {
    if !chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let service = Service::start("");
    let mut browser = Chromium::open(&service.url);
    assert_eq!(browser.run(include_str!("client.js")), "ready");
    browser.run("whep('/whep/demo').then((c) => { window.viewer = c; })");
    let silent = steady(&mut browser, "watch(viewer, 4)", (25.0, 1.0), 30.0);
    assert_eq!(silent["codecs"][0], "video/H264");
    assert!(number(&silent, "firstFrameMs") < 5000.0);

    let speech = std::fs::read(common::root().join("demo/speech.flac")).unwrap();
    let (status, text) = service.send("POST", "/api/v1/sessions/demo/speak", "audio/flac", &speech);
    assert!(status < 300, "{status} {text}");
    let spoken = steady(&mut browser, "watch(viewer, 4)", (25.0, 1.0), 30.0);
    assert!(number(&spoken, "energy") > 100.0 * number(&silent, "energy").max(1e-7), "{silent} {spoken}");
    assert!((number(&spoken, "sound") - 4.0).abs() < 0.5, "{spoken}");
    assert_eq!(browser.run("viewer.stop()"), 200);
}

#[test]
fn the_page_shows_what_cards_and_batches_do() {
    if !chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = common::fake_driver();
    let path = driver.path().to_str().unwrap();
    let service = Service::start_with("", &[("LD_LIBRARY_PATH", path), ("FAKE_DRIVER", "580.1")]);
    let mut browser = Chromium::open(&service.url);
    let shown = "new Promise((done) => { const look = () => { const panel = document.getElementById('cards-panel');
        const ready = panel && !panel.hidden && document.getElementById('batches').rows.length;
        ready ? done(panel.innerText) : setTimeout(look, 100); }; look(); })";
    let text = browser.run(shown).as_str().unwrap().to_owned();
    for part in [
        "H.264 by x264enc",
        "0: Fake H100",
        "25 %",
        "1.0 of 80.0 GiB",
        "351 W",
        "41 °C",
        "1: Fake H100",
        "50 %",
        "compact-words",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_camera_and_a_microphone_go_in_by_whip() {
    if !chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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
    // Chromium's fake camera is no exact clock, and its beep is no exact mark.
    let seen = steady(&mut browser, "watch(viewer, 4)", (20.0, 2.0), 60.0);
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
    browser.run("heard(viewer)");
    assert_eq!(browser.run("voice.stop()"), 200);
}

/// Firefox takes no part on loopback: the default configuration is reached at another address of this machine.
#[test]
fn firefox_plays_and_publishes_at_the_default_configuration() {
    if !firefox::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let service = Service::start("");
    let mut browser = Firefox::open(&service.url, "");
    assert_eq!(browser.run(include_str!("client.js").trim().trim_end_matches(';')), "ready");
    browser.run("whep('/whep/demo').then((c) => { window.viewer = c; })");
    let seen = browser.run("playing(viewer, 15)");
    println!("{seen}");
    assert!(number(&seen, "firstFrameMs") < 10_000.0, "{seen}");
    assert!(seen["packets"][1].as_i64() > Some(50), "sound comes: {seen}");
    assert_eq!(browser.run("viewer.stop()"), 200);

    let spec = r#"{ "id": "studio", "graph": "relay" }"#;
    let (status, text) = service.send("POST", "/api/v1/sessions", "application/json", spec.as_bytes());
    assert_eq!(status, 201, "{text}");
    let state = browser.run(
        "whip('/whip/studio', { audio: true, video: { width: 320, height: 240 } })
            .then((c) => { window.publisher = c; return c.state; })",
    );
    assert_eq!(state, "connected");
    browser.run("whep('/whep/studio').then((c) => { window.viewer = c; })");
    println!("{}", browser.run("playing(viewer, 10)"));
    assert_eq!(service.session("studio")["publishing"], true);
    assert_eq!(browser.run("publisher.stop()"), 200);
}

/// A browser that may send no UDP: the page says what is wrong and what helps, not "Not playing".
#[test]
fn the_page_says_why_no_media_comes() {
    if !firefox::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let service = Service::start("");
    let mut browser = Firefox::open(&service.url, "user_pref(\"media.peerconnection.ice.relay_only\", true);");
    // It plays by itself.
    let note = browser.run(
        "(async () => {
            const note = document.getElementById('screen-note');
            for (let n = 0; n < 600 && !note.textContent.includes('no media'); n++) {
                await new Promise((done) => setTimeout(done, 100));
            }
            return note.textContent;
        })()",
    );
    let note = note.as_str().unwrap();
    assert!(note.contains("no media came through") && note.contains("webrtc.public_ips"), "{note}");
}
