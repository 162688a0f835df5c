//! One thread a session that feeds its graph by clock time: pictures when they are due, sound in stretches of
//! 20 ms. It never waits for a source: where nothing comes, the last picture is held and there is silence.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use parking_lot::Mutex;

use super::{
    Voice,
    clock::{self, MS, Nanos, SECOND},
    jitter_buffer::JitterBuffer,
    running_graph::{RunningGraph, TICK, TICK_FRAMES},
    track::periods,
};
use crate::{
    avatar::Player,
    error::Result,
    live::{CHANNELS, Picture, RATE, Slot},
    speech,
};

/// A frame is missed when it is this much later than the interval says; then the last one is shown again.
const GRACE: Nanos = 25 * MS;
/// The interval of a source that has not told it yet.
const INTERVAL: Nanos = 40 * MS;
/// After a pause of the whole machine longer than this, what was missed is skipped.
const LAPSE: Nanos = 500 * MS;
/// Longest sleep, so that the bus is read and a stop is seen.
const NAP: Nanos = 20 * MS;

/// Where the pictures come from.
pub enum PictureSource {
    Avatar(Box<Player>, Picture),
    Live,
}

/// What the voices have to say.
pub struct Spoken {
    pub first: Arc<speech::Queue>,
    pub second: Option<Arc<speech::Queue>>,
}

/// One voice: a source's sound, and speech in its place while there is some.
struct Speaker {
    /// Whose sound is heard while nothing is spoken.
    base: Slot,
    speech: Arc<speech::Queue>,
    /// Of the base's sound: it is turned down while something is spoken.
    gain: f32,
}

impl Speaker {
    fn new(base: Slot, speech: Arc<speech::Queue>) -> Self {
        Self { base, speech, gain: 1.0 }
    }

    /// What is heard of it from a sample period on.
    fn stretch(&mut self, jitter_buffer: &JitterBuffer, from: i64) -> Vec<f32> {
        let mut out = vec![0.0; TICK_FRAMES * CHANNELS];
        jitter_buffer.sound(self.base, from, &mut out);
        let mut spoken = [0.0; TICK_FRAMES];
        let speaking = self.speech.take(&mut spoken) || self.speech.speaking();
        let (before, after) = (self.gain, if speaking { 0.0 } else { 1.0 });
        self.gain = after;
        for (n, (frame, voice)) in out.chunks_exact_mut(CHANNELS).zip(spoken).enumerate() {
            let gain = before + (after - before) * n as f32 / TICK_FRAMES as f32;
            frame.iter_mut().for_each(|sample| *sample = *sample * gain + voice);
        }
        out
    }
}

/// What the pacer says about itself, and is asked.
#[derive(Default)]
pub struct PacerControl {
    stop: AtomicBool,
    /// Frames that were shown again because none came.
    pub held: AtomicU64,
    /// Stretches of sound for which the graph had no room.
    pub unsaid: AtomicU64,
    pub clip: Mutex<String>,
    wanted_clip: Mutex<Option<String>>,
    /// Why it ended by itself.
    pub failure: Mutex<Option<String>>,
    /// Whether a picture has been shown.
    pub showing: AtomicBool,
}

impl PacerControl {
    pub fn switch(&self, clip: &str) {
        *self.wanted_clip.lock() = Some(clip.to_owned());
    }
}

/// The thread; dropping it ends it.
pub struct Pacer {
    pub control: Arc<PacerControl>,
    jitter_buffer: Arc<JitterBuffer>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    pub fn start(
        name: &str,
        graph: Arc<RunningGraph>,
        jitter_buffer: Arc<JitterBuffer>,
        spoken: Spoken,
        source: PictureSource,
        voice: Voice,
    ) -> Result<Self> {
        let control = Arc::new(PacerControl::default());
        jitter_buffer.set_playing(true);
        let thread = Thread {
            graph,
            jitter_buffer: jitter_buffer.clone(),
            first: Speaker::new(if voice == Voice::Source { Slot::Main } else { Slot::Voice }, spoken.first),
            second: spoken.second.map(|speech| Speaker::new(Slot::VoiceB, speech)),
            control: control.clone(),
            source,
            picture: None,
            next_frame: None,
            shown: None,
            next_stretch: None,
        };
        let thread = std::thread::Builder::new()
            .name(format!("pace {name}").chars().take(15).collect())
            .spawn(move || thread.run())
            .map_err(|e| crate::error::Failure::run(format!("no thread for a session: {e}")))?;
        Ok(Self { control, jitter_buffer, thread: Some(thread) })
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
        self.jitter_buffer.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a session's pacer panicked");
        }
        self.jitter_buffer.set_playing(false);
    }
}

/// The frame that was shown last.
struct Shown {
    buffer: gst::Buffer,
    at: Nanos,
}

struct Thread {
    graph: Arc<RunningGraph>,
    jitter_buffer: Arc<JitterBuffer>,
    first: Speaker,
    second: Option<Speaker>,
    control: Arc<PacerControl>,
    source: PictureSource,
    /// What the graph was told of live frames.
    picture: Option<Picture>,
    /// An avatar's next frame, decoded ahead: when, what, how long.
    next_frame: Option<(Nanos, gst::Buffer, Nanos)>,
    shown: Option<Shown>,
    /// First sample period of the next stretch of sound.
    next_stretch: Option<i64>,
}

impl Thread {
    fn run(mut self) {
        if let PictureSource::Avatar(_, picture) = &self.source {
            self.graph.set_picture(*picture);
        }
        while !self.control.stop.load(Ordering::Relaxed) {
            self.graph.read_bus();
            if let Some(failure) = self.graph.failure() {
                *self.control.failure.lock() = Some(failure);
                return;
            }
            let now = clock::now();
            let next = match self.pictures(now) {
                Ok(next) => next,
                Err(failure) => {
                    *self.control.failure.lock() = Some(failure.to_string());
                    return;
                }
            };
            let next = next.min(self.sound(now)).min(now + NAP);
            self.jitter_buffer.wait(next);
        }
    }

    /// Shows what is due; returns when to look again.
    fn pictures(&mut self, now: Nanos) -> Result<Nanos> {
        match &mut self.source {
            PictureSource::Avatar(..) => self.avatar(now),
            PictureSource::Live => Ok(self.live(now)),
        }
    }

    fn avatar(&mut self, now: Nanos) -> Result<Nanos> {
        loop {
            let PictureSource::Avatar(player, _) = &mut self.source else { return Ok(now + NAP) };
            let (at, buffer, duration) = match self.next_frame.take() {
                Some(frame) => frame,
                None => {
                    if let Some(clip) = self.control.wanted_clip.lock().take() {
                        player.switch(&clip)?;
                    }
                    let (buffer, duration) = player.next_frame()?;
                    let duration = clock::nanos(duration).clamp(MS, SECOND);
                    let at = self.shown.as_ref().map_or(now, |shown| shown.at + duration);
                    if *self.control.clip.lock() != player.clip() {
                        *self.control.clip.lock() = player.clip().to_owned();
                    }
                    (if now - at > LAPSE { now } else { at }, buffer, duration)
                }
            };
            if at > now {
                self.next_frame = Some((at, buffer, duration));
                return Ok(at);
            }
            self.show(buffer, at, duration);
        }
    }

    fn live(&mut self, now: Nanos) -> Nanos {
        let interval = self.jitter_buffer.interval().unwrap_or(INTERVAL);
        while let Some(frame) = self.jitter_buffer.frame(now) {
            let Some(picture) = self.jitter_buffer.picture() else { break };
            if self.picture != Some(picture) {
                self.graph.set_picture(picture);
                self.picture = Some(picture);
            }
            // What is due before, or with, a frame that has been shown in its place already is not shown.
            if self.shown.as_ref().is_none_or(|shown| frame.at > shown.at + MS) {
                self.show(frame.buffer, frame.at, interval);
            }
        }
        while let Some(shown) = &self.shown {
            let next = shown.at + interval;
            let missed = next + GRACE.max(interval / 2);
            if now < missed {
                break;
            }
            let at = if now - next > LAPSE { now } else { next };
            let buffer = shown.buffer.clone();
            // Without a publisher there is nothing else to show.
            self.control.held.fetch_add(u64::from(self.jitter_buffer.holds(Slot::Main)), Ordering::Relaxed);
            self.show(buffer, at, interval);
        }
        let missed = self.shown.as_ref().map(|shown| shown.at + interval + GRACE.max(interval / 2));
        let next = self.jitter_buffer.next_frame();
        next.into_iter().chain(missed).min().unwrap_or(now + NAP)
    }

    fn show(&mut self, buffer: gst::Buffer, at: Nanos, duration: Nanos) {
        self.graph.show(&buffer, at, duration);
        self.control.showing.store(true, Ordering::Relaxed);
        self.shown = Some(Shown { buffer, at });
    }

    /// Says the stretches that are complete; returns when the next one is. Sound begins with the first picture.
    fn sound(&mut self, now: Nanos) -> Nanos {
        let Some(shown) = &self.shown else { return now + NAP };
        let mut from = *self.next_stretch.get_or_insert_with(|| periods(shown.at));
        loop {
            let at = (from as i128 * SECOND as i128 / RATE as i128) as Nanos;
            if at + TICK > now {
                self.next_stretch = Some(from);
                return at + TICK;
            }
            if now - at > LAPSE {
                from = periods(now - TICK);
                continue;
            }
            let first = self.first.stretch(&self.jitter_buffer, from);
            let second = self.second.as_mut().map(|speaker| speaker.stretch(&self.jitter_buffer, from));
            if !self.graph.say(&first, second.as_deref(), at) {
                self.control.unsaid.fetch_add(1, Ordering::Relaxed);
            }
            from += TICK_FRAMES as i64;
        }
    }
}
