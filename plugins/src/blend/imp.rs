use std::sync::LazyLock;

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_transform::GenerateOutputSuccess, prelude::*},
};
use lipstream_engines::{image::paste_behind, occlusion::Front, stats::Timer};
use parking_lot::Mutex;

use crate::{
    meta::{PatchMeta, face, patch},
    stats::{self, Counters, count},
    video,
};

static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("lipblend", gst::DebugColorFlags::empty(), Some("Lipstream blender")));

/// Properties.
#[derive(Clone, Debug)]
struct Settings {
    /// Off: patches are still removed, so that nobody after this element pastes them.
    enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// What a running element has.
#[derive(Default)]
struct State {
    /// Set by caps, cleared by `stop`.
    info: Option<gst_video::VideoInfo>,
}

pub struct LipBlend {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    counters: Counters,
    time: Timer,
}

#[glib::object_subclass]
impl ObjectSubclass for LipBlend {
    const NAME: &'static str = "GstLipBlend";
    type Type = super::LipBlend;
    type ParentType = gst_base::BaseTransform;

    fn new() -> Self {
        Self {
            settings: Mutex::default(),
            state: Mutex::default(),
            counters: Counters::default(),
            time: Timer::default(),
        }
    }
}

impl ObjectImpl for LipBlend {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecBoolean::builder("enabled")
                    .nick("Enabled")
                    .blurb("Paste the patches; when false, frames keep their own mouth")
                    .default_value(true)
                    .mutable_playing()
                    .build(),
                stats::property(
                    "Frames in, out, passed through (no patch), dropped (a patch of another picture shape) and late; times of \
                     pasting a patch as blend-p50, -p95, -p99, -sum (microseconds), -count and -buckets",
                ),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        match pspec.name() {
            "enabled" => self.settings.lock().enabled = value.get().expect("type checked upstream"),
            name => unreachable!("property {name}"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "enabled" => self.settings.lock().enabled.to_value(),
            "stats" => self.statistics().to_structure().to_value(),
            name => unreachable!("property {name}"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_qos(false);
    }
}

impl GstObjectImpl for LipBlend {}

impl ElementImpl for LipBlend {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream blender",
                "Filter/Effect/Video",
                "Pastes the generated mouth of each frame, feathered and matched in colour",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        video::pad_templates()
    }
}

impl BaseTransformImpl for LipBlend {
    const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.counters.reset();
        self.time.reset();
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state.lock() = State::default();
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(incaps)
            .map_err(|_| gst::loggable_error!(CAT, "cannot read the caps {incaps}"))?;
        self.state.lock().info = Some(info);
        Ok(())
    }

    /// In the place of `transform_ip`, because that is called with a buffer that has been made writable already.
    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(mut buffer) = self.take_queued_buffer() else { return Ok(GenerateOutputSuccess::NoOutput) };
        count(&self.counters.frames_in);
        if buffer.meta::<PatchMeta>().is_none() {
            count(&self.counters.passed_through);
        } else {
            self.blend(buffer.make_mut())?;
        }
        count(&self.counters.frames_out);
        Ok(GenerateOutputSuccess::Buffer(buffer))
    }
}

impl LipBlend {
    pub(crate) fn statistics(&self) -> super::BlendStats {
        super::BlendStats { frames: self.counters.read(), blend: (&self.time).into() }
    }

    fn blend(&self, buffer: &mut gst::BufferRef) -> Result<(), gst::FlowError> {
        let enabled = self.settings.lock().enabled;
        let Some(info) = self.state.lock().info.clone() else { return Err(gst::FlowError::NotNegotiated) };
        let to = (info.width(), info.height());
        let mut pasted = false;
        let faces = face::faces(buffer, to.0, to.1);
        while let Some((made, width, height)) = PatchMeta::take(buffer) {
            if !enabled {
                continue;
            }
            let Some(made) = patch::scaled(made, (width, height), to) else {
                gst::warning!(
                    CAT,
                    imp = self,
                    "a patch for {width}x{height} does not fit a frame of {}x{}",
                    to.0,
                    to.1
                );
                count(&self.counters.dropped);
                continue;
            };
            // What is put pixel by pixel is put as a published program does.
            let seen = || if made.hard { None } else { Front::before(&faces, &made) };
            let paste =
                |buffer| video::with_frame(buffer, &info, |frame| paste_behind(frame, &made, seen().as_deref()));
            self.time.time(|| paste(&mut *buffer)).map_err(|e| {
                gst::element_imp_error!(self, gst::StreamError::Failed, ("The patch could not be pasted: {e}"));
                gst::FlowError::Error
            })?;
            pasted = true;
        }
        if !pasted {
            count(&self.counters.passed_through);
        }
        Ok(())
    }
}
