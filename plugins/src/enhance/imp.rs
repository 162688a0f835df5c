use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_transform::GenerateOutputSuccess, prelude::*},
};
use lipstream_engines::{
    Error,
    enhance::{Enhancer, MOST_FRAMES, Network, Restorer, Restoring, Settings},
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
    fidelity: f64,
    every: Every,
    options: Options,
}

/// Frames of a face for one evaluation of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Every {
    /// Each frame of what is not live, and as the device keeps up of what is.
    #[default]
    Auto,
    Frames(usize),
}

impl Every {
    /// `auto`, or 1 to [`MOST_FRAMES`].
    fn read(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("auto") => Some(Self::Auto),
            Some(number) => number.parse().ok().filter(|n| (1..=MOST_FRAMES).contains(n)).map(Self::Frames),
        }
    }
}

impl std::fmt::Display for Every {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Frames(n) => n.fmt(f),
        }
    }
}

/// What is done to a frame.
enum Work {
    Filter(Settings),
    Network { name: String, options: Options, how: Restoring, every: Every },
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            enhance: Enhance::Off,
            strength: 0.8,
            mouth_protection: 0.8,
            fidelity: 0.5,
            every: Every::Auto,
            options: Options::default(),
        }
    }
}

impl Wanted {
    /// `None` where frames pass as they are.
    fn work(&self) -> Option<Work> {
        let (strength, mouth_protection) = (self.strength as f32, self.mouth_protection as f32);
        if strength <= 0.0 {
            return None;
        }
        match &self.enhance {
            Enhance::Off => None,
            Enhance::Filter(filter) => Some(Work::Filter(Settings { filter: *filter, strength, mouth_protection })),
            Enhance::Network(name) => {
                let how = Restoring { strength, mouth_protection, weight: self.fidelity as f32, every: 1 };
                let (name, options) = (name.clone(), self.options.clone());
                Some(Work::Network { name, options, how, every: self.every })
            }
        }
    }
}

/// What a running element has.
#[derive(Default)]
struct State {
    /// Set by caps, cleared by `stop`.
    info: Option<gst_video::VideoInfo>,
    enhancer: Enhancer,
    /// The network that is loaded, by its name.
    network: Option<(String, Restorer)>,
    /// Whether what comes is live; asked for once.
    live: Option<bool>,
}

impl State {
    /// The network of that name, loaded where another one or none is.
    fn network(&mut self, name: &str, options: &Options) -> Result<&mut Restorer, Error> {
        let network = match self.network.take() {
            Some((known, network)) if known == name => network,
            _ => Restorer::new(Network::find(name, &options.parse()?)?),
        };
        Ok(&mut self.network.insert((name.to_owned(), network)).1)
    }

    /// Forgets the faces.
    fn reset(&mut self) {
        self.enhancer.reset();
        self.network.iter_mut().for_each(|(_, network)| network.reset());
    }
}

#[derive(Default)]
pub struct LipEnhance {
    settings: Mutex<Wanted>,
    /// Never held while a buffer, event or message is pushed.
    state: Mutex<State>,
    counters: Counters,
    time: Timer,
    /// Frames of a face for one evaluation, of the last frame.
    every: AtomicU64,
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
                glib::ParamSpecString::builder("enhance")
                    .nick("Enhance")
                    .blurb(
                        "What is done to the faces that lipfacetrack has found: off; sharpen, clahe, detail or combined, to their \
                         brightness; the name of an enhancer that `lipstream import` has installed, or the path of an ONNX file of \
                         GFPGAN, CodeFormer or GPEN-BFR",
                    )
                    .default_value(Some(Enhance::OFF))
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
                part(
                    "fidelity",
                    "Fidelity",
                    "What CodeFormer calls weight (0..1): 0 is the best picture, 1 the most like the face; others have none",
                    defaults.fidelity,
                ),
                glib::ParamSpecString::builder("enhance-every")
                    .nick("Enhance every")
                    .blurb(
                        "Frames of a face for one evaluation of the network, 1 to 8; between them what it changed follows the face. auto: \
                         1 where the pipeline is not live, else as many as leave the evaluations half of the time between frames",
                    )
                    .default_value(Some("auto"))
                    .mutable_playing()
                    .build(),
                stats::property(
                    "Frames in, out and passed through (no face, or nothing to do); times of enhancing a frame as enhance-p50, -p95, \
                     -p99, -sum (microseconds), -count and -buckets; every (frames of a face for one evaluation of the network)",
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
            "enhance" => wanted.enhance = Enhance::read(options::string(value).as_deref()),
            "enhance-every" => match Every::read(options::string(value).as_deref()) {
                Some(every) => wanted.every = every,
                None => gst::warning!(
                    CAT,
                    imp = self,
                    "enhance-every must be auto or 1 to {MOST_FRAMES}: it stays {}",
                    wanted.every
                ),
            },
            "enhance-strength" => wanted.strength = value.get().expect(checked),
            "mouth-protection" => wanted.mouth_protection = value.get().expect(checked),
            "fidelity" => wanted.fidelity = value.get().expect(checked),
            name => wanted.options.set(name, value),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let wanted = self.settings.lock();
        match pspec.name() {
            "enhance" => wanted.enhance.to_string().to_value(),
            "enhance-every" => wanted.every.to_string().to_value(),
            "enhance-strength" => wanted.strength.to_value(),
            "mouth-protection" => wanted.mouth_protection.to_value(),
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
        let work = self.settings.lock().work();
        let loaded = match &work {
            Some(Work::Network { name, options, .. }) => state.network(name, options).map(drop),
            _ => Ok(()),
        };
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
        state.reset();
        state.info = Some(info);
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::FlushStop {
            self.state.lock().reset();
        }
        self.parent_sink_event(event)
    }

    /// In the place of `transform_ip`, because that is called with a buffer that has been made writable already.
    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(mut buffer) = self.take_queued_buffer() else { return Ok(GenerateOutputSuccess::NoOutput) };
        count(&self.counters.frames_in);
        let work = self.settings.lock().work();
        let changed = self.enhance(&mut buffer, work).map_err(|e| {
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
        super::EnhanceStats {
            frames: self.counters.read(),
            enhance: (&self.time).into(),
            every: self.every.load(Relaxed),
        }
    }

    /// Whether anything of the frame was changed.
    fn enhance(&self, buffer: &mut gst::Buffer, work: Option<Work>) -> Result<bool, Error> {
        // Asked without the lock: the answer comes from other elements.
        let unknown =
            self.state.lock().live.is_none() && matches!(&work, Some(Work::Network { every: Every::Auto, .. }));
        let live = unknown.then(|| self.is_live());
        let mut state = self.state.lock();
        state.live = state.live.or(live);
        let info = state.info.clone().ok_or_else(|| Error::invalid("a frame came before the caps"))?;
        let Some(work) = work else {
            state.reset();
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
            Work::Network { name, options, how, every } => {
                let (live, frame) = (state.live == Some(true), time_of(buffer, &info));
                let network = state.network(&name, &options)?;
                let every = match every {
                    Every::Frames(frames) => frames,
                    Every::Auto if live => network.fitting(faces.len(), frame),
                    Every::Auto => 1,
                };
                self.every.store(every as u64, Relaxed);
                self.time.time(|| {
                    video::with_frame(buffer.make_mut(), &info, |frame| {
                        network.restore(frame, &faces, &Restoring { every, ..how })
                    })
                })
            }
        };
        Ok(done? > 0)
    }

    /// Whether what comes is live.
    fn is_live(&self) -> bool {
        let mut query = gst::query::Latency::new();
        self.obj().sink_pad().peer_query(&mut query) && query.result().0
    }
}

/// Time from a frame to the next one.
fn time_of(buffer: &gst::Buffer, info: &gst_video::VideoInfo) -> Duration {
    let fps = info.fps();
    let told = (fps.numer() > 0).then(|| Duration::from_secs_f64(f64::from(fps.denom()) / f64::from(fps.numer())));
    told.or_else(|| buffer.duration().map(Into::into)).unwrap_or(Duration::from_millis(40))
}
