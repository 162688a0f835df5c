//! `lipdenoise` makes the mouth of each frame: it joins the [face meta](crate::meta::face) of the video with the
//! [audio features](crate::features) around the frame's time, denoises a mouth motion in a few steps, renders it from the
//! person's own frames and hangs it on the frame as a [patch meta](crate::meta::patch). Pixels are not touched.
//!
//! ```text
//! gst-launch-1.0 filesrc location=talk.mp4 ! decodebin3 ! videoconvert ! lipfacetrack ! ld.sink \
//!   filesrc location=speech.wav ! decodebin3 ! audioconvert ! audioresample ! lipaudioenc ! ld.features \
//!   lipdenoise name=ld ! lipblend ! videoconvert ! autovideosink
//! ```
//!
//! **Time.** Frames and features meet in running time, each through the segment of its own pad. A frame waits until the
//! features that it may look at are there. After the end of the features what is missing counts as silence. When live,
//! a frame waits no longer than the declared latency; then it is late, keeps the last patch and goes.
//!
//! **Shift.** With `feature-shift` a frame is given the features of a later or an earlier time, and its mouth is earlier or later by as
//! much. What must be waited for longer is declared as latency, whenever it changes.
//!
//! **Clips.** Frames of an engine with temporal layers are made together, a hop of them at a time, and leave one by one, each at
//! its time: the hop and the time for computing it are declared as latency. A frame that is not made (no face, late) is not
//! in a clip and costs the others nothing. The end of the stream, another person and a frame that can wait for no more
//! others send a clip with the frames that it has; a flush and an interrupt end one that has not been sent.
//!
//! **Idle.** Features say whether they heard voice (the flag `GAP` is none). With `idle=own` the patch fades out once
//! nobody has spoken for `idle-after`, and frames pass as they are: nothing is denoised or rendered. It comes back as soon
//! as a voiced hop is known of, and is fully there at the latest 40 ms after that hop's start.
//!
//! **Exact.** With `exact` an imported engine is run as its published program does. Where that looks at the boxes of frames to
//! come (Wav2Lip at four), frames wait for them, which is declared as latency. Nothing fades, and a mouth that is covered or cut
//! off is pasted as well.
//!
//! **Rehearsal.** A frame with the flag `DECODE_ONLY` is heard and not drawn: what the motion remembers of a voice is then what it
//! would be, at a small part of the price. A picture that begins within a speech is led up to so.
//!
//! **Interrupt.** On the action signal `interrupt`, or an [event](crate::interrupt), what has been heard counts as
//! silence and the mouth eases to rest within 80 ms of video. Frames that wait go at once. When the first frame at rest is
//! pushed, the element posts a message and the statistic `interrupt-time` tells how long it took.
//!
//! **Engines.** `model` may be changed while the element runs, see [`change`]: the new engine is loaded beside the one in use and taken
//! at the next pause of speech. It must be of the same front-end and ask for no more latency. The engine of `fallback-model` takes
//! over where the one in use fails. Both are told by a message, [`change::MESSAGE`].
//!
//! **Structure.** The element is a plain `GstElement` and not a `GstAggregator`: there is one stream that goes through,
//! with its own events, segment, allocation and end, and one that is only looked at. The frame's own thread does the
//! waiting; an aggregator would wait for a features pad that nobody has linked, and would end the features with the video.
//!
//! **Person.** The mouth is rendered from a bank of the person's own frames, gathered from the stream as it runs, one
//! bank a track, or loaded from `reference-bank`. Until a bank holds something, frames pass as they are.

mod banks;
pub mod change;
#[cfg(test)]
mod clip_tests;
mod ease;
mod fade;
mod frame;
mod frames;
mod idle;
pub(crate) mod imp;
mod listen;
mod listener;
pub(crate) mod properties;
mod shared_work;
mod speaker;
mod stats;
mod stream;
mod timing;
mod wait;

use gst::{glib, prelude::*};

pub use banks::CAPACITY;
pub use idle::Idle;
pub use properties::SchedulingPolicy;
pub use speaker::QUEUE;
pub use stats::{DenoiseStats, EngineStage, EngineStages, Speaks};

glib::wrapper! {
    pub struct LipDenoise(ObjectSubclass<imp::LipDenoise>) @extends gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipdenoise", gst::Rank::NONE, LipDenoise::static_type())
}
