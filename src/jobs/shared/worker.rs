//! Renders what the queue gives, one job at a time.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use lipstream_engines::runtime::Device;
use parking_lot::Mutex;

use super::{AGAIN, PREFIX, Phase, Record, Running, Shared, broken, now, number, object_folder, work};
use crate::{
    error::{Failure, Kind, Result},
    jobs::store::forget,
    media::Notice,
    render::{self, Standing, Watch},
    storage, termination,
};

/// Waiting for work, before it is asked for again.
const ASKED: Duration = Duration::from_secs(20);
/// Workers that may die of a job.
const TRIES: u32 = 3;
/// Deliveries of a message whose job is not in the bucket: it comes there after the message.
const UNKNOWN: i64 = 2;
/// In which it comes there.
const HANDED_IN: Duration = Duration::from_secs(1);
/// How often the cluster is told how far a job is.
const TELL: Duration = Duration::from_secs(1);

/// How a job ended here.
enum End {
    /// The entry says so, and nothing is left to do.
    Over,
    /// Another worker has it.
    Lost,
    /// It goes back into the queue.
    Back(Duration),
}

impl Shared {
    /// Works until the end of the program.
    pub(super) async fn work(self: Arc<Self>) {
        let mut failing = false;
        while !self.ending() {
            match self.work_once().await {
                Ok(()) => failing = false,
                Err(failure) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!("{failure}; renders wait until it works again");
                }
                Err(_) => {}
            }
            self.end.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        }
    }

    /// Works for as long as the queue gives something.
    async fn work_once(self: &Arc<Self>) -> Result<()> {
        let queue = self.queue().await?;
        loop {
            let asked = queue.batch().max_messages(1).expires(ASKED).messages().await;
            let mut given = asked.map_err(|e| broken("the queue of renders gives no work", &e))?;
            // The library says by itself that the time is over; a connection that is lost may keep it from that.
            let next = tokio::time::timeout(ASKED + AGAIN, given.next());
            let Some(message) = self.end.run_until_cancelled(next).await else { return Ok(()) };
            match message.unwrap_or(None) {
                None if self.ending() => return Ok(()),
                None => {}
                Some(Ok(message)) => self.take(message).await,
                Some(Err(e)) => return Err(broken("the queue of renders gives no work", &e)),
            }
        }
    }

    /// Whether the program is told to end: then what is rendered is interrupted, before it is closed.
    fn ending(&self) -> bool {
        self.end.is_cancelled() || termination::requested()
    }

    async fn take(self: &Arc<Self>, message: Message) {
        let id = std::str::from_utf8(&message.payload).ok().map(str::to_owned).unwrap_or_default();
        let end = match number(&id) {
            _ if self.ending() => Ok(End::Back(Duration::ZERO)),
            Some(number) => self.try_job(number, &id, &message).await,
            None => Ok(End::Over),
        };
        let answered = match end {
            Ok(End::Over) => message.double_ack().await,
            Ok(End::Lost) => Ok(()),
            // Not by a delay of the queue's: servers of version 2.9 forget some of these.
            Ok(End::Back(after)) => {
                self.end.run_until_cancelled(tokio::time::sleep(after)).await;
                message.ack_with(AckKind::Nak(None)).await
            }
            // It comes again when we have been silent for long enough.
            Err(failure) => {
                tracing::warn!("{id}: {failure}");
                Ok(())
            }
        };
        if let Err(e) = answered {
            tracing::warn!("{id}: NATS: {e}");
        }
    }

    async fn try_job(self: &Arc<Self>, number: u64, id: &str, message: &Message) -> Result<End> {
        let delivered = message.info().map_or(1, |info| info.delivered);
        let lease = format!("{}-{:08x}", self.cluster.link.node(), rand::random::<u32>());
        let taken = self
            .change(number, |record| {
                let status = &mut record.status;
                if status.state.is_over() {
                    return false;
                }
                if record.lease.take().is_some() {
                    record.tries += 1;
                }
                if record.tries >= TRIES {
                    let cause = format!("{TRIES} workers ended while they rendered it; their logs may have more");
                    (status.state, status.error, status.finished) = (Phase::Failed, Some(cause), Some(now()));
                    record.stored = 0;
                    return true;
                }
                (status.state, status.progress) = (Phase::Running, 0.0);
                status.started.get_or_insert_with(now);
                record.lease = Some(lease.clone());
                true
            })
            .await?;
        let Some(record) = taken else {
            let known = self.bucket.entry(id).await.map_err(|e| broken("a job cannot be read", &e))?;
            let there = known.filter(|entry| entry.operation == async_nats::jetstream::kv::Operation::Put);
            let over = there.as_ref().and_then(|entry| Record::parse(&entry.value)).map(|r| r.status.state.is_over());
            return Ok(match over {
                // It came there between the two looks.
                Some(false) => End::Back(Duration::ZERO),
                Some(true) => End::Over,
                // It is being handed in, or has been removed.
                None if delivered < UNKNOWN && there.is_none() => End::Back(HANDED_IN),
                None => End::Over,
            });
        };
        if record.status.state.is_over() {
            self.forget_objects(id);
            return Ok(End::Over);
        }
        let standing: Arc<Mutex<Standing>> = Arc::default();
        let told = standing.clone();
        let watch = Watch::new(move |now| *told.lock() = now);
        *self.running.lock() = Some(Running { number, lease: lease.clone(), watch: watch.clone() });
        if self.ending() {
            watch.stop();
        }
        let folder = self.cluster.scratch.join(format!("{}-{lease}", std::process::id()));
        let end = tokio::select! {
            end = self.render(number, &record, &lease, &folder, watch.clone()) => end,
            // Never ends.
            end = self.beat(number, &lease, message, &standing, &watch) => end,
        };
        *self.running.lock() = None;
        forget(&folder);
        end
    }

    /// Tells the queue that somebody works, and everybody how far that is.
    async fn beat(
        &self,
        number: u64,
        lease: &str,
        message: &Message,
        standing: &Mutex<Standing>,
        watch: &Watch,
    ) -> Result<End> {
        let mut last = Standing::default();
        loop {
            tokio::time::sleep(TELL.min(self.cluster.takeover / 3)).await;
            if let Err(e) = message.ack_with(AckKind::Progress).await {
                tracing::warn!("{PREFIX}{number}: NATS: {e}");
            }
            let now = *standing.lock();
            if std::mem::replace(&mut last, now) == now {
                continue;
            }
            let told = self
                .change(number, |record| {
                    let ours = record.is_of(lease);
                    record.status.progress = record.status.progress.max(now.part);
                    record.status.fps = now.fps;
                    record.status.seconds_left = now.left.map(|left| left.as_secs_f64());
                    ours
                })
                .await;
            match told {
                Ok(Some(_)) => {}
                // It was removed, or another worker has it.
                Ok(None) => watch.stop(),
                Err(failure) => tracing::warn!("{PREFIX}{number}: {failure}"),
            }
        }
    }

    async fn render(&self, number: u64, record: &Record, lease: &str, folder: &Path, watch: Watch) -> Result<End> {
        let id = format!("{PREFIX}{number}");
        let began = now();
        let name = format!("result-{:08x}.{}", rand::random::<u32>(), record.options.container.extension());
        let made = self.make(&id, record, folder, watch.clone(), &name).await;
        let object = self.object(&id, &name);
        let failed = match made {
            Ok((summary, bytes)) => {
                let card = matches!(summary.device.parse(), Ok(Device::Cuda(_) | Device::TensorRt(_)));
                let gpu_us = if card { ((now() - began).max(0.0) * 1e6) as u64 } else { 0 };
                let done = self
                    .change(number, |record| {
                        let ours = record.is_of(lease);
                        finish(record, &summary, folder);
                        (record.status.bytes, record.stored) = (Some(bytes), bytes);
                        (record.result, record.gpu_us) = (Some(name.clone()), gpu_us);
                        ours
                    })
                    .await;
                if matches!(done, Ok(Some(_))) {
                    // The inputs, and what workers that are gone have put.
                    if let Err(failure) = self.cluster.storage.remove_below(&object_folder(&id), |n| n == name).await {
                        tracing::warn!("{failure}");
                    }
                    return Ok(End::Over);
                }
                if let Err(failure) = self.cluster.storage.remove(&object).await {
                    tracing::warn!("{failure}");
                }
                return done.map(|_| End::Lost);
            }
            Err(failed) => failed,
        };
        if self.ending() || matches!(failed, Stop::Again(_)) {
            let ended = self.ending();
            if let Stop::Again(failure) = failed {
                tracing::warn!("{id}: {failure}; it is tried again");
            }
            let back = self.change(number, |record| {
                let ours = record.is_of(lease);
                (record.lease, record.status.state, record.status.progress) = (None, Phase::Queued, 0.0);
                (record.status.fps, record.status.seconds_left) = (None, None);
                record.tries += u32::from(!ended);
                ours
            });
            return Ok(if back.await?.is_some() {
                End::Back(if ended { Duration::ZERO } else { AGAIN })
            } else {
                End::Lost
            });
        }
        let Stop::Failed(failure) = failed else { return Ok(End::Lost) };
        if failure.kind == Kind::Interrupted {
            // Whoever stopped it has removed the entry, or has the job.
            let there = self.bucket.entry(&id).await.map_err(|e| broken("a job cannot be read", &e))?;
            let put = there.is_some_and(|entry| entry.operation == async_nats::jetstream::kv::Operation::Put);
            return Ok(if put { End::Lost } else { End::Over });
        }
        let said = self
            .change(number, |record| {
                let ours = record.is_of(lease);
                let status = &mut record.status;
                (status.state, status.finished) = (Phase::Failed, Some(now()));
                (status.fps, status.seconds_left) = (None, None);
                status.error = Some(work::without(folder, &failure));
                (record.lease, record.stored) = (None, 0);
                ours
            })
            .await?;
        if said.is_none() {
            return Ok(End::Lost);
        }
        self.forget_objects(&id);
        Ok(End::Over)
    }

    /// Fetches the inputs, renders them and puts the result.
    async fn make(
        &self,
        id: &str,
        record: &Record,
        folder: &Path,
        watch: Watch,
        name: &str,
    ) -> Result<(render::Summary, u64), Stop> {
        let here = |e: std::io::Error| Stop::Again(format!("{}: cannot be made: {e}", folder.display()));
        tokio::fs::create_dir_all(folder).await.map_err(here)?;
        let storage = &self.cluster.storage;
        let inputs = work::INPUTS.into_iter().filter(|input| record.bank || *input != work::BANK);
        for input in inputs {
            storage.fetch(&self.object(id, input), &folder.join(input)).await?;
        }
        let bank: Option<PathBuf> = record.bank.then(|| folder.join(work::BANK));
        let options = work::options(&record.options, folder, bank, watch, &self.settings);
        let longest = self.settings.longest;
        let rendered = tokio::task::spawn_blocking(move || work::render(options, longest)).await;
        let rendered = rendered.unwrap_or_else(|_| Err(Failure::run("the render panicked; the log has more")));
        let summary = rendered.map_err(Stop::Failed)?;
        let bytes = storage.put(&self.object(id, name), &summary.output).await?;
        Ok((summary, bytes))
    }
}

/// Why there is no result.
enum Stop {
    /// The job is at fault, or was stopped.
    Failed(Failure),
    /// Something around it is.
    Again(String),
}

impl From<storage::Failure> for Stop {
    fn from(failure: storage::Failure) -> Self {
        Self::Again(failure.to_string())
    }
}

fn finish(record: &mut Record, summary: &render::Summary, folder: &Path) {
    let status = &mut record.status;
    (status.state, status.progress, status.finished) = (Phase::Done, 1.0, Some(now()));
    (status.fps, status.seconds_left) = (None, None);
    (status.seconds, status.frames) = (Some(summary.seconds), Some(summary.frames));
    let own = |n: &Notice| Notice { text: work::without(folder, n), ..n.clone() };
    status.notices = summary.notices.iter().map(own).collect();
    record.lease = None;
}
