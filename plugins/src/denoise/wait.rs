//! Where frames wait for features, and features for frames.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use gst::prelude::*;
use lipstream_engines::audio::{Timeline, WindowSpec};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::idle::VoicedSpan;

/// Features may run ahead of the video by this much before their thread is held: 10 s.
const AHEAD_NS: u64 = 10_000_000_000;
/// Features that are kept: what may run ahead, and what windows look back to.
const KEPT: Duration = Duration::from_secs(30);
/// How long the first frame waits for somebody to link the features pad of a pipeline that is not live: demuxers
/// expose their pads one after another.
const UNLINKED: Duration = Duration::from_secs(1);

/// How a frame's wait ended.
#[derive(Debug, PartialEq)]
pub enum Wait {
    /// The window, `[taps * dims]`, and the voice that has become known since the last frame that got one.
    Ready(Vec<f32>, Option<VoicedSpan>),
    /// The deadline has passed.
    Late,
    /// Nobody sends features.
    Absent,
    /// There was an interrupt that the frame's thread knows nothing of.
    Interrupted,
    /// The video is being flushed.
    Flushing,
}

struct Inner {
    /// There between [`Gate::open`] and [`Gate::close`].
    timeline: Option<Timeline>,
    /// Times of the features with voice that no frame has asked for yet, in ns, ascending.
    voiced: VecDeque<u64>,
    /// How often there was an interrupt,
    interrupts: u64,
    /// when the first came after which no frame at rest has left,
    asked: Option<Instant>,
    /// and the running time in ns before which features are silence for it, as they come.
    hushed: u64,
    /// Frames must not wait: before `open`, after `close` and between flush start and flush stop of the video.
    flushing: bool,
    /// The same for features.
    features_flushing: bool,
    /// A stream has begun on the features pad.
    started: bool,
    /// The video has ended: features are of no use any more.
    ended: bool,
    /// Running time of the newest frame, in ns.
    position: Option<u64>,
    /// Running time of the first feature since the start or a flush, in ns.
    first: Option<u64>,
    /// What the frame thread sleeps on when there is a deadline.
    timer: Option<gst::SingleShotClockId>,
    /// When a frame first found the features pad unlinked.
    unlinked: Option<Instant>,
}

impl Inner {
    fn new(timeline: Option<Timeline>) -> Self {
        let closed = timeline.is_none();
        Self {
            timeline,
            voiced: VecDeque::new(),
            interrupts: 0,
            asked: None,
            hushed: 0,
            flushing: closed,
            features_flushing: closed,
            started: false,
            ended: false,
            position: None,
            first: None,
            timer: None,
            unlinked: None,
        }
    }

    /// Takes what a frame at `time` ns may know of the voice, and has not been told to one before it.
    fn voice(&mut self, time: u64) -> Option<VoicedSpan> {
        let spec = self.timeline.as_ref()?.spec();
        let limit = time.saturating_add(spec.reach().as_nanos() as u64);
        let known = self.voiced.partition_point(|at| *at <= limit);
        let (first, last) = (*self.voiced.front()?, *self.voiced.get(known.checked_sub(1)?)?);
        let end = last.saturating_add(spec.hop.as_nanos() as u64);
        self.voiced.drain(..known);
        Some(VoicedSpan { first: gst::ClockTime::from_nseconds(first), last: gst::ClockTime::from_nseconds(end) })
    }
}

/// The meeting of the two streams. Its lock is taken after the video stream's and held while nothing is pushed.
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Default for Gate {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner::new(None)), changed: Condvar::new() }
    }
}

impl Gate {
    pub fn open(&self, spec: WindowSpec) {
        let capacity = KEPT.as_nanos() / spec.hop.as_nanos().max(1);
        let mut inner = self.inner.lock();
        *inner = Inner::new(Some(Timeline::new(spec, capacity as usize)));
    }

    /// Windows are as another engine of the same front-end asks for from now on.
    pub fn set_window(&self, spec: WindowSpec) {
        let mut inner = self.inner.lock();
        if let Some(timeline) = &mut inner.timeline {
            timeline.set_spec(spec);
        }
        self.wake(inner);
    }

    /// Wakes everybody for good.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        (inner.flushing, inner.features_flushing) = (true, true);
        self.wake(inner);
    }

    /// Makes whoever waits look again: the state, the clock, the latency or a link has changed.
    pub fn nudge(&self) {
        self.wake(self.inner.lock());
    }

    /// Begins or ends a flush of the video.
    pub fn flush_video(&self, flushing: bool) {
        let mut inner = self.inner.lock();
        inner.flushing = flushing;
        inner.ended = false;
        inner.position = None;
        self.wake(inner);
    }

    /// Begins or ends a flush of the features; what there was of them is gone.
    pub fn flush_features(&self, flushing: bool) {
        let mut inner = self.inner.lock();
        inner.features_flushing = flushing;
        inner.first = None;
        inner.voiced.clear();
        inner.hushed = 0;
        if let Some(timeline) = &mut inner.timeline {
            timeline.clear();
        }
        self.wake(inner);
    }

    /// What has been heard is silence, as is what will be before `until` (ns of running time); waiting frames go at once.
    pub fn interrupt(&self, until: u64) {
        let mut inner = self.inner.lock();
        inner.interrupts += 1;
        inner.asked.get_or_insert_with(Instant::now);
        inner.hushed = inner.hushed.max(until);
        inner.voiced.clear();
        if let Some(timeline) = &mut inner.timeline {
            timeline.hush();
        }
        self.wake(inner);
    }

    /// How often there was an interrupt.
    pub fn interrupts(&self) -> u64 {
        self.inner.lock().interrupts
    }

    /// A frame at rest leaves: when it was asked for, once an interrupt.
    pub fn rested(&self) -> Option<Instant> {
        self.inner.lock().asked.take()
    }

    /// A stream has begun on the features pad.
    pub fn start_features(&self) {
        let mut inner = self.inner.lock();
        inner.started = true;
        self.wake(inner);
    }

    /// No more features will come.
    pub fn end_features(&self) {
        let mut inner = self.inner.lock();
        inner.started = true;
        if let Some(timeline) = &mut inner.timeline {
            timeline.end();
        }
        self.wake(inner);
    }

    /// Whether the video has ended.
    pub fn end_video(&self, ended: bool) {
        let mut inner = self.inner.lock();
        inner.ended = ended;
        self.wake(inner);
    }

    pub fn flushing(&self) -> bool {
        self.inner.lock().flushing
    }

    /// Adds a feature at `time` ns, with or without voice. When it is far ahead of the video and `hold` says so, waits for the video first.
    /// False when the features are being flushed.
    pub fn push(&self, time: u64, feature: &[f32], voiced: bool, hold: impl Fn() -> bool) -> bool {
        let mut inner = self.inner.lock();
        inner.first.get_or_insert(time);
        loop {
            if inner.features_flushing {
                return false;
            }
            let from = inner.position.or(inner.first).unwrap_or(time);
            // What is already there is asked, not what comes: a frame that waits is never kept from its features.
            let newest = inner.timeline.as_ref().and_then(Timeline::newest);
            if inner.ended || newest.is_none_or(|n| n <= from.saturating_add(AHEAD_NS)) || !hold() {
                break;
            }
            self.changed.wait(&mut inner);
        }
        let Inner { timeline: Some(timeline), voiced: voices, hushed, .. } = &mut *inner else { return false };
        if timeline.newest().is_some_and(|newest| newest >= time) {
            voices.clear();
        }
        let hushed = time < *hushed;
        timeline.push(time, feature);
        if hushed {
            timeline.hush();
        } else if voiced {
            // A video that has stopped asks for none of them.
            if voices.len() == timeline.capacity() {
                voices.pop_front();
            }
            voices.push_back(time);
        }
        self.wake(inner);
        true
    }

    /// The video has come to the frame at `time` ns, whether or not that waits for features: they may run ahead of it.
    pub fn reach(&self, time: u64) {
        self.inner.lock().position = Some(time);
        self.changed.notify_all();
    }

    /// Waits until the frame at `time` ns may have its window, that of `heard` ns. `linked` tells whether the features pad has a peer;
    /// `deadline` gives the clock and the time on it when the frame must go, `None` when it may wait for ever; `live`
    /// whether the pipeline is live; `interrupts` how many interrupts the caller has heeded.
    pub fn wait(
        &self,
        (time, heard, interrupts): (u64, u64, u64),
        linked: impl Fn() -> bool,
        live: impl Fn() -> bool,
        deadline: impl Fn() -> Option<(gst::Clock, gst::ClockTime)>,
    ) -> Wait {
        let mut inner = self.inner.lock();
        inner.position = Some(time);
        self.changed.notify_all();
        loop {
            let Some(timeline) = &inner.timeline else { return Wait::Flushing };
            if inner.flushing {
                return Wait::Flushing;
            }
            if inner.interrupts != interrupts {
                return Wait::Interrupted;
            }
            if timeline.ready(heard) {
                let window = timeline.window(heard);
                return Wait::Ready(window, inner.voice(time));
            }
            if !linked() {
                if inner.started {
                    return Wait::Absent;
                }
                let since = *inner.unlinked.get_or_insert_with(Instant::now);
                if live() || since.elapsed() >= UNLINKED {
                    return Wait::Absent;
                }
                self.changed.wait_until(&mut inner, since + UNLINKED);
                continue;
            }
            let Some((clock, at)) = deadline() else {
                self.changed.wait(&mut inner);
                continue;
            };
            if clock.time() >= at {
                return Wait::Late;
            }
            let timer = clock.new_single_shot_id(at);
            inner.timer = Some(timer.clone());
            MutexGuard::unlocked(&mut inner, || {
                // Whether it rang or was unscheduled is found out above.
                let _ = timer.wait();
            });
            inner.timer = None;
        }
    }

    fn wake(&self, inner: MutexGuard<Inner>) {
        if let Some(timer) = &inner.timer {
            timer.unschedule();
        }
        drop(inner);
        self.changed.notify_all();
    }
}
