use std::sync::{
    Arc, LazyLock, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use parking_lot::Mutex;

use super::{
    LipSyncStats,
    parts::{AUDIO_BYTES, Branches, LONG, LONG_BYTES, Parts},
    properties::{self, Inner},
    second::{self, Second},
};
use crate::{ear::Ear, selector::Selector, stats::Frames, synccheck::SyncCheck, video};

pub(super) static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("lipsync", gst::DebugColorFlags::empty(), Some("Lipstream lip-sync bin")));

pub struct LipSync {
    pub(super) video_sink: gst::GhostPad,
    pub(super) audio_sink: gst::GhostPad,
    pub(super) video_src: gst::GhostPad,
    pub(super) audio_src: gst::GhostPad,
    /// Made in `constructed`, or what is missing for it.
    pub(super) parts: OnceLock<Result<Parts, String>>,
    pub(super) branches: Mutex<Branches>,
    /// Once its pad has been asked for.
    pub(super) second: OnceLock<Second>,
    /// The faces that it speaks, as `speaker-b` says.
    pub(super) second_speaker: Mutex<String>,
    /// Running time in ns at which the audio that has entered ends, of either voice.
    pub(super) heard: [AtomicU64; 2],
    /// Milliseconds from one check of the sync to the next, 0: none.
    pub(super) sync_check: AtomicU64,
    /// Seconds.
    pub(super) sync_correct: Arc<AtomicU64>,
    /// What the denoiser hears of the voice.
    pub(super) ear: Arc<Ear>,
    /// There between READY to PAUSED and back, where the sync is checked.
    pub(super) check: Mutex<Option<Arc<SyncCheck>>>,
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
        if let ("exact" | "look-ahead", Some(Ok(parts))) = (pspec.name(), self.parts.get()) {
            let exact = parts.denoise.property("exact");
            parts.facetrack.imp().set_exact(exact);
            // Of a recording that is heard as a whole, all of the sound waits for the first frame.
            let long = parts.denoise.property::<u32>("look-ahead") > LONG;
            let bytes = if long { LONG_BYTES } else { AUDIO_BYTES };
            parts.audio.set_property("max-size-bytes", if exact { 0 } else { bytes });
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
    pub(super) fn inner(&self, inner: Inner) -> Option<&gst::Element> {
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
