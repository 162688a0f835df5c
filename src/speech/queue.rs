//! A bounded queue of speech between whoever speaks, at any pace, and the session, which takes it at its own.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, broadcast};
use utoipa::ToSchema;

/// Rate of the speech in the queue, in Hz; one channel.
pub const RATE: u32 = crate::live::RATE;
/// Ramp where speech begins, ends or is cut, in samples: 5 ms, so that nothing clicks.
const RAMP: usize = RATE as usize / 200;
const EVENTS: usize = 64;

/// What happens to the speech, in order.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// An utterance has been opened; its sound is expected.
    Listening { utterance: String },
    /// The first sample of an utterance was taken.
    Speaking { utterance: String },
    /// The last sample of what was queued was taken.
    Idle,
    /// An interruption is through: the queue is empty and the mouth at rest after so many milliseconds.
    Flushed { ms: f64 },
}

/// The speech was interrupted; what was to follow is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the speech was interrupted")]
pub struct Cut;

struct Utterance {
    id: String,
    samples: VecDeque<f32>,
    started: bool,
    finished: bool,
}

#[derive(Default)]
struct State {
    utterances: VecDeque<(u64, Utterance)>,
    queued: usize,
    next: u64,
    /// Samples of the last interrupted utterance that ramp down.
    tail: Vec<f32>,
    /// Whether the last sample taken was speech.
    sounding: bool,
    speaking: bool,
    last_speech: Option<Instant>,
}

/// See the module.
pub struct Queue {
    bound: usize,
    state: Mutex<State>,
    space: Notify,
    events: broadcast::Sender<Event>,
}

impl Queue {
    /// A queue for at most `bound` of speech.
    pub fn new(bound: Duration) -> Arc<Self> {
        Arc::new(Self {
            bound: (bound.as_secs_f64() * RATE as f64) as usize,
            state: Mutex::default(),
            space: Notify::new(),
            events: broadcast::Sender::new(EVENTS),
        })
    }

    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(crate) fn tell(&self, event: Event) {
        // No receiver is no error.
        let _ = self.events.send(event);
    }

    /// Opens an utterance, spoken after those before it.
    pub fn writer(self: &Arc<Self>, utterance: &str) -> Writer {
        let number = {
            let mut state = self.state.lock();
            let number = state.next;
            state.next += 1;
            let new = Utterance { id: utterance.to_owned(), samples: VecDeque::new(), started: false, finished: false };
            state.utterances.push_back((number, new));
            number
        };
        self.tell(Event::Listening { utterance: utterance.to_owned() });
        Writer { queue: self.clone(), number }
    }

    /// Speech that waits to be spoken.
    pub fn queued(&self) -> Duration {
        Duration::from_secs_f64(self.state.lock().queued as f64 / RATE as f64)
    }

    pub fn speaking(&self) -> bool {
        self.state.lock().speaking
    }

    /// Empties the queue and cuts all open utterances. Returns how much was thrown away.
    pub fn interrupt(&self) -> Duration {
        let thrown = {
            let mut state = self.state.lock();
            let sounding = state.sounding;
            let mut tail = Vec::new();
            if let Some((_, current)) = state.utterances.front().filter(|_| sounding) {
                let ramp = current.samples.iter().take(RAMP).enumerate();
                tail = ramp.map(|(n, sample)| sample * (1.0 - (n + 1) as f32 / RAMP as f32)).collect();
            }
            state.utterances.clear();
            state.tail = tail;
            std::mem::take(&mut state.queued)
        };
        self.space.notify_waiters();
        Duration::from_secs_f64(thrown as f64 / RATE as f64)
    }

    /// Fills `out` with the next samples of speech, silence where there is none. Returns whether any of it is speech.
    /// Never waits.
    pub fn take(&self, out: &mut [f32]) -> bool {
        let mut events = Vec::new();
        let speech = self.state.lock().take(out, &mut events);
        self.space.notify_waiters();
        events.into_iter().for_each(|event| self.tell(event));
        speech
    }
}

impl State {
    fn take(&mut self, out: &mut [f32], events: &mut Vec<Event>) -> bool {
        out.fill(0.0);
        let mut filled = self.tail.len().min(out.len());
        out[..filled].copy_from_slice(&self.tail[..filled]);
        self.tail.clear();
        let mut speech = filled > 0;
        let mut sounding = false;
        while filled < out.len() {
            let Some((_, current)) = self.utterances.front_mut() else { break };
            if current.samples.is_empty() {
                if !current.finished {
                    break;
                }
                self.utterances.pop_front();
                continue;
            }
            if !current.started {
                current.started = true;
                events.push(Event::Speaking { utterance: current.id.clone() });
            }
            let count = current.samples.len().min(out.len() - filled);
            for (target, sample) in out[filled..].iter_mut().zip(current.samples.drain(..count)) {
                *target = sample;
            }
            if !self.sounding && !sounding {
                let ramp = &mut out[filled..filled + count.min(RAMP)];
                ramp.iter_mut().enumerate().for_each(|(n, sample)| *sample *= n as f32 / RAMP as f32);
            }
            self.queued -= count;
            filled += count;
            (speech, sounding) = (true, true);
        }
        // Speech that breaks off within this stretch ends softly.
        if sounding && filled < out.len() {
            let from = filled.saturating_sub(RAMP);
            let length = filled - from;
            for (n, sample) in out[from..filled].iter_mut().enumerate() {
                *sample *= 1.0 - (n + 1) as f32 / length as f32;
            }
        }
        self.sounding = sounding && filled == out.len();
        while self.utterances.front().is_some_and(|(_, u)| u.finished && u.samples.is_empty()) {
            self.utterances.pop_front();
        }
        let active = speech || self.utterances.iter().any(|(_, u)| u.started);
        if self.speaking && !active {
            events.push(Event::Idle);
        }
        self.speaking = active;
        if speech {
            self.last_speech = Some(Instant::now());
        }
        speech
    }
}

/// Adds to one utterance. Dropping it ends the utterance where it is.
pub struct Writer {
    queue: Arc<Queue>,
    number: u64,
}

impl Writer {
    /// Adds samples, -1..1 at 48 kHz, waiting while the queue is full. Fails when the speech has been interrupted.
    pub async fn write(&mut self, mut samples: &[f32]) -> Result<(), Cut> {
        while !samples.is_empty() {
            let queue = self.queue.clone();
            let space = queue.space.notified();
            let taken = self.add(samples)?;
            samples = &samples[taken..];
            if !samples.is_empty() {
                space.await;
            }
        }
        Ok(())
    }

    /// Adds as many samples as there is space for, at once.
    pub fn add(&mut self, samples: &[f32]) -> Result<usize, Cut> {
        let mut state = self.queue.state.lock();
        let taken = self.queue.bound.saturating_sub(state.queued).min(samples.len());
        let (_, own) = state.utterances.iter_mut().find(|(number, _)| *number == self.number).ok_or(Cut)?;
        own.samples.extend(samples[..taken].iter().map(|s| if s.is_finite() { s.clamp(-1.0, 1.0) } else { 0.0 }));
        state.queued += taken;
        Ok(taken)
    }

    /// Whether an interruption has thrown the utterance away.
    pub fn is_cut(&self) -> bool {
        !self.queue.state.lock().utterances.iter().any(|(number, _)| *number == self.number)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if let Some((_, own)) = state.utterances.iter_mut().find(|(number, _)| *number == self.number) {
            own.finished = true;
        }
    }
}
