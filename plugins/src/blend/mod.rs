//! `lipblend` pastes the mouth that `lipdenoise` made into the frame.
//!
//! It reads and removes the [patch meta](crate::meta::patch). Only the pixels under the patch are touched, and a
//! frame without a patch leaves as it came, not even made writable. What the [face meta](crate::meta::face) says is before the
//! face stays there.
//!
//! ```text
//! gst-launch-1.0 filesrc location=talk.mp4 ! decodebin3 ! videoconvert ! lipfacetrack ! ld.sink \
//!   filesrc location=speech.wav ! decodebin3 ! audioconvert ! audioresample ! lipaudioenc ! ld.features \
//!   lipdenoise name=ld ! lipblend ! videoconvert ! autovideosink
//! ```

pub(crate) mod imp;

use gst::{glib, prelude::*};

use crate::stats::{Frames, Times, statistics};

glib::wrapper! {
    pub struct LipBlend(ObjectSubclass<imp::LipBlend>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

statistics! {
    /// Statistics of `lipblend`; a frame without a patch passes through.
    pub struct BlendStats = "lipblend-stats" {
        pub frames: Frames,
        pub blend: Times,
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipblend", gst::Rank::NONE, LipBlend::static_type())
}
