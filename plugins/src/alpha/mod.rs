//! `lipalpha` brings pictures with transparency into a form that encoders without it take, or lets them keep it.
//!
//! | `alpha` | what leaves |
//! |---|---|
//! | `keep` | what came |
//! | `drop` | I420, laid on black |
//! | `key:#00ff00`, `#00ff00` | I420, laid on that colour |
//! | `matte` | I420: the alphas as luma 0 to 255, the chroma 128, as the alpha streams of VP8 and VP9 have them |
//! | `stack` | I420 of twice the height: the picture above, its alpha as a grey picture below |
//!
//! A picture without transparency passes as it is, but for `stack`, where it has a white matte. A stack has the picture's own matrix and range; the
//! luma of its matte is that of a grey of the alpha's value and its chroma is 128, so that R, G and B of a decoded pixel of the matte are the alpha.
//! An odd height loses its last line, an odd width its last column. The colours of the upper half are straight, not multiplied by alpha.
//!
//! ```text
//! gst-launch-1.0 filesrc location=cut-out.webm ! decodebin3 ! lippicture keep-alpha=true ! lipalpha alpha=stack ! x264enc ! fakesink
//! ```

mod imp;
mod mode;

use gst::{glib, prelude::*};

pub use self::mode::Mode;

glib::wrapper! {
    pub struct LipAlpha(ObjectSubclass<imp::LipAlpha>)
        @extends gst_video::VideoFilter, gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipalpha", gst::Rank::NONE, LipAlpha::static_type())
}
