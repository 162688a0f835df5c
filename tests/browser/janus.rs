//! A push by WHIP to Janus, an SFU, whose room a Chromium watches.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::PoisonError,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    ALONE,
    chromium::Chromium,
    common::{root, service::Service},
    number, steady,
};

const TOKEN: &str = "s3cret";

/// Janus behind a WHIP end point.
struct Janus {
    child: Child,
    /// `HOST:PORT` of the end point and of the page.
    gate: String,
    /// Janus's own API.
    api: String,
    _folder: TempDir,
}

impl Janus {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("python3")
            .arg(root().join("tests/browser/janus.py"))
            .arg(folder.path())
            .arg(TOKEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.next().unwrap_or_default();
        let [_, gate, api] = ready.split(' ').collect::<Vec<_>>()[..] else { panic!("Janus does not start: {ready}") };
        let (gate, api) = (gate.to_owned(), api.to_owned());
        Self { child, gate, api, _folder: folder }
    }
}

impl Drop for Janus {
    fn drop(&mut self) {
        // It ends Janus when its standard input does.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn an_sfu_takes_the_push_and_shows_it() {
    if !crate::chromium::installed() {
        return;
    }
    if !Path::new("/usr/bin/janus").exists() {
        println!("skipped: Janus is not installed (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)");
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let janus = Janus::start();
    let service = Service::start_with("", &[("LIPSTREAM_SESSIONS_PRIVATE_ADDRESSES", "true")]);
    let create = |id: &str, token: &str| {
        let push = format!("whip://{token}@{}/whip/room", janus.gate);
        let spec = json!({ "id": id, "graph": "avatar", "avatar": "demo", "always_on": true, "push": [push] });
        let (status, text) = service.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
        assert_eq!(status, 201, "{text}");
    };
    let push = |id: &str| service.session(id)["pushes"][0].clone();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let found = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            done()
        });
        assert!(found, "{what}");
    };
    create("refused", "wrong");
    until("a wrong token is refused", &|| push("refused")["error"].as_str().is_some_and(|e| e.contains("401")));
    assert!(!push("refused").to_string().contains("wrong"), "{}", push("refused"));
    service.send("DELETE", "/api/v1/sessions/refused", "", b"");

    create("show", TOKEN);
    until("the push is connected", &|| push("show")["connected"] == true);
    let mut browser = Chromium::open(&format!("http://{}/", janus.gate));
    assert_eq!(browser.run(include_str!("client.js")), "ready");
    assert_eq!(browser.run(include_str!("janus.js")), "ready");
    browser.run(&format!("listen('{}').then((c) => {{ window.viewer = c; }})", janus.api));
    let silent = steady(&mut browser, "watch(viewer, 4)", (25.0, 1.5), 60.0);
    assert_eq!((&silent["codecs"], &silent["size"]), (&json!(["video/H264", "audio/opus"]), &json!([1280, 720])));
    let speech = std::fs::read(root().join("demo/speech.flac")).unwrap();
    let (status, text) = service.send("POST", "/api/v1/sessions/show/speak", "audio/flac", &speech);
    assert!(status < 300, "{status} {text}");
    let spoken = steady(&mut browser, "watch(viewer, 4)", (25.0, 1.5), 60.0);
    assert!(number(&spoken, "energy") > 100.0 * number(&silent, "energy").max(1e-7), "{silent} {spoken}");

    // The end of the session is the end of the publisher.
    service.send("DELETE", "/api/v1/sessions/show", "", b"");
    let left = "(async () => {
        for (let i = 0; i < 200; i++) {
            if ((await participants()).length === 0) return true;
            await sleep(50);
        }
        return false;
    })()";
    assert_eq!(browser.run(left), true, "Janus still has the publisher");
}
