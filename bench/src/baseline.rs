//! The same work without lip-sync.

use std::{path::Path, time::Instant};

use gst::prelude::*;
use serde::Serialize;

/// Seconds of video a second.
#[derive(Serialize)]
pub struct Baseline {
    pub decode_rtf: f64,
    /// Decode and encode with x264 ultrafast.
    pub transcode_rtf: f64,
}

pub fn measure(video: &Path) -> Result<Baseline, String> {
    Ok(Baseline {
        decode_rtf: rtf("filesrc name=in ! decodebin ! videoconvert ! fakesink sync=false", video)?,
        transcode_rtf: rtf(
            "filesrc name=in ! decodebin ! videoconvert ! queue ! video/x-raw,format=I420 \
             ! x264enc speed-preset=ultrafast pass=qual quantizer=18 ! h264parse ! mp4mux ! fakesink sync=false",
            video,
        )?,
    })
}

fn rtf(launch: &str, video: &Path) -> Result<f64, String> {
    let pipeline = gst::parse::launch(launch).map_err(|e| e.to_string())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    pipeline.by_name("in").ok_or("no element `in`")?.set_property("location", video);
    let bus = pipeline.bus().ok_or("a pipeline without a bus")?;
    let started = Instant::now();
    pipeline.set_state(gst::State::Playing).map_err(|e| format!("{}: {e}", video.display()))?;
    let last = bus.timed_pop_filtered(gst::ClockTime::NONE, &[gst::MessageType::Eos, gst::MessageType::Error]);
    let wall = started.elapsed().as_secs_f64();
    let length = pipeline.query_duration::<gst::ClockTime>();
    pipeline.set_state(gst::State::Null).map_err(|e| e.to_string())?;
    match last.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Error(e)) => Err(format!("{}: {}", video.display(), e.error().message())),
        _ => Ok(length.map_or(0.0, |l| l.nseconds() as f64 / 1e9) / wall),
    }
}
