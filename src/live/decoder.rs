//! Decodes what a peer sends into a session.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gst::prelude::*;
use gst_app::{AppSrc, AppStreamType};
use parking_lot::{Condvar, Mutex};

use super::{
    branch,
    inlet::{Description, Inlet},
};
use crate::error::{Failure, Result};

/// Encoded data of one stream that may wait for its decoder; more is a peer that sends faster than this machine
/// decodes, and is dropped.
const QUEUE_BYTES: u64 = 8 << 20;

/// Decodes one source: at most one video and one audio stream. Frames come out at the session's size, with borders
/// where the shape differs, so that a peer may change its resolution as it likes.
pub struct Decoder {
    pipeline: gst::Pipeline,
    inlet: Arc<Inlet>,
    video: Option<AppSrc>,
    audio: Option<AppSrc>,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    failure: Option<String>,
    drained: bool,
}

impl Decoder {
    /// A decoder without streams.
    pub fn new(inlet: Inlet) -> Result<Self> {
        crate::media::register();
        let pipeline = gst::Pipeline::new();
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let (seen, bus) = (state.clone(), pipeline.bus().expect("a pipeline has a bus"));
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Error(error) => {
                    seen.0.lock().failure.get_or_insert_with(|| crate::media::describe(error));
                    seen.1.notify_all();
                }
                gst::MessageView::Eos(_) => {
                    seen.0.lock().drained = true;
                    seen.1.notify_all();
                }
                _ => {}
            }
            gst::BusSyncReply::Drop
        });
        branch::hasten(pipeline.upcast_ref());
        Ok(Self { pipeline, inlet: Arc::new(inlet), video: None, audio: None, state })
    }

    /// Sets the format of the video, or changes it mid-stream: `video/x-h264`, `video/x-h265`, `video/x-vp8`, ...
    pub fn video_caps(&mut self, caps: &gst::Caps) -> Result<()> {
        self.inlet.describe(Description::VideoCodec(codec(caps)));
        if let Some(source) = &self.video {
            source.set_caps(Some(caps));
            return Ok(());
        }
        let (bin, source) = self.stream(caps, &branch::video(&self.inlet))?;
        branch::connect_video(&bin, &self.inlet)?;
        self.video = Some(source);
        self.play(&bin)
    }

    /// Sets the format of the sound, or changes it mid-stream: `audio/mpeg, mpegversion=4`, `audio/x-opus`, ...
    pub fn audio_caps(&mut self, caps: &gst::Caps) -> Result<()> {
        self.inlet.describe(Description::AudioCodec(codec(caps)));
        if let Some(source) = &self.audio {
            source.set_caps(Some(caps));
            return Ok(());
        }
        let (bin, source) = self.stream(caps, &branch::audio())?;
        branch::connect_audio(&bin, &self.inlet)?;
        self.audio = Some(source);
        self.play(&bin)
    }

    /// An access unit at the source's own time. Returns whether it was taken: `false` is a queue that is full.
    pub fn push_video(&self, data: Bytes, pts: Duration, dts: Option<Duration>) -> bool {
        push(self.video.as_ref(), data, pts, dts)
    }

    /// An audio packet at the source's own time.
    pub fn push_audio(&self, data: Bytes, pts: Duration) -> bool {
        push(self.audio.as_ref(), data, pts, None)
    }

    /// What stopped the decoder for good; the peer should be told and let go.
    pub fn failure(&self) -> Option<String> {
        self.state.0.lock().failure.clone()
    }

    /// The source's timestamps begin anew.
    pub fn restart(&self) {
        self.inlet.restart();
    }

    /// Frees the source's place at once: stopping the decoder, which dropping it does, takes longer.
    pub fn leave(&self) {
        self.inlet.leave();
    }

    /// The source has ended: waits, for at most `patience`, until everything that was pushed has been decoded.
    pub fn finish(&self, patience: Duration) {
        // A refusal means that the stream has failed, and then nothing is left to wait for.
        let sources = [&self.video, &self.audio];
        if !sources.into_iter().flatten().fold(false, |any, source| source.end_of_stream().is_ok() | any) {
            return;
        }
        let deadline = std::time::Instant::now() + patience;
        let mut state = self.state.0.lock();
        while !state.drained && state.failure.is_none() {
            if self.state.1.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    fn stream(&self, caps: &gst::Caps, rest: &str) -> Result<(gst::Bin, AppSrc)> {
        let bin = gst::parse::bin_from_description(&format!("{} ! {rest}", chain(caps)?), false)
            .map_err(|e| Failure::run(format!("{}; `lipstream doctor` says what is missing", e.message())))?;
        let source = AppSrc::builder()
            .caps(caps)
            .format(gst::Format::Time)
            .stream_type(AppStreamType::Stream)
            .max_bytes(QUEUE_BYTES)
            .build();
        let first = bin.by_name("first").ok_or_else(|| Failure::run("no element `first`"))?;
        bin.add(&source)?;
        source.link(&first)?;
        self.pipeline.add(&bin)?;
        Ok((bin, source))
    }

    fn play(&self, bin: &gst::Bin) -> Result<()> {
        self.pipeline.set_state(gst::State::Playing)?;
        bin.sync_state_with_parent()?;
        Ok(())
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // Going to NULL does not fail; what it frees is gone either way.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// A format's name for people.
fn codec(caps: &gst::Caps) -> String {
    gst_pbutils::functions::pb_utils_get_codec_description(caps).to_string()
}

/// Parser and decoder of a format, the first of which is named `first`. A chain that is known from the start begins to
/// work with the first packet; decodebin would look at the data first, and it can come to a standstill when a second
/// stream joins a pipeline that is about to play.
fn chain(caps: &gst::Caps) -> Result<String> {
    let format = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
    let (parser, decoders): (_, &[&str]) = match format.as_str() {
        "video/x-h264" => ("h264parse name=first ! ", &["avdec_h264", "openh264dec"]),
        "video/x-h265" => ("h265parse name=first ! ", &["avdec_h265", "libde265dec"]),
        "video/x-av1" => ("av1parse name=first ! ", &["dav1ddec", "avdec_libdav1d", "av1dec"]),
        "video/x-vp8" => ("", &["vp8dec", "avdec_vp8"]),
        "video/x-vp9" => ("", &["vp9dec", "avdec_vp9"]),
        "audio/mpeg" => match caps.structure(0).and_then(|s| s.get::<i32>("mpegversion").ok()) {
            Some(1) => ("mpegaudioparse name=first ! ", &["mpg123audiodec", "avdec_mp3"]),
            _ => ("aacparse name=first ! ", &["avdec_aac", "faad", "fdkaacdec"]),
        },
        "audio/x-opus" => ("opusparse name=first ! ", &["opusdec", "avdec_opus"]),
        "audio/x-alaw" => ("", &["alawdec", "avdec_pcm_alaw"]),
        "audio/x-mulaw" => ("", &["mulawdec", "avdec_pcm_mulaw"]),
        _ => return Err(Failure::run(format!("{format} cannot be decoded"))),
    };
    let decoder = decoders
        .iter()
        .find(|name| gst::ElementFactory::find(name).is_some())
        .ok_or_else(|| Failure::run(format!("no decoder for {format}: {} is missing", decoders.join(" or "))))?;
    Ok(if parser.is_empty() { format!("{decoder} name=first") } else { format!("{parser}{decoder}") })
}

fn push(source: Option<&AppSrc>, data: Bytes, pts: Duration, dts: Option<Duration>) -> bool {
    let Some(source) = source else { return false };
    if source.current_level_bytes() > QUEUE_BYTES {
        return false;
    }
    let mut buffer = gst::Buffer::from_slice(data);
    let own = buffer.get_mut().expect("a buffer just made has one owner");
    own.set_pts(gst::ClockTime::try_from(pts).ok());
    own.set_dts(dts.and_then(|dts| gst::ClockTime::try_from(dts).ok()));
    source.push_buffer(buffer).is_ok()
}
