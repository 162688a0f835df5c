//! How many sessions the machine holds in real time.
//!
//! What a frame of an engine costs is measured once, by running the graph of an avatar at the pace of its pictures and counting
//! CPU time; that is the price of a session before it has run. As fast as it goes the same graph takes less of it for a frame
//! than a session does. What sessions take that run meanwhile is left out. Where the device is left to us, the plain CPU provider is measured beside what `auto` takes, and
//! sessions get the cheaper one: for a small engine that is often the CPU. Checking a session's sync is measured by itself, as it
//! depends on neither engine nor picture. While sessions run, the CPU time that the
//! process really takes is compared with the prices of those that run, and prices go up where reality is dearer. A session
//! is let in when the prices of all and the new one's fit into the part of the cores that the configuration gives. What other
//! programs take beside them is a warning, or a refusal where the configuration says so.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use gst::prelude::*;
use gstlipstream::synccheck;
use parking_lot::Mutex;

use super::{Capacity, Refusal};
use crate::{
    avatar,
    error::{Failure, Result},
    live::Picture,
    process,
};

/// Time between the frames of [`STANDARD`].
const PERIOD: Duration = Duration::from_millis(40);
/// What sessions that run beside each other cost more than one alone, for which a frame is measured: caches and threads.
const CONTENTION: f64 = 1.1;
/// Frames of the measurement, which come at their pace, and frames before it that warm all up, as fast as it goes.
const FRAMES: u64 = 25;
const WARM_UP: u64 = 15;
/// The avatar whose frames are used; it comes with the program and has the standard picture.
const DEMO: &str = "demo";
/// The picture that prices are told for.
pub const STANDARD: Picture = Picture { width: 1280, height: 720, fps: (25, 1) };
/// Parts of the way that prices go towards reality in a second: soon up, before the next session comes, and slowly down.
const RISE: f64 = 0.5;
const FALL: f64 = 0.1;
/// The same for the loads: a machine is busy with other things only when it stays so.
const SMOOTH: f64 = 0.25;

/// Longest time that frames of a measurement are waited for: an engine that is slower makes no live session.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a session asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    pub picture: Picture,
    pub engine: String,
    /// Steps of denoising; the engine's own number where nobody says.
    pub steps: Option<usize>,
}

impl Demand {
    /// A session of `engine` with the standard picture.
    pub fn standard(engine: &str) -> Self {
        Self { picture: STANDARD, engine: engine.to_owned(), steps: None }
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
    /// CPU seconds.
    frame: f64,
    device: String,
    /// Else it is a guess that lets one session fill the machine.
    measured: bool,
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
    /// Held while one is measured.
    measuring: Mutex<()>,
    load: Mutex<Load>,
}

impl CapacityMeter {
    /// `part` is the part of the cores that sessions may use.
    pub fn new(part: f64, count_others: bool, sync_check: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        Self {
            cores,
            part,
            count_others,
            sync_check,
            check: OnceLock::new(),
            prices: Mutex::default(),
            measuring: Mutex::default(),
            load: Mutex::new(Load { factor: 1.0, ..Load::default() }),
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
            let mut best: Option<Price> = None;
            for device in candidates {
                let beside = self.load.lock().own;
                match measure(avatars, engine, device, beside) {
                    Ok(frame) => {
                        tracing::info!(
                            "a frame of 1280x720 of the engine `{engine}` costs {:.1} ms of CPU time on device {device}",
                            frame * 1e3
                        );
                        if best.as_ref().is_none_or(|best| frame * CONTENTION < best.frame) {
                            best = Some(Price { frame: frame * CONTENTION, device: device.to_owned(), measured: true });
                        }
                    }
                    Err(failure) => tracing::warn!("the cost of a frame on device {device} is not known: {failure}"),
                }
            }
            // What cannot be measured here would not run as a session either, which then says why.
            let price = best.unwrap_or_else(|| Price { frame: self.all(), device: device.to_owned(), measured: false });
            let price = Arc::new(price);
            self.prices.lock().insert(engine.to_owned(), price.clone());
            price
        });
        price.device.clone()
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
        let Demand { picture, engine, .. } = demand;
        let pixels = (picture.width as f64 * picture.height as f64) / (STANDARD.width as f64 * STANDARD.height as f64);
        let frame = self.prices.lock().get(engine).map_or(self.all(), |price| price.frame);
        let check = self.check.get().copied().unwrap_or(0.0);
        (frame * pixels * demand.fps() + check) * self.load.lock().factor
    }

    /// Whether a session fits beside those that run; with a warning where it does, but other programs
    /// take what it needs.
    pub fn admit(&self, demand: &Demand, running: &[Demand]) -> Result<Option<String>, Refusal> {
        let (cost, taken) = (self.cost(demand), self.taken(running));
        let others = self.load.lock().others;
        let room = self.cores * self.part;
        // Where no price could be measured, a first session tells why.
        let untried = running.is_empty() && self.prices.lock().get(&demand.engine).is_some_and(|price| !price.measured);
        if untried || cost + taken + others <= room {
            return Ok(None);
        }
        if cost + taken <= room && !self.count_others {
            return Ok(Some(format!(
                "the machine is busy: other programs take {others:.2} of {:.2} cores, and {} sessions may take {:.2}; frames \
                 may come late or be dropped (frames_late, frames_dropped): end other programs, or lower sizes or rates",
                self.cores,
                running.len() + 1,
                cost + taken
            )));
        }
        let cure =
            if self.count_others && cost + taken <= room { ", or set sessions.count_others = false" } else { "" };
        Err(Refusal::Full(format!(
            "the machine is full: {} sessions take {taken:.2} of {room:.2} cores, other programs {others:.2}, and this one \
             would take {cost:.2}; end a session, lower its size or rate, or raise sessions.load{cure}",
            running.len()
        )))
    }

    /// Samples the load; call it about once a second with what runs.
    pub fn sample(&self, running: &[Demand]) {
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

    /// How much room is left beside what runs, in sessions of `engine` with the standard picture.
    pub fn report(&self, running: &[Demand], engine: &str) -> Capacity {
        let standard = Demand::standard(engine);
        let cost = self.cost(&standard);
        let taken = self.taken(running);
        let (own, others) = {
            let load = self.load.lock();
            (load.own, load.others)
        };
        let room = self.cores * self.part - taken - if self.count_others { others } else { 0.0 };
        Capacity {
            sessions: running.len(),
            cores: self.cores,
            cores_used: own,
            cores_per_session: cost,
            sessions_left: (room / cost).max(0.0) as usize,
            full: self.admit(&standard, running).err().map(|refusal| refusal.to_string()),
        }
    }

    fn taken(&self, running: &[Demand]) -> f64 {
        // An empty sum is -0.0.
        running.iter().map(|demand| self.cost(demand)).sum::<f64>() + 0.0
    }
}

/// The error that an element has told.
fn why(pipeline: &gst::Pipeline) -> Option<Failure> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(error) => Some(Failure::run(crate::media::describe(error))),
        _ => None,
    }
}

/// Runs the graph of an avatar with a voice and counts CPU seconds a frame, less those of the `beside` cores that the process
/// takes anyway.
fn measure(avatars: &avatar::Store, engine: &str, device: &str, beside: f64) -> Result<f64> {
    let frames = FRAMES + WARM_UP;
    let launch = format!(
        "lipsync name=ls idle=rest \
         appsrc name=video format=time caps=video/x-raw,format=I420,width={w},height={h},framerate=25/1 ! ls.video_sink \
         audiotestsrc wave=pink-noise volume=0.3 num-buffers={blocks} samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! ls.audio_sink \
         ls.video_src ! videoconvert ! x264enc tune=zerolatency speed-preset=superfast bitrate=2500 threads=1 sliced-threads=false \
             ! fakesink name=out sync=false async=false \
         ls.audio_src ! audioconvert ! avenc_aac aac-coder=fast ! fakesink sync=false async=false",
        w = STANDARD.width,
        h = STANDARD.height,
        blocks = frames * 2 + 20,
    );
    let pipeline = gst::parse::launch(&launch).map_err(|e| Failure::run(e.message()))?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| Failure::run("no pipeline"))?;
    let stop = scopeguard(&pipeline);
    let lipsync = pipeline.by_name("ls").ok_or_else(|| Failure::run("no lipsync"))?;
    lipsync.set_property("engine", engine);
    lipsync.set_property("device", device);
    let source = pipeline.by_name("video").and_then(|e| e.downcast::<gst_app::AppSrc>().ok());
    let source = source.ok_or_else(|| Failure::run("no appsrc"))?;
    source.set_property("block", true);
    source.set_property("max-buffers", 4_u64);
    let start = Arc::new(Mutex::new((0_u64, None)));
    let seen = start.clone();
    let out = pipeline.by_name("out").and_then(|e| e.static_pad("sink")).ok_or_else(|| Failure::run("no sink"))?;
    out.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let mut seen = seen.lock();
        seen.0 += 1;
        if seen.0 == WARM_UP {
            seen.1 = process::cpu_time().map(|cpu| (cpu, Instant::now()));
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).map_err(|refused| why(&pipeline).unwrap_or_else(|| refused.into()))?;
    let mut player = avatar::Player::open(avatars.get(DEMO).ok_or_else(|| Failure::run("there is no avatar `demo`"))?)?;
    let period = gst::ClockTime::from_nseconds(PERIOD.as_nanos() as u64);
    let begin = Instant::now();
    let mut due = begin;
    for n in 0..frames {
        if begin.elapsed() > PATIENCE {
            break;
        }
        if n > WARM_UP {
            due += PERIOD;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        } else {
            due = Instant::now();
        }
        let (frame, _) = player.next_frame()?;
        let mut frame = frame.copy();
        let own = frame.get_mut().expect("a copy has one owner");
        own.set_pts(period * n);
        own.set_duration(period);
        if source.push_buffer(frame).is_err() {
            break;
        }
    }
    let _ = source.end_of_stream();
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let ended = bus
        .timed_pop_filtered(gst::ClockTime::try_from(PATIENCE).ok(), &[gst::MessageType::Error, gst::MessageType::Eos]);
    if let Some(gst::MessageView::Error(error)) = ended.as_ref().map(|m| m.view()) {
        return Err(Failure::run(crate::media::describe(error)));
    }
    let (count, began) = *start.lock();
    let now = process::cpu_time();
    drop(stop);
    match (began, now) {
        (Some((began, since)), Some(now)) if count > WARM_UP => {
            let others = since.elapsed().as_secs_f64() * beside;
            let own = now.saturating_sub(began).as_secs_f64() - others;
            // What runs beside it may have taken less meanwhile; a frame that costs nothing would let everybody in.
            Ok(own.max(others / 10.0).max(1e-3) / (count - WARM_UP) as f64)
        }
        _ if begin.elapsed() > PATIENCE => Err(Failure::run(format!(
            "{count} frames in {:.0} s are too few for a live session",
            begin.elapsed().as_secs_f64()
        ))),
        _ => Err(Failure::run("no frame came through")),
    }
}

/// Stops the pipeline whichever way the measurement ends.
fn scopeguard(pipeline: &gst::Pipeline) -> impl Drop + use<> {
    struct Stop(gst::Pipeline);
    impl Drop for Stop {
        fn drop(&mut self) {
            // Going to NULL does not fail; what it frees is gone either way.
            let _ = self.0.set_state(gst::State::Null);
        }
    }
    Stop(pipeline.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priced(price: f64) -> CapacityMeter {
        let meter = CapacityMeter {
            cores: 2.0,
            part: 0.85,
            count_others: false,
            sync_check: Duration::ZERO,
            check: OnceLock::new(),
            prices: Mutex::default(),
            measuring: Mutex::default(),
            load: Mutex::default(),
        };
        meter.load.lock().factor = 1.0;
        meter.insert("compact", Price { frame: price, device: "cpu".into(), measured: true });
        meter
    }

    impl CapacityMeter {
        fn insert(&self, engine: &str, price: Price) {
            self.prices.lock().insert(engine.into(), price.into());
        }
    }

    fn demand(picture: Picture) -> Demand {
        Demand { picture, ..Demand::standard("compact") }
    }

    #[test]
    fn engines_have_prices_of_their_own() {
        let meter = priced(0.010);
        let dear = Demand::standard("dear");
        assert!(meter.admit(&dear, &[demand(STANDARD)]).is_err(), "before it is measured, it costs all there is");
        meter.insert("dear", Price { frame: 0.05, device: "cpu".into(), measured: true });
        assert_eq!(meter.admit(&dear, &[demand(STANDARD)]).unwrap(), None);
        let refusal = meter.admit(&dear, &[demand(STANDARD), dear.clone()]).unwrap_err().to_string();
        assert!(
            refusal.contains("2 sessions take 1.50 of 1.70 cores") && refusal.contains("would take 1.25"),
            "{refusal}"
        );
        assert_eq!(meter.report(&[dear], "compact").sessions_left, 1);
    }

    #[test]
    fn checking_the_sync_is_part_of_the_price() {
        let meter = priced(0.010);
        meter.check.set(0.03).unwrap();
        assert!((meter.cost(&demand(STANDARD)) - 0.28).abs() < 1e-9);
        let large = Picture { width: 2560, height: 1440, fps: (25, 1) };
        assert!((meter.cost(&demand(large)) - 1.03).abs() < 1e-9, "it does not grow with the picture");
        assert_eq!(meter.report(&vec![demand(STANDARD); 5], "compact").sessions_left, 1);
    }

    #[test]
    fn where_nothing_could_be_measured_one_session_is_tried() {
        let meter = CapacityMeter::new(0.85, true, Duration::ZERO);
        meter.insert("compact", Price { frame: meter.all(), device: "auto".into(), measured: false });
        meter.load.lock().others = 0.5;
        meter.admit(&demand(STANDARD), &[]).expect("it tells why it does not run");
        let refusal = meter.admit(&demand(STANDARD), &[demand(STANDARD)]).expect_err("the first may take all");
        assert!(refusal.to_string().contains("the machine is full: 1 sessions"), "{refusal}");
    }

    #[test]
    fn sessions_fit_until_their_prices_fill_the_part_of_the_cores() {
        let meter = priced(0.010);
        let mut running = Vec::new();
        while meter.admit(&demand(STANDARD), &running).is_ok() {
            running.push(demand(STANDARD));
        }
        // 1.7 cores at a quarter of a core each.
        assert_eq!(running.len(), 6);
        let small = Picture { width: 640, height: 360, fps: (25, 1) };
        assert!(meter.admit(&demand(small), &running).is_ok(), "a quarter of the pixels still fits");
        let refusal = meter.admit(&demand(STANDARD), &running).unwrap_err().to_string();
        assert!(refusal.contains("6 sessions take 1.50 of 1.70 cores") && refusal.contains("0.25"), "{refusal}");
        assert_eq!(meter.report(&running, "compact").sessions_left, 0);
        assert_eq!(meter.report(&running[1..], "compact").sessions_left, 1);
    }

    #[test]
    fn what_other_programs_take_is_a_warning_or_by_choice_a_refusal() {
        let mut meter = priced(0.010);
        assert_eq!(meter.admit(&demand(STANDARD), &[]).unwrap(), None);
        meter.load.lock().others = 1.95;
        let warning = meter.admit(&demand(STANDARD), &[]).unwrap().expect("a warning");
        assert!(warning.contains("other programs take 1.95 of 2.00 cores") && warning.contains("0.25"), "{warning}");
        assert_eq!((meter.report(&[], "compact").sessions_left, meter.report(&[], "compact").full), (6, None));
        let refusal = meter.admit(&demand(STANDARD), &vec![demand(STANDARD); 6]).unwrap_err().to_string();
        assert!(!refusal.contains("count_others"), "sessions fill it themselves: {refusal}");
        meter.count_others = true;
        let refusal = meter.admit(&demand(STANDARD), &[]).unwrap_err().to_string();
        assert!(
            refusal.contains("other programs 1.95") && refusal.contains("sessions.count_others = false"),
            "{refusal}"
        );
        assert_eq!(meter.report(&[], "compact").sessions_left, 0);
    }

    #[test]
    fn the_counters_of_the_kernel_are_read_and_grow() {
        let before = (process::cpu_time().unwrap(), process::busy_time().unwrap());
        let mut x = 0_u64;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(150) {
            x = std::hint::black_box(x.wrapping_mul(3) + 1);
        }
        assert!(process::cpu_time().unwrap() >= before.0 + Duration::from_millis(30));
        // What a nice program takes is not counted.
        let nice = rustix::process::nice(0).is_ok_and(|nice| nice > 0);
        assert!(nice || process::busy_time().unwrap() > before.1);
    }
}
