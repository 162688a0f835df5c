//! The interrupt: what has been said so far counts as silence from now on, and the mouth eases to rest.
//!
//! It is not a flush: no frame and no sample is dropped, and what comes after it is spoken as ever. It reaches the
//! elements in three ways:
//!
//! - as the action signal `interrupt` of `lipsync` and `lipdenoise`: whatever has entered the bin (the element) counts as
//!   said before;
//! - as a custom downstream event called `lipstream-interrupt` in the audio, where what comes before it counts so;
//! - as a custom upstream event of that name, sent from a sink or to the whole pipeline.

/// Name of the event's structure, and of the element message that tells when the mouth is at rest. The message has the
/// field `time` (guint64): microseconds from the interrupt to the push of the first frame at rest.
pub const NAME: &str = "lipstream-interrupt";

/// The event to send into the audio.
pub fn downstream() -> gst::Event {
    gst::event::CustomDownstream::new(gst::Structure::new_empty(NAME))
}

/// The event to send from a sink, or to a pipeline.
pub fn upstream() -> gst::Event {
    gst::event::CustomUpstream::new(gst::Structure::new_empty(NAME))
}

/// Whether `event` is an interrupt.
pub fn is(event: &gst::EventRef) -> bool {
    event.structure().is_some_and(|s| s.name() == NAME)
}
