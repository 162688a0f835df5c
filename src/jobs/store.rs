use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use lipstream_engines::{occlusion::Masks, runtime};
use parking_lot::{Condvar, Mutex};

use super::{
    Kept, Options, PREFIX, Phase, Place, Status, number, object_folder, status::now, unique, version, work, worker,
};
use crate::{
    avatar,
    error::{Failure, Result},
    marks::Identity,
    render::Watch,
    session::Refusal,
    storage::Storage,
    tenants::{self, Caller},
};

/// What holds for all jobs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Jobs that may wait.
    pub waiting: usize,
    /// Jobs that are remembered when they are over, and for how long.
    pub kept: usize,
    pub kept_for: Duration,
    /// Bytes that results may take together; the oldest go first.
    pub bytes: u64,
    /// Longest speech.
    pub longest: Duration,
    /// Engine and device where a job does not say.
    pub engine: String,
    pub runtime: runtime::Options,
    /// What looks for what is before faces, where a job does not say.
    pub occlusion: Masks,
    /// Who signs the manifests of results in MP4; `None`: they get none.
    pub signer: Option<Identity>,
    /// Whether the generated part of the picture is marked.
    pub watermark: bool,
    /// In a cluster, length of the parts in which longer renders are made; `None`: they are not cut.
    pub split: Option<Duration>,
    /// Where results are kept; `None`: with the jobs.
    pub storage: Option<Storage>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            waiting: 32,
            kept: 100,
            kept_for: Duration::from_secs(24 * 3600),
            bytes: 10 << 30,
            longest: Duration::from_secs(2 * 3600),
            engine: crate::render::DEFAULT_ENGINE.into(),
            runtime: runtime::Options::default(),
            occlusion: Masks::Auto,
            signer: None,
            watermark: true,
            split: None,
            storage: None,
        }
    }
}

/// Whose lips are to move.
#[derive(Clone, Debug)]
pub enum Video {
    /// The idle clip of an avatar.
    Avatar(String),
    /// A file, which is moved into the job.
    File(PathBuf),
}

/// A job as it is handed in.
#[derive(Debug)]
pub struct Request {
    pub video: Video,
    /// A file, which is moved into the job.
    pub audio: PathBuf,
    /// A second voice, likewise.
    pub audio_b: Option<PathBuf>,
    pub options: Options,
    /// Whose it is.
    pub caller: Caller,
    /// Places of the files in what the caller's tenant may store.
    pub stored: Vec<tenants::Place>,
}

impl Request {
    /// Errors name the value and what is allowed.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.options.speaker_b.is_some() && self.audio_b.is_none() {
            return Err(Refusal::Invalid(
                "speaker_b: there is no second voice; the form's field `audio_b` holds it".into(),
            ));
        }
        self.options.check()
    }

    /// The avatar that is to be rendered; `None` where it is a file.
    pub fn avatar(&self, avatars: &avatar::Store) -> Result<Option<Arc<avatar::Avatar>>, Refusal> {
        let Video::Avatar(name) = &self.video else { return Ok(None) };
        let avatar = avatars.get_for(name, &self.caller).ok_or_else(|| {
            let known = avatars.names_for(&self.caller);
            Refusal::Invalid(format!("avatar: there is no `{name}`; there are {known}"))
        })?;
        avatars.check_use(&avatar).map_err(|e| Refusal::Invalid(format!("avatar: {e}")))?;
        Ok(Some(avatar))
    }
}

/// A job that is known.
pub struct Job {
    pub status: Status,
    pub folder: PathBuf,
    pub options: Options,
    /// Reference bank of the avatar; `None` where the video is a file.
    pub bank: Option<PathBuf>,
    pub watch: Watch,
    pub caller: Caller,
    /// Given back when it is forgotten.
    pub stored: Vec<tenants::Place>,
}

impl Job {
    pub fn result(&self) -> PathBuf {
        work::result(&self.folder, &self.options)
    }

    /// Name of the result where results are kept elsewhere.
    pub fn kept_as(&self) -> String {
        format!("{}/result.{}", object_folder(&self.status.id), self.options.container.extension())
    }
}

#[derive(Default)]
pub struct State {
    pub jobs: BTreeMap<u64, Job>,
    pub queue: VecDeque<u64>,
    next: u64,
    pub closed: bool,
}

/// What the store and its worker share.
pub struct Shared {
    pub settings: Settings,
    pub state: Mutex<State>,
    pub changed: Condvar,
}

impl Shared {
    /// Removes what there is of a job that is forgotten.
    pub fn forget(&self, job: &Job) {
        forget(&job.folder);
        if let Some(storage) = self.settings.storage.clone().filter(|_| job.status.state == Phase::Done) {
            let name = job.kept_as();
            storage.clone().spawn(async move {
                if let Err(failure) = storage.remove(&name).await {
                    tracing::warn!("{failure}");
                }
            });
        }
    }
}

/// See the module.
pub struct Store {
    folder: PathBuf,
    avatars: Arc<avatar::Store>,
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Keeps jobs in `folder`, which is emptied of jobs of earlier runs.
    pub fn open(folder: &Path, settings: Settings, avatars: Arc<avatar::Store>) -> Result<Arc<Self>> {
        let failure = |e: std::io::Error| {
            Failure::output(format!("{}: the folder of jobs cannot be made: {e}", folder.display()))
        };
        fs::create_dir_all(folder).map_err(failure)?;
        for entry in fs::read_dir(folder).map_err(failure)?.flatten() {
            if number(&entry.file_name().to_string_lossy()).is_some() {
                forget(&entry.path());
            }
        }
        // What is kept elsewhere outlives this program when that dies: its names are never given again.
        let next = if settings.storage.is_some() { unique() } else { 0 };
        let state = Mutex::new(State { next, ..State::default() });
        let shared = Arc::new(Shared { settings, state, changed: Condvar::new() });
        let works = shared.clone();
        let worker = thread::Builder::new()
            .name("jobs".into())
            .spawn(move || worker::work(&works))
            .map_err(|e| Failure::run(format!("no thread for jobs: {e}")))?;
        let folder = folder.canonicalize().map_err(failure)?;
        Ok(Arc::new(Self { folder, avatars, shared, worker: Mutex::new(Some(worker)) }))
    }

    /// Queues a job. The files that are handed in are its own from then on, also where it is refused.
    pub fn submit(&self, mut request: Request) -> Result<Status, Refusal> {
        let (caller, stored) = (request.caller.clone(), std::mem::take(&mut request.stored));
        let handed_in = HandedIn(&request);
        request.check()?;
        let avatar = request.avatar(&self.avatars)?;
        let mut state = self.shared.state.lock();
        if state.closed {
            return Err(Refusal::Full("the server is ending".into()));
        }
        if state.queue.len() >= self.shared.settings.waiting {
            return Err(Refusal::Full(format!("{} renders wait, which is the most: try later", state.queue.len())));
        }
        state.next += 1;
        let number = state.next;
        let id = format!("{PREFIX}{number}");
        let folder = self.folder.join(&id);
        let failed = |e: std::io::Error| Refusal::Failed(format!("the job cannot be stored: {e}"));
        fs::create_dir(&folder).map_err(failed)?;
        let moved = match &request.video {
            Video::File(file) => take(file, &folder.join(work::VIDEO)),
            // Links to what the avatar was made of: the job goes on when the avatar is removed.
            Video::Avatar(_) => avatar.as_ref().map_or(Ok(()), |a| link(&a.video(), &folder.join(work::VIDEO))),
        }
        .and_then(|()| take(&request.audio, &folder.join(work::AUDIO)))
        .and_then(|()| request.audio_b.as_ref().map_or(Ok(()), |file| take(file, &folder.join(work::AUDIO_B))));
        if let Err(e) = moved {
            forget(&folder);
            return Err(failed(e));
        }
        drop(handed_in);
        let bank = avatar.and_then(|avatar| avatar.bank.clone()).and_then(|bank| {
            let own = folder.join(work::BANK);
            link(&bank, &own).is_ok().then_some(own)
        });
        let status = Status::queued(id, request.options.container, state.queue.len());
        let weak = Arc::downgrade(&self.shared);
        let watch = Watch::new(move |standing| {
            let Some(shared) = weak.upgrade() else { return };
            if let Some(job) = shared.state.lock().jobs.get_mut(&number) {
                job.status.progress = job.status.progress.max(standing.part);
                job.status.fps = standing.fps;
                job.status.seconds_left = standing.left.map(|left| left.as_secs_f64());
            }
        });
        let options = request.options.clone();
        let job = Job { status: status.clone(), folder, options, bank, watch, caller, stored };
        state.jobs.insert(number, job);
        state.queue.push_back(number);
        drop(state);
        self.shared.changed.notify_all();
        Ok(status)
    }

    /// All jobs, the newest first.
    pub fn list(&self) -> Vec<Status> {
        self.list_for(&Caller::Operator)
    }

    /// Those that `caller` sees.
    pub fn list_for(&self, caller: &Caller) -> Vec<Status> {
        let state = self.shared.state.lock();
        let seen = state.jobs.iter().rev().filter(|(_, job)| caller.sees_of(job.caller.tenant()));
        seen.map(|(number, job)| with_place(&state, *number, job)).collect()
    }

    /// Whose a job is.
    pub fn caller(&self, id: &str) -> Option<Caller> {
        let number = number(id)?;
        self.shared.state.lock().jobs.get(&number).map(|job| job.caller.clone())
    }

    pub fn get(&self, id: &str) -> Option<Status> {
        let number = number(id)?;
        let state = self.shared.state.lock();
        state.jobs.get(&number).map(|job| with_place(&state, number, job))
    }

    /// Where the result is; `None` where there is no such job or no result.
    pub fn kept(&self, id: &str) -> Option<Kept> {
        let state = self.shared.state.lock();
        let job = state.jobs.get(&number(id)?).filter(|job| job.status.state == Phase::Done)?;
        let place = match &self.shared.settings.storage {
            Some(storage) => Place::Object(storage.clone(), job.kept_as()),
            None => Place::File(job.result()),
        };
        Some(Kept { place, container: job.options.container, version: version(&job.status) })
    }

    /// File and container of the result, where it is kept with the job.
    pub fn result(&self, id: &str) -> Option<(PathBuf, super::Container)> {
        let state = self.shared.state.lock();
        let job = state.jobs.get(&number(id)?)?;
        (job.status.state == Phase::Done).then(|| (job.result(), job.options.container))
    }

    /// Stops a job that waits or runs; one that runs is `cancelled` a moment later. One that is over stays as it is.
    /// `None`: there is no such job.
    pub fn cancel(&self, id: &str) -> Option<Status> {
        let number = number(id)?;
        let mut state = self.shared.state.lock();
        state.queue.retain(|waiting| *waiting != number);
        let job = state.jobs.get_mut(&number)?;
        job.watch.stop();
        if job.status.state == Phase::Queued {
            job.status.state = Phase::Cancelled;
            job.status.finished = Some(now());
            forget(&job.folder);
            job.stored.clear();
        }
        Some(job.status.clone())
    }

    /// Removes a job that is over, with its result; one that is not is cancelled first.
    /// `None`: there is no such job.
    pub fn remove(&self, id: &str) -> Option<Status> {
        let mut status = self.cancel(id)?;
        let number = number(id).expect("it was found by it");
        let mut state = self.shared.state.lock();
        if state.jobs.get(&number).is_some_and(|job| job.status.state.is_over())
            && let Some(job) = state.jobs.remove(&number)
        {
            self.shared.forget(&job);
            status = job.status;
        }
        Some(status)
    }

    /// Ends the work: the job that runs is cancelled, the files of all are removed.
    pub fn close(&self) {
        {
            let mut state = self.shared.state.lock();
            state.closed = true;
            state.queue.clear();
            state.jobs.values().for_each(|job| job.watch.stop());
        }
        self.shared.changed.notify_all();
        if let Some(worker) = self.worker.lock().take()
            && worker.join().is_err()
        {
            tracing::warn!("the worker of jobs panicked");
        }
        let jobs = std::mem::take(&mut self.shared.state.lock().jobs);
        jobs.values().for_each(|job| forget(&job.folder));
        if let Some(storage) = &self.shared.settings.storage {
            for job in jobs.values().filter(|job| job.status.state == Phase::Done) {
                if let Err(failure) = storage.wait(storage.remove(&job.kept_as())) {
                    tracing::warn!("{failure}");
                }
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Files of a request, removed unless they were moved.
pub struct HandedIn<'a>(pub &'a Request);

impl Drop for HandedIn<'_> {
    fn drop(&mut self) {
        let video = match &self.0.video {
            Video::File(file) => Some(file),
            Video::Avatar(_) => None,
        };
        for file in video.into_iter().chain([&self.0.audio]).chain(&self.0.audio_b) {
            // Moved, as a rule.
            let _ = fs::remove_file(file);
        }
    }
}

fn with_place(state: &State, number: u64, job: &Job) -> Status {
    let running = state.jobs.values().filter(|job| job.status.state == Phase::Running).count();
    let place = state.queue.iter().position(|waiting| *waiting == number);
    Status { ahead: place.map_or(0, |place| place + running), ..job.status.clone() }
}

/// Moves a file, over the border of a file system too.
fn take(from: &Path, to: &Path) -> std::io::Result<()> {
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to)?;
    fs::remove_file(from)
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map(drop)
}

/// Removes a job's folder.
pub fn forget(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("{}: cannot be removed: {e}", folder.display());
        }
        _ => {}
    }
}
