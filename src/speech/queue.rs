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

use super::edges::Edges;

/// Rate of the speech in the queue, in Hz; one channel.
pub const RATE: u32 = crate::live::RATE;
const EVENTS: usize = 64;
/// Utterances that may wait, sound or none.
const MAX_UTTERANCES: usize = 256;
/// The utterance that is spoken next may always hold so much, in samples: 1 s. Otherwise one behind it that has filled
/// the queue would keep its sound out for ever.
const RESERVE: usize = RATE as usize;
/// What an utterance that ran dry must have before it goes on, in samples: 100 ms, so that sound which comes in small
/// pieces at just the pace of speech breaks off once and not at every piece,
const REFILL: usize = RATE as usize / 10;
/// and how long that is waited for: 200 ms.
const HELD: usize = RATE as usize / 5;

/// What happens to the speech, in order.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// An utterance has been opened; its sound is expected.
    Listening { utterance: String },
    /// The first sample of an utterance was taken.
    Speaking { utterance: String },
    /// The last sample of what was queued was taken, or an utterance ended without any.
    Idle,
    /// An interruption is through: the queue is empty and the mouth at rest after so many milliseconds.
    Flushed { ms: f64 },
}

/// The speech was interrupted, or its sound stayed away; what was to follow is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the speech was interrupted, or no sound of it came for {} s", STUCK.as_secs())]
pub struct Cut;

/// An open utterance at the front that has got no sound for so long is cut: others wait behind it.
pub const STUCK: Duration = Duration::from_secs(30);

/// The queue holds too many utterances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_UTTERANCES} utterances wait to be spoken, which is the most; wait or interrupt")]
pub struct Full;

struct Utterance {
    id: String,
    samples: VecDeque<f32>,
    started: bool,
    finished: bool,
    /// It ran dry: it goes on when enough has come to last a little.
    dry: bool,
    /// Samples of time that it has waited so, with some sound at hand.
    held: usize,
    /// When it last got sound, or was opened.
    fed: Instant,
}

impl Utterance {
    fn ready(&self) -> bool {
        let enough = !self.dry || self.finished || self.samples.len() >= REFILL || self.held >= HELD;
        enough && !self.samples.is_empty()
    }
}

#[derive(Default)]
struct State {
    utterances: VecDeque<(u64, Utterance)>,
    /// Samples in all utterances.
    queued: usize,
    next: u64,
    edges: Edges,
    speaking: bool,
    taken: Option<Instant>,
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
    pub fn writer(self: &Arc<Self>, utterance: &str) -> Result<Writer, Full> {
        let number = {
            let mut state = self.state.lock();
            if state.utterances.len() >= MAX_UTTERANCES {
                return Err(Full);
            }
            let number = state.next;
            state.next += 1;
            let new = Utterance {
                id: utterance.to_owned(),
                samples: VecDeque::new(),
                started: false,
                finished: false,
                dry: false,
                held: 0,
                fed: Instant::now(),
            };
            state.utterances.push_back((number, new));
            number
        };
        self.tell(Event::Listening { utterance: utterance.to_owned() });
        Ok(Writer { queue: self.clone(), number })
    }

    /// Speech that waits to be spoken.
    pub fn queued(&self) -> Duration {
        Duration::from_secs_f64(self.state.lock().queued as f64 / RATE as f64)
    }

    pub fn speaking(&self) -> bool {
        self.state.lock().speaking
    }

    /// How long ago samples were last taken: a session that does not run takes none. `None`: never.
    pub fn untouched(&self) -> Option<Duration> {
        self.state.lock().taken.map(|at| at.elapsed())
    }

    /// Empties the queue and cuts all open utterances. Returns how much was thrown away.
    pub fn interrupt(&self) -> Duration {
        let thrown = {
            let mut state = self.state.lock();
            let State { utterances, edges, .. } = &mut *state;
            edges.cut(utterances.front().map(|(_, current)| &current.samples));
            utterances.clear();
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
        self.taken = Some(Instant::now());
        let mut speech = self.edges.fading();
        let mut filled = 0;
        while filled < out.len() {
            let Some((_, current)) = self.utterances.front_mut() else { break };
            if !current.ready() {
                if current.finished || (current.samples.is_empty() && current.fed.elapsed() > STUCK) {
                    self.edges.stop();
                    self.utterances.pop_front();
                    continue;
                }
                current.dry = current.started;
                if !current.samples.is_empty() {
                    current.held += out.len() - filled;
                }
                break;
            }
            (current.dry, current.held, speech) = (false, 0, true);
            if !std::mem::replace(&mut current.started, true) {
                events.push(Event::Speaking { utterance: current.id.clone() });
            }
            let count = current.samples.len().min(out.len() - filled);
            let spoken = &mut out[filled..filled + count];
            spoken.iter_mut().zip(current.samples.drain(..count)).for_each(|(target, sample)| *target = sample);
            self.edges.speak(spoken);
            self.queued -= count;
            filled += count;
        }
        if filled < out.len() {
            out[filled..].fill(0.0);
            self.edges.rest(&mut out[filled..]);
        }
        let active = speech || self.edges.fading() || self.utterances.iter().any(|(_, u)| u.started);
        if self.speaking && !active {
            events.push(Event::Idle);
        }
        self.speaking = active;
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
    pub async fn write(&mut self, samples: &[f32]) -> Result<(), Cut> {
        self.write_from(samples, &mut 0).await
    }

    /// As [`write`](Self::write) from sample `at` on, which is moved by what was added: dropping the future loses and
    /// repeats nothing.
    pub async fn write_from(&mut self, samples: &[f32], at: &mut usize) -> Result<(), Cut> {
        while *at < samples.len() {
            let queue = self.queue.clone();
            // Before the look, so that space made in between wakes it.
            let space = queue.space.notified();
            *at += self.add(&samples[*at..])?;
            if *at < samples.len() {
                space.await;
            }
        }
        Ok(())
    }

    /// Adds as many samples as there is space for, at once.
    pub fn add(&mut self, samples: &[f32]) -> Result<usize, Cut> {
        let mut state = self.queue.state.lock();
        let space = self.queue.bound.saturating_sub(state.queued);
        let place = state.utterances.iter().position(|(number, _)| *number == self.number).ok_or(Cut)?;
        let own = &mut state.utterances[place].1;
        let reserve = if place == 0 { RESERVE.saturating_sub(own.samples.len()) } else { 0 };
        let taken = space.max(reserve).min(samples.len());
        own.samples.extend(samples[..taken].iter().map(|s| if s.is_finite() { s.clamp(-1.0, 1.0) } else { 0.0 }));
        own.fed = Instant::now();
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
        let silent = {
            let mut state = self.queue.state.lock();
            let Some(place) = state.utterances.iter().position(|(number, _)| *number == self.number) else { return };
            let own = &mut state.utterances[place].1;
            own.finished = true;
            // Without a sample there is nothing to take: it must not wait for a session to run.
            let empty = !own.started && own.samples.is_empty();
            if empty {
                state.utterances.remove(place);
            }
            empty && state.utterances.is_empty() && !state.speaking
        };
        if silent {
            self.queue.tell(Event::Idle);
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
