//! The peers of this process: who may come, and how they go.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    filter::with_rate,
    negotiate::{self, Agreed},
    offer::{Fragment, Offer, Want},
    peer::{Command, End, Job, Parts, Peer},
    play::Play,
    publish::Publish,
    sockets::Sockets,
    status::{PeerStatus, Role, Totals},
};
use crate::{
    error::Result,
    http::Problem,
    live::{Decoder, Slot},
    session::{Manager, OnPublish, Session, Video, Voice, VoiceName},
    tenants::Caller,
};

/// Requests that may wait for one peer's task.
const COMMANDS: usize = 8;
/// Time in which a peer that is asked to go has gone; its task is ended by force after that.
const LEAVE: Duration = Duration::from_secs(2);

/// WHIP and WHEP; see the module.
pub struct Server {
    pub(super) settings: Arc<Settings>,
    manager: Arc<Manager>,
    sockets: Arc<Sockets>,
    reader: JoinHandle<()>,
    viewers: Arc<Semaphore>,
    publishers: Arc<Semaphore>,
    peers: Mutex<HashMap<String, Arc<Link>>>,
    next: AtomicU64,
    /// What peers that have gone have counted.
    past: Mutex<Totals>,
}

/// The server's hold on a peer.
pub(super) struct Link {
    pub session: String,
    commands: mpsc::Sender<Command>,
    close: CancellationToken,
    status: Arc<Mutex<PeerStatus>>,
    /// Cancelled when all that the peer had is free.
    gone: CancellationToken,
    /// Names the ICE session, which a restart replaces (RFC 9725 section 4.3.1).
    etag: Mutex<String>,
}

/// A peer that has just come.
pub(super) struct Opened {
    /// The secret end of its URL.
    pub id: String,
    pub etag: String,
    pub answer: String,
    /// Whether the stream is marked by what made it.
    pub marked: bool,
}

impl Server {
    /// Binds the sockets and starts to read them. To be called inside the runtime.
    pub fn bind(settings: Settings, manager: Arc<Manager>) -> Result<Arc<Self>> {
        settings.check()?;
        let sockets = Arc::new(Sockets::bind(&settings)?);
        Ok(Arc::new(Self {
            viewers: Arc::new(Semaphore::new(settings.max_viewers)),
            publishers: Arc::new(Semaphore::new(settings.max_publishers)),
            settings: Arc::new(settings),
            manager,
            reader: tokio::spawn(sockets.clone().read()),
            sockets,
            peers: Mutex::default(),
            next: AtomicU64::new(1),
            past: Mutex::default(),
        }))
    }

    /// The peers, in the order in which they came.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let mut peers: Vec<_> = self.peers.lock().values().map(|link| link.status.lock().now()).collect();
        peers.sort_by_key(|peer| peer.peer);
        peers
    }

    /// The peers of one session.
    pub fn peers_of(&self, session: &str) -> Vec<PeerStatus> {
        self.peers().into_iter().filter(|peer| peer.session == session).collect()
    }

    /// Counters since the server started.
    pub fn totals(&self) -> Totals {
        let peers = self.peers();
        let mut totals = *self.past.lock();
        totals.stray_datagrams = self.sockets.stray();
        peers.iter().for_each(|peer| totals.count(peer));
        totals.viewers = peers.iter().filter(|peer| peer.role == Role::Viewer).count();
        totals.publishers = peers.len() - totals.viewers;
        totals
    }

    /// Ends all peers and the sockets.
    pub async fn close(&self) {
        let links: Vec<_> = self.peers.lock().values().cloned().collect();
        links.iter().for_each(|link| link.close.cancel());
        for link in links {
            // Its task is on its way; what it has left is freed with the runtime.
            let _ = tokio::time::timeout(LEAVE, link.gone.cancelled()).await;
        }
        self.reader.abort();
    }

    /// WHEP: answers an offer to watch a session.
    pub(super) async fn play(self: &Arc<Self>, caller: &Caller, session: &str, body: &[u8]) -> Result<Opened, Problem> {
        let session = self.manager.get_for(session, caller)?;
        let offer = Offer::read(body, Want::Play)?;
        let permit = permit(&self.viewers, "viewers", self.settings.max_viewers)?;
        let mut agreed = negotiate::answer(&self.settings, &self.sockets, &offer, Want::Play, true)?;
        let viewer = session.watch_as(caller, &agreed.codecs()).await?;
        if let Some(fps) = session.rate() {
            agreed.answer = with_rate(&agreed.answer, fps);
        }
        let job = Job::Play(Box::new(Play::new(viewer, agreed.video, agreed.audio)));
        Ok(self.open(&session, (Role::Viewer, caller.until()), offer, agreed, job, permit))
    }

    /// The session that is published to, or one that begins with its publisher: that measures and builds a graph, which
    /// takes longer than a task may keep its thread.
    async fn for_publisher(&self, caller: &Caller, session: &str, keys: &[String]) -> Result<Arc<Session>, Problem> {
        match self.manager.get_for(session, caller) {
            Ok(session) => return Ok(session),
            // What begins so is the operator's.
            Err(refusal) if caller.tenant().is_some() => return Err(refusal.into()),
            Err(_) => {}
        }
        let (manager, session, keys) = (self.manager.clone(), session.to_owned(), keys.to_vec());
        let begun = tokio::task::spawn_blocking(move || manager.for_publisher(&session, |key| given(&keys, key))).await;
        Ok(begun.map_err(|error| Problem::internal(error.to_string()))??)
    }

    /// WHIP: answers an offer to publish to a session what is `sent`. `keys` is what was given as the session's stream key.
    pub(super) async fn publish(
        self: &Arc<Self>,
        caller: &Caller,
        (session, sent): (&str, Sent),
        keys: &[String],
        body: &[u8],
    ) -> Result<Opened, Problem> {
        if self.manager.settings().on_publish == OnPublish::Refuse {
            self.manager.get_for(session, caller)?;
        }
        let offer = Offer::read(body, Want::Publish)?;
        let session = match sent {
            Sent::Source => self.for_publisher(caller, session, keys).await?,
            Sent::Voice | Sent::SecondVoice => self.manager.get_for(session, caller)?,
        };
        check_key(&session, keys)?;
        let (place, role) = place(&session, sent)?;
        if place == Slot::Main && !offer.video {
            return Err(Problem::invalid(format!(
                "session `{}` needs video: publish a voice at /whip/{}/voice",
                session.id(),
                session.id()
            )));
        }
        let permit = permit(&self.publishers, "publishers", self.settings.max_publishers)?;
        let agreed = negotiate::answer(&self.settings, &self.sockets, &offer, Want::Publish, place == Slot::Main)?;
        if place != Slot::Main && agreed.audio.is_none() {
            return Err(Problem::invalid("a voice needs audio, and the SDP offer sends none as Opus"));
        }
        let taker = session.clone();
        // Building a graph and a decoder takes longer than a task may keep its thread.
        let decoder = tokio::task::spawn_blocking(move || -> Result<Decoder, Problem> {
            let inlet = taker.publish(place, "a WHIP client")?;
            Decoder::new(inlet).map_err(|error| Problem::internal(error.to_string()))
        })
        .await
        .map_err(|error| Problem::internal(error.to_string()))??;
        let job = Job::Publish(Box::new(Publish::new(decoder, session.outlet().clone(), agreed.video, agreed.audio)));
        Ok(self.open(&session, (role, caller.until()), offer, agreed, job, permit))
    }

    fn open(
        self: &Arc<Self>,
        session: &Session,
        (role, until): (Role, CancellationToken),
        offer: Offer,
        agreed: Agreed,
        job: Job,
        permit: OwnedSemaphorePermit,
    ) -> Opened {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:032x}", rand::random::<u128>());
        let codecs = agreed.codecs().iter().map(|codec| codec.name()).collect();
        let status = Arc::new(Mutex::new(PeerStatus::new(number, session.id(), role, codecs)));
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (close, gone) = (CancellationToken::new(), CancellationToken::new());
        let link = Arc::new(Link {
            session: session.id().to_owned(),
            commands: sender,
            close: close.clone(),
            status: status.clone(),
            gone: gone.clone(),
            etag: Mutex::new(new_etag()),
        });
        let marked = role == Role::Viewer && session.outlet().is_marked();
        let opened = Opened { id: id.clone(), etag: link.etag.lock().clone(), answer: agreed.answer, marked };
        self.peers.lock().insert(id.clone(), link);
        self.past.lock().opened += 1;
        for what in &offer.left_out {
            tracing::info!(peer = number, "WebRTC offer: {what}");
        }
        let parts = Parts { number, rtc: agreed.rtc, offer, job, status, commands, close: close.clone() };
        let peer = Peer::new(parts, self.sockets.clone(), self.settings.clone());
        tracing::info!(peer = number, session = session.id(), ?role, "WebRTC peer opened");
        let mut run = tokio::spawn(peer.run());
        let server = self.clone();
        tokio::spawn(async move {
            // A panic in one peer's task is that peer's end.
            let ended = tokio::select! {
                ended = &mut run => ended,
                () = until.cancelled() => {
                    close.cancel();
                    run.await
                }
            };
            let end = ended.unwrap_or_else(|error| End::Failed(error.to_string()));
            server.forget(&id, number, &end);
            drop(permit);
            gone.cancel();
        });
        opened
    }

    fn forget(&self, id: &str, number: u64, end: &End) {
        let link = self.peers.lock().remove(id);
        let mut past = self.past.lock();
        match end {
            End::NeverConnected => past.never_connected += 1,
            End::Silent => past.timed_out += 1,
            End::Asked | End::Left | End::Failed(_) => {}
        }
        if let Some(link) = link {
            past.count(&link.status.lock());
            tracing::info!(peer = number, session = link.session, ?end, "WebRTC peer closed");
        }
    }

    pub(super) fn refused(&self) {
        self.past.lock().refused += 1;
    }

    /// The peer of a URL.
    pub(super) fn find(&self, caller: &Caller, session: &str, id: &str) -> Result<Arc<Link>, Problem> {
        self.manager.get_for(session, caller).map_err(|_| gone())?;
        let link = self.peers.lock().get(id).filter(|link| link.session == session).cloned();
        link.ok_or_else(gone)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    pub fn etag(&self) -> String {
        self.etag.lock().clone()
    }

    /// Passes candidates on. A restart of ICE gives the new answer.
    pub async fn trickle(&self, fragment: Fragment) -> Result<Option<String>, Problem> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Trickle(fragment, reply)).await.map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())??;
        if answer.is_some() {
            *self.etag.lock() = new_etag();
        }
        Ok(answer)
    }

    /// Ends the peer; returns when all that it had is free.
    pub async fn close(&self) {
        self.close.cancel();
        // A task that does not end in this time is one that a bug holds; the answer should not wait for it.
        let _ = tokio::time::timeout(LEAVE, self.gone.cancelled()).await;
    }
}

impl Totals {
    fn count(&mut self, peer: &PeerStatus) {
        match peer.role {
            Role::Viewer => self.sent.add(&peer.counters),
            Role::Publisher | Role::Voice => self.received.add(&peer.counters),
        }
    }
}

fn gone() -> Problem {
    Problem::not_found("there is no such WHIP or WHEP session: it has ended")
}

fn new_etag() -> String {
    format!("\"{:016x}\"", rand::random::<u64>())
}

fn permit(semaphore: &Arc<Semaphore>, who: &str, most: usize) -> Result<OwnedSemaphorePermit, Problem> {
    semaphore
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::full(format!("there are {most} WebRTC {who} already, which is the most that is allowed")))
}

/// Whether one of what was given is the key.
fn given(keys: &[String], key: &str) -> bool {
    keys.iter().any(|given| given.as_bytes().ct_eq(key.as_bytes()).into())
}

fn check_key(session: &Session, keys: &[String]) -> Result<(), Problem> {
    if session.spec().stream_key.as_deref().is_none_or(|key| given(keys, key)) {
        return Ok(());
    }
    tracing::warn!(session = session.id(), "WHIP publisher without the session's stream key refused");
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        format!(
            "session `{}` wants its stream key: add ?key=KEY to the URL, or send `Authorization: Bearer KEY`",
            session.id()
        ),
    ))
}

/// What is published to a session, as the URL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Its video, or its voice where it takes no video.
    Source,
    /// Its voice, beside a video.
    Voice,
    /// Its second voice.
    SecondVoice,
}

/// Where a publisher goes in a session.
fn place(session: &Session, sent: Sent) -> Result<(Slot, Role), Problem> {
    let (video, voice) = (session.video(), session.voice());
    let conflict = |what: &str| Err(Problem::conflict(format!("session `{}` {what}", session.id())));
    match (sent, video, voice) {
        (Sent::SecondVoice, ..) => {
            session.speech_of(VoiceName::B)?;
            Ok((Slot::VoiceB, Role::Voice))
        }
        (Sent::Source, Video::Publish, _) => Ok((Slot::Main, Role::Publisher)),
        (_, _, Voice::Speech | Voice::Second) => Ok((Slot::Voice, Role::Voice)),
        (Sent::Source, Video::Avatar, _) => conflict("shows an avatar and takes no voice"),
        (Sent::Source, Video::Pull, _) => conflict("reads its video from a URL and takes no other"),
        (Sent::Voice, _, Voice::Source) => conflict("follows the sound of its own video and takes no voice"),
    }
}
