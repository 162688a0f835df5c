//! The sessions of this process.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gstlipstream::denoise;
use lipstream_engines::{
    engine::{self, Worker, WorkerConfig},
    manifest::{Aliases, Package},
    occlusion::Masks,
    runtime,
};
use parking_lot::Mutex;

use super::{
    Capacity, EngineReport, Peers, Refusal, Session, SessionSpec, capacity,
    capacity::Demand,
    encoder, graphs,
    reach::Reach,
    rollout::{Choice, Rollouts},
};
use crate::{
    avatar,
    graph::{Graph, Service},
    memory,
    render::DEFAULT_ENGINE,
    tenants::{Caller, Tenants},
};

/// How often sessions are looked after.
const BEAT: Duration = Duration::from_millis(200);
/// How often the load is sampled.
const SAMPLE: Duration = Duration::from_secs(1);
/// How often freed memory is given back to the system.
const TRIM: Duration = Duration::from_secs(30);

/// What holds for all sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder with the user's graph files, looked at before those that are built in.
    pub graphs: Option<PathBuf>,
    /// Time without viewers after which a graph stops.
    pub idle: Duration,
    /// Speech that may wait in a session.
    pub speech: Duration,
    /// How long speech waits for a session that does not run.
    pub speech_kept: Duration,
    /// Most sessions, running or not.
    pub max_sessions: usize,
    /// Part of the machine's cores, and of a card's time, that sessions may use; above 1 more are let in than have room by
    /// their prices.
    pub load: f64,
    /// Whether sessions are refused for the load of other programs.
    pub count_others: bool,
    /// How long a batch of an engine on a card waits at most for those of other sessions.
    pub batch_timeout: Duration,
    /// Time from one check of a session's sync to the next; zero: none.
    pub sync_check: Duration,
    /// How long a session's mouth must be off by the same before its features are shifted; zero: for ever.
    pub sync_correct: Duration,
    /// Whether sessions may read from and push to loopback and private addresses.
    pub private_addresses: bool,
    /// Whether sessions may read `file://` URLs.
    pub files: bool,
    /// What becomes of publishers to names that no session has.
    pub on_publish: OnPublish,
    /// `engine` and `device` where a session does not say.
    pub engine: String,
    pub device: String,
    /// What encodes H.264.
    pub encoder: encoder::Chosen,
    /// Chains of engines: where one fails or cannot be loaded, the next of its chain goes on.
    pub fallbacks: Vec<Vec<String>>,
    /// What looks for what is before faces, where a session does not say.
    pub occlusion: Masks,
    /// Whether streams say that a machine made a part of them.
    pub marks: bool,
    /// Whether the generated part of the picture is marked.
    pub watermark: bool,
}

/// What becomes of a publisher to a name that no session has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnPublish {
    Refuse,
    /// A session of this graph begins, for publishers that give the key where there is one. It ends when its publisher
    /// and its viewers have gone.
    Begin {
        graph: String,
        key: Option<String>,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            graphs: None,
            idle: Duration::from_secs(30),
            speech: Duration::from_secs(600),
            speech_kept: Duration::from_secs(30),
            max_sessions: 64,
            load: 0.85,
            count_others: false,
            batch_timeout: Duration::from_millis(5),
            sync_check: Duration::from_secs(1),
            sync_correct: Duration::from_secs(60),
            private_addresses: false,
            files: false,
            on_publish: OnPublish::Refuse,
            engine: DEFAULT_ENGINE.into(),
            device: "auto".into(),
            encoder: encoder::Chosen::default(),
            fallbacks: Vec::new(),
            occlusion: Masks::Auto,
            marks: false,
            watermark: true,
        }
    }
}

/// See the module. Lock order: the list of sessions before anything of a session's.
pub struct Manager {
    settings: Settings,
    avatars: Arc<avatar::Store>,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    meter: capacity::CapacityMeter,
    reach: Reach,
    rollouts: Rollouts,
    /// Held while a graph is let in and starts, so that two do not take the same room.
    door: Mutex<()>,
    stop: AtomicBool,
    /// Where pushes and pulls run.
    runtime: Option<tokio::runtime::Handle>,
    tenants: OnceLock<Arc<Tenants>>,
    /// The other machines of a cluster.
    peers: OnceLock<Arc<dyn Peers>>,
}

impl Manager {
    pub fn new(settings: Settings, avatars: Arc<avatar::Store>) -> Arc<Self> {
        let manager = Arc::new(Self {
            meter: capacity::CapacityMeter::new(
                settings.load,
                settings.count_others,
                settings.sync_check,
                settings.batch_timeout,
            ),
            reach: Reach::default(),
            rollouts: Rollouts::default(),
            settings,
            avatars,
            sessions: Mutex::default(),
            door: Mutex::default(),
            stop: AtomicBool::new(false),
            runtime: tokio::runtime::Handle::try_current().ok(),
            tenants: OnceLock::new(),
            peers: OnceLock::new(),
        });
        let weak = Arc::downgrade(&manager);
        let spawned = std::thread::Builder::new().name("sessions".into()).spawn(move || look_after(&weak));
        if let Err(error) = spawned {
            tracing::error!("sessions are not looked after: no thread: {error}");
        }
        manager
    }

    /// Sessions may belong to these from now on.
    pub fn set_tenants(&self, tenants: Arc<Tenants>) {
        // Set once, when the service starts.
        let _ = self.tenants.set(tenants);
    }

    pub fn tenants(&self) -> Option<&Arc<Tenants>> {
        self.tenants.get()
    }

    /// Sessions are those of a cluster from now on.
    pub fn set_peers(&self, peers: Arc<dyn Peers>) {
        // Set once, when the service starts.
        let _ = self.peers.set(peers);
    }

    pub fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.peers.get()
    }

    pub(super) fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.runtime.clone()
    }

    /// Measures what a session costs on this machine; takes some seconds. Done by the first session otherwise.
    pub fn calibrate(&self) {
        self.calibrate_engine(&self.settings.engine);
    }

    /// The same for sessions of `engine`. One that has been measured costs nothing.
    pub fn calibrate_engine(&self, engine: &str) {
        if let Err(refusal) = self.device(&Demand::standard(&self.rollouts.stable(engine))) {
            tracing::warn!("{refusal}");
        }
    }

    /// Loads `engine` beside what runs, for sessions of it that may come; `None` where a card runs it, whose memory is for those that there
    /// are.
    pub fn warm(&self, engine: &str) -> Option<Arc<Worker>> {
        let engine = self.rollouts.stable(engine);
        if self.meter.card_of(&engine).is_some() {
            return None;
        }
        let loaded = self.prepare(&engine);
        loaded.inspect_err(|refusal| tracing::info!("sessions of other nodes would load: {refusal}")).ok()
    }

    /// The device of sessions that do not name one: as configured, or where that is `auto` what has measured cheapest. An engine
    /// that it cannot hold at all is refused before it is loaded.
    pub(super) fn device(&self, demand: &Demand) -> Result<String, Refusal> {
        self.check_reach(demand)?;
        demand
            .enhancer
            .as_ref()
            .map_or(Ok(()), |enhancer| self.meter.price_enhancer(enhancer, &self.settings.device))?;
        Ok(self.meter.calibrate(&self.avatars, &demand.engine, &self.settings.device))
    }

    /// The engines that the session `id` has where it asks for `engine`.
    pub(super) fn choose(&self, engine: &str, id: &str) -> Choice {
        self.rollouts.choose(engine, id)
    }

    pub(crate) fn rollouts(&self) -> &Rollouts {
        &self.rollouts
    }

    /// The engines that go on, one after another, where `engine` fails or cannot be loaded.
    pub(super) fn fallbacks(&self, engine: &str) -> Vec<String> {
        let chain = self.settings.fallbacks.iter().find(|chain| chain.iter().any(|known| known == engine));
        let after = chain.map(|chain| chain.iter().skip_while(|known| *known != engine).skip(1));
        after.into_iter().flatten().cloned().collect()
    }

    /// An engine and its versions, with the sessions that `caller` sees.
    pub fn engine(&self, name: &str, caller: &Caller) -> Result<EngineReport, Refusal> {
        let running: Vec<String> =
            self.list_for(caller).iter().filter_map(|session| session.running_engine()).collect();
        self.rollouts.report(name, &running)
    }

    /// Gives an engine other aliases and another share of its canary. Versions that become stable or canary are checked, measured and
    /// loaded before any session has them; those that run are not touched where that fails.
    pub fn change_engine(&self, name: &str, aliases: Aliases) -> Result<(), Refusal> {
        self.rollouts.change(name, aliases, |engine| self.prepare(engine))
    }

    /// Loads an engine beside those that there are, once it has made the frames of a measurement.
    fn prepare(&self, engine: &str) -> Result<Arc<Worker>, Refusal> {
        let wrong = |error: lipstream_engines::Error| Refusal::Invalid(format!("engine `{engine}`: {error}"));
        let package = Package::named(engine).map_err(wrong)?;
        if engine::look_ahead(package.manifest()).is_none() {
            return Err(Refusal::Invalid(format!("engine `{engine}` makes no faces")));
        }
        package.manifest().files.keys().try_for_each(|part| package.check(part)).map_err(wrong)?;
        let device = self.device(&Demand::standard(engine))?;
        self.meter.check_measured(engine)?;
        let options = runtime::Options { device: device.parse().map_err(wrong)?, ..runtime::Options::default() };
        let config = WorkerConfig {
            package,
            options,
            batch_size: 0,
            batch_timeout: self.longest_wait(engine, Duration::ZERO),
            queue: denoise::QUEUE,
        };
        Worker::acquire(None, config).map_err(|error| Refusal::Failed(format!("engine `{engine}`: {error}")))
    }

    /// How long batches of an engine wait at most for those of other sessions; `own` is what a graph says, which stays.
    pub(super) fn longest_wait(&self, engine: &str, own: Duration) -> Duration {
        self.meter.longest_wait(engine, own)
    }

    /// Refuses an engine that the device cannot hold at all, with the figures.
    pub(super) fn check_reach(&self, demand: &Demand) -> Result<(), Refusal> {
        let loaded = self.running(None).iter().any(|running| running.engine == demand.engine);
        self.reach.check(demand, &self.settings.device, loaded)
    }

    /// Creates a session. It starts when it is watched, at once where it is always on.
    pub fn create(self: &Arc<Self>, spec: SessionSpec) -> Result<Arc<Session>, Refusal> {
        self.create_for(&Caller::Operator, spec)
    }

    /// The same for `caller`, whose it is.
    pub fn create_for(self: &Arc<Self>, caller: &Caller, spec: SessionSpec) -> Result<Arc<Session>, Refusal> {
        self.begin(caller, spec, true)
    }

    /// A session of `caller` whose name this node has taken in the cluster already.
    pub fn adopt(self: &Arc<Self>, caller: &Caller, spec: SessionSpec) -> Result<Arc<Session>, Refusal> {
        self.begin(caller, spec, false)
    }

    /// `claims` is whether its name is to be taken in the cluster.
    fn begin(self: &Arc<Self>, caller: &Caller, spec: SessionSpec, claims: bool) -> Result<Arc<Session>, Refusal> {
        let always_on = spec.always_on;
        let session = Session::new(spec, caller, self)?;
        session.check_reach()?;
        // In a cluster a session has its room from the start: others are placed by what is left.
        let reserved = self.peers.get().map(|_| {
            let demand = session.demand();
            self.device(&demand).map(|_| (self.door.lock(), demand))
        });
        let reserved = reserved.transpose()?;
        if let Some((_, demand)) = &reserved {
            self.meter.admit(demand, &self.demands())?;
        }
        {
            let mut sessions = self.sessions.lock();
            if sessions.contains_key(session.id()) {
                return Err(Refusal::Conflict(format!("there is a session `{}` already", session.id())));
            }
            let name = session.spec().play.clone();
            if let Some(name) = name
                && let Some(other) = sessions.values().find(|s| s.spec().play.as_ref() == Some(&name))
            {
                return Err(Refusal::Conflict(match caller.sees_of(other.owner()) {
                    true => format!("play: session `{}` is played as `{name}` already", other.id()),
                    false => format!("play: the name `{name}` is taken"),
                }));
            }
            if sessions.len() >= self.settings.max_sessions {
                return Err(Refusal::Full(format!(
                    "there are {} sessions already, the most that sessions.max allows",
                    sessions.len()
                )));
            }
            sessions.insert(session.id().to_owned(), session.clone());
        }
        drop(reserved);
        if let Some(peers) = self.peers.get().filter(|_| claims)
            && let Err(refusal) = peers.claim(&session)
        {
            self.sessions.lock().remove(session.id());
            session.end();
            // Others hear at once that its room is free.
            self.release(session.id());
            return Err(refusal);
        }
        let begun = session.push().and_then(|()| if always_on { session.start() } else { Ok(()) });
        if let Err(refusal) = begun {
            self.sessions.lock().remove(session.id());
            session.end();
            if claims {
                self.release(session.id());
            }
            return Err(refusal);
        }
        if let Some(peers) = self.peers.get() {
            peers.begins(&session);
        }
        Ok(session)
    }

    /// The cluster is told that a session has ended.
    fn release(&self, id: &str) {
        if let Some(peers) = self.peers.get() {
            peers.release(id);
        }
    }

    /// Ends a session here that another machine has.
    pub fn part(&self, id: &str) {
        let session = self.sessions.lock().remove(id);
        if let Some(session) = session {
            session.end();
        }
    }

    /// What all sessions ask for, running or not.
    fn demands(&self) -> Vec<Demand> {
        self.list().iter().map(|session| session.demand()).collect()
    }

    /// As [`capacity`](Self::capacity), beside all sessions, running or not, and no more than may be made.
    pub fn capacity_of_all(&self) -> Capacity {
        let demands = self.demands();
        let mut capacity = self.meter.report(&demands, &self.rollouts.stable(&self.settings.engine));
        capacity.sessions_left = capacity.sessions_left.min(self.settings.max_sessions.saturating_sub(demands.len()));
        capacity
    }

    /// The session that somebody wants to publish to: one of this name, or one that begins with its publisher. `matches`
    /// compares what was given as a key.
    pub fn for_publisher(
        self: &Arc<Self>,
        id: &str,
        matches: impl FnOnce(&str) -> bool,
    ) -> Result<Arc<Session>, Refusal> {
        let OnPublish::Begin { graph, key } = &self.settings.on_publish else { return self.get(id) };
        if let Ok(session) = self.get(id) {
            return Ok(session);
        }
        if let Some(key) = key
            && !matches(key)
        {
            return Err(Refusal::Invalid(format!(
                "there is no session `{id}`, and one begins for those only who give the publish key: add ?key=KEY"
            )));
        }
        // The key guards the session for those who come after this one.
        let spec = SessionSpec { with_publisher: true, stream_key: key.clone(), ..SessionSpec::new(id, graph) };
        let session = match self.create(spec) {
            Ok(session) => session,
            // Another publisher was faster.
            Err(Refusal::Conflict(_)) => return self.get(id),
            Err(refusal) => return Err(refusal),
        };
        session.has_room().inspect_err(|_| {
            // It may be gone already.
            let _ = self.remove(id);
        })?;
        tracing::info!("session `{id}` begins with its publisher");
        Ok(session)
    }

    pub fn get(&self, id: &str) -> Result<Arc<Session>, Refusal> {
        self.sessions.lock().get(id).cloned().ok_or_else(|| Refusal::Unknown(id.to_owned()))
    }

    /// The session, where `caller` sees it.
    pub fn get_for(&self, id: &str, caller: &Caller) -> Result<Arc<Session>, Refusal> {
        let session = self.get(id).ok().filter(|session| caller.sees_of(session.owner()));
        session.ok_or_else(|| Refusal::Unknown(id.to_owned()))
    }

    /// Those that `caller` sees.
    pub fn list_for(&self, caller: &Caller) -> Vec<Arc<Session>> {
        self.list().into_iter().filter(|session| caller.sees_of(session.owner())).collect()
    }

    /// The session that RTMP clients play as `name`.
    pub fn by_play_name(&self, name: &str) -> Option<Arc<Session>> {
        self.sessions.lock().values().find(|s| s.spec().play.as_deref() == Some(name)).cloned()
    }

    pub fn list(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// Ends a session: its graph, its viewers, its publishers, its pushes.
    pub fn remove(&self, id: &str) -> Result<(), Refusal> {
        self.remove_for(id, &Caller::Operator)
    }

    /// The same where `caller` sees it.
    pub fn remove_for(&self, id: &str, caller: &Caller) -> Result<(), Refusal> {
        let session = {
            let mut sessions = self.sessions.lock();
            let seen = sessions.get(id).is_some_and(|session| caller.sees_of(session.owner()));
            if seen { sessions.remove(id) } else { None }
        };
        session.ok_or_else(|| Refusal::Unknown(id.to_owned()))?.end();
        self.release(id);
        Ok(())
    }

    /// Counts for the owners of all sessions what these have used until now.
    pub fn settle(&self) {
        self.list().iter().for_each(|session| session.settle());
    }

    /// Ends all sessions; for the end of the program.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let sessions = std::mem::take(&mut *self.sessions.lock());
        sessions.into_values().for_each(|session| session.end());
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn avatars(&self) -> &Arc<avatar::Store> {
        &self.avatars
    }

    /// Names of the graphs that sessions can have.
    pub fn graphs(&self) -> Vec<String> {
        graphs::names(self.settings.graphs.as_deref())
    }

    /// A graph that sessions can have.
    pub fn graph(&self, name: &str) -> Result<(Graph, Service), Refusal> {
        graphs::find(self.settings.graphs.as_deref(), name)
    }

    pub fn capacity(&self) -> Capacity {
        let mut capacity = self.meter.report(&self.running(None), &self.rollouts.stable(&self.settings.engine));
        if let Some(cause) = self.peers.get().and_then(|peers| peers.refusal()) {
            capacity.full = Some(cause);
        }
        capacity
    }

    /// Refuses an engine that has made no frames when its price was to be measured.
    pub(super) fn check_measured(&self, demand: &Demand) -> Result<(), Refusal> {
        self.meter.check_measured(&demand.engine)
    }

    /// Lets a graph start, or says why not. `start` runs with the door held: nobody else is let in meanwhile.
    pub(super) fn let_in<T>(
        &self,
        id: &str,
        demand: &Demand,
        start: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.device(demand)?;
        let _door = self.door.lock();
        if let Some(warning) = self.meter.admit(demand, &self.running(Some(id)))? {
            tracing::warn!("session `{id}`: {warning}");
        }
        start()
    }

    /// Refuses where a graph would not be let in at this moment. Blocks for as long as measuring the first price takes.
    pub(super) fn has_room(&self, id: &str, demand: &Demand) -> Result<(), Refusal> {
        self.device(demand)?;
        self.meter.admit(demand, &self.running(Some(id))).map(|_| ())
    }

    /// Refuses a change by which a session asks for `more` than `now`, where that does not fit beside the others. What takes no more
    /// is never refused. Blocks for as long as measuring a price takes.
    pub(super) fn has_room_to_grow(&self, id: &str, now: &Demand, more: &Demand) -> Result<(), Refusal> {
        if let Some(enhancer) = &more.enhancer {
            self.meter.price_enhancer(enhancer, &self.settings.device)?;
        }
        let _door = self.door.lock();
        self.meter.grow(now, more, &self.running(Some(id)))
    }

    /// What the sessions whose graphs run ask for, without one.
    fn running(&self, without: Option<&str>) -> Vec<Demand> {
        let sessions = self.list();
        sessions.iter().filter(|s| Some(s.id()) != without).filter_map(|s| s.running()).collect()
    }
}

fn look_after(manager: &Weak<Manager>) {
    let (mut sampled, mut trimmed) = (Instant::now(), Instant::now());
    loop {
        std::thread::sleep(BEAT);
        let Some(manager) = manager.upgrade().filter(|m| !m.stop.load(Ordering::Relaxed)) else { return };
        for session in manager.list() {
            session.look_after();
            session.settle();
            if session.owner().is_some_and(|owner| owner.is_over()) {
                tracing::info!(
                    "session `{}` ends: its tenant's seconds of the month are used up, or it is gone",
                    session.id()
                );
                let _ = manager.remove(session.id());
            } else if session.is_left() {
                tracing::info!("session `{}` ends: its publisher and viewers are gone", session.id());
                // Somebody may have ended it.
                let _ = manager.remove(session.id());
            }
        }
        if sampled.elapsed() >= SAMPLE {
            sampled = Instant::now();
            manager.meter.sample(&manager.running(None));
        }
        if trimmed.elapsed() >= TRIM {
            memory::trim();
            trimmed = Instant::now();
        }
    }
}
