//! What the peers and the server say about themselves.

use std::{collections::HashMap, net::SocketAddr, time::Instant};

use serde::Serialize;
use str0m::media::Mid;
use utoipa::ToSchema;

/// What a peer is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Watches by WHEP.
    Viewer,
    /// Sends the session's video by WHIP.
    Publisher,
    /// Sends one of the session's voices by WHIP.
    Voice,
}

/// Counters of one peer since it came. Sent for a viewer, received for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counters {
    /// RTP packets, resent ones included.
    pub packets: u64,
    pub bytes: u64,
    /// Packets that the receiving side reports as lost before any resend.
    pub packets_lost: u64,
    /// Requests to send packets again, loss of a picture (PLI), full pictures (FIR).
    pub nacks: u64,
    pub plis: u64,
    pub firs: u64,
    /// Video frames that a slow network made us leave out.
    pub frames_skipped: u64,
    /// Video frames and audio packets given to it, or taken from it.
    pub frames: u64,
    pub sounds: u64,
}

impl Counters {
    pub(super) fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.packets_lost += other.packets_lost;
        self.nacks += other.nacks;
        self.plis += other.plis;
        self.firs += other.firs;
        self.frames_skipped += other.frames_skipped;
        self.frames += other.frames;
        self.sounds += other.sounds;
    }
}

/// A moment of one peer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PeerStatus {
    /// Number of the peer since the server started; not the secret part of its URL.
    pub peer: u64,
    pub session: String,
    pub role: Role,
    pub connected: bool,
    /// `h264`, `vp8`, `opus`.
    pub codecs: Vec<&'static str>,
    /// Where its packets go to or come from.
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// Since it came.
    pub seconds: f64,
    /// Milliseconds from the offer to the connection.
    pub setup_ms: Option<f64>,
    #[serde(flatten)]
    pub counters: Counters,
    /// What its network takes, estimated, in bit/s.
    pub bandwidth: Option<u64>,
    pub round_trip_ms: Option<f64>,
    #[serde(skip)]
    pub(super) since: Option<Instant>,
}

impl PeerStatus {
    pub(super) fn new(peer: u64, session: &str, role: Role, codecs: Vec<&'static str>) -> Self {
        Self {
            peer,
            session: session.to_owned(),
            role,
            connected: false,
            codecs,
            address: None,
            seconds: 0.0,
            setup_ms: None,
            counters: Counters::default(),
            bandwidth: None,
            round_trip_ms: None,
            since: Some(Instant::now()),
        }
    }

    pub(super) fn now(&self) -> Self {
        let seconds = self.since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        Self { seconds, ..self.clone() }
    }
}

/// The server since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Totals {
    /// Peers that are here.
    pub viewers: usize,
    pub publishers: usize,
    /// Peers that have come, that never connected, and whose network fell silent.
    pub opened: u64,
    pub never_connected: u64,
    pub timed_out: u64,
    /// Offers that were refused.
    pub refused: u64,
    pub sent: Counters,
    pub received: Counters,
    /// Datagrams that belonged to nobody, or came faster than their peer took them.
    pub stray_datagrams: u64,
}

impl PeerStatus {
    /// Takes the sums over the peer's streams: packets, NACKs, PLIs, FIRs, lost packets.
    pub(super) fn count(&mut self, [packets, nacks, plis, firs, lost]: [u64; 5]) {
        let counters = &mut self.counters;
        (counters.packets, counters.nacks, counters.plis) = (packets, nacks, plis);
        (counters.firs, counters.packets_lost) = (firs, lost);
    }
}

/// The latest totals of each stream of a peer.
#[derive(Default)]
pub(super) struct Streams(HashMap<Mid, [u64; 5]>);

impl Streams {
    /// Remembers a stream's totals and gives the sums over all.
    pub fn note(&mut self, mid: Mid, totals: [u64; 5]) -> [u64; 5] {
        self.0.insert(mid, totals);
        self.0.values().fold([0; 5], |sum, totals| std::array::from_fn(|i| sum[i] + totals[i]))
    }
}
