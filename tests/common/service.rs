//! `lipstream serve` as a process.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// The service on free ports, killed when the test ends. Services share a cache, in which the demo is prepared once.
pub struct Service {
    child: Child,
    /// `http://HOST:PORT`
    pub url: String,
    /// `rtmp://HOST:PORT/APP`
    pub rtmp: String,
    _folder: TempDir,
}

impl Service {
    /// With a configuration, or with none and its demo avatar where that is empty.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// As [`start`](Self::start), with environment variables of its own.
    pub fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = super::lipstream(folder.path());
        command.arg("serve");
        if !config.is_empty() {
            let path = folder.path().join("config.toml");
            std::fs::write(&path, config).unwrap();
            command.arg(path);
        }
        let mut child = command
            .env("XDG_DATA_HOME", folder.path().join("data"))
            .env("XDG_CACHE_HOME", super::kept("cache"))
            // One device is measured and not two, each of which takes two seconds. tests/serve.rs has the default.
            .env("LIPSTREAM_SESSIONS_DEVICE", "cpu")
            .envs([("LIPSTREAM_SERVER_PORT", "0"), ("LIPSTREAM_RTMP_PORT", "0"), ("LIPSTREAM_SESSIONS_LOAD", "1")])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut after = |start: &str| {
            let found = lines.find_map(|line| line.strip_prefix(start).map(str::to_owned));
            found.unwrap_or_else(|| panic!("the server does not say where it is: no line {start}"))
        };
        let url = after("Page     ").trim_end_matches('/').to_owned();
        let rtmp = after("RTMP     publish ").split("/SESSION").next().unwrap().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, rtmp, _folder: folder }
    }

    /// Status and body.
    pub fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
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

    /// The state of a session.
    pub fn session(&self, id: &str) -> Value {
        let (status, text) = self.send("GET", &format!("/api/v1/sessions/{id}"), "", b"");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Service {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
