//! What a frame of an engine costs, by running the graph of an avatar with a voice at the pace of its pictures.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gstlipstream::sync::LipSyncStats;
use lipstream_engines::{
    engine::{self, Worker, WorkerStats},
    enhance,
    manifest::Package,
    runtime::{self, Device},
};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::{
    STANDARD,
    card::{CardPrice, Gauge, StageShare},
    enhancer::EnhancerPrice,
};
use crate::{
    avatar,
    error::{Failure, Result},
    process,
};

/// Time between the frames of [`STANDARD`].
const PERIOD: Duration = Duration::from_millis(40);
/// Frames of the measurement, which come at their pace, and frames before it that warm all up, as fast as it goes.
const FRAMES: u64 = 25;
const WARM_UP: u64 = 15;
/// The avatar whose frames are used; it comes with the program and has the standard picture.
const DEMO: &str = "demo";
/// Longest time that frames of a measurement are waited for: an engine that is slower makes no live session.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was measured of a frame.
pub(super) struct Measured {
    /// CPU seconds.
    pub frame: f64,
    /// Those of them that its mouth takes: what is heard of the voice, the engine's work and pasting.
    pub mouth: f64,
    /// Those of them that encoding its picture takes.
    pub encoding: f64,
    /// What it takes of the card that it ran on.
    pub card: Option<CardPrice>,
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
/// takes anyway; on a card its stages are tried in batches of all their sizes too.
pub(super) fn measure(
    avatars: &avatar::Store,
    engine: &str,
    device: &str,
    beside: f64,
    gauge: &Gauge,
) -> Result<Measured> {
    let frames = FRAMES + WARM_UP;
    let card = card_of(engine, device);
    let before = card.and_then(gauge);
    let launch = format!(
        "lipsync name=ls idle=rest \
         appsrc name=video format=time caps=video/x-raw,format=I420,width={w},height={h},framerate=25/1 ! ls.video_sink \
         audiotestsrc wave=pink-noise volume=0.3 num-buffers={blocks} samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! ls.audio_sink \
         ls.video_src ! videoconvert ! x264enc name=encoder tune=zerolatency speed-preset=superfast bitrate=2500 threads=1 sliced-threads=false \
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
    let encoder = pipeline.by_name("encoder").ok_or_else(|| Failure::run("no encoder"))?;
    let encoding = count_encoding(&encoder)?;
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
    let mouth = mouth(&LipSyncStats::from_structure(&lipsync.property::<gst::Structure>("stats")), count);
    // Before its worker ends with the graph.
    let card = card.map(|card| of_card(card, engine, count, before.map(|memory| memory.free), gauge)).transpose()?;
    drop(stop);
    match (began, now) {
        (Some((began, since)), Some(now)) if count > WARM_UP => {
            let others = since.elapsed().as_secs_f64() * beside;
            let own = now.saturating_sub(began).as_secs_f64() - others;
            // What runs beside it may have taken less meanwhile; a frame that costs nothing would let everybody in.
            let frame = own.max(others / 10.0).max(1e-3) / (count - WARM_UP) as f64;
            let encoding = encoding.load(Ordering::Relaxed) as f64 / 1e9 / count as f64;
            Ok(Measured { frame, mouth: mouth.min(frame), encoding: encoding.min(frame), card })
        }
        _ if begin.elapsed() > PATIENCE => Err(Failure::run(format!(
            "{count} frames in {:.0} s are too few for a live session",
            begin.elapsed().as_secs_f64()
        ))),
        _ => Err(Failure::run("no frame came through")),
    }
}

/// Nanoseconds of a processor that an encoder takes which works in the thread of its pictures and gives each before the next comes.
fn count_encoding(encoder: &gst::Element) -> Result<Arc<AtomicU64>> {
    let pad = |name| encoder.static_pad(name).ok_or_else(|| Failure::run("an encoder has two pads"));
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let (began, total) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begins = began.clone();
    pad("sink")?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        begins.store(now(), Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    let sum = total.clone();
    pad("src")?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let began = began.swap(u64::MAX, Ordering::Relaxed);
        sum.fetch_add(now().saturating_sub(began), Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    Ok(total)
}

/// Seconds that elements took for the mouth of each of `frames`.
fn mouth(stats: &LipSyncStats, frames: u64) -> f64 {
    let of_mouth = |name: &str| ["encode", "prepare", "denoise", "render", "blend", "mark"].contains(&name);
    let times = stats.times();
    let taken: u64 = times.iter().filter(|(_, name, _)| of_mouth(name)).map(|(_, _, times)| times.totals.sum_us).sum();
    taken as f64 / 1e6 / frames.max(1) as f64
}

/// What an evaluation of an enhancer takes, while others take `beside` cores.
pub(super) fn enhancer(name: &str, device: &str, beside: f64, gauge: &Gauge) -> Result<EnhancerPrice> {
    let failed = |error: lipstream_engines::Error| Failure::run(error.to_string());
    let options = runtime::Options { device: device.parse().map_err(failed)?, ..runtime::Options::default() };
    let card = runtime::taken(options.device, options.precision, usize::MAX).map_err(failed)?;
    let before = card_number(card).and_then(gauge);
    let network = enhance::Network::find(name, &options).map_err(failed)?;
    let picture = || vec![0.0; 3 * network.side() * network.side()];
    // The first run may compile it.
    network.run(picture(), 0.5).map_err(failed)?;
    let (cpu_before, begun) = (process::cpu_time(), Instant::now());
    network.run(picture(), 0.5).map_err(failed)?;
    let wall = begun.elapsed().as_secs_f64();
    let cpu =
        process::cpu_time().zip(cpu_before).map_or(wall, |(now, before)| now.saturating_sub(before).as_secs_f64());
    let card = card_number(network.device()).map(|card| {
        let taken = before.zip(gauge(card)).map_or(0, |(before, now)| before.free.saturating_sub(now.free));
        (card, taken)
    });
    Ok(EnhancerPrice { cpu: (cpu - wall * beside).max(cpu / 10.0), wall, card })
}

/// The card that an engine runs on where its device is named so, by CUDA's number; `None` on a processor.
fn card_of(engine: &str, device: &str) -> Option<u32> {
    let package = Package::find(engine).ok()?;
    card_number(runtime::taken(device.parse().ok()?, runtime::Precision::default(), package.largest() as usize).ok()?)
}

fn card_number(device: Device) -> Option<u32> {
    match device {
        Device::Cuda(card) | Device::TensorRt(card) => Some(card),
        Device::Auto | Device::Cpu | Device::OpenVino => None,
    }
}

/// What an engine whose worker has made `frames` frames takes of a card, of which so much memory was free before.
fn of_card(card: u32, engine: &str, frames: u64, free: Option<u64>, gauge: &Gauge) -> Result<CardPrice> {
    let failed = |error: &dyn std::fmt::Display| Failure::run(error.to_string());
    let name = Package::find(engine).map_err(|error| failed(&error))?.manifest().name.clone();
    let worker = Worker::all().into_iter().find(|worker| worker.engine().spec().name == name);
    let worker = worker.ok_or_else(|| Failure::run(format!("engine `{name}` has ended")))?;
    let counted = worker.stats();
    let one = gauge(card).map(|memory| memory.free);
    let begun = Instant::now();
    let costs = engine::profile(&**worker.engine(), &|| begun.elapsed()).map_err(|error| failed(&error))?;
    let all = gauge(card).map(|memory| memory.free);
    let price = CardPrice {
        card,
        stages: shares(costs, &counted, frames),
        steps: worker.engine().spec().steps.unwrap_or(0),
        engine: free.zip(all).map_or(0, |(before, after)| before.saturating_sub(after)),
        // What batches of more than one stream took besides, of each stream.
        session: one.zip(all).map_or(0, |(one, all)| one.saturating_sub(all)) / largest(&counted, &worker),
    };
    for stage in &price.stages {
        let batches: Vec<String> = stage
            .cost
            .batches
            .iter()
            .map(|(rows, time)| format!("{rows}: {:.1} ms", time.as_secs_f64() * 1e3))
            .collect();
        tracing::info!(
            "stage {} of engine `{name}` on cuda:{card} by rows: {}",
            stage.cost.kind.name(),
            batches.join(", ")
        );
    }
    Ok(price)
}

/// Stages as a frame passes them.
pub(super) fn shares(costs: Vec<engine::StageCost>, counted: &WorkerStats, frames: u64) -> Vec<StageShare> {
    let share = |(cost, stats): (engine::StageCost, &engine::StageStats)| StageShare {
        cost,
        items: stats.items as f64 / frames.max(1) as f64,
        rows: stats.rows as f64 / stats.items.max(1) as f64,
    };
    costs.into_iter().zip(&counted.stages).map(share).collect()
}

/// Streams of the largest batch of a stage.
fn largest(counted: &WorkerStats, worker: &Worker) -> u64 {
    let sizes = worker.engine().stages().iter().map(|stage| stage.sizes().last().copied().unwrap_or(1));
    let streams = sizes.zip(&counted.stages).map(|(size, stats)| {
        let rows = stats.rows as f64 / stats.items.max(1) as f64;
        (size as f64 / rows.max(1.0)) as u64
    });
    streams.max().unwrap_or(1).max(1)
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
