//! `lipaudioenc` turns 16 kHz speech into audio features, one [buffer](crate::features) a hop.
//!
//! A feature's PTS is the running time of its hop's start. The encoder hears a little past the end of the hop, which
//! the LATENCY query and the field `overhang` of the caps declare. Short holes in the audio are silence; after a long
//! one the encoder starts over.
//!
//! Several channels are mixed to one in which no voice is lost, whatever their phases and wherever it is.
//!
//! A feature that heard no voice has the flag `GAP`: none of its audio, 5 ms by 5 ms, reaches an RMS of -52 dBFS (-58
//! once voice has begun). It is a feature nevertheless, that of the silence that was heard.
//!
//! ```text
//! gst-launch-1.0 filesrc location=speech.wav ! decodebin3 ! audioconvert ! audioresample ! lipaudioenc ! fakesink dump=true
//! ```

mod activity;
mod hops;
pub(crate) mod imp;

use gst::{glib, prelude::*};

use crate::stats::{Frames, Times, statistics};

glib::wrapper! {
    pub struct LipAudioEnc(ObjectSubclass<imp::LipAudioEnc>) @extends gst::Element, gst::Object;
}

statistics! {
    /// Statistics of `lipaudioenc`: buffers in, features out.
    pub struct AudioEncStats = "lipaudioenc-stats" {
        pub frames: Frames,
        pub encode: Times,
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipaudioenc", gst::Rank::NONE, LipAudioEnc::static_type())
}
