//! The faces that `lipfacetrack` sees in a video, as LatentSync aligns by them.

use std::path::PathBuf;

use clap::Args;
use gstlipstream::meta::face;
use lipstream_engines::geometry::three_point;
use serde::Serialize;

use crate::pull;

#[derive(Args)]
pub struct Arguments {
    /// Any file that GStreamer decodes
    video: PathBuf,
    /// Format of the pictures that the tracker looks at
    #[arg(long, default_value = "RGB", value_parser = ["RGB", "I420", "NV12", "RGBA", "BGRA"])]
    format: String,
}

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
    pull::each(&launch, &arguments.video, "frames", |sample| {
        let frame = Frame { points: points(sample) };
        println!("{}", serde_json::to_string(&frame).map_err(|e| e.to_string())?);
        Ok(())
    })
}

fn points(sample: &gst::Sample) -> Option<[[f32; 2]; 3]> {
    let caps = sample.caps()?.structure(0)?;
    let size = |name| caps.get::<i32>(name).ok().and_then(|n| u32::try_from(n).ok());
    let faces = face::faces(sample.buffer()?, size("width")?, size("height")?);
    let points = three_point::points(&faces.first()?.points)?;
    Some(points.map(three_point::to_first_centre).map(|p| [p.x, p.y]))
}
