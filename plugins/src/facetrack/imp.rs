use std::{
    path::PathBuf,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use lipstream_engines::{
    Result,
    occlusion::{Masks, Network},
    stats::Timer,
    tracker::{Face, Tracker, TrackerConfig, Unseen},
};
use parking_lot::Mutex;

use crate::{
    meta::face,
    options::{self, Options},
    selector::{self, Selector},
    stats::{self, Counters, count},
    video,
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("lipfacetrack", gst::DebugColorFlags::empty(), Some("Lipstream face tracker"))
});

/// A DISCONT with a jump longer than this, or backwards, is another scene; a shorter one is a lost frame or two, over
/// which the tracker follows the face.
const JUMP: gst::ClockTime = gst::ClockTime::from_mseconds(500);

/// Faces that are followed where others than the largest may speak.
const SEVERAL: u32 = 4;

/// Properties; all but `speaker` and `occlusion` are fixed while the element runs.
#[derive(Clone, Debug)]
struct Settings {
    inference_interval: u32,
    max_faces: u32,
    min_confidence: f64,
    /// The user's own detector; `None` for the embedded one.
    model: Option<String>,
    smoothing: f64,
    speaker: Selector,
    /// What looks for what is before the faces; may change while the element runs.
    occlusion: Masks,
    /// The engine runs as its published program does, which looks for nothing before a face; the bin says so.
    exact: bool,
    options: Options,
}

impl Settings {
    fn faces(&self) -> usize {
        let least = if self.speaker.needs_several() { SEVERAL } else { 1 };
        self.max_faces.max(least) as usize
    }

    fn masks(&self) -> &Masks {
        if self.exact { &Masks::Off } else { &self.occlusion }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inference_interval: 5,
            max_faces: 1,
            min_confidence: 0.6,
            model: None,
            smoothing: 1.0,
            speaker: Selector::default(),
            occlusion: Masks::Auto,
            exact: false,
            options: Options::default(),
        }
    }
}

/// The properties, made anew: the bin has them too.
pub(crate) fn properties() -> Vec<glib::ParamSpec> {
    let defaults = Settings::default();
    let mut list = vec![
        glib::ParamSpecUInt::builder("inference-interval")
            .nick("Inference interval")
            .blurb("The detector runs on every n-th frame, and five times as rarely while max-faces are surely followed (1 = every frame); landmarks follow on all frames")
            .minimum(1)
            .maximum(1000)
            .default_value(defaults.inference_interval)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-faces")
            .nick("Max faces")
            .blurb("Most faces that are followed at a time; four where it is less and speaker is not largest")
            .minimum(1)
            .maximum(16)
            .default_value(defaults.max_faces)
            .mutable_ready()
            .build(),
        glib::ParamSpecDouble::builder("min-confidence")
            .nick("Min confidence")
            .blurb("Faces that the detector is less sure of are left out (0..1)")
            .minimum(0.0)
            .maximum(1.0)
            .default_value(defaults.min_confidence)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb("Path of a face detector (a YuNet or SCRFD ONNX file as published); unset = the embedded one")
            .mutable_ready()
            .build(),
        glib::ParamSpecDouble::builder("smoothing")
            .nick("Smoothing")
            .blurb("How much landmarks other than the lips are steadied over time, relative to the default (0 = not at all)")
            .minimum(0.0)
            .maximum(10.0)
            .default_value(defaults.smoothing)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("occlusion")
            .nick("Occlusion")
            .blurb(
                "What is before the lower face (hands, microphones, cups, hair) stays there: auto by the network that is built in, off not \
                 at all, else the path of an ONNX file as engines/train/occlusion exports it",
            )
            .default_value(Some("auto"))
            .mutable_playing()
            .build(),
        selector::property(),
        stats::property(
            "Frames in, out, passed through (no face), dropped and late; faces in the last frame; times of tracking a frame as track-p50, \
             -p95, -p99, -sum (microseconds), -count and -buckets, and as occlusion-... of looking for what is before the faces, a part of \
             them; covered (frames in which something was)",
        ),
    ];
    list.extend(options::properties());
    list
}

/// What a running element has.
#[derive(Default)]
struct State {
    /// Made in `start`, dropped in `stop`.
    tracker: Option<Tracker>,
    /// Set by caps.
    info: Option<gst_video::VideoInfo>,
    /// PTS of the frame before; cleared by a flush.
    last_pts: Option<gst::ClockTime>,
    /// Segment of the stream, to tell a new one from a repeated one.
    segment: Option<gst::Segment>,
}

impl State {
    fn reset(&mut self) {
        self.last_pts = None;
        if let Some(tracker) = &mut self.tracker {
            tracker.reset();
        }
    }
}

pub struct LipFaceTrack {
    settings: Mutex<Settings>,
    /// Never held while a buffer, event or message is pushed.
    state: Mutex<State>,
    counters: Counters,
    time: Timer,
    /// In the last frame.
    faces: AtomicU64,
    occlusion_time: Timer,
    /// Frames in which something was before a face.
    covered: AtomicU64,
}

#[glib::object_subclass]
impl ObjectSubclass for LipFaceTrack {
    const NAME: &'static str = "GstLipFaceTrack";
    type Type = super::LipFaceTrack;
    type ParentType = gst_base::BaseTransform;

    fn new() -> Self {
        Self {
            settings: Mutex::default(),
            state: Mutex::default(),
            counters: Counters::default(),
            time: Timer::default(),
            faces: AtomicU64::new(0),
            occlusion_time: Timer::default(),
            covered: AtomicU64::new(0),
        }
    }
}

impl ObjectImpl for LipFaceTrack {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut s = self.settings.lock();
        let checked = "type checked upstream";
        match pspec.name() {
            "inference-interval" => s.inference_interval = value.get().expect(checked),
            "max-faces" => s.max_faces = value.get().expect(checked),
            "min-confidence" => s.min_confidence = value.get().expect(checked),
            "model" => s.model = options::string(value),
            "smoothing" => s.smoothing = value.get().expect(checked),
            "speaker" => match selector::read(value) {
                Ok(selector) => s.speaker = selector,
                Err(error) => {
                    drop(s);
                    selector::refuse(&*self.obj(), &error);
                }
            },
            "occlusion" => {
                let before = std::mem::replace(&mut s.occlusion, masks(options::string(value)));
                drop(s);
                if let Err(e) = self.look_anew() {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::Settings,
                        ("What is before faces is looked for as it was: {e}"),
                        ["occlusion must be auto, off or a file as engines/train/occlusion exports it"]
                    );
                    self.settings.lock().occlusion = before;
                }
            }
            name => s.options.set(name, value),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let s = self.settings.lock();
        match pspec.name() {
            "inference-interval" => s.inference_interval.to_value(),
            "max-faces" => s.max_faces.to_value(),
            "min-confidence" => s.min_confidence.to_value(),
            "model" => s.model.to_value(),
            "smoothing" => s.smoothing.to_value(),
            "speaker" => s.speaker.to_string().to_value(),
            "occlusion" => s.occlusion.to_string().to_value(),
            "stats" => self.statistics().to_structure().to_value(),
            name => s.options.get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        // A frame that is late for the sink still moves the tracker on.
        self.obj().set_qos(false);
    }
}

impl GstObjectImpl for LipFaceTrack {}

impl ElementImpl for LipFaceTrack {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream face tracker",
                "Filter/Analyzer/Video",
                "Finds and follows faces, and hangs a face meta with 111 landmarks on the frame for each",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        video::pad_templates()
    }
}

impl BaseTransformImpl for LipFaceTrack {
    const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        let tracker = load(&settings).map_err(|e| {
            gst::error_msg!(
                gst::LibraryError::Init,
                ("The face tracker cannot start: {e}"),
                ["check the properties model, occlusion, device and precision; model={:?}", settings.model]
            )
        })?;
        self.counters.reset();
        self.time.reset();
        self.occlusion_time.reset();
        [&self.faces, &self.covered].into_iter().for_each(|n| n.store(0, Relaxed));
        *self.state.lock() = State { tracker: Some(tracker), ..State::default() };
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
        if state.info.as_ref().is_some_and(|old| *old != info) {
            gst::debug!(CAT, imp = self, "new caps, starting over: {incaps}");
            state.reset();
        }
        state.info = Some(info);
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(e) => {
                let mut state = self.state.lock();
                if state.segment.as_ref().is_some_and(|old| old != e.segment()) {
                    state.reset();
                }
                state.segment = Some(e.segment().clone());
            }
            gst::EventView::FlushStop(_) => {
                let mut state = self.state.lock();
                state.reset();
                state.segment = None;
            }
            _ => (),
        }
        self.parent_sink_event(event)
    }

    fn transform_ip(&self, buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        count(&self.counters.frames_in);
        face::remove(buffer);
        if buffer.flags().contains(gst::BufferFlags::DECODE_ONLY) {
            // Nobody sees it.
            count(&self.counters.frames_out);
            return Ok(gst::FlowSuccess::Ok);
        }
        let (found, width, height) = self.time.time(|| self.track(buffer)).map_err(|e| {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("The face tracker failed: {e}"),
                ["try device=cpu and precision=fp32; if a property model is set, that file may not be a YuNet or SCRFD detector"]
            );
            gst::FlowError::Error
        })?;
        let faces = found.as_deref().unwrap_or_default();
        let hung = match &found {
            Ok(faces) => faces.iter().try_for_each(|f| face::add(buffer, f, width, height)),
            Err(unseen) => face::add_absence(buffer, *unseen),
        };
        hung.map_err(|e| {
            gst::element_imp_error!(self, gst::CoreError::Failed, ("The face meta was refused: {e}"));
            gst::FlowError::Error
        })?;
        self.faces.store(faces.len() as u64, Relaxed);
        if faces.is_empty() {
            count(&self.counters.passed_through);
        }
        if faces.iter().any(|face| face.front.is_some()) {
            count(&self.covered);
        }
        gst::trace!(CAT, imp = self, "{} faces at {:?}", faces.len(), buffer.pts());
        count(&self.counters.frames_out);
        Ok(gst::FlowSuccess::Ok)
    }
}

impl LipFaceTrack {
    /// Whether the engine behind it runs as its published program does; heeded at the next start.
    pub(crate) fn set_exact(&self, exact: bool) {
        self.settings.lock().exact = exact;
    }

    /// Looks by what the settings say from the next frame on, where it runs.
    fn look_anew(&self) -> Result<()> {
        if self.state.lock().tracker.is_none() {
            return Ok(());
        }
        let settings = self.settings.lock().clone();
        // Frames go on while it loads.
        let network = Network::open(settings.masks(), &settings.options.parse()?)?;
        if let Some(tracker) = &mut self.state.lock().tracker {
            tracker.look_by(network);
        }
        Ok(())
    }

    pub(crate) fn statistics(&self) -> super::FaceTrackStats {
        super::FaceTrackStats {
            frames: self.counters.read(),
            track: (&self.time).into(),
            faces: self.faces.load(Relaxed),
            occlusion: (&self.occlusion_time).into(),
            covered: self.covered.load(Relaxed),
        }
    }

    /// The faces, or what there is in their place, and the frame's size.
    fn track(&self, buffer: &gst::BufferRef) -> Result<(std::result::Result<Vec<Face>, Unseen>, u32, u32)> {
        let max_faces = self.settings.lock().faces();
        let mut guard = self.state.lock();
        let pts = buffer.pts();
        if buffer.flags().contains(gst::BufferFlags::DISCONT) {
            let jumped = guard.last_pts.zip(pts).is_some_and(|(last, now)| now < last || now - last > JUMP);
            if jumped {
                gst::debug!(CAT, imp = self, "jump from {:?} to {pts:?}, starting over", guard.last_pts);
                guard.reset();
            }
        }
        guard.last_pts = pts;
        let State { tracker: Some(tracker), info: Some(info), .. } = &mut *guard else {
            return Err(lipstream_engines::Error::invalid("a frame came before the caps"));
        };
        tracker.set_max_faces(max_faces);
        let faces = video::with_view(buffer, info, |view| tracker.process(view, pts.map(Into::into)))?;
        if let Some(looked) = tracker.looked() {
            self.occlusion_time.record(looked);
        }
        let found = if faces.is_empty() { Err(tracker.unseen()) } else { Ok(faces) };
        Ok((found, info.width(), info.height()))
    }
}

/// `auto` where nothing is said.
fn masks(value: Option<String>) -> Masks {
    value.and_then(|text| text.parse().ok()).unwrap_or(Masks::Auto)
}

fn load(settings: &Settings) -> Result<Tracker> {
    Tracker::new(TrackerConfig {
        options: settings.options.parse()?,
        inference_interval: settings.inference_interval,
        max_faces: settings.faces(),
        min_confidence: settings.min_confidence as f32,
        detector: settings.model.as_ref().map(PathBuf::from),
        smoothing: settings.smoothing as f32,
        occlusion: settings.masks().clone(),
    })
}
