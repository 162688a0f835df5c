//! Someone who watches a session.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{Codec, Outlet, Packet};
use crate::tenants::Place;

/// Receives the packets of the codecs that it asked for, in order; video begins at a key frame. Dropping it leaves.
pub struct Viewer {
    outlet: Arc<Outlet>,
    id: u64,
    codecs: Vec<Codec>,
    packets: broadcast::Receiver<Packet>,
    /// Video codecs whose next key frame is waited for.
    waiting: HashSet<Codec>,
    skipped: u64,
    /// Its place among the viewers of a tenant.
    place: Option<Place>,
    /// Cancelled when the key that has opened it is revoked.
    until: CancellationToken,
}

impl Viewer {
    pub(super) fn new(outlet: Arc<Outlet>, id: u64, codecs: Vec<Codec>, packets: broadcast::Receiver<Packet>) -> Self {
        let waiting = codecs.iter().copied().filter(|codec| codec.is_video()).collect();
        Self { outlet, id, codecs, packets, waiting, skipped: 0, place: None, until: CancellationToken::new() }
    }

    /// Holds a place among the viewers of a tenant, and ends when `until` is cancelled.
    pub fn hold(&mut self, place: Option<Place>, until: CancellationToken) {
        (self.place, self.until) = (place, until);
    }

    /// The next packet; `None` when the session has ended. A viewer that is too far behind loses what it could not
    /// take, up to the next key frame. Cancel safe.
    pub async fn recv(&mut self) -> Option<Packet> {
        loop {
            if self.outlet.is_closed() {
                return None;
            }
            let packet = tokio::select! {
                packet = self.packets.recv() => packet,
                () = self.until.cancelled() => return None,
            };
            match packet {
                Ok(packet) if packet.pts == Duration::MAX => return None,
                Ok(packet) if !self.codecs.contains(&packet.codec) => {}
                Ok(packet) if packet.key => {
                    self.waiting.remove(&packet.codec);
                    self.outlet.count_sent(packet.data.len());
                    return Some(packet);
                }
                Ok(packet) if self.waiting.contains(&packet.codec) => {
                    self.skipped += 1;
                    // Asked for again in case the first request met a graph that had not started.
                    self.outlet.request_key_frame(packet.codec);
                }
                Ok(packet) => {
                    self.outlet.count_sent(packet.data.len());
                    return Some(packet);
                }
                Err(RecvError::Lagged(lost)) => {
                    self.skipped += lost;
                    self.resynchronise();
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Drops frames until the next key frame, which is asked for.
    pub fn resynchronise(&mut self) {
        for codec in self.codecs.iter().copied().filter(|codec| codec.is_video()) {
            self.waiting.insert(codec);
            self.outlet.request_key_frame(codec);
        }
    }

    /// The peer has lost a frame (PLI, FIR).
    pub fn request_key_frame(&self) {
        for codec in self.codecs.iter().filter(|codec| codec.is_video()) {
            self.outlet.request_key_frame(*codec);
        }
    }

    /// What the peer's network takes, in bit/s of video.
    pub fn report_bandwidth(&self, bandwidth: u32) {
        for codec in self.codecs.iter().filter(|codec| codec.is_video()) {
            self.outlet.report_bandwidth(self.id, *codec, bandwidth);
        }
    }

    /// Packets that were not delivered, for metrics.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.outlet.leave(self.id);
    }
}
