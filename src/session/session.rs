//! One session: what it was asked to be, its graph while one runs, and what outlives the graph.
//!
//! - [`parameters`]: what its graph is told, and asks of the machine; [`engine`]: which engine it has; [`usage`]: what is counted for its owner;
//!   [`voices`]: what it says.

mod engine;
mod parameters;
mod usage;
pub(super) mod voices;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gstlipstream::alpha::Mode;
use parking_lot::Mutex;

use super::{
    Manager, Phase, Refusal, SessionSpec, Status, Video, Voice,
    clock::{self, MS, Nanos},
    graphs,
    jitter_buffer::JitterBuffer,
    links::Links,
    pacer::{self, Pacer, PictureSource},
    running_graph::RunningGraph,
    status,
};
use crate::{
    avatar,
    graph::{Graph, Service},
    link::Backoff,
    live::{Codec, Inlet, Outlet, Slot, Viewer},
    marks::{Mark, Statement},
    speech,
    tenants::{Caller, Held, Place, Tenant, Totals},
    untouched::{self, Untouched},
};

use self::{
    engine::Engines,
    parameters::{LABEL, alpha},
    usage::{micros, of_device},
};

/// Least bit rate to which a viewer's bandwidth may bring a video encoder; slower viewers lose frames.
const BIT_RATE_FLOOR: u32 = 300_000;
/// Shortest and longest pause before a restart of a graph that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The first pause of a graph that has not recovered from anything yet.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A graph that has run for so long has recovered: the pause after its next failure is the shortest.
const HEALTHY: Duration = Duration::from_secs(30);

/// A graph that runs. Fields drop in order: the pacer stops before its graph.
struct Running {
    pacer: Pacer,
    graph: Arc<RunningGraph>,
    since: Instant,
    /// Whether its engine runs on a card.
    card: bool,
}

#[derive(Default)]
struct Before {
    frames: AtomicU64,
    held: AtomicU64,
    dropped: AtomicU64,
    late: AtomicU64,
    untouched: Mutex<Untouched>,
    corrections: AtomicU64,
    /// Microseconds for which graphs ran, and those that their engines took of a card.
    ran_us: AtomicU64,
    gpu_us: AtomicU64,
}

struct State {
    running: Option<Running>,
    /// Values of parameters that were changed while it ran.
    changed: Vec<(String, String)>,
    /// Which faces its second voice moves, where that was changed.
    second_speaker: Option<String>,
    reason: Option<String>,
    restarts: u64,
    /// Between a failure and the next start.
    backoff: Backoff,
    /// When a graph that failed starts again.
    again: Option<Instant>,
    flush: Option<Duration>,
    ended: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            running: None,
            changed: Vec::new(),
            second_speaker: None,
            reason: None,
            restarts: 0,
            backoff: Backoff::new(PAUSES, HEALTHY).starting_at(FIRST_PAUSE),
            again: None,
            flush: None,
            ended: false,
        }
    }
}

/// See the module. Lock order: `starting`, `state`, `engines`.
pub struct Session {
    spec: SessionSpec,
    graph: Graph,
    service: Service,
    avatar: Option<Arc<avatar::Avatar>>,
    manager: Weak<Manager>,
    outlet: Arc<Outlet>,
    speech: Arc<speech::Queue>,
    /// Of its second voice, where it has one.
    second: Option<Arc<speech::Queue>>,
    jitter_buffer: Arc<JitterBuffer>,
    links: Links,
    /// Held while the graph starts or stops.
    starting: Mutex<()>,
    state: Mutex<State>,
    engines: Mutex<Engines>,
    /// What the graphs before this one counted.
    before: Before,
    /// Whose it is; `None` is the operator.
    owner: Option<Arc<Tenant>>,
    /// Its place among the owner's sessions, given back when it ends.
    place: Mutex<Option<Place>>,
    /// What has been counted for the owner.
    settled: Mutex<Totals>,
}

impl Session {
    pub(super) fn new(spec: SessionSpec, caller: &Caller, manager: &Arc<Manager>) -> Result<Arc<Self>, Refusal> {
        let settings = manager.settings();
        spec.check()?;
        let owner = caller.tenant().cloned();
        owner.as_ref().map_or(Ok(()), |owner| owner.check_month())?;
        let place = owner.as_ref().map(|owner| owner.take(Held::Sessions, 1)).transpose()?;
        if spec.pull.as_deref().is_some_and(|url| url.starts_with("file:")) && !settings.files {
            let why = "files of this machine are read only with sessions.files = true";
            return Err(Refusal::Invalid(format!("pull: {why}")));
        }
        let (graph, service) = graphs::find(settings.graphs.as_deref(), &spec.graph)?;
        let service = spec.service(service)?;
        let mut avatar = None;
        if service.video == Video::Avatar {
            let name = spec.avatar.as_deref().unwrap_or("demo");
            let known = manager.avatars().get_for(name, caller).ok_or_else(|| {
                let names = manager.avatars().names_for(caller);
                Refusal::Invalid(format!("avatar: there is no `{name}`; there are {names}"))
            })?;
            manager.avatars().check_use(&known).map_err(|e| Refusal::Invalid(format!("avatar: {e}")))?;
            avatar = Some(known);
        } else if let Some(name) = &spec.avatar {
            return Err(Refusal::Invalid(format!("avatar: graph `{}` shows no avatar, so not `{name}`", spec.graph)));
        }
        let own = spec.params.get("engine").or(spec.engine.as_ref());
        let engine = own.map_or(settings.engine.as_str(), String::as_str);
        let session = Arc::new(Self {
            outlet: Outlet::new(BIT_RATE_FLOOR, settings.marks.then(|| Statement::new(engine))),
            speech: speech::Queue::new(settings.speech),
            second: spec.speaker_b.is_some().then(|| speech::Queue::new(settings.speech)),
            jitter_buffer: Arc::new(JitterBuffer::new(&spec.id).keeping(alpha(&spec, &graph) != Mode::Drop)),
            links: Links::new(&spec, manager)?,
            graph,
            service,
            avatar,
            manager: Arc::downgrade(manager),
            starting: Mutex::default(),
            state: Mutex::default(),
            engines: Mutex::default(),
            before: Before::default(),
            owner,
            place: Mutex::new(place),
            settled: Mutex::default(),
            spec,
        });
        // Wrong parameters are refused now and not when somebody watches.
        session.launch(&[], &settings.device)?;
        session.check_look_ahead()?;
        Ok(session)
    }

    pub fn spec(&self) -> &SessionSpec {
        &self.spec
    }

    pub fn id(&self) -> &str {
        &self.spec.id
    }

    pub fn video(&self) -> Video {
        self.service.video
    }

    pub fn voice(&self) -> Voice {
        self.service.voice
    }

    /// The tenant that it belongs to; `None` is the operator.
    pub fn owner(&self) -> Option<&Arc<Tenant>> {
        self.owner.as_ref()
    }

    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// Clock time of the newest frame that has left the lip-sync, the least of all where there is none yet; `None` where no
    /// graph runs.
    pub(crate) fn last_shown(&self) -> Option<Nanos> {
        let graph = self.state.lock().running.as_ref().map(|running| running.graph.clone());
        graph.map(|graph| graph.meter.last_shown().unwrap_or(Nanos::MIN))
    }

    /// Watches the session; starts its graph where it does not run.
    pub async fn watch(self: &Arc<Self>, codecs: &[Codec]) -> Result<Viewer, Refusal> {
        self.watch_as(&Caller::Operator, codecs).await
    }

    /// The same for `caller`, who watches until its key is revoked.
    pub async fn watch_as(self: &Arc<Self>, caller: &Caller, codecs: &[Codec]) -> Result<Viewer, Refusal> {
        let place = self.owner.as_ref().map(|owner| owner.take(Held::Viewers, 1)).transpose()?;
        // Registered first, so that the graph finds its viewer when it starts.
        let mut viewer = self.outlet.watch(codecs);
        viewer.hold(place, caller.until());
        if self.state.lock().running.is_none() {
            let session = self.clone();
            tokio::task::spawn_blocking(move || session.start())
                .await
                .map_err(|e| Refusal::Failed(format!("starting session `{}`: {e}", self.id())))??;
        }
        Ok(viewer)
    }

    /// Refuses where its graph does not run and there is no room to start it: a publisher hears of it and not only its
    /// viewers. Blocks for as long as measuring the first price takes.
    pub fn has_room(&self) -> Result<(), Refusal> {
        match self.manager.upgrade() {
            Some(manager) if self.running().is_none() => manager.has_room(self.id(), &self.demand()),
            _ => Ok(()),
        }
    }

    /// Takes a place whatever the graph says: for the sources that the session starts itself.
    pub(super) fn inlet(&self, place: Slot, who: &str) -> Result<Inlet, Refusal> {
        if self.state.lock().ended {
            return Err(Refusal::Unknown(self.id().to_owned()));
        }
        match self.jitter_buffer.claim(place, who) {
            Ok(source) => Ok(Inlet::new(self.jitter_buffer.clone(), source)),
            Err(holder) => Err(Refusal::Conflict(format!(
                "session `{}` is being published to by {holder}; it takes one source at a time",
                self.id()
            ))),
        }
    }

    /// Names of the avatar's clips now: some may be added while it is shown.
    fn clips(&self) -> Vec<String> {
        let summary = self.avatar.as_ref().map(|avatar| avatar.summary());
        summary.map_or_else(Vec::new, |summary| summary.clips.into_iter().map(|(name, _)| name).collect())
    }

    /// Shows another clip of the avatar from the next frame on where the two fit together.
    pub fn play_clip(&self, clip: &str) -> Result<(), Refusal> {
        let clips = self.clips();
        if clips.is_empty() {
            return Err(Refusal::Conflict(format!("session `{}` shows no avatar", self.id())));
        }
        if !clips.iter().any(|known| known == clip) {
            let known = clips.join(", ");
            return Err(Refusal::Invalid(format!("clip: the avatar has no `{clip}`; it has {known}")));
        }
        match &self.state.lock().running {
            Some(running) => running.pacer.control.switch(clip),
            None => return Err(Refusal::NotReady(format!("session `{}` does not run; watch it first", self.id()))),
        }
        Ok(())
    }

    /// The running graph in Graphviz's language; `None` where none runs.
    pub fn dot(&self) -> Option<String> {
        let graph = self.state.lock().running.as_ref().map(|running| running.graph.clone())?;
        Some(graph.dot())
    }

    /// Starts the graph, unless it runs. Blocks for as long as that takes.
    pub(super) fn start(self: &Arc<Self>) -> Result<(), Refusal> {
        let _starting = self.starting.lock();
        {
            let state = self.state.lock();
            if state.ended {
                return Err(Refusal::Unknown(self.id().to_owned()));
            }
            if state.running.is_some() {
                return Ok(());
            }
        }
        let manager = self.manager.upgrade().ok_or_else(|| Refusal::Failed("the server is ending".into()))?;
        let running = self.start_any(&manager, |launch, fallback| self.build(launch, fallback))?;
        let mut state = self.state.lock();
        state.running = Some(running);
        (state.reason, state.again) = (None, None);
        drop(state);
        self.links.pull(&self.spec, || self.inlet(Slot::Main, "its pull"))
    }

    /// Begins to push the output to the URLs that it was created with.
    pub(super) fn push(&self) -> Result<(), Refusal> {
        self.links.push(&self.spec, &self.outlet)
    }

    /// `fallback` is the engine that stands ready beside its own.
    fn build(&self, launch: &str, fallback: Option<&str>) -> Result<Running, Refusal> {
        let failed = |e: crate::error::Failure| Refusal::Failed(format!("session `{}`: {e}", self.id()));
        let keeps_alpha = self.alpha() != Mode::Drop;
        let source = match &self.avatar {
            Some(avatar) => {
                let player = avatar::Player::showing(avatar.clone(), keeps_alpha).map_err(failed)?;
                PictureSource::Avatar(Box::new(player), avatar.picture)
            }
            None => PictureSource::Live,
        };
        let settings = self.manager.upgrade().map(|manager| manager.settings().clone()).unwrap_or_default();
        let second = self.second_speaker();
        let graph =
            RunningGraph::start(launch, &settings.encoder, keeps_alpha, &self.outlet, second.as_deref(), |lipsync| {
                // A graph of the user's may have turned it off as well.
                if !settings.watermark {
                    lipsync.set_property("watermark", false);
                }
                lipsync.set_property("sync-check", settings.sync_check.as_millis() as u32);
                lipsync.set_property("sync-correct", settings.sync_correct.as_secs() as u32);
                lipsync.set_property_from_value("fallback-engine", &fallback.to_value());
                let engine: String = lipsync.property("engine");
                if let Some(manager) = self.manager.upgrade() {
                    let own = Duration::from_millis(lipsync.property::<u32>("batch-timeout").into());
                    let most = manager.longest_wait(&engine, own);
                    lipsync.set_property("batch-timeout", most.as_millis() as u32);
                }
                // A bank belongs to the engine that it was gathered for, and to one person.
                let alone = self.demand().mouths == 1;
                let bank = self.avatar.as_ref().filter(|_| alone).and_then(|avatar| avatar.bank_for(&engine));
                if let Some(bank) = bank.and_then(|path| path.to_str()) {
                    lipsync.set_property("reference-bank", bank);
                }
            })
            .map_err(failed)?;
        let pacer = Pacer::start(
            self.id(),
            graph.clone(),
            self.jitter_buffer.clone(),
            pacer::Spoken { first: self.speech.clone(), second: self.second.clone() },
            source,
            self.service.voice,
        )
        .map_err(failed)?;
        let card = graph.is_on_card();
        Ok(Running { pacer, graph, since: Instant::now(), card })
    }

    /// Stops the graph; viewers and sources stay.
    fn stop(&self, reason: Option<String>) {
        let _starting = self.starting.lock();
        self.forget_engine(reason.is_none());
        if reason.is_none() {
            // Not for a restart after a failure: the source is not to blame, and its place is kept.
            self.links.stop_pull();
        }
        let running = {
            let mut state = self.state.lock();
            state.reason = reason;
            state.running.take()
        };
        if let Some(running) = running {
            let stats = running.graph.stats();
            let untouched = untouched::of(&stats.untouched);
            if let Some(sentence) = untouched::sentence(&untouched, running.graph.meter.frames()) {
                tracing::info!("session `{}`: {sentence}", self.id());
            }
            untouched::add(&mut self.before.untouched.lock(), untouched);
            for (counter, count) in [
                (&self.before.frames, running.graph.meter.frames()),
                (&self.before.held, running.pacer.control.held.load(Ordering::Relaxed)),
                (&self.before.dropped, running.graph.dropped.load(Ordering::Relaxed)),
                (&self.before.late, stats.frames.late),
                (&self.before.corrections, stats.check.corrections),
                (&self.before.ran_us, micros(running.since.elapsed())),
                (&self.before.gpu_us, if running.card { of_device(&stats) } else { 0 }),
            ] {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Ends the session for good.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.links.close();
        self.outlet.close();
        self.queues().for_each(|queue| _ = queue.interrupt());
        self.stop(None);
        self.settle();
        self.place.lock().take();
    }

    /// Whether a session that began with its publisher has neither publisher nor viewers, for as long as a graph waits
    /// for viewers: a publisher may come back.
    pub(super) fn is_left(&self) -> bool {
        let Some(manager) = self.manager.upgrade().filter(|_| self.spec.with_publisher) else { return false };
        let idle = self.spec.idle(manager.settings().idle);
        self.jitter_buffer.unheld().is_some_and(|since| since > idle)
            && self.outlet.unwatched().is_some_and(|since| since > idle)
    }

    /// What is due: a restart, an end for want of viewers, a beginning for a session that is always on.
    pub(super) fn look_after(self: &Arc<Self>) {
        let (failure, of_engine, changes, lasted, runs, again, ended) = {
            let state = self.state.lock();
            let running = state.running.as_ref();
            let failure = running.and_then(|r| r.pacer.control.failure.lock().clone().or_else(|| r.graph.failure()));
            let of_engine = running.is_some_and(|r| r.graph.engine_failed.load(Ordering::Relaxed));
            let changes = running.map(|r| std::mem::take(&mut *r.graph.sync_changes.lock())).unwrap_or_default();
            let lasted = running.map_or(Duration::ZERO, |r| r.since.elapsed());
            (failure, of_engine, changes, lasted, running.is_some(), state.again, state.ended)
        };
        if ended {
            return;
        }
        for change in changes {
            status::tell_sync(self.id(), change);
        }
        let Some(manager) = self.manager.upgrade() else { return };
        if let Some(failure) = failure {
            tracing::warn!("session `{}`: {failure}; it starts again", self.id());
            self.note_failure(&manager, of_engine, &failure);
            self.stop(Some(failure));
            let mut state = self.state.lock();
            state.restarts += 1;
            state.again = Some(Instant::now() + state.backoff.pause(lasted));
            return;
        }
        self.follow_engine(&manager);
        let watched = self.outlet.unwatched().is_none();
        if !runs {
            self.queues().for_each(|queue| queue.drop_unheard(manager.settings().speech_kept));
        }
        let idle = self.spec.idle(manager.settings().idle);
        if runs && !self.spec.always_on && self.outlet.unwatched().is_some_and(|since| since > idle) {
            tracing::info!("session `{}`: nobody watches, its graph stops", self.id());
            self.stop(None);
            if self.avatar.is_none() {
                self.jitter_buffer.forget_picture();
            }
        } else if !runs
            && (watched || self.spec.always_on)
            && again.is_none_or(|at| Instant::now() >= at)
            && let Err(refusal) = self.start()
        {
            let mut state = self.state.lock();
            state.again = Some(Instant::now() + state.backoff.pause(Duration::ZERO));
            state.reason = Some(refusal.to_string());
        }
    }

    pub fn status(&self) -> Status {
        let mut status = Status {
            id: self.spec.id.clone(),
            graph: self.spec.graph.clone(),
            avatar: self.avatar.as_ref().map(|avatar| avatar.name.clone()),
            clips: self.clips(),
            video: Some(self.service.video),
            voice: Some(self.service.voice),
            publishing: self.jitter_buffer.holds(Slot::Main),
            publishing_voice: self.jitter_buffer.holds(Slot::Voice),
            viewers: self.outlet.viewers(),
            node: self.manager.upgrade().and_then(|manager| manager.peers().map(|peers| peers.node().to_owned())),
            marks: if self.outlet.is_marked() { Mark::STATEMENTS.to_vec() } else { Vec::new() },
            speaking: self.speech.speaking(),
            speech_queued_ms: self.speech.queued().as_secs_f64() * 1e3,
            voice_b: self.second_status(None),
            frames: self.before.frames.load(Ordering::Relaxed),
            frames_held: self.before.held.load(Ordering::Relaxed),
            frames_late: self.before.late.load(Ordering::Relaxed),
            frames_untouched: self.before.untouched.lock().clone(),
            frames_dropped: self.jitter_buffer.dropped() + self.before.dropped.load(Ordering::Relaxed),
            skew_ppm: self.jitter_buffer.skew(),
            sync_corrections: self.before.corrections.load(Ordering::Relaxed),
            ..Status::default()
        };
        (status.pushes, status.pull) = self.links.status();
        (status.engine, status.engine_reason) = self.engine_status();
        let changed = self.state.lock().changed.clone();
        status.params = self.params(&changed);
        if status.params.get(LABEL).is_some_and(|label| !label.trim().is_empty()) {
            status.marks.push(Mark::Label);
        }
        let source = |place| {
            let sent = self.jitter_buffer.sent(place)?;
            Some(status::Source::new(sent, self.jitter_buffer.interval().filter(|_| place == Slot::Main)))
        };
        (status.source, status.voice_source) = (source(Slot::Main), source(Slot::Voice));
        // The graph goes on without its source: it shows the last picture.
        let fed = self.avatar.is_some() || status.publishing;
        let base = if self.service.voice == Voice::Source { Slot::Main } else { Slot::Voice };
        status.samples_missing = self.jitter_buffer.missing(base);
        status.av_offset_ms = 0.0 - self.jitter_buffer.sound_offset(base) as f64 / MS as f64;
        status.source_delay_ms = self.jitter_buffer.headroom(base) as f64 / MS as f64;
        let graph = {
            let state = self.state.lock();
            status.reason = state.reason.clone();
            status.restarts = state.restarts;
            status.flush_ms = state.flush.map(|flush| flush.as_secs_f64() * 1e3);
            status.phase = Some(match &state.running {
                Some(running) if running.pacer.control.showing.load(Ordering::Relaxed) && fed => Phase::Running,
                Some(_) => Phase::Waiting,
                None if state.again.is_some() => Phase::Restarting,
                None => Phase::Idle,
            });
            if let Some(running) = &state.running {
                let control = &running.pacer.control;
                let picture = self.picture();
                (status.width, status.height) = (picture.width, picture.height);
                status.uptime = running.since.elapsed().as_secs_f64();
                status.frames_held += control.held.load(Ordering::Relaxed);
                status.clip = Some(control.clip.lock().clone()).filter(|clip| !clip.is_empty());
                Some(running.graph.clone())
            } else {
                None
            }
        };
        let marked = match &graph {
            Some(graph) => graph.lipsync.property("watermark"),
            None => {
                let asked =
                    status.params.get("watermark").is_none_or(|asked| matches!(asked.as_str(), "true" | "yes" | "1"));
                asked && self.manager.upgrade().is_some_and(|manager| manager.settings().watermark)
            }
        };
        if marked {
            status.marks.push(Mark::Watermark);
        }
        if let Some(graph) = graph {
            status.face = graph.meter.faces() > 0;
            status.fps = graph.meter.fps(clock::now());
            status.frames += graph.meter.frames();
            status.frames_dropped += graph.dropped.load(Ordering::Relaxed);
            status.latency_ms = graph.meter.latency().as_secs_f64() * 1e3;
            status.interval_p99_ms = graph.meter.interval_p99().as_secs_f64() * 1e3;
            status.video_bitrate = graph.bit_rate();
            let stats = graph.stats();
            status.voice_b = self.second_status(stats.denoise_b.speaker.track);
            status::read_stats(&mut status, &stats);
        }
        status
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.outlet.close();
    }
}
