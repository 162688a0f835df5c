//! A session's graph while it runs: the pipeline, its taps, and what it says on its bus.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks, AppSrc};
use gstlipstream::{
    denoise,
    sync::LipSyncStats,
    synccheck::{self, Change},
};
use lipstream_engines::runtime::{self, Device, Precision};
use parking_lot::Mutex;

use super::{
    clock::{self, MS, Nanos},
    encoder,
    frame_meter::FrameMeter,
    mix::Mix,
};
use crate::{
    error::{Failure, Result},
    live::{CHANNELS, Codec, Encoders, Outlet, Packet, Picture, RATE},
};

/// Length of a stretch of sound as it is fed, in ms and frames.
pub const TICK: Nanos = 20 * MS;
pub const TICK_FRAMES: usize = RATE as usize / 50;
/// Frames or stretches that may wait in front of the graph; more means that it is too slow, and they are dropped.
const WAITING: u64 = 8;
/// Types of the elements that an engine works in.
const ENGINE_ELEMENTS: [&str; 2] = ["GstLipDenoise", "GstLipAudioEnc"];
/// What a decoder puts in front of the sound, which is not in the packets' timestamps: 1024 samples of avenc_aac (one
/// frame of overlap), 312 of libopus at 48 kHz (its look-ahead, RFC 7845 pre-skip). Players of FLV and RTP keep it.
const AAC_DELAY: u64 = 1024 * 1_000_000_000 / RATE as u64;
const OPUS_DELAY: u64 = 312 * 1_000_000_000 / RATE as u64;

/// A running graph. Dropping it stops it.
pub struct RunningGraph {
    pub pipeline: gst::Pipeline,
    pub lipsync: gst::Element,
    video: AppSrc,
    voice: AppSrc,
    second: Option<SecondVoice>,
    /// Clock time of running time 0.
    epoch: AtomicI64,
    /// Whether frames have transparency.
    alpha: bool,
    outlet: Arc<Outlet>,
    pub meter: Arc<FrameMeter>,
    failure: Mutex<Option<String>>,
    pub dropped: AtomicU64,
    /// How often the mouths of the first and of the second voice have come to rest after an interruption.
    pub rests: [AtomicU64; 2],
    /// What the sync check has told and nobody has taken.
    pub sync_changes: Mutex<Vec<Change>>,
    /// The same of its engine.
    pub engine_news: Mutex<Vec<EngineNews>>,
    /// Whether what failed first was its engine.
    pub engine_failed: AtomicBool,
}

/// A second voice: how it enters the lip-sync, and what viewers hear of it.
struct SecondVoice {
    source: AppSrc,
    mix: Arc<Mix>,
}

impl SecondVoice {
    /// Name of what makes its mouths, within the lip-sync.
    const DENOISER: &str = "denoise-b";

    /// Adds one to a pipeline that does not run yet; it moves the faces that `speaker` says.
    fn add(pipeline: &gst::Pipeline, lipsync: &gst::Element, speaker: &str) -> Result<Self> {
        let failed = |what: &str| Failure::run(format!("the graph takes no second voice: {what}"));
        let source = AppSrc::builder().name("voice-b-in").build();
        pipeline.add(&source).map_err(|error| failed(&error.to_string()))?;
        lipsync.set_property("speaker-b", speaker);
        let heard =
            lipsync.request_pad_simple("audio_sink_b").ok_or_else(|| failed("its lipsync has no pad for it"))?;
        let given = source.static_pad("src").ok_or_else(|| failed("an appsrc without a pad"))?;
        given.link(&heard).map_err(|error| failed(&error.to_string()))?;
        let mix = Arc::new(Mix::default());
        let sound = lipsync.static_pad("audio_src").ok_or_else(|| failed("its lipsync has no pad `audio_src`"))?;
        mix.into_sound_of(&sound);
        Ok(Self { source, mix })
    }
}

/// What has become of engines of a graph while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineNews {
    Taken(String),
    Refused {
        model: String,
        cause: String,
    },
    /// Another goes on.
    Failed {
        model: String,
        cause: String,
        taken: String,
    },
}

impl EngineNews {
    /// Reads the message of the denoiser.
    fn read(told: &gst::StructureRef) -> Option<Self> {
        let text = |field: &str| told.get::<String>(field).ok();
        let model = text("model")?;
        Some(match text("event")?.as_str() {
            "taken" => Self::Taken(model),
            "refused" => Self::Refused { model, cause: text("cause")? },
            "failed" => Self::Failed { model, cause: text("cause")?, taken: text("taken")? },
            _ => return None,
        })
    }
}

/// The encoders of a graph; they do not keep it alive.
struct Taps {
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    starts: [Arc<EncoderStart>; Codec::ALL.len()],
    /// Configured bit rates in the encoders' own units.
    h264_rate: u32,
    vp8_rate: i32,
}

/// Where a codec's encoder begins anew when its valve opens. Encoders and parsers keep the last frame that they got before
/// the valve was shut, and give it when the next one comes.
struct EncoderStart {
    /// Running time, in ns, of the first buffer since the valve opened; `u64::MAX` before it has come.
    opened: AtomicU64,
}

impl EncoderStart {
    /// Running times are rounded on their way through an encoder.
    const ROUNDING: u64 = 1_000_000;

    fn new() -> Self {
        Self { opened: AtomicU64::new(u64::MAX) }
    }

    fn open(&self) {
        self.opened.store(u64::MAX, Ordering::Relaxed);
    }

    fn entered(&self, running: u64) {
        // Only the first since the valve opened counts: later ones find a time.
        let _ = self.opened.compare_exchange(u64::MAX, running, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether what the encoder gives at `running` went in since the valve opened.
    fn passes(&self, running: u64) -> bool {
        running.saturating_add(Self::ROUNDING) >= self.opened.load(Ordering::Relaxed)
    }

    /// One that sees what goes through `valve`.
    fn behind(valve: Option<gst::Element>) -> Arc<Self> {
        let start = Arc::new(Self::new());
        // A graph of the user's without valves encodes all the time: nothing in it is stale.
        let Some(pad) = valve.and_then(|valve| valve.static_pad("src")) else {
            start.entered(0);
            return start;
        };
        let seen = start.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let segment = pad.sticky_event::<gst::event::Segment>(0);
            if let Some(pts) = info.buffer().and_then(|buffer| buffer.pts())
                && let Some(segment) =
                    segment.as_ref().and_then(|event| event.segment().downcast_ref::<gst::ClockTime>())
                && let Some(running) = segment.to_running_time(pts)
            {
                seen.entered(running.nseconds());
            }
            gst::PadProbeReturn::Ok
        });
        start
    }
}

impl RunningGraph {
    /// Builds and starts a graph with `encoder`; `set` may change elements before it runs. With `alpha` its frames are A420. With a second voice, `second`
    /// says which faces it moves.
    pub fn start(
        launch: &str,
        encoder: &encoder::Chosen,
        alpha: bool,
        outlet: &Arc<Outlet>,
        second: Option<&str>,
        set: impl FnOnce(&gst::Element),
    ) -> Result<Arc<Self>> {
        tracing::debug!("{launch}");
        let pipeline = gst::parse::launch(launch)
            .map_err(|e| Failure::run(format!("{}; `lipstream doctor` says what is missing", e.message())))?
            .downcast::<gst::Pipeline>()
            .map_err(|_| Failure::run("the graph of a session is not a pipeline"))?;
        let lacks =
            |what: &str| Failure::usage(format!("the graph has no {what}; graphs/avatar.toml shows what it needs"));
        let source = |name: &str| {
            let element = pipeline.by_name(name).and_then(|e| e.downcast::<AppSrc>().ok());
            element.ok_or_else(|| lacks(&format!("appsrc `{name}`")))
        };
        let (video, voice) = (source("video-in")?, source("voice-in")?);
        let lipsync = pipeline.by_name("ls").ok_or_else(|| lacks("lipsync `ls`"))?;
        encoder.put_into(pipeline.upcast_ref())?;
        set(&lipsync);
        let second = second.map(|speaker| SecondVoice::add(&pipeline, &lipsync, speaker)).transpose()?;
        let voices: Vec<&AppSrc> =
            std::iter::once(&voice).chain(second.as_ref().map(|second| &second.source)).collect();
        for appsrc in voices.iter().copied().chain([&video]) {
            appsrc.set_format(gst::Format::Time);
            appsrc.set_is_live(true);
            appsrc.set_max_bytes(0);
        }
        for voice in voices {
            // A stretch is fed when it is complete, so its first sample is as old as the stretch is long.
            voice.set_latency(gst::ClockTime::from_nseconds(TICK as u64), gst::ClockTime::NONE);
            voice.set_caps(Some(&sound_caps()));
        }
        video.set_latency(gst::ClockTime::ZERO, gst::ClockTime::NONE);

        let graph = Arc::new(Self {
            pipeline: pipeline.clone(),
            lipsync: lipsync.clone(),
            video,
            voice,
            second,
            epoch: AtomicI64::new(0),
            alpha,
            outlet: outlet.clone(),
            meter: Arc::default(),
            failure: Mutex::new(None),
            dropped: AtomicU64::new(0),
            rests: Default::default(),
            sync_changes: Mutex::default(),
            engine_news: Mutex::default(),
            engine_failed: AtomicBool::new(false),
        });
        graph.measure(&lipsync)?;
        let starts = Codec::ALL.map(|codec| EncoderStart::behind(pipeline.by_name(&format!("{codec}-valve"))));
        for (codec, start) in Codec::ALL.into_iter().zip(&starts) {
            if let Some(sink) = pipeline.by_name(&format!("{codec}-out")).and_then(|e| e.downcast::<AppSink>().ok()) {
                tap(&sink, codec, outlet, start.clone());
            }
        }
        pipeline.use_clock(Some(&clock::system()));
        pipeline.set_start_time(gst::ClockTime::NONE);
        let epoch = clock::now();
        pipeline.set_base_time(gst::ClockTime::from_nseconds(epoch as u64));
        graph.epoch.store(epoch, Ordering::Relaxed);
        pipeline.set_state(gst::State::Playing).map_err(|_| {
            graph.read_bus();
            Failure::run(graph.failure().unwrap_or_else(|| "the graph refused to start".into()))
        })?;
        let number = |name: &str, property: &str| {
            let element = pipeline.by_name(name).filter(|e| e.find_property(property).is_some());
            element.and_then(|e| e.property_value(property).transform::<i64>().ok()?.get::<i64>().ok()).unwrap_or(0)
        };
        let taps = Taps {
            pipeline: pipeline.downgrade(),
            starts,
            h264_rate: number("h264-encoder", "bitrate") as u32,
            vp8_rate: number("vp8-encoder", "target-bitrate") as i32,
        };
        outlet.attach(Arc::new(taps));
        Ok(graph)
    }

    pub fn epoch(&self) -> Nanos {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The size and rate of the frames to come; before the first one.
    pub fn set_picture(&self, picture: Picture) {
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", if self.alpha { "A420" } else { "I420" })
            .field("width", picture.width as i32)
            .field("height", picture.height as i32)
            .field("framerate", gst::Fraction::new(picture.fps.0 as i32, picture.fps.1.max(1) as i32))
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .field("interlace-mode", "progressive")
            .build();
        self.video.set_caps(Some(&caps));
    }

    /// Feeds a frame that is shown from clock time `at`. Returns whether the graph had room for it.
    pub fn show(&self, buffer: &gst::Buffer, at: Nanos, duration: Nanos) -> bool {
        if self.video.current_level_buffers() >= WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        // The pixels are shared; only what is written about them is ours.
        let mut buffer = buffer.copy();
        let own = buffer.get_mut().expect("a copy has one owner");
        own.set_pts(self.running(at));
        own.set_dts(gst::ClockTime::NONE);
        own.set_duration(gst::ClockTime::from_nseconds(duration.max(1) as u64));
        self.video.push_buffer(buffer).is_ok()
    }

    /// Feeds a stretch of sound that begins at clock time `at`, with that of the second voice where there is one.
    pub fn say(&self, samples: &[f32], second: Option<&[f32]>, at: Nanos) -> bool {
        let full = |voice: &AppSrc| voice.current_level_buffers() >= 4 * WAITING;
        if full(&self.voice) || self.second.as_ref().is_some_and(|second| full(&second.source)) {
            return false;
        }
        if let (Some(second), Some(samples)) = (&self.second, second) {
            second.mix.wait(self.running(at), samples);
            if second.source.push_buffer(self.sound(samples, at)).is_err() {
                return false;
            }
        }
        self.voice.push_buffer(self.sound(samples, at)).is_ok()
    }

    fn sound(&self, samples: &[f32], at: Nanos) -> gst::Buffer {
        let mut bytes = Vec::with_capacity(samples.len() * 4);
        samples.iter().for_each(|s| bytes.extend_from_slice(&s.to_le_bytes()));
        let frames = samples.len() / CHANNELS;
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let own = buffer.get_mut().expect("a buffer just made has one owner");
        own.set_pts(self.running(at));
        own.set_duration(gst::ClockTime::from_nseconds(frames as u64 * 1_000_000_000 / RATE as u64));
        buffer
    }

    fn running(&self, at: Nanos) -> gst::ClockTime {
        gst::ClockTime::from_nseconds((at - self.epoch()).max(0) as u64)
    }

    /// Takes what the bus holds; call it now and then. Keeps the first failure.
    pub fn read_bus(&self) {
        let Some(bus) = self.pipeline.bus() else { return };
        while let Some(message) = bus.pop() {
            match message.view() {
                gst::MessageView::Error(error) => {
                    let mut failure = self.failure.lock();
                    if failure.is_none() {
                        *failure = Some(crate::media::describe(error));
                        let of_engine = message.src().is_some_and(|src| ENGINE_ELEMENTS.contains(&src.type_().name()));
                        self.engine_failed.store(of_engine, Ordering::Relaxed);
                    }
                }
                gst::MessageView::Latency(_) => {
                    // A refusal shows as frames that are late, which are counted.
                    let _ = self.pipeline.recalculate_latency();
                }
                gst::MessageView::Element(element) if element.has_name("lipstream-interrupt") => {
                    let second = message.src().is_some_and(|src| src.name() == SecondVoice::DENOISER);
                    self.rests[usize::from(second)].fetch_add(1, Ordering::Relaxed);
                }
                gst::MessageView::Element(element) if element.has_name(denoise::change::MESSAGE) => {
                    self.engine_news.lock().extend(element.structure().and_then(EngineNews::read));
                }
                gst::MessageView::Element(element) => {
                    self.sync_changes.lock().extend(element.structure().and_then(synccheck::change));
                }
                gst::MessageView::Warning(warning) => tracing::warn!("{}", warning.error().message()),
                _ => {}
            }
        }
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub fn dot(&self) -> String {
        self.pipeline.debug_to_dot_data(gst::DebugGraphDetails::CAPS_DETAILS).to_string()
    }

    pub fn bit_rate(&self) -> u32 {
        let encoder = self.pipeline.by_name("h264-encoder").filter(|e| e.find_property("bitrate").is_some());
        encoder.map_or(0, |e| e.property::<u32>("bitrate") * 1000)
    }

    /// Whether its engine runs on a card.
    pub fn is_on_card(&self) -> bool {
        let device = self.lipsync.property_value("device").get::<String>().unwrap_or_default().parse::<Device>();
        let taken = device.and_then(|device| runtime::taken(device, Precision::Auto, usize::MAX));
        matches!(taken, Ok(Device::Cuda(_) | Device::TensorRt(_)))
    }

    /// What the bin says about itself.
    pub fn stats(&self) -> LipSyncStats {
        LipSyncStats::from_structure(&self.lipsync.property::<gst::Structure>("stats"))
    }

    fn measure(&self, lipsync: &gst::Element) -> Result<()> {
        let pad = lipsync.static_pad("video_src").ok_or_else(|| Failure::run("lipsync has no pad `video_src`"))?;
        let meter = self.meter.clone();
        let pipeline = self.pipeline.downgrade();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let base = pipeline.upgrade().and_then(|p| p.base_time());
            if let (Some(buffer), Some(base)) = (info.buffer(), base)
                && let Some(pts) = buffer.pts()
            {
                let regions = buffer.iter_meta::<gst_video::VideoRegionOfInterestMeta>();
                let faces = regions.filter(|roi| roi.roi_type() == "face").count();
                meter.shown(base.nseconds() as Nanos + pts.nseconds() as Nanos, clock::now(), faces);
            }
            gst::PadProbeReturn::Ok
        });
        Ok(())
    }
}

impl Drop for RunningGraph {
    fn drop(&mut self) {
        self.outlet.detach();
        // Going to NULL does not fail; what it frees is gone either way.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Encoders for Taps {
    fn enable(&self, codec: Codec, on: bool) {
        if let Some(valve) = self.named(&format!("{codec}-valve")) {
            if let Some(place) = Codec::ALL.iter().position(|known| *known == codec).filter(|_| on) {
                self.starts[place].open();
            }
            valve.set_property("drop", !on);
        }
    }

    fn key_frame(&self, codec: Codec) {
        if let Some(sink) = self.named(&format!("{codec}-out")) {
            sink.send_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    }

    fn bit_rate(&self, codec: Codec, rate: Option<u32>) {
        let Some(encoder) = self.named(&format!("{codec}-encoder")) else { return };
        match codec {
            Codec::H264 => {
                let rate = rate.map_or(self.h264_rate, |rate| (rate / 1000).min(self.h264_rate)).max(1);
                if encoder.property::<u32>("bitrate") != rate {
                    encoder.set_property("bitrate", rate);
                }
            }
            Codec::Vp8 => {
                let rate = rate.map_or(self.vp8_rate, |rate| (rate as i32).min(self.vp8_rate)).max(1);
                if encoder.property::<i32>("target-bitrate") != rate {
                    encoder.set_property("target-bitrate", rate);
                }
            }
            Codec::Aac | Codec::Opus => {}
        }
    }
}

impl Taps {
    fn named(&self, name: &str) -> Option<gst::Element> {
        self.pipeline.upgrade()?.by_name(name)
    }
}

/// Sends what an appsink gets to the outlet.
fn tap(sink: &AppSink, codec: Codec, outlet: &Arc<Outlet>, start: Arc<EncoderStart>) {
    let outlet = outlet.clone();
    let mut header = None;
    sink.set_callbacks(
        AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                if codec == Codec::Aac {
                    let data = sample.caps().and_then(|c| c.structure(0)?.get::<gst::Buffer>("codec_data").ok());
                    if let Some(data) = data.and_then(|d| Some(d.map_readable().ok()?.to_vec()))
                        && header.as_ref() != Some(&data)
                    {
                        outlet.set_header(codec, data.clone().into());
                        header = Some(data);
                    }
                }
                if let Some(packet) = packet(codec, &sample, &start) {
                    outlet.publish(packet);
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
}

/// A sample of an encoder as a packet; `None` for what is from before the running time's zero or before its valve opened.
fn packet(codec: Codec, sample: &gst::Sample, start: &EncoderStart) -> Option<Packet> {
    let buffer = sample.buffer()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    // x264enc counts from 1000 hours and says so in its segment.
    let running = segment.to_running_time(buffer.pts()?)?.nseconds();
    if !start.passes(running) {
        return None;
    }
    let delay = match codec {
        Codec::Aac => AAC_DELAY,
        Codec::Opus => OPUS_DELAY,
        Codec::H264 | Codec::Vp8 => 0,
    };
    let data = buffer.map_readable().ok()?;
    Some(Packet {
        codec,
        pts: Duration::from_nanos(running.checked_sub(delay)?),
        duration: buffer.duration().map_or(Duration::ZERO, Into::into),
        key: !codec.is_video() || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
        data: bytes::Bytes::copy_from_slice(&data),
    })
}

fn sound_caps() -> gst::Caps {
    gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("rate", RATE as i32)
        .field("channels", CHANNELS as i32)
        .field("channel-mask", gst::Bitmask::new(3))
        .build()
}
