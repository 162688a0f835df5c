use gst::prelude::*;

use super::Notices;
use crate::error::{Failure, Kind, Result};

/// What a pipeline has said that ends it.
pub enum Outcome {
    Running,
    Ended,
}

/// Takes what is on the bus, waiting at most `timeout`; an error there becomes a failure of `kind`.
pub fn check(bus: &gst::Bus, timeout: gst::ClockTime, kind: Kind) -> Result<Outcome> {
    let mut wait = timeout;
    while let Some(message) = bus.timed_pop(wait) {
        wait = gst::ClockTime::ZERO;
        match message.view() {
            gst::MessageView::Error(error) => return Err(Failure::new(kind, describe(error))),
            gst::MessageView::Eos(_) => return Ok(Outcome::Ended),
            gst::MessageView::Element(_) => Notices::default().take(&message, ""),
            gst::MessageView::Warning(warning) => tracing::warn!("{}", warning.error().message()),
            _ => {}
        }
    }
    Ok(Outcome::Running)
}

/// An error message as one line: the element that posted it, what it says, and the last line of its details, which is
/// where elements put the cause.
pub fn describe(error: &gst::message::Error) -> String {
    let source = error.src().map(|s| s.name().to_string()).unwrap_or_else(|| "pipeline".into());
    let said = error.error();
    let details = error.debug().map(|d| d.to_string()).unwrap_or_default();
    let cause = details.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).last().unwrap_or_default();
    if cause.is_empty() || said.message().contains(cause) {
        format!("{source}: {}", said.message())
    } else {
        format!("{source}: {} ({cause})", said.message())
    }
}
