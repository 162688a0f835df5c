//! Encoded once, watched by many: the fan-out of a session's packets.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{Codec, Packet, Viewer};
use crate::marks::Statement;

/// Packets that a slow viewer may be behind before it skips to the next key frame; about 8 s at 25 fps with sound.
const BACKLOG: usize = 1024;
/// A key frame costs several times the bits of another: however many ask, one in this time.
const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(400);

/// The encoders behind an outlet. Called with no lock held.
pub trait Encoders: Send + Sync {
    /// Starts or stops encoding to `codec`: nobody watches it otherwise.
    fn enable(&self, codec: Codec, on: bool);
    /// Makes the next frame of `codec` a key frame.
    fn key_frame(&self, codec: Codec);
    /// Sets the bit rate of a video codec, in bit/s; `None` is what the session was configured with.
    fn bit_rate(&self, codec: Codec, rate: Option<u32>);
}

/// The fan-out of one session; see the module. It outlives restarts of the session's graph.
pub struct Outlet {
    packets: broadcast::Sender<Packet>,
    state: Mutex<State>,
    next_viewer: AtomicU64,
    /// Bytes of packets that were handed to viewers.
    sent: AtomicU64,
    /// Least bit rate, in bit/s, to which a viewer's bandwidth may bring a video encoder.
    floor: u32,
    /// What every key frame of H.264 says.
    statement: Option<Statement>,
}

#[derive(Default)]
struct State {
    encoders: Option<Arc<dyn Encoders>>,
    /// Viewers by codec, each with the bandwidth for video that it has reported, in bit/s.
    viewers: BTreeMap<Codec, HashMap<u64, Option<u32>>>,
    key_frames: HashMap<Codec, Instant>,
    headers: HashMap<Codec, Bytes>,
    closed: bool,
    /// When the last viewer left; `None` while there is one.
    unwatched: Option<Instant>,
}

impl Outlet {
    /// `statement` is what its streams are marked by.
    pub fn new(floor: u32, statement: Option<Statement>) -> Arc<Self> {
        let state = State { unwatched: Some(Instant::now()), ..State::default() };
        Arc::new(Self {
            packets: broadcast::Sender::new(BACKLOG),
            state: Mutex::new(state),
            next_viewer: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            floor,
            statement,
        })
    }

    /// Connects the encoders of a graph that has started; those that are watched are enabled.
    pub fn attach(&self, encoders: Arc<dyn Encoders>) {
        let watched = {
            let mut state = self.state.lock();
            state.encoders = Some(encoders.clone());
            state.key_frames.clear();
            state.headers.clear();
            state.watched()
        };
        for codec in watched {
            encoders.enable(codec, true);
            encoders.key_frame(codec);
        }
    }

    /// The graph has stopped. Viewers stay and wait for the next one.
    pub fn detach(&self) {
        self.state.lock().encoders = None;
    }

    /// Ends all viewers: the session is deleted.
    pub fn close(&self) {
        self.state.lock().closed = true;
        let end =
            Packet { codec: Codec::Opus, pts: Duration::MAX, duration: Duration::ZERO, key: true, data: Bytes::new() };
        // No receiver is no error: nobody watches.
        let _ = self.packets.send(end);
    }

    /// Whether its streams are marked.
    pub fn is_marked(&self) -> bool {
        self.statement.is_some()
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// A packet of the running graph, for everyone who watches its codec.
    pub fn publish(&self, mut packet: Packet) {
        if let Some(statement) = self.statement.as_ref().filter(|_| packet.codec == Codec::H264 && packet.key) {
            packet.data = statement.marked(&packet.data);
        }
        let _ = self.packets.send(packet);
    }

    /// What a decoder needs before the first packet: the AudioSpecificConfig of AAC.
    pub fn set_header(&self, codec: Codec, header: Bytes) {
        self.state.lock().headers.insert(codec, header);
    }

    pub fn header(&self, codec: Codec) -> Option<Bytes> {
        self.state.lock().headers.get(&codec).cloned()
    }

    /// Watches a video codec, an audio codec or both, from the next key frame on.
    pub fn watch(self: &Arc<Self>, codecs: &[Codec]) -> Viewer {
        let id = self.next_viewer.fetch_add(1, Ordering::Relaxed);
        let receiver = self.packets.subscribe();
        let (encoders, first) = {
            let mut state = self.state.lock();
            state.unwatched = None;
            let mut first = Vec::new();
            for codec in codecs {
                let viewers = state.viewers.entry(*codec).or_default();
                if viewers.is_empty() {
                    first.push(*codec);
                }
                viewers.insert(id, None);
            }
            (state.encoders.clone(), first)
        };
        if let Some(encoders) = encoders {
            first.iter().for_each(|codec| encoders.enable(*codec, true));
        }
        for codec in codecs.iter().filter(|codec| codec.is_video()) {
            self.request_key_frame(*codec);
        }
        Viewer::new(self.clone(), id, codecs.to_vec(), receiver)
    }

    /// Asks for a key frame, unless one was asked for a moment ago.
    pub fn request_key_frame(&self, codec: Codec) {
        let encoders = {
            let mut state = self.state.lock();
            let now = Instant::now();
            if state.key_frames.get(&codec).is_some_and(|last| now - *last < KEY_FRAME_INTERVAL) {
                return;
            }
            let Some(encoders) = state.encoders.clone() else { return };
            state.key_frames.insert(codec, now);
            encoders
        };
        encoders.key_frame(codec);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of media that were handed to viewers.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Number of viewers.
    pub fn viewers(&self) -> usize {
        let state = self.state.lock();
        let mut ids: Vec<u64> = state.viewers.values().flat_map(|viewers| viewers.keys().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }

    /// How long nobody has watched; `None` while somebody does.
    pub fn unwatched(&self) -> Option<Duration> {
        self.state.lock().unwatched.map(|since| since.elapsed())
    }

    pub(super) fn leave(&self, viewer: u64) {
        let (encoders, idle, rates) = {
            let mut state = self.state.lock();
            let mut idle = Vec::new();
            let mut left = Vec::new();
            for (codec, viewers) in &mut state.viewers {
                if viewers.remove(&viewer).is_some() {
                    if viewers.is_empty() { idle.push(*codec) } else { left.push(*codec) }
                }
            }
            if state.viewers.values().all(HashMap::is_empty) {
                state.unwatched.get_or_insert_with(Instant::now);
            }
            let rates: Vec<_> = left
                .iter()
                .filter(|codec| codec.is_video())
                .map(|codec| (*codec, state.rate(*codec, self.floor)))
                .collect();
            (state.encoders.clone(), idle, rates)
        };
        let Some(encoders) = encoders else { return };
        for codec in idle {
            encoders.enable(codec, false);
            if codec.is_video() {
                encoders.bit_rate(codec, None);
            }
        }
        rates.into_iter().for_each(|(codec, rate)| encoders.bit_rate(codec, rate));
    }

    /// What a viewer can take, in bit/s of video. The encoder follows the slowest viewer that can take the floor; one
    /// that cannot loses frames instead of spoiling the picture of everyone.
    pub(super) fn report_bandwidth(&self, viewer: u64, codec: Codec, bandwidth: u32) {
        let (encoders, rate) = {
            let mut state = self.state.lock();
            let Some(entry) = state.viewers.get_mut(&codec).and_then(|viewers| viewers.get_mut(&viewer)) else {
                return;
            };
            *entry = Some(bandwidth);
            (state.encoders.clone(), state.rate(codec, self.floor))
        };
        if let Some(encoders) = encoders {
            encoders.bit_rate(codec, rate);
        }
    }
}

impl State {
    fn watched(&self) -> Vec<Codec> {
        self.viewers.iter().filter(|(_, viewers)| !viewers.is_empty()).map(|(codec, _)| *codec).collect()
    }

    fn rate(&self, codec: Codec, floor: u32) -> Option<u32> {
        self.viewers.get(&codec)?.values().flatten().copied().filter(|rate| *rate >= floor).min()
    }
}
