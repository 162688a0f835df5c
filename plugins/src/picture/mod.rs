//! `lippicture` takes the pictures of any decoder and gives those that the other elements work on: upright, progressive,
//! opaque, of standard dynamic range, with square pixels and of one size.
//!
//! What is so already passes as it is. Rotation and mirroring come from the stream's `image-orientation` tag. The size is
//! that of the first picture unless `width` and `height` name one; a picture of another shape gets black borders, transparent ones where
//! alpha is kept. Each
//! change that a viewer could notice is told by an element message `lippicture` with the fields `kind` (string), `text`
//! (string) and `warning` (boolean: whether something is lost that the source has).
//!
//! With `keep-alpha` a picture that has transparency keeps it, as A420, RGBA or BGRA, and one that has none may leave as A420 all the same.
//! Pictures that come as A420, as those of VP8 and VP9, are not turned.
//!
//! ```text
//! gst-launch-1.0 filesrc location=phone.mp4 ! decodebin3 ! lippicture ! lipfacetrack ! videoconvert ! autovideosink
//! ```

mod border;
mod changes;
mod imp;

use gst::{glib, prelude::*};

glib::wrapper! {
    pub struct LipPicture(ObjectSubclass<imp::LipPicture>)
        @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lippicture", gst::Rank::NONE, LipPicture::static_type())
}
