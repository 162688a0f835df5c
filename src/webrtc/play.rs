//! WHEP: a viewer of a session.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use str0m::{
    Rtc, RtcError,
    bwe::{Bitrate, BweKind},
    media::{Frequency, MediaTime, Mid},
};

use super::{
    alignment::Alignment,
    negotiate::Track,
    status::{Counters, Streams},
    timeline::Timeline,
};
use crate::live::{Codec, Packet, Viewer};

/// Video that is kept for a peer that is still connecting, from the last key frame on: it sees a picture as soon as it
/// is there. If it takes longer than this it starts with a new key frame.
const WAITING: Duration = Duration::from_millis(1500);
/// Video that waits longer than this to be sent is more than the network takes: the rest up to the next key frame is
/// left out, so that the picture is late by this at most.
const CONGESTED: Duration = Duration::from_millis(500);
/// Time between two key frames that one viewer's network may cost everyone; doubled each time, up to the last.
const KEY_FRAMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));
/// Losses of a picture that a viewer may report: a key frame each.
const PICTURES_LOST: Duration = Duration::from_secs(1);
/// What sound and retransmission take of a viewer's bandwidth, in bit/s: Opus at 64 to 96 kbit/s with its headers.
const SOUND: u64 = 120_000;
/// Part of the estimated bandwidth that video may take.
const SHARE: f64 = 0.9;
/// Time after connecting in which the estimate is still being found.
const SETTLING: Duration = Duration::from_secs(3);
/// Change of the estimate that is worth telling the encoder.
const NOTABLE: f64 = 0.05;

/// What a viewer's network does with its video.
enum Flow {
    Free,
    /// Frames are left out until the queue is empty and a key frame comes.
    Skipping {
        asked: Option<Instant>,
    },
}

/// See the module.
pub(super) struct Play {
    viewer: Viewer,
    video: Option<Track>,
    audio: Option<Track>,
    timeline: Timeline,
    alignment: Alignment,
    /// To be written, with the time of arrival.
    waiting: VecDeque<(Packet, Instant)>,
    /// Sounds that wait for their pictures, with the time of arrival and the time to be written.
    sounds: VecDeque<(Packet, Instant, Instant)>,
    flow: Flow,
    /// Pause until the next key frame that this viewer may ask for, and its last one.
    pause: Duration,
    asked: Option<Instant>,
    connected: Option<Instant>,
    reported: Option<u64>,
    streams: Streams,
    counters: Counters,
}

impl Play {
    pub fn new(viewer: Viewer, video: Option<Track>, audio: Option<Track>) -> Self {
        Self {
            viewer,
            video,
            audio,
            timeline: Timeline::default(),
            alignment: Alignment::new(Instant::now()),
            waiting: VecDeque::new(),
            sounds: VecDeque::new(),
            flow: Flow::Free,
            pause: KEY_FRAMES.0,
            asked: None,
            connected: None,
            reported: None,
            streams: Streams::default(),
            counters: Counters::default(),
        }
    }

    /// The next packet of the session; `None` when it has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Packet> {
        self.viewer.recv().await
    }

    /// Takes a packet to be written. Before the connection only video from the last key frame on is kept.
    pub fn take(&mut self, packet: Packet, connected: bool) {
        let now = Instant::now();
        if self.alignment.note(packet.codec.is_video(), packet.pts, now) {
            self.sounds.clear();
        }
        if !connected {
            if !packet.codec.is_video() {
                return;
            }
            if packet.key {
                self.waiting.clear();
            } else {
                // By running time: what a graph that was slow to start has made meanwhile arrives all at once.
                match self.waiting.front() {
                    Some((first, _)) if packet.pts.abs_diff(first.pts) <= WAITING => {}
                    _ => {
                        self.waiting.clear();
                        return;
                    }
                }
            }
        }
        if packet.codec.is_video() {
            self.waiting.push_back((packet, now));
        } else {
            let hold = if self.video.is_some() { self.alignment.hold() } else { Duration::ZERO };
            self.sounds.push_back((packet, now, now + hold));
        }
    }

    /// When the next sound is to be written.
    pub fn due(&self) -> Option<Instant> {
        self.sounds.front().map(|(_, _, due)| *due)
    }

    pub fn connect(&mut self, rtc: &mut Rtc, max_bitrate: u32, now: Instant) {
        self.connected = Some(now);
        if self.video.is_some() {
            rtc.bwe().set_bitrate(Bitrate::bps(0), Bitrate::bps(max_bitrate.into()));
        }
        if self.video.is_some() && self.waiting.is_empty() {
            self.viewer.resynchronise();
        }
    }

    /// Writes the first packet that waits and is wanted; whether there was one.
    pub fn write(&mut self, rtc: &mut Rtc, now: Instant) -> Result<bool, RtcError> {
        while let Some((packet, arrived)) = self.pop(now) {
            let place = self.timeline.place(packet.codec, packet.pts, arrived);
            let track = if packet.codec.is_video() { self.video } else { self.audio };
            let Some(track) = track.filter(|track| track.codec == packet.codec) else { continue };
            if packet.codec.is_video() && self.left_out(rtc, track.mid, packet.key, now) {
                self.counters.frames_skipped += 1;
                continue;
            }
            let rate = if packet.codec == Codec::Opus { Frequency::FORTY_EIGHT_KHZ } else { Frequency::NINETY_KHZ };
            // Rounded, so that a running time that is a multiple of the frame stays one.
            let ticks = (place.media.as_nanos() * u128::from(rate.get()) + 500_000_000) / 1_000_000_000;
            let Some(writer) = rtc.writer(track.mid) else { continue };
            let data: Arc<[u8]> = Arc::from(&packet.data[..]);
            writer.write(track.pt, place.wallclock, MediaTime::new(ticks as u64, rate), data)?;
            if packet.codec.is_video() {
                self.counters.frames += 1;
            } else {
                self.counters.sounds += 1;
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn pop(&mut self, now: Instant) -> Option<(Packet, Instant)> {
        if self.due().is_some_and(|due| due <= now) {
            return self.sounds.pop_front().map(|(packet, arrived, _)| (packet, arrived));
        }
        self.waiting.pop_front()
    }

    /// Whether a frame is left out because the network is behind.
    fn left_out(&mut self, rtc: &mut Rtc, mid: Mid, key: bool, now: Instant) -> bool {
        let oldest = rtc
            .direct_api()
            .stream_tx_by_mid(mid, None)
            .and_then(|stream| stream.queue_info().and_then(|queue| queue.first_unsent()));
        let delay = oldest.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest));
        match &mut self.flow {
            Flow::Free if delay > CONGESTED => {
                self.flow = Flow::Skipping { asked: None };
                true
            }
            Flow::Free => false,
            Flow::Skipping { .. } if !delay.is_zero() && delay > CONGESTED / 10 => true,
            Flow::Skipping { asked } => {
                if key {
                    self.flow = Flow::Free;
                    return false;
                }
                let may = self.asked.is_none_or(|last| now - last >= self.pause);
                if asked.is_none() && may {
                    *asked = Some(now);
                    self.asked = Some(now);
                    self.pause = (self.pause * 2).min(KEY_FRAMES.1);
                    self.viewer.request_key_frame();
                } else if asked.is_some_and(|asked| now - asked > KEY_FRAMES.0) {
                    // It got lost on the way to an encoder that was just starting.
                    *asked = None;
                }
                true
            }
        }
    }

    /// The peer has lost a picture (PLI, FIR).
    pub fn picture_lost(&mut self, now: Instant) {
        if matches!(self.flow, Flow::Free) && self.asked.is_none_or(|last| now - last >= PICTURES_LOST) {
            self.asked = Some(now);
            self.viewer.request_key_frame();
        }
    }

    /// Passes a new estimate of the bandwidth on to the encoder; gives the estimate.
    pub fn estimate(&mut self, estimate: &BweKind, now: Instant) -> Option<u64> {
        let estimate = match estimate {
            BweKind::Twcc { estimate, can_probe: true } => estimate.as_u64(),
            BweKind::Remb { estimate, .. } => estimate.as_u64(),
            // It cannot be told any more: what it was last is of no use.
            _ => return None,
        };
        if matches!(self.flow, Flow::Free) && self.pause > KEY_FRAMES.0 {
            let calm = self.asked.is_none_or(|asked| now - asked > KEY_FRAMES.1 * 2);
            self.pause = if calm { KEY_FRAMES.0 } else { self.pause };
        }
        let settled = self.connected.is_some_and(|since| now - since > SETTLING);
        let notable = self.reported.is_none_or(|last| (estimate as f64 / last.max(1) as f64 - 1.0).abs() > NOTABLE);
        if settled && notable && self.video.is_some() {
            self.reported = Some(estimate);
            let video = (estimate.saturating_sub(SOUND) as f64 * SHARE) as u64;
            self.viewer.report_bandwidth(u32::try_from(video).unwrap_or(u32::MAX));
        }
        Some(estimate)
    }

    pub fn note(&mut self, mid: Mid, totals: [u64; 5]) -> [u64; 5] {
        self.streams.note(mid, totals)
    }

    pub fn counters(&self) -> Counters {
        Counters { frames_skipped: self.counters.frames_skipped + self.viewer.skipped(), ..self.counters }
    }
}
