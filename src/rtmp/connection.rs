//! One peer of the server: its commands, then its media in or the session's out.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedWriteHalf},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    amf::Value,
    flow::Flow,
    handshake,
    host::{Guest, Host},
    ingest::Ingest,
    link::{Command, Event, Link},
    name::Name,
    relay,
    server::{Publisher, Settings, Shared},
};
use crate::{
    live::{Codec, Outlet, Packet, Viewer},
    session::Refusal,
};

/// How often a connection looks after its peer and its session.
const LOOK: Duration = Duration::from_secs(1);
/// How often a player that only listens is asked whether it is there.
const PING: Duration = Duration::from_secs(5);
/// Read at a time.
const READ: usize = 64 << 10;
/// Most of what a peer says before it publishes or plays that is kept.
const MAX_SAID: usize = 16 << 10;
/// How long a peer may take to read why it was refused.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a connection ended before its peer wanted it to.
pub(super) enum End {
    /// By us.
    Refused(String),
    /// By the network or the peer.
    Lost(String),
    /// Another server has what it asks for.
    Elsewhere(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

enum Role {
    Undecided,
    Publishes(Box<Publishing>),
    Plays(Box<Playing>),
}

/// The fields are dropped in their order: the decoder before the place in the list.
struct Publishing {
    ingest: Option<Ingest>,
    outlet: Arc<Outlet>,
    place: Listed,
    /// Cancelled when its key is revoked.
    until: CancellationToken,
}

struct Playing {
    viewer: Viewer,
    flow: Flow,
    stream: u32,
    paused: bool,
    pinged: Instant,
    shared: Arc<Shared>,
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.shared.players.fetch_sub(1, Relaxed);
    }
}

/// A publisher's place in the list, left when this is dropped.
struct Listed {
    shared: Arc<Shared>,
    path: String,
    entry: Arc<Publisher>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.publishers.lock().remove(&self.path);
        self.entry.gone.cancel();
    }
}

struct Connection<S> {
    link: Link,
    peer: SocketAddr,
    host: Arc<S>,
    shared: Arc<Shared>,
    settings: Settings,
    app: String,
    streams: u32,
    role: Role,
    heard: Instant,
    since: Instant,
    /// What it has said before it publishes or plays, for a server that has it, and how much it has been answered.
    said: Vec<u8>,
    answered: usize,
}

/// Serves a peer until it leaves.
pub(super) async fn run<S: Host>(
    mut socket: TcpStream,
    peer: SocketAddr,
    settings: &Settings,
    host: Arc<S>,
    shared: &Arc<Shared>,
) -> Result<(), End> {
    socket.set_nodelay(true)?;
    let greeted = tokio::select! {
        greeted = handshake::accept(&mut socket, settings.greeting) => greeted,
        () = shared.stop.cancelled() => return Ok(()),
    };
    greeted.map_err(|error| End::Refused(format!("handshake: {error}")))?;
    let now = Instant::now();
    let mut connection = Connection {
        link: Link::of_commands(),
        peer,
        host,
        shared: shared.clone(),
        settings: settings.clone(),
        app: String::new(),
        streams: 0,
        role: Role::Undecided,
        heard: now,
        since: now,
        said: Vec::new(),
        answered: 0,
    };
    let (mut read, mut write) = socket.into_split();
    let ended = connection.converse(&mut read, &mut write).await;
    if let Err(End::Elsewhere(to)) = &ended {
        let met = relay::Met { said: &connection.said, answered: connection.answered + connection.link.out.len() };
        let rest = connection.link.out.split();
        tracing::info!("RTMP {peer} is passed on to {to}");
        return relay::pass_on(to, met, &rest, read, write, (settings.greeting, shared.stop.clone()))
            .await
            .map_err(|error| End::Lost(format!("passed on to {to}: {error}")));
    }
    connection.leave().await;
    // What was said last arrives: closing with unread bytes would make the peer's system throw it away.
    let farewell = async {
        write.write_all_buf(&mut connection.link.out).await?;
        write.shutdown().await?;
        let mut rest = [0; 4096];
        while read.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(LAST_WORDS, farewell).await;
    ended
}

impl<S: Host> Connection<S> {
    async fn converse(
        &mut self,
        read: &mut (impl AsyncReadExt + Unpin),
        write: &mut OwnedWriteHalf,
    ) -> Result<(), End> {
        let stop = self.shared.stop.clone();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.flush(write).await?;
            self.link.input.reserve(READ);
            let (give_way, revoked) = match &self.role {
                Role::Publishes(publishing) => (publishing.place.entry.end.clone(), publishing.until.clone()),
                _ => Default::default(),
            };
            tokio::select! {
                count = read.read_buf(&mut self.link.input) => match count? {
                    0 => return Ok(()),
                    count => self.arrived(count).await?,
                },
                packet = next_packet(&mut self.role) => {
                    if !self.packet(packet) {
                        return Ok(());
                    }
                }
                _ = look.tick() => self.look()?,
                () = give_way.cancelled() => return Err(End::Lost("another publisher has taken its place".into())),
                () = revoked.cancelled() => {
                    let reason = "the key that it publishes with has been revoked";
                    self.link.status(1, "status", "NetStream.Unpublish.Success", reason);
                    return Err(End::Lost(reason.into()));
                }
                () = stop.cancelled() => {
                    self.stream_ends("the server stops");
                    return Ok(());
                }
            }
        }
    }

    /// Sends what waits. A peer that takes nothing is given up; while it is waited for, its viewer falls behind and skips
    /// to a key frame, and nobody else notices.
    async fn flush(&mut self, write: &mut OwnedWriteHalf) -> Result<(), End> {
        if self.link.out.is_empty() {
            return Ok(());
        }
        self.shared.bytes_out.fetch_add(self.link.out.len() as u64, Relaxed);
        let stuck = self.settings.stuck;
        self.answered += if matches!(self.role, Role::Undecided) { self.link.out.len() } else { 0 };
        while !self.link.out.is_empty() {
            timeout(stuck, write.write_buf(&mut self.link.out))
                .await
                .map_err(|_| End::Lost(format!("it has taken nothing for {} s", stuck.as_secs_f32())))??;
        }
        Ok(())
    }

    async fn arrived(&mut self, count: usize) -> Result<(), End> {
        self.heard = Instant::now();
        self.shared.bytes_in.fetch_add(count as u64, Relaxed);
        if matches!(self.role, Role::Undecided) && self.said.len() + count <= MAX_SAID {
            self.said.extend_from_slice(&self.link.input[self.link.input.len() - count..]);
        }
        self.link.arrived(count);
        if let Role::Publishes(publishing) = &self.role {
            *publishing.place.entry.heard.lock() = self.heard;
        }
        while let Some(event) = self.link.event().map_err(|error| End::Refused(error.to_string()))? {
            match event {
                Event::Command(command) => self.command(command).await?,
                Event::Video { timestamp, data } => self.media(|ingest| ingest.video(timestamp, data))?,
                Event::Audio { timestamp, data } => self.media(|ingest| ingest.audio(timestamp, data))?,
            }
        }
        Ok(())
    }

    fn media(&mut self, push: impl FnOnce(&mut Ingest) -> Result<(), super::ingest::Problem>) -> Result<(), End> {
        let Role::Publishes(publishing) = &mut self.role else { return Ok(()) };
        let Some(ingest) = &mut publishing.ingest else { return Ok(()) };
        push(ingest).map_err(|problem| {
            self.link.status(1, "error", "NetStream.Publish.Failed", &problem.0);
            End::Refused(problem.0)
        })
    }

    /// Once a second.
    fn look(&mut self) -> Result<(), End> {
        let silent = self.heard.elapsed();
        match &mut self.role {
            Role::Undecided if self.since.elapsed() > self.settings.greeting => {
                return Err(End::Refused("it neither publishes nor plays".into()));
            }
            Role::Undecided => {}
            Role::Publishes(publishing) => {
                if let Some(cause) = publishing.ingest.as_ref().and_then(Ingest::failure) {
                    self.link.status(1, "error", "NetStream.Publish.Failed", &cause);
                    return Err(End::Refused(cause));
                }
                if publishing.outlet.is_closed() {
                    let reason = "the session was deleted";
                    self.link.status(1, "status", "NetStream.Unpublish.Success", reason);
                    return Err(End::Lost(reason.into()));
                }
            }
            Role::Plays(playing) => {
                if playing.pinged.elapsed() > PING {
                    playing.pinged = Instant::now();
                    self.link.ping(self.since.elapsed().as_millis() as u32);
                }
            }
        }
        if silent > self.settings.idle {
            return Err(End::Lost(format!("nothing has come from it for {} s", silent.as_secs())));
        }
        Ok(())
    }

    async fn command(&mut self, command: Command) -> Result<(), End> {
        let text = |index: usize| command.arguments.get(index).and_then(Value::as_str).unwrap_or_default().to_owned();
        match command.name.as_str() {
            "connect" => self.connect(&command),
            "createStream" => {
                // More than a handful is nobody's need; the last one is given again.
                self.streams = (self.streams + 1).min(8);
                self.result(&command, Value::Null, Value::Number(self.streams.into()));
            }
            "releaseStream" | "FCPublish" => {
                self.result(&command, Value::Null, Value::Null);
                if command.name == "FCPublish" {
                    self.link.command(0, &[Value::text("onFCPublish"), Value::Number(0.0), Value::Null]);
                }
            }
            "publish" => return self.publish(command.stream, &text(0)).await,
            "play" => return self.play(command.stream, &text(0)).await,
            "pause" => self.pause(&command),
            "FCUnpublish" | "closeStream" | "deleteStream" => self.leave().await,
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, command: &Command) {
        self.app = command.object.get("app").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.link.announce_window();
        self.link.stream_begins(0);
        self.link.set_chunk_size();
        let mut properties = vec![
            ("fmsVer".to_owned(), Value::text("FMS/3,5,7,7009")),
            ("capabilities".to_owned(), Value::Number(31.0)),
        ];
        // Enhanced RTMP: answered to those who bring it up. 1: can decode.
        if ["fourCcList", "videoFourCcInfoMap", "capsEx"].iter().any(|name| command.object.get(name).is_some()) {
            let decoded = |codecs: &[&str]| {
                Value::Object(codecs.iter().map(|codec| ((*codec).to_owned(), Value::Number(1.0))).collect())
            };
            properties.push(("videoFourCcInfoMap".into(), decoded(&["avc1", "hvc1", "av01", "vp09", "vp08"])));
            properties.push(("audioFourCcInfoMap".into(), decoded(&["mp4a", "Opus", ".mp3"])));
            // ModEx is read.
            properties.push(("capsEx".into(), Value::Number(4.0)));
        }
        let info = Value::object([
            ("level", Value::text("status")),
            ("code", Value::text("NetConnection.Connect.Success")),
            ("description", Value::text("Connection succeeded.")),
            ("objectEncoding", Value::Number(0.0)),
        ]);
        self.result(command, Value::Object(properties), info);
    }

    fn result(&mut self, command: &Command, properties: Value, info: Value) {
        self.link.command(0, &[Value::text("_result"), Value::Number(command.transaction), properties, info]);
    }

    /// Says why not, and ends.
    fn refuse(&mut self, stream: u32, code: &str, reason: String) -> Result<(), End> {
        self.link.status(stream, "error", code, &reason);
        Err(End::Refused(reason))
    }

    async fn publish(&mut self, stream: u32, name: &str) -> Result<(), End> {
        const BAD: &str = "NetStream.Publish.BadName";
        if !matches!(self.role, Role::Undecided) {
            return self.refuse(stream, BAD, "this connection publishes or plays already".into());
        }
        let name = match Name::new(&self.settings.app, &self.app, name) {
            Ok(name) => name,
            Err(error) => return self.refuse(stream, BAD, error.to_string()),
        };
        self.check_here(&name)?;
        let Some(place) = self.enter(&name).await else {
            let reason = format!("`{}` has a live publisher already: end that one, or use another name", name.path);
            return self.refuse(stream, BAD, reason);
        };
        let (host, who) = (self.host.clone(), format!("RTMP {}", self.peer));
        let path = name.path.clone();
        let entered = tokio::task::spawn_blocking(move || {
            let Guest { inlet, outlet, until } = host.publish(&name, &who)?;
            let ingest = Ingest::new(inlet).map_err(|failure| Refusal::Failed(failure.message))?;
            Ok::<_, Refusal>((ingest, outlet, until))
        })
        .await;
        let (ingest, outlet, until) = match entered {
            Ok(Ok(entered)) => entered,
            Ok(Err(refusal)) => return self.refuse(stream, BAD, refusal.to_string()),
            Err(_) => return self.refuse(stream, BAD, "the session failed; its log says why".into()),
        };
        self.link.expect_media();
        self.role = Role::Publishes(Box::new(Publishing { ingest: Some(ingest), outlet, place, until }));
        self.link.stream_begins(stream);
        self.link.status(stream, "status", "NetStream.Publish.Start", "publishing");
        tracing::info!("RTMP {} publishes `{path}`", self.peer);
        Ok(())
    }

    /// Ends where another server has it: that is connected to in this one's place.
    fn check_here(&self, name: &Name) -> Result<(), End> {
        // One that has said more than greetings is not begun anew.
        let to = self.host.elsewhere(name).filter(|_| self.said.len() < MAX_SAID);
        to.map_or(Ok(()), |to| Err(End::Elsewhere(to)))
    }

    /// Takes the place `name` in the list of publishers, from one that has gone silent if need be.
    async fn enter(&self, name: &Name) -> Option<Listed> {
        let entry = Arc::new(Publisher {
            heard: Mutex::new(Instant::now()),
            end: CancellationToken::new(),
            gone: CancellationToken::new(),
        });
        // Once more after the one who was there has left; whoever comes between was faster.
        for _ in 0..2 {
            let there = {
                let mut publishers = self.shared.publishers.lock();
                match publishers.get(&name.path) {
                    Some(there) => there.clone(),
                    None => {
                        publishers.insert(name.path.clone(), entry.clone());
                        return Some(Listed { shared: self.shared.clone(), path: name.path.clone(), entry });
                    }
                }
            };
            if there.heard.lock().elapsed() < self.settings.takeover {
                return None;
            }
            there.end.cancel();
            let _ = timeout(self.settings.greeting, there.gone.cancelled()).await;
        }
        None
    }

    async fn play(&mut self, stream: u32, name: &str) -> Result<(), End> {
        const NOT_FOUND: &str = "NetStream.Play.StreamNotFound";
        if !matches!(self.role, Role::Undecided) {
            return self.refuse(stream, "NetStream.Play.Failed", "this connection publishes or plays already".into());
        }
        let name = match Name::new(&self.settings.app, &self.app, name) {
            Ok(name) => name,
            Err(error) => return self.refuse(stream, NOT_FOUND, error.to_string()),
        };
        self.check_here(&name)?;
        let viewer = match self.host.watch(&name).await {
            Ok(viewer) => viewer,
            Err(refusal @ Refusal::Unknown(_)) => return self.refuse(stream, NOT_FOUND, refusal.to_string()),
            Err(refusal) => return self.refuse(stream, "NetStream.Play.Failed", refusal.to_string()),
        };
        self.shared.players.fetch_add(1, Relaxed);
        self.role = Role::Plays(Box::new(Playing {
            flow: Flow::new(true, viewer.outlet().is_marked()),
            viewer,
            stream,
            paused: false,
            pinged: Instant::now(),
            shared: self.shared.clone(),
        }));
        self.link.stream_begins(stream);
        self.link.status(stream, "status", "NetStream.Play.Reset", "playing");
        self.link.status(stream, "status", "NetStream.Play.Start", "playing");
        tracing::info!("RTMP {} plays `{}`", self.peer, name.path);
        Ok(())
    }

    fn pause(&mut self, command: &Command) {
        let Role::Plays(playing) = &mut self.role else { return };
        playing.paused = command.arguments.first() == Some(&Value::Boolean(true));
        let code = if playing.paused {
            "NetStream.Pause.Notify"
        } else {
            playing.viewer.resynchronise();
            "NetStream.Unpause.Notify"
        };
        self.link.status(playing.stream, "status", code, "as asked");
    }

    /// Queues a packet for the player; false at the end of the session.
    fn packet(&mut self, packet: Option<Packet>) -> bool {
        let Role::Plays(playing) = &mut self.role else { return true };
        let Some(packet) = packet else {
            self.stream_ends("the session has ended");
            return false;
        };
        if !playing.paused {
            let outlet = playing.viewer.outlet();
            for out in playing.flow.packet(&packet, || outlet.header(Codec::Aac)) {
                self.link.send(out.kind, playing.stream, out.timestamp, out.data);
            }
        }
        true
    }

    fn stream_ends(&mut self, reason: &str) {
        if let Role::Plays(playing) = &self.role {
            self.link.stream_ends(playing.stream);
            self.link.status(playing.stream, "status", "NetStream.Play.Stop", reason);
            self.link.status(playing.stream, "status", "NetStream.Play.UnpublishNotify", reason);
        }
    }

    /// Ends what the peer does. The decoder stops on another thread: its own threads are waited for there.
    async fn leave(&mut self) {
        if let Role::Publishes(mut publishing) = std::mem::replace(&mut self.role, Role::Undecided) {
            if let Some(ingest) = publishing.ingest.take() {
                self.shared.dropped.fetch_add(ingest.dropped(), Relaxed);
                let _ = tokio::task::spawn_blocking(move || ingest.finish()).await;
            }
            self.link.status(1, "status", "NetStream.Unpublish.Success", "unpublished");
        }
        self.since = Instant::now();
    }
}

/// The next packet for a player; never anything for others.
async fn next_packet(role: &mut Role) -> Option<Packet> {
    match role {
        Role::Plays(playing) => playing.viewer.recv().await,
        _ => std::future::pending().await,
    }
}
