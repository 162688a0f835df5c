//! WHIP: a source of a session.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use str0m::{
    Rtc,
    format::Codec as Format,
    media::{KeyframeRequestKind, MediaData, MediaKind, Mid},
};

use super::{
    negotiate::Track,
    source_clock::{Report, SourceClock, Stream},
    status::{Counters, Streams},
};
use crate::live::{Decoder, Outlet};

/// Time between two requests for a key frame.
const KEY_FRAMES: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Publish {
    /// `None` once it is being let go.
    decoder: Option<Decoder>,
    outlet: Arc<Outlet>,
    video: Option<Track>,
    audio: Option<Track>,
    clock: SourceClock,
    /// What the decoder was told that comes.
    video_codec: Option<Format>,
    audio_started: bool,
    /// The picture is broken until a key frame comes.
    broken: bool,
    asked: Option<Instant>,
    streams: Streams,
    counters: Counters,
    failure: Option<String>,
}

impl Publish {
    /// Takes over a decoder whose inlet has its place in the session. Video is taken where `video` is given.
    pub fn new(decoder: Decoder, outlet: Arc<Outlet>, video: Option<Track>, audio: Option<Track>) -> Self {
        Self {
            decoder: Some(decoder),
            outlet,
            video,
            audio,
            clock: SourceClock::new(48_000, 90_000),
            video_codec: None,
            audio_started: false,
            broken: true,
            asked: None,
            streams: Streams::default(),
            counters: Counters::default(),
            failure: None,
        }
    }

    pub fn connect(&mut self) {
        self.broken = true;
    }

    /// An audio packet or a whole frame, in order.
    pub fn take(&mut self, data: MediaData) {
        let report = data.last_sender_info.map(|info| Report { ntp: info.ntp_time, rtp: info.rtp_time.numer() as u32 });
        let (rtp, arrival) = (data.time.numer() as u32, data.network_time);
        let format = data.params.spec().codec;
        match format.kind() {
            MediaKind::Audio if self.audio.is_some_and(|track| track.mid == data.mid) => {
                let time = self.clock.time(Stream::Audio, rtp, report, arrival);
                self.sound(&data.data, time);
            }
            MediaKind::Video if self.video.is_some_and(|track| track.mid == data.mid) => {
                let time = self.clock.time(Stream::Video, rtp, report, arrival);
                self.picture(&data, format, time);
            }
            _ => {}
        }
    }

    fn sound(&mut self, data: &[u8], time: Duration) {
        let Some(decoder) = &mut self.decoder else { return };
        if !self.audio_started {
            self.audio_started = true;
            let caps = gst::Caps::builder("audio/x-opus")
                .field("rate", 48_000)
                .field("channels", 2)
                .field("channel-mapping-family", 0)
                .build();
            if let Err(error) = decoder.audio_caps(&caps) {
                self.failure = Some(error.to_string());
                return;
            }
        }
        self.counters.sounds += 1;
        decoder.push_audio(Bytes::copy_from_slice(data), time);
    }

    fn picture(&mut self, data: &MediaData, format: Format, time: Duration) {
        if data.is_keyframe() {
            self.broken = false;
        } else if self.broken || !data.contiguous {
            // Shown, it would smear until the next key frame; the session holds the last good one instead.
            self.broken = true;
            self.counters.frames_skipped += 1;
            return;
        }
        let Some(decoder) = &mut self.decoder else { return };
        if self.video_codec != Some(format) {
            let caps = match format {
                Format::H264 => gst::Caps::builder("video/x-h264")
                    .field("stream-format", "byte-stream")
                    .field("alignment", "au")
                    .build(),
                _ => gst::Caps::builder("video/x-vp8").build(),
            };
            if let Err(error) = decoder.video_caps(&caps) {
                self.failure = Some(error.to_string());
                return;
            }
            self.video_codec = Some(format);
        }
        if decoder.push_video(Bytes::copy_from_slice(&data.data), time, None) {
            self.counters.frames += 1;
        } else {
            self.broken = true;
            self.counters.frames_skipped += 1;
        }
    }

    /// Asks the publisher for a key frame while its picture is broken.
    pub fn ask_for_key_frame(&mut self, rtc: &mut Rtc) {
        let Some(video) = self.video else { return };
        let now = Instant::now();
        if !self.broken || self.asked.is_some_and(|last| now - last < KEY_FRAMES) {
            return;
        }
        if let Some(mut writer) = rtc.writer(video.mid) {
            let kind = [KeyframeRequestKind::Pli, KeyframeRequestKind::Fir]
                .into_iter()
                .find(|kind| writer.is_request_keyframe_possible(*kind));
            // Before the first packet there is no stream to ask of.
            if kind.is_some_and(|kind| writer.request_keyframe(None, kind).is_ok()) {
                self.asked = Some(now);
            }
        }
    }

    /// Why the source cannot go on.
    pub fn failure(&self) -> Option<String> {
        if self.outlet.is_closed() {
            return Some("the session has ended".into());
        }
        self.failure.clone().or_else(|| self.decoder.as_ref().and_then(Decoder::failure))
    }

    pub fn note(&mut self, mid: Mid, totals: [u64; 5]) -> [u64; 5] {
        self.streams.note(mid, totals)
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for Publish {
    fn drop(&mut self) {
        // Stopping a pipeline waits for its threads, which this one must not. The place is free before that: whoever deletes
        // a source may publish again when it is answered.
        if let Some(decoder) = self.decoder.take() {
            decoder.leave();
            std::thread::spawn(move || drop(decoder));
        }
    }
}
