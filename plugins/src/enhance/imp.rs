use std::{path::Path, sync::LazyLock};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_transform::GenerateOutputSuccess, prelude::*},
};
use lipstream_engines::{
    Error,
    enhance::{Enhancer, Network, Settings},
    stats::Timer,
};
use parking_lot::Mutex;

use super::Enhance;
use crate::{
    meta::face,
    options::{self, Options},
    stats::{self, Counters, count},
    video,
};

static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("lipenhance", gst::DebugColorFlags::empty(), Some("Lipstream enhancer")));

/// Properties; all of them but `options` may change while the element runs.
#[derive(Clone, Debug)]
struct Wanted {
    enhance: Enhance,
    strength: f64,
    mouth_protection: f64,
    /// An ONNX file.
    model: Option<String>,
    fidelity: f64,
    options: Options,
}

/// What is done to a frame.
enum Work {
    Filter(Settings),
    Network { model: String, options: Options, strength: f32, mouth_protection: f32, fidelity: f32 },
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            enhance: Enhance::Off,
            strength: 0.8,
            mouth_protection: 0.8,
            model: None,
            fidelity: 0.5,
            options: Options::default(),
        }
    }
}

impl Wanted {
    /// `None` where frames pass as they are; an error where a network is asked for and none is named.
    fn work(&self) -> Result<Option<Work>, Error> {
        let (strength, mouth_protection) = (self.strength as f32, self.mouth_protection as f32);
        if strength <= 0.0 {
            return Ok(None);
        }
        if self.enhance != Enhance::Model {
            let filter = self.enhance.filter();
            return Ok(filter.map(|filter| Work::Filter(Settings { filter, strength, mouth_protection })));
        }
        let model = self.model.clone().ok_or_else(|| {
            Error::invalid("enhance=model needs the property model, the ONNX file of GFPGAN, CodeFormer or GPEN-BFR")
        })?;
        let (options, fidelity) = (self.options.clone(), self.fidelity as f32);
        Ok(Some(Work::Network { model, options, strength, mouth_protection, fidelity }))
    }
}

/// What a running element has.
#[derive(Default)]
struct State {
    /// Set by caps, cleared by `stop`.
    info: Option<gst_video::VideoInfo>,
    enhancer: Enhancer,
    /// The network that is loaded, by its file.
    network: Option<(String, Network)>,
}

impl State {
    /// The network of `model`, loaded where another one or none is.
    fn network(&mut self, model: &str, options: &Options) -> Result<&Network, Error> {
        let network = match self.network.take() {
            Some((known, network)) if known == model => network,
            _ => Network::open(Path::new(model), &options.parse()?)?,
        };
        Ok(&self.network.insert((model.to_owned(), network)).1)
    }
}

#[derive(Default)]
pub struct LipEnhance {
    settings: Mutex<Wanted>,
    /// Never held while a buffer, event or message is pushed.
    state: Mutex<State>,
    counters: Counters,
    time: Timer,
}

#[glib::object_subclass]
impl ObjectSubclass for LipEnhance {
    const NAME: &'static str = "GstLipEnhance";
    type Type = super::LipEnhance;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for LipEnhance {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let defaults = Wanted::default();
            let part = |name: &'static str, nick: &'static str, blurb: &'static str, default: f64| {
                glib::ParamSpecDouble::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .minimum(0.0)
                    .maximum(1.0)
                    .default_value(default)
                    .mutable_playing()
                    .build()
            };
            let mut list = vec![
                glib::ParamSpecEnum::builder_with_default("enhance", defaults.enhance)
                    .nick("Enhance")
                    .blurb("What is done to the brightness of the faces that lipfacetrack has found")
                    .mutable_playing()
                    .build(),
                part(
                    "enhance-strength",
                    "Enhance strength",
                    "How much of it is blended in (0..1; 0 leaves frames as they are)",
                    defaults.strength,
                ),
                part(
                    "mouth-protection",
                    "Mouth protection",
                    "How much of the mouth is kept from it (0..1; 1 leaves the lips as they are)",
                    defaults.mouth_protection,
                ),
                glib::ParamSpecString::builder("model")
                    .nick("Model")
                    .blurb(
                        "Path of the ONNX file of GFPGAN, CodeFormer, GPEN-BFR-256 or GPEN-BFR-512 for enhance=model",
                    )
                    .mutable_playing()
                    .build(),
                part(
                    "fidelity",
                    "Fidelity",
                    "What CodeFormer calls weight (0..1): 0 is the best picture, 1 the most like the face; others have none",
                    defaults.fidelity,
                ),
                stats::property(
                    "Frames in, out and passed through (no face, or nothing to do); times of enhancing a frame as enhance-p50, -p95, \
                     -p99, -sum (microseconds), -count and -buckets",
                ),
            ];
            list.extend(options::properties());
            list
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut wanted = self.settings.lock();
        let checked = "type checked upstream";
        match pspec.name() {
            "enhance" => wanted.enhance = value.get().expect(checked),
            "enhance-strength" => wanted.strength = value.get().expect(checked),
            "mouth-protection" => wanted.mouth_protection = value.get().expect(checked),
            "model" => wanted.model = options::string(value),
            "fidelity" => wanted.fidelity = value.get().expect(checked),
            name => wanted.options.set(name, value),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let wanted = self.settings.lock();
        match pspec.name() {
            "enhance" => wanted.enhance.to_value(),
            "enhance-strength" => wanted.strength.to_value(),
            "mouth-protection" => wanted.mouth_protection.to_value(),
            "model" => wanted.model.to_value(),
            "fidelity" => wanted.fidelity.to_value(),
            "stats" => self.statistics().to_structure().to_value(),
            name => wanted.options.get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_qos(false);
    }
}

impl GstObjectImpl for LipEnhance {}

impl ElementImpl for LipEnhance {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream enhancer",
                "Filter/Effect/Video",
                "Makes the faces that lipfacetrack has found crisper",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        video::pad_templates()
    }
}

impl BaseTransformImpl for LipEnhance {
    const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.counters.reset();
        self.time.reset();
        let mut state = State::default();
        // A file that is no enhancer is told of before the first frame.
        let loaded = self.settings.lock().work().and_then(|work| match &work {
            Some(Work::Network { model, options, .. }) => state.network(model, options).map(drop),
            _ => Ok(()),
        });
        loaded.map_err(|e| gst::error_msg!(gst::LibraryError::Init, ("The enhancer cannot start: {e}")))?;
        *self.state.lock() = state;
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state.lock() = State::default();
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(incaps)
            .map_err(|_| gst::loggable_error!(CAT, "cannot read the caps {incaps}"))?;
        let mut state = self.state.lock();
        state.enhancer.reset();
        state.info = Some(info);
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::FlushStop {
            self.state.lock().enhancer.reset();
        }
        self.parent_sink_event(event)
    }

    /// In the place of `transform_ip`, because that is called with a buffer that has been made writable already.
    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(mut buffer) = self.take_queued_buffer() else { return Ok(GenerateOutputSuccess::NoOutput) };
        count(&self.counters.frames_in);
        let work = self.settings.lock().work();
        let changed = work.and_then(|work| self.enhance(&mut buffer, work)).map_err(|e| {
            gst::element_imp_error!(self, gst::StreamError::Failed, ("The face could not be enhanced: {e}"));
            gst::FlowError::Error
        })?;
        if !changed {
            count(&self.counters.passed_through);
        }
        count(&self.counters.frames_out);
        Ok(GenerateOutputSuccess::Buffer(buffer))
    }
}

impl LipEnhance {
    pub(crate) fn statistics(&self) -> super::EnhanceStats {
        super::EnhanceStats { frames: self.counters.read(), enhance: (&self.time).into() }
    }

    /// Whether anything of the frame was changed.
    fn enhance(&self, buffer: &mut gst::Buffer, work: Option<Work>) -> Result<bool, Error> {
        let mut state = self.state.lock();
        let info = state.info.clone().ok_or_else(|| Error::invalid("a frame came before the caps"))?;
        let Some(work) = work else {
            state.enhancer.reset();
            return Ok(false);
        };
        let faces = face::faces(buffer, info.width(), info.height());
        if faces.is_empty() {
            return Ok(false);
        }
        let done = match work {
            Work::Filter(settings) => self.time.time(|| {
                video::with_frame(buffer.make_mut(), &info, |frame| {
                    Ok(state.enhancer.enhance(frame, &faces, &settings))
                })
            }),
            Work::Network { model, options, strength, mouth_protection, fidelity } => {
                let network = state.network(&model, &options)?;
                self.time.time(|| {
                    video::with_frame(buffer.make_mut(), &info, |frame| {
                        network.enhance_faces(frame, &faces, (strength, mouth_protection, fidelity))
                    })
                })
            }
        };
        Ok(done? > 0)
    }
}
