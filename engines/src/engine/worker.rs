//! One loaded engine a process, one stage at a time for all streams that wait for it.
//!
//! A pass through a stage is the unit of work. Items of one stream at different steps and items of different streams share
//! a batch where they wait for the same stage with the same shapes. An item that has more to pass goes back to the front of
//! the queue, so items of a stream finish in the order in which they were submitted.
//!
//! Stages run on threads of the worker, or on that of a stream which [waits at once](Stream::wait_at_once): on a busy CPU the
//! way to another thread and back can take longer than the stage. Together they run as many batches at a time as the device
//! takes.

mod batches;
mod ticket;

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::channel::bounded;
use parking_lot::{Condvar, Mutex};

pub use self::ticket::{SubmitError, Ticket, WaitError};
use self::{
    batches::{Counts, Item, Queue, Shared, StreamState, nanoseconds},
    ticket::Refusal,
};
use super::{Engine, StageKind, work::Work};
use crate::{
    Result,
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
