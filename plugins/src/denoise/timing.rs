//! How long a frame may take: the latency that is declared, and the deadline that follows from it.

use std::time::Duration;

use gst::{prelude::*, subclass::prelude::*};

use super::{
    imp::{CAT, LipDenoise},
    properties::Settings,
    speaker::Loaded,
    wait::Wait,
};

/// Time that a frame may take to be computed before it is late, declared as latency.
const COMPUTE: gst::ClockTime = gst::ClockTime::from_mseconds(20);
/// A frame's duration where the caps do not tell.
const FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// What frames are held for by an engine.
pub(super) fn own_latency(loaded: &Loaded, settings: &Settings) -> gst::ClockTime {
    let passes = loaded.steps() as u32 + loaded.spec().passes as u32;
    COMPUTE + gst::ClockTime::from_nseconds((settings.batch_timeout * passes).as_nanos() as u64)
}

impl LipDenoise {
    /// Waits for the features of the frame of running time `time`, by a caller who has heeded so many interrupts.
    pub(super) fn wait(&self, time: gst::ClockTime, interrupts: u64) -> Wait {
        let heard = self.settings.lock().shifted(time);
        self.gate.wait(
            (time.nseconds(), heard.nseconds(), interrupts),
            || self.featurespad.is_linked(),
            || self.state.lock().latency.is_some_and(|(live, _)| live),
            || self.deadline(time),
        )
    }

    /// The clock, and the time on it when the frame of running time `time` must go; `None` when it may wait.
    fn deadline(&self, time: gst::ClockTime) -> Option<(gst::Clock, gst::ClockTime)> {
        let latency = {
            let state = self.state.lock();
            let (live, latency) = state.latency?;
            (live && state.playing).then_some(latency)?
        };
        let obj = self.obj();
        Some((obj.clock()?, obj.base_time()? + time + latency))
    }

    /// How long the frame of running time `time` may still be worked on; `None` for ever.
    pub(super) fn patience(&self, time: gst::ClockTime) -> Option<Duration> {
        let (clock, at) = self.deadline(time)?;
        Some(at.saturating_sub(clock.time()).into())
    }

    /// Asks both streams for their latency and adds the element's own: a frame is ready when the audio that it looks
    /// at has come, has become features and has been denoised. `None` when the video does not answer.
    pub(super) fn ask_latency(&self) -> Option<(bool, gst::ClockTime, Option<gst::ClockTime>)> {
        let mut video = gst::query::Latency::new();
        let answered = self.sinkpad.peer_query(&mut video);
        let mut audio = gst::query::Latency::new();
        let heard = self.featurespad.peer_query(&mut audio);
        let (video_live, mut min, mut max) = video.result();
        let mut live = answered && video_live;
        let shift = self.settings.lock().shift_latency();

        let mut state = self.state.lock();
        if heard {
            let (audio_live, audio_min, audio_max) = audio.result();
            live |= audio_live;
            min = min.max(audio_min + state.reach + shift);
            max = match (max, audio_max) {
                (Some(video), Some(audio)) => Some(video.min(audio)),
                (video, audio) => video.or(audio),
            };
        }
        // A rate of 0/1 is one that varies.
        let fps = state.info.as_ref().map(|info| info.fps()).filter(|fps| fps.numer() > 0 && fps.denom() > 0);
        let frame = fps
            .and_then(|fps| gst::ClockTime::SECOND.mul_div_ceil(fps.denom() as u64, fps.numer() as u64))
            .unwrap_or(FRAME);
        min += state.own + frame * state.depth as u64;
        let known = state.latency.replace((live, min));
        drop(state);
        if known != Some((live, min)) {
            gst::debug!(CAT, imp = self, "live {live}, latency {min} to {max:?}");
            self.gate.nudge();
        }
        answered.then_some((live, min, max))
    }
}
