//! The faces that `lipfacetrack` sees in a video, as LatentSync aligns by them.

use std::path::PathBuf;

use clap::Args;
use gst::prelude::*;
use gst_app::AppSink;
use gstlipstream::meta::face;
use lipstream_engines::geometry::three_point;
use serde::Serialize;

#[derive(Args)]
pub struct Arguments {
    /// Any file that GStreamer decodes
    video: PathBuf,
    /// Format of the pictures that the tracker looks at
    #[arg(long, default_value = "RGB", value_parser = ["RGB", "I420", "NV12", "RGBA", "BGRA"])]
    format: String,
}

/// How long a frame is waited for before the bus is looked at.
const WAIT: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// One frame.
#[derive(Serialize)]
struct Frame {
    /// Brow on the left of the picture, brow on its right, nose: x and y in pixels, the centre of the first pixel at (0, 0).
    /// `null` where no face is followed.
    points: Option<[[f32; 2]; 3]>,
}

/// Prints a line a frame.
pub fn print(arguments: &Arguments) -> Result<(), String> {
    gst::init().map_err(|e| e.to_string())?;
    gstlipstream::plugin_desc::plugin_register_static().map_err(|e| e.to_string())?;
    let launch = format!(
        "filesrc name=in ! decodebin ! videoconvert ! video/x-raw,format={} ! lipfacetrack ! appsink name=out sync=false",
        arguments.format
    );
    let pipeline = gst::parse::launch(&launch).map_err(|e| e.to_string())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    pipeline.by_name("in").ok_or("no element `in`")?.set_property("location", &arguments.video);
    let out = pipeline.by_name("out").and_then(|out| out.downcast::<AppSink>().ok()).ok_or("no appsink")?;
    let bus = pipeline.bus().ok_or("a pipeline without a bus")?;
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", arguments.video.display());
    pipeline.set_state(gst::State::Playing).map_err(|e| named(&e))?;
    let mut count = 0u64;
    let failed = loop {
        match out.try_pull_sample(WAIT) {
            Some(sample) => {
                let frame = Frame { points: points(&sample) };
                println!("{}", serde_json::to_string(&frame).map_err(|e| e.to_string())?);
                count += 1;
            }
            None if out.is_eos() => break None,
            None => {
                if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
                    break Some(message);
                }
            }
        }
    };
    pipeline.set_state(gst::State::Null).map_err(|e| named(&e))?;
    match failed.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(e)) => Err(named(&e.error().message())),
        _ if count == 0 => Err(named(&"no frames")),
        _ => Ok(()),
    }
}

fn points(sample: &gst::Sample) -> Option<[[f32; 2]; 3]> {
    let caps = sample.caps()?.structure(0)?;
    let size = |name| caps.get::<i32>(name).ok().and_then(|n| u32::try_from(n).ok());
    let faces = face::faces(sample.buffer()?, size("width")?, size("height")?);
    let points = three_point::points(&faces.first()?.points)?;
    Some(points.map(three_point::to_first_centre).map(|p| [p.x, p.y]))
}
