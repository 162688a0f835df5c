use std::{
    sync::{Arc, LazyLock, OnceLock, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use lipstream_engines::{Result, engine::Stream};
use parking_lot::Mutex;

use super::{
    change::Changes,
    properties::{self, SchedulingPolicy, Settings},
    speaker::{Loaded, Speaker},
    stats::{DenoiseCounters, DenoiseStats},
    stream::{Done, Fault, VideoStream},
    timing::own_latency,
    wait::Gate,
};
use crate::{
    ear::Ear,
    features::{self, FeaturesInfo},
    interrupt,
    selector::{self, Selector},
    stats::count,
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
        let speaker = Speaker::new(loaded, &settings);
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

    fn video_chain(&self, buffer: gst::Buffer) -> Flow {
        count(&self.counters.frames.frames_in);
        if self.state.lock().latency.is_none() {
            self.ask_latency();
        }
        let done = {
            let mut video = self.video.lock();
            match video.as_mut() {
                Some(video) => video.take(self, buffer),
                None => Err(Fault::Flow(gst::FlowError::Flushing)),
            }
        };
        self.send(done)
    }

    /// Pushes what is finished, or says what went wrong; no lock is held here.
    fn send(&self, done: std::result::Result<Vec<Done>, Fault>) -> Flow {
        self.tell_news();
        let done = match done {
            Ok(done) => done,
            Err(Fault::Flow(error)) => return Err(error),
            Err(Fault::Engine(error)) => {
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Failed,
                    ("The denoiser failed: {error}"),
                    ["try device=cpu and precision=fp32"]
                );
                return Err(gst::FlowError::Error);
            }
        };
        for Done { buffer, at_rest } in done {
            count(&self.counters.frames.frames_out);
            if at_rest && let Some(asked) = self.gate.rested() {
                self.tell_rest(asked.elapsed());
            }
            self.srcpad.push(buffer)?;
        }
        Ok(gst::FlowSuccess::Ok)
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
    fn tell_latency(&self) {
        if self.state.lock().latency.is_some() {
            self.ask_latency();
        }
        let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
    }

    fn tell_rest(&self, time: Duration) {
        let micros = self.counters.interrupted(time);
        let told = gst::Structure::builder(interrupt::NAME).field("time", micros).build();
        // Nobody may be listening.
        let _ = self.obj().post_message(gst::message::Element::builder(told).src(&*self.obj()).build());
    }

    /// Finishes and pushes all frames that are on their way: an event must not overtake them.
    fn drain(&self) {
        let info = self.state.lock().info.clone();
        let Some(info) = info else { return };
        let done = {
            let mut video = self.video.lock();
            let Some(video) = video.as_mut() else { return };
            video.finish(self, &info, 0)
        };
        // The next buffer meets the same flow return.
        let _ = self.send(done);
    }

    fn video_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "{event:?}");
        if event.is_serialized() && event.type_() != gst::EventType::FlushStop {
            self.drain();
        }
        match event.view() {
            gst::EventView::StreamStart(_) => self.gate.end_video(false),
            gst::EventView::Caps(e) if !self.set_caps(e.caps()) => return false,
            gst::EventView::Segment(e) => match e.segment().clone().downcast::<gst::ClockTime>() {
                Ok(segment) => self.state.lock().segment = segment,
                Err(_) => {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Format,
                        (
                            "Video in {:?} has no running time; a parser or decoder before this element makes it one",
                            e.segment().format()
                        )
                    );
                    return false;
                }
            },
            gst::EventView::Eos(_) => self.gate.end_video(true),
            gst::EventView::CustomDownstream(e) if interrupt::is(e) => self.interrupt(None),
            gst::EventView::FlushStart(_) => return self.flush(pad, event),
            gst::EventView::FlushStop(_) => {
                self.state.lock().segment = gst::FormattedSegment::new();
                self.gate.flush_video(false);
            }
            _ => (),
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// Empties the element; the time until nothing is left is a statistic.
    fn flush(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        let start = Instant::now();
        self.gate.flush_video(true);
        let stream = self.state.lock().stream.clone();
        if let Some(stream) = stream {
            stream.flush();
        }
        let result = gst::Pad::event_default(pad, Some(&*self.obj()), event);
        // The streaming thread gives up the lock as soon as it has seen the flush.
        if let Some(video) = self.video.lock().as_mut() {
            self.counters.frames.dropped.fetch_add(video.flush() as u64, Relaxed);
        }
        self.counters.flushed(start.elapsed());
        result
    }

    fn set_caps(&self, caps: &gst::CapsRef) -> bool {
        let info = match gst_video::VideoInfo::from_caps(caps) {
            Ok(info) => info,
            Err(_) => {
                gst::error!(CAT, imp = self, "cannot read the caps {caps}");
                return false;
            }
        };
        let Ok(space) = video::space(&info) else { return false };
        let stream = self.state.lock().stream.clone();
        let checked = stream.map_or(Ok(()), |stream| {
            stream.worker().engine().spec().check_rate(info.fps().numer(), info.fps().denom())
        });
        if let Err(error) = checked {
            gst::element_imp_error!(self, gst::StreamError::WrongType, ("{error}"));
            return false;
        }
        if let Some(video) = self.video.lock().as_mut() {
            video.set_space(space);
        }
        let held = {
            let mut state = self.state.lock();
            state.info = Some(info);
            // The declared latency may have changed with the frame rate.
            state.latency = None;
            state.depth > 0
        };
        if held {
            let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
        true
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        if let gst::EventView::Seek(_) = event.view() {
            // Both streams move. Upstream of both, one demuxer tells the two by the sequence number.
            let features = self.featurespad.push_event(event.clone());
            return self.sinkpad.push_event(event) || features;
        }
        if event.type_() == gst::EventType::CustomUpstream && interrupt::is(&event) {
            self.interrupt(None);
            // The audio encoder has heard some of it as well.
            self.featurespad.push_event(event.clone());
            self.sinkpad.push_event(event);
            return true;
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(answer) = query.view_mut() else {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        };
        let Some((live, min, max)) = self.ask_latency() else { return false };
        answer.set(live, min, max);
        true
    }
}
