//! What has arrived from a session's live sources and waits for its time.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    clock::{self, Nanos},
    timemap::{Mapped, TimeMap},
    track::Track,
};
use crate::live::{CHANNELS, Description, Intake, Picture, RATE, Slot};

/// Most frames that wait: more come from a source that sends faster than real time.
const MAX_FRAMES: usize = 64;
/// Memory for frames that wait.
const MAX_FRAME_BYTES: usize = 192 << 20;
/// An interval between frames is believed between these.
const INTERVALS: std::ops::RangeInclusive<Nanos> = 5 * clock::MS..=200 * clock::MS;

/// A frame with its place on clock time.
pub struct Frame {
    pub buffer: gst::Buffer,
    pub at: Nanos,
}

#[derive(Default)]
struct Source {
    /// The source that holds the place; 0 is none.
    id: u64,
    map: TimeMap,
    sound: Track,
    sent: Sent,
}

/// What a source sends, or sent last.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub who: String,
    pub video_codec: Option<String>,
    pub picture: Option<Picture>,
    pub audio_codec: Option<String>,
    /// Rate in Hz and channels.
    pub sound: Option<(u32, u32)>,
    /// Clock time at which the last of it came.
    pub seen: Option<Nanos>,
}

#[derive(Default)]
struct State {
    /// Of the session, for the log.
    name: String,
    main: Source,
    voice: Source,
    voice_b: Source,
    picture: Option<Picture>,
    frames: VecDeque<Frame>,
    last_at: Option<Nanos>,
    /// Between the source's frames, smoothed.
    interval: Option<Nanos>,
    next: u64,
    /// When the last source left; before there was one, when it was made.
    left: Option<Instant>,
    /// Whether a graph takes from it; without one nothing is kept.
    playing: bool,
}

/// See the module. Sources put in from their own threads, the pacer takes.
#[derive(Default)]
pub struct JitterBuffer {
    state: Mutex<State>,
    arrival: Condvar,
    dropped: AtomicU64,
    /// Frames are A420.
    alpha: bool,
}

impl JitterBuffer {
    /// For the session of this name.
    pub fn new(name: &str) -> Self {
        Self {
            state: Mutex::new(State { name: name.to_owned(), left: Some(Instant::now()), ..State::default() }),
            ..Self::default()
        }
    }

    /// Whose frames keep their transparency, or not.
    pub fn keeping(self, alpha: bool) -> Self {
        Self { alpha, ..self }
    }

    /// What the source of a place sends, or the one before sent; `None` where there was none.
    pub fn sent(&self, place: Slot) -> Option<Sent> {
        let mut state = self.state.lock();
        Some(state.place(place).sent.clone()).filter(|sent| !sent.who.is_empty())
    }

    /// Takes a place; `Err` names who has it.
    pub fn claim(&self, place: Slot, who: &str) -> Result<u64, String> {
        let mut state = self.state.lock();
        let id = state.next + 1;
        let source = state.place(place);
        if source.id != 0 {
            return Err(source.sent.who.clone());
        }
        source.id = id;
        source.sent = Sent { who: who.to_owned(), ..Sent::default() };
        source.map.restart();
        source.sound.clear();
        if place == Slot::Main {
            state.frames.clear();
            state.interval = None;
            // The size stays, the rate is the new source's.
            state.picture.iter_mut().for_each(|picture| picture.fps = (0, 1));
        }
        state.next = id;
        Ok(id)
    }

    pub fn holds(&self, place: Slot) -> bool {
        self.state.lock().place(place).id != 0
    }

    /// Since when no source holds a place; `None` while one does.
    pub fn unheld(&self) -> Option<Duration> {
        let state = self.state.lock();
        let held = [&state.main, &state.voice, &state.voice_b].iter().any(|source| source.id != 0);
        state.left.filter(|_| !held).map(|left| left.elapsed())
    }

    /// A graph begins or stops to take.
    pub fn set_playing(&self, playing: bool) {
        let mut state = self.state.lock();
        state.playing = playing;
        state.frames.clear();
        state.last_at = None;
        for place in [Slot::Main, Slot::Voice, Slot::VoiceB] {
            state.place(place).sound.clear();
        }
    }

    /// The session's picture: what the first frame was, until it is forgotten.
    pub fn picture(&self) -> Option<Picture> {
        self.state.lock().picture
    }

    /// The next source's first frame decides the size anew. Does nothing while a source is there.
    pub fn forget_picture(&self) {
        let mut state = self.state.lock();
        if state.main.id == 0 {
            state.picture = None;
        }
    }

    /// Takes the frame whose time has come, passing over those that a later one has overtaken.
    pub fn frame(&self, now: Nanos) -> Option<Frame> {
        let mut state = self.state.lock();
        let mut due = None;
        while state.frames.front().is_some_and(|frame| frame.at <= now) {
            // After a wait of ours two may be due at once; both are shown when they are not too close for the eye.
            if due.is_some() {
                break;
            }
            due = state.frames.pop_front();
        }
        due
    }

    /// When the next frame is due, where one waits.
    pub fn next_frame(&self) -> Option<Nanos> {
        self.state.lock().frames.front().map(|frame| frame.at)
    }

    pub fn interval(&self) -> Option<Nanos> {
        self.state.lock().interval
    }

    /// Sound of a place for a stretch that begins at sample period `from`. Returns whether there was any.
    pub fn sound(&self, place: Slot, from: i64, out: &mut [f32]) -> bool {
        self.state.lock().place(place).sound.take(from, out)
    }

    /// Waits until `until` at most, or until a frame arrives.
    pub fn wait(&self, until: Nanos) {
        let left = until - clock::now();
        if left <= 0 {
            return;
        }
        let mut state = self.state.lock();
        self.arrival.wait_for(&mut state, Duration::from_nanos(left as u64));
    }

    pub fn wake(&self) {
        self.arrival.notify_all();
    }

    /// Frames that came too late or faster than they could be shown.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn missing(&self, place: Slot) -> u64 {
        self.state.lock().place(place).sound.missing()
    }

    /// Sound against pictures of the main source: how far the sound is off its timestamps, in nanoseconds. Pictures
    /// are placed exactly.
    pub fn sound_offset(&self, place: Slot) -> Nanos {
        self.state.lock().place(place).sound.offset()
    }

    pub fn skew(&self) -> f64 {
        self.state.lock().main.map.skew()
    }

    pub fn headroom(&self, place: Slot) -> Nanos {
        self.state.lock().place(place).map.headroom()
    }

    fn drop_frame(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl State {
    fn place(&mut self, place: Slot) -> &mut Source {
        match place {
            Slot::Main => &mut self.main,
            Slot::Voice => &mut self.voice,
            Slot::VoiceB => &mut self.voice_b,
        }
    }

    /// The source with this id, unless it has ended.
    fn source(&mut self, id: u64) -> Option<&mut Source> {
        [&mut self.main, &mut self.voice, &mut self.voice_b].into_iter().find(|source| source.id == id)
    }
}

impl Intake for JitterBuffer {
    fn format(&self) -> Option<Picture> {
        self.picture()
    }

    fn keeps_alpha(&self) -> bool {
        self.alpha
    }

    fn video(&self, source: u64, picture: Picture, buffer: gst::Buffer, at: Duration) {
        let now = clock::now();
        let mut state = self.state.lock();
        if state.main.id != source {
            return;
        }
        state.main.sent.seen = Some(now);
        let size = state.picture.get_or_insert(picture);
        if (size.width, size.height) != (picture.width, picture.height) {
            return self.drop_frame();
        }
        // Another source, or the same after a change of its settings, may have another rate.
        if picture.fps.0 > 0 {
            size.fps = picture.fps;
        }
        let mapped = state.main.map.arrive(clock::nanos(at), 0, now);
        let time = mapped.time();
        if let Mapped::Jump(_) = mapped {
            state.frames.clear();
            state.main.sound.clear();
        } else if let Some(last) = state.last_at {
            let step = time - last;
            if INTERVALS.contains(&step) {
                let known = state.interval.unwrap_or(step);
                state.interval = Some(known + (step - known) / 8);
            }
        }
        state.last_at = Some(time);
        if !state.playing {
            return;
        }
        let full = state.frames.len() >= MAX_FRAMES.min(MAX_FRAME_BYTES / buffer.size().max(1));
        // What is more than a frame late has been held already: showing it would only add a jerk.
        if full || time < now - 2 * state.interval.unwrap_or(40 * clock::MS) {
            return self.drop_frame();
        }
        state.frames.push_back(Frame { buffer, at: time });
        drop(state);
        self.arrival.notify_all();
    }

    fn audio(&self, source: u64, samples: &[f32], at: Duration) {
        let now = clock::now();
        let length = (samples.len() / CHANNELS) as Nanos * clock::SECOND / RATE as Nanos;
        let mut state = self.state.lock();
        let playing = state.playing;
        let is_main = state.main.id == source;
        let Some(source) = state.source(source) else { return };
        source.sent.seen = Some(now);
        let mapped = source.map.arrive(clock::nanos(at), length, now);
        let jumped = matches!(mapped, Mapped::Jump(_));
        if jumped {
            source.sound.clear();
        }
        if playing {
            source.sound.push(samples, mapped.time());
        }
        if jumped && is_main {
            state.frames.clear();
        }
    }

    fn restart(&self, source: u64) {
        let mut state = self.state.lock();
        let is_main = state.main.id == source;
        if let Some(source) = state.source(source) {
            source.map.restart();
            source.sound.clear();
        }
        if is_main {
            state.frames.clear();
        }
    }

    fn describe(&self, source: u64, what: Description) {
        let mut state = self.state.lock();
        let name = state.name.clone();
        let shown = state.picture.filter(|_| state.main.id == source);
        let Some(source) = state.source(source) else { return };
        let sent = &mut source.sent;
        match what {
            Description::VideoCodec(codec) => sent.video_codec = Some(codec),
            Description::AudioCodec(codec) => sent.audio_codec = Some(codec),
            Description::Sound(rate, channels) => sent.sound = Some((rate, channels)),
            Description::Picture(picture) => {
                if sent.picture != Some(picture) {
                    let Picture { width, height, fps: (frames, seconds) } = picture;
                    let kept = shown.filter(|shown| (shown.width, shown.height) != (width, height));
                    let scaled = kept.map(|shown| format!(", scaled to {}x{}", shown.width, shown.height));
                    let (scaled, rate) = (scaled.unwrap_or_default(), format!(" at {frames}/{seconds} fps"));
                    let rate = if frames > 0 { rate } else { String::new() };
                    let who = &sent.who;
                    tracing::info!("session `{name}`: {who} sends {width}x{height}{rate}{scaled}");
                }
                sent.picture = Some(picture);
            }
        }
    }

    fn end(&self, source: u64) {
        let mut state = self.state.lock();
        let name = state.name.clone();
        if let Some(source) = state.source(source) {
            tracing::info!("session `{name}`: {} is gone", source.sent.who);
            source.id = 0;
            source.sound.end();
            state.left = Some(Instant::now());
        }
    }
}
