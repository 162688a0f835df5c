//! `lipenhance` makes the faces of finished frames crisper, as the last stage of any engine or alone.
//!
//! It reads the [face meta](crate::meta::face) that `lipfacetrack` writes and `lipsync` leaves on its frames; a frame without
//! one, and every frame while `enhance` is off or the strength 0, leaves as it came, not even made writable. All properties
//! but where its network runs can change while it runs. A network, `enhance=NAME` of one that `lipstream import` has installed or
//! `enhance=FILE.onnx`, is loaded with the first frame that it is asked for, which takes as long as that, once for all elements of a
//! process, whose faces share its evaluations. Where the device does not keep up with a live stream, `enhance-every` lets a face have an
//! evaluation every so many frames; what it changed follows the face between them.
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Enhance {
    #[default]
    Off,
    Filter(Filter),
    /// The enhancer that is installed by this name, or an ONNX file.
    Network(String),
}

impl Enhance {
    pub(crate) const OFF: &str = "off";

    /// Reads the property; nothing is off.
    pub(crate) fn read(text: Option<&str>) -> Self {
        match text {
            None | Some("" | Self::OFF) => Self::Off,
            Some(name) => name.parse().map_or_else(|_| Self::Network(name.to_owned()), Self::Filter),
        }
    }
}

impl std::fmt::Display for Enhance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => Self::OFF,
            Self::Filter(filter) => filter.name(),
            Self::Network(name) => name,
        })
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
        /// Frames of a face for one evaluation of the network, as they are now; 0 without one.
        pub every: u64,
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipenhance", gst::Rank::NONE, LipEnhance::static_type())
}
