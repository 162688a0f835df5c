//! Renders of a cluster. What is to be rendered is a message of a work queue of NATS JetStream, what is known of a job an entry
//! of a key-value bucket, and its files are objects of the [`Storage`].
//!
//! ```text
//! POST ─► inputs ─► storage        any node ─► bucket: states, results
//!      └► message ─► work queue ─► one worker ─► result ─► storage ─► entry `done`, by revision
//! ```
//!
//! A message stays in the queue until its job is over: a worker that dies is silent, and another one is given it. Whoever renders
//! puts its result under a name of its own; that one result counts whose worker changes the entry to `done` first, which only the
//! holder of the newest lease can. What others have put is removed.

mod mirror;
mod record;
mod steps;
mod worker;

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    kv,
    stream::{Config as StreamConfig, DiscardPolicy, RetentionPolicy},
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::mirror::Mirror;
pub use self::record::Record;
pub(super) use self::steps::read;
use super::{
    Kept, PREFIX, Phase, Place, Request, Settings, Status, Video, number, object_folder, status::now, store::HandedIn,
    unique, version, work,
};
use crate::{
    avatar, cluster,
    error::{Failure, Result},
    render::Watch,
    session::Refusal,
    storage::Storage,
    tenants::{Caller, Tenant, Tenants, Totals},
};

const STREAM: &str = "LIPSTREAM_RENDERS";
const SUBJECT: &str = "lipstream.renders";
const CONSUMER: &str = "workers";
const BUCKET: &str = "lipstream-renders";
/// Pause after which something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often what is too old is looked for.
const TIDY: Duration = Duration::from_secs(30);
/// Others that may change an entry at the same time.
const RACES: usize = 32;
/// What a node of a cluster is told.
pub struct Cluster {
    pub link: Arc<cluster::Cluster>,
    /// Silence of a worker after which another one is given its job.
    pub takeover: Duration,
    pub storage: Storage,
    pub avatars: Arc<avatar::Store>,
    pub tenants: Option<Arc<Tenants>>,
    /// Where files are while they are rendered.
    pub scratch: std::path::PathBuf,
}

/// See the module.
pub struct Shared {
    cluster: Cluster,
    settings: Settings,
    bucket: kv::Store,
    mirror: Mutex<Mirror>,
    /// What is rendered here.
    running: Mutex<Option<Running>>,
    /// Jobs whose usage is being counted here.
    counting: Mutex<BTreeSet<u64>>,
    end: CancellationToken,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
    own: Weak<Self>,
}

struct Running {
    number: u64,
    step: record::Step,
    lease: String,
    watch: Watch,
}

/// Why the bucket or the queue cannot be used now.
fn broken(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::run(format!("NATS: {what}: {error}"))
}

impl Shared {
    /// Joins the renders of a cluster; works until [`close`](Self::close).
    pub async fn open(cluster: Cluster, settings: Settings) -> Result<Arc<Self>> {
        std::fs::create_dir_all(&cluster.scratch).map_err(|e| {
            Failure::output(format!("{}: the folder of renders cannot be made: {e}", cluster.scratch.display()))
        })?;
        let bucket = cluster.link.bucket(BUCKET, "renders").await;
        let bucket = bucket.map_err(|e| broken("the bucket of renders cannot be opened", &e))?;
        let shared = Arc::new_cyclic(|own| Self {
            own: own.clone(),
            cluster,
            settings,
            bucket,
            mirror: Mutex::default(),
            running: Mutex::default(),
            counting: Mutex::default(),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        shared.queue().await?;
        let (follow, work, tidy) = (shared.clone(), shared.clone(), shared.clone());
        let end = shared.end.clone();
        shared.tasks.spawn(end.clone().run_until_cancelled_owned(async move { follow.follow().await }));
        shared.tasks.spawn(end.run_until_cancelled_owned(async move { tidy.tidy().await }));
        // It ends what it does by itself.
        shared.tasks.spawn(async move { work.work().await });
        Ok(shared)
    }

    /// The queue of work, made where there is none.
    async fn queue(&self) -> Result<jetstream::consumer::PullConsumer> {
        let context = self.cluster.link.jetstream();
        let stream = context
            .get_or_create_stream(StreamConfig {
                name: STREAM.into(),
                subjects: vec![SUBJECT.into()],
                retention: RetentionPolicy::WorkQueue,
                discard: DiscardPolicy::New,
                num_replicas: self.cluster.link.replicas(),
                ..StreamConfig::default()
            })
            .await
            .map_err(|e| broken("the queue of renders cannot be opened", &e))?;
        let workers = pull::Config {
            durable_name: Some(CONSUMER.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.cluster.takeover,
            // Jobs that are given out at a time, each to a worker.
            max_ack_pending: 100_000,
            ..pull::Config::default()
        };
        stream.create_consumer(workers).await.map_err(|e| broken("the queue of renders gives no work", &e))
    }

    /// Puts a message into the queue.
    async fn send(&self, task: &str) -> Result<()> {
        let failed = |e: jetstream::context::PublishError| broken("the queue of renders takes nothing", &e);
        let sent = self.cluster.link.jetstream().publish(SUBJECT, task.to_owned().into()).await.map_err(failed)?;
        sent.await.map(drop).map_err(failed)
    }

    /// Queues a job. The files that are handed in are removed. Blocks.
    pub fn submit(&self, request: &Request) -> Result<Status, Refusal> {
        let _handed_in = HandedIn(request);
        request.check()?;
        let avatar = request.avatar(&self.cluster.avatars)?;
        let waiting = self.mirror.lock().waiting();
        if self.end.is_cancelled() {
            return Err(Refusal::Full("the server is ending".into()));
        }
        if waiting >= self.settings.waiting {
            return Err(Refusal::Full(format!("{waiting} renders wait, which is the most: try later")));
        }
        let video = match (&request.video, &avatar) {
            (Video::File(file), _) => file.clone(),
            (Video::Avatar(_), Some(avatar)) => avatar.video(),
            (Video::Avatar(_), None) => return Err(Refusal::Failed("the avatar is gone".into())),
        };
        let number = unique();
        let id = format!("{PREFIX}{number}");
        let mut options = request.options.clone();
        // All workers take the same.
        options.engine.get_or_insert_with(|| self.settings.engine.clone());
        let bank = avatar.as_ref().and_then(|avatar| avatar.bank.clone());
        let mut record = Record {
            status: Status::queued(id.clone(), options.container, waiting),
            options,
            owner: request.caller.tenant().map(|tenant| tenant.name.clone()),
            bank: bank.is_some(),
            second: request.audio_b.is_some(),
            stored: 0,
            lease: Default::default(),
            parts: Vec::new(),
            result: None,
            gpu_us: 0,
            metered: request.caller.tenant().is_none(),
        };
        let (audio, second) = (Some(request.audio.clone()), request.audio_b.clone());
        let inputs = [(work::VIDEO, Some(video)), (work::AUDIO, audio), (work::AUDIO_B, second), (work::BANK, bank)];
        let stored = self.runtime.block_on(async {
            for (name, file) in inputs {
                let Some(file) = file else { continue };
                record.stored +=
                    self.cluster.storage.put(&self.object(&id, name), &file).await.map_err(|e| e.to_string())?;
            }
            // First the message: of a job that is not in the bucket a worker makes nothing.
            self.send(&id).await.map_err(|e| e.to_string())?;
            self.bucket.create(&id, record.value()).await.map_err(|e| e.to_string())
        });
        match stored {
            Ok(revision) => {
                let mut mirror = self.mirror.lock();
                mirror.made(number, revision, record.clone());
                let status = mirror.status(number, &record);
                drop(mirror);
                self.count_stored(record.owner.as_deref());
                Ok(status)
            }
            Err(cause) => {
                self.forget_objects(&id);
                Err(Refusal::Failed(format!("the job cannot be stored: {cause}")))
            }
        }
    }

    fn object(&self, id: &str, name: &str) -> String {
        format!("{}/{name}", object_folder(id))
    }

    pub fn list_for(&self, caller: &Caller) -> Vec<Status> {
        let mirror = self.mirror.lock();
        let seen = mirror.iter().rev().filter(|(_, record)| caller.sees(record.owner.as_deref()));
        seen.map(|(number, record)| mirror.status(number, record)).collect()
    }

    pub fn get_for(&self, id: &str, caller: &Caller) -> Option<Status> {
        let number = number(id)?;
        let mirror = self.mirror.lock();
        let record = mirror.get(number).filter(|record| caller.sees(record.owner.as_deref()))?;
        Some(mirror.status(number, record))
    }

    /// The tenant whose job it is, where it is known here.
    pub fn owner(&self, id: &str) -> Option<Arc<Tenant>> {
        let name = self.mirror.lock().get(number(id)?)?.owner.clone()?;
        self.cluster.tenants.as_ref()?.get(&name)
    }

    pub fn kept(&self, id: &str) -> Option<Kept> {
        let mirror = self.mirror.lock();
        let record = mirror.get(number(id)?).filter(|record| record.status.state == Phase::Done)?;
        let name = self.object(id, record.result.as_deref()?);
        let place = Place::Object(self.cluster.storage.clone(), name);
        Some(Kept { place, container: record.options.container, version: version(&record.status) })
    }

    /// Removes a job with its result; whoever renders it stops. Blocks.
    pub fn remove(&self, id: &str) -> Result<bool, Refusal> {
        let Some(number) = number(id) else { return Ok(false) };
        let Some(owner) = self.mirror.lock().get(number).map(|record| record.owner.clone()) else { return Ok(false) };
        let removed = self.runtime.block_on(self.bucket.purge(id));
        removed.map_err(|e| Refusal::Failed(format!("the job cannot be removed: NATS: {e}")))?;
        let running = self.running.lock().as_ref().filter(|running| running.number == number).map(|r| r.watch.clone());
        if let Some(watch) = running {
            watch.stop();
        }
        self.mirror.lock().forget(number);
        self.count_stored(owner.as_deref());
        self.forget_objects(id);
        Ok(true)
    }

    /// Stops working; what is rendered here goes back into the queue. Blocks.
    pub fn close(&self) {
        self.end.cancel();
        if let Some(running) = &*self.running.lock() {
            running.watch.stop();
        }
        self.tasks.close();
        self.runtime.block_on(self.tasks.wait());
    }

    fn forget_objects(&self, id: &str) {
        let (storage, folder) = (self.cluster.storage.clone(), object_folder(id));
        self.tasks.spawn_on(
            async move {
                if let Err(failure) = storage.remove_below(&folder, |_| false).await {
                    tracing::warn!("{failure}");
                }
            },
            &self.runtime,
        );
    }

    /// What a tenant's jobs take now, for its quota.
    fn count_stored(&self, owner: Option<&str>) {
        let Some(owner) = owner else { return };
        if let Some(tenant) = self.cluster.tenants.as_ref().and_then(|tenants| tenants.get(owner)) {
            tenant.set_render_bytes(self.mirror.lock().stored(owner));
        }
    }

    /// Changes an entry, until nobody else has changed it meanwhile. `Ok(None)`: there is none, or `change` does not want to.
    async fn change(&self, number: u64, change: impl Fn(&mut Record) -> bool) -> Result<Option<Record>> {
        let key = format!("{PREFIX}{number}");
        for _ in 0..RACES {
            let entry = self.bucket.entry(&key).await.map_err(|e| broken("a job cannot be read", &e))?;
            let Some(entry) = entry.filter(|entry| entry.operation == kv::Operation::Put) else { return Ok(None) };
            let Some(mut record) = Record::parse(&entry.value) else { return Ok(None) };
            if !change(&mut record) {
                return Ok(None);
            }
            match self.bucket.update(&key, record.value(), entry.revision).await {
                Ok(revision) => {
                    self.mirror.lock().made(number, revision, record.clone());
                    self.count_stored(record.owner.as_deref());
                    return Ok(Some(record));
                }
                Err(e) if e.kind() == kv::UpdateErrorKind::WrongLastRevision => {}
                Err(e) => return Err(broken("a job cannot be changed", &e)),
            }
        }
        Err(Failure::run("NATS: a job is changed by too many at once"))
    }

    /// Follows the bucket for as long as it lives.
    async fn follow(&self) {
        loop {
            if let Err(failure) = self.follow_once().await {
                tracing::warn!("{failure}; what other nodes render is not seen until it works again");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow_once(&self) -> Result<()> {
        let mut entries = self
            .bucket
            .watch_with_history(">")
            .await
            .map_err(|e| broken("the bucket of renders is not told of", &e))?;
        self.mirror.lock().begin();
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|e| broken("the bucket of renders is not told of", &e))?;
            let Some(number) = number(&entry.key) else { continue };
            let put = entry.operation == kv::Operation::Put;
            let record = put.then(|| Record::parse(&entry.value)).flatten();
            self.see(number, entry.revision, record);
        }
        Ok(())
    }

    fn see(&self, number: u64, revision: u64, record: Option<Record>) {
        let before = {
            let mut mirror = self.mirror.lock();
            let before = mirror.get(number).and_then(|record| record.owner.clone());
            mirror.told(number, revision, record.clone());
            before
        };
        if let Some(running) = &*self.running.lock()
            && running.number == number
            && record.as_ref().is_none_or(|record| !record.is_of(running.step, &running.lease))
        {
            running.watch.stop();
        }
        let owner = record.as_ref().and_then(|record| record.owner.clone()).or(before);
        self.count_stored(owner.as_deref());
        if let Some(record) = record.filter(|record| record.status.state == Phase::Done && !record.metered) {
            self.meter(number, &record);
        }
    }

    /// Counts what a job that is done has used, if no other node has: whoever says so in the entry counts it.
    fn meter(&self, number: u64, record: &Record) {
        let tenants = self.cluster.tenants.as_ref();
        let Some(tenant) = record.owner.as_ref().and_then(|owner| tenants?.get(owner)) else { return };
        if !self.counting.lock().insert(number) {
            return;
        }
        let (used, this) = (record.status.frames.unwrap_or_default(), self.own.clone());
        let gpu_us = record.gpu_us;
        self.tasks.spawn(async move {
            let Some(this) = this.upgrade() else { return };
            let counts = |record: &mut Record| {
                let ours = record.status.state == Phase::Done && !record.metered;
                record.metered = true;
                ours
            };
            match this.change(number, counts).await {
                Ok(Some(_)) => tenant.count(Totals { frames: used, gpu_us, ..Totals::default() }),
                Ok(None) => {}
                Err(failure) => tracing::warn!("{failure}"),
            }
            this.counting.lock().remove(&number);
        });
    }

    /// Removes what is over and too old, too many or too large. All nodes do; it is the same that they remove.
    async fn tidy(&self) {
        loop {
            tokio::time::sleep(TIDY).await;
            for number in self.outdated() {
                let id = format!("{PREFIX}{number}");
                let removed = self.bucket.purge(&id).await.map_err(|e| broken("a job cannot be removed", &e));
                let forgotten = self.cluster.storage.remove_below(&object_folder(&id), |_| false).await;
                if let Err(failure) = removed.and(forgotten.map_err(|e| Failure::run(e.to_string()))) {
                    tracing::warn!("{failure}");
                }
            }
        }
    }

    fn outdated(&self) -> Vec<u64> {
        let settings = &self.settings;
        let oldest = now() - settings.kept_for.as_secs_f64();
        let (mut kept, mut bytes) = (0, 0_u64);
        let mirror = self.mirror.lock();
        let over = mirror.iter().rev().filter(|(_, record)| record.status.state.is_over());
        over.filter(|(_, record)| {
            kept += 1;
            bytes = bytes.saturating_add(record.stored);
            // The newest result stays however large it is.
            let large = bytes > settings.bytes && kept > 1;
            large || kept > settings.kept || record.status.finished.is_some_and(|at| at < oldest)
        })
        .map(|(number, _)| number)
        .collect()
    }
}
