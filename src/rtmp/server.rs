//! Listens, and keeps the list of who publishes what.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{connection, host::Host};
use crate::{
    error::{Failure, Result},
    session::Manager,
};

/// How long a server that stops waits for its connections.
const FAREWELL: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Where [`Server::start`] listens.
    pub bind: SocketAddr,
    /// First part of every path.
    pub app: String,
    /// Publishers and players together; one more is turned away.
    pub max_connections: usize,
    /// Time for the handshake and the commands up to `publish` or `play`.
    pub greeting: Duration,
    /// A peer from which nothing comes for this long is gone.
    pub idle: Duration,
    /// A player that takes nothing for this long is gone.
    pub stuck: Duration,
    /// A publisher that is silent for this long gives way to another one of the same name.
    pub takeover: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 1935)),
            app: "live".into(),
            max_connections: 256,
            greeting: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            stuck: Duration::from_secs(10),
            takeover: Duration::from_secs(2),
        }
    }
}

/// Numbers for metrics; the last five since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub connections: usize,
    pub publishers: usize,
    pub players: usize,
    pub accepted: u64,
    /// Turned away: no RTMP, an unknown name, a wrong key, a place that is taken, too many connections.
    pub rejected: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Publishers' packets that came faster than they could be decoded.
    pub dropped: u64,
}

/// What the connections share.
#[derive(Default)]
pub(super) struct Shared {
    pub stop: CancellationToken,
    pub publishers: Mutex<HashMap<String, Arc<Publisher>>>,
    pub connections: AtomicUsize,
    pub players: AtomicUsize,
    pub accepted: AtomicU64,
    pub rejected: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub dropped: AtomicU64,
}

/// A publisher in the list.
pub(super) struct Publisher {
    pub heard: Mutex<Instant>,
    /// Tells it to give way.
    pub end: CancellationToken,
    /// It has left its place.
    pub gone: CancellationToken,
}

/// A running RTMP server. Dropping it stops it without waiting.
pub struct Server {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    local: SocketAddr,
}

impl Server {
    /// Binds and serves from now on. Called within a tokio runtime.
    pub fn start(settings: Settings, sessions: Arc<Manager>) -> Result<Self> {
        Self::with_host(settings, sessions)
    }

    /// The same for any [`Host`].
    pub fn with_host<S: Host>(settings: Settings, host: Arc<S>) -> Result<Self> {
        let bind = settings.bind;
        let refused = |error: io::Error| Failure::run(format!("RTMP cannot listen on {bind}: {error}"));
        let listener = std::net::TcpListener::bind(bind).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = TcpListener::from_std(listener).map_err(refused)?;
        Self::on(listener, settings, host)
    }

    /// The same on a listener that is there.
    pub fn on<S: Host>(listener: TcpListener, settings: Settings, host: Arc<S>) -> Result<Self> {
        let local = listener
            .local_addr()
            .map_err(|error| Failure::run(format!("the system does not tell RTMP's port: {error}")))?;
        let (shared, tasks) = (Arc::new(Shared::default()), TaskTracker::new());
        tasks.spawn(listen(listener, Arc::new(settings), host, shared.clone(), tasks.clone()));
        tracing::info!("RTMP listens on {local}");
        Ok(Self { shared, tasks, local })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        Stats {
            connections: shared.connections.load(Relaxed),
            publishers: shared.publishers.lock().len(),
            players: shared.players.load(Relaxed),
            accepted: shared.accepted.load(Relaxed),
            rejected: shared.rejected.load(Relaxed),
            bytes_in: shared.bytes_in.load(Relaxed),
            bytes_out: shared.bytes_out.load(Relaxed),
            dropped: shared.dropped.load(Relaxed),
        }
    }

    /// Takes no more connections, tells players that the stream has ended, and waits a little for everyone to leave.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::warn!("{} RTMP connections did not end in time", self.shared.connections.load(Relaxed));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn listen<S: Host>(
    listener: TcpListener,
    settings: Arc<Settings>,
    host: Arc<S>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: the others go on, and trying at once would only burn time.
                tracing::warn!("RTMP cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(seat) = Seat::take(&shared, settings.max_connections) else {
            shared.rejected.fetch_add(1, Relaxed);
            tracing::warn!("RTMP turns {peer} away: {} connections are open", settings.max_connections);
            continue;
        };
        tasks.spawn(serve(socket, peer, settings.clone(), host.clone(), seat));
    }
}

async fn serve<S: Host>(socket: TcpStream, peer: SocketAddr, settings: Arc<Settings>, host: Arc<S>, seat: Seat) {
    let shared = &seat.0;
    shared.accepted.fetch_add(1, Relaxed);
    match connection::run(socket, peer, &settings, host, shared).await {
        Ok(()) => tracing::debug!("RTMP peer {peer} left"),
        Err(connection::End::Refused(reason)) => {
            shared.rejected.fetch_add(1, Relaxed);
            tracing::warn!("RTMP refuses {peer}: {reason}");
        }
        Err(connection::End::Elsewhere(to)) => tracing::info!("RTMP peer {peer} was passed on to {to}"),
        Err(connection::End::Lost(reason)) => tracing::info!("RTMP peer {peer} is gone: {reason}"),
    }
}

/// One of the connections that may be open at a time.
struct Seat(Arc<Shared>);

impl Seat {
    fn take(shared: &Arc<Shared>, limit: usize) -> Option<Self> {
        let seat = Self(shared.clone());
        (shared.connections.fetch_add(1, Relaxed) < limit).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
