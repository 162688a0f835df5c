//! Sound of a file.

use std::path::Path;

use gst::prelude::*;
use gst_app::AppSink;

/// How long samples are waited for before the bus is looked at.
const WAIT: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// All of it, mono at 16 kHz in -1..1.
pub fn samples(path: &Path) -> Result<Vec<f32>, String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let launch = "filesrc name=in ! decodebin ! audioconvert ! audioresample \
                  ! audio/x-raw,format=F32LE,rate=16000,channels=1 ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(launch).map_err(|e| e.to_string())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    pipeline.by_name("in").ok_or("no element `in`")?.set_property("location", path);
    let out = pipeline.by_name("out").and_then(|out| out.downcast::<AppSink>().ok()).ok_or("no appsink")?;
    let bus = pipeline.bus().ok_or("a pipeline without a bus")?;
    pipeline.set_state(gst::State::Playing).map_err(|e| named(&e))?;
    let mut samples = Vec::new();
    let failed = loop {
        match out.try_pull_sample(WAIT) {
            Some(sample) => {
                let map = sample.buffer().ok_or("no buffer")?.map_readable().map_err(|e| e.to_string())?;
                samples.extend(map.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
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
        _ if samples.is_empty() => Err(named(&"no sound")),
        _ => Ok(samples),
    }
}
