//! Encoded media as it leaves a session.

use std::{fmt, time::Duration};

use bytes::Bytes;

/// What a session can be encoded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// Constrained baseline, no B-frames.
    H264,
    Vp8,
    /// AAC-LC, 48 kHz stereo, 1024 samples a packet.
    Aac,
    /// 48 kHz stereo, 20 ms a packet.
    Opus,
}

impl Codec {
    pub const ALL: [Self; 4] = [Self::H264, Self::Vp8, Self::Aac, Self::Opus];

    pub fn is_video(self) -> bool {
        matches!(self, Self::H264 | Self::Vp8)
    }

    /// Name as metrics, element names and the API spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Vp8 => "vp8",
            Self::Aac => "aac",
            Self::Opus => "opus",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One access unit or audio packet. There is no reordering: it is decoded and shown in the order in which it comes.
#[derive(Clone, Debug)]
pub struct Packet {
    pub codec: Codec,
    /// Running time of the session.
    pub pts: Duration,
    pub duration: Duration,
    /// Decoding can start here. Always so for audio.
    pub key: bool,
    /// H.264: an access unit in Annex B, SPS and PPS in front of every key frame. VP8: a frame. AAC: a raw data block
    /// without ADTS. Opus: a packet.
    pub data: Bytes,
}
