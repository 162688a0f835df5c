//! A server with sessions that the tests feed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lipstream::{
    avatar,
    live::{Codec, Encoders, Outlet, Packet},
    session::{self, Manager, SessionSpec},
    tenants::Caller,
    webrtc::{Server, Settings},
};
use parking_lot::Mutex;
use ureq::http::Response;

pub const SDP: &str = "application/sdp";
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// A server on loopback, its manager, and what is to live as long.
pub struct Harness {
    pub server: Arc<Server>,
    pub manager: Arc<Manager>,
    pub address: SocketAddr,
    runtime: tokio::runtime::Runtime,
    agent: ureq::Agent,
    _folder: tempfile::TempDir,
}

impl Harness {
    /// With a session `relay` that waits for a publisher.
    pub fn new(settings: Settings) -> Self {
        gst::init().unwrap();
        let _ = gstlipstream::plugin_register_static();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager::new(
            // One device is measured and not two, each of which takes two seconds.
            session::Settings {
                load: 100.0,
                device: "cpu".into(),
                sync_check: Duration::ZERO,
                ..session::Settings::default()
            },
            avatar::Store::open(folder.path()).unwrap(),
        );
        manager.create(SessionSpec::new("relay", "relay")).unwrap();
        // Runs before it is fed, so that its own encoders do not take the place of those that listen for the tests.
        let relay = manager.get("relay").unwrap();
        drop(runtime.block_on(relay.watch(&[Codec::Opus])).unwrap());
        let _guard = runtime.enter();
        let server = Server::bind(settings, manager.clone()).unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = server.router().layer(axum::Extension(Caller::Operator));
        runtime.spawn(async move { axum::serve(listener, router).await });
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .new_agent();
        drop(_guard);
        Self { server, manager, address, runtime, agent, _folder: folder }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a body; gives the answer and its text.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (Response<()>, String) {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.agent.run(request.body(body.to_vec()).unwrap()).unwrap();
        let (parts, mut body) = answer.into_parts();
        (Response::from_parts(parts, ()), body.read_to_string().unwrap())
    }

    pub fn post(&self, path: &str, offer: &str) -> (Response<()>, String) {
        self.send("POST", path, &[("content-type", SDP)], offer.as_bytes())
    }

    /// Posts an offer that is answered; gives the location, the tag and the answer.
    pub fn open(&self, path: &str, offer: &str) -> (String, String, String) {
        let (head, answer) = self.post(path, offer);
        assert_eq!(head.status(), 201, "{answer}");
        (header(&head, "location"), header(&head, "etag"), answer)
    }

    pub fn delete(&self, path: &str) -> u16 {
        self.send("DELETE", path, &[], b"").0.status().as_u16()
    }

    pub fn outlet(&self, session: &str) -> Arc<Outlet> {
        self.manager.get(session).unwrap().outlet().clone()
    }

    /// Within the server's runtime.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = self.runtime.enter();
        work()
    }

    /// Waits until `holds`.
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < Duration::from_secs(15), "after 15 s: {what}; {:?}", self.server.peers());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.runtime.block_on(self.server.close());
        self.manager.close();
    }
}

pub fn header(head: &Response<()>, name: &str) -> String {
    head.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// What the outlet has asked of its encoders.
#[derive(Default)]
pub struct Asked {
    pub key_frames: AtomicUsize,
    pub rates: Mutex<Vec<Option<u32>>>,
}

struct Ears(Arc<Asked>);

impl Encoders for Ears {
    fn enable(&self, _: Codec, _: bool) {}

    fn key_frame(&self, _: Codec) {
        self.0.key_frames.fetch_add(1, Ordering::SeqCst);
    }

    fn bit_rate(&self, _: Codec, rate: Option<u32>) {
        self.0.rates.lock().push(rate);
    }
}

/// How a session's output is made up.
#[derive(Clone, Copy)]
pub struct Show {
    pub codec: Codec,
    /// Bytes of a frame.
    pub size: usize,
    /// Time that the video encoder takes longer than the audio encoder.
    pub late: Duration,
}

pub const SHOW: Show = Show { codec: Codec::H264, size: 6_000, late: Duration::ZERO };

/// Feeds an outlet with 25 frames and 50 sounds a second, each with its number and running time in it, like a graph that
/// obeys requests for key frames and bit rates.
pub struct Feed {
    pub asked: Arc<Asked>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    pub fn start(outlet: &Arc<Outlet>, show: Show) -> Self {
        let (asked, stop) = (Arc::new(Asked::default()), Arc::new(AtomicBool::new(false)));
        outlet.attach(Arc::new(Ears(asked.clone())));
        let (outlet, heard, ends) = (outlet.clone(), asked.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let (mut frames, mut sounds, mut served) = (0u32, 0u32, usize::MAX);
            while !ends.load(Ordering::SeqCst) {
                let now = start.elapsed();
                while Duration::from_millis(20) * sounds <= now {
                    let pts = Duration::from_millis(20) * sounds;
                    let data = stamped(&[], pts, 120);
                    publish(&outlet, Codec::Opus, pts, true, data);
                    sounds += 1;
                }
                while Duration::from_millis(40) * frames + show.late <= now {
                    let pts = Duration::from_millis(40) * frames;
                    let wanted = heard.key_frames.load(Ordering::SeqCst);
                    let key = wanted != served || frames.is_multiple_of(250);
                    served = wanted;
                    let size = match *heard.rates.lock().last().unwrap_or(&None) {
                        Some(rate) => show.size.min(rate as usize / 8 / 25),
                        None => show.size,
                    };
                    publish(&outlet, show.codec, pts, key, picture(show.codec, key, pts, size));
                    frames += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { asked, stop, thread: Some(thread) }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn publish(outlet: &Outlet, codec: Codec, pts: Duration, key: bool, data: Vec<u8>) {
    outlet.publish(Packet { codec, pts, duration: Duration::from_millis(20), key, data: Bytes::from(data) });
}

/// Bytes that begin with `head` and the running time in ms, of which none looks like a start code.
fn stamped(head: &[u8], pts: Duration, size: usize) -> Vec<u8> {
    let mut data = head.to_vec();
    data.extend(format!("#{:09}#", pts.as_millis()).bytes());
    data.resize(size.max(data.len()), 0x55);
    data
}

/// A picture as far as packets and their headers go.
fn picture(codec: Codec, key: bool, pts: Duration, size: usize) -> Vec<u8> {
    if codec == Codec::Vp8 {
        // The frame tag of RFC 6386 section 9.1: bit 0 is clear in a key frame.
        return stamped(if key { &[0x10, 2, 0, 0x9d, 1, 0x2a] } else { &[0x11, 2, 0] }, pts, size);
    }
    if !key {
        return stamped(&[0, 0, 0, 1, 0x41], pts, size);
    }
    let mut data = vec![0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40];
    data.extend([0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80]);
    data.extend([0, 0, 0, 1, 0x65]);
    stamped(&data, pts, size)
}

/// The running time in a picture or sound that was fed, in ms.
pub fn stamp(data: &[u8]) -> Option<u64> {
    let start = data.windows(11).position(|w| w[0] == b'#' && w[10] == b'#')?;
    std::str::from_utf8(&data[start + 1..start + 10]).ok()?.parse().ok()
}
