//! The properties of `lipdenoise`.

use std::{str::FromStr, time::Duration};

use gst::{glib, prelude::*};

use lipstream_engines::{Error, Result, engine::Sampling};

use super::{
    change,
    idle::{Idle, IdleSettings},
};
use crate::{
    options::{self, DEFAULT_ENGINE, Options},
    selector::{self, Selector},
    stats,
};

/// What a frame waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstLipSchedulingPolicy")]
pub enum SchedulingPolicy {
    #[default]
    #[enum_value(name = "Every frame waits for its own latent", nick = "latency")]
    Latency,
    #[enum_value(
        name = "As many frames as there are steps are on their way, so that their steps share batches",
        nick = "throughput"
    )]
    Throughput,
}

/// Degrees, as the tracker measures them, beyond which a head may be turned further than a mouth can be made for. Of a rendered head that
/// turns from 0 to 78 degrees it measures what is true up to 20, at most 24 between 25 and 30, and less again beyond; what is made for it
/// looks well up to 30, has a lighter patch around it from 40 and is beside its place from 50 on.
pub const MAX_YAW: f64 = 23.0;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Name, folder or manifest. May change while the element runs, as may `fallback`.
    pub model: String,
    /// The engine that goes on where that fails.
    pub fallback: Option<String>,
    pub exact: bool,
    /// In milliseconds; 0: the engine's own.
    pub look_ahead: u32,
    pub options: Options,
    /// 0: as the engine says.
    pub steps: u32,
    /// `auto`: as the engine says.
    pub sampler: String,
    /// Below 0: as the engine says.
    pub guidance: f64,
    /// `auto`: as the engine says.
    pub guided: String,
    /// 0: as the model allows.
    pub batch_size: u32,
    pub batch_timeout: Duration,
    pub instance: Option<String>,
    pub policy: SchedulingPolicy,
    /// May change while the element runs.
    pub gain: f64,
    pub reference_bank: Option<String>,
    pub gather: bool,
    /// May change while the element runs.
    pub gap: Duration,
    pub fade: gst::ClockTime,
    /// May change while the element runs, as may `idle_after`.
    pub idle: Idle,
    pub idle_after: gst::ClockTime,
    pub seed: u64,
    /// Milliseconds by which windows of features are taken later, both together. May change while the element runs.
    pub feature_shift: i32,
    pub correction: i32,
    /// May change while the element runs, as may `max_yaw`.
    pub speaker: Selector,
    /// Degrees.
    pub max_yaw: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: DEFAULT_ENGINE.into(),
            fallback: None,
            exact: false,
            look_ahead: 0,
            options: Options::default(),
            steps: 0,
            sampler: "auto".into(),
            guidance: -1.0,
            guided: "auto".into(),
            batch_size: 0,
            batch_timeout: Duration::ZERO,
            instance: None,
            policy: SchedulingPolicy::default(),
            gain: 1.0,
            reference_bank: None,
            gather: true,
            gap: Duration::ZERO,
            fade: gst::ClockTime::from_mseconds(200),
            idle: Idle::Rest,
            idle_after: gst::ClockTime::from_mseconds(400),
            seed: 0,
            feature_shift: 0,
            correction: 0,
            speaker: Selector::default(),
            max_yaw: MAX_YAW,
        }
    }
}

impl Settings {
    /// How the stream is to be denoised; a word that is unknown is an error that lists the known ones.
    pub fn sampling(&self) -> Result<Sampling> {
        let refuse = |property: &str, cause: Error| Error::invalid(format!("property `{property}`: {cause}"));
        Ok(Sampling {
            steps: Some(self.steps as usize).filter(|steps| *steps > 0),
            sampler: chosen(&self.sampler).map_err(|e| refuse("sampler", e))?,
            guidance: Some(self.guidance as f32).filter(|scale| *scale >= 0.0),
            guided: chosen(&self.guided).map_err(|e| refuse("guided", e))?,
        })
    }

    pub fn idle_settings(&self) -> IdleSettings {
        IdleSettings { idle: self.idle, after: self.idle_after, fade: self.fade }
    }

    /// The running time whose features the frame of running time `time` is given.
    pub fn shifted(&self, time: gst::ClockTime) -> gst::ClockTime {
        let by = i64::from(self.feature_shift + self.correction) * 1_000_000;
        gst::ClockTime::from_nseconds(time.nseconds().saturating_add_signed(by))
    }

    /// What frames must wait longer for features of a later time.
    pub fn shift_latency(&self) -> gst::ClockTime {
        self.shifted(gst::ClockTime::ZERO)
    }

    pub fn set(&mut self, name: &str, value: &glib::Value) {
        let checked = "type checked upstream";
        match name {
            "model" => self.model = options::string(value).unwrap_or_else(|| DEFAULT_ENGINE.into()),
            "fallback-model" => self.fallback = options::string(value),
            "exact" => self.exact = value.get().expect(checked),
            "look-ahead" => self.look_ahead = value.get().expect(checked),
            "steps" => self.steps = value.get().expect(checked),
            "sampler" => self.sampler = options::string(value).unwrap_or_else(|| "auto".into()),
            "guidance" => self.guidance = value.get().expect(checked),
            "guided" => self.guided = options::string(value).unwrap_or_else(|| "auto".into()),
            "batch-size" => self.batch_size = value.get().expect(checked),
            "batch-timeout" => self.batch_timeout = Duration::from_millis(value.get::<u32>().expect(checked).into()),
            "model-instance-id" => self.instance = options::string(value),
            "scheduling-policy" => self.policy = value.get().expect(checked),
            "motion-gain" => self.gain = value.get().expect(checked),
            "reference-bank" => self.reference_bank = options::string(value),
            "gather" => self.gather = value.get().expect(checked),
            "reference-gap" => self.gap = Duration::from_millis(value.get::<u32>().expect(checked).into()),
            "fade" => self.fade = gst::ClockTime::from_mseconds(value.get::<u32>().expect(checked).into()),
            "idle" => self.idle = value.get().expect(checked),
            "idle-after" => {
                self.idle_after = gst::ClockTime::from_mseconds(value.get::<u32>().expect(checked).into());
            }
            "seed" => self.seed = value.get().expect(checked),
            "max-yaw" => self.max_yaw = value.get().expect(checked),
            "feature-shift" => self.feature_shift = value.get().expect(checked),
            name => self.options.set(name, value),
        }
    }

    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "model" => self.model.to_value(),
            "fallback-model" => self.fallback.to_value(),
            "exact" => self.exact.to_value(),
            "look-ahead" => self.look_ahead.to_value(),
            "steps" => self.steps.to_value(),
            "sampler" => self.sampler.to_value(),
            "guidance" => self.guidance.to_value(),
            "guided" => self.guided.to_value(),
            "batch-size" => self.batch_size.to_value(),
            "batch-timeout" => (self.batch_timeout.as_millis() as u32).to_value(),
            "model-instance-id" => self.instance.to_value(),
            "scheduling-policy" => self.policy.to_value(),
            "motion-gain" => self.gain.to_value(),
            "reference-bank" => self.reference_bank.to_value(),
            "gather" => self.gather.to_value(),
            "reference-gap" => (self.gap.as_millis() as u32).to_value(),
            "fade" => (self.fade.mseconds() as u32).to_value(),
            "idle" => self.idle.to_value(),
            "idle-after" => (self.idle_after.mseconds() as u32).to_value(),
            "seed" => self.seed.to_value(),
            "feature-shift" => self.feature_shift.to_value(),
            "max-yaw" => self.max_yaw.to_value(),
            "speaker" => self.speaker.to_string().to_value(),
            name => self.options.get(name),
        }
    }
}

/// `auto` leaves the choice to the engine.
fn chosen<T: FromStr<Err = Error>>(word: &str) -> Result<Option<T>> {
    if word == "auto" { Ok(None) } else { word.parse().map(Some) }
}

pub fn list() -> Vec<glib::ParamSpec> {
    let defaults = Settings::default();
    let mut list = vec![
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb(
                "Engine: its name, which may say a version of it, its folder or the path of its engine.toml; changed while the element \
                 runs, it is loaded beside the one in use and taken at the next pause of speech",
            )
            .default_value(Some(DEFAULT_ENGINE))
            .mutable_playing()
            .build(),
        change::property("fallback-model"),
        options::exact(),
        options::look_ahead(
            "Sound after a frame that its mouth may hear, in milliseconds: less is sooner, more is truer; one that the engine \
             does not have is an error that names those it has (0 = the engine's own)",
        ),
        glib::ParamSpecUInt::builder("steps")
            .nick("Steps")
            .blurb("Denoising steps a frame (0 = as the engine says; an engine that does not denoise takes no other)")
            .maximum(*lipstream_engines::schedule::STEPS.end() as u32)
            .default_value(defaults.steps)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("sampler")
            .nick("Sampler")
            .blurb("How a latent is denoised: ddim, dpm-solver++, or auto, as the engine says; an engine with one way takes no other")
            .default_value(Some("auto"))
            .mutable_ready()
            .build(),
        glib::ParamSpecDouble::builder("guidance")
            .nick("Guidance")
            .blurb("Scale of the guidance by what is heard, 1 being none (below 0 = as the engine says)")
            .minimum(-1.0)
            .maximum(20.0)
            .default_value(defaults.guidance)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("guided")
            .nick("Guided")
            .blurb("Which steps are guided, each of which costs two: all, last, none, or auto, as the engine says")
            .default_value(Some("auto"))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("batch-size")
            .nick("Batch size")
            .blurb("Most frames, of all streams that share the model, in one denoising step (0 = choose)")
            .maximum(256)
            .default_value(defaults.batch_size)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("batch-timeout")
            .nick("Batch timeout")
            .blurb("How long a denoising step waits for frames of other streams, in milliseconds; declared as latency, once a step")
            .maximum(1000)
            .default_value(defaults.batch_timeout.as_millis() as u32)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("model-instance-id")
            .nick("Model instance id")
            .blurb("Elements with one id share one loaded model, batch-size and batch-timeout; the first sets them. Unset = equal engines on equal devices share")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<SchedulingPolicy>("scheduling-policy")
            .nick("Scheduling policy")
            .blurb("latency: a frame waits for its own latent; throughput: as many frames as steps are on their way, at that many frames of latency")
            .mutable_ready()
            .build(),
        glib::ParamSpecDouble::builder("motion-gain")
            .nick("Motion gain")
            .blurb("Exaggerates (above 1) or calms (below 1) the motion of the mouth")
            .minimum(0.0)
            .maximum(4.0)
            .default_value(defaults.gain)
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("reference-bank")
            .nick("Reference bank")
            .blurb("File with the person's frames, used for every face of the stream in the place of frames gathered from it")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("gather")
            .nick("Gather")
            .blurb("Gather the person's frames from the stream; without it and without a reference-bank frames pass as they are")
            .default_value(defaults.gather)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("reference-gap")
            .nick("Reference gap")
            .blurb("Reference frames nearer than this to the frame, by their timestamps in the video, are not used, in milliseconds (0 = all are): for measuring, so that the true mouth stays hidden")
            .maximum(60_000)
            .default_value(defaults.gap.as_millis() as u32)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("fade")
            .nick("Fade")
            .blurb("Length of the cross-fade when the mouth returns, is covered or idles, in milliseconds (0 = none)")
            .maximum(5000)
            .default_value(defaults.fade.mseconds() as u32)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default::<Idle>("idle", defaults.idle)
            .nick("Idle")
            .blurb("What the mouth does while nobody speaks. rest: the model keeps it closed; own: it fades out, and frames pass with their own and cost no denoising, until speech comes")
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("idle-after")
            .nick("Idle after")
            .blurb("Time without voice after which idle=own takes the mouth away, in milliseconds")
            .maximum(60_000)
            .default_value(defaults.idle_after.mseconds() as u32)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("seed")
            .nick("Seed")
            .blurb("Seed of the noise: the same input, settings and seed give the same motion")
            .default_value(defaults.seed)
            .mutable_ready()
            .build(),
        glib::ParamSpecInt::builder("feature-shift")
            .nick("Feature shift")
            .blurb(
                "Takes the features of a frame from so many milliseconds later, for a mouth that is late, or earlier where negative;                  later ones are waited for, which is declared as latency",
            )
            .minimum(-1000)
            .maximum(1000)
            .default_value(defaults.feature_shift)
            .mutable_playing()
            .build(),
        selector::property(),
        glib::ParamSpecDouble::builder("max-yaw")
            .nick("Max yaw")
            .blurb(
                "Degrees by which a head may be turned to a side: beyond them the mouth fades to the frame's own, and it returns when the \
                 head is back by 4 degrees, or by 12 where the tracker is not sure of it, for half a second (90 = never)",
            )
            .minimum(0.0)
            .maximum(90.0)
            .default_value(defaults.max_yaw)
            .mutable_playing()
            .build(),
        stats::property(
            "Frames in, out, passed through (no patch), dropped and late; untouched: a structure that counts those that keep their own \
             mouth although another was wanted, by no-face, cut-off (by the picture's edge), too-small, turned-away, covered, \
             unclear and late; times in microseconds as <stage>-p50, -p95, -p99 \
             and -sum, with <stage>-count and <stage>-buckets (counts of times up to 0.25 0.5 1 2 5 10 20 40 80 160 ms and of \
             all), for gather (looking for references), prepare (the person), wait (for features), denoise (all steps of a \
             frame) and render; flush-time (of the last flush, from its start to nothing left), interrupt-time (of the last \
             interrupt, from the signal to the push of a frame at rest), device-time (what this stream took of the engine's device: its part \
             of each evaluation, in microseconds), references (in the bank), speaker-track (whose mouth is made) and \
             speaker-confidence (0..1, where speaker=auto has heard enough), batches, steps and \
             latents-a-batch (of the model, all streams)",
        ),
    ];
    list.extend(options::properties());
    list
}
