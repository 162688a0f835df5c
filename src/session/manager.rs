//! The sessions of this process.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Capacity, Refusal, Spec, Status};
use crate::{
    avatar,
    live::{Codec, Inlet, Outlet, Place, Viewer},
    speech,
};

/// What holds for all sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder with the user's graph files, looked at before those that are built in.
    pub graphs: Option<PathBuf>,
    /// Time without viewers after which a graph stops.
    pub idle: Duration,
    /// Speech that may wait in a session.
    pub speech: Duration,
    /// Most sessions, running or not.
    pub max_sessions: usize,
    /// Part of the machine's cores that sessions may use, 0..1.
    pub load: f64,
    /// Whether sessions may read from and push to loopback and private addresses.
    pub private_addresses: bool,
    /// `engine` and `device` where a session does not say.
    pub engine: String,
    pub device: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            graphs: None,
            idle: Duration::from_secs(30),
            speech: Duration::from_secs(600),
            max_sessions: 64,
            load: 0.85,
            private_addresses: false,
            engine: "compact".into(),
            device: "auto".into(),
        }
    }
}

/// See the module.
pub struct Manager {
    settings: Settings,
    avatars: Arc<avatar::Store>,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
}

impl Manager {
    pub fn new(settings: Settings, avatars: Arc<avatar::Store>) -> Arc<Self> {
        Arc::new(Self { settings, avatars, sessions: Mutex::default() })
    }

    /// Creates a session. It starts when it is watched or published to, at once where it is always on.
    pub fn create(&self, spec: Spec) -> Result<Arc<Session>, Refusal> {
        let mut sessions = self.sessions.lock();
        if sessions.contains_key(&spec.id) {
            return Err(Refusal::Conflict(format!("there is a session `{}` already", spec.id)));
        }
        let session =
            Arc::new(Session { outlet: Outlet::new(150_000), speech: speech::Queue::new(self.settings.speech), spec });
        sessions.insert(session.spec.id.clone(), session.clone());
        Ok(session)
    }

    pub fn get(&self, id: &str) -> Result<Arc<Session>, Refusal> {
        self.sessions.lock().get(id).cloned().ok_or_else(|| Refusal::Unknown(id.to_owned()))
    }

    /// The session that RTMP clients play as `name`.
    pub fn by_play_name(&self, name: &str) -> Option<Arc<Session>> {
        self.sessions.lock().values().find(|s| s.spec.play.as_deref() == Some(name)).cloned()
    }

    pub fn list(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// Ends a session: its graph, its viewers, its publishers, its pushes.
    pub fn remove(&self, id: &str) -> Result<(), Refusal> {
        let session = self.sessions.lock().remove(id).ok_or_else(|| Refusal::Unknown(id.to_owned()))?;
        session.outlet.close();
        Ok(())
    }

    pub fn avatars(&self) -> &Arc<avatar::Store> {
        &self.avatars
    }

    pub fn capacity(&self) -> Capacity {
        Capacity::default()
    }
}

/// One session; see [`super`].
pub struct Session {
    spec: Spec,
    outlet: Arc<Outlet>,
    speech: Arc<speech::Queue>,
}

impl Session {
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn id(&self) -> &str {
        &self.spec.id
    }

    pub fn status(&self) -> Status {
        Status { id: self.spec.id.clone(), viewers: self.outlet.viewers(), ..Status::default() }
    }

    /// Watches the session; starts its graph where it does not run.
    pub async fn watch(&self, codecs: &[Codec]) -> Result<Viewer, Refusal> {
        Ok(self.outlet.watch(codecs))
    }

    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// Takes a place for a live source; starts the graph where it does not run. `who` names the peer in messages.
    pub fn publish(&self, _place: Place, _who: &str) -> Result<Inlet, Refusal> {
        Err(Refusal::NotReady("the session has no graph".into()))
    }

    /// What it has to say.
    pub fn speech(&self) -> &Arc<speech::Queue> {
        &self.speech
    }

    /// Throws away all queued speech and closes the mouth. Returns when it is at rest, with the time that it took.
    pub async fn interrupt(&self) -> Result<Duration, Refusal> {
        self.speech.interrupt();
        Ok(Duration::ZERO)
    }

    /// Shows another clip of the avatar from the next frame on where the two fit together.
    pub fn play_clip(&self, _clip: &str) -> Result<(), Refusal> {
        Err(Refusal::NotReady("the session shows no avatar".into()))
    }

    /// The running graph in Graphviz's language; `None` where none runs.
    pub fn dot(&self) -> Option<String> {
        None
    }
}
