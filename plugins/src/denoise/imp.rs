use std::{
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use lipstream_engines::{Result, engine::Stream};
use parking_lot::Mutex;

use super::{
    change::Changes,
    properties::{self, SchedulingPolicy, Settings},
    speaker::{Loaded, Speaker},
    stats::{DenoiseCounters, DenoiseStats},
    stream::VideoStream,
    timing::own_latency,
    wait::Gate,
};
use crate::{
    ear::Ear,
    features::{self, FeaturesInfo},
    selector::{self, Selector},
    video,
};

pub(super) static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("lipdenoise", gst::DebugColorFlags::empty(), Some("Lipstream denoiser")));

pub(super) type Flow = std::result::Result<gst::FlowSuccess, gst::FlowError>;

/// What the pads know.
#[derive(Default)]
pub(super) struct State {
    /// There between READY to PAUSED and back: to flush without the lock of `video`.
    pub(super) stream: Option<Arc<Stream>>,
    /// The engine in use, as the property named it.
    pub(super) model: Option<String>,
    /// Of the video, set by caps.
    pub(super) info: Option<gst_video::VideoInfo>,
    /// Of the video.
    pub(super) segment: gst::FormattedSegment<gst::ClockTime>,
    /// Of the features, set by caps.
    pub(super) features: Option<FeaturesInfo>,
    pub(super) features_segment: gst::FormattedSegment<gst::ClockTime>,
    /// What the engine looks ahead beyond the features' own overhang, and what frames are held for.
    pub(super) reach: gst::ClockTime,
    pub(super) own: gst::ClockTime,
    /// Frames on their way after a frame has been taken in.
    pub(super) depth: usize,
    /// What upstream said last: whether anything is live, and the latency that the element declares. `None` before
    /// anybody asked.
    pub(super) latency: Option<(bool, gst::ClockTime)>,
    /// Between PAUSED to PLAYING and back.
    pub(super) playing: bool,
}

/// Lock order: video, changes, settings, state, gate. None is held while a buffer, event, query or message is pushed.
pub struct LipDenoise {
    pub(super) sinkpad: gst::Pad,
    pub(super) featurespad: gst::Pad,
    pub(super) srcpad: gst::Pad,
    pub(super) settings: Mutex<Settings>,
    /// Held by the video's streaming thread while it works on a frame.
    pub(super) video: Mutex<Option<VideoStream>>,
    /// Engines that stand ready beside the one in use.
    pub(super) changes: Mutex<Changes>,
    pub(super) state: Mutex<State>,
    pub(super) gate: Gate,
    pub(super) counters: DenoiseCounters,
    /// Of who holds the element, where somebody lets it hear the sound.
    pub(super) ear: OnceLock<Arc<Ear>>,
}

#[glib::object_subclass]
impl ObjectSubclass for LipDenoise {
    const NAME: &'static str = "GstLipDenoise";
    type Type = super::LipDenoise;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = |name| class.pad_template(name).expect("a template of this class");
        let proxy = gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION | gst::PadFlags::PROXY_SCHEDULING;
        let sinkpad = gst::Pad::builder_from_template(&template("sink"))
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |this| this.video_chain(buffer))
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.video_event(pad, event))
            })
            .iterate_internal_links_function(|_, parent| {
                Self::catch_panic_pad_function(
                    parent,
                    || gst::Iterator::from_vec(Vec::new()),
                    |this| gst::Iterator::from_vec(vec![this.srcpad.clone()]),
                )
            })
            .flags(proxy)
            .build();
        let featurespad = gst::Pad::builder_from_template(&template("features"))
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.features_chain(&buffer),
                )
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.features_event(&event))
            })
            .iterate_internal_links_function(|_, _| gst::Iterator::from_vec(Vec::new()))
            .build();
        let srcpad = gst::Pad::builder_from_template(&template("src"))
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_query(pad, query))
            })
            .iterate_internal_links_function(|_, parent| {
                Self::catch_panic_pad_function(
                    parent,
                    || gst::Iterator::from_vec(Vec::new()),
                    |this| gst::Iterator::from_vec(vec![this.sinkpad.clone()]),
                )
            })
            .flags(proxy)
            .build();
        Self {
            sinkpad,
            featurespad,
            srcpad,
            settings: Mutex::default(),
            video: Mutex::default(),
            changes: Mutex::default(),
            state: Mutex::default(),
            gate: Gate::default(),
            counters: DenoiseCounters::default(),
            ear: OnceLock::new(),
        }
    }
}

impl ObjectImpl for LipDenoise {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(properties::list);
        &PROPERTIES
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            vec![
                glib::subclass::Signal::builder("interrupt")
                    .action()
                    .class_handler(|args| {
                        let element = args[0].get::<super::LipDenoise>().expect("the element itself");
                        element.imp().interrupt(None);
                        None
                    })
                    .build(),
            ]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if pspec.name() == "speaker" {
            match selector::read(value) {
                Ok(selector) => {
                    self.settings.lock().speaker = selector;
                    self.listen();
                }
                Err(error) => selector::refuse(&*self.obj(), &error),
            }
            return;
        }
        let shift = |this: &Self| this.settings.lock().shift_latency();
        let before = shift(self);
        self.settings.lock().set(pspec.name(), value);
        if shift(self) != before {
            self.tell_latency();
        }
        if matches!(pspec.name(), "model" | "fallback-model") {
            self.follow_models();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.statistics().to_structure().to_value(),
            name => self.settings.lock().get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        for pad in [&self.sinkpad, &self.featurespad, &self.srcpad] {
            obj.add_pad(pad).expect("a pad of its own");
        }
        // A frame may be waiting for a peer that comes, and the features for one that goes.
        for pad in [&self.sinkpad, &self.featurespad] {
            let look_again = |weak: &glib::WeakRef<super::LipDenoise>| {
                if let Some(obj) = weak.upgrade() {
                    obj.imp().gate.nudge();
                }
            };
            let weak = obj.downgrade();
            pad.connect_linked(move |_, _| look_again(&weak));
            let weak = obj.downgrade();
            pad.connect_unlinked(move |_, _| look_again(&weak));
        }
    }
}

impl GstObjectImpl for LipDenoise {}

impl ElementImpl for LipDenoise {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream denoiser",
                "Filter/Effect/Video",
                "Makes the mouth of each frame from the face and the audio features around the frame's time",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [
                ("sink", gst::PadDirection::Sink, video::caps()),
                ("features", gst::PadDirection::Sink, features::any_caps()),
                ("src", gst::PadDirection::Src, video::caps()),
            ]
            .into_iter()
            .map(|(name, direction, caps)| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).expect("a valid template")
            })
            .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> std::result::Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start().map_err(|e| {
                gst::element_imp_error!(
                    self,
                    gst::LibraryError::Init,
                    ("The denoiser cannot start: {e}"),
                    [
                        "check the properties model, device, precision and reference-bank; model={}",
                        self.settings.lock().model
                    ]
                );
                gst::StateChangeError
            })?,
            gst::StateChange::PausedToPlaying => self.set_playing(true),
            gst::StateChange::PausedToReady => {
                self.gate.close();
                let stream = self.state.lock().stream.clone();
                if let Some(stream) = stream {
                    stream.flush();
                }
            }
            _ => (),
        }
        let result = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PlayingToPaused => self.set_playing(false),
            gst::StateChange::PausedToReady => {
                *self.video.lock() = None;
                *self.state.lock() = State::default();
                self.changes.lock().clear();
            }
            _ => (),
        }
        Ok(result)
    }
}

impl LipDenoise {
    fn start(&self) -> Result<()> {
        let settings = {
            let mut settings = self.settings.lock();
            settings.correction = 0;
            settings.clone()
        };
        let loaded = Loaded::new(&settings.model, &settings)?;
        let own = own_latency(&loaded, &settings);
        let steps = loaded.steps();
        let speaker = Speaker::new(loaded, &settings, self.counters.device_time.clone());
        let spec = speaker.spec().clone();
        gst::info!(CAT, imp = self, "engine {} with {steps} steps, window {:?}", spec.name, spec.window.taps);
        let held = spec.later.max(spec.clip.held());
        let depth = match settings.policy {
            SchedulingPolicy::Latency => held,
            SchedulingPolicy::Throughput => held.max(steps.saturating_sub(1)),
        };
        speaker.stream().wait_at_once(depth == spec.later);
        let time = |d: Duration| gst::ClockTime::from_nseconds(d.as_nanos() as u64);
        *self.state.lock() = State {
            stream: Some(speaker.stream().clone()),
            model: Some(settings.model.clone()),
            reach: time(spec.window.reach()),
            own,
            depth,
            ..State::default()
        };
        *self.video.lock() = Some(VideoStream::new(speaker));
        self.counters.reset();
        self.gate.open(spec.window);
        self.follow_models();
        Ok(())
    }

    fn set_playing(&self, playing: bool) {
        self.state.lock().playing = playing;
        self.gate.nudge();
    }

    pub(crate) fn statistics(&self) -> DenoiseStats {
        let stream = self.state.lock().stream.clone();
        self.counters.read(&stream.map(|stream| stream.worker().stats()).unwrap_or_default())
    }

    /// Which faces are to speak.
    pub(super) fn selector(&self) -> Selector {
        self.settings.lock().speaker
    }

    /// Lets the element hear the sound, for `speaker=auto`.
    pub(crate) fn set_ear(&self, ear: Arc<Ear>) {
        if self.ear.set(ear).is_ok() {
            self.listen();
        }
    }

    /// The face whose mouth is made.
    pub(crate) fn speaks(&self) -> Option<u64> {
        self.counters.speaks().track
    }

    fn listen(&self) {
        if let Some(ear) = self.ear.get() {
            ear.listen(self.selector() == Selector::Auto);
        }
    }

    /// What has been said counts as silence, as does what is heard of the time before `until`.
    pub(crate) fn interrupt(&self, until: Option<gst::ClockTime>) {
        gst::debug!(CAT, imp = self, "interrupted, until {until:?}");
        self.gate.interrupt(until.map_or(0, gst::ClockTime::nseconds));
    }

    /// Shifts features by `by` ms beside what the property says.
    pub(crate) fn correct(&self, by: i32) {
        self.settings.lock().correction = by;
        self.tell_latency();
    }

    /// The declared latency has changed.
    pub(super) fn tell_latency(&self) {
        if self.state.lock().latency.is_some() {
            self.ask_latency();
        }
        let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
    }
}
