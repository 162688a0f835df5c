//! `lipcolor` brings pictures to what the other elements and every encoder take: opaque, standard dynamic range.
//!
//! A picture of high dynamic range (PQ or HLG) is tone-mapped to BT.709; one with an alpha channel is laid on the
//! property `background`, or passes with `keep-alpha`: what nobody sees of it then has the colour of what is seen beside it, so that no scaling,
//! subsampling or compression mixes anything else into its edge. YUV whose alpha is kept leaves in the `colorimetry` that is set or that follows,
//! its alpha untouched. Every other picture passes as it is. It stands between a decoder and the converters:
//!
//! ```text
//! gst-launch-1.0 filesrc location=phone.mov ! decodebin3 ! lipcolor ! videoconvert ! autovideosink
//! ```

mod imp;
mod pixels;
#[cfg(test)]
mod tests;

use gst::{glib, prelude::*};
use gst_video::VideoFormat;

/// What the formats of pictures are whose alpha is kept: the first where they are of it, else the second where they are YUV, else the third.
const KEPT: [VideoFormat; 3] = [VideoFormat::A420, VideoFormat::Ayuv, VideoFormat::Rgba];

glib::wrapper! {
    pub struct LipColor(ObjectSubclass<imp::LipColor>)
        @extends gst_video::VideoFilter, gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipcolor", gst::Rank::NONE, LipColor::static_type())
}
