//! A NATS server, a way to it that can be cut, and nodes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::service::Service;

pub const PATIENCE: Duration = Duration::from_secs(60);
/// The operator's.
pub const KEY: &str = "the-operator-of-the-cluster";

/// Looks until there is something, which `what` names where there never is.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A nats-server with JetStream.
pub struct Nats {
    child: Child,
    pub port: u16,
    _folder: TempDir,
}

impl Nats {
    /// `None` where the machine has no nats-server.
    pub fn start() -> Option<Self> {
        let program = ["/usr/sbin/nats-server", "/usr/local/bin/nats-server", "/usr/bin/nats-server"];
        let Some(program) = program.into_iter().find(|path| Path::new(path).is_file()) else {
            eprintln!("skipped: there is no nats-server; LIPSTREAM_SETUP_TESTS=1 make setup installs it");
            return None;
        };
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let child = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the NATS server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        Some(Self { child, port, _folder: folder })
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// What becomes of the server's messages on a [`Way`].
#[derive(Default)]
enum Messages {
    #[default]
    Pass,
    /// They wait from when the client has sent these bytes.
    WaitAfter(Vec<u8>),
    Wait,
}

#[derive(Default)]
struct Gate(Mutex<Messages>);

impl Gate {
    fn set(&self, messages: Messages) {
        *self.0.lock().unwrap() = messages;
    }

    /// The client sends `piece` after `before`: where what messages wait for is in it, they wait already.
    fn asked(&self, before: &mut Vec<u8>, piece: &[u8]) {
        let mut messages = self.0.lock().unwrap();
        before.extend_from_slice(piece);
        if let Messages::WaitAfter(bytes) = &*messages
            && before.windows(bytes.len()).any(|part| part == bytes)
        {
            *messages = Messages::Wait;
        }
        let kept = before.len().min(200);
        before.drain(..before.len() - kept);
    }

    fn waits(&self) -> bool {
        matches!(*self.0.lock().unwrap(), Messages::Wait)
    }
}

/// A way to the NATS server that can be cut, and on which its messages can come late.
pub struct Way {
    pub port: u16,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    gate: Arc<Gate>,
}

impl Way {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let (open, streams) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let gate = Arc::new(Gate::default());
        let (is_open, kept, passed) = (open.clone(), streams.clone(), gate.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
                for (from, to, pass) in
                    [(&client, &server, ask as fn(TcpStream, TcpStream, &Gate)), (&server, &client, answer)]
                {
                    kept.lock().unwrap().push(from.try_clone().unwrap());
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let gate = passed.clone();
                    thread::spawn(move || pass(from, to, &gate));
                }
            }
        });
        Self { port: own, open, streams, gate }
    }

    pub fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// From when the client sends `bytes` on no message reaches it, answers among them. The connection lives.
    pub fn hold_messages_after(&self, bytes: &str) {
        self.gate.set(Messages::WaitAfter(bytes.into()));
    }

    /// The client gets all that has come meanwhile, with what comes next: a second later at the latest.
    pub fn release(&self) {
        self.gate.set(Messages::Pass);
    }
}

/// From the client to the server.
fn ask(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let (mut piece, mut before) = ([0; 16 << 10], Vec::new());
    while let Ok(count) = from.read(&mut piece) {
        gate.asked(&mut before, &piece[..count]);
        if count == 0 || to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// From the server to the client. A message is a line that ends with its length, and so many bytes; other lines pass at once.
fn answer(from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let (mut from, mut held) = (BufReader::new(from), Vec::new());
    loop {
        let mut frame = Vec::new();
        if !matches!(from.read_until(b'\n', &mut frame), Ok(count) if count > 0) {
            break;
        }
        let is_message = frame.starts_with(b"MSG ") || frame.starts_with(b"HMSG ");
        if is_message {
            let line = String::from_utf8_lossy(&frame).into_owned();
            let length: u64 = line.split_whitespace().last().unwrap().parse().unwrap();
            if from.by_ref().take(length + 2).read_to_end(&mut frame).is_err() {
                break;
            }
        }
        let passes = if gate.waits() && is_message {
            held.extend(frame);
            continue;
        } else if gate.waits() {
            frame
        } else {
            [std::mem::take(&mut held), frame].concat()
        };
        if to.write_all(&passes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A node on free ports, killed with SIGKILL when it is dropped.
pub struct Node {
    pub service: Service,
    agent: ureq::Agent,
}

impl Node {
    /// Named `name`. All nodes of a test share `folder`: the cache, and the store of tenants.
    pub fn start(name: &str, nats: u16, folder: &Path, more: &[(&str, &str)]) -> Self {
        let (url, cache) = (format!("nats://127.0.0.1:{nats}"), folder.join("cache").display().to_string());
        let store = format!("sqlite://{}", folder.join("tenants.db").display());
        let own = [
            ("LIPSTREAM_CLUSTER_URL", url.as_str()),
            ("LIPSTREAM_CLUSTER_NODE", name),
            ("LIPSTREAM_AUTH_KEYS", KEY),
            ("LIPSTREAM_AUTH_STORE", &store),
            ("LIPSTREAM_SESSIONS_DEMO", "false"),
            ("LIPSTREAM_SESSIONS_LOAD", "1000"),
            // One device is measured and not two.
            ("LIPSTREAM_SESSIONS_DEVICE", "openvino"),
            ("LIPSTREAM_SESSIONS_SYNC_CHECK_SECONDS", "0"),
            ("LIPSTREAM_CLUSTER_DRAIN_SECONDS", "10"),
            ("XDG_CACHE_HOME", &cache),
        ];
        let environment: Vec<_> = own.into_iter().chain(more.iter().copied()).collect();
        let service = Service::start_with("", &environment);
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        Self { service, agent: config.timeout_global(Some(PATIENCE)).build().new_agent() }
    }

    /// Status, headers and body of what `key` asks; no key where it is empty.
    pub fn ask(
        &self,
        key: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> (u16, ureq::http::HeaderMap, String) {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.service.url))
            .header("content-type", kind);
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut answer =
            self.agent.run(request.body(body.to_vec()).unwrap()).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), answer.headers().clone(), text)
    }

    /// JSON of the operator's, with its status.
    pub fn json(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.json_of(KEY, method, path, body)
    }

    pub fn json_of(&self, key: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (status, _, text) = self.ask(key, method, path, "application/json", text.as_bytes());
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The state of a session, where one answers for it.
    pub fn session(&self, id: &str) -> Option<Value> {
        let (status, value) = self.json("GET", &format!("/api/v1/sessions/{id}"), Value::Null);
        (status == 200).then_some(value)
    }

    /// The node that has a session.
    pub fn owner(&self, id: &str) -> Option<String> {
        self.session(id)?["node"].as_str().map(str::to_owned)
    }

    /// Names of the nodes that it knows of.
    pub fn nodes(&self) -> Vec<String> {
        let (_, nodes) = self.json("GET", "/api/v1/cluster", Value::Null);
        let names = nodes.as_array().into_iter().flatten().filter_map(|node| node["name"].as_str().map(str::to_owned));
        names.collect()
    }

    pub fn metric(&self, name: &str) -> f64 {
        let (_, _, text) = self.ask(KEY, "GET", "/metrics", "", b"");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("no metric {name}"))
    }
}
