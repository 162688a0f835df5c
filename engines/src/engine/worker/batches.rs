//! The queue of a worker: which items pass a stage together, and what becomes of them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    super::{Engine, work::Work},
    ticket::{Outcome, Refusal, SubmitError},
};
use crate::{Error, Result, stats};

pub(super) struct Item {
    pub(super) stream: u64,
    pub(super) work: Work,
    /// Place in its stream.
    pub(super) place: u64,
    /// Since when it waits for its next stage.
    pub(super) since: Instant,
    /// Whoever waits for it runs its stages.
    pub(super) at_once: bool,
    /// Of its stream.
    pub(super) taken: Arc<AtomicU64>,
    /// Gone with the ticket.
    pub(super) wanted: Weak<()>,
    pub(super) reply: Sender<Outcome>,
}

impl Item {
    fn stage(&self) -> Option<usize> {
        self.work.next().map(|pass| pass.stage)
    }
}

#[derive(Default)]
pub(super) struct StreamState {
    pub(super) flushes: u64,
    /// Place of the next item.
    pub(super) next: u64,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Item>,
    /// Streams of which a batch that runs now has items.
    pub(super) busy: HashSet<u64>,
    pub(super) streams: HashMap<u64, StreamState>,
    pub(super) next_stream: u64,
    pub(super) closed: bool,
    /// Of each stage.
    pub(super) counts: Vec<Counts>,
    pub(super) exhausted: u64,
    /// Batches that run now.
    pub(super) running: usize,
}

/// What a stage has done, as [`StageStats`](super::StageStats).
#[derive(Clone, Default)]
pub(super) struct Counts {
    pub(super) batches: u64,
    pub(super) items: u64,
    pub(super) rows: u64,
    pub(super) most: Option<usize>,
}

/// Items that go through a stage together, and what their streams' flush counts were.
struct Batch {
    stage: usize,
    items: Vec<Item>,
    epochs: Vec<u64>,
}

/// What a batch learnt of memory: the most items that are tried together from now on, and how many had no room at all.
#[derive(Default)]
struct MemoryEnded {
    most: Option<usize>,
    items: u64,
}

pub(super) struct Shared {
    pub(super) engine: Arc<dyn Engine>,
    /// Most batches at a time.
    pub(super) lanes: usize,
    pub(super) batch_size: usize,
    /// In nanoseconds.
    pub(super) batch_timeout: AtomicU64,
    pub(super) capacity: usize,
    pub(super) queue: Mutex<Queue>,
    /// What the worker's own threads sleep on,
    pub(super) changed: Condvar,
    /// and those that wait for a ticket and help.
    pub(super) helped: Condvar,
    pub(super) times: Vec<stats::Timer>,
}

impl Shared {
    pub(super) fn batch_timeout(&self) -> Duration {
        Duration::from_nanos(self.batch_timeout.load(Relaxed))
    }

    /// Whether work asks for stages that there are and brings what the first of them reads.
    pub(super) fn check(&self, work: &Work) -> Result<(), SubmitError> {
        let refuse = |cause: String| Err(SubmitError::DoesNotFit { engine: self.engine.spec().name.clone(), cause });
        let stages = self.engine.stages();
        if let Some(stage) = work.stages().find(|stage| *stage >= stages.len()) {
            return refuse(format!("it asks for stage {stage} of {}", stages.len()));
        }
        let Some(pass) = work.next() else { return Ok(()) };
        for name in stages[pass.stage].inputs() {
            match work.get(name) {
                None if work.shape(name).is_some() => (),
                None => return refuse(format!("`{name}` is missing")),
                Some(tensor) if tensor.shape.iter().product::<usize>() != tensor.data.len() => {
                    return refuse(format!(
                        "`{name}` has the shape {:?} and {} numbers",
                        tensor.shape,
                        tensor.data.len()
                    ));
                }
                Some(_) => (),
            }
        }
        Ok(())
    }

    pub(super) fn run(&self) {
        let mut queue = self.queue.lock();
        while !queue.closed {
            match self.gather(&mut queue) {
                Ok(batch) => MutexGuard::unlocked(&mut queue, || self.pass(batch)),
                Err(due) => sleep(&self.changed, &mut queue, due),
            }
        }
        for item in queue.waiting.drain(..) {
            let _ = item.reply.send(Err(Refusal::Ended));
        }
        drop(queue);
        self.helped.notify_all();
    }

    /// Waits for an outcome and runs batches meanwhile, where the device takes one more.
    pub(super) fn help(
        &self,
        outcome: &Receiver<Outcome>,
        deadline: Option<Instant>,
    ) -> Result<Outcome, RecvTimeoutError> {
        let mut queue = self.queue.lock();
        loop {
            // Outcomes are sent under the lock, so none can come between here and the sleep.
            match outcome.try_recv() {
                Ok(outcome) => return Ok(outcome),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if queue.closed => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => (),
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(RecvTimeoutError::Timeout);
            }
            match self.gather(&mut queue) {
                Ok(batch) => MutexGuard::unlocked(&mut queue, || self.pass(batch)),
                Err(due) => sleep(&self.helped, &mut queue, due.into_iter().chain(deadline).min()),
            }
        }
    }

    /// Lets a batch pass its stage, and sends what is finished.
    fn pass(&self, batch: Batch) {
        let Batch { stage, items, epochs } = batch;
        let (mut works, items): (Vec<Work>, Vec<_>) = items
            .into_iter()
            .map(|item| (item.work, (item.stream, item.place, item.at_once, item.taken, item.wanted, item.reply)))
            .unzip();
        let network = &self.engine.stages()[stage];
        let rows_of = Vec::from_iter(works.iter().map(|work| work.rows_of(network.inputs())));
        let rows: usize = rows_of.iter().sum();
        let mut ended = MemoryEnded::default();
        let began = Instant::now();
        let failures = self.times[stage].time(|| self.failures(stage, &mut works, false, &mut ended));
        let took = nanoseconds(began.elapsed()) as u128;
        for ((.., taken, _, _), own) in items.iter().zip(rows_of) {
            // No more than the whole.
            taken.fetch_add((took * own as u128 / rows.max(1) as u128) as u64, Relaxed);
        }
        for cause in failures.iter().flatten() {
            tracing::error!(%cause, stage = self.engine.stages()[stage].kind().name(), "a stage failed");
        }
        let mut queue = self.queue.lock();
        queue.running -= 1;
        queue.exhausted += ended.items;
        let counts = &mut queue.counts[stage];
        (counts.batches, counts.items, counts.rows) =
            (counts.batches + 1, counts.items + items.len() as u64, counts.rows + rows as u64);
        counts.most = counts.most.into_iter().chain(ended.most).min();
        let mut unfinished = Vec::new();
        let all = works.into_iter().zip(items).zip(epochs).zip(failures);
        for (((mut work, (stream, place, at_once, taken, wanted, reply)), epoch), failed) in all {
            queue.busy.remove(&stream);
            work.advance();
            // Nobody may be waiting for it any more.
            let _ = match (failed, queue.streams.get(&stream).map(|state| state.flushes) == Some(epoch)) {
                (_, false) => reply.send(Err(Refusal::Flushed)),
                (Some(cause), _) => reply.send(Err(Refusal::Failed(cause))),
                (None, _) if work.next().is_none() => reply.send(Ok(work)),
                _ => {
                    let since = Instant::now();
                    unfinished.push(Item { stream, work, place, since, at_once, taken, wanted, reply });
                    Ok(())
                }
            };
        }
        unfinished.into_iter().rev().for_each(|item| queue.waiting.push_front(item));
        let own = queue.waiting.iter().any(|item| !item.at_once);
        drop(queue);
        self.helped.notify_all();
        if own {
            self.changed.notify_all();
        }
    }

    /// Lets items pass a stage; why each of them did not. Where one may be to blame, each goes alone; a batch that was too large is
    /// halved, once.
    fn failures(&self, stage: usize, works: &mut [Work], halved: bool, ended: &mut MemoryEnded) -> Vec<Option<String>> {
        let (part, halved) = match self.evaluate(stage, works) {
            Ok(()) => return vec![None; works.len()],
            Err(Error::NotFinite { .. }) if works.len() > 1 => (1, halved),
            Err(error @ Error::OutOfMemory { .. }) if works.len() > 1 && !halved => {
                tracing::warn!(%error, items = works.len(), "a batch is halved");
                let half = works.len().div_ceil(2);
                ended.most = Some(half);
                (half, true)
            }
            Err(error) => {
                if matches!(error, Error::OutOfMemory { .. }) {
                    ended.items += works.len() as u64;
                    ended.most = Some(works.len().div_ceil(2));
                }
                return vec![Some(error.to_string()); works.len()];
            }
        };
        works.chunks_mut(part).flat_map(|works| self.failures(stage, works, halved, ended)).collect()
    }

    fn evaluate(&self, stage: usize, works: &mut [Work]) -> Result<()> {
        // What a panic leaves behind belongs to these items alone, and they are dropped.
        catch_unwind(AssertUnwindSafe(|| self.engine.stages()[stage].run(works)))
            .unwrap_or_else(|panic| Err(Error::invalid(format!("a stage panicked: {}", said(panic.as_ref())))))
    }

    /// Takes the next batch out; where there is none yet, when one will be due without anything more coming.
    fn gather(&self, queue: &mut Queue) -> Result<Batch, Option<Instant>> {
        queue.waiting.retain(|item| item.wanted.strong_count() > 0);
        if queue.running >= self.lanes {
            return Err(None);
        }
        let (stage, chosen, most) = self.choose(queue).ok_or(None)?;
        let oldest = chosen.iter().map(|i| queue.waiting[*i].since).min();
        let due = oldest.map(|since| since + self.batch_timeout()).filter(|due| Instant::now() < *due);
        if due.is_some() && chosen.len() < most.min(queue.streams.len()) {
            return Err(due);
        }
        let mut left = VecDeque::with_capacity(queue.waiting.len());
        let mut items = Vec::with_capacity(chosen.len());
        let mut chosen = chosen.into_iter().peekable();
        for (i, item) in std::mem::take(&mut queue.waiting).into_iter().enumerate() {
            if chosen.next_if_eq(&i).is_some() { items.push(item) } else { left.push_back(item) }
        }
        queue.waiting = left;
        queue.busy.extend(items.iter().map(|item| item.stream));
        let flushes = |item: &Item| queue.streams.get(&item.stream).map_or(u64::MAX, |state| state.flushes);
        let epochs = items.iter().map(flushes).collect();
        queue.running += 1;
        Ok(Batch { stage, items, epochs })
    }

    /// Which of the waiting items may go through a stage together, the first of them that may go before all, and how many
    /// the stage takes. An item waits while an earlier one of its stream is in another batch or has more to pass.
    fn choose(&self, queue: &Queue) -> Option<(usize, Vec<usize>, usize)> {
        // Of each stream, the earliest place that waits with so much to pass.
        let ahead = |item: &Item| {
            let longer = |other: &&Item| {
                other.stream == item.stream
                    && other.place < item.place
                    && other.work.remaining() > item.work.remaining()
            };
            queue.waiting.iter().find(longer).is_some()
        };
        let free = |item: &Item| !queue.busy.contains(&item.stream) && !ahead(item);
        let first = queue.waiting.iter().position(free)?;
        let stage = queue.waiting[first].stage()?;
        let network = &self.engine.stages()[stage];
        let most = network.sizes().last().copied().unwrap_or(1).min(self.batch_size);
        let alike = |item: &Item| {
            let first = &queue.waiting[first].work;
            network.inputs().iter().all(|name| item.work.shape(name) == first.shape(name))
        };
        let rows = |item: &Item| item.work.rows_of(network.inputs());
        let mut chosen = vec![first];
        let mut total = rows(&queue.waiting[first]);
        let at_most = queue.counts[stage].most.unwrap_or(usize::MAX);
        for (i, item) in queue.waiting.iter().enumerate().skip(first + 1) {
            if total + rows(item) > most || chosen.len() >= at_most {
                break;
            }
            if item.stage() == Some(stage) && free(item) && alike(item) {
                total += rows(item);
                chosen.push(i);
            }
        }
        Some((stage, chosen, most.min(at_most)))
    }
}

fn sleep(on: &Condvar, queue: &mut MutexGuard<Queue>, until: Option<Instant>) {
    match until {
        Some(until) => drop(on.wait_until(queue, until)),
        None => on.wait(queue),
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
