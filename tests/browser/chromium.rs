//! A headless Chromium, driven by the DevTools protocol.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wire::{PATIENCE, Wire};

const PROGRAM: &str = "/usr/bin/chromium";

/// Whether there is a Chromium; says so where there is none.
pub fn installed() -> bool {
    let there = Path::new(PROGRAM).exists();
    if !there {
        println!("skipped: {PROGRAM} is not installed (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)");
    }
    there
}

/// A browser with one page.
pub struct Chromium {
    child: Child,
    wire: Wire,
    page: String,
    _profile: TempDir,
}

impl Chromium {
    /// Opens a page that may play sound.
    pub fn open(url: &str) -> Self {
        Self::open_with(url, &["--autoplay-policy=no-user-gesture-required"])
    }

    /// Opens a page, with flags of its own.
    pub fn open_with(url: &str, flags: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new(PROGRAM)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])
            .args(["--remote-debugging-port=0", "--disable-dev-shm-usage"])
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Chromium starts");
        let file = profile.path().join("DevToolsActivePort");
        let start = Instant::now();
        let address = loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some((port, path)) = text.split_once('\n').filter(|(_, path)| !path.is_empty()) {
                break format!("ws://127.0.0.1:{port}{}", path.trim());
            }
            assert!(start.elapsed() < PATIENCE, "Chromium does not open its DevTools port");
            std::thread::sleep(Duration::from_millis(50));
        };
        let wire = Wire::open(&address);
        let mut browser = Self { child, wire, page: String::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": url }));
        let target = target["targetId"].as_str().unwrap().to_owned();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.page = attached["sessionId"].as_str().unwrap().to_owned();
        let start = Instant::now();
        while browser.look("document.readyState") != "complete" || browser.look("location.href") == "about:blank" {
            assert!(start.elapsed() < PATIENCE, "{url} does not load");
            std::thread::sleep(Duration::from_millis(50));
        }
        browser
    }

    /// The value of a script, waited for where it is a promise. It counts as a click of the user.
    pub fn run(&mut self, script: &str) -> Value {
        self.evaluate(script, true)
    }

    /// As [`run`](Self::run), without a click.
    pub fn look(&mut self, script: &str) -> Value {
        self.evaluate(script, false)
    }

    fn evaluate(&mut self, script: &str, click: bool) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": click });
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let mut message = json!({ "method": method, "params": params });
        if !self.page.is_empty() {
            message["sessionId"] = json!(self.page);
        }
        let answer = self.wire.ask(message);
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
