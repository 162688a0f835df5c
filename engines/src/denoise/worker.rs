//! One loaded model a process, one denoising step at a time, one batch for all who wait.
//!
//! A step is the unit of work. Frames of one stream at different noise levels and frames of different streams share a
//! batch, since each latent carries its own timestep. A frame that needs more steps goes back to the front of the
//! queue, so frames of a stream finish in the order in which they were submitted.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::{Denoiser, Noise, Schedule};
use crate::{
    Result,
    manifest::Engine,
    runtime::Options,
    stats::{Percentiles, Stage},
};

/// What a worker is made of. The first that asks for an instance sets it.
#[derive(Clone)]
pub struct WorkerConfig {
    pub engine: Engine,
    pub options: Options,
    /// Most latents in one step; 0 takes the largest size that the model is compiled for.
    pub batch_size: usize,
    /// How long a step waits for more latents. It never waits when every open stream has one in the queue.
    pub batch_timeout: Duration,
    /// Most latents that wait; a submission beyond it is refused.
    pub queue: usize,
}

/// One frame to denoise.
pub struct Job {
    /// `[Spec::conditioning]`.
    pub conditioning: Vec<f32>,
    /// 0: as the engine says.
    pub steps: usize,
}

/// Why a frame has no latent.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Not yet: the ticket comes back and can be waited for again.
    #[error("not finished in time")]
    Timeout(Ticket),
    /// The stream was flushed.
    #[error("flushed")]
    Flushed,
    #[error("{0}")]
    Failed(String),
}

type Outcome = Result<Arc<[f32]>, Refusal>;

#[derive(Debug)]
enum Refusal {
    Flushed,
    Failed(String),
}

/// A frame that is on its way.
#[derive(Debug)]
pub struct Ticket(Receiver<Outcome>);

impl Ticket {
    /// The finished latent; `None` waits as long as it takes.
    pub fn wait(self, timeout: Option<Duration>) -> Result<Arc<[f32]>, WaitError> {
        let outcome = match timeout {
            None => self.0.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(limit) => self.0.recv_timeout(limit),
        };
        match outcome {
            Ok(Ok(latent)) => Ok(latent),
            Ok(Err(Refusal::Flushed)) => Err(WaitError::Flushed),
            Ok(Err(Refusal::Failed(cause))) => Err(WaitError::Failed(cause)),
            Err(RecvTimeoutError::Timeout) => Err(WaitError::Timeout(self)),
            Err(RecvTimeoutError::Disconnected) => Err(WaitError::Failed("the worker has ended".into())),
        }
    }
}

/// What a worker has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerStats {
    pub streams: usize,
    /// Latents that wait now.
    pub queued: usize,
    /// Network evaluations, and latents in them.
    pub batches: u64,
    pub steps: u64,
    pub step_time: Percentiles,
}

struct Item {
    stream: u64,
    latent: Vec<f32>,
    conditioning: Vec<f32>,
    schedule: Arc<Schedule>,
    next: usize,
    /// Fresh noise for schedules that add some.
    noise: Noise,
    reply: Sender<Outcome>,
}

impl Item {
    fn remaining(&self) -> usize {
        self.schedule.steps().len() - self.next
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Item>,
    /// When the oldest of a batch that is still being gathered arrived.
    since: Option<Instant>,
    /// Flush counts of the open streams.
    streams: HashMap<u64, u64>,
    next_stream: u64,
    closed: bool,
    batches: u64,
    steps: u64,
}

struct Shared {
    model: Arc<dyn Denoiser>,
    batch_size: usize,
    batch_timeout: Duration,
    capacity: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
    step_time: Stage,
}

/// A loaded model and the thread that steps it. Ends when the last owner and the last stream are gone.
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// The worker called `instance`, made of `config` if there is none yet. Without a name, equal engines on equal
    /// devices share one.
    pub fn acquire(instance: Option<&str>, config: WorkerConfig) -> Result<Arc<Self>> {
        static WORKERS: OnceLock<Mutex<HashMap<String, Weak<Worker>>>> = OnceLock::new();
        let key = instance.map_or_else(
            || format!("{}\n{}\n{:?}", config.engine.manifest().name, config.engine.location(), config.options),
            |id| format!("id {id}"),
        );
        // Held while loading: two elements that start together must not load the model twice.
        let mut workers = WORKERS.get_or_init(Default::default).lock();
        if let Some(worker) = workers.get(&key).and_then(Weak::upgrade) {
            return Ok(worker);
        }
        workers.retain(|_, w| w.strong_count() > 0);
        let model = super::load(&config.engine, &config.options)?;
        let worker = Arc::new(Self::start(model, config.batch_size, config.batch_timeout, config.queue));
        workers.insert(key, Arc::downgrade(&worker));
        Ok(worker)
    }

    /// Starts a worker of its own for a model that is already loaded.
    pub fn start(model: Arc<dyn Denoiser>, batch_size: usize, batch_timeout: Duration, queue: usize) -> Self {
        let largest = model.spec().batch_sizes.last().copied().unwrap_or(1);
        let batch_size = if batch_size == 0 { largest } else { batch_size.min(largest) };
        let shared = Arc::new(Shared {
            model,
            batch_size,
            batch_timeout,
            capacity: queue.max(1),
            queue: Mutex::default(),
            changed: Condvar::new(),
            step_time: Stage::default(),
        });
        let thread = std::thread::Builder::new().name("lipstream-denoise".into()).spawn({
            let shared = shared.clone();
            move || shared.run()
        });
        if let Err(error) = &thread {
            tracing::error!(%error, "the denoising thread could not be started");
            shared.queue.lock().closed = true;
        }
        Self { shared, thread: thread.ok() }
    }

    pub fn denoiser(&self) -> &Arc<dyn Denoiser> {
        &self.shared.model
    }

    /// Opens a stream, whose noise is reproducible by `seed`.
    pub fn stream(self: &Arc<Self>, seed: u64) -> Stream {
        let spec = self.shared.model.spec();
        let id = {
            let mut queue = self.shared.queue.lock();
            queue.next_stream += 1;
            let id = queue.next_stream;
            queue.streams.insert(id, 0);
            id
        };
        let noise = Noise::new(seed, spec.noise_correlation, spec.temperature);
        Stream { worker: self.clone(), id, noise: Mutex::new(noise), schedules: Mutex::default() }
    }

    pub fn stats(&self) -> WorkerStats {
        let queue = self.shared.queue.lock();
        WorkerStats {
            streams: queue.streams.len(),
            queued: queue.waiting.len(),
            batches: queue.batches,
            steps: queue.steps,
            step_time: self.shared.step_time.percentiles(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has already been reported; the queue is closed either way.
            let _ = thread.join();
        }
    }
}

/// One session's way to a worker.
pub struct Stream {
    worker: Arc<Worker>,
    id: u64,
    noise: Mutex<Noise>,
    /// Schedules by their number of steps.
    schedules: Mutex<HashMap<usize, Arc<Schedule>>>,
}

impl Stream {
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Queues a frame. Refused when the conditioning or the steps do not fit, or when the queue is full.
    pub fn submit(&self, job: Job) -> Result<Ticket> {
        let shared = &self.worker.shared;
        let spec = shared.model.spec();
        if job.conditioning.len() != spec.conditioning {
            return Err(crate::Error::Mismatch {
                model: spec.name.clone(),
                what: "conditioning".into(),
                expected: spec.conditioning.to_string(),
                found: job.conditioning.len().to_string(),
            });
        }
        let schedule = match self.schedules.lock().entry(job.steps) {
            std::collections::hash_map::Entry::Occupied(known) => known.get().clone(),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(Arc::new(Schedule::new(&spec.schedule, job.steps)?)).clone()
            }
        };
        let (latent, noise) = {
            let mut noise = self.noise.lock();
            let latent = noise.latent(spec.latent);
            (latent, Noise::new(noise.normal().to_bits().into(), 0.0, 1.0))
        };
        let (reply, outcome) = bounded(1);
        let item = Item { stream: self.id, latent, conditioning: job.conditioning, schedule, next: 0, noise, reply };
        let mut queue = shared.queue.lock();
        if queue.closed {
            return Err(crate::Error::invalid("the worker has ended"));
        }
        if queue.waiting.len() >= shared.capacity {
            return Err(crate::Error::invalid(format!("the denoiser's queue is full ({} frames)", shared.capacity)));
        }
        queue.waiting.push_back(item);
        queue.since.get_or_insert_with(Instant::now);
        drop(queue);
        shared.changed.notify_all();
        Ok(Ticket(outcome))
    }

    /// Drops every frame of this stream, queued or in the step that runs now; returns how many were queued.
    pub fn flush(&self) -> usize {
        let shared = &self.worker.shared;
        let mut queue = shared.queue.lock();
        if let Some(flushes) = queue.streams.get_mut(&self.id) {
            *flushes += 1;
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
        before - queue.waiting.len()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.flush();
        self.worker.shared.queue.lock().streams.remove(&self.id);
        self.worker.shared.changed.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        while let Some((mut batch, epochs)) = self.gather() {
            let outcome = self.step_time.time(|| self.step(&batch));
            let mut queue = self.queue.lock();
            queue.batches += 1;
            queue.steps += batch.len() as u64;
            let predictions = match outcome {
                Ok(predictions) => predictions,
                Err(error) => {
                    let cause = error.to_string();
                    tracing::error!(%cause, "a denoising step failed");
                    batch.drain(..).for_each(|item| {
                        let _ = item.reply.send(Err(Refusal::Failed(cause.clone())));
                    });
                    continue;
                }
            };
            let latent = self.model.spec().latent;
            let mut unfinished = Vec::new();
            for (i, mut item) in batch.drain(..).enumerate() {
                if queue.streams.get(&item.stream) != Some(&epochs[i]) {
                    let _ = item.reply.send(Err(Refusal::Flushed));
                    continue;
                }
                let step = item.schedule.steps()[item.next];
                let noise = &mut item.noise;
                step.apply(&mut item.latent, &predictions[i * latent..(i + 1) * latent], || noise.normal());
                item.next += 1;
                if item.remaining() == 0 {
                    let _ = item.reply.send(Ok(item.latent.into()));
                } else {
                    unfinished.push(item);
                }
            }
            if !unfinished.is_empty() {
                queue.since.get_or_insert_with(Instant::now);
            }
            unfinished.into_iter().rev().for_each(|item| queue.waiting.push_front(item));
        }
    }

    /// The next batch, with the flush count of each item's stream; `None` once the worker is closed.
    fn gather(&self) -> Option<(Vec<Item>, Vec<u64>)> {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                queue.waiting.clear();
                return None;
            }
            let streams = queue.streams.len();
            let complete = queue.waiting.len() >= self.batch_size.min(streams.max(1));
            let deadline = queue.since.map(|since| since + self.batch_timeout);
            match deadline {
                _ if queue.waiting.is_empty() => {
                    queue.since = None;
                    self.changed.wait(&mut queue);
                }
                Some(at) if !complete && Instant::now() < at => {
                    self.changed.wait_until(&mut queue, at);
                }
                _ => break,
            }
        }
        let mut batch = Vec::with_capacity(self.batch_size);
        let mut left = VecDeque::with_capacity(queue.waiting.len());
        // A frame with fewer steps to go than an earlier one of its stream waits, or it would overtake it.
        let mut longest: HashMap<u64, usize> = HashMap::new();
        while let Some(item) = queue.waiting.pop_front() {
            let longest = longest.entry(item.stream).or_default();
            if batch.len() < self.batch_size && item.remaining() >= *longest {
                *longest = item.remaining();
                batch.push(item);
            } else {
                *longest = usize::MAX;
                left.push_back(item);
            }
        }
        queue.waiting = left;
        queue.since = (!queue.waiting.is_empty()).then(Instant::now);
        let epochs = batch.iter().map(|i| queue.streams.get(&i.stream).copied().unwrap_or(u64::MAX)).collect();
        Some((batch, epochs))
    }

    /// One evaluation, padded to a size that the model is compiled for.
    fn step(&self, batch: &[Item]) -> Result<Vec<f32>> {
        let spec = self.model.spec();
        let size = spec.batch_sizes.iter().copied().find(|s| *s >= batch.len()).unwrap_or(batch.len());
        let mut latents = vec![0.0; size * spec.latent];
        let mut conditions = vec![0.0; size * spec.conditioning];
        let mut timesteps = vec![0.0; size];
        for (i, item) in batch.iter().enumerate() {
            latents[i * spec.latent..][..spec.latent].copy_from_slice(&item.latent);
            conditions[i * spec.conditioning..][..spec.conditioning].copy_from_slice(&item.conditioning);
            timesteps[i] = item.schedule.steps()[item.next].timestep;
        }
        let predictions = self.model.step(&latents, &timesteps, &conditions)?;
        if predictions.len() != latents.len() {
            return Err(crate::Error::Mismatch {
                model: spec.name.clone(),
                what: "prediction".into(),
                expected: latents.len().to_string(),
                found: predictions.len().to_string(),
            });
        }
        Ok(predictions)
    }
}
