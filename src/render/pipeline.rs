//! The graph of a render: two appsrc, the bin `lipsync`, encoders, a muxer, a file.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use gst::prelude::*;
use gst_app::AppSrc;

use super::{
    Enhance, Enhancer, Options, Quality,
    output::{AudioCodec, Container, Unfinished},
    webm::{self, Webm},
};
use gstlipstream::alpha::Mode;

use crate::{
    background,
    error::{Failure, Result},
};

/// Frames that the encoder looks ahead; the queue of the audio must hold as much.
const ENCODER_LOOK_AHEAD: u32 = 20;
/// How much each appsrc holds: more than the look-ahead of an engine, so that neither stream starves the other. Of one with a longer
/// look-ahead frames are held back until their features are there.
pub(super) const SOURCE_QUEUE: gst::ClockTime = gst::ClockTime::from_mseconds(1000);
/// What VP8 can hold: players take its codes for limited range whatever the container says.
const VP8_COLORS: &str = "video/x-raw,format=I420,colorimetry=(string){bt709,bt601}";

pub struct Pipeline {
    pub pipeline: gst::Pipeline,
    pub video: AppSrc,
    pub audio: AppSrc,
    /// Of a second voice, where there is one.
    pub second: Option<AppSrc>,
    /// Where features come to the denoiser.
    pub features: gst::Pad,
    /// Where sound is cut off that was heard of the time after the video.
    pub cut: Option<gst::Pad>,
    pub lipsync: gst::Element,
    frames: Arc<AtomicU64>,
    first: Arc<OnceLock<Instant>>,
    /// What writes the file, where that is no element.
    webm: Option<Webm>,
    start: Arc<OnceLock<gst::ClockTime>>,
}

impl Pipeline {
    /// `second` is the sampling rate of what is heard, where there is a second voice; `ahead` whether sound is heard seconds ahead of the
    /// frames.
    pub fn build(
        options: &Options,
        container: Container,
        codec: AudioCodec,
        video_caps: &gst::Caps,
        second: Option<u32>,
        ahead: bool,
        file: &Unfinished,
    ) -> Result<Self> {
        let form = Form::of(options, container);
        // Two voices are heard together, at the rate of the first.
        let second = second.map_or_else(String::new, |rate| {
            format!(
                "appsrc name=audio-b-in ! tee name=second second. ! queue max-size-buffers=0 max-size-bytes=67108864 max-size-time=0 \
                 ! lipsync.audio_sink_b second. ! queue max-size-buffers=0 max-size-bytes=67108864 max-size-time=0 ! audioconvert \
                 ! audioresample ! mix. audiomixer name=mix ! audio/x-raw,rate={rate} ! "
            )
        });
        let heard = if second.is_empty() { "" } else { "audioconvert ! audioresample ! mix. " };
        let cut = if ahead && !options.looped { "identity name=cut silent=true ! " } else { "" };
        let upscaled = options.enhance.as_ref().and_then(|enhance| enhance.upscale);
        let upscaled = upscaled.map_or_else(String::new, |by| self::upscaled(video_caps, by));
        let description = format!(
            "appsrc name=video-in ! queue max-size-buffers=2 max-size-bytes=0 max-size-time=0 ! lipsync.video_sink \
             appsrc name=audio-in ! lipsync.audio_sink \
             lipsync name=lipsync \
             lipsync.video_src ! queue max-size-buffers=4 max-size-bytes=0 max-size-time=0 ! {upscaled}{enhance}{alpha}{even}videoconvert \
                 ! {video} \
             lipsync.audio_src ! queue max-size-buffers=0 max-size-bytes=67108864 max-size-time=0 ! {heard}{second}{cut}{audio}",
            enhance = options.enhance.as_ref().map_or_else(String::new, enhancer),
            alpha = alpha(options),
            even =
                if container == Container::Pictures || !upscaled.is_empty() { String::new() } else { even(video_caps) },
            video = form.video(options, container),
            audio = match options.part {
                Some(_) => "fakesink sync=false".to_owned(),
                None => form.sound(codec, container),
            },
        );
        tracing::debug!("{description}");
        let pipeline = gst::parse::launch(&description)
            .map_err(|e| Failure::run(format!("{}; `lipstream doctor` says what is missing", e.message())))?
            .downcast::<gst::Pipeline>()
            .map_err(|_| Failure::run("the graph of a render is not a pipeline"))?;
        background::adopt(&pipeline);
        let named = |name: &str| pipeline.by_name(name).ok_or_else(|| Failure::run(format!("no element `{name}`")));
        let source = |name: &str| named(name)?.downcast::<AppSrc>().map_err(|_| Failure::run("no appsrc"));
        let webm = match form {
            Form::AlphaWebm => Some(Webm::attach(&pipeline, file.path())?),
            Form::Pictures { .. } => {
                let location = file.location().ok_or_else(|| Failure::run("the output has no place"))?;
                named("file-out")?.set_property("location", location);
                None
            }
            Form::Muxed | Form::ProRes => {
                named("file-out")?.set_property("location", file.path());
                None
            }
        };
        if let Some(Enhance { by: Enhancer::Network(name), .. }) = &options.enhance {
            let enhancer = named("enhance")?;
            enhancer.set_property("enhance", name);
            enhancer.set_property("device", options.runtime.device.to_string());
        }
        let lipsync = named("lipsync")?;
        options.apply(&lipsync)?;
        let denoise = named("denoise")?;
        let features = denoise.static_pad("features");
        let features = features.ok_or_else(|| Failure::run("lipdenoise has no pad `features`"))?;
        let cut = if cut.is_empty() { None } else { named("cut")?.static_pad("src") };

        let frames = Arc::new(AtomicU64::new(0));
        let first = Arc::new(OnceLock::new());
        let start = Arc::new(OnceLock::new());
        let (counter, moment, begins, part) = (frames.clone(), first.clone(), start.clone(), options.part);
        let out = lipsync.static_pad("video_src").ok_or_else(|| Failure::run("lipsync has no pad `video_src`"))?;
        out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let at = info.buffer().and_then(|buffer| buffer.pts());
            // Frames that a part warms up with, and those behind it, are its neighbours'.
            if at.zip(part).is_some_and(|(at, part)| !part.holds(at)) {
                return gst::PadProbeReturn::Drop;
            }
            if let Some(at) = at {
                begins.get_or_init(|| at);
            }
            counter.fetch_add(1, Ordering::Relaxed);
            moment.get_or_init(Instant::now);
            gst::PadProbeReturn::Ok
        });

        let (video, audio) = (source("video-in")?, source("audio-in")?);
        let second = if second.is_empty() { None } else { Some(source("audio-b-in")?) };
        for appsrc in [&video, &audio].into_iter().chain(&second) {
            appsrc.set_format(gst::Format::Time);
            appsrc.set_block(true);
            appsrc.set_max_bytes(0);
            appsrc.set_max_time(SOURCE_QUEUE);
        }
        // Time alone would let a second of 4K frames pile up.
        video.set_max_buffers(30);
        Ok(Self { pipeline, video, audio, second, features, cut, lipsync, frames, first, start, webm })
    }

    /// Completes what it has written, after its end.
    pub fn close(&self) -> Result<()> {
        self.webm.as_ref().map_or(Ok(()), Webm::close)
    }

    /// Why what it writes was refused, which the elements do not know.
    pub fn failure(&self) -> Option<String> {
        self.webm.as_ref().and_then(Webm::failure)
    }

    /// Frames that have left the bin.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Time of the first one.
    pub fn start(&self) -> Option<gst::ClockTime> {
        self.start.get().copied()
    }

    /// When the first one did.
    pub fn first_frame(&self) -> Option<Instant> {
        self.first.get().copied()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Going to NULL does not fail; what it frees is gone either way.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// 4:2:0 encoders refuse odd sizes: the last column or row is cut off.
fn even(caps: &gst::Caps) -> String {
    let odd = |field| caps.structure(0).and_then(|s| s.get::<i32>(field).ok()).is_some_and(|n| n % 2 == 1);
    match (odd("width"), odd("height")) {
        (false, false) => String::new(),
        (w, h) => format!("videocrop right={} bottom={} ! ", u8::from(w), u8::from(h)),
    }
}

/// Enlarges pictures of these caps, whose faces' metas stay true; 4:2:0 encoders want even sizes.
fn upscaled(caps: &gst::Caps, by: f64) -> String {
    let Some(shape) = caps.structure(0) else { return String::new() };
    let side = |field| shape.get::<i32>(field).ok().map(|n| ((f64::from(n) * by / 2.0).round() as i32).max(1) * 2);
    let (Some(width), Some(height)) = (side("width"), side("height")) else { return String::new() };
    let pixel = shape.get::<gst::Fraction>("pixel-aspect-ratio").unwrap_or(gst::Fraction::new(1, 1));
    format!(
        "videoscale method=lanczos add-borders=false n-threads=2 ! video/x-raw,width={width},height={height},pixel-aspect-ratio={}/{} \
         ! queue max-size-buffers=2 max-size-bytes=0 max-size-time=0 ! ",
        pixel.numer(),
        pixel.denom()
    )
}

/// In a thread of its own, beside the bin and the encoder.
fn enhancer(enhance: &Enhance) -> String {
    let Enhance { by, strength, mouth_protection, fidelity, every, upscale: _ } = enhance;
    let name = match by {
        Enhancer::Filter(filter) => format!(" enhance={filter}"),
        // Its name is set as it is.
        Enhancer::Network(_) => String::new(),
    };
    let every = every.map_or_else(String::new, |every| format!(" enhance-every={every}"));
    let parts = [("enhance-strength", strength), ("mouth-protection", mouth_protection), ("fidelity", fidelity)];
    let said = parts.into_iter().filter_map(|(name, part)| Some(format!(" {name}={}", (*part)?))).collect::<String>();
    format!("lipenhance name=enhance{name}{said}{every} ! queue max-size-buffers=2 max-size-bytes=0 max-size-time=0 ! ")
}

/// What becomes of transparency before the encoder.
fn alpha(options: &Options) -> String {
    match options.alpha {
        Mode::Drop | Mode::Keep => String::new(),
        mode => format!("lipalpha alpha={mode} ! "),
    }
}

/// How the output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// By an encoder and a muxer.
    Muxed,
    /// ProRes 4444 in MOV.
    ProRes,
    /// VP9 with alpha, and Opus.
    AlphaWebm,
    Pictures {
        alpha: bool,
    },
}

impl Form {
    fn of(options: &Options, container: Container) -> Self {
        let alpha = options.alpha == Mode::Keep;
        match container {
            Container::Pictures => Self::Pictures { alpha },
            Container::WebM if alpha => Self::AlphaWebm,
            Container::Mov if alpha => Self::ProRes,
            _ => Self::Muxed,
        }
    }

    /// From converted pictures on.
    fn video(self, options: &Options, container: Container) -> String {
        match self {
            Self::Muxed => {
                format!("{} ! mux. {} ! filesink name=file-out", video_encoder(options, container), container.muxer())
            }
            Self::ProRes => format!(
                "video/x-raw,format=A444_10LE ! avenc_prores_ks name=venc profile=4444 alpha-bits=8 ! mux. {} ! filesink name=file-out",
                container.muxer()
            ),
            Self::Pictures { alpha } => {
                let format = if alpha { "RGBA" } else { "RGB" };
                format!(
                    "video/x-raw,format={format} ! pngenc name=venc compression-level=2 ! {} sync=false async=false",
                    container.muxer()
                )
            }
            Self::AlphaWebm => {
                let queue = "queue max-size-buffers=4 max-size-bytes=0 max-size-time=0";
                let out = |name: &str| format!("appsink name={name} sync=false async=false");
                // One packet a frame, and key frames at the same frames in both. No colorimetry is asked for: where GStreamer 1.22
                // converts that of A420, alpha becomes 0 or 255.
                let encoder =
                    "vp9enc deadline=1 row-mt=true threads=2 lag-in-frames=0 auto-alt-ref=0 keyframe-max-dist=125";
                let (color, matte) = vp9(&options.quality);
                format!(
                    "video/x-raw,format=A420 ! tee name=split \
                     split. ! {queue} ! videoconvert ! video/x-raw,format=I420 ! {encoder} name=venc {color} ! {} \
                     split. ! {queue} ! lipalpha alpha=matte ! {encoder} {matte} ! {}",
                    out(webm::COLOR),
                    out(webm::ALPHA)
                )
            }
        }
    }

    fn sound(self, codec: AudioCodec, container: Container) -> String {
        match (self, container) {
            (Self::AlphaWebm, _) => {
                format!("{} ! appsink name={} sync=false async=false", codec.encoder(), webm::SOUND)
            }
            (Self::Pictures { .. }, _) => "fakesink sync=false async=false".into(),
            _ => format!("{} ! mux.", codec.encoder()),
        }
    }
}

/// Of VP9's colours and of its alpha, which is cheap and of which every step is seen at the edge.
fn vp9(quality: &Quality) -> (String, String) {
    let constant = |speed: u32, level: u32, most: u32| {
        format!(
            "cpu-used={speed} end-usage=cq cq-level={level} min-quantizer=0 max-quantizer={most} target-bitrate=40000000"
        )
    };
    let color = match quality {
        Quality::Crf { crf, .. } => constant(6, *crf, (*crf + 12).min(63)),
        Quality::BitRate { rate, .. } => format!("cpu-used=6 end-usage=vbr target-bitrate={}", rate * 1000),
        Quality::High => constant(3, 4, 12),
    };
    (color, constant(6, 2, 8))
}

fn video_encoder(options: &Options, container: Container) -> String {
    if container == Container::WebM {
        let quality = match &options.quality {
            Quality::Crf { .. } => "cpu-used=4 end-usage=vbr target-bitrate=4000000".to_owned(),
            Quality::BitRate { rate, .. } => format!("cpu-used=4 end-usage=vbr target-bitrate={}", rate * 1000),
            Quality::High => {
                "cpu-used=2 end-usage=cq cq-level=4 min-quantizer=0 max-quantizer=12 target-bitrate=40000000".into()
            }
        };
        return format!("{VP8_COLORS} ! vp8enc name=venc deadline=1 threads=2 {quality}");
    }
    let quality = match &options.quality {
        Quality::Crf { crf, preset } => format!("speed-preset={preset} pass=qual quantizer={crf}"),
        Quality::BitRate { rate, preset } => format!("speed-preset={preset} pass=cbr bitrate={rate}"),
        Quality::High => "speed-preset=slow psy-tune=film pass=qual quantizer=12".into(),
    };
    format!(
        "video/x-raw,format=I420 ! x264enc name=venc {quality} rc-lookahead={ENCODER_LOOK_AHEAD} \
         ! h264parse"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enhancer_is_told_what_was_asked_for_and_no_more() {
        let by = Enhancer::Network("a.onnx".into());
        let asked = Enhance {
            by,
            strength: None,
            mouth_protection: Some(0.0),
            fidelity: Some(0.25),
            every: Some(3),
            upscale: None,
        };
        let line = enhancer(&asked);
        assert!(
            line.starts_with("lipenhance name=enhance mouth-protection=0 fidelity=0.25 enhance-every=3 ! "),
            "{line}"
        );
    }

    #[test]
    fn pictures_are_enlarged_to_even_sizes_with_pixels_of_their_shape() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-raw").field("width", 331).field("height", 240);
        let caps = caps.field("pixel-aspect-ratio", gst::Fraction::new(4, 3)).build();
        assert!(upscaled(&caps, 1.5).contains("video/x-raw,width=496,height=360,pixel-aspect-ratio=4/3 "));
    }
}
