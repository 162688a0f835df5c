//! How many sessions the machine holds in real time.
//!
//! - [`measure`]: what a frame costs; [`card`]: what of it is a GPU's; [`enhancer`]: what enhancers add; [`admission`]: who is let in.
//!
//! What a frame of an engine costs is measured once, by running the graph of an avatar at the pace of its pictures and counting
//! CPU time; that is the price of a session before it has run. As fast as it goes the same graph takes less of it for a frame
//! than a session does. What sessions take that run meanwhile is left out. Where the device is left to us, the plain CPU provider is
//! measured beside what `auto` takes, and sessions get the cheaper one: for a small engine that is often the CPU. Checking a
//! session's sync is measured by itself, as it depends on neither engine nor picture. While sessions run, the CPU time that the
//! process really takes is compared with the prices of those that run, and prices go up where reality is dearer.
//!
//! An engine on a card has a price in the card's time too, by the stages that a frame passes and the sizes of their batches, which
//! grow with the sessions that share it, and one in the card's memory. A session is let in when the prices of all and the new one's
//! fit into the part of the cores and of the card's time that the configuration gives, and into the memory that is free. What is
//! filled most is the scarcest, and a refusal names it. Where memory ended all the same, fewer sessions are let in until none runs.
//! What other programs take of the cores beside them is a warning, or a refusal where the configuration says so.

mod admission;
mod card;
mod enhancer;
mod measure;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use gstlipstream::synccheck;
use lipstream_engines::{
    cuda,
    engine::{StageKind, Worker},
    manifest::Package,
};
use parking_lot::Mutex;

pub use self::enhancer::Enhancing;
use self::{
    card::{CardMemory, CardPrice, Gauge},
    enhancer::EnhancerPrice,
};
use super::Refusal;
use crate::{avatar, live::Picture, process};

/// What sessions that run beside each other cost more than one alone, for which a frame is measured: caches and threads.
const CONTENTION: f64 = 1.1;
/// The picture that prices are told for.
pub const STANDARD: Picture = Picture { width: 1280, height: 720, fps: (25, 1) };
/// Parts of the way that prices go towards reality in a second: soon up, before the next session comes, and slowly down.
const RISE: f64 = 0.5;
const FALL: f64 = 0.1;
/// The same for the loads: a machine is busy with other things only when it stays so.
const SMOOTH: f64 = 0.25;

/// What a session asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    pub picture: Picture,
    pub engine: String,
    /// Steps of denoising; the engine's own number where nobody says.
    pub steps: Option<usize>,
    /// Mouths that are made of a frame: one for each voice, and of `all` faces one for each.
    pub mouths: usize,
    /// Whether a matte of the picture's size is encoded below it.
    pub stacked: bool,
    /// What restores its faces.
    pub enhancer: Option<Enhancing>,
}

impl Demand {
    /// A session of `engine` with the standard picture.
    pub fn standard(engine: &str) -> Self {
        Self { picture: STANDARD, engine: engine.to_owned(), steps: None, mouths: 1, stacked: false, enhancer: None }
    }

    /// Frames a second.
    pub fn fps(&self) -> f64 {
        let (frames, seconds) = self.picture.fps;
        let fps = if frames == 0 { 25.0 } else { f64::from(frames) / f64::from(seconds.max(1)) };
        fps.min(120.0)
    }
}

/// What a frame costs, and on which device that is.
struct Price {
    /// Of the engine, as its manifest has it.
    name: String,
    /// CPU seconds, with one mouth.
    frame: f64,
    /// CPU seconds of each mouth more.
    mouth: f64,
    /// Those of `frame` that encoding it takes.
    encoding: f64,
    device: String,
    card: Option<CardPrice>,
    /// Why it is not measured.
    failure: Option<String>,
    /// Else it is a guess that lets one session fill the machine.
    measured: bool,
}

/// What an engine has shown while it ran.
#[derive(Clone, Debug, Default, PartialEq)]
struct Learnt {
    /// Most items of a batch, of stages at which memory ended beyond.
    most: Vec<(StageKind, usize)>,
    /// Items that found no memory at all so far.
    exhausted: u64,
    /// Most sessions, since that many found none.
    sessions: Option<usize>,
}

#[derive(Default)]
struct Load {
    last: Option<(Instant, Duration, Duration)>,
    /// CPU seconds a second of this process and of the others.
    own: f64,
    others: f64,
    /// Reality over price, at least 1.
    factor: f64,
}

/// See the module.
pub struct CapacityMeter {
    cores: f64,
    part: f64,
    /// Whether the load of other programs refuses sessions.
    count_others: bool,
    /// Time from one check of a session's sync to the next, zero for none, and the cores that it takes, once measured.
    sync_check: Duration,
    check: OnceLock<f64>,
    /// Prices by engine.
    prices: Mutex<HashMap<String, Arc<Price>>>,
    /// By name.
    enhancers: Mutex<HashMap<String, EnhancerPrice>>,
    /// Held while one is measured.
    measuring: Mutex<()>,
    load: Mutex<Load>,
    /// By engine.
    learnt: Mutex<HashMap<String, Learnt>>,
    gauge: Box<Gauge>,
    /// How long a batch of an engine on a card waits at most for those of other sessions.
    batch_timeout: Duration,
    /// Engines whose batches wait as a graph says.
    waits: Mutex<HashSet<String>>,
}

impl CapacityMeter {
    /// `part` is the part of the cores, and of a card's time, that sessions may use.
    pub fn new(part: f64, count_others: bool, sync_check: Duration, batch_timeout: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        let gauge = |card: u32| cuda::memory_of(card).map(|(free, total)| CardMemory { free, total });
        Self {
            cores,
            part,
            count_others,
            sync_check,
            check: OnceLock::new(),
            prices: Mutex::default(),
            enhancers: Mutex::default(),
            measuring: Mutex::default(),
            load: Mutex::new(Load { factor: 1.0, ..Load::default() }),
            learnt: Mutex::default(),
            gauge: Box::new(gauge),
            batch_timeout,
            waits: Mutex::default(),
        }
    }

    /// Measures the cost of a frame of `engine` on the first call, which takes one to four seconds, more of a slow engine. Before
    /// it a session costs all there is. Returns the device that its sessions should use where `device` is `auto`.
    pub fn calibrate(&self, avatars: &avatar::Store, engine: &str, device: &str) -> String {
        self.check.get_or_init(|| self.measure_check());
        let known = || self.prices.lock().get(engine).cloned();
        let price = known().unwrap_or_else(|| {
            let _measuring = self.measuring.lock();
            if let Some(price) = known() {
                return price;
            }
            let candidates = if device == "auto" { vec!["cpu", "auto"] } else { vec![device] };
            let (mut best, mut failed): (Option<Price>, _) = (None, None);
            for device in candidates {
                let beside = self.load.lock().own;
                match measure::measure(avatars, engine, device, beside, &*self.gauge) {
                    Ok(measure::Measured { frame, mouth, encoding, card }) => {
                        tracing::info!(
                            "a frame of 1280x720 of the engine `{engine}` costs {:.1} ms of CPU time on device {device}, {:.1} of them \
                             its mouth, {:.1} encoding it",
                            frame * 1e3,
                            mouth * 1e3,
                            encoding * 1e3
                        );
                        let [frame, mouth, encoding] = [frame, mouth, encoding].map(|seconds| seconds * CONTENTION);
                        if best.as_ref().is_none_or(|best| frame < best.frame) {
                            let name = name_of(engine);
                            let device = device.to_owned();
                            best =
                                Some(Price { name, frame, mouth, encoding, device, card, failure: None, measured: true });
                        }
                    }
                    Err(failure) => {
                        tracing::warn!("the cost of a frame on device {device} is not known: {failure}");
                        failed = Some(failure.to_string());
                    }
                }
            }
            // What cannot be measured here would not run as a session either, which then says why.
            let price = best.unwrap_or_else(|| Price {
                name: name_of(engine),
                frame: self.all(),
                mouth: self.all(),
                encoding: 0.0,
                device: device.to_owned(),
                card: None,
                failure: failed,
                measured: false,
            });
            let price = Arc::new(price);
            self.prices.lock().insert(engine.to_owned(), price.clone());
            price
        });
        price.device.clone()
    }

    /// Refuses an engine that has made no frames when its price was to be measured, and forgets that, so that it is tried anew.
    pub fn check_measured(&self, engine: &str) -> Result<(), Refusal> {
        let mut prices = self.prices.lock();
        if prices.get(engine).is_none_or(|price| price.measured) {
            return Ok(());
        }
        let cause = prices.remove(engine).and_then(|price| price.failure.clone()).unwrap_or_default();
        Err(Refusal::Invalid(format!("engine `{engine}` makes no frames here: {cause}")))
    }

    /// Cores that a session's sync check takes.
    fn measure_check(&self) -> f64 {
        if self.sync_check.is_zero() {
            return 0.0;
        }
        match synccheck::cost(self.sync_check) {
            Ok(cores) => {
                tracing::info!("checking the sync of a session costs {:.1} ms of CPU time a second", cores * 1e3);
                cores * CONTENTION
            }
            Err(error) => {
                tracing::warn!("what checking the sync of a session costs is not known: {error}");
                0.0
            }
        }
    }

    /// A price of a frame that makes one session fill the machine.
    fn all(&self) -> f64 {
        self.cores * self.part / 25.0
    }

    /// Cores that a session takes.
    pub fn cost(&self, demand: &Demand) -> f64 {
        let Demand { picture, engine, mouths, .. } = demand;
        let pixels = (picture.width as f64 * picture.height as f64) / (STANDARD.width as f64 * STANDARD.height as f64);
        let [frame, mouth, encoding] = self
            .prices
            .lock()
            .get(engine)
            .map_or([self.all(), 0.0, 0.0], |price| [price.frame, price.mouth, price.encoding]);
        let check = self.check.get().copied().unwrap_or(0.0);
        // Networks work on crops of one size, whatever the picture's is.
        let more = mouth * mouths.saturating_sub(1) as f64 * pixels.max(1.0);
        let more = more + self.enhancing(demand);
        let frame = if demand.stacked { frame + encoding } else { frame };
        ((frame * pixels + more) * demand.fps() + check) * self.load.lock().factor
    }

    /// Takes what a worker says of the memory of its engine, of which so many sessions run.
    fn learn(&self, engine: &str, exhausted: u64, most: Vec<(StageKind, usize)>, sessions: usize) {
        let mut all = self.learnt.lock();
        if sessions == 0 {
            // What is loaded anew may find more.
            all.remove(engine);
            return;
        }
        let known = all.entry(engine.to_owned()).or_default();
        if exhausted > known.exhausted {
            let fewer = (sessions - 1).max(1);
            known.sessions = Some(known.sessions.map_or(fewer, |most| most.min(fewer)));
            tracing::warn!(
                "memory ended with {sessions} sessions of engine `{engine}`: {fewer} are let in until none of it runs"
            );
        }
        (known.exhausted, known.most) = (exhausted, most);
    }

    /// Reads what workers say, and lets their batches wait as the load of their card asks for.
    fn follow_workers(&self, running: &[Demand]) {
        let workers = Worker::all();
        let engines: Vec<(String, Arc<Price>)> =
            self.prices.lock().iter().map(|(engine, price)| (engine.clone(), price.clone())).collect();
        for (engine, price) in engines {
            let sessions = running.iter().filter(|demand| demand.engine == engine).count();
            for worker in workers.iter().filter(|worker| worker.engine().spec().name == price.name) {
                let stats = worker.stats();
                let most = stats.stages.iter().filter_map(|stage| Some((stage.kind, stage.most?))).collect();
                self.learn(&engine, stats.exhausted, most, sessions);
                if !self.waits.lock().contains(&engine)
                    && let Some(alone) = self.alone(&engine, running)
                {
                    worker.set_batch_timeout(card::window(alone, self.batch_timeout));
                }
            }
            if sessions == 0 {
                self.learn(&engine, 0, Vec::new(), 0);
            }
        }
    }

    /// What sessions would take of the time of an engine's card if none shared a batch; `None` where it has none.
    fn alone(&self, engine: &str, running: &[Demand]) -> Option<f64> {
        let prices = self.prices.lock();
        let card = prices.get(engine)?.card.as_ref()?.card;
        let of = |demand: &Demand| {
            let price = prices.get(&demand.engine)?.card.as_ref().filter(|price| price.card == card)?;
            Some(price.frame(1, demand.steps, &[]) * demand.fps() * demand.mouths as f64)
        };
        Some(running.iter().filter_map(of).sum::<f64>() + 0.0)
    }

    /// How long batches of an engine wait at most for those of other sessions: nothing on a processor, where a larger batch is no
    /// cheaper. What a graph says of its `own` stays as it is.
    pub fn longest_wait(&self, engine: &str, own: Duration) -> Duration {
        if !own.is_zero() {
            self.waits.lock().insert(engine.to_owned());
            return own;
        }
        let on_card = self.prices.lock().get(engine).is_some_and(|price| price.card.is_some());
        if on_card { self.batch_timeout } else { Duration::ZERO }
    }

    /// Samples the load; call it about once a second with what runs.
    pub fn sample(&self, running: &[Demand]) {
        self.follow_workers(running);
        let (Some(own), Some(all)) = (process::cpu_time(), process::busy_time()) else { return };
        let now = Instant::now();
        let taken = self.taken(running);
        let mut load = self.load.lock();
        let Some((then, own_before, all_before)) = load.last.replace((now, own, all)) else { return };
        let passed = (now - then).as_secs_f64().max(0.05);
        let own = (own.saturating_sub(own_before)).as_secs_f64() / passed;
        let all = (all.saturating_sub(all_before)).as_secs_f64() / passed;
        load.own += (own - load.own) * SMOOTH;
        load.others += ((all - own).max(0.0) - load.others) * SMOOTH;
        if taken > 0.0 {
            // Idle sessions are cheaper than their price, and may speak at any moment: prices only go up by it.
            let real = load.factor * load.own / taken;
            let follow = if real > load.factor { RISE } else { FALL };
            load.factor = (load.factor + (real - load.factor) * follow).clamp(1.0, 4.0);
        }
    }

    fn taken(&self, running: &[Demand]) -> f64 {
        // An empty sum is -0.0.
        running.iter().map(|demand| self.cost(demand)).sum::<f64>() + 0.0
    }
}

/// The name of an engine that may be named by its folder.
fn name_of(engine: &str) -> String {
    Package::find(engine).map_or_else(|_| engine.to_owned(), |package| package.manifest().name.clone())
}

#[cfg(test)]
mod tests;
