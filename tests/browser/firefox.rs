//! A headless Firefox, driven by WebDriver BiDi.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wire::Wire;

const PROGRAM: &str = "/usr/bin/firefox-esr";
/// A camera and a microphone that are made up, without a question, and a picture that plays by itself.
const PREFERENCES: &str = r#"
user_pref("media.navigator.streams.fake", true);
user_pref("media.navigator.permission.disabled", true);
user_pref("media.autoplay.default", 0);
user_pref("media.autoplay.blocking_policy", 0);
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"#;

/// Whether there is a Firefox; says so where there is none.
pub fn installed() -> bool {
    let there = Path::new(PROGRAM).exists();
    if !there {
        println!("skipped: {PROGRAM} is not installed (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)");
    }
    there
}

/// A browser with one page.
pub struct Firefox {
    child: Child,
    wire: Wire,
    context: String,
    _profile: TempDir,
}

impl Firefox {
    /// Opens a page; `preferences` are added to those of all tests.
    pub fn open(url: &str, preferences: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        std::fs::write(profile.path().join("user.js"), format!("{PREFERENCES}{preferences}")).unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["--headless", "--no-remote", "--remote-debugging-port=0", "--profile"])
            .arg(profile.path())
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Firefox starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| line.split_once("WebDriver BiDi listening on ").map(|(_, address)| address.to_owned()))
            .expect("Firefox opens its WebDriver port");
        std::thread::spawn(move || lines.for_each(drop));
        let wire = Wire::open(&format!("{}/session", address.trim()));
        let mut browser = Self { child, wire, context: String::new(), _profile: profile };
        browser.call("session.new", json!({ "capabilities": {} }));
        let tree = browser.call("browsingContext.getTree", json!({}));
        browser.context = tree["contexts"][0]["context"].as_str().unwrap().to_owned();
        let page = json!({ "context": browser.context, "url": url, "wait": "complete" });
        browser.call("browsingContext.navigate", page);
        browser
    }

    /// The value of a script, waited for where it is a promise. It travels as JSON.
    pub fn run(&mut self, script: &str) -> Value {
        let answer = self.call(
            "script.evaluate",
            json!({
                "expression": format!("Promise.resolve({script}).then((value) => JSON.stringify(value ?? null))"),
                "target": { "context": self.context },
                "awaitPromise": true,
                "userActivation": true,
            }),
        );
        assert_eq!(answer["type"], "success", "{script}: {answer}");
        // A function has no JSON.
        serde_json::from_str(answer["result"]["value"].as_str().unwrap_or("null")).unwrap()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.wire.ask(json!({ "method": method, "params": params }));
        assert_eq!(answer["type"], "success", "{method}: {answer}");
        answer["result"].clone()
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
