//! `lipenhance` makes the faces of finished frames crisper, as the last stage of any engine or alone.
//!
//! It reads the [face meta](crate::meta::face) that `lipfacetrack` writes and `lipsync` leaves on its frames; a frame without
//! one, and every frame while `enhance` is off or the strength 0, leaves as it came, not even made writable. All properties
//! but where its network runs can change while it runs. The network of `model` is loaded with the first frame that it is asked
//! for, which takes as long as that; its work is done in the streaming thread, so that a live stream needs a device that keeps up.
//!
//! ```text
//! gst-launch-1.0 filesrc location=talk.mp4 ! decodebin3 ! videoconvert ! lipfacetrack ! \
//!   lipenhance enhance=sharpen mouth-protection=0 ! videoconvert ! autovideosink
//! ```

pub(crate) mod imp;

use gst::{glib, prelude::*};
use lipstream_engines::enhance::Filter;

use crate::stats::{Frames, Times, statistics};

/// What is done to the faces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstLipEnhanceMethod")]
pub enum Enhance {
    #[default]
    #[enum_value(name = "Nothing: frames pass as they are", nick = "off")]
    Off,
    #[enum_value(name = "Unsharp masking", nick = "sharpen")]
    Sharpen,
    #[enum_value(name = "Contrast-limited adaptive histogram equalisation", nick = "clahe")]
    Clahe,
    #[enum_value(name = "Texture, not edges, by a guided filter", nick = "detail")]
    Detail,
    #[enum_value(name = "The three at half their amounts", nick = "combined")]
    Combined,
    #[enum_value(name = "The network of the property model", nick = "model")]
    Model,
}

impl Enhance {
    pub(crate) fn filter(self) -> Option<Filter> {
        match self {
            Self::Off | Self::Model => None,
            Self::Sharpen => Some(Filter::Sharpen),
            Self::Clahe => Some(Filter::Clahe),
            Self::Detail => Some(Filter::Detail),
            Self::Combined => Some(Filter::Combined),
        }
    }
}

glib::wrapper! {
    pub struct LipEnhance(ObjectSubclass<imp::LipEnhance>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

statistics! {
    /// Statistics of `lipenhance`; a frame of which nothing is changed passes through.
    pub struct EnhanceStats = "lipenhance-stats" {
        pub frames: Frames,
        pub enhance: Times,
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Enhance::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "lipenhance", gst::Rank::NONE, LipEnhance::static_type())
}
