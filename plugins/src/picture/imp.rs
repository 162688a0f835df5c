use std::sync::{LazyLock, OnceLock};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::{VideoFormat, VideoInfo};
use parking_lot::Mutex;

use super::{
    border::{Inner, Mending},
    changes::{self, Change},
};
use crate::video;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("lippicture", gst::DebugColorFlags::empty(), Some("Lipstream pictures of any source"))
});

/// Largest side of a picture.
const MAX_SIDE: u32 = 16_384;
/// How far from square pixels may be; what says more is taken for a broken header.
const MAX_ASPECT: i32 = 16;

/// Properties.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    /// 0 is the first picture's.
    width: u32,
    height: u32,
    default_colors: bool,
    keep_alpha: bool,
}

/// What is known of the running stream.
#[derive(Default)]
struct State {
    /// Width and height of the pictures that leave, once they are known.
    size: Option<(u32, u32)>,
    /// Width and height, upright and in square pixels, of those that come.
    source: Option<(u32, u32)>,
    /// Format of the upright pictures that come next, until the first of them does.
    next: Option<VideoInfo>,
    /// What is wrong with the alpha of pictures that keep it.
    mending: Mending,
}

struct Parts {
    color: crate::color::LipColor,
    deinterlace: gst::Element,
    flip: gst::Element,
    /// Pads before and after the flip.
    around_flip: [gst::Pad; 2],
    /// Caps of what leaves.
    size: gst::Element,
}

impl Parts {
    /// Leads the pictures through the flip, or past it. Called by the thread that streams, before caps.
    fn flip(&self, through: bool) {
        let (Some(sink), Some(src)) = (self.flip.static_pad("sink"), self.flip.static_pad("src")) else { return };
        if sink.is_linked() == through {
            return;
        }
        let [before, after] = &self.around_flip;
        let done = || -> Result<(), glib::BoolError> {
            if through {
                before.unlink(after)?;
                gst::Element::sync_state_with_parent(&self.flip)?;
                src.link(after).and_then(|_| before.link(&sink)).map_err(|e| glib::bool_error!("{e}"))?;
            } else {
                before.unlink(&sink)?;
                src.unlink(after)?;
                before.link(after).map_err(|e| glib::bool_error!("{e}"))?;
            }
            Ok(())
        };
        if let Err(error) = done() {
            gst::warning!(CAT, obj = self.flip, "pictures cannot be led past it: {error}");
        }
    }
}

pub struct LipPicture {
    sink: gst::GhostPad,
    src: gst::GhostPad,
    /// Made in `constructed`, or what is missing for it.
    parts: OnceLock<Result<Parts, String>>,
    settings: Mutex<Settings>,
    /// Never held while a message is posted or a property of an element is set.
    state: Mutex<State>,
}

#[glib::object_subclass]
impl ObjectSubclass for LipPicture {
    const NAME: &'static str = "GstLipPicture";
    type Type = super::LipPicture;
    type ParentType = gst::Bin;

    fn with_class(class: &Self::Class) -> Self {
        let ghost = |name| {
            let template = class.pad_template(name).expect("a template of this class");
            gst::GhostPad::builder_from_template(&template).build()
        };
        Self {
            sink: ghost("sink"),
            src: ghost("src"),
            parts: OnceLock::new(),
            settings: Mutex::default(),
            state: Mutex::default(),
        }
    }
}

impl ObjectImpl for LipPicture {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let side = |name, nick, blurb| {
                glib::ParamSpecUInt::builder(name).nick(nick).blurb(blurb).maximum(MAX_SIDE).mutable_playing().build()
            };
            vec![
                side("width", "Width", "Width of the pictures that leave; 0 is the first picture's"),
                side("height", "Height", "Height of the pictures that leave; 0 is the first picture's"),
                glib::ParamSpecBoolean::builder("default-colors")
                    .nick("Default colours")
                    .blurb("Convert to the colorimetry that raw video of the size has when nobody says one: BT.601 or BT.709, limited range")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("keep-alpha")
                    .nick("Keep alpha")
                    .blurb("Keep the transparency of pictures that have one, rather than lay them on the background")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("background")
                    .nick("Background")
                    .blurb("What shows through where a picture is transparent, 0xRRGGBB")
                    .maximum(0xff_ffff)
                    .mutable_playing()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        match pspec.name() {
            "width" => self.settings.lock().width = value.get().expect("checked by GObject"),
            "height" => self.settings.lock().height = value.get().expect("checked by GObject"),
            "default-colors" => {
                self.settings.lock().default_colors = value.get().expect("checked by GObject");
                return;
            }
            "keep-alpha" => {
                let keep: bool = value.get().expect("checked by GObject");
                self.settings.lock().keep_alpha = keep;
                if let Some(Ok(parts)) = self.parts.get() {
                    parts.color.set_keep_alpha(keep);
                    parts.size.set_property("caps", wanted(None, None, keep));
                }
                return;
            }
            name => {
                if let Some(Ok(parts)) = self.parts.get() {
                    parts.color.set_property_from_value(name, value);
                }
                return;
            }
        }
        let Settings { width, height, .. } = *self.settings.lock();
        if width > 0 && height > 0 {
            self.state.lock().size = Some((width, height));
            self.limit((width, height), None);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "width" => self.settings.lock().width.to_value(),
            "height" => self.settings.lock().height.to_value(),
            "default-colors" => self.settings.lock().default_colors.to_value(),
            "keep-alpha" => self.settings.lock().keep_alpha.to_value(),
            _ => match self.parts.get() {
                Some(Ok(parts)) => parts.color.property_value("background"),
                _ => pspec.default_value().clone(),
            },
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        let parts = self.build().map_err(|e| e.to_string());
        self.parts.set(parts).unwrap_or_else(|_| unreachable!("constructed runs once"));
        for pad in [&self.sink, &self.src] {
            obj.add_pad(pad).expect("a pad of its own");
        }
    }
}

impl GstObjectImpl for LipPicture {}

impl ElementImpl for LipPicture {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream picture",
                "Filter/Converter/Video",
                "Makes decoded pictures of any kind upright, progressive, of square pixels and one size, and opaque unless told otherwise",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let pad = |name, direction, caps: &gst::Caps| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps).expect("a valid template")
            };
            let any = gst_video::VideoCapsBuilder::new().build();
            vec![pad("sink", gst::PadDirection::Sink, &any), pad("src", gst::PadDirection::Src, &video::caps())]
        });
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if let (gst::StateChange::NullToReady, Some(Err(cause))) = (transition, self.parts.get()) {
            gst::element_imp_error!(
                self,
                gst::CoreError::MissingPlugin,
                ("The bin could not be built: {cause}"),
                [
                    "install GStreamer's base and good plugins (Debian: gstreamer1.0-plugins-base, gstreamer1.0-plugins-good)"
                ]
            );
            return Err(gst::StateChangeError);
        }
        let done = self.parent_change_state(transition);
        if transition == gst::StateChange::PausedToReady {
            let Settings { width, height, .. } = *self.settings.lock();
            let size = (width > 0 && height > 0).then_some((width, height));
            *self.state.lock() = State { size, ..State::default() };
        }
        done
    }
}

impl BinImpl for LipPicture {}

impl LipPicture {
    fn build(&self) -> Result<Parts, glib::BoolError> {
        let obj = self.obj();
        let make = |factory: &str| gst::ElementFactory::make(factory).build();
        let color: crate::color::LipColor = glib::Object::new();
        // For formats that the deinterlacer and the flip do not know.
        let (first, second) = (make("videoconvert")?, make("videoconvert")?);
        let deinterlace = make("deinterlace")?;
        deinterlace.set_property_from_str("method", "greedyh");
        let flip = make("videoflip")?;
        flip.set_property_from_str("video-direction", "auto");
        let scale = make("videoconvertscale")?;
        scale.set_property("add-borders", true);
        let size = gst::ElementFactory::make("capsfilter").property("caps", wanted(None, None, false)).build()?;
        let chain = [color.upcast_ref(), &first, &deinterlace, &second, &flip, &scale, &size];
        obj.add_many(chain)?;
        gst::Element::link_many(chain)?;
        let pad = |element: &gst::Element, name: &str| element.static_pad(name).expect("a pad of every filter");
        self.sink.set_target(Some(&pad(color.upcast_ref(), "sink")))?;
        self.src.set_target(Some(&pad(&size, "src")))?;

        // What is told is of the source's own caps; upright pictures decide about the size.
        let watch = |pad: &gst::Pad, seen: fn(&Self, &VideoInfo)| {
            let weak = obj.downgrade();
            pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
                if let (Some(obj), Some(gst::EventView::Caps(caps))) = (weak.upgrade(), info.event().map(|e| e.view()))
                    && let Ok(info) = VideoInfo::from_caps(caps.caps())
                {
                    seen(obj.imp(), &info);
                }
                gst::PadProbeReturn::Ok
            });
        };
        watch(self.sink.upcast_ref(), Self::comes);
        watch(&pad(&scale, "sink"), |this, info| this.state.lock().next = Some(info.clone()));
        let weak = obj.downgrade();
        pad(&scale, "sink").add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            if let Some(obj) = weak.upgrade() {
                obj.imp().decide();
            }
            gst::PadProbeReturn::Ok
        });
        let weak = obj.downgrade();
        pad(&size, "src").add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let mending = weak.upgrade().map(|obj| obj.imp().state.lock().mending.clone()).unwrap_or_default();
            if mending != Mending::default()
                && let Some(format) = pad.current_caps().and_then(|caps| VideoInfo::from_caps(&caps).ok())
                && let Some(buffer) = info.buffer_mut()
            {
                mending.mend(buffer, &format);
            }
            gst::PadProbeReturn::Ok
        });
        let around_flip = [pad(&second, "src"), pad(&scale, "sink")];
        Ok(Parts { color, deinterlace, flip, around_flip, size })
    }

    /// Pictures of this format come next.
    fn comes(&self, info: &VideoInfo) {
        if let Some(Ok(parts)) = self.parts.get() {
            // One picture a frame, so that a source keeps its rate: of the field that is shown first, whose time it has.
            let bottom = info.field_order() == gst_video::VideoFieldOrder::BottomFieldFirst;
            parts.deinterlace.set_property_from_str("fields", if bottom { "bottom" } else { "top" });
        }
        let keep = self.settings.lock().keep_alpha;
        if keep && let Some(Ok(parts)) = self.parts.get() {
            // The flip does not know the format, and the way to another and back would blur its colours.
            parts.flip(info.format() != VideoFormat::A420);
            let size = self.state.lock().size.unwrap_or_else(|| square(info));
            parts.color.set_property("colorimetry", default_colorimetry(size));
        }
        changes::of(info, keep).into_iter().for_each(|change| self.tell(change));
    }

    /// A picture comes: where it is of another kind than the one before, what leaves is decided anew. Caps alone decide
    /// nothing, since the tag that turns the picture comes after the first of them.
    fn decide(&self) {
        let keep_alpha = self.settings.lock().keep_alpha;
        let (info, shape, size, before) = {
            let mut state = self.state.lock();
            let Some(info) = state.next.take() else { return };
            let shape = square(&info);
            let before = state.source.replace(shape);
            let size = *state.size.get_or_insert(shape);
            state.mending = if keep_alpha {
                Mending { inner: Inner::of(shape, size), opaque: !info.format_info().has_alpha() }
            } else {
                Mending::default()
            };
            (info, shape, size, before)
        };
        self.limit(size, Some(&info));
        if let Some(before) = before.filter(|before| *before != shape) {
            self.tell(changes::resized(before, shape, size));
        }
    }

    /// What leaves from here on has this size, and the kind of colours that `source` has.
    fn limit(&self, size: (u32, u32), source: Option<&VideoInfo>) {
        if let Some(Ok(parts)) = self.parts.get() {
            let settings = *self.settings.lock();
            let mut caps = wanted(Some(size), source, settings.keep_alpha);
            let colorimetry = default_colorimetry(size);
            if settings.default_colors
                && let Some(colorimetry) = &colorimetry
            {
                caps.make_mut().set("colorimetry", colorimetry);
            }
            parts.color.set_property("colorimetry", colorimetry);
            parts.size.set_property("caps", caps);
        }
    }

    fn tell(&self, change: Change) {
        gst::info!(CAT, imp = self, "{}", change.text);
        let structure = gst::Structure::builder("lippicture")
            .field("kind", change.kind)
            .field("text", change.text)
            .field("warning", change.warning)
            .build();
        let obj = self.obj();
        // Nobody listens where this fails.
        let _ = obj.post_message(gst::message::Element::builder(structure).src(&*obj).build());
    }
}

/// Caps of what leaves. YUV stays YUV and RGB stays RGB unless what follows takes no other: the way to the other and back
/// costs time and a rounding.
fn wanted(size: Option<(u32, u32)>, source: Option<&VideoInfo>, keep_alpha: bool) -> gst::Caps {
    use VideoFormat::{A420, Bgra, I420, Nv12, Rgb, Rgba};
    let yuv = source.is_some_and(|info| info.format_info().is_yuv() || info.format_info().is_gray());
    let alpha = source.is_some_and(|info| info.format_info().has_alpha());
    let formats: &[VideoFormat] = match (yuv, keep_alpha, alpha) {
        (true, false, _) => &[I420, Nv12],
        (false, false, _) => &[I420, Nv12, Rgba, Bgra, Rgb],
        (true, true, true) => &[A420],
        (false, true, true) => &[Rgba, Bgra, A420],
        // What has no alpha is opaque where one is asked for.
        (true, true, false) => &[I420, Nv12, A420],
        (false, true, false) => &[I420, Nv12, Rgba, Bgra, Rgb, A420],
    };
    let caps = gst_video::VideoCapsBuilder::new()
        .format_list(formats.iter().copied())
        .pixel_aspect_ratio(gst::Fraction::new(1, 1));
    match size {
        Some((width, height)) => caps.width(width as i32).height(height as i32).build(),
        None => caps.build(),
    }
}

/// The one that YUV of a size has when nobody says another.
fn default_colorimetry((width, height): (u32, u32)) -> Option<String> {
    let info = VideoInfo::builder(VideoFormat::I420, width, height).build().ok()?;
    Some(info.colorimetry().to_string())
}

/// Size of a picture of the same shape with square pixels: its height is kept, as players do.
fn square(info: &VideoInfo) -> (u32, u32) {
    let (n, d) = (info.par().numer(), info.par().denom());
    let (width, height) = (info.width(), info.height());
    if n == d || n <= 0 || d <= 0 || n / d >= MAX_ASPECT || d / n >= MAX_ASPECT {
        return (width, height);
    }
    let scaled = u64::from(width) * n as u64 / d as u64;
    // Even, since it is scaled anyway and encoders want it so.
    (((scaled + 1) & !1).clamp(16, MAX_SIDE.into()) as u32, height)
}
