//! `lipsync` makes a video say what a speech says: the four elements in one bin.
//!
//! ```text
//! video_sink ─ queue ─ lipfacetrack ─ queue ─ lipdenoise ─ queue ─ lipblend ─ video_src
//!                                                 │ features
//! audio_sink ─ tee ─ queue ─ audioconvert ─ audioresample ─ lipaudioenc
//!               └─── queue ────────────────────────────────────────────────── audio_src
//! ```
//!
//! Audio leaves `audio_src` bit for bit as it came, at the running time at which it came. `video_src` without audio gives
//! the video as it is; so does `audio_src` without video.
//!
//! The action signal `interrupt` takes back what has been said so far, see [`crate::interrupt`].
//!
//! ```text
//! gst-launch-1.0 lipsync name=ls \
//!   filesrc location=talk.mp4 ! decodebin3 ! videoconvert ! ls.video_sink \
//!   filesrc location=speech.wav ! decodebin3 ! audioconvert ! ls.audio_sink \
//!   ls.video_src ! videoconvert ! x264enc ! mux. \
//!   ls.audio_src ! avenc_aac ! mux. \
//!   mp4mux name=mux ! filesink location=out.mp4
//! ```

mod imp;
mod properties;

use gst::{glib, prelude::*};

glib::wrapper! {
    pub struct LipSync(ObjectSubclass<imp::LipSync>) @extends gst::Bin, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipsync", gst::Rank::NONE, LipSync::static_type())
}
