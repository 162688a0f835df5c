//! A `lipsync` between live sources and sinks, fed in real time.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks, AppSrc};
use gst_video::{VideoFormat, VideoInfo};

use super::{decoded, init, ms, person, video_info};

/// Rate of the audio in Hz.
pub const RATE: u64 = 48_000;
/// The feeder's step: half a frame.
const TICK: u64 = 20;

/// Frames of a talking person, 40 ms each, that can be shown over and over.
pub fn people(width: u32, height: u32, count: u64) -> Option<(VideoInfo, Vec<gst::Buffer>)> {
    let info = video_info(VideoFormat::I420, width, height);
    let frames = decoded(&person()?, &info, count);
    Some((info, frames))
}

/// A frame that has come out.
#[derive(Clone, Debug)]
pub struct Seen {
    pub buffer: gst::Buffer,
    pub at: Instant,
}

pub struct Live {
    pub pipeline: gst::Pipeline,
    pub bin: gst::Element,
    pub video: AppSrc,
    pub voice: AppSrc,
    pub info: VideoInfo,
    pub frames: Vec<gst::Buffer>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// Samples that have come out.
    pub heard: Arc<Mutex<u64>>,
    /// Errors and the end.
    pub told: Arc<Mutex<Vec<gst::Message>>>,
    /// Running time in ms up to which it has been fed.
    pub fed: u64,
}

/// What frames like `info` and a voice of [`RATE`] are pushed into.
pub fn sources(info: &VideoInfo, live: bool) -> (AppSrc, AppSrc) {
    let source = |caps: &gst::Caps| {
        AppSrc::builder().caps(caps).is_live(live).format(gst::Format::Time).max_bytes(1 << 30).build()
    };
    let voice = gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("rate", RATE as i32)
        .field("channels", 1)
        .build();
    (source(&info.to_caps().unwrap()), source(&voice))
}

impl Live {
    /// Playing. Frames may come at any time; sinks keep time as `sync` says.
    pub fn new(info: VideoInfo, frames: Vec<gst::Buffer>, properties: &[(&str, &str)], sync: bool) -> Self {
        init();
        let (video, voice) = sources(&info, true);
        let bin = gst::ElementFactory::make("lipsync").build().unwrap();
        properties.iter().for_each(|(name, value)| bin.set_property_from_str(name, value));
        let (seen, heard) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let to = seen.clone();
        let picture = AppSink::builder().sync(sync).build();
        picture.set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let buffer = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?.buffer_owned().unwrap();
                    to.lock().unwrap().push(Seen { buffer, at: Instant::now() });
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        let to = heard.clone();
        let sound = AppSink::builder().sync(sync).build();
        sound.set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    *to.lock().unwrap() += sample.buffer().unwrap().size() as u64 / 4;
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        let pipeline = gst::Pipeline::new();
        pipeline
            .add_many([video.upcast_ref(), voice.upcast_ref(), &bin, picture.upcast_ref(), sound.upcast_ref()])
            .unwrap();
        for (from, to) in [(&video, "video_sink"), (&voice, "audio_sink")] {
            from.link_pads(Some("src"), &bin, Some(to)).unwrap();
        }
        for (from, to) in [("video_src", &picture), ("audio_src", &sound)] {
            bin.link_pads(Some(from), to, Some("sink")).unwrap();
        }
        let told = Arc::new(Mutex::new(Vec::new()));
        let to = told.clone();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            if matches!(message.type_(), gst::MessageType::Error | gst::MessageType::Eos) {
                to.lock().unwrap().push(message.clone());
            }
            gst::BusSyncReply::Drop
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, bin, video, voice, info, frames, seen, heard, told, fed: 0 }
    }

    /// Feeds `length` ms in real time. `picture` makes the frame at a time in ms from the one that is shown there, or drops
    /// it; `sound` gives the sample at a time in seconds, `None` when there is no audio.
    pub fn feed(
        &mut self,
        length: u64,
        mut picture: impl FnMut(u64, gst::Buffer) -> Option<gst::Buffer>,
        sound: impl Fn(f64) -> Option<f32>,
    ) {
        let end = self.fed + length;
        while self.fed < end {
            let now = self.pipeline.current_running_time().unwrap_or_default();
            std::thread::sleep(ms(self.fed).saturating_sub(now).into());
            if self.fed.is_multiple_of(40) {
                let count = self.frames.len() as u64;
                // There and back, so that nothing jumps.
                let i = self.fed / 40 % (2 * count);
                let mut frame = self.frames[i.min(2 * count - 1 - i) as usize].copy();
                let own = frame.get_mut().unwrap();
                own.set_pts(ms(self.fed));
                own.set_duration(ms(40));
                if let Some(frame) = picture(self.fed, frame) {
                    self.video.push_buffer(frame).unwrap();
                }
            }
            let samples: Option<Vec<f32>> =
                (0..RATE * TICK / 1000).map(|i| sound(self.fed as f64 / 1000.0 + i as f64 / RATE as f64)).collect();
            if let Some(samples) = samples {
                let mut buffer =
                    gst::Buffer::from_mut_slice(samples.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>());
                let own = buffer.get_mut().unwrap();
                own.set_pts(ms(self.fed));
                own.set_duration(ms(TICK));
                self.voice.push_buffer(buffer).unwrap();
            }
            self.fed += TICK;
        }
    }

    /// Frames that have come out so far.
    pub fn frames_out(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Waits for so many frames.
    pub fn wait_for(&self, count: usize) {
        self.wait_until(&format!("{count} frames"), |live| live.frames_out() >= count);
    }

    /// Waits until something is so; an error message or twenty seconds fail.
    pub fn wait_until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        super::until(what, || {
            self.check();
            is(self)
        });
    }

    /// Whether there was a message of that type.
    pub fn heard_of(&self, kind: gst::MessageType) -> bool {
        self.told.lock().unwrap().iter().any(|m| m.type_() == kind)
    }

    /// Fails on an error message.
    pub fn check(&self) {
        if let Some(gst::MessageView::Error(e)) = self.told.lock().unwrap().first().map(|m| m.view()) {
            panic!("{} {:?}", e.error(), e.debug());
        }
    }

    /// A number of the statistics of the bin, or of an element inside: `denoise/late`.
    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.bin.property::<gst::Structure>("stats");
        match name.split_once('/') {
            Some((element, name)) => stats.get::<gst::Structure>(element).unwrap().get(name).unwrap(),
            None => stats.get(name).unwrap(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Something like a voice: a hundred and twenty hertz with overtones, in syllables.
pub fn voice(t: f64) -> f32 {
    let syllable = (t * 4.0 * std::f64::consts::TAU).sin().max(0.0);
    let tone: f64 = (1..12).map(|k| (t * 120.0 * k as f64 * std::f64::consts::TAU).sin() / k as f64).sum();
    (0.25 * syllable * tone) as f32
}
