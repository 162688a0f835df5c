//! One loaded engine a process, one stage at a time for all streams that wait for it.
//!
//! A pass through a stage is the unit of work. Items of one stream at different steps and items of different streams share
//! a batch where they wait for the same stage with the same shapes. An item that has more to pass goes back to the front of
//! the queue, so items of a stream finish in the order in which they were submitted.
//!
//! Stages run on threads of the worker, or on that of a stream which [waits at once](Stream::wait_at_once): on a busy CPU the
//! way to another thread and back can take longer than the stage. Together they run as many batches at a time as the device
//! takes.

mod ticket;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::ticket::{Outcome, Refusal};
pub use self::ticket::{SubmitError, Ticket, WaitError};
use super::{Engine, StageKind, work::Work};
use crate::{
    Error, Result,
    manifest::Package,
    runtime::Options,
    stats::{self, Percentiles},
};

/// What a worker is made of. The first that asks for an instance sets it.
#[derive(Clone)]
pub struct WorkerConfig {
    pub package: Package,
    pub options: Options,
    /// Most items in one batch; 0 takes the largest size that a stage is compiled for.
    pub batch_size: usize,
    /// How long a batch waits for more items. It never waits when every open stream has one in it.
    pub batch_timeout: Duration,
    /// Most items that wait; a submission beyond it is refused.
    pub queue: usize,
}

/// What a worker has done so far.
#[derive(Clone, Debug, Default)]
pub struct WorkerStats {
    pub streams: usize,
    /// Items that wait now.
    pub queued: usize,
    /// How long a batch waits for more of them.
    pub batch_timeout: Duration,
    /// Items that failed because there was no memory for them, even in a batch that was halved.
    pub exhausted: u64,
    pub stages: Vec<StageStats>,
}

/// What one stage has done so far.
#[derive(Clone, Copy, Debug)]
pub struct StageStats {
    pub kind: StageKind,
    /// Evaluations, and items in them.
    pub batches: u64,
    pub items: u64,
    /// Rows of all items.
    pub rows: u64,
    /// Most items of a batch since memory ended at more of them; until no stream is open any more.
    pub most: Option<usize>,
    /// Of an evaluation.
    pub time: Percentiles,
}

struct Item {
    stream: u64,
    work: Work,
    /// Place in its stream.
    place: u64,
    /// Since when it waits for its next stage.
    since: Instant,
    /// Whoever waits for it runs its stages.
    at_once: bool,
    /// Of its stream.
    taken: Arc<AtomicU64>,
    /// Gone with the ticket.
    wanted: Weak<()>,
    reply: Sender<Outcome>,
}

impl Item {
    fn stage(&self) -> Option<usize> {
        self.work.next().map(|pass| pass.stage)
    }
}

#[derive(Default)]
struct StreamState {
    flushes: u64,
    /// Place of the next item.
    next: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Item>,
    /// Streams of which a batch that runs now has items.
    busy: HashSet<u64>,
    streams: HashMap<u64, StreamState>,
    next_stream: u64,
    closed: bool,
    /// Of each stage.
    counts: Vec<Counts>,
    exhausted: u64,
    /// Batches that run now.
    running: usize,
}

/// What a stage has done, as [`StageStats`].
#[derive(Clone, Default)]
struct Counts {
    batches: u64,
    items: u64,
    rows: u64,
    most: Option<usize>,
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

struct Shared {
    engine: Arc<dyn Engine>,
    /// Most batches at a time.
    lanes: usize,
    batch_size: usize,
    /// In nanoseconds.
    batch_timeout: AtomicU64,
    capacity: usize,
    queue: Mutex<Queue>,
    /// What the worker's own threads sleep on,
    changed: Condvar,
    /// and those that wait for a ticket and help.
    helped: Condvar,
    times: Vec<stats::Timer>,
}

/// Workers by what they were asked for with. Locked inside of the lock on loading.
static WORKERS: LazyLock<Mutex<HashMap<String, Weak<Worker>>>> = LazyLock::new(Default::default);

/// A loaded engine and the threads that run its stages. Ends when the last owner and the last stream are gone.
pub struct Worker {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Worker {
    /// The worker called `instance`, made of `config` if there is none yet. Without a name, equal engines on equal
    /// devices share one.
    pub fn acquire(instance: Option<&str>, config: WorkerConfig) -> Result<Arc<Self>> {
        let WorkerConfig { package, options, .. } = &config;
        let key = instance.map_or_else(
            || {
                let (manifest, place) = (package.manifest(), package.location());
                let look_ahead = manifest.audio.as_ref().map_or(0, |audio| audio.look_ahead_ms);
                format!("{}\n{place}\n{options:?}\n{}\n{look_ahead}", manifest.name, package.is_exact())
            },
            |id| format!("id {id}"),
        );
        let running = || WORKERS.lock().get(&key).and_then(Weak::upgrade);
        if let Some(worker) = running() {
            return Ok(worker);
        }
        // Two elements that start together must not load the engine twice.
        static LOADING: Mutex<()> = Mutex::new(());
        let _loading = LOADING.lock();
        if let Some(worker) = running() {
            return Ok(worker);
        }
        let engine = super::load(&config.package, &config.options)?;
        for stage in engine.stages() {
            stage.warm_up()?;
        }
        let worker = Arc::new(Self::start(engine, config.batch_size, config.batch_timeout, config.queue));
        let mut workers = WORKERS.lock();
        workers.retain(|_, w| w.strong_count() > 0);
        workers.insert(key, Arc::downgrade(&worker));
        Ok(worker)
    }

    /// Those that [`acquire`](Self::acquire) has made and that have not ended, in no order.
    pub fn all() -> Vec<Arc<Self>> {
        WORKERS.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Starts a worker of its own for an engine that is already loaded.
    pub fn start(engine: Arc<dyn Engine>, batch_size: usize, batch_timeout: Duration, queue: usize) -> Self {
        let stages = engine.stages().len();
        let lanes = engine.lanes().max(1);
        let shared = Arc::new(Shared {
            lanes,
            batch_size: if batch_size == 0 { usize::MAX } else { batch_size },
            batch_timeout: AtomicU64::new(nanoseconds(batch_timeout)),
            capacity: queue.max(1),
            queue: Mutex::new(Queue { counts: vec![Counts::default(); stages], ..Queue::default() }),
            changed: Condvar::new(),
            helped: Condvar::new(),
            times: (0..stages).map(|_| stats::Timer::default()).collect(),
            engine,
        });
        let mut threads = Vec::with_capacity(lanes);
        for lane in 0..lanes {
            let shared = shared.clone();
            let name = format!("lipstream-eng{lane}");
            match std::thread::Builder::new().name(name).spawn(move || shared.run()) {
                Ok(thread) => threads.push(thread),
                Err(error) => tracing::error!(%error, "a thread of the engine could not be started"),
            }
        }
        if threads.is_empty() {
            shared.queue.lock().closed = true;
        }
        Self { shared, threads }
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.shared.engine
    }

    /// Opens a stream.
    pub fn stream(self: &Arc<Self>) -> Stream {
        self.stream_counting(Arc::default())
    }

    /// Opens a stream that adds to `taken` what it takes of the device, in nanoseconds: of the time of each evaluation the part that
    /// its rows are of all, flushed and failed ones too.
    pub fn stream_counting(self: &Arc<Self>, taken: Arc<AtomicU64>) -> Stream {
        let mut queue = self.shared.queue.lock();
        queue.next_stream += 1;
        let id = queue.next_stream;
        queue.streams.insert(id, StreamState::default());
        Stream { worker: self.clone(), id, at_once: AtomicBool::new(false), taken }
    }

    /// Lets a batch wait so long for more items from now on.
    pub fn set_batch_timeout(&self, timeout: Duration) {
        self.shared.batch_timeout.store(nanoseconds(timeout), Relaxed);
        // A batch may be due at once.
        self.shared.changed.notify_all();
        self.shared.helped.notify_all();
    }

    pub fn stats(&self) -> WorkerStats {
        let queue = self.shared.queue.lock();
        let stages = self.shared.engine.stages().iter().zip(&queue.counts).zip(&self.shared.times);
        WorkerStats {
            streams: queue.streams.len(),
            queued: queue.waiting.len(),
            batch_timeout: self.shared.batch_timeout(),
            exhausted: queue.exhausted,
            stages: stages
                .map(|((stage, counts), time)| StageStats {
                    kind: stage.kind(),
                    batches: counts.batches,
                    items: counts.items,
                    rows: counts.rows,
                    most: counts.most,
                    time: time.percentiles(),
                })
                .collect(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_all();
        self.shared.helped.notify_all();
        for thread in self.threads.drain(..) {
            // A panic there has already been reported; the queue is closed either way.
            let _ = thread.join();
        }
    }
}

/// One session's way to a worker.
pub struct Stream {
    worker: Arc<Worker>,
    id: u64,
    at_once: AtomicBool,
    taken: Arc<AtomicU64>,
}

impl Stream {
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// What counts the time that it takes of the device, in nanoseconds.
    pub fn taken(&self) -> &Arc<AtomicU64> {
        &self.taken
    }

    /// Says that whoever submits from now on waits for the ticket at once, and may run stages meanwhile: nobody else is woken
    /// for them.
    pub fn wait_at_once(&self, at_once: bool) {
        self.at_once.store(at_once, Relaxed);
    }

    /// Queues work. Work that was finished before and has more to pass keeps its place in the stream.
    pub fn submit(&self, mut work: Work) -> Result<Ticket, SubmitError> {
        let shared = &self.worker.shared;
        shared.check(&work)?;
        let (reply, outcome) = bounded(1);
        let wanted = Arc::new(());
        if work.next().is_none() {
            // Nobody can have dropped the other end.
            let _ = reply.send(Ok(work));
            return Ok(Ticket::new(outcome, None, wanted));
        }
        let mut queue = shared.queue.lock();
        if queue.closed {
            return Err(SubmitError::Ended);
        }
        if queue.waiting.len() >= shared.capacity {
            return Err(SubmitError::QueueFull(shared.capacity));
        }
        let again = work.place.is_some();
        let Some(state) = queue.streams.get_mut(&self.id) else { return Err(SubmitError::Ended) };
        let place = *work.place.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        let at_once = self.at_once.load(Relaxed);
        let since = Instant::now();
        let (taken, wants) = (self.taken.clone(), Arc::downgrade(&wanted));
        let item = Item { stream: self.id, work, place, since, at_once, taken, wanted: wants, reply };
        if again {
            queue.waiting.push_front(item)
        } else {
            queue.waiting.push_back(item)
        }
        drop(queue);
        if !at_once {
            shared.changed.notify_all();
        }
        if !shared.batch_timeout().is_zero() {
            // A batch may be complete by it.
            shared.helped.notify_all();
        }
        Ok(Ticket::new(outcome, at_once.then(|| shared.clone()), wanted))
    }

    /// Drops every item of this stream, queued or in the batch that runs now; returns how many were queued.
    pub fn flush(&self) -> usize {
        let shared = &self.worker.shared;
        let mut queue = shared.queue.lock();
        if let Some(state) = queue.streams.get_mut(&self.id) {
            state.flushes += 1;
        }
        let before = queue.waiting.len();
        queue.waiting.retain(|item| {
            let keep = item.stream != self.id;
            if !keep {
                // Nobody may be waiting for it any more.
                let _ = item.reply.send(Err(Refusal::Flushed));
            }
            keep
        });
        let flushed = before - queue.waiting.len();
        drop(queue);
        // Whoever waits for them may sleep.
        shared.helped.notify_all();
        flushed
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.flush();
        let shared = &self.worker.shared;
        let mut queue = shared.queue.lock();
        queue.streams.remove(&self.id);
        if queue.streams.is_empty() {
            // Other programs may have given memory back before the next one comes.
            queue.counts.iter_mut().for_each(|counts| counts.most = None);
        }
        drop(queue);
        // Fewer streams may complete a batch.
        shared.changed.notify_all();
        shared.helped.notify_all();
    }
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

impl Shared {
    fn batch_timeout(&self) -> Duration {
        Duration::from_nanos(self.batch_timeout.load(Relaxed))
    }

    /// Whether work asks for stages that there are and brings what the first of them reads.
    fn check(&self, work: &Work) -> Result<(), SubmitError> {
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

    fn run(&self) {
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
    fn help(&self, outcome: &Receiver<Outcome>, deadline: Option<Instant>) -> Result<Outcome, RecvTimeoutError> {
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
