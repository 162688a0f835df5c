//! From a session's packets to the tags of one player or push.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{amf, avc, chunk::kind, flv};
use crate::live::{Codec, Packet};

/// A running time that falls back by more than this is another graph's.
const RESTART: Duration = Duration::from_secs(1);

/// A message to be sent on the media stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    pub kind: u8,
    /// Milliseconds since the first picture.
    pub timestamp: u32,
    pub data: Bytes,
}

/// Turns packets into messages: the first is metadata, again where the pictures change, then the sequence headers and a key frame at 0. Picture and sound
/// are on one offset, and neither runs back.
#[derive(Default)]
pub struct Flow {
    /// What is subtracted from the session's running time, in ms; `None` before the first key frame.
    shift: Option<i64>,
    last: Option<(Duration, Instant)>,
    /// Of the last message of each kind that was sent.
    video: Option<i64>,
    audio: Option<i64>,
    config: Bytes,
    /// What the last metadata said.
    picture: Option<avc::Picture>,
    header: Bytes,
    sound: bool,
    marked: bool,
}

impl Flow {
    /// For a viewer that watches AAC too where `sound` is set; the metadata say what made the picture where it is `marked`.
    pub fn new(sound: bool, marked: bool) -> Self {
        Self { sound, marked, ..Self::default() }
    }

    /// Messages for `packet`. `header` gives AAC's AudioSpecificConfig.
    pub fn packet(&mut self, packet: &Packet, header: impl FnOnce() -> Option<Bytes>) -> Vec<Out> {
        let now = Instant::now();
        let mut out = Vec::new();
        match packet.codec {
            Codec::H264 => {
                let unit = avc::from_annex_b(&packet.data);
                let first = self.shift.is_none();
                if first && !(packet.key && unit.config.is_some()) {
                    return out;
                }
                let time = self.place(packet.pts, now);
                let time = self.video.map_or(time, |last| time.max(last + 1));
                self.video = Some(time);
                if first || unit.picture.is_some_and(|picture| self.picture != Some(picture)) {
                    // At 0 wherever it comes: libavformat takes what has a time for subtitles, and waits for more of them.
                    let data = amf::encode(&flv::metadata(unit.picture, self.sound, self.marked));
                    out.push(Out { kind: kind::DATA, timestamp: 0, data });
                    self.picture = unit.picture;
                }
                let mut push = |kind, data| out.push(Out { kind, timestamp: time as u32, data });
                if let Some(config) = unit.config.filter(|config| *config != self.config) {
                    push(kind::VIDEO, flv::avc_config(&config));
                    self.config = config;
                }
                if !unit.data.is_empty() {
                    push(kind::VIDEO, flv::avc_frame(packet.key, &unit.data));
                }
            }
            Codec::Aac if self.shift.is_some() => {
                let time = self.place(packet.pts, now);
                if time < 0 {
                    return out;
                }
                let time = self.audio.map_or(time, |last| time.max(last));
                self.audio = Some(time);
                let mut push = |data| out.push(Out { kind: kind::AUDIO, timestamp: time as u32, data });
                if let Some(header) = header().filter(|header| *header != self.header) {
                    push(flv::aac_config(&header));
                    self.header = header;
                }
                if !self.header.is_empty() {
                    push(flv::aac_frame(&packet.data));
                }
            }
            _ => {}
        }
        out
    }

    /// The packet's time in this flow. A session's graph that was started anew begins at 0 again: the flow goes on by as
    /// much as has passed.
    fn place(&mut self, pts: Duration, now: Instant) -> i64 {
        let own = pts.as_millis() as i64;
        let mut shift = self.shift.unwrap_or(own);
        if let Some((last, seen)) = self.last.filter(|(last, _)| pts + RESTART < *last) {
            let sent = last.as_millis() as i64 - shift;
            let passed = now.saturating_duration_since(seen).as_millis() as i64;
            shift = own - (sent + passed.max(1));
        }
        self.shift = Some(shift);
        self.last = Some((pts, now));
        own - shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(pts: u64, key: bool) -> Packet {
        let mut data = Vec::new();
        if key {
            data.extend_from_slice(&[0, 0, 0, 1, 0x67, 0x42, 0xC0, 0x1E, 0xD9, 0, 0, 0, 1, 0x68, 0xCB, 0x83]);
        }
        data.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 0x88]);
        packet(Codec::H264, pts, key, data)
    }

    fn audio(pts: u64) -> Packet {
        packet(Codec::Aac, pts, true, vec![0x21, 0x10])
    }

    fn packet(codec: Codec, pts: u64, key: bool, data: Vec<u8>) -> Packet {
        Packet { codec, pts: Duration::from_millis(pts), duration: Duration::ZERO, key, data: data.into() }
    }

    /// Kind and time of what is sent for the packets.
    fn sent(flow: &mut Flow, packets: &[Packet]) -> Vec<(u8, u32)> {
        let header = || Some(Bytes::from_static(&[0x11, 0x90]));
        packets.iter().flat_map(|p| flow.packet(p, header)).map(|out| (out.kind, out.timestamp)).collect()
    }

    #[test]
    fn a_flow_begins_at_zero_with_headers_and_a_key_frame() {
        let packets =
            [audio(9900), video(9960, false), video(10_000, true), audio(9990), audio(10_011), video(10_040, false)];
        let sent = sent(&mut Flow::new(true, false), &packets);
        use kind::{AUDIO, DATA, VIDEO};
        assert_eq!(sent, [(DATA, 0), (VIDEO, 0), (VIDEO, 0), (AUDIO, 11), (AUDIO, 11), (VIDEO, 40)]);
    }

    #[test]
    fn time_goes_on_when_the_graph_starts_anew() {
        let mut flow = Flow::new(true, false);
        sent(&mut flow, &[video(50_000, true), audio(53_000)]);
        let after = sent(&mut flow, &[video(0, true), audio(20), video(40, false)]);
        let first = after[0].1;
        assert!((3001..4000).contains(&first), "{after:?}");
        assert_eq!(after.iter().map(|(_, time)| time - first).collect::<Vec<_>>(), [0, 20, 40]);
    }

    #[test]
    fn metadata_come_again_with_other_pictures_at_no_time() {
        // x264's SPS of 640x360 at 25 fps.
        let sps = [
            0x67, 0x42, 0xC0, 0x1E, 0xD9, 0x00, 0xA0, 0x2F, 0xF9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00,
            0x03, 0x00, 0x32, 0x0F, 0x16, 0x2E,
        ];
        let start = [0, 0, 0, 1];
        let pictures = [&start[..], &sps, &start, &[0x68, 0xCB, 0x83], &start, &[0x65, 0x88]].concat();
        let other = |pts| packet(Codec::H264, pts, true, pictures.clone());
        let sent = sent(&mut Flow::new(false, false), &[video(0, true), video(40, false), other(80), other(120)]);
        use kind::{DATA, VIDEO};
        assert_eq!(
            sent,
            [(DATA, 0), (VIDEO, 0), (VIDEO, 0), (VIDEO, 40), (DATA, 0), (VIDEO, 80), (VIDEO, 80), (VIDEO, 120)]
        );
    }

    #[test]
    fn time_never_runs_back_within_a_stream() {
        let mut flow = Flow::new(true, false);
        let times = sent(&mut flow, &[video(100, true), video(140, false), video(130, false), video(180, false)]);
        let video: Vec<_> = times.iter().filter(|(kind, _)| *kind == kind::VIDEO).map(|(_, time)| *time).collect();
        assert_eq!(video, [0, 0, 40, 41, 80]);
    }
}
