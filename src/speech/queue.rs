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

use super::{
    edges::Edges,
    keeper::{Change, Keeper},
};

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
/// How long the sound of an utterance is gathered before its first sample is taken: 80 ms, so that what comes at the pace
/// of speech, in pieces that are not quite even, does not break off,
const GATHERED: usize = RATE as usize * 2 / 25;
/// unless so much is there that it comes faster than it is spoken: 200 ms.
const PLENTY: usize = RATE as usize / 5;

/// What happens to the speech, in order: of each utterance `listening`, `speaking` where a sample of it is heard, `ended`;
/// `idle` after the last `ended` of what was queued; after an interruption `flushed`, behind the `ended` of all utterances
/// that it cut and behind `idle`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// An utterance has been opened; its sound is expected.
    Listening { utterance: String },
    /// The first sample of an utterance was taken.
    Speaking { utterance: String },
    /// An utterance is over: so many milliseconds of it were given to the graph, which shows them about 100 ms later. Of
    /// one that was interrupted, viewers have not heard what was still in the graph.
    Ended {
        utterance: String,
        spoken_ms: f64,
        /// Why not all of it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        cut: Option<Cause>,
    },
    /// Nothing is queued or spoken.
    Idle,
    /// An interruption is through: the queue is empty and the mouth at rest after so many milliseconds.
    Flushed { ms: f64 },
}

/// Why an utterance was not spoken to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// By an interruption.
    Interrupted,
    /// No sound of it came for 30 s.
    Stalled,
    /// Nobody watched the session for as long as speech is kept (`sessions.speech_kept_seconds`).
    Unheard,
}

/// The utterance was cut: what was to follow is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the speech was interrupted, or no sound of it came for {} s, or nobody watched the session for as long as speech is \
     kept (sessions.speech_kept_seconds)",
    STUCK.as_secs()
)]
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
    /// How many of its samples have been taken.
    spoken: usize,
    finished: bool,
    /// It ran dry: it goes on when enough has come to last a little.
    dry: bool,
    /// Samples of time that it has waited so, with some sound at hand.
    held: usize,
    opened: Instant,
    /// When it last got sound, or was opened.
    fed: Instant,
}

impl Utterance {
    fn new(id: &str) -> Self {
        let now = Instant::now();
        Self {
            id: id.to_owned(),
            samples: VecDeque::new(),
            spoken: 0,
            finished: false,
            dry: false,
            held: 0,
            opened: now,
            fed: now,
        }
    }

    fn started(&self) -> bool {
        self.spoken > 0
    }

    fn ready(&self) -> bool {
        let (enough, patience) = match (self.started(), self.dry) {
            (false, _) => (PLENTY, GATHERED),
            (true, true) => (REFILL, HELD),
            (true, false) => (0, 0),
        };
        let enough = self.finished || self.samples.len() >= enough || self.held >= patience;
        enough && !self.samples.is_empty()
    }

    fn ended(&self, cut: Option<Cause>) -> Event {
        Event::Ended { utterance: self.id.clone(), spoken_ms: self.spoken as f64 * 1e3 / f64::from(RATE), cut }
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
    keeper: Option<Arc<dyn Keeper>>,
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

    /// Called with the state locked where the event is of it: events are told in the order in which things happen.
    pub(crate) fn tell(&self, event: Event) {
        // No receiver is no error; none is waited for.
        let _ = self.events.send(event);
    }

    /// Tells `keeper` of all that happens from now on, or nobody any more.
    pub fn set_keeper(&self, keeper: Option<Arc<dyn Keeper>>) {
        self.state.lock().keeper = keeper;
    }

    /// Opens an utterance, spoken after those before it.
    pub fn writer(self: &Arc<Self>, utterance: &str) -> Result<Writer, Full> {
        let mut state = self.state.lock();
        if state.utterances.len() >= MAX_UTTERANCES {
            return Err(Full);
        }
        let number = state.next;
        state.next += 1;
        state.utterances.push_back((number, Utterance::new(utterance)));
        state.keep(Change::Opened { number, utterance });
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
        self.drop_where(Cause::Interrupted, |_| true)
    }

    /// Cuts what has waited for longer than `kept` while nothing was taken.
    pub fn drop_unheard(&self, kept: Duration) {
        if self.untouched().is_none_or(|since| since > kept) {
            self.drop_where(Cause::Unheard, |utterance| utterance.opened.elapsed() > kept);
        }
    }

    /// Samples that the utterance at `place` may still get.
    fn space(&self, state: &State, place: usize) -> usize {
        let held = state.utterances[place].1.samples.len();
        let reserve = if place == 0 { RESERVE.saturating_sub(held) } else { 0 };
        self.bound.saturating_sub(state.queued).max(reserve)
    }

    /// What was cut or has ended is still fading out.
    pub fn fading(&self) -> bool {
        self.state.lock().edges.fading()
    }

    fn drop_where(&self, cause: Cause, unwanted: impl Fn(&Utterance) -> bool) -> Duration {
        let mut state = self.state.lock();
        let State { utterances, edges, .. } = &mut *state;
        if let Some((_, current)) = utterances.front().filter(|(_, current)| unwanted(current)) {
            edges.cut(Some(&current.samples));
        }
        let before = state.queued;
        let any = !state.utterances.is_empty();
        let State { utterances, keeper, .. } = &mut *state;
        utterances.retain(|(number, utterance)| {
            let cut = unwanted(utterance);
            if cut {
                self.tell(utterance.ended(Some(cause)));
                keep(keeper, Change::Gone { number: *number });
            }
            !cut
        });
        state.queued = state.utterances.iter().map(|(_, utterance)| utterance.samples.len()).sum();
        state.speaking = state.utterances.iter().any(|(_, utterance)| utterance.started());
        if any && state.utterances.is_empty() {
            self.tell(Event::Idle);
        }
        let thrown = before - state.queued;
        drop(state);
        self.space.notify_waiters();
        Duration::from_secs_f64(thrown as f64 / RATE as f64)
    }

    /// Fills `out` with the next samples of speech, silence where there is none. Returns whether any of it is speech.
    /// Never waits.
    pub fn take(&self, out: &mut [f32]) -> bool {
        let mut events = Vec::new();
        let mut state = self.state.lock();
        let speech = state.take(out, &mut events);
        events.into_iter().for_each(|event| self.tell(event));
        drop(state);
        self.space.notify_waiters();
        speech
    }
}

fn keep(keeper: &Option<Arc<dyn Keeper>>, change: Change<'_>) {
    if let Some(keeper) = keeper {
        keeper.keep(change);
    }
}

impl State {
    fn keep(&self, change: Change<'_>) {
        keep(&self.keeper, change);
    }

    fn take(&mut self, out: &mut [f32], events: &mut Vec<Event>) -> bool {
        self.taken = Some(Instant::now());
        let mut speech = self.edges.fading();
        let mut filled = 0;
        while filled < out.len() {
            let Some((number, current)) = self.utterances.front_mut() else { break };
            let number = *number;
            if !current.ready() {
                let stalled = current.samples.is_empty() && current.fed.elapsed() > STUCK;
                if current.finished || stalled {
                    events.push(current.ended((stalled && !current.finished).then_some(Cause::Stalled)));
                    self.edges.stop();
                    self.utterances.pop_front();
                    self.keep(Change::Gone { number });
                    continue;
                }
                current.dry = current.started();
                if !current.samples.is_empty() {
                    current.held += out.len() - filled;
                }
                break;
            }
            (current.dry, current.held, speech) = (false, 0, true);
            if !current.started() {
                events.push(Event::Speaking { utterance: current.id.clone() });
            }
            let count = current.samples.len().min(out.len() - filled);
            let spoken = &mut out[filled..filled + count];
            spoken.iter_mut().zip(current.samples.drain(..count)).for_each(|(target, sample)| *target = sample);
            self.edges.speak(spoken);
            current.spoken += count;
            keep(&self.keeper, Change::Taken { number, samples: current.spoken });
            self.queued -= count;
            filled += count;
        }
        if filled < out.len() {
            out[filled..].fill(0.0);
            self.edges.rest(&mut out[filled..]);
        }
        let ended = events.iter().any(|event| matches!(event, Event::Ended { .. }));
        if ended && self.utterances.is_empty() {
            events.push(Event::Idle);
        }
        self.speaking = self.utterances.iter().any(|(_, utterance)| utterance.started());
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
        let place = state.utterances.iter().position(|(number, _)| *number == self.number).ok_or(Cut)?;
        let taken = self.queue.space(&state, place).min(samples.len());
        let own = &mut state.utterances[place].1;
        own.samples.extend(samples[..taken].iter().map(|s| if s.is_finite() { s.clamp(-1.0, 1.0) } else { 0.0 }));
        own.fed = Instant::now();
        state.queued += taken;
        state.keep(Change::Added { number: self.number, samples: &samples[..taken] });
        Ok(taken)
    }

    /// Samples for which there is space now.
    pub fn room(&self) -> Result<usize, Cut> {
        let state = self.queue.state.lock();
        let place = state.utterances.iter().position(|(number, _)| *number == self.number).ok_or(Cut)?;
        Ok(self.queue.space(&state, place))
    }

    /// Whether an interruption has thrown the utterance away.
    pub fn is_cut(&self) -> bool {
        !self.queue.state.lock().utterances.iter().any(|(number, _)| *number == self.number)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        let Some(place) = state.utterances.iter().position(|(number, _)| *number == self.number) else { return };
        let own = &mut state.utterances[place].1;
        own.finished = true;
        // Without a sample there is nothing to take: it must not wait for a session to run.
        if !own.started() && own.samples.is_empty() {
            self.queue.tell(own.ended(None));
            state.utterances.remove(place);
            state.keep(Change::Gone { number: self.number });
            if state.utterances.is_empty() {
                self.queue.tell(Event::Idle);
            }
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
