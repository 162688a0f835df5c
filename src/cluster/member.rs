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
use lipstream_engines::engine::Worker;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::Notify;

use super::{
    Cluster, Node,
    claims::Claims,
    nodes::{BEAT, Nodes, ranked},
    proxy::NODE_HEADER,
    records::{Record, Records},
    speech::{self, SpeechKeeper, SpeechStore},
};
use crate::{
    error::{Failure, Result},
    session::{Manager, Session, VoiceName},
    speech::Queue,
    tenants::Caller,
};

const NODE: &str = "lipstream.node";
/// Asked of a name before it is taken.
const WHO: &str = "lipstream.who";
/// Key of what nodes show one another, in the bucket of sessions.
const SECRET: &str = "secret";
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
    pub(super) claims: Claims,
    /// Engines that are loaded for sessions which may come.
    pub(super) warm: Mutex<HashMap<String, Arc<Worker>>>,
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
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) taken: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) yielded: AtomicU64,
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
            claims: Claims::default(),
            warm: Mutex::default(),
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
        tokio::spawn(member.clone().tidy());
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
            heard_ms: 0,
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

    pub(super) fn this(&self) -> Option<Arc<Self>> {
        self.this.get().and_then(Weak::upgrade)
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

    pub(super) fn keep_no_more(&self, id: &str) {
        let keepers = self.keepers.lock().remove(id).unwrap_or_default();
        keepers.iter().for_each(|keeper| keeper.stop());
    }

    /// Throws away what a session that has ended had to say.
    pub(super) async fn forget_speech(&self, id: &str) {
        for id in VOICES.map(|voice| format!("{id}{voice}")) {
            self.speech.forget(&id, None).await;
        }
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
