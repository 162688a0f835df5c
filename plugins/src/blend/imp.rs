use std::sync::LazyLock;

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_transform::GenerateOutputSuccess, prelude::*},
};
use lipstream_engines::{
    image::{Label, Patch, paste_behind},
    occlusion::Front,
    stats::Timer,
    tracker::Face,
    watermark::{self, Embedder},
};
use parking_lot::Mutex;

use super::Corner;
use crate::{
    meta::{PatchMeta, face, patch},
    options,
    stats::{self, Counters, count},
    video,
};

static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("lipblend", gst::DebugColorFlags::empty(), Some("Lipstream blender")));

/// From one frame to the next where the stream does not say, as far as the mark is concerned.
const MARK_STEP: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// Properties.
#[derive(Clone, Debug)]
struct Settings {
    /// Off: patches are still removed, so that nobody after this element pastes them.
    enabled: bool,
    /// What is written into every frame; `None`: nothing.
    label: Option<String>,
    corner: Corner,
    /// Whether what is pasted is marked.
    watermark: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, label: None, corner: Corner::default(), watermark: true }
    }
}

pub(crate) fn properties() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecBoolean::builder("enabled")
            .nick("Enabled")
            .blurb("Paste the patches; when false, frames keep their own mouth")
            .default_value(true)
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("label")
            .nick("Label")
            .blurb(
                "Text that is written into every frame, such as one that a machine made the speech: a line of at most 100 Latin, \
                 Greek or Cyrillic characters; unset or empty = none",
            )
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("label-corner", Corner::default())
            .nick("Label corner")
            .blurb("Where the label is")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("watermark")
            .nick("Watermark")
            .blurb("Mark what is pasted, invisibly, as made by a machine; `lipstream detect` finds it")
            .default_value(true)
            .mutable_playing()
            .build(),
        stats::property(
            "Frames in, out, passed through (no patch), dropped (a patch of another picture shape) and late; times of \
             pasting a patch as blend-p50, -p95, -p99, -sum (microseconds), -count and -buckets, of marking it as mark-p50 and so on",
        ),
    ]
}

/// What a running element has.
#[derive(Default)]
struct State {
    /// Set by caps, cleared by `stop`.
    info: Option<gst_video::VideoInfo>,
    /// Made for the first frame that is marked.
    embedder: Option<Embedder>,
    /// Of the last frame that was marked.
    time: Option<gst::ClockTime>,
}

pub struct LipBlend {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    /// Of the settings; what it draws is kept from frame to frame. Lock order: settings, label, state.
    label: Mutex<Option<Label>>,
    counters: Counters,
    time: Timer,
    marking: Timer,
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
            label: Mutex::default(),
            counters: Counters::default(),
            time: Timer::default(),
            marking: Timer::default(),
        }
    }
}

impl ObjectImpl for LipBlend {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings.lock();
        match pspec.name() {
            "enabled" => {
                settings.enabled = value.get().expect("type checked upstream");
                return;
            }
            "watermark" => {
                settings.watermark = value.get().expect("type checked upstream");
                return;
            }
            "label" => settings.label = options::string(value),
            "label-corner" => settings.corner = value.get().expect("type checked upstream"),
            name => unreachable!("property {name}"),
        }
        let text = settings.label.as_deref().unwrap_or_default();
        if !Label::can_show(text) {
            gst::warning!(
                CAT,
                imp = self,
                "the label `{text}` has characters that are no Latin, Greek or Cyrillic ones"
            );
        }
        *self.label.lock() = Label::new(text, settings.corner.into());
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "enabled" => self.settings.lock().enabled.to_value(),
            "label" => self.settings.lock().label.to_value(),
            "label-corner" => self.settings.lock().corner.to_value(),
            "watermark" => self.settings.lock().watermark.to_value(),
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
        self.marking.reset();
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
        self.write_label(&mut buffer)?;
        count(&self.counters.frames_out);
        Ok(GenerateOutputSuccess::Buffer(buffer))
    }
}

impl LipBlend {
    pub(crate) fn statistics(&self) -> super::BlendStats {
        super::BlendStats { frames: self.counters.read(), blend: (&self.time).into(), mark: (&self.marking).into() }
    }

    fn blend(&self, buffer: &mut gst::BufferRef) -> Result<(), gst::FlowError> {
        let (enabled, marked) = {
            let settings = self.settings.lock();
            (settings.enabled, settings.watermark)
        };
        let Some(info) = self.state.lock().info.clone() else { return Err(gst::FlowError::NotNegotiated) };
        let to = (info.width(), info.height());
        let mut pasted = false;
        let faces = if marked { face::faces(buffer, to.0, to.1) } else { face::faces_behind(buffer, to.0, to.1) };
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
            let paste = |buffer| {
                video::with_frame(buffer, &info, |frame| {
                    let seen = seen();
                    paste_behind(frame, &made, seen.as_deref()).map(|_| seen)
                })
            };
            let seen = self.time.time(|| paste(&mut *buffer)).map_err(|e| {
                gst::element_imp_error!(self, gst::StreamError::Failed, ("The patch could not be pasted: {e}"));
                gst::FlowError::Error
            })?;
            if marked {
                self.marking.time(|| self.mark(buffer, &info, (&faces, &made, seen.as_deref())))?;
            }
            pasted = true;
        }
        if !pasted {
            count(&self.counters.passed_through);
        }
        Ok(())
    }

    /// Marks what the patch has covered.
    fn mark(
        &self,
        buffer: &mut gst::BufferRef,
        info: &gst_video::VideoInfo,
        (faces, made, seen): (&[Face], &Patch, Option<&[u8]>),
    ) -> Result<(), gst::FlowError> {
        let Some(place) = watermark::place_under(faces, &made.to_frame) else { return Ok(()) };
        let mut state = self.state.lock();
        // Without a timestamp the frame comes a step after the one before.
        let next = || state.time.map_or(gst::ClockTime::ZERO, |time| time + MARK_STEP);
        let time = buffer.pts().unwrap_or_else(next);
        state.time = Some(time);
        let embedder = state.embedder.get_or_insert_default();
        let marked = video::with_frame(buffer, info, |frame| {
            embedder.mark(frame, made, seen, &place, time.into());
            Ok(())
        });
        marked.map_err(|e| {
            gst::element_imp_error!(self, gst::StreamError::Failed, ("The picture could not be marked: {e}"));
            gst::FlowError::Error
        })
    }

    fn write_label(&self, buffer: &mut gst::Buffer) -> Result<(), gst::FlowError> {
        let mut label = self.label.lock();
        let Some(label) = label.as_mut() else { return Ok(()) };
        let Some(info) = self.state.lock().info.clone() else { return Err(gst::FlowError::NotNegotiated) };
        let written = video::with_frame(buffer.make_mut(), &info, |frame| {
            label.draw(frame);
            Ok(())
        });
        written.map_err(|e| {
            gst::element_imp_error!(self, gst::StreamError::Failed, ("The label could not be written: {e}"));
            gst::FlowError::Error
        })
    }
}
