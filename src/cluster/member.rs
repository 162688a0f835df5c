//! This node as a member of the cluster.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_nats::RequestErrorKind;
use axum::http::HeaderMap;
use futures_util::StreamExt;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::Notify;

use super::{
    Cluster, Node,
    nodes::{BEAT, Nodes, ranked},
    proxy::NODE_HEADER,
    quota,
    records::{Denied, Known, Record, Records},
    speech::{self, SpeechKeeper, SpeechStore},
};
use crate::{
    error::{Failure, Result},
    session::{Manager, Peers, Refusal, Session, VoiceName},
    speech::Queue,
    tenants::{Caller, Exceeded},
};

const NODE: &str = "lipstream.node";
/// Asked of a name before it is taken.
const WHO: &str = "lipstream.who";
/// Key of what nodes show one another, in the bucket of sessions.
const SECRET: &str = "secret";
/// How often it is looked whether records and sessions agree.
const TIDY: Duration = Duration::from_secs(2);
/// How long the last word of a node may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Where others reach this node.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// By HTTP, from other nodes.
    pub url: String,
    /// By HTTP, from clients.
    pub public_url: Option<String>,
    /// `HOST:PORT` of RTMP.
    pub rtmp: Option<String>,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub nodes: usize,
    pub sessions: usize,
    pub connected: bool,
    pub draining: bool,
    /// Sessions of dead nodes that went on here, sessions that moved away from here, and those that ended here since another node
    /// had them.
    pub taken: u64,
    pub moved: u64,
    pub yielded: u64,
    /// Requests that other nodes answered.
    pub forwarded: u64,
}

/// See the module.
pub struct Member {
    pub(super) cluster: Arc<Cluster>,
    pub(super) manager: Arc<Manager>,
    addresses: Addresses,
    /// Another one with each start.
    instance: String,
    /// What nodes show one another.
    secret: String,
    pub(super) nodes: Nodes,
    pub(super) records: Records,
    pub(super) speech: SpeechStore,
    /// Revisions of the records of the sessions that are here.
    held: Mutex<HashMap<String, u64>>,
    /// Sessions that are being taken over.
    pub(super) taking: Mutex<HashSet<String>>,
    /// Sessions that run on here until the node that takes them has them.
    pub(super) moving: Mutex<HashSet<String>>,
    /// Of each voice that a session has.
    keepers: Mutex<HashMap<String, Vec<Arc<SpeechKeeper>>>>,
    changed: Notify,
    measured: AtomicBool,
    pub(super) draining: AtomicBool,
    pub(super) drained: AtomicBool,
    runtime: tokio::runtime::Handle,
    pub(super) taken: AtomicU64,
    pub(super) moved: AtomicU64,
    yielded: AtomicU64,
    pub(super) forwarded: AtomicU64,
    this: OnceLock<Weak<Self>>,
}

impl Member {
    /// Joins the cluster: from now on this node is heard, and the manager's sessions are the cluster's. `speech_bytes` is how much
    /// unspoken speech may be kept of all sessions together.
    pub async fn join(
        cluster: Arc<Cluster>,
        manager: Arc<Manager>,
        addresses: Addresses,
        speech_bytes: i64,
    ) -> Result<Arc<Self>> {
        let name = cluster.node().to_owned();
        match cluster.client().request(format!("{WHO}.{name}"), "".into()).await {
            Err(e) if e.kind() == RequestErrorKind::NoResponders => {}
            Err(e) => return Err(Failure::run(format!("cluster: the NATS server does not answer: {e}"))),
            Ok(_) => {
                let cure = "give this one another by cluster.node";
                return Err(Failure::usage(format!("cluster: there is a node `{name}` already: {cure}")));
            }
        }
        let records = Records::open(&cluster).await?;
        let secret = secret(&records).await?;
        let instance = format!("{:016x}", rand::random::<u64>());
        let member = Arc::new(Self {
            speech: SpeechStore::open(cluster.clone(), speech_bytes).await?,
            nodes: Nodes::new(&name, &instance),
            cluster,
            manager: manager.clone(),
            addresses,
            instance,
            secret,
            records,
            held: Mutex::default(),
            taking: Mutex::default(),
            moving: Mutex::default(),
            keepers: Mutex::default(),
            changed: Notify::new(),
            measured: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            runtime: tokio::runtime::Handle::current(),
            taken: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            yielded: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            this: OnceLock::new(),
        });
        let _ = member.this.set(Arc::downgrade(&member));
        manager.set_peers(member.clone());
        // Heard before it is asked for anything.
        let failed = |e: async_nats::SubscribeError| Failure::run(format!("cluster: {e}"));
        let client = member.cluster.client();
        let mut heard = client.subscribe(format!("{NODE}.*")).await.map_err(failed)?;
        let mut asked = client.subscribe(format!("{WHO}.{name}")).await.map_err(failed)?;
        let own = member.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(message) = heard.next() => own.nodes.hear(&message.payload, Instant::now()),
                    Some(message) = asked.next() => {
                        if let Some(reply) = message.reply {
                            // Who asks again has an answer then.
                            let _ = own.cluster.client().publish(reply, own.instance.clone().into()).await;
                        }
                    }
                    else => return,
                }
            }
        });
        let own = member.clone();
        tokio::spawn(async move { own.announce().await });
        let own = member.clone();
        tokio::spawn(async move { own.records.follow(|id, known| own.heed(id, known)).await });
        let own = member.clone();
        tokio::spawn(async move { own.tidy().await });
        tokio::spawn(member.clone().take_over());
        member.clone().listen_for_moves().await.map_err(failed)?;
        tokio::spawn(member.clone().follow_avatars());
        let own = member.clone();
        tokio::task::spawn_blocking(move || {
            own.manager.calibrate();
            own.measured.store(true, Relaxed);
            own.changed.notify_one();
        });
        Ok(member)
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether a request comes from another node.
    pub fn is_node(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(NODE_HEADER).map(|value| value.as_bytes());
        shown.is_some_and(|shown| self.secret.as_bytes().ct_eq(shown).into())
    }

    /// What this node says of itself.
    pub fn own(&self) -> Node {
        let capacity = self.manager.capacity_of_all();
        let mut engines: Vec<String> = self.manager.list().iter().filter_map(|s| s.running_engine()).collect();
        engines.sort_unstable();
        engines.dedup();
        Node {
            name: self.cluster.node().to_owned(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            url: self.addresses.url.clone(),
            public_url: self.addresses.public_url.clone(),
            rtmp: self.addresses.rtmp.clone(),
            sessions: self.manager.list().len(),
            sessions_free: capacity.sessions_left,
            measured: self.measured.load(Relaxed),
            cores: capacity.cores,
            cores_used: capacity.cores_used,
            resources: capacity.resources,
            engines,
            draining: self.draining.load(Relaxed),
            leaving: false,
        }
    }

    /// The nodes that live, this one among them.
    pub fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.nodes.live(Instant::now());
        nodes.retain(|node| node.name != self.cluster.node());
        nodes.push(self.own());
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    /// The nodes on which a session of `engine` is tried, one after another.
    pub fn candidates(&self, engine: &str) -> Vec<Node> {
        ranked(self.nodes(), engine)
    }

    pub fn is_own(&self, node: &Node) -> bool {
        node.instance == self.instance
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub fn stats(&self) -> Stats {
        Stats {
            nodes: self.nodes().len(),
            sessions: self.records.all().len(),
            connected: self.cluster.is_connected(),
            draining: self.is_draining(),
            taken: self.taken.load(Relaxed),
            moved: self.moved.load(Relaxed),
            yielded: self.yielded.load(Relaxed),
            forwarded: self.forwarded.load(Relaxed),
        }
    }

    /// A change that others should hear of at once.
    pub(super) fn tell(&self) {
        self.changed.notify_one();
    }

    async fn announce(&self) {
        loop {
            self.publish(self.own()).await;
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    async fn publish(&self, node: Node) {
        let text = serde_json::to_vec(&node).unwrap_or_default();
        // Not into a queue for when the server is back: it would be old then.
        if self.cluster.is_connected() {
            let _ = self.cluster.client().publish(format!("{NODE}.{}", node.name), text.into()).await;
        }
    }

    /// The last word: what is still here goes on elsewhere.
    pub async fn leave(&self) {
        self.draining.store(true, Relaxed);
        self.publish(Node { leaving: true, ..self.own() }).await;
        // Where NATS is away this would wait until it is back.
        let _ = tokio::time::timeout(LAST_WORD, self.cluster.client().flush()).await;
    }

    /// Where a session is that is not here: its owner, and the tenant that it belongs to.
    pub async fn elsewhere(&self, id: &str) -> Option<(Node, Option<String>)> {
        let record = self.records.find(id).await?.record?;
        let node = self.nodes.get(&record.node, Instant::now()).filter(|node| !self.is_own(node))?;
        Some((node, record.tenant))
    }

    /// Returns when all that the session has been given to say is kept for other nodes, or cannot be.
    pub async fn speech_kept(&self, id: &str) {
        let keepers = self.keepers.lock().get(id).cloned().unwrap_or_default();
        let kept = async {
            for keeper in keepers {
                keeper.kept().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), kept).await;
    }

    /// A record has changed.
    fn heed(&self, id: &str, known: &Known) {
        let held = self.held.lock().get(id).copied();
        let Some(held) = held.filter(|held| *held < known.revision) else { return };
        if self.moving.lock().contains(id) {
            return;
        }
        let cause = match &known.record {
            Some(record) if record.instance == self.instance => {
                self.held.lock().insert(id.to_owned(), known.revision);
                return;
            }
            Some(record) if record.node.is_empty() => "it was given up in the cluster".to_owned(),
            Some(record) => format!("node `{}` has it now (revision {} after {held})", record.node, known.revision),
            None => "it was ended in the cluster while this node was away".to_owned(),
        };
        self.yielded.fetch_add(1, Relaxed);
        let (own, id) = (self.this(), id.to_owned());
        self.runtime.spawn_blocking(move || {
            if let Some(own) = own {
                own.part(&id, &cause);
            }
        });
    }

    pub(super) fn this(&self) -> Option<Arc<Self>> {
        self.this.get().and_then(Weak::upgrade)
    }

    /// Ends a session here that another node has. What it has to say stays kept.
    pub(super) fn part(&self, id: &str, cause: &str) {
        self.held.lock().remove(id);
        self.keep_no_more(id);
        if let Ok(session) = self.manager.get(id) {
            voices(&session).iter().for_each(|(_, queue)| queue.set_keeper(None));
            tracing::warn!("session `{id}` ends here: {cause}");
            self.manager.part(id);
        }
        self.tell();
    }

    pub(super) fn hold(&self, id: &str, revision: u64) {
        self.held.lock().insert(id.to_owned(), revision);
    }

    pub(super) fn held(&self, id: &str) -> Option<u64> {
        self.held.lock().get(id).copied()
    }

    pub(super) fn record(&self, session: &Session) -> Record {
        let tenant = session.owner().map(|owner| owner.name.clone());
        Record::new(session.spec(), tenant, self.cluster.node(), &self.instance)
    }

    /// Keeps a session's speech from now on, after what another node has left of it.
    pub(super) async fn keep_speech(&self, session: &Arc<Session>, term: u64, taken: bool) {
        for (id, queue) in voices(session) {
            let keeper = self.speech.keep(&id, term, &queue);
            self.keepers.lock().entry(session.id().to_owned()).or_default().push(keeper.clone());
            if taken {
                match self.speech.unspoken(&id, term).await {
                    Ok(unspoken) => {
                        if !unspoken.is_empty() {
                            tracing::info!("session `{id}`: {} utterances go on here", unspoken.len());
                        }
                        speech::speak(&queue, unspoken).await;
                        keeper.kept().await;
                    }
                    Err(error) => tracing::warn!("session `{id}`: what it had to say cannot be read: {error}"),
                }
            }
            self.speech.begin(&id, term).await;
            self.speech.forget(&id, Some(term)).await;
        }
    }

    fn keep_no_more(&self, id: &str) {
        let keepers = self.keepers.lock().remove(id).unwrap_or_default();
        keepers.iter().for_each(|keeper| keeper.stop());
    }

    /// Throws away what a session that has ended had to say.
    async fn forget_speech(&self, id: &str) {
        for id in VOICES.map(|voice| format!("{id}{voice}")) {
            self.speech.forget(&id, None).await;
        }
    }

    /// Brings records and sessions together that have come apart while the servers were away, and measures the engines that sessions
    /// elsewhere have: one that is taken over does not wait for that.
    async fn tidy(&self) {
        let mut priced = HashSet::new();
        loop {
            tokio::time::sleep(TIDY).await;
            if !self.cluster.is_connected() {
                continue;
            }
            let engines = self.records.all().into_iter().map(|(_, record, _)| self.engine_of(&record));
            let new: Vec<String> = engines.filter(|engine| priced.insert(engine.clone())).collect();
            if !new.is_empty() {
                let manager = self.manager.clone();
                tokio::task::spawn_blocking(move || new.iter().for_each(|engine| manager.calibrate_engine(engine)));
            }
            for (id, record, revision) in self.records.all() {
                let own = record.instance == self.instance;
                if own
                    && self.manager.get(&id).is_err()
                    && !self.taking.lock().contains(&id)
                    && self.held(&id).is_none()
                {
                    // It has ended here, and nobody could be told.
                    if self.records.remove(&id, revision).await.is_ok() {
                        self.forget_speech(&id).await;
                    }
                }
            }
            for session in self.manager.list() {
                // The bucket has been lost.
                if self.held(session.id()).is_some() && self.records.get(session.id()).is_some() {
                    continue;
                }
                if self.held(session.id()).is_some()
                    && let Ok(revision) = self.records.create(session.id(), &self.record(&session)).await
                {
                    self.hold(session.id(), revision);
                }
            }
        }
    }

    async fn claim_name(&self, session: &Session) -> std::result::Result<(), Refusal> {
        let id = session.id();
        if let Some(cause) = self.refusal() {
            return Err(Refusal::Full(cause));
        }
        if let Some(play) = &session.spec().play
            && let Some((other, _, _)) =
                self.records.all().into_iter().find(|(other, record, _)| other != id && record.play() == Some(play))
        {
            let seen = session.owner().is_none();
            return Err(Refusal::Conflict(match seen {
                true => format!("play: session `{other}` is played as `{play}` already"),
                false => format!("play: the name `{play}` is taken"),
            }));
        }
        let owner = session.owner();
        if let Some(owner) = owner {
            let most = owner.limits().sessions;
            let known = |id: &str| self.records.get(id).is_some_and(|known| known.record.is_some());
            match quota::take(self.records.store(), &owner.name, id, most, known).await {
                Ok(true) => {}
                Ok(false) => {
                    let most = most.unwrap_or_default();
                    let cause = format!(
                        "the tenant has {most} sessions in the cluster, the most that its quota allows: end one"
                    );
                    return Err(Exceeded(cause).into());
                }
                Err(cause) => return Err(Refusal::Full(Denied::Away(cause).to_string())),
            }
        }
        match self.records.create(id, &self.record(session)).await {
            Ok(revision) => {
                self.hold(id, revision);
                Ok(())
            }
            Err(denied) => {
                if let Some(owner) = owner
                    && self
                        .records
                        .get(id)
                        .and_then(|known| known.record)
                        .is_none_or(|r| r.tenant.as_ref() != Some(&owner.name))
                {
                    quota::give_back(self.records.store(), &owner.name, id).await;
                }
                Err(match denied {
                    Denied::Taken => Refusal::Conflict(format!("there is a session `{id}` in the cluster already")),
                    away @ Denied::Away(_) => Refusal::Full(away.to_string()),
                })
            }
        }
    }
}

impl Peers for Member {
    fn node(&self) -> &str {
        self.cluster.node()
    }

    fn refusal(&self) -> Option<String> {
        self.is_draining()
            .then(|| "this node is being drained: its sessions move to others, and it takes no new ones".into())
    }

    fn claim(&self, session: &Session) -> std::result::Result<(), Refusal> {
        self.runtime.block_on(self.claim_name(session))
    }

    fn begins(&self, session: &Arc<Session>) {
        self.tell();
        let (Some(own), Some(term)) = (self.this(), self.held(session.id())) else { return };
        let (session, taken) = (session.clone(), self.taking.lock().contains(session.id()));
        self.runtime.spawn(async move { own.keep_speech(&session, term, taken).await });
    }

    fn release(&self, id: &str) {
        let revision = self.held.lock().remove(id);
        self.keep_no_more(id);
        self.tell();
        let (Some(own), Some(revision), id) = (self.this(), revision, id.to_owned()) else { return };
        self.runtime.spawn(async move {
            let tenant = own.records.get(&id).and_then(|known| known.record?.tenant);
            if let Err(error) = own.records.remove(&id, revision).await {
                tracing::info!("session `{id}` has ended, of which the cluster hears later: {error}");
                return;
            }
            if let Some(tenant) = tenant {
                quota::give_back(own.records.store(), &tenant, &id).await;
            }
            own.forget_speech(&id).await;
        });
    }

    fn rtmp_of(&self, id: Option<&str>, play: &str) -> Option<String> {
        let here = id.is_some_and(|id| self.manager.get(id).is_ok()) || self.manager.by_play_name(play).is_some();
        if here {
            return None;
        }
        let all = self.records.all();
        let (_, record, _) =
            all.iter().find(|(known, record, _)| Some(known.as_str()) == id || record.play() == Some(play))?;
        let node = self.nodes.get(&record.node, Instant::now()).filter(|node| !self.is_own(node))?;
        node.rtmp
    }
}

/// What the names of sessions' voices end in; no session's name has a `~`.
const VOICES: [&str; 2] = ["", "~b"];

/// The queues of a session's voices, and what they are called where they are kept.
pub(super) fn voices(session: &Session) -> Vec<(String, Arc<Queue>)> {
    let queues = [Some(session.speech()), session.speech_of(VoiceName::B).ok()];
    let named = VOICES.iter().zip(queues);
    named.filter_map(|(voice, queue)| Some((format!("{}{voice}", session.id()), queue?.clone()))).collect()
}

/// What nodes show one another: the first one makes it.
async fn secret(records: &Records) -> Result<String> {
    let new = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let store = records.store();
    // Somebody else has made it where this fails.
    let _ = store.create(SECRET, new.into()).await;
    let known = store.get(SECRET).await.ok().flatten();
    let known = known.and_then(|known| String::from_utf8(known.to_vec()).ok()).filter(|known| known.len() >= 32);
    known.ok_or_else(|| Failure::run("cluster: JetStream does not give what was put into its bucket"))
}

/// Whoever a session belongs to, for a node that takes it over.
pub(super) fn caller_of(manager: &Manager, tenant: Option<&str>) -> Option<Caller> {
    match tenant {
        None => Some(Caller::Operator),
        Some(name) => manager.tenants().and_then(|tenants| tenants.caller(name)),
    }
}
