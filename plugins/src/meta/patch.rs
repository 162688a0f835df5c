//! The patch meta: the generated mouth of a frame, written by `lipdenoise`, read and removed by `lipblend`.
//!
//! It is a meta of a type of our own and not a `GstCustomMeta`, because it holds pixels that must be shared and not
//! serialised. It has no tags, so videoconvert and videoscale copy it; it remembers the size of the frame that its
//! transform was made for, and [`PatchMeta::scaled`] brings the transform to the size of the frame at hand.

use std::{fmt, ptr};

use gst::prelude::*;
use lipstream_engines::{engine::Patch, geometry::Similarity};

/// Two scales are the same when they differ by less than this part; a scaler rounds to whole pixels.
const ASPECT_TOLERANCE: f32 = 0.02;

/// A [`Patch`] on a video buffer.
#[repr(transparent)]
pub struct PatchMeta(imp::PatchMeta);

// SAFETY: the content is a `Patch`, which is Send and Sync, and three integers.
unsafe impl Send for PatchMeta {}
// SAFETY: as above; a shared reference gives read access only.
unsafe impl Sync for PatchMeta {}

impl PatchMeta {
    /// Hangs `patch`, whose transform ends in pixels of a frame of `width` x `height`, on `buffer`.
    pub fn add(buffer: &mut gst::BufferRef, patch: Patch, width: u32, height: u32) {
        imp::add(buffer, Box::new(imp::Content { patch, track: None, width, height }));
    }

    /// As [`add`](Self::add), for the face of number `track`.
    pub fn add_for(buffer: &mut gst::BufferRef, track: u64, patch: Patch, width: u32, height: u32) {
        imp::add(buffer, Box::new(imp::Content { patch, track: Some(track), width, height }));
    }

    /// The faces for which patches hang on `buffer`, in the order in which they were added.
    pub fn tracks(buffer: &gst::BufferRef) -> impl Iterator<Item = u64> {
        buffer.iter_meta::<Self>().filter_map(|meta| meta.track())
    }

    /// Takes the first patch off `buffer`.
    pub fn take(buffer: &mut gst::BufferRef) -> Option<(Patch, u32, u32)> {
        let meta = buffer.meta_mut::<Self>()?;
        let content = meta.content();
        let taken = (content.patch.clone(), content.width, content.height);
        meta.remove().ok()?;
        Some(taken)
    }

    /// The patch as it was made, for frames of [`PatchMeta::size`].
    pub fn patch(&self) -> &Patch {
        &self.content().patch
    }

    /// The number of the face that it was made for, where that is known.
    pub fn track(&self) -> Option<u64> {
        self.content().track
    }

    /// Width and height in pixels of the frame that the patch was made for.
    pub fn size(&self) -> (u32, u32) {
        (self.content().width, self.content().height)
    }

    fn content(&self) -> &imp::Content {
        // `add` is the only way to make the meta and leaves content in it.
        self.0.content.as_ref().expect("a patch meta without a patch")
    }
}

/// `patch`, made for a frame of `from` pixels, for the same picture in `to` pixels. `None` when the two have another
/// shape: a stretched similarity is none.
pub fn scaled(mut patch: Patch, from: (u32, u32), to: (u32, u32)) -> Option<Patch> {
    if from == to {
        return Some(patch);
    }
    let sx = to.0 as f32 / from.0.max(1) as f32;
    let sy = to.1 as f32 / from.1.max(1) as f32;
    if !(sx > 0.0 && sy > 0.0) || (sx / sy - 1.0).abs() > ASPECT_TOLERANCE {
        return None;
    }
    let (t, s) = (patch.to_frame, (sx + sy) / 2.0);
    patch.to_frame = Similarity { a: t.a * s, b: t.b * s, tx: t.tx * sx, ty: t.ty * sy };
    Some(patch)
}

// SAFETY: `imp::PatchMeta` begins with a GstMeta and `imp::api` is the API type that its GstMetaInfo was registered with.
unsafe impl MetaAPI for PatchMeta {
    type GstType = imp::PatchMeta;

    fn meta_api() -> gst::glib::Type {
        imp::api()
    }
}

impl fmt::Debug for PatchMeta {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("PatchMeta")
            .field("side", &self.patch().pixels.side())
            .field("to_frame", &self.patch().to_frame)
            .field("opacity", &self.patch().opacity)
            .field("size", &self.size())
            .finish()
    }
}

/// The C side of the meta.
mod imp {
    use std::sync::LazyLock;

    use gst::{
        ffi, glib,
        glib::translate::*,
        meta::{MetaTransform, MetaTransformCopy},
    };
    use lipstream_engines::engine::Patch;

    use super::ptr;

    pub struct Content {
        pub patch: Patch,
        pub track: Option<u64>,
        pub width: u32,
        pub height: u32,
    }

    #[repr(C)]
    pub struct PatchMeta {
        parent: ffi::GstMeta,
        pub(super) content: Option<Box<Content>>,
    }

    pub fn add(buffer: &mut gst::BufferRef, content: Box<Content>) {
        // SAFETY: `init` has made `content` a valid `None` before gst_buffer_add_meta returns, and the buffer is
        // writable as `buffer` is a mutable reference.
        unsafe {
            let meta = ffi::gst_buffer_add_meta(buffer.as_mut_ptr(), info(), ptr::null_mut()).cast::<PatchMeta>();
            (*meta).content = Some(content);
        }
    }

    pub fn api() -> glib::Type {
        static API: LazyLock<glib::Type> = LazyLock::new(|| {
            // SAFETY: a NUL-terminated name that is registered once, and a NULL-terminated list without tags.
            unsafe {
                from_glib(ffi::gst_meta_api_type_register(
                    c"LipstreamPatchMetaAPI".as_ptr(),
                    [ptr::null::<std::ffi::c_char>()].as_ptr() as *mut *const _,
                ))
            }
        });
        *API
    }

    fn info() -> *const ffi::GstMetaInfo {
        struct Info(*const ffi::GstMetaInfo);
        // SAFETY: GStreamer keeps a registered info, unchanged, as long as the process lives.
        unsafe impl Send for Info {}
        // SAFETY: as above.
        unsafe impl Sync for Info {}
        static INFO: LazyLock<Info> = LazyLock::new(|| {
            // SAFETY: the functions below match the layout whose size is given.
            Info(unsafe {
                ffi::gst_meta_register(
                    api().into_glib(),
                    c"LipstreamPatchMeta".as_ptr(),
                    std::mem::size_of::<PatchMeta>(),
                    Some(init),
                    Some(free),
                    Some(transform),
                )
            })
        });
        INFO.0
    }

    unsafe extern "C" fn init(
        meta: *mut ffi::GstMeta,
        _params: glib::ffi::gpointer,
        _buffer: *mut ffi::GstBuffer,
    ) -> glib::ffi::gboolean {
        // SAFETY: `meta` is the memory of a PatchMeta whose own part is not initialised yet.
        unsafe { ptr::write(&raw mut (*meta.cast::<PatchMeta>()).content, None) };
        glib::ffi::GTRUE
    }

    unsafe extern "C" fn free(meta: *mut ffi::GstMeta, _buffer: *mut ffi::GstBuffer) {
        // SAFETY: `init` has run on `meta`, and GStreamer does not touch it again.
        unsafe { ptr::drop_in_place(&raw mut (*meta.cast::<PatchMeta>()).content) };
    }

    /// Copies to any buffer that holds the same picture; other transforms never ask for a meta without tags.
    unsafe extern "C" fn transform(
        dest: *mut ffi::GstBuffer,
        meta: *mut ffi::GstMeta,
        _buffer: *mut ffi::GstBuffer,
        kind: glib::ffi::GQuark,
        data: glib::ffi::gpointer,
    ) -> glib::ffi::gboolean {
        // SAFETY: GStreamer passes a writable `dest`, a live `meta` of this type and, for a copy, a GstMetaTransformCopy.
        unsafe {
            if kind != MetaTransformCopy::quark().into_glib() || (*data.cast::<ffi::GstMetaTransformCopy>()).region != 0
            {
                return glib::ffi::GFALSE;
            }
            let Some(content) = &(*meta.cast::<PatchMeta>()).content else { return glib::ffi::GFALSE };
            add(gst::BufferRef::from_mut_ptr(dest), Box::new(Content { patch: content.patch.clone(), ..**content }));
        }
        glib::ffi::GTRUE
    }
}
