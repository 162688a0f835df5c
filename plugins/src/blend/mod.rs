//! `lipblend` pastes the mouth that `lipdenoise` made into the frame.
//!
//! It reads and removes the [patch meta](crate::meta::patch). Only the pixels under the patch are touched, and a
//! frame without a patch leaves as it came, not even made writable, unless a `label` is to be written into all. What the
//! [face meta](crate::meta::face) says is before the face stays there.
//!
//! What is pasted is marked, invisibly, as made by a machine ([`lipstream_engines::watermark`]) unless `watermark` is off. The chips of the mark
//! follow the buffers' timestamps, its place the face meta; a patch without a face is marked as if its crop were the tracker's.
//!
//! ```text
//! gst-launch-1.0 filesrc location=talk.mp4 ! decodebin3 ! videoconvert ! lipfacetrack ! ld.sink \
//!   filesrc location=speech.wav ! decodebin3 ! audioconvert ! audioresample ! lipaudioenc ! ld.features \
//!   lipdenoise name=ld ! lipblend ! videoconvert ! autovideosink
//! ```

pub(crate) mod imp;

use gst::{glib, prelude::*};
use lipstream_engines::image;

use crate::stats::{Frames, Times, statistics};

/// Where the label is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstLipBlendCorner")]
pub enum Corner {
    #[enum_value(name = "Above, to the left", nick = "top-left")]
    TopLeft,
    #[enum_value(name = "Above, to the right", nick = "top-right")]
    TopRight,
    #[default]
    #[enum_value(name = "Below, to the left", nick = "bottom-left")]
    BottomLeft,
    #[enum_value(name = "Below, to the right", nick = "bottom-right")]
    BottomRight,
}

impl From<Corner> for image::Corner {
    fn from(corner: Corner) -> Self {
        match corner {
            Corner::TopLeft => Self::TopLeft,
            Corner::TopRight => Self::TopRight,
            Corner::BottomLeft => Self::BottomLeft,
            Corner::BottomRight => Self::BottomRight,
        }
    }
}

glib::wrapper! {
    pub struct LipBlend(ObjectSubclass<imp::LipBlend>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

statistics! {
    /// Statistics of `lipblend`; a frame without a patch passes through.
    pub struct BlendStats = "lipblend-stats" {
        pub frames: Frames,
        pub blend: Times,
        /// Marking what was pasted.
        pub mark: Times,
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Corner::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "lipblend", gst::Rank::NONE, LipBlend::static_type())
}
