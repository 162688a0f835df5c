//! From a publisher's tags to a session.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    avc,
    flv::{self, Codec, Tag},
    timeline::Timeline,
};
use crate::{
    error::Result,
    live::{Decoder, Inlet},
};

/// Time for the last pictures of a publisher to be decoded.
const DRAIN: Duration = Duration::from_millis(500);

/// Why a publisher cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Problem(pub String);

/// Decodes one publisher.
pub struct Ingest {
    decoder: Decoder,
    timeline: Timeline,
    video: Track,
    audio: Track,
    /// A picture was dropped: those up to the next key frame would be broken.
    skipping: bool,
    dropped: u64,
    /// Whether it was said that tracks beside the first are not used, and that a header is waited for.
    aside: bool,
    waiting: bool,
}

#[derive(Default)]
struct Track {
    codec: Option<Codec>,
    config: Bytes,
}

impl Track {
    fn is(&self, codec: Codec, config: &Bytes) -> bool {
        self.codec == Some(codec) && self.config == *config
    }
}

impl Ingest {
    pub fn new(inlet: Inlet) -> Result<Self> {
        Ok(Self {
            decoder: Decoder::new(inlet)?,
            timeline: Timeline::default(),
            video: Track::default(),
            audio: Track::default(),
            skipping: false,
            dropped: 0,
            aside: false,
            waiting: false,
        })
    }

    /// A video message at its own time, in milliseconds.
    pub fn video(&mut self, timestamp: u32, tag: Bytes) -> Result<(), Problem> {
        match self.read(flv::video(tag))? {
            Some(Tag::Config { codec, data }) => self.set_video(codec, data),
            Some(Tag::Frame { codec, key, composition, data, .. }) => {
                if self.video.codec != Some(codec) {
                    // VP8 needs no configuration; others cannot be decoded without theirs.
                    if !matches!(codec, Codec::Vp8 | Codec::Vp9) {
                        return Ok(());
                    }
                    self.set_video(codec, Bytes::new())?;
                }
                let placed = self.place(timestamp);
                if self.skipping && !key {
                    self.dropped += 1;
                    return Ok(());
                }
                self.skipping = !self.decoder.push_video(data, placed.shown(composition), Some(placed.time()));
                self.dropped += u64::from(self.skipping);
                Ok(())
            }
            Some(Tag::Aside(number)) => self.pass_over(number),
            None => Ok(()),
        }
    }

    /// An audio message at its own time, in milliseconds.
    pub fn audio(&mut self, timestamp: u32, tag: Bytes) -> Result<(), Problem> {
        match self.read(flv::audio(tag))? {
            Some(Tag::Config { codec, data }) => self.set_audio(codec, data),
            Some(Tag::Frame { codec, channels, data, .. }) => {
                // Of what has no configuration the channels are one.
                let own = if channels == 0 { &[] } else { std::slice::from_ref(&channels) };
                if self.audio.codec != Some(codec) || (channels > 0 && self.audio.config != own) {
                    if codec == Codec::Aac {
                        return Ok(());
                    }
                    self.set_audio(codec, Bytes::copy_from_slice(own))?;
                }
                let placed = self.place(timestamp);
                self.dropped += u64::from(!self.decoder.push_audio(data, placed.time()));
                Ok(())
            }
            Some(Tag::Aside(number)) => self.pass_over(number),
            None => Ok(()),
        }
    }

    /// What stopped the decoder.
    pub fn failure(&self) -> Option<String> {
        self.decoder.failure()
    }

    /// The publisher has ended in order: what it sent last is shown too.
    pub fn finish(&self) {
        self.decoder.finish(DRAIN);
    }

    /// Packets that came faster than they could be decoded.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn read(&self, tag: Result<Option<Tag>, flv::Error>) -> Result<Option<Tag>, Problem> {
        match tag {
            // One broken tag is the encoder's hiccup; a codec that is not supported stays so.
            Err(flv::Error::Short) => Ok(None),
            other => other.map_err(|error| Problem(error.to_string())),
        }
    }

    fn pass_over(&mut self, number: u8) -> Result<(), Problem> {
        if !std::mem::replace(&mut self.aside, true) {
            tracing::warn!(
                "an RTMP publisher sends several tracks: the first is used, track {number} and others are not"
            );
        }
        Ok(())
    }

    fn place(&mut self, timestamp: u32) -> super::timeline::Placed {
        let placed = self.timeline.place(timestamp, Instant::now());
        if placed.restarted {
            self.decoder.restart();
        }
        placed
    }

    fn set_video(&mut self, codec: Codec, config: Bytes) -> Result<(), Problem> {
        if self.video.is(codec, &config) {
            return Ok(());
        }
        if self.video.codec.is_some_and(|old| old != codec) {
            return Err(Problem("the video's codec changed in the middle of the stream: publish anew".into()));
        }
        if codec == Codec::H264 && avc::record_kind(&config) == avc::Record::Lacking {
            if !std::mem::replace(&mut self.waiting, true) {
                tracing::warn!(
                    "an RTMP publisher's H.264 sequence header has no parameter sets: a whole one is waited for"
                );
            }
            return Ok(());
        }
        self.decoder.video_caps(&video_caps(codec, &config)?).map_err(|error| Problem(error.to_string()))?;
        self.video = Track { codec: Some(codec), config };
        Ok(())
    }

    fn set_audio(&mut self, codec: Codec, config: Bytes) -> Result<(), Problem> {
        if self.audio.is(codec, &config) {
            return Ok(());
        }
        if self.audio.codec.is_some_and(|old| old != codec) {
            return Err(Problem("the sound's codec changed in the middle of the stream: publish anew".into()));
        }
        self.decoder.audio_caps(&audio_caps(codec, &config)?).map_err(|error| Problem(error.to_string()))?;
        self.audio = Track { codec: Some(codec), config };
        Ok(())
    }
}

fn video_caps(codec: Codec, config: &Bytes) -> Result<gst::Caps, Problem> {
    let caps = match codec {
        Codec::H264 => {
            if avc::record_kind(config) != avc::Record::Whole {
                return Err(Problem("the H.264 sequence header is broken".into()));
            }
            gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au")
        }
        Codec::H265 => gst::Caps::builder("video/x-h265").field("stream-format", "hvc1").field("alignment", "au"),
        Codec::Av1 => gst::Caps::builder("video/x-av1").field("stream-format", "obu-stream").field("alignment", "tu"),
        Codec::Vp9 => gst::Caps::builder("video/x-vp9"),
        Codec::Vp8 => gst::Caps::builder("video/x-vp8"),
        Codec::Aac | Codec::Opus | Codec::Mp3 | Codec::ALaw | Codec::MuLaw => {
            return Err(Problem("sound in a video message".into()));
        }
    };
    Ok(match codec {
        Codec::H264 | Codec::H265 | Codec::Av1 => caps.field("codec_data", gst::Buffer::from_slice(config.clone())),
        _ => caps,
    }
    .build())
}

fn audio_caps(codec: Codec, config: &Bytes) -> Result<gst::Caps, Problem> {
    Ok(match codec {
        Codec::Aac => {
            let (rate, channels) = flv::aac_format(config)
                .ok_or_else(|| Problem("the AAC sequence header (AudioSpecificConfig) is broken".into()))?;
            gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "raw")
                .field("framed", true)
                .field("rate", rate as i32)
                .field("channels", channels as i32)
                .field("codec_data", gst::Buffer::from_slice(config.clone()))
        }
        Codec::Opus => {
            // OpusHead (RFC 7845, 5.1): channels are its tenth byte.
            let channels = config.get(9).copied().filter(|count| (1..=2).contains(count)).unwrap_or(2);
            gst::Caps::builder("audio/x-opus")
                .field("channel-mapping-family", 0)
                .field("rate", 48_000)
                .field("channels", i32::from(channels))
        }
        Codec::Mp3 => gst::Caps::builder("audio/mpeg").field("mpegversion", 1).field("layer", 3),
        Codec::ALaw | Codec::MuLaw => {
            let name = if codec == Codec::ALaw { "audio/x-alaw" } else { "audio/x-mulaw" };
            let channels = config.first().copied().unwrap_or(1);
            gst::Caps::builder(name).field("rate", 8000).field("channels", i32::from(channels))
        }
        _ => return Err(Problem("video in an audio message".into())),
    }
    .build())
}
