use std::sync::LazyLock;

use gst::{glib, prelude::*, subclass::prelude::*};
use lipstream_engines::{
    Result,
    audio::{FrontEnd, Mono, SAMPLE_RATE, front_end},
    stats::Timer,
};
use parking_lot::Mutex;

use super::hops::Hops;
use crate::{
    features::{self, FeaturesInfo},
    interrupt,
    options::{self, DEFAULT_ENGINE, Options},
    stats::{self, Counters, count},
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("lipaudioenc", gst::DebugColorFlags::empty(), Some("Lipstream audio encoder"))
});

/// Most channels that are mixed.
const CHANNELS: i32 = 64;

/// Properties; fixed while the element runs.
#[derive(Clone, Debug)]
struct Settings {
    engine: String,
    exact: bool,
    /// Milliseconds, 0: the engine's own.
    look_ahead: u32,
    options: Options,
}

impl Default for Settings {
    fn default() -> Self {
        Self { engine: DEFAULT_ENGINE.into(), exact: false, look_ahead: 0, options: Options::default() }
    }
}

/// What a running element has.
#[derive(Default)]
struct State {
    /// Made in READY to PAUSED, dropped on the way back.
    hops: Option<Hops>,
    /// Set by caps.
    info: Option<gst_audio::AudioInfo>,
    /// Segment of the audio; features travel in running time, in a segment of their own.
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// Makes one channel of those that come.
    mono: Option<Mono>,
    /// The features' segment has been sent since the start or the last flush.
    segment_sent: bool,
}

pub struct LipAudioEnc {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    /// Never held while a buffer, event, query or message is pushed.
    state: Mutex<State>,
    counters: Counters,
    time: Timer,
}

#[glib::object_subclass]
impl ObjectSubclass for LipAudioEnc {
    const NAME: &'static str = "GstLipAudioEnc";
    type Type = super::LipAudioEnc;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = |name| class.pad_template(name).expect("a template of this class");
        let sinkpad = gst::Pad::builder_from_template(&template("sink"))
            .chain_function(|pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.sink_chain(pad, buffer),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_event(pad, event))
            })
            .build();
        let srcpad = gst::Pad::builder_from_template(&template("src"))
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_query(pad, query))
            })
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            state: Mutex::default(),
            counters: Counters::default(),
            time: Timer::default(),
        }
    }
}

impl ObjectImpl for LipAudioEnc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut list = vec![
                glib::ParamSpecString::builder("engine")
                    .nick("Engine")
                    .blurb("Engine whose audio encoder runs: its name, its folder or the path of its engine.toml")
                    .default_value(Some(DEFAULT_ENGINE))
                    .mutable_ready()
                    .build(),
                options::exact(),
                options::look_ahead(
                    "Look-ahead of the mouths that are made of the features, in milliseconds, as lipdenoise has it: an engine may hear \
                     otherwise for a long one; one that it does not have is an error that names those it has (0 = the engine's own)",
                ),
                stats::property(
                    "Audio buffers in (frames-in), features out (frames-out), buffers dropped for want of a timestamp in the \
                     segment; times of encoding a buffer as encode-p50, -p95, -p99, -sum (microseconds), -count and -buckets",
                ),
            ];
            list.extend(options::properties());
            list
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut s = self.settings.lock();
        match pspec.name() {
            "engine" => s.engine = options::string(value).unwrap_or_else(|| DEFAULT_ENGINE.into()),
            "exact" => s.exact = value.get().expect("type checked upstream"),
            "look-ahead" => s.look_ahead = value.get().expect("type checked upstream"),
            name => s.options.set(name, value),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "engine" => self.settings.lock().engine.to_value(),
            "exact" => self.settings.lock().exact.to_value(),
            "look-ahead" => self.settings.lock().look_ahead.to_value(),
            "stats" => self.statistics().to_structure().to_value(),
            name => self.settings.lock().options.get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.add_pad(&self.sinkpad).expect("a pad of its own");
        obj.add_pad(&self.srcpad).expect("a pad of its own");
    }
}

impl GstObjectImpl for LipAudioEnc {}

impl ElementImpl for LipAudioEnc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream audio encoder",
                "Codec/Encoder/Audio",
                "Turns 16 kHz speech into one feature vector a hop",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let audio = gst_audio::AudioCapsBuilder::new_interleaved()
                .format_list([gst_audio::AudioFormat::F32le, gst_audio::AudioFormat::S16le])
                .rate(SAMPLE_RATE as i32)
                .channels_range(1..=CHANNELS)
                .build();
            [("sink", gst::PadDirection::Sink, audio), ("src", gst::PadDirection::Src, features::any_caps())]
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
        if transition == gst::StateChange::ReadyToPaused {
            let settings = self.settings.lock().clone();
            let hops = load(&settings).map_err(|e| {
                gst::element_imp_error!(
                    self,
                    gst::LibraryError::Init,
                    ("The audio encoder cannot start: {e}"),
                    ["check the properties engine, device and precision; engine={}", settings.engine]
                );
                gst::StateChangeError
            })?;
            self.counters.reset();
            self.time.reset();
            *self.state.lock() = State { hops: Some(hops), ..State::default() };
        }
        let result = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            *self.state.lock() = State::default();
        }
        Ok(result)
    }
}

impl LipAudioEnc {
    pub(crate) fn statistics(&self) -> super::AudioEncStats {
        super::AudioEncStats { frames: self.counters.read(), encode: (&self.time).into() }
    }

    fn sink_chain(
        &self,
        _pad: &gst::Pad,
        buffer: gst::Buffer,
    ) -> std::result::Result<gst::FlowSuccess, gst::FlowError> {
        count(&self.counters.frames_in);
        let features = {
            let mut state = self.state.lock();
            let State { hops: Some(hops), info: Some(info), segment, mono, .. } = &mut *state else {
                return Err(gst::FlowError::NotNegotiated);
            };
            let gap = buffer.flags().contains(gst::BufferFlags::GAP);
            let clipped = gst_audio::audio_buffer_clip(buffer, segment.upcast_ref(), info.rate(), info.bpf());
            let Some(buffer) = clipped else {
                count(&self.counters.dropped);
                return Ok(gst::FlowSuccess::Ok);
            };
            let time = buffer.pts().and_then(|pts| segment.to_running_time(pts));
            self.time.time(|| {
                let samples = if gap {
                    vec![0.0; buffer.size() / info.bpf() as usize]
                } else {
                    let mono = mono.get_or_insert_with(|| Mono::new(SAMPLE_RATE));
                    mono.mix(samples(&buffer, info)?, info.channels() as usize)
                };
                hops.push(time, &samples)
            })
        };
        self.send(features)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, imp = self, "{event:?}");
        match event.view() {
            gst::EventView::Caps(e) => self.set_caps(e.caps()),
            gst::EventView::Segment(e) => {
                let Ok(segment) = e.segment().clone().downcast::<gst::ClockTime>() else {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Format,
                        (
                            "Audio in {:?} has no running time; a parser or decoder before this element makes it one",
                            e.segment().format()
                        )
                    );
                    return false;
                };
                let first = {
                    let mut state = self.state.lock();
                    state.segment = segment;
                    !std::mem::replace(&mut state.segment_sent, true)
                };
                let own = gst::FormattedSegment::<gst::ClockTime>::new();
                !first || self.srcpad.push_event(gst::event::Segment::builder(&own).seqnum(event.seqnum()).build())
            }
            gst::EventView::Gap(e) => {
                let (pts, duration) = e.get();
                let features = {
                    let mut state = self.state.lock();
                    let State { hops: Some(hops), segment, .. } = &mut *state else { return true };
                    match segment.to_running_time(pts).zip(duration) {
                        Some((time, duration)) => hops.silence(time, duration),
                        None => return true,
                    }
                };
                self.send(features).is_ok()
            }
            gst::EventView::Eos(_) => {
                let features = self.state.lock().hops.as_mut().map_or_else(|| Ok(Vec::new()), Hops::finish);
                // A downstream that takes no more still gets the end.
                let _ = self.send(features);
                self.srcpad.push_event(event)
            }
            gst::EventView::CustomDownstream(e) if interrupt::is(e) => {
                self.interrupt(None);
                self.srcpad.push_event(event)
            }
            gst::EventView::FlushStop(_) => {
                {
                    let mut state = self.state.lock();
                    if let Some(hops) = &mut state.hops {
                        hops.reset();
                    }
                    state.mono = None;
                    state.segment = gst::FormattedSegment::new();
                    state.segment_sent = false;
                }
                self.srcpad.push_event(event)
            }
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::CustomUpstream && interrupt::is(&event) {
            self.interrupt(None);
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// What has been heard counts as silence, as does what comes of the running time before `until`.
    pub(crate) fn interrupt(&self, until: Option<gst::ClockTime>) {
        if let Some(hops) = &mut self.state.lock().hops {
            hops.interrupt(until);
        }
    }

    fn set_caps(&self, caps: &gst::CapsRef) -> bool {
        let Ok(info) = gst_audio::AudioInfo::from_caps(caps) else {
            gst::error!(CAT, imp = self, "cannot read the caps {caps}");
            return false;
        };
        let own = {
            let mut state = self.state.lock();
            state.info = Some(info);
            let Some(hops) = &state.hops else { return false };
            describe(hops.encoder()).to_caps()
        };
        self.srcpad.push_event(gst::event::Caps::new(&own))
    }

    /// Pushes what the encoder gave; no lock is held here.
    fn send(&self, features: Result<Vec<gst::Buffer>>) -> std::result::Result<gst::FlowSuccess, gst::FlowError> {
        let features = features.map_err(|e| {
            gst::element_imp_error!(
                self,
                gst::StreamError::Encode,
                ("The audio encoder failed: {e}"),
                ["try device=cpu and precision=fp32"]
            );
            gst::FlowError::Error
        })?;
        for buffer in features {
            gst::trace!(CAT, imp = self, "feature at {:?}", buffer.pts());
            self.srcpad.push(buffer)?;
            count(&self.counters.frames_out);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(answer) = query.view_mut() else {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        };
        let mut upstream = gst::query::Latency::new();
        if !self.sinkpad.peer_query(&mut upstream) {
            return false;
        }
        let (live, min, max) = upstream.result();
        let own = self.state.lock().hops.as_ref().map_or(gst::ClockTime::ZERO, |h| describe(h.encoder()).overhang);
        answer.set(live, min + own, max.map(|max| max + own));
        true
    }
}

fn load(settings: &Settings) -> Result<Hops> {
    let engine = options::package(&settings.engine, settings.exact, settings.look_ahead)?;
    Ok(Hops::new(front_end(&engine, &settings.options.parse()?)?))
}

fn describe(encoder: &dyn FrontEnd) -> FeaturesInfo {
    FeaturesInfo {
        rate: gst::Fraction::new(1_000_000, encoder.hop().as_micros().max(1) as i32),
        dims: encoder.dims(),
        encoder: encoder.key().to_owned(),
        overhang: gst::ClockTime::from_nseconds(encoder.overhang().as_nanos() as u64),
    }
}

fn samples(buffer: &gst::BufferRef, info: &gst_audio::AudioInfo) -> Result<Vec<f32>> {
    let map = buffer
        .map_readable()
        .map_err(|_| lipstream_engines::Error::invalid("an audio buffer could not be mapped for reading"))?;
    Ok(match info.format() {
        gst_audio::AudioFormat::S16le => {
            map.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0).collect()
        }
        _ => map.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    })
}
