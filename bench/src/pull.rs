//! What a pipeline makes of a file.

use std::path::Path;

use gst::prelude::*;
use gst_app::AppSink;

/// How long a sample is waited for before the bus is looked at.
const WAIT: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// Runs the pipeline `launch`, whose `filesrc` is `in` and whose `appsink` is `out`, on a file and hands on all samples.
///
/// Errors name the file: the pipeline's, those of `take`, and that there was no `what`.
pub fn each(
    launch: &str,
    path: &Path,
    what: &str,
    mut take: impl FnMut(&gst::Sample) -> Result<(), String>,
) -> Result<(), String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let pipeline = gst::parse::launch(launch).map_err(|e| e.to_string())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    pipeline.by_name("in").ok_or("no element `in`")?.set_property("location", path);
    let out = pipeline.by_name("out").and_then(|out| out.downcast::<AppSink>().ok()).ok_or("no appsink")?;
    let bus = pipeline.bus().ok_or("a pipeline without a bus")?;
    pipeline.set_state(gst::State::Playing).map_err(|e| named(&e))?;
    let mut count = 0u64;
    let done = loop {
        match out.try_pull_sample(WAIT) {
            Some(sample) => {
                if let Err(cause) = take(&sample) {
                    break Err(named(&cause));
                }
                count += 1;
            }
            None if out.is_eos() && count == 0 => break Err(named(&format!("no {what}"))),
            None if out.is_eos() => break Ok(()),
            None => {
                if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error])
                    && let gst::MessageView::Error(e) = message.view()
                {
                    break Err(named(&e.error().message()));
                }
            }
        }
    };
    pipeline.set_state(gst::State::Null).map_err(|e| named(&e))?;
    done
}
