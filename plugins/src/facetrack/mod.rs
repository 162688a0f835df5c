//! `lipfacetrack` finds and follows faces in video.
//!
//! Each face becomes a [face meta](crate::meta::face) with 111 landmarks in sub-pixels, and a region of interest of
//! type `face`. Pixels are neither changed nor copied, and no frame is dropped. It says as well what is before the
//! lower face, unless `occlusion` is `off`; `lipblend` leaves that there.
//!
//! ```text
//! gst-launch-1.0 filesrc location=talk.mp4 ! decodebin3 ! videoconvert ! lipfacetrack ! fakesink silent=false -v
//! ```

pub(crate) mod imp;

use gst::{glib, prelude::*};

use crate::stats::{Frames, Times, statistics};

glib::wrapper! {
    pub struct LipFaceTrack(ObjectSubclass<imp::LipFaceTrack>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

statistics! {
    /// Statistics of `lipfacetrack`; a frame without a face passes through.
    pub struct FaceTrackStats = "lipfacetrack-stats" {
        pub frames: Frames,
        pub track: Times,
        /// In the last frame.
        pub faces: u64,
        /// Of looking for what is before the faces, of the frames in which that was done.
        pub occlusion: Times,
        /// Frames in which something was.
        pub covered: u64,
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipfacetrack", gst::Rank::NONE, LipFaceTrack::static_type())
}
