//! Decodes what a peer sends into a session.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks, AppSrc, AppStreamType};
use parking_lot::Mutex;

use super::inlet::{CHANNELS, Inlet, Picture, RATE};
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
    failure: Arc<Mutex<Option<String>>>,
}

impl Decoder {
    /// A decoder without streams.
    pub fn new(inlet: Inlet) -> Result<Self> {
        let pipeline = gst::Pipeline::new();
        let failure = Arc::new(Mutex::new(None));
        let (seen, bus) = (failure.clone(), pipeline.bus().expect("a pipeline has a bus"));
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                seen.lock().get_or_insert_with(|| crate::media::describe(error));
            }
            gst::BusSyncReply::Drop
        });
        Ok(Self { pipeline, inlet: Arc::new(inlet), video: None, audio: None, failure })
    }

    /// Sets the format of the video, or changes it mid-stream: `video/x-h264`, `video/x-h265`, `video/x-vp8`, ...
    pub fn video_caps(&mut self, caps: &gst::Caps) -> Result<()> {
        if let Some(source) = &self.video {
            source.set_caps(Some(caps));
            return Ok(());
        }
        let (bin, source, sink, size) = self.stream(
            caps,
            "decodebin name=decoder ! videoflip video-direction=auto ! videoconvertscale name=scale add-borders=true \
             ! capsfilter name=size caps=video/x-raw,format=I420,pixel-aspect-ratio=1/1 \
             ! appsink name=sink sync=false max-buffers=4",
        )?;
        let inlet = self.inlet.clone();
        sink.set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let info = sample.caps().and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
                    let (Some(info), Some(buffer)) = (info, sample.buffer_owned()) else {
                        return Err(gst::FlowError::NotNegotiated);
                    };
                    let fps = info.fps();
                    let picture = Picture {
                        width: info.width(),
                        height: info.height(),
                        fps: (fps.numer().max(0) as u32, fps.denom().max(1) as u32),
                    };
                    match inlet.format() {
                        Some(wanted) if (wanted.width, wanted.height) != (picture.width, picture.height) => {
                            // The frames after this one come at the session's size.
                            size.set_property("caps", frame_caps(Some(wanted)));
                            return Ok(gst::FlowSuccess::Ok);
                        }
                        _ => {}
                    }
                    if let Some(pts) = buffer.pts() {
                        inlet.video(picture, buffer, pts.into());
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        self.video = Some(source);
        self.play(&bin)
    }

    /// Sets the format of the sound, or changes it mid-stream: `audio/mpeg, mpegversion=4`, `audio/x-opus`, ...
    pub fn audio_caps(&mut self, caps: &gst::Caps) -> Result<()> {
        if let Some(source) = &self.audio {
            source.set_caps(Some(caps));
            return Ok(());
        }
        let (bin, source, sink, _) = self.stream(
            caps,
            &format!(
                "decodebin name=decoder ! audioconvert ! audioresample \
                 ! capsfilter name=size caps=audio/x-raw,format=F32LE,layout=interleaved,rate={RATE},channels={CHANNELS} \
                 ! appsink name=sink sync=false max-buffers=8"
            ),
        )?;
        let inlet = self.inlet.clone();
        sink.set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
                    if let (Some(pts), Ok(map)) = (buffer.pts(), buffer.map_readable()) {
                        let samples: Vec<f32> =
                            map.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                        inlet.audio(&samples, pts.into());
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
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
        self.failure.lock().clone()
    }

    /// The source's timestamps begin anew.
    pub fn restart(&self) {
        self.inlet.restart();
    }

    fn stream(&self, caps: &gst::Caps, description: &str) -> Result<(gst::Bin, AppSrc, AppSink, gst::Element)> {
        let bin = gst::parse::bin_from_description(description, false)
            .map_err(|e| Failure::run(format!("{}; `lipstream doctor` says what is missing", e.message())))?;
        let named = |name: &str| bin.by_name(name).ok_or_else(|| Failure::run(format!("no element `{name}`")));
        let source = AppSrc::builder()
            .caps(caps)
            .format(gst::Format::Time)
            .stream_type(AppStreamType::Stream)
            .max_bytes(QUEUE_BYTES)
            .build();
        let sink = named("sink")?.downcast::<AppSink>().map_err(|_| Failure::run("no appsink"))?;
        let (decoder, size) = (named("decoder")?, named("size")?);
        if let (Some(wanted), true) = (self.inlet.format(), size.property::<gst::Caps>("caps").iter().any(is_video)) {
            size.set_property("caps", frame_caps(Some(wanted)));
        }
        bin.add(&source)?;
        source.link(&decoder)?;
        self.pipeline.add(&bin)?;
        Ok((bin, source, sink, size))
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

fn is_video(structure: &gst::StructureRef) -> bool {
    structure.name() == "video/x-raw"
}

fn frame_caps(size: Option<Picture>) -> gst::Caps {
    let caps =
        gst::Caps::builder("video/x-raw").field("format", "I420").field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    match size {
        Some(size) => caps.field("width", size.width as i32).field("height", size.height as i32),
        None => caps,
    }
    .build()
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
