use std::{
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use lipstream_engines::audio::SAMPLE_RATE;
use parking_lot::Mutex;

use super::{
    LipSyncStats,
    properties::{self, Inner},
    second::{self, Second},
};
use crate::{
    audioenc::LipAudioEnc,
    blend::LipBlend,
    denoise::LipDenoise,
    ear::Ear,
    facetrack::LipFaceTrack,
    selector::{self, Selector},
    stats::Frames,
    synccheck::{self, Actions, SyncCheck},
    video,
};

static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("lipsync", gst::DebugColorFlags::empty(), Some("Lipstream lip-sync bin")));

/// Frames between two stages, each in its own thread.
pub(super) const FRAMES: u32 = 3;
/// What frames may wait for their audio: two seconds, or 96 MiB, which is eight frames of 4K.
const WAITING: gst::ClockTime = gst::ClockTime::from_seconds(2);
const WAITING_BYTES: u32 = 96 << 20;
/// What audio may wait for its video. By bytes and not by time, because encoders hold back video by frames (x264enc 60 of
/// them and more) and muxers take audio only with video: at 5 fps that is 12 s. 64 MiB are 5 minutes of 48 kHz stereo in
/// 16 bits and a second and a half of 64 channels in 96 kHz floats.
pub(super) const AUDIO_BYTES: u32 = 64 << 20;

/// The elements inside.
struct Parts {
    facetrack: LipFaceTrack,
    audioenc: LipAudioEnc,
    denoise: LipDenoise,
    blend: LipBlend,
    tee: gst::Element,
    /// Head of the way to the audio encoder.
    speech: gst::Element,
    /// Head of the way to `audio_src`.
    audio: gst::Element,
    /// What frames go to from the last denoiser.
    patches: gst::Element,
}

/// Where the sync check looks.
#[derive(Clone, Copy)]
enum Watched {
    /// At frames to which the mouth is still to be pasted,
    Before,
    /// at those that leave,
    After,
    /// and at the voice.
    Voice,
}

/// Pads of the tee that are in use.
#[derive(Default)]
struct Branches {
    speech: Option<gst::Pad>,
    audio: Option<gst::Pad>,
}

pub struct LipSync {
    video_sink: gst::GhostPad,
    audio_sink: gst::GhostPad,
    video_src: gst::GhostPad,
    audio_src: gst::GhostPad,
    /// Made in `constructed`, or what is missing for it.
    parts: OnceLock<Result<Parts, String>>,
    branches: Mutex<Branches>,
    /// Once its pad has been asked for.
    second: OnceLock<Second>,
    /// The faces that it speaks, as `speaker-b` says.
    second_speaker: Mutex<String>,
    /// Running time in ns at which the audio that has entered ends, of either voice.
    heard: [AtomicU64; 2],
    /// Milliseconds from one check of the sync to the next, 0: none.
    sync_check: AtomicU64,
    /// Seconds.
    sync_correct: Arc<AtomicU64>,
    /// What the denoiser hears of the voice.
    ear: Arc<Ear>,
    /// There between READY to PAUSED and back, where the sync is checked.
    check: Mutex<Option<Arc<SyncCheck>>>,
}

#[glib::object_subclass]
impl ObjectSubclass for LipSync {
    const NAME: &'static str = "GstLipSync";
    type Type = super::LipSync;
    type ParentType = gst::Bin;

    fn with_class(class: &Self::Class) -> Self {
        let ghost = |name| {
            let template = class.pad_template(name).expect("a template of this class");
            gst::GhostPad::builder_from_template(&template).build()
        };
        Self {
            video_sink: ghost("video_sink"),
            audio_sink: ghost("audio_sink"),
            video_src: ghost("video_src"),
            audio_src: ghost("audio_src"),
            parts: OnceLock::new(),
            branches: Mutex::default(),
            second: OnceLock::new(),
            second_speaker: Mutex::new(Selector::default().to_string()),
            heard: Default::default(),
            sync_check: AtomicU64::new(0),
            sync_correct: Arc::new(AtomicU64::new(60)),
            ear: Arc::default(),
            check: Mutex::default(),
        }
    }
}

impl ObjectImpl for LipSync {
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
                        let bin = args[0].get::<super::LipSync>().expect("the bin itself");
                        bin.imp().interrupt();
                        None
                    })
                    .build(),
                glib::subclass::Signal::builder("interrupt-b")
                    .action()
                    .class_handler(|args| {
                        let bin = args[0].get::<super::LipSync>().expect("the bin itself");
                        bin.imp().interrupt_second();
                        None
                    })
                    .build(),
            ]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let number = || u64::from(value.get::<u32>().expect("type checked upstream"));
        match pspec.name() {
            "sync-check" => self.sync_check.store(number(), Relaxed),
            "sync-correct" => self.sync_correct.store(number(), Relaxed),
            "speaker-b" => return self.set_second_speaker(value),
            _ => {}
        }
        for (inner, name) in properties::targets(pspec.name()) {
            let own = *name == "speaker";
            // Two voices have two faces, whichever they are.
            if own && *inner == Inner::FaceTrack && self.second.get().is_some() {
                continue;
            }
            if let Some(element) = self.inner(*inner) {
                element.set_property_from_value(name, value);
            }
            match (self.second.get(), inner) {
                (Some(second), Inner::Denoise) if !own => second.denoise.set_property_from_value(name, value),
                (Some(second), Inner::AudioEnc) => second.audioenc.set_property_from_value(name, value),
                _ => {}
            }
        }
        if let ("exact", Ok(exact), Some(Ok(parts))) = (pspec.name(), value.get::<bool>(), self.parts.get()) {
            // Of a recording that is heard as a whole, all of the sound waits for the first frame.
            parts.audio.set_property("max-size-bytes", if exact { 0 } else { AUDIO_BYTES });
            parts.facetrack.imp().set_exact(exact);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => return self.statistics().to_structure().to_value(),
            "sync-check" => return (self.sync_check.load(Relaxed) as u32).to_value(),
            "sync-correct" => return (self.sync_correct.load(Relaxed) as u32).to_value(),
            "speaker-b" => return self.second_speaker.lock().to_value(),
            _ => {}
        }
        let target = properties::targets(pspec.name()).first();
        match target.and_then(|(inner, name)| Some((self.inner(*inner)?, name))) {
            Some((element, name)) => element.property_value(name),
            None => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        let parts = self.build().map_err(|e| e.to_string());
        self.parts.set(parts).unwrap_or_else(|_| unreachable!("constructed runs once"));
        self.watch();
        self.listen_at(&self.audio_sink, 0);
        for pad in [&self.video_sink, &self.audio_sink, &self.video_src, &self.audio_src] {
            obj.add_pad(pad).expect("a pad of its own");
            let weak = obj.downgrade();
            pad.connect_linked(move |_, _| {
                if let Some(obj) = weak.upgrade() {
                    obj.imp().connect_branches();
                }
            });
        }
    }
}

impl GstObjectImpl for LipSync {}

impl ElementImpl for LipSync {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream lip-sync",
                "Filter/Effect/Video",
                "Makes the face in a video say what a speech says, on one clock",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let audio = gst::Caps::builder("audio/x-raw").build();
            [
                ("video_sink", gst::PadDirection::Sink, video::caps()),
                ("audio_sink", gst::PadDirection::Sink, audio.clone()),
                (second::PAD, gst::PadDirection::Sink, audio.clone()),
                ("video_src", gst::PadDirection::Src, video::caps()),
                ("audio_src", gst::PadDirection::Src, audio),
            ]
            .into_iter()
            .map(|(name, direction, caps)| {
                let presence = if name == second::PAD { gst::PadPresence::Request } else { gst::PadPresence::Always };
                gst::PadTemplate::new(name, direction, presence, &caps).expect("a valid template")
            })
            .collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        _name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let added = self.add_voice(template);
        if let Err(error) = &added {
            gst::error!(CAT, imp = self, "{error}");
        }
        added.ok().map(|pad| pad.upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        // Without a voice frames pass its denoiser.
        if let Some(second) = self.second.get() {
            second.audioenc.unlink_pads("src", &second.denoise, "features");
        }
        let _ = pad.set_active(false);
        let _ = self.obj().remove_pad(pad);
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            self.heard.iter().for_each(|heard| heard.store(0, Relaxed));
        }
        if let (gst::StateChange::NullToReady, Some(Err(cause))) = (transition, self.parts.get()) {
            gst::element_imp_error!(
                self,
                gst::CoreError::MissingPlugin,
                ("The bin could not be built: {cause}"),
                ["install GStreamer's core and base plugins (Debian: gstreamer1.0-plugins-base)"]
            );
            return Err(gst::StateChangeError);
        }
        if transition == gst::StateChange::ReadyToPaused {
            self.start_check()?;
        }
        let result = self.parent_change_state(transition);
        let stopped = transition == gst::StateChange::PausedToReady
            || (transition == gst::StateChange::ReadyToPaused && result.is_err());
        if stopped {
            // Dropped without the lock: its thread may be asking for it.
            let check = self.check.lock().take();
            drop(check);
        }
        result
    }
}

impl BinImpl for LipSync {}

impl LipSync {
    fn build(&self) -> Result<Parts, glib::BoolError> {
        let make = |factory: &str, name: &str| gst::ElementFactory::make(factory).name(name).build();
        let facetrack: LipFaceTrack = glib::Object::builder().property("name", "facetrack").build();
        let audioenc: LipAudioEnc = glib::Object::builder().property("name", "audioenc").build();
        let denoise: LipDenoise = glib::Object::builder().property("name", "denoise").build();
        let blend: LipBlend = glib::Object::builder().property("name", "blend").build();
        denoise.imp().set_ear(self.ear.clone());

        let frames = |name: &str| {
            gst::ElementFactory::make("queue")
                .name(name)
                .property("max-size-buffers", FRAMES)
                .property("max-size-bytes", 0u32)
                .property("max-size-time", 0u64)
                .build()
        };
        let samples = |name: &str| {
            gst::ElementFactory::make("queue")
                .name(name)
                .property("max-size-buffers", 0u32)
                .property("max-size-bytes", AUDIO_BYTES)
                .property("max-size-time", 0u64)
                .build()
        };
        let (video, patches) = (frames("video")?, frames("patches")?);
        let faces = gst::ElementFactory::make("queue")
            .name("faces")
            .property("max-size-buffers", 0u32)
            .property("max-size-bytes", WAITING_BYTES)
            .property("max-size-time", WAITING.nseconds())
            .build()?;
        let (audio, speech) = (samples("audio")?, samples("speech")?);
        let tee = gst::ElementFactory::make("tee").name("tee").property("allow-not-linked", true).build()?;
        let (convert, resample) = (make("audioconvert", "convert")?, make("audioresample", "resample")?);
        let heard = gst_audio::AudioCapsBuilder::new_interleaved()
            .format(gst_audio::AudioFormat::F32le)
            .rate(SAMPLE_RATE as i32)
            .build();
        let filter = gst::ElementFactory::make("capsfilter").name("heard").property("caps", heard).build()?;

        let obj = self.obj();
        let chain = [&video, facetrack.upcast_ref(), &faces, denoise.upcast_ref(), &patches, blend.upcast_ref()];
        let hearing = [&speech, &convert, &resample, &filter, audioenc.upcast_ref()];
        obj.add_many(chain.iter().chain(&hearing).copied().chain([&tee, &audio]))?;
        for (from, to) in chain.windows(2).map(|w| (w[0], w[1])) {
            // By name: the denoiser has two sinks.
            from.link_pads(Some("src"), to, Some("sink"))?;
        }
        gst::Element::link_many(hearing)?;

        let pad = |element: &gst::Element, name: &str| {
            element.static_pad(name).ok_or_else(|| glib::bool_error!("{} has no pad {name}", element.name()))
        };
        self.video_sink.set_target(Some(&pad(&video, "sink")?))?;
        self.video_src.set_target(Some(&pad(blend.upcast_ref(), "src")?))?;
        self.audio_sink.set_target(Some(&pad(&tee, "sink")?))?;
        self.audio_src.set_target(Some(&pad(&audio, "src")?))?;
        Ok(Parts { facetrack, audioenc, denoise, blend, tee, speech, audio, patches })
    }

    /// Makes what a second voice needs, and its pad.
    fn add_voice(&self, template: &gst::PadTemplate) -> Result<gst::GhostPad, glib::BoolError> {
        let obj = self.obj();
        let Some(Ok(parts)) = self.parts.get() else { return Err(glib::bool_error!("the bin is not built")) };
        if self.second.get().is_some() || obj.current_state() > gst::State::Ready {
            return Err(glib::bool_error!("a second voice is added once, before the bin runs"));
        }
        let second = Second::build(obj.upcast_ref(), (&parts.denoise, &parts.audioenc), &parts.patches)?;
        second.denoise.set_property("speaker", &*self.second_speaker.lock());
        let head = second.speech.static_pad("sink").ok_or_else(|| glib::bool_error!("a queue without a sink"))?;
        let pad = gst::GhostPad::builder_from_template_with_target(template, &head)?.name(second::PAD).build();
        pad.set_active(true)?;
        self.listen_at(&pad, 1);
        obj.add_pad(&pad)?;
        if self.second.set(second).is_err() {
            return Err(glib::bool_error!("a second voice is added once"));
        }
        parts.facetrack.set_property("speaker", Selector::All.to_string());
        Ok(pad)
    }

    fn set_second_speaker(&self, value: &glib::Value) {
        match selector::read(value) {
            Ok(selector) => {
                *self.second_speaker.lock() = selector.to_string();
                if let Some(second) = self.second.get() {
                    second.denoise.set_property("speaker", selector.to_string());
                }
            }
            Err(error) => selector::refuse(&*self.obj(), &error),
        }
    }

    /// Connects what has somebody at its ends. A queue without anybody behind it would fill up, and a denoiser whose
    /// features pad is linked waits for features. A pad on the other side counts as well: pads of demuxers come late, and
    /// somebody who takes the bin's audio will also send some.
    fn connect_branches(&self) {
        let Some(Ok(parts)) = self.parts.get() else { return };
        let video = self.video_sink.is_linked() || self.video_src.is_linked();
        let audio = self.audio_sink.is_linked() || self.audio_src.is_linked();
        let mut branches = self.branches.lock();
        if self.audio_src.is_linked() && branches.audio.is_none() {
            branches.audio = self.branch(&parts.tee, &parts.audio);
        }
        if video && audio && branches.speech.is_none() {
            let linked = parts.audioenc.link_pads(Some("src"), &parts.denoise, Some("features"));
            if let Err(error) = linked {
                gst::error!(CAT, imp = self, "{error}");
                return;
            }
            branches.speech = self.branch(&parts.tee, &parts.speech);
        }
    }

    /// A pad of the tee that is linked to the head of a branch.
    fn branch(&self, tee: &gst::Element, head: &gst::Element) -> Option<gst::Pad> {
        let pad = tee.request_pad_simple("src_%u")?;
        match head.static_pad("sink").map(|sink| pad.link(&sink)) {
            Some(Ok(_)) => Some(pad),
            failure => {
                gst::error!(CAT, imp = self, "the tee could not be linked to {}: {failure:?}", head.name());
                tee.release_request_pad(&pad);
                None
            }
        }
    }

    /// Hands what passes to the sync check, while there is one.
    fn watch(&self) {
        let Some(Ok(parts)) = self.parts.get() else { return };
        let pads = [
            (parts.blend.static_pad("sink"), Watched::Before),
            (parts.blend.static_pad("src"), Watched::After),
            (parts.audioenc.static_pad("sink"), Watched::Voice),
        ];
        for (pad, watched) in pads {
            let Some(pad) = pad else { continue };
            let weak = self.obj().downgrade();
            pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_FLUSH, move |pad, info| {
                if let Some(obj) = weak.upgrade() {
                    obj.imp().passes(watched, pad, info);
                }
                gst::PadProbeReturn::Ok
            });
        }
    }

    fn passes(&self, watched: Watched, pad: &gst::Pad, info: &gst::PadProbeInfo) {
        if let (Watched::Voice, Some(gst::PadProbeData::Buffer(buffer))) = (watched, &info.data) {
            self.ear.hear(pad, buffer);
        }
        let check = self.check.lock().clone();
        let Some(check) = check else { return };
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => match watched {
                Watched::Before => check.before(buffer, self.pastes(), self.first_speaks()),
                Watched::After => check.after(pad, buffer),
                Watched::Voice => check.hear(pad, buffer),
            },
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::FlushStop => check.flush(),
            _ => {}
        }
    }

    /// The face of the first of two voices.
    fn first_speaks(&self) -> Option<u64> {
        self.second.get()?;
        let Some(Ok(parts)) = self.parts.get() else { return None };
        parts.denoise.imp().speaks()
    }

    fn pastes(&self) -> bool {
        self.inner(Inner::Blend).is_some_and(|blend| blend.property("enabled"))
    }

    fn start_check(&self) -> Result<(), gst::StateChangeError> {
        let interval = Duration::from_millis(self.sync_check.load(Relaxed));
        let Some(Ok(parts)) = self.parts.get() else { return Ok(()) };
        if interval.is_zero() {
            return Ok(());
        }
        let (denoise, bin) = (parts.denoise.downgrade(), self.obj().downgrade());
        let failing = bin.clone();
        let actions = Actions {
            correct_after: self.sync_correct.clone(),
            shift: Box::new(move |by| {
                if let Some(denoise) = denoise.upgrade() {
                    denoise.imp().correct(by);
                }
            }),
            tell: Box::new(move |change, time| {
                if let Some(bin) = bin.upgrade() {
                    // Nobody may be listening.
                    let _ = bin.post_message(synccheck::message(&bin, change, time));
                }
            }),
            fail: Box::new(move |error| {
                if let Some(bin) = failing.upgrade() {
                    gst::element_warning!(
                        bin,
                        gst::LibraryError::Failed,
                        ("The sync is not checked any more: {error}")
                    );
                }
            }),
        };
        let started = SyncCheck::start(interval, actions).map_err(|e| {
            gst::element_imp_error!(
                self,
                gst::LibraryError::Init,
                ("The sync check cannot start: {e}"),
                ["sync-check=0 does without it"]
            );
            gst::StateChangeError
        })?;
        *self.check.lock() = Some(Arc::new(started));
        Ok(())
    }

    /// Has it noted how far the audio of a voice has come, which enters at `pad`.
    fn listen_at(&self, pad: &gst::GhostPad, voice: usize) {
        let weak = self.obj().downgrade();
        let passing = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(passing, move |pad, info| {
            if let Some(obj) = weak.upgrade() {
                obj.imp().listen(pad, info, &obj.imp().heard[voice]);
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn listen(&self, pad: &gst::GhostPad, info: &gst::PadProbeInfo, heard: &AtomicU64) {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let segment = pad.sticky_event::<gst::event::Segment>(0);
                let segment = segment.as_ref().and_then(|e| e.segment().downcast_ref::<gst::ClockTime>());
                let end = buffer.pts().map(|pts| pts + buffer.duration().unwrap_or_default());
                if let Some(end) = segment.zip(end).and_then(|(segment, end)| segment.to_running_time(end)) {
                    heard.fetch_max(end.nseconds(), Relaxed);
                }
            }
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::FlushStop => {
                heard.store(0, Relaxed);
            }
            _ => (),
        }
    }

    /// What has entered counts as said: the parts of it that are still in the queue, too.
    fn interrupt(&self) {
        let Some(Ok(parts)) = self.parts.get() else { return };
        let until = Some(gst::ClockTime::from_nseconds(self.heard[0].load(Relaxed)));
        parts.audioenc.imp().interrupt(until);
        parts.denoise.imp().interrupt(until);
    }

    /// The same of the second voice, where there is one.
    fn interrupt_second(&self) {
        let Some(second) = self.second.get() else { return };
        let until = Some(gst::ClockTime::from_nseconds(self.heard[1].load(Relaxed)));
        second.audioenc.imp().interrupt(until);
        second.denoise.imp().interrupt(until);
    }

    fn inner(&self, inner: Inner) -> Option<&gst::Element> {
        let parts = self.parts.get()?.as_ref().ok()?;
        Some(match inner {
            Inner::FaceTrack => parts.facetrack.upcast_ref(),
            Inner::AudioEnc => parts.audioenc.upcast_ref(),
            Inner::Denoise => parts.denoise.upcast_ref(),
            Inner::Blend => parts.blend.upcast_ref(),
        })
    }

    fn statistics(&self) -> LipSyncStats {
        let Some(Ok(parts)) = self.parts.get() else { return LipSyncStats::default() };
        let facetrack = parts.facetrack.imp().statistics();
        let audioenc = parts.audioenc.imp().statistics();
        let denoise = parts.denoise.imp().statistics();
        let blend = parts.blend.imp().statistics();
        LipSyncStats {
            frames: Frames {
                frames_in: facetrack.frames.frames_in,
                frames_out: blend.frames.frames_out,
                passed_through: blend.frames.passed_through,
                dropped: facetrack.frames.dropped + denoise.frames.dropped + blend.frames.dropped,
                late: denoise.frames.late,
            },
            denoise_b: self.second.get().map(|second| second.denoise.imp().statistics()).unwrap_or_default(),
            untouched: denoise.untouched,
            interrupt_time: denoise.interrupt_time,
            facetrack,
            audioenc,
            denoise,
            blend,
            check: self.check.lock().as_ref().map(|check| check.statistics()).unwrap_or_default(),
        }
    }
}
