//! Uploaded videos on their way to being avatars: stored as they come, prepared one after the other.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    io::AsyncWriteExt,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::{
    avatar::{Consent, Store, Summary},
    media::{Notice, Notices},
    process,
    tenants::{Caller, Held, Place},
};

/// Jobs that are remembered after their end.
const REMEMBERED: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Another upload is prepared.
    Waiting,
    /// The face is looked for in every frame and the clip is cut to loop.
    Preparing,
    Done,
    /// The video cannot be an avatar; `reason` says why.
    Rejected,
}

/// An upload that becomes a clip of an avatar.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Upload)]
pub struct Job {
    pub id: String,
    pub avatar: String,
    pub clip: String,
    pub state: State,
    /// 0..1
    pub progress: f32,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// What was chosen, converted or missing in the video.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// The avatar, once it is done.
    pub result: Option<Summary>,
    /// Whose it is.
    #[serde(skip)]
    #[schema(ignore)]
    caller: Caller,
}

/// See the module.
pub struct Uploads {
    folder: PathBuf,
    store: Arc<Store>,
    jobs: Mutex<BTreeMap<u64, Job>>,
    next: AtomicU64,
    /// Uploads that are received, wait or are prepared.
    places: Arc<Semaphore>,
    /// One is prepared at a time: it takes a core.
    turn: Arc<Semaphore>,
}

/// A place among the uploads, taken before anything of the body is read.
pub struct UploadPermit {
    _permit: OwnedSemaphorePermit,
}

/// A file that is removed when nobody needs it.
pub struct Upload {
    path: PathBuf,
    bytes: u64,
    /// In what its tenant may store.
    stored: Option<Place>,
}

impl Upload {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its part of what its tenant may store, for whoever takes the file.
    pub fn take_place(&mut self) -> Option<Place> {
        self.stored.take()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.path);
    }
}

impl Uploads {
    /// `folder` holds the uploads while they are prepared; `waiting` may be on their way at a time.
    pub fn new(folder: PathBuf, store: Arc<Store>, waiting: usize) -> Arc<Self> {
        sweep(&folder);
        Arc::new(Self {
            folder,
            store,
            jobs: Mutex::default(),
            next: AtomicU64::new(1),
            places: Arc::new(Semaphore::new(waiting)),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    pub fn place(&self) -> Result<UploadPermit, Problem> {
        let full =
            |_| Problem::full("too many uploads wait to be prepared (avatars.max_waiting); try again in a minute");
        self.places.clone().try_acquire_owned().map(|_permit| UploadPermit { _permit }).map_err(full)
    }

    /// Stores a body that `caller` sends.
    pub async fn receive(
        &self,
        caller: &Caller,
        mut body: impl Stream<Item = Result<Bytes, Problem>> + Unpin,
    ) -> Result<Upload, Problem> {
        let failure = |e: std::io::Error| {
            let status = match e.kind() {
                std::io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Problem::new(status, format!("the upload cannot be stored in avatars.folder: {e}"))
        };
        tokio::fs::create_dir_all(&self.folder).await.map_err(failure)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}-{number}", std::process::id()));
        let stored = caller.tenant().map(|tenant| tenant.take(Held::Bytes, 0)).transpose()?;
        let mut upload = Upload { path, bytes: 0, stored };
        let mut file = tokio::fs::File::create_new(&upload.path).await.map_err(failure)?;
        while let Some(piece) = body.next().await {
            let piece = piece?;
            if let Some(stored) = &mut upload.stored {
                stored.grow(piece.len() as u64)?;
            }
            file.write_all(&piece).await.map_err(failure)?;
            upload.bytes += piece.len() as u64;
        }
        file.flush().await.map_err(failure)?;
        if upload.bytes == 0 {
            return Err(Problem::bad_request("the upload is empty; send a video as the body"));
        }
        Ok(upload)
    }

    /// Prepares a stored video; the job says how far that is.
    pub fn prepare(
        self: &Arc<Self>,
        caller: Caller,
        place: UploadPermit,
        mut upload: Upload,
        (avatar, clip): (String, String),
        consent: Option<Consent>,
    ) -> Job {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let job = Job {
            id: number.to_string(),
            avatar: avatar.clone(),
            clip: clip.clone(),
            state: State::Waiting,
            progress: 0.0,
            reason: None,
            notices: Vec::new(),
            result: None,
            caller: caller.clone(),
        };
        {
            let mut jobs = self.jobs.lock();
            jobs.insert(number, job.clone());
            while jobs.len() > REMEMBERED {
                let ended =
                    jobs.iter().find(|(_, j)| matches!(j.state, State::Done | State::Rejected)).map(|(n, _)| *n);
                let Some(oldest) = ended else { break };
                jobs.remove(&oldest);
            }
        }
        let uploads = self.clone();
        tokio::spawn(async move {
            let Ok(_turn) = uploads.turn.clone().acquire_owned().await else { return };
            let (own, path) = (uploads.clone(), upload.path.clone());
            // It becomes an avatar, which is counted as one.
            let stored = upload.take_place();
            let work = move || own.run(number, &caller, (&avatar, &clip, consent), &path, stored);
            if tokio::task::spawn_blocking(work).await.is_err() {
                uploads.change(number, |job| {
                    job.state = State::Rejected;
                    job.reason = Some("preparing it is a fault of the server; its log says more".into());
                });
            }
            drop((upload, place));
        });
        job
    }

    fn run(
        &self,
        number: u64,
        caller: &Caller,
        (avatar, clip, consent): (&str, &str, Option<Consent>),
        path: &Path,
        stored: Option<Place>,
    ) {
        self.change(number, |job| job.state = State::Preparing);
        let notices = Notices::default();
        let mut progress = |part: f32| self.change(number, |job| job.progress = part.clamp(0.0, 1.0));
        let added = self.store.add_for(caller, (avatar, clip, consent), path, &mut progress, &notices);
        drop(stored);
        if let Some(tenant) = caller.tenant().filter(|_| added.is_ok()) {
            tenant.set_avatar_bytes(self.store.bytes_of(&tenant.name));
        }
        // The name of the stored file says nothing to whoever sent it.
        let named = |text: &dyn fmt::Display| text.to_string().replace(&path.display().to_string(), "the video");
        let notices = notices.list().into_iter().map(|n| Notice { text: named(&n), ..n }).collect();
        self.change(number, |job| job.notices = notices);
        self.change(number, |job| match added {
            Ok(summary) => {
                (job.state, job.progress, job.result) = (State::Done, 1.0, Some(summary));
            }
            Err(rejection) => {
                (job.state, job.reason) = (State::Rejected, Some(named(&rejection)));
            }
        });
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.lock().get_mut(&number) {
            change(job);
        }
    }

    /// Those that `caller` sees.
    pub fn list(&self, caller: &Caller) -> Vec<Job> {
        let jobs = self.jobs.lock();
        jobs.values().filter(|job| caller.sees_of(job.caller.tenant())).cloned().collect()
    }

    pub fn get(&self, id: &str, caller: &Caller) -> Result<Job, Problem> {
        let found = id.parse().ok().and_then(|number: u64| self.jobs.lock().get(&number).cloned());
        found
            .filter(|job| caller.sees_of(job.caller.tenant()))
            .ok_or_else(|| Problem::not_found("there is no such upload; ended ones are forgotten after a while"))
    }
}

/// Removes what processes that are gone have left.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !process::runs(pid)) {
            // A file that cannot be removed is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}
