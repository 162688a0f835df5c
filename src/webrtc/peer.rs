//! One peer: its own task, which waits for its datagrams, its media, its commands and its timers, and for nobody else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use str0m::{
    Event, IceConnectionState, Input, Output, Rtc, RtcError,
    net::{Protocol, Receive},
    stats::{MediaEgressStats, MediaIngressStats, PeerStats},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    negotiate::accept,
    offer::{Fragment, MAX_CANDIDATES, Offer},
    play::Play,
    publish::Publish,
    sockets::{Datagram, INBOX, Sockets, is_stun},
    status::PeerStatus,
};
use crate::{http::Problem, live::Packet};

/// Time in which the farewell of a peer that is asked to go is sent.
const FAREWELL: Duration = Duration::from_millis(200);
/// How often a peer looks after itself: its publisher's key frames, its session's end.
const TICK: Duration = Duration::from_millis(250);

/// What a peer does.
pub(super) enum Job {
    Play(Box<Play>),
    Publish(Box<Publish>),
}

/// Asks of the HTTP side.
pub(super) enum Command {
    /// Candidates, or a restart of ICE, to which the answer is given.
    Trickle(Fragment, oneshot::Sender<Result<Option<String>, Problem>>),
}

/// Why a peer has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to go: DELETE, or the server ends.
    Asked,
    /// It said good-bye.
    Left,
    NeverConnected,
    /// Its network fell silent.
    Silent,
    /// Its session has ended, or something failed.
    Failed(String),
}

/// A peer's task and all it owns.
pub(super) struct Peer {
    pub number: u64,
    pub rtc: Rtc,
    pub offer: Offer,
    pub job: Job,
    pub sockets: Arc<Sockets>,
    pub settings: Arc<Settings>,
    pub status: Arc<Mutex<PeerStatus>>,
    pub commands: mpsc::Receiver<Command>,
    pub close: CancellationToken,
    inbox: (mpsc::Sender<Datagram>, mpsc::Receiver<Datagram>),
    candidates: usize,
    /// When the offer came, and the last packet that was for this peer.
    start: Instant,
    heard: Instant,
    connected: bool,
}

/// What a peer is made of.
pub(super) struct Parts {
    pub number: u64,
    pub rtc: Rtc,
    pub offer: Offer,
    pub job: Job,
    pub status: Arc<Mutex<PeerStatus>>,
    pub commands: mpsc::Receiver<Command>,
    pub close: CancellationToken,
}

impl Peer {
    pub fn new(parts: Parts, sockets: Arc<Sockets>, settings: Arc<Settings>) -> Self {
        let Parts { number, mut rtc, offer, job, status, commands, close } = parts;
        let inbox = mpsc::channel(INBOX);
        let name = rtc.direct_api().local_ice_credentials().ufrag;
        sockets.listen(&name, number, inbox.0.clone());
        let start = Instant::now();
        Self {
            number,
            rtc,
            offer,
            job,
            sockets,
            settings,
            status,
            commands,
            close,
            inbox,
            candidates: 0,
            start,
            heard: start,
            connected: false,
        }
    }

    /// Runs until the peer or the session goes.
    pub async fn run(mut self) -> End {
        let end = match self.serve().await {
            Ok(end) => end,
            Err(error) => End::Failed(error.to_string()),
        };
        if !matches!(end, End::Left | End::Silent | End::NeverConnected) {
            self.say_goodbye().await;
        }
        end
    }

    async fn serve(&mut self) -> Result<End, RtcError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self.drain()?.min(self.due());
            if !self.rtc.is_alive() {
                return Ok(End::Left);
            }
            if let Some(end) = self.overdue() {
                return Ok(end);
            }
            if self.write_waiting()? {
                continue;
            }
            tokio::select! {
                () = self.close.cancelled() => return Ok(End::Asked),
                Some(datagram) = self.inbox.1.recv() => self.receive(&datagram)?,
                Some(command) = self.commands.recv() => self.obey(command),
                packet = next_packet(&mut self.job) => match packet {
                    Some(packet) => self.offer_packet(packet),
                    None => return Ok(End::Failed("the session has ended".into())),
                },
                () = tokio::time::sleep_until(deadline.into()) => self.rtc.handle_input(Input::Timeout(Instant::now()))?,
                _ = tick.tick() => if let Some(end) = self.look_after() {
                    return Ok(end);
                },
            }
        }
    }

    /// Sends what is to be sent and hears what has happened, until the library waits; gives the time until when.
    fn drain(&mut self) -> Result<Instant, RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(out) => self.sockets.send(out.source, out.destination, &out.contents),
                Output::Event(event) => self.hear(event),
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Connected => self.connect(),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                tracing::debug!(peer = self.number, "WebRTC connection lost");
            }
            Event::KeyframeRequest(_) => {
                if let Job::Play(play) = &mut self.job {
                    play.picture_lost(Instant::now());
                }
            }
            Event::EgressBitrateEstimate(estimate) => {
                if let Job::Play(play) = &mut self.job {
                    let bandwidth = play.estimate(&estimate, Instant::now());
                    self.status.lock().bandwidth = bandwidth;
                }
            }
            Event::MediaData(data) => {
                if let Job::Publish(publish) = &mut self.job {
                    publish.take(data);
                }
            }
            Event::PeerStats(stats) => self.note(&stats),
            Event::MediaEgressStats(stats) => self.note_egress(&stats),
            Event::MediaIngressStats(stats) => self.note_ingress(&stats),
            _ => {}
        }
    }

    fn connect(&mut self) {
        let now = Instant::now();
        if std::mem::replace(&mut self.connected, true) {
            return;
        }
        {
            let mut status = self.status.lock();
            status.connected = true;
            status.setup_ms = Some((now - self.start).as_secs_f64() * 1000.0);
        }
        match &mut self.job {
            Job::Play(play) => play.connect(&mut self.rtc, self.settings.max_bitrate, now),
            Job::Publish(publish) => publish.connect(),
        }
    }

    /// Hands a datagram to the library; only what it accepts counts as a sign of life.
    fn receive(&mut self, datagram: &Datagram) -> Result<(), RtcError> {
        let Datagram { at, source, destination, data } = datagram;
        // What does not even parse is a stranger's.
        let Ok(receive) = Receive::new(Protocol::Udp, *source, *destination, data) else { return Ok(()) };
        let input = Input::Receive(*at, receive);
        if !self.rtc.accepts(&input) {
            return Ok(());
        }
        if is_stun(data) {
            self.sockets.claim(*source, self.number, &self.inbox.0);
        }
        self.heard = *at;
        self.rtc.handle_input(input)
    }

    fn obey(&mut self, command: Command) {
        let Command::Trickle(fragment, reply) = command;
        let answer = self.trickle(fragment);
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }

    /// Candidates are only counted: a server that sends no checks learns of its peer's addresses by their checks.
    fn trickle(&mut self, fragment: Fragment) -> Result<Option<String>, Problem> {
        self.candidates += fragment.candidates.len() + fragment.ignored;
        if self.candidates > MAX_CANDIDATES {
            return Err(Problem::invalid(format!("the peer has named more than {MAX_CANDIDATES} candidates")));
        }
        match (fragment.ufrag, fragment.password) {
            (Some(ufrag), Some(password)) if ufrag != self.offer.ufrag => {
                let offer = self.offer.restarted(&ufrag, &password);
                let answer = accept(&mut self.rtc, &offer)?;
                self.offer = offer;
                let name = self.rtc.direct_api().local_ice_credentials().ufrag;
                self.sockets.listen(&name, self.number, self.inbox.0.clone());
                self.candidates = 0;
                Ok(Some(answer))
            }
            _ => Ok(None),
        }
    }

    fn offer_packet(&mut self, packet: Packet) {
        if let Job::Play(play) = &mut self.job {
            play.take(packet, self.connected);
        }
    }

    /// Writes one packet that waits; whether there was one. The library packs a frame when it is told the time, and takes
    /// few frames before that.
    fn write_waiting(&mut self) -> Result<bool, RtcError> {
        let now = Instant::now();
        let written = match &mut self.job {
            Job::Play(play) if self.connected => play.write(&mut self.rtc, now)?,
            _ => false,
        };
        if written {
            self.drain()?;
            self.rtc.handle_input(Input::Timeout(now))?;
        }
        Ok(written)
    }

    /// When there is something to write that must wait until then; far away where there is nothing.
    fn due(&self) -> Instant {
        let due = match &self.job {
            Job::Play(play) if self.connected => play.due(),
            _ => None,
        };
        due.unwrap_or_else(|| Instant::now() + TICK)
    }

    fn overdue(&self) -> Option<End> {
        if !self.connected && self.start.elapsed() > self.settings.setup_timeout {
            return Some(End::NeverConnected);
        }
        (self.connected && self.heard.elapsed() > self.settings.idle_timeout).then_some(End::Silent)
    }

    fn look_after(&mut self) -> Option<End> {
        let counters = match &mut self.job {
            Job::Play(play) => play.counters(),
            Job::Publish(publish) => {
                if self.connected {
                    publish.ask_for_key_frame(&mut self.rtc);
                }
                if let Some(reason) = publish.failure() {
                    return Some(End::Failed(reason));
                }
                publish.counters()
            }
        };
        let mut status = self.status.lock();
        status.counters.frames = counters.frames;
        status.counters.sounds = counters.sounds;
        status.counters.frames_skipped = counters.frames_skipped;
        None
    }

    fn note(&self, stats: &PeerStats) {
        let mut status = self.status.lock();
        let pair = stats.selected_candidate_pair.as_ref();
        status.address = pair.map(|pair| pair.remote.addr).or(status.address);
        if let Some(rtt) = stats.rtt {
            status.round_trip_ms = Some(rtt.as_secs_f64() * 1000.0);
        }
        match self.job {
            Job::Play(_) => status.counters.bytes = stats.bytes_tx,
            Job::Publish(_) => status.counters.bytes = stats.bytes_rx,
        }
    }

    /// The streams' counters are totals of their own: the peer's are the sums of the latest of each.
    fn note_egress(&mut self, stats: &MediaEgressStats) {
        let Job::Play(play) = &mut self.job else { return };
        let lost = stats.remote.as_ref().map_or(0, |remote| remote.packets_lost);
        let sum = play.note(stats.mid, [stats.packets, stats.nacks, stats.plis, stats.firs, lost]);
        self.status.lock().count(sum);
    }

    fn note_ingress(&mut self, stats: &MediaIngressStats) {
        let Job::Publish(publish) = &mut self.job else { return };
        let sum = publish.note(stats.mid, [stats.packets, stats.nacks, stats.plis, stats.firs, 0]);
        self.status.lock().count(sum);
    }

    /// Tells the peer that it is over; its connection shows it at once instead of a frozen picture.
    async fn say_goodbye(&mut self) {
        if self.rtc.close().is_err() {
            return;
        }
        let until = Instant::now() + FAREWELL;
        while let Ok(deadline) = self.drain()
            && self.rtc.is_alive()
            && Instant::now() < until
        {
            tokio::time::sleep_until(deadline.min(until).into()).await;
            if self.rtc.handle_input(Input::Timeout(Instant::now())).is_err() {
                return;
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.sockets.forget(self.number);
    }
}

/// The next packet of a viewer's session; never for a publisher.
async fn next_packet(job: &mut Job) -> Option<Packet> {
    match job {
        Job::Play(play) => play.next().await,
        Job::Publish(_) => std::future::pending().await,
    }
}
