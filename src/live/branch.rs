//! The last part of every decoding pipeline: from raw frames and sound of any kind to an inlet.

use std::sync::Arc;

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};

use super::inlet::{CHANNELS, Description, Inlet, Picture, RATE};
use crate::{
    error::{Failure, Result},
    media::SOUND,
};

// The sinks of both do not wait for a first buffer: a stream that joins a pipeline which is about to play could be left
// paused otherwise.

/// Pictures, upright, at the session's size with borders where the shape differs.
pub(crate) fn video(inlet: &Inlet) -> String {
    let alpha = inlet.keeps_alpha();
    let format = if alpha { "A420" } else { "I420" };
    format!(
        "lippicture name=picture default-colors=true keep-alpha={alpha} ! video/x-raw,format={format} \
         ! appsink name=sink sync=false async=false max-buffers=4"
    )
}

/// Sound in a session's format.
pub(crate) fn audio() -> String {
    format!(
        "{SOUND} name=sound ! audioconvert ! audioresample \
         ! capsfilter caps=audio/x-raw,format=F32LE,layout=interleaved,rate={RATE},channels={CHANNELS} \
         ! appsink name=sink sync=false async=false max-buffers=8"
    )
}

/// Leads the frames of a `bin` that ends in [`video`] into the inlet.
pub(crate) fn connect_video(bin: &gst::Bin, inlet: &Arc<Inlet>) -> Result<()> {
    let (sink, front) = (sink(bin)?, named(bin, "picture")?);
    if let Some(wanted) = inlet.format() {
        scale(&front, wanted);
    }
    watch(&front, inlet);
    let inlet = inlet.clone();
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
                        scale(&front, wanted);
                    }
                    _ => {
                        if let Some(at) = time(&sample) {
                            inlet.video(picture, buffer, at);
                        }
                    }
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    Ok(())
}

/// Leads the sound of a `bin` that ends in [`audio`] into the inlet.
pub(crate) fn connect_audio(bin: &gst::Bin, inlet: &Arc<Inlet>) -> Result<()> {
    watch(&named(bin, "sound")?, inlet);
    let inlet = inlet.clone();
    sink(bin)?.set_callbacks(
        AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
                if let (Some(at), Ok(map)) = (time(&sample), buffer.map_readable()) {
                    let samples: Vec<f32> =
                        map.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                    inlet.audio(&samples, at);
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    Ok(())
}

/// Makes every decoder that `bin` comes to hold give a picture as soon as it can: threads that each take a whole frame
/// delay it by a frame each.
pub(crate) fn hasten(bin: &gst::Bin) {
    bin.connect_deep_element_added(|_, _, element| {
        if element.find_property("thread-type").is_some() {
            element.set_property_from_str("thread-type", "slice");
        }
    });
}

/// Tells the inlet what comes into `element`.
fn watch(element: &gst::Element, inlet: &Arc<Inlet>) {
    let Some(pad) = element.static_pad("sink") else { return };
    let inlet = inlet.clone();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        match info.event().map(|event| event.view()) {
            Some(gst::EventView::Caps(caps)) => {
                caps.caps().structure(0).and_then(format).into_iter().for_each(|what| inlet.describe(what));
            }
            Some(gst::EventView::Tag(tags)) => {
                if let Some(codec) = tags.tag().get::<gst::tags::VideoCodec>() {
                    inlet.describe(Description::VideoCodec(codec.get().to_owned()));
                }
                if let Some(codec) = tags.tag().get::<gst::tags::AudioCodec>() {
                    inlet.describe(Description::AudioCodec(codec.get().to_owned()));
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// What caps of raw media say.
fn format(caps: &gst::StructureRef) -> Option<Description> {
    let number = |name: &str| caps.get::<i32>(name).ok().and_then(|value| u32::try_from(value).ok());
    if caps.name().starts_with("audio/") {
        return Some(Description::Sound(number("rate")?, number("channels")?));
    }
    let fps = caps.get::<gst::Fraction>("framerate").ok();
    let fps = fps.map_or((0, 1), |fps| (fps.numer().max(0) as u32, fps.denom().max(1) as u32));
    Some(Description::Picture(Picture { width: number("width")?, height: number("height")?, fps }))
}

/// The source's own time of a sample: its running time in the source's pipeline.
fn time(sample: &gst::Sample) -> Option<std::time::Duration> {
    let pts = sample.buffer()?.pts()?;
    let running = sample.segment()?.downcast_ref::<gst::ClockTime>()?.to_running_time(pts)?;
    Some(running.into())
}

fn sink(bin: &gst::Bin) -> Result<AppSink> {
    named(bin, "sink")?.downcast::<AppSink>().map_err(|_| Failure::run("`sink` is no appsink"))
}

fn named(bin: &gst::Bin, name: &str) -> Result<gst::Element> {
    bin.by_name(name).ok_or_else(|| Failure::run(format!("no element `{name}`")))
}

/// Frames come at the session's size.
fn scale(front: &gst::Element, size: Picture) {
    front.set_property("width", size.width);
    front.set_property("height", size.height);
}
