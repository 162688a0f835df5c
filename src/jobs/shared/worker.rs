//! Renders what the queue gives, one job, or one part of a job, at a time.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::{AckKind, Message, kv};
use futures_util::StreamExt;
use gst::ClockTime;
use gstlipstream::alpha::Mode;
use lipstream_engines::runtime::Device;
use parking_lot::Mutex;

use super::{
    AGAIN, PREFIX, Phase, Record, Running, Shared, broken, now, object_folder,
    record::{Piece, Step},
    steps::{Told, fail, finish, take, task, tell},
    work,
};
use crate::{
    background,
    error::{Failure, Kind, Result},
    jobs::store::forget,
    media::Notice,
    render::{
        Part, Standing, Watch,
        part::{self, Joining},
    },
    storage, termination,
};

/// Waiting for work, before it is asked for again.
const ASKED: Duration = Duration::from_secs(20);
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

/// What was made here.
enum Made {
    /// The job is to be rendered in these.
    Plan(Vec<Piece>),
    /// A part, or the result: its object, and what the entry is told of it.
    Object { name: String, bytes: u64, told: Box<Told> },
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
        let text = std::str::from_utf8(&message.payload).ok().map(str::to_owned).unwrap_or_default();
        let end = match task(&text) {
            _ if self.ending() => Ok(End::Back(Duration::ZERO)),
            Some((number, step)) => self.try_step(number, step, &message).await,
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
                tracing::warn!("{text}: {failure}");
                Ok(())
            }
        };
        if let Err(e) = answered {
            tracing::warn!("{text}: NATS: {e}");
        }
    }

    async fn try_step(self: &Arc<Self>, number: u64, step: Step, message: &Message) -> Result<End> {
        let delivered = message.info().map_or(1, |info| info.delivered);
        let lease = format!("{}-{:08x}", self.cluster.link.node(), rand::random::<u32>());
        let taken = self.change(number, |record| take(record, step, &lease)).await?;
        let Some(record) = taken else {
            let Some(record) = self.read(number).await? else {
                // It is being handed in, or has been removed.
                return Ok(if delivered >= UNKNOWN { End::Over } else { End::Back(HANDED_IN) });
            };
            // It came there between the two looks.
            if take(&mut record.clone(), step, &lease) {
                return Ok(End::Back(Duration::ZERO));
            }
            self.send_on(number, &record, step).await?;
            return Ok(End::Over);
        };
        if record.status.state.is_over() {
            self.forget_objects(&format!("{PREFIX}{number}"));
            return Ok(End::Over);
        }
        let standing: Arc<Mutex<Standing>> = Arc::default();
        let told = standing.clone();
        let watch = Watch::new(move |now| *told.lock() = now);
        *self.running.lock() = Some(Running { number, step, lease: lease.clone(), watch: watch.clone() });
        if self.ending() {
            watch.stop();
        }
        let folder = self.cluster.scratch.join(format!("{}-{lease}", std::process::id()));
        let began = now();
        let made = tokio::select! {
            made = self.make(number, &record, step, &folder, &watch) => made,
            // Never ends.
            never = self.beat(number, step, &lease, message, &standing, &watch) => match never {},
        };
        let took = now() - began;
        let end = self.settle(number, step, &lease, (made, took), &folder).await;
        *self.running.lock() = None;
        forget(&folder);
        end
    }

    /// The entry of a job.
    async fn read(&self, number: u64) -> Result<Option<Record>> {
        let entry =
            self.bucket.entry(format!("{PREFIX}{number}")).await.map_err(|e| broken("a job cannot be read", &e))?;
        Ok(entry.filter(|entry| entry.operation == kv::Operation::Put).and_then(|entry| Record::parse(&entry.value)))
    }

    /// Sends what follows a step that is done: the parts of a job that was cut, or the joining of those that are all made. Once
    /// more where a worker died before it had: nobody does twice what the entry says is done.
    async fn send_on(&self, number: u64, record: &Record, step: Step) -> Result<()> {
        if record.status.state.is_over() || record.parts.is_empty() {
            return Ok(());
        }
        let all_made = record.parts.iter().all(|part| part.object.is_some());
        match step {
            Step::Whole if !all_made => {
                for index in 0..record.parts.len() {
                    self.send(&format!("{PREFIX}{number}/{index}")).await?;
                }
            }
            Step::Whole | Step::Part(_) if all_made => self.send(&format!("{PREFIX}{number}/join")).await?,
            _ => {}
        }
        Ok(())
    }

    /// Tells the queue that somebody works, and everybody how far that is.
    async fn beat(
        &self,
        number: u64,
        step: Step,
        lease: &str,
        message: &Message,
        standing: &Mutex<Standing>,
        watch: &Watch,
    ) -> std::convert::Infallible {
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
                    let ours = record.is_of(step, lease);
                    if ours {
                        tell(record, step, now);
                    }
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

    /// Writes into the entry what came of a step. Who no longer has the lease changes nothing.
    async fn settle(
        &self,
        number: u64,
        step: Step,
        lease: &str,
        (made, took): (Result<Made, Stop>, f64),
        folder: &Path,
    ) -> Result<End> {
        let id = format!("{PREFIX}{number}");
        match made {
            Ok(Made::Plan(parts)) => {
                let planned = self.change(number, |record| {
                    let ours = record.is_of(step, lease);
                    record.parts.clone_from(&parts);
                    record.lease = Default::default();
                    ours
                });
                let Some(record) = planned.await? else { return Ok(End::Lost) };
                tracing::info!("{id} is rendered in {} parts", record.parts.len());
                self.send_on(number, &record, step).await?;
                Ok(End::Over)
            }
            Ok(Made::Object { name, bytes, told }) => {
                let gpu_us = if told.card { (took.max(0.0) * 1e6) as u64 } else { 0 };
                let done = self
                    .change(number, |record| {
                        let ours = record.is_of(step, lease);
                        finish(record, step, (&name, bytes), &told, gpu_us);
                        ours
                    })
                    .await;
                let Ok(Some(record)) = &done else {
                    if let Err(failure) = self.cluster.storage.remove(&self.object(&id, &name)).await {
                        tracing::warn!("{failure}");
                    }
                    return done.map(|_| End::Lost);
                };
                if record.status.state.is_over() {
                    // The inputs, parts, and what workers that are gone have put.
                    let kept = |object: &str| object == name;
                    if let Err(failure) = self.cluster.storage.remove_below(&object_folder(&id), kept).await {
                        tracing::warn!("{failure}");
                    }
                }
                self.send_on(number, record, step).await?;
                Ok(End::Over)
            }
            Err(Stop::Again(cause)) if !self.ending() => {
                tracing::warn!("{id}: {cause}; it is tried again");
                self.give_back(number, step, lease, 1).await
            }
            Err(_) if self.ending() => self.give_back(number, step, lease, 0).await,
            // Whoever stopped it has removed the entry, or has the job.
            Err(Stop::Failed(failure)) if failure.kind == Kind::Interrupted => {
                let there = self.read(number).await?.is_some_and(|record| !record.status.state.is_over());
                Ok(if there { End::Lost } else { End::Over })
            }
            Err(Stop::Failed(failure)) => {
                let said = self.change(number, |record| {
                    let ours = record.is_of(step, lease);
                    fail(record, work::without(folder, &failure));
                    ours
                });
                if said.await?.is_none() {
                    return Ok(End::Lost);
                }
                self.forget_objects(&id);
                Ok(End::Over)
            }
            Err(Stop::Again(_)) => Ok(End::Lost),
        }
    }

    async fn give_back(&self, number: u64, step: Step, lease: &str, tries: u32) -> Result<End> {
        let back = self.change(number, |record| {
            let ours = record.is_of(step, lease);
            if let Some(held) = record.slot(step) {
                held.holder = None;
                held.tries = held.tries.saturating_add(tries);
            }
            if step == Step::Whole {
                (record.status.state, record.status.progress) = (Phase::Queued, 0.0);
            }
            (record.status.fps, record.status.seconds_left) = (None, None);
            ours
        });
        let after = if tries == 0 { Duration::ZERO } else { AGAIN };
        Ok(if back.await?.is_some() { End::Back(after) } else { End::Lost })
    }

    /// Fetches what a step needs, does it and puts what came of it.
    async fn make(&self, number: u64, record: &Record, step: Step, folder: &Path, watch: &Watch) -> Result<Made, Stop> {
        let id = format!("{PREFIX}{number}");
        let here = |e: std::io::Error| Stop::Again(format!("{}: cannot be made: {e}", folder.display()));
        tokio::fs::create_dir_all(folder).await.map_err(here)?;
        let storage = &self.cluster.storage;
        let there = |input: &&str| match *input {
            work::BANK => record.bank,
            work::AUDIO_B => record.second,
            _ => true,
        };
        for input in work::INPUTS.into_iter().filter(there) {
            storage.fetch(&self.object(&id, input), &folder.join(input)).await?;
        }
        let bank: Option<PathBuf> = record.bank.then(|| folder.join(work::BANK));
        let mut options = work::options(&record.options, folder, bank, watch.clone(), &self.settings);
        let nonce = rand::random::<u32>();
        let whole = format!("result-{nonce:08x}.{}", record.options.container.extension());
        let (file, name, told) = match step {
            Step::Whole | Step::Part(_) => {
                let mut name = whole;
                if let (Step::Part(index), Some(piece)) = (step, record.part(step)) {
                    let extension = record.options.container.of_parts();
                    name = format!("part-{index}-{nonce:08x}.{extension}");
                    options.output = folder.join(format!("part.{extension}"));
                    let time = ClockTime::from_nseconds;
                    options.part = Some(Part::new(time(piece.from), piece.until.map(time)));
                } else if let Some(parts) = self.plan(record, folder).await? {
                    return Ok(Made::Plan(parts));
                }
                let longest = self.settings.longest;
                let summary = blocking(move || work::render(options, longest)).await?;
                let own = |n: &Notice| Notice { text: work::without(folder, n), ..n.clone() };
                let told = Told {
                    frames: summary.frames,
                    seconds: summary.seconds,
                    card: matches!(summary.device.parse(), Ok(Device::Cuda(_) | Device::TensorRt(_))),
                    start: summary.start,
                    notices: summary.notices.iter().map(own).collect(),
                };
                (summary.output, name, told)
            }
            Step::Join => {
                let mut parts = Vec::new();
                for piece in &record.parts {
                    let object = piece.object.as_deref().unwrap_or_default();
                    let file = folder.join(object);
                    storage.fetch(&self.object(&id, object), &file).await?;
                    parts.push((file, ClockTime::from_nseconds(piece.start.unwrap_or(piece.from))));
                }
                let output = options.output.clone();
                let joined = blocking(move || {
                    background::run("join", || {
                        part::join(&Joining {
                            parts: &parts,
                            video: &options.video,
                            audio: &options.audio,
                            output: &options.output,
                            engine: options.engine.as_deref().unwrap_or_default(),
                            signer: options.signer.as_ref(),
                            watch: &options.watch,
                        })
                    })
                })
                .await?;
                let told = Told { frames: joined.frames, seconds: joined.seconds, ..Told::default() };
                (output, whole, told)
            }
        };
        let bytes = storage.put(&self.object(&id, &name), &file).await?;
        Ok(Made::Object { name, bytes, told: Box::new(told) })
    }

    /// The parts of a job that is long enough for several.
    async fn plan(&self, record: &Record, folder: &Path) -> Result<Option<Vec<Piece>>, Stop> {
        // A part has no sound to mix, and no alpha that is joined.
        let cut = record.options.looped && !record.second && record.options.alpha() != Mode::Keep;
        let Some(length) = self.settings.split.filter(|_| cut) else { return Ok(None) };
        let (video, audio) = (folder.join(work::VIDEO), folder.join(work::AUDIO));
        let length = ClockTime::from_nseconds(length.as_nanos() as u64);
        // What is wrong with the inputs is said by the render itself.
        let cuts = blocking(move || Ok(part::plan(&video, &audio, length).unwrap_or_default())).await?;
        if cuts.is_empty() {
            return Ok(None);
        }
        let starts = std::iter::once(0).chain(cuts.iter().map(|cut| cut.nseconds()));
        let ends = cuts.iter().map(|cut| Some(cut.nseconds())).chain([None]);
        Ok(Some(starts.zip(ends).map(|(from, until)| Piece { from, until, ..Piece::default() }).collect()))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, Stop> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::run("it panicked; the log has more"))).map_err(Stop::Failed)
}
