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
    AGAIN, PREFIX, Phase, Record, Running, Shared, broken, now, number, object_folder,
    record::{Piece, Step},
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
/// Workers that may die of a job, or of a part of one.
const TRIES: u32 = 3;
/// Deliveries of a message whose job is not in the bucket: it comes there after the message.
const UNKNOWN: i64 = 2;
/// In which it comes there.
const HANDED_IN: Duration = Duration::from_secs(1);
/// How often the cluster is told how far a job is.
const TELL: Duration = Duration::from_secs(1);
/// Part of the progress that rendering the parts is; the rest is joining them.
const PARTS: f32 = 0.95;

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

/// What a render says of itself.
#[derive(Default)]
struct Told {
    frames: u64,
    seconds: f64,
    card: bool,
    /// Time of the first frame, in ns.
    start: Option<u64>,
    notices: Vec<Notice>,
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

/// Job and step of a message: `job-7`, `job-7/0`, `job-7/join`.
fn task(text: &str) -> Option<(u64, Step)> {
    let (id, step) = text.split_once('/').map_or((text, None), |(id, step)| (id, Some(step)));
    let step = match step {
        None => Step::Whole,
        Some("join") => Step::Join,
        Some(index) if index.len() <= 4 && index.bytes().all(|b| b.is_ascii_digit()) => Step::Part(index.parse().ok()?),
        Some(_) => return None,
    };
    Some((number(id)?, step))
}

/// Gives a step to the holder of `lease`, unless it is done or its workers die of it.
fn take(record: &mut Record, step: Step, lease: &str) -> bool {
    let cut = !record.parts.is_empty();
    let done = record.part(step).is_some_and(|part| part.object.is_some());
    let lacking = step == Step::Join && record.parts.iter().any(|part| part.object.is_none());
    if record.status.state.is_over() || done || lacking || (step == Step::Whole && cut) {
        return false;
    }
    let Some(held) = record.slot(step) else { return false };
    held.tries = held.tries.saturating_add(u32::from(held.holder.take().is_some()));
    if held.tries >= TRIES {
        fail(record, format!("{TRIES} workers ended while they rendered it; their logs may have more"));
        return true;
    }
    held.holder = Some(lease.to_owned());
    let status = &mut record.status;
    if step == Step::Whole {
        status.progress = 0.0;
    }
    status.state = Phase::Running;
    status.started.get_or_insert_with(now);
    true
}

fn tell(record: &mut Record, step: Step, now: Standing) {
    match step {
        Step::Whole => {
            record.status.progress = record.status.progress.max(now.part);
            record.status.fps = now.fps;
            record.status.seconds_left = now.left.map(|left| left.as_secs_f64());
        }
        Step::Part(index) => {
            if let Some(part) = record.parts.get_mut(index) {
                part.progress = now.part;
            }
            let (sum, count) = (record.parts.iter().map(|part| part.progress).sum::<f32>(), record.parts.len());
            record.status.progress = record.status.progress.max(PARTS * sum / count.max(1) as f32);
        }
        Step::Join => {}
    }
}

fn finish(record: &mut Record, step: Step, (name, bytes): (&str, u64), told: &Told, gpu_us: u64) {
    record.gpu_us = record.gpu_us.saturating_add(gpu_us);
    for notice in &told.notices {
        if !record.status.notices.contains(notice) {
            record.status.notices.push(notice.clone());
        }
    }
    if let Step::Part(index) = step {
        if let Some(part) = record.parts.get_mut(index) {
            (part.object, part.start, part.progress) = (Some(name.to_owned()), told.start, 1.0);
            part.lease = Default::default();
            record.stored = record.stored.saturating_add(bytes);
        }
        return;
    }
    let status = &mut record.status;
    (status.state, status.progress, status.finished) = (Phase::Done, 1.0, Some(now()));
    (status.fps, status.seconds_left) = (None, None);
    (status.seconds, status.frames) = (Some(told.seconds), Some(told.frames));
    (status.bytes, record.stored) = (Some(bytes), bytes);
    record.result = Some(name.to_owned());
    record.lease = Default::default();
}

fn fail(record: &mut Record, cause: String) {
    let status = &mut record.status;
    (status.state, status.error, status.finished) = (Phase::Failed, Some(cause), Some(now()));
    (status.fps, status.seconds_left) = (None, None);
    record.lease = Default::default();
    record.parts.clear();
    record.stored = 0;
}

/// Takes, does and ends each step of an entry, and reads a message, as a node does that is given them.
pub(in crate::jobs) fn read(bytes: &[u8]) {
    let named = std::str::from_utf8(bytes).ok().and_then(task);
    assert!(named.is_none_or(|(_, step)| !matches!(step, Step::Part(index) if index > 9999)));
    let Some(mut record) = Record::parse(bytes) else { return };
    assert!(Record::parse(&record.value()).is_some(), "what is kept is read again");
    let time = ClockTime::from_nseconds;
    for piece in &record.parts {
        let _ = (Part::new(time(piece.from), piece.until.map(time)), piece.start.map(time));
    }
    let count = record.parts.len();
    for step in (0..count).map(Step::Part).chain([Step::Whole, Step::Join]) {
        if take(&mut record, step, "lease") {
            tell(&mut record, step, Standing::default());
            finish(&mut record, step, ("object", 1), &Told::default(), 1);
        }
    }
    let mut mirror = super::mirror::Mirror::default();
    let _ = (mirror.status(1, &record), mirror.told(1, 1, Some(record)), mirror.stored("anna"), mirror.waiting());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{Container, Options, Status};

    fn record(parts: usize) -> Record {
        Record {
            status: Status::queued("job-1".into(), Container::Mp4, 0),
            options: Options::default(),
            owner: None,
            bank: false,
            second: false,
            stored: 10,
            lease: Default::default(),
            result: None,
            parts: vec![Piece::default(); parts],
            gpu_us: 0,
            metered: true,
        }
    }

    #[test]
    fn messages_name_a_job_and_a_step() {
        assert_eq!(task("job-7"), Some((7, Step::Whole)));
        assert_eq!(task("job-7/12"), Some((7, Step::Part(12))));
        assert_eq!(task("job-7/join"), Some((7, Step::Join)));
        for bad in ["", "7", "job-7/", "job-7/-1", "job-7/99999", "job-7/join/1", "job-x/join"] {
            assert_eq!(task(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_step_is_given_to_one_at_a_time_and_not_again_when_it_is_done() {
        let mut record = record(2);
        assert!(!take(&mut record, Step::Whole, "a"), "it was cut");
        assert!(!take(&mut record, Step::Join, "a"), "parts are lacking");
        assert!(!take(&mut record, Step::Part(2), "a"), "there is none");
        assert!(take(&mut record, Step::Part(0), "a") && take(&mut record, Step::Part(1), "b"));
        assert!(record.is_of(Step::Part(0), "a") && !record.is_of(Step::Part(1), "a"));
        // Its worker was silent for too long.
        assert!(take(&mut record, Step::Part(0), "c") && !record.is_of(Step::Part(0), "a"));
        for (index, name) in [(0, "part-0"), (1, "part-1")] {
            finish(&mut record, Step::Part(index), (name, 5), &Told { start: Some(7), ..Told::default() }, 3);
        }
        assert!(!take(&mut record, Step::Part(0), "a"), "it is made");
        assert_eq!((record.stored, record.gpu_us, record.status.state), (20, 6, Phase::Running));
        assert!(take(&mut record, Step::Join, "a"));
        finish(&mut record, Step::Join, ("result", 8), &Told { frames: 50, ..Told::default() }, 0);
        assert_eq!((record.stored, record.status.frames, record.status.state), (8, Some(50), Phase::Done));
        assert!(!take(&mut record, Step::Join, "b") && !record.is_of(Step::Join, "a"));
    }

    #[test]
    fn a_job_of_which_workers_die_fails() {
        let mut record = record(0);
        for lease in ["a", "b", "c"] {
            assert!(take(&mut record, Step::Whole, lease) && record.is_of(Step::Whole, lease));
        }
        assert!(take(&mut record, Step::Whole, "d"));
        assert_eq!((record.status.state, record.stored), (Phase::Failed, 0));
        assert!(record.status.error.unwrap().starts_with("3 workers ended"));
    }
}
