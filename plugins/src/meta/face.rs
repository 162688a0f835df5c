//! The face meta: one for each tracked face, written by `lipfacetrack`.
//!
//! It is a `GstCustomMeta`, so that a program in any language reads it without our headers, and it has no tags: a
//! tagless meta is copied by every element that derives from GstBaseTransform or the video encoders and decoders
//! (videoconvert and videoscale among them), where a meta tagged with a size would need its own scaling function.
//! Positions are therefore fractions of the frame, which a scaler without borders leaves true.
//!
//! | field | type | |
//! |---|---|---|
//! | `track-id` | guint64 | the same as long as the face is followed |
//! | `x`, `y`, `width`, `height` | gdouble | box, fractions of the frame |
//! | `landmarks` | GBytes | 111 times x, y as little-endian f32, fractions of the frame |
//! | `confidence` | gdouble | 0..1 |
//! | `yaw` | gdouble | degrees, positive to the face's own left |
//! | `occluded` | gboolean | something covers the mouth, so that it cannot be shown |
//! | `front` | GBytes | only where something is before the lower face: 96 times 96 chances that a pixel of the aligned crop is covered, 0..255 |
//!
//! A frame without a face has a `LipstreamNoFaceMeta` in its place, whose field `reason` (gchararray) is `no-face`,
//! `cut-off`, `too-small` or `unclear`.
//!
//! A `GstVideoRegionOfInterestMeta` of type `face` goes with it, for elements that know nothing of ours.

use std::{ops::ControlFlow, sync::Once};

use gst::{glib, meta::CustomMeta};
use gst_video::VideoRegionOfInterestMeta;
use lipstream_engines::{
    geometry::{Point, Rect, landmarks},
    occlusion::Front,
    tracker::{Face, Unseen},
};

use crate::untouched::Why;

/// The name under which the meta is registered.
pub const NAME: &str = "LipstreamFaceMeta";
/// The name of what is in its place on a frame without a face.
pub const ABSENCE: &str = "LipstreamNoFaceMeta";
/// Type of the region of interest that goes with it.
pub const ROI_TYPE: &str = "face";

/// Makes the meta known to GStreamer; harmless when repeated, also by several threads at once: GLib refuses a name that is
/// registered already.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for name in [NAME, ABSENCE] {
            // Another copy of this plugin may have done it: a program that is linked with one can load one from a file.
            if !CustomMeta::is_registered(name) {
                CustomMeta::register(name, &[]);
            }
        }
    });
}

/// Says on `buffer` that no face is followed in it, and why.
pub fn add_absence(buffer: &mut gst::BufferRef, unseen: Unseen) -> Result<(), glib::BoolError> {
    let why = match unseen {
        Unseen::Nothing => Why::NoFace,
        Unseen::CutOff => Why::CutOff,
        Unseen::TooSmall => Why::TooSmall,
        Unseen::Unclear => Why::Unclear,
    };
    CustomMeta::add(buffer, ABSENCE)?.mut_structure().set("reason", why.name());
    Ok(())
}

/// Why `buffer` has no face, as [`add_absence`] has written it; [`Why::NoFace`] where nothing is written.
pub(crate) fn absence(buffer: &gst::BufferRef) -> Why {
    let written = buffer.iter_meta::<gst::Meta>().find_map(|meta| {
        let meta = meta.try_as_custom_meta()?;
        let name = if meta.has_name(ABSENCE) { meta.structure().get::<&str>("reason").ok()? } else { return None };
        Why::ALL.into_iter().find(|why| why.name() == name)
    });
    written.unwrap_or(Why::NoFace)
}

/// Hangs `face`, whose positions are pixels of a frame of `width` x `height`, on `buffer`.
pub fn add(buffer: &mut gst::BufferRef, face: &Face, width: u32, height: u32) -> Result<(), glib::BoolError> {
    let (sx, sy) = (1.0 / f64::from(width), 1.0 / f64::from(height));
    let mut bytes = Vec::with_capacity(face.points.len() * 8);
    for p in face.points.iter() {
        bytes.extend_from_slice(&((f64::from(p.x) * sx) as f32).to_le_bytes());
        bytes.extend_from_slice(&((f64::from(p.y) * sy) as f32).to_le_bytes());
    }
    let mut meta = CustomMeta::add(buffer, NAME)?;
    let s = meta.mut_structure();
    s.set("track-id", face.track_id);
    s.set("x", f64::from(face.rect.x) * sx);
    s.set("y", f64::from(face.rect.y) * sy);
    s.set("width", f64::from(face.rect.width) * sx);
    s.set("height", f64::from(face.rect.height) * sy);
    s.set("landmarks", glib::Bytes::from_owned(bytes));
    s.set("confidence", f64::from(face.confidence));
    s.set("yaw", f64::from(face.yaw));
    s.set("occluded", face.occluded);
    if let Some(front) = &face.front {
        s.set("front", glib::Bytes::from_owned(front.chance().clone()));
    }

    // The region of interest counts whole pixels inside the frame.
    let x0 = face.rect.x.clamp(0.0, width as f32) as u32;
    let y0 = face.rect.y.clamp(0.0, height as f32) as u32;
    let x1 = (face.rect.x + face.rect.width).clamp(0.0, width as f32) as u32;
    let y1 = (face.rect.y + face.rect.height).clamp(0.0, height as f32) as u32;
    let mut roi = VideoRegionOfInterestMeta::add(buffer, ROI_TYPE, (x0, y0, x1 - x0, y1 - y0));
    // ROI ids are 31 bits; track ids count up from one and wrap here only.
    roi.set_id((face.track_id & 0x7fff_ffff) as i32);
    Ok(())
}

/// The faces on `buffer` in the order in which they were added, in pixels of a frame of `width` x `height`. A meta
/// that is not what this module writes is left out.
pub fn faces(buffer: &gst::BufferRef, width: u32, height: u32) -> Vec<Face> {
    buffer
        .iter_meta::<gst::Meta>()
        .filter_map(|meta| {
            let meta = meta.try_as_custom_meta()?;
            if meta.has_name(NAME) { parse(meta.structure(), width as f32, height as f32) } else { None }
        })
        .collect()
}

/// As [`faces`], none where nothing is before any of them: they are read by those alone who ask for that.
pub fn faces_behind(buffer: &gst::BufferRef, width: u32, height: u32) -> Vec<Face> {
    let behind = |meta: gst::MetaRef<gst::Meta>| {
        meta.try_as_custom_meta().is_some_and(|meta| meta.has_name(NAME) && meta.structure().has_field("front"))
    };
    if buffer.iter_meta::<gst::Meta>().any(behind) { faces(buffer, width, height) } else { Vec::new() }
}

/// Takes every face and its region of interest off `buffer`, and what says that there is none.
pub fn remove(buffer: &mut gst::BufferRef) {
    buffer.foreach_meta_mut(|mut meta| {
        let ours = meta.as_meta_ref().try_as_custom_meta().is_some_and(|m| m.has_name(NAME) || m.has_name(ABSENCE))
            || meta.downcast_ref::<VideoRegionOfInterestMeta>().is_some_and(|roi| roi.roi_type() == ROI_TYPE);
        ControlFlow::Continue(if ours {
            gst::buffer::BufferMetaForeachAction::Remove
        } else {
            gst::buffer::BufferMetaForeachAction::Keep
        })
    });
}

fn parse(s: &gst::StructureRef, width: f32, height: f32) -> Option<Face> {
    let number = |name: &str| s.get::<f64>(name).ok().map(|v| v as f32).filter(|v| v.is_finite());
    let bytes = s.get::<glib::Bytes>("landmarks").ok()?;
    if bytes.len() != landmarks::COUNT * 8 {
        return None;
    }
    let points: Vec<Point> = bytes
        .chunks_exact(8)
        .map(|b| {
            let (x, y) = b.split_at(4);
            let read = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            Point::new(read(x) * width, read(y) * height)
        })
        .collect();
    if points.iter().any(|p| !p.x.is_finite() || !p.y.is_finite()) {
        return None;
    }
    Some(Face {
        track_id: s.get("track-id").ok()?,
        rect: Rect {
            x: number("x")? * width,
            y: number("y")? * height,
            width: number("width")? * width,
            height: number("height")? * height,
        },
        points: points.into(),
        confidence: number("confidence")?,
        yaw: number("yaw")?,
        occluded: s.get("occluded").ok()?,
        front: s.get::<glib::Bytes>("front").ok().and_then(|bytes| Front::new(bytes[..].into())),
    })
}
