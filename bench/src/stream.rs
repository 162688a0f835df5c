//! A stream of LatentSync in the memory of a card, from a frame's region to the region that is pasted: how far it is from the path on
//! the processor, and what each part of it takes. `bench/gpu/run.sh` runs it; without a card the kernels run on the processor.

#[path = "../../engines/tests/common/narrow.rs"]
mod narrow;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use lipstream_engines::{
    Error, Result,
    cuda::{Card, Host, Memory, Pool},
    engine::{
        self, Actor, Asked, Engine, Identity, LATENT, Moment, Sampling, Scene, Shown, Work, complete,
        latent::LatentSync,
    },
    geometry::{Point, Rect, landmarks},
    image::{Format, FrameMut, FrameView, Matrix, Plane, PlaneMut, Range, paste},
    manifest::Package,
    runtime::{Device, Options, Precision, Tuning},
    tracker::Face,
};
use serde::Serialize;

#[derive(Parser)]
#[command(about = "A stream of LatentSync in the memory of a card, beside the path on the processor")]
struct Args {
    /// Folder of an engine of the family latentsync; without it one of a few channels and 64 pixels is made
    #[arg(long)]
    engine: Option<PathBuf>,
    /// cuda[:n]; cpu runs the kernels on the processor
    #[arg(long, default_value = "cuda:0")]
    device: Device,
    /// Clips that are compared
    #[arg(long, default_value_t = 4)]
    clips: usize,
    /// Clips that are timed, after as many as are compared
    #[arg(long, default_value_t = 8)]
    timed: usize,
    /// Streams that share a batch
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    batches: Vec<usize>,
    /// How the provider is asked to work, one after another, each `[PRECISION/]name=value,...` with semicolons between them
    #[arg(long, value_delimiter = ';')]
    tunings: Vec<String>,
    /// Nothing but the tunings: no comparison, and no timing as by default
    #[arg(long)]
    tunings_alone: bool,
    /// Where the report goes
    #[arg(long)]
    json: PathBuf,
}

/// One stream's clips with the provider asked to work so.
#[derive(Serialize)]
struct Tuned {
    tuning: String,
    /// Why there are no figures.
    refused: Option<String>,
    /// Loading and warming up, in seconds.
    start: f64,
    /// Bytes of the device that it took.
    memory: Option<u64>,
    /// Of a batch of each size of each stage, `STAGE ROWS`, in milliseconds.
    batches: BTreeMap<String, f64>,
    timing: Option<Timing>,
}

#[derive(Serialize, Default)]
struct Report {
    device: String,
    engine: String,
    /// Largest distance of latents; codes of 255 of pasted frames at most, and the part of their values that differ.
    latents: f64,
    codes: u8,
    differing: f64,
    /// In the memory of the card, and through the processor's on the same device.
    there: Vec<Timing>,
    through_host: Vec<Timing>,
    tuned: Vec<Tuned>,
}

/// Medians in ms of so many streams' clips in one batch.
#[derive(Serialize)]
struct Timing {
    streams: usize,
    frames: usize,
    /// By part: of a frame `ask`, `show`, `paste`; of a clip `close`, `parts`; of a batch its stages.
    milliseconds: BTreeMap<String, f64>,
    /// Frames a second, where nothing else runs.
    per_second: f64,
}

/// Pixels of a frame, NV12.
const SIZE: (usize, usize) = (1920, 1080);

fn main() -> ExitCode {
    // SAFETY: the program has one thread yet.
    unsafe { lipstream_engines::runtime::library::send_nothing() };
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let home = std::env::temp_dir().join(format!("lipstream-stream-{}", std::process::id()));
    let folder = args.engine.clone().unwrap_or_else(|| narrow::latentsync(&home, 64));
    let done = measured(args, &Package::open(&folder)?);
    if args.engine.is_none() {
        // What is left of it is in the folder for what is not kept.
        let _ = std::fs::remove_dir_all(&home);
    }
    done
}

fn measured(args: &Args, package: &Package) -> Result<()> {
    let memory: Arc<dyn Memory> = match args.device {
        Device::Cuda(number) => Arc::new(Pool::new(Card::open(number as usize)?)),
        Device::Cpu => Arc::new(Pool::new(Host::new()?)),
        other => return Err(Error::invalid(format!("{other} is neither cuda[:n] nor cpu"))),
    };
    let mut report =
        Report { device: args.device.to_string(), engine: package.manifest().name.clone(), ..Report::default() };
    if !args.tunings_alone {
        by_default(args, package, &memory, &mut report)?;
    }
    for tuning in &args.tunings {
        memory.trim();
        let tuned = tuned(args, package, &memory, tuning);
        println!(
            "{}: {}",
            if tuning.is_empty() { "as by default" } else { tuning.as_str() },
            tuned.refused.clone().unwrap_or_else(|| format!(
                "{:.1} frames a second, {:.3?} ms, started in {:.1} s",
                tuned.timing.as_ref().map_or(0.0, |timing| timing.per_second),
                tuned.batches,
                tuned.start
            ))
        );
        report.tuned.push(tuned);
        save(&args.json, &report)?;
    }
    if report.codes > 2 {
        return Err(Error::invalid(format!("pasted frames are {} of 255 from those of the processor", report.codes)));
    }
    Ok(())
}

/// The path in the card's memory beside the processor's, and the time of both ways through the networks.
fn by_default(args: &Args, package: &Package, memory: &Arc<dyn Memory>, report: &mut Report) -> Result<()> {
    let options = |device| Options { device, ..Options::default() };
    let here: Arc<dyn Engine> = engine::load(package, &options(Device::Cpu))?;
    let there: Arc<dyn Engine> = Arc::new(LatentSync::load_in(package, &options(args.device), memory.clone())?);
    there.stages().iter().try_for_each(|stage| stage.warm_up())?;
    let through: Arc<dyn Engine> = Arc::new(LatentSync::load_through_host(package, &options(args.device))?);
    // What the provider alone makes of the networks, to tell it from what the path does.
    let mut plain = Report::default();
    match compare(&here, &through, args.clips, &mut plain) {
        Ok(()) => println!(
            "through the processor's memory: latents {:.1e} apart, frames {} of 255",
            plain.latents, plain.codes
        ),
        Err(error) => println!("through the processor's memory: {error}"),
    }
    compare(&here, &there, args.clips, report)?;
    println!(
        "latents {:.1e} apart, frames {} of 255 at most, in {:.4} % of their values",
        report.latents,
        report.codes,
        report.differing * 100.0
    );
    save(&args.json, report)?;
    for streams in &args.batches {
        for (name, engine, out) in [
            ("there", &there, &mut report.there),
            ("through the processor's memory", &through, &mut report.through_host),
        ] {
            let timing = timed(engine, *streams, args.timed)?;
            println!(
                "{name}, {streams} streams: {:.1} frames a second, {:.3?} ms",
                timing.per_second, timing.milliseconds
            );
            out.push(timing);
        }
        save(&args.json, report)?;
    }
    Ok(())
}

fn tuned(args: &Args, package: &Package, memory: &Arc<dyn Memory>, text: &str) -> Tuned {
    let mut tuned =
        Tuned { tuning: text.into(), refused: None, start: 0.0, memory: None, batches: BTreeMap::new(), timing: None };
    let mut run = || {
        let (precision, tuning) = text.split_once('/').unwrap_or(("auto", text));
        let (precision, tuning): (Precision, Tuning) = (precision.parse()?, tuning.parse()?);
        let options = Options { device: args.device, precision, tuning, ..Options::default() };
        let (begun, free) = (Instant::now(), memory.available());
        let engine: Arc<dyn Engine> = Arc::new(LatentSync::load_in(package, &options, memory.clone())?);
        engine.stages().iter().try_for_each(|stage| stage.warm_up())?;
        tuned.start = begun.elapsed().as_secs_f64();
        for cost in engine::profile(&*engine, &|| begun.elapsed())? {
            let of =
                |(rows, time): &(usize, Duration)| (format!("{} {rows}", cost.kind.name()), time.as_secs_f64() * 1e3);
            tuned.batches.extend(cost.batches.iter().map(of));
        }
        tuned.timing = Some(timed(&engine, 1, args.timed)?);
        tuned.memory = free.zip(memory.available()).map(|(before, after)| before.saturating_sub(after));
        Ok::<_, Error>(())
    };
    tuned.refused = run().err().map(|error| error.to_string());
    tuned
}

fn save(path: &Path, report: &Report) -> Result<()> {
    let text = serde_json::to_vec_pretty(report).map_err(|error| Error::invalid(error.to_string()))?;
    std::fs::write(path, text).map_err(|error| Error::io(path, error))
}

/// A frame of waves.
struct Picture {
    luma: Vec<u8>,
    chroma: Vec<u8>,
}

impl Picture {
    fn new(frame: usize) -> Self {
        let value = |i: usize, slow: f32| {
            let (x, y) = ((i % SIZE.0) as f32 + frame as f32 * 0.7, (i / SIZE.0) as f32);
            (120.0 + 50.0 * (x * 0.05 * slow).sin() + 40.0 * (y * 0.03 - x * 0.01).cos()) as u8
        };
        Self {
            luma: (0..SIZE.0 * SIZE.1).map(|i| value(i, 1.0)).collect(),
            chroma: (0..SIZE.0 * SIZE.1 / 2).map(|i| value(i, 0.4)).collect(),
        }
    }

    fn view(&self) -> Result<FrameView<'_>> {
        let planes = [&self.luma, &self.chroma].map(|data| Plane { data, stride: SIZE.0 }).to_vec();
        FrameView::new(Format::Nv12, SIZE, Matrix::Bt709, Range::Limited, planes)
    }

    fn frame(&mut self) -> Result<FrameMut<'_>> {
        let planes = vec![
            PlaneMut { data: &mut self.luma, stride: SIZE.0 },
            PlaneMut { data: &mut self.chroma, stride: SIZE.0 },
        ];
        FrameMut::new(Format::Nv12, SIZE, Matrix::Bt709, Range::Limited, planes)
    }
}

/// A face of 400 pixels.
fn face(frame: usize) -> Face {
    let nose = Point::new(950.3 + 0.4 * frame as f32, 500.6);
    let mut points = vec![nose; landmarks::COUNT];
    for (k, i) in landmarks::JAW.enumerate() {
        let (sin, cos) = (std::f32::consts::PI * k as f32 / 20.0).sin_cos();
        points[i] = nose + Point::new(120.0 * cos, 160.0 * sin);
    }
    points[landmarks::BROW_RIGHT] = nose + Point::new(-82.0, -80.0);
    points[landmarks::BROW_LEFT] = nose + Point::new(82.0, -78.0);
    let rect = Rect::around(&points).unwrap_or_default();
    Face { track_id: 1, rect, points: points.into(), confidence: 0.99, yaw: 0.0, occluded: false, front: None }
}

/// Milliseconds of each part.
#[derive(Default)]
struct Clock(BTreeMap<String, Vec<f64>>);

impl Clock {
    fn time<T>(&mut self, part: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let done = work()?;
        self.0.entry(part.into()).or_default().push(begun.elapsed().as_secs_f64() * 1e3);
        Ok(done)
    }

    fn medians(mut self) -> BTreeMap<String, f64> {
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        self.0.iter_mut().map(|(part, times)| (part.clone(), median(times))).collect()
    }
}

struct Stream {
    engine: Arc<dyn Engine>,
    actor: Box<dyn Actor>,
    identity: Identity,
    frame: usize,
    pictures: Vec<Picture>,
}

impl Stream {
    fn new(engine: &Arc<dyn Engine>) -> Result<Self> {
        let actor = engine.clone().actor(5, &Sampling::default())?;
        Ok(Self { engine: engine.clone(), actor, identity: Arc::new(()), frame: 0, pictures: Vec::new() })
    }

    /// The work of the next clip.
    fn sent(&mut self, clock: &mut Clock) -> Result<Work> {
        self.pictures.clear();
        for _ in 0..self.engine.spec().clip.hop {
            let (face, picture, frame) = (face(self.frame), Picture::new(self.frame), self.frame);
            let number = |k: usize| ((k as f32 * 0.37).sin() + (frame as f32 * 0.21 + (k % 7) as f32).sin()) / 1.5;
            let audio: Vec<f32> = (0..self.engine.spec().window.len()).map(number).collect();
            let view = picture.view()?;
            let moment = Moment { face: &face, later: &[], identity: &self.identity, audio: &audio, frame: &view };
            let asked = clock.time("ask", || self.actor.ask(&moment))?;
            if !matches!(asked, Asked::Gathered) {
                return Err(Error::invalid("a frame of the bench has no face"));
            }
            self.frame += 1;
            self.pictures.push(picture);
        }
        clock.time("close", || self.actor.close())?.ok_or_else(|| Error::invalid("a clip without work"))
    }

    /// Frames of a finished clip with their mouths.
    fn pasted(&mut self, work: Work, clock: &mut Clock) -> Result<Vec<Picture>> {
        let parts = clock.time("parts", || self.actor.parts(work))?;
        let mut pictures = std::mem::take(&mut self.pictures);
        for (part, picture) in parts.into_iter().zip(&mut pictures) {
            let face = face(self.frame);
            let scene = Scene { face: &face, identity: &self.identity, gain: 1.0, time: None, gap: Duration::ZERO };
            let Shown::Patch(patch) = clock.time("show", || self.actor.show(part, &scene))? else {
                return Err(Error::invalid("a frame of the bench shows nothing"));
            };
            let mut frame = picture.frame()?;
            clock.time("paste", || paste(&mut frame, &patch))?;
        }
        Ok(pictures)
    }
}

fn latents(work: &Work) -> Result<Vec<f32>> {
    match work.get(LATENT) {
        Some(here) => Ok(here.data.clone()),
        None => work.there(LATENT)?.buffer.read(),
    }
}

fn compare(here: &Arc<dyn Engine>, there: &Arc<dyn Engine>, clips: usize, report: &mut Report) -> Result<()> {
    let (mut own, mut other, mut clock) = (Stream::new(here)?, Stream::new(there)?, Clock::default());
    let (mut values, mut differing) = (0usize, 0usize);
    for _ in 0..clips {
        let mut clip = |stream: &mut Stream| {
            let mut work = stream.sent(&mut clock)?;
            complete(&*stream.engine, &mut work)?;
            Ok::<_, Error>((latents(&work)?, stream.pasted(work, &mut clock)?))
        };
        let ((wanted, frames), (found, pasted)) = (clip(&mut own)?, clip(&mut other)?);
        let far = wanted.iter().zip(&found).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        report.latents = report.latents.max(far);
        for (a, b) in frames.iter().zip(&pasted) {
            for (a, b) in a.luma.iter().chain(&a.chroma).zip(b.luma.iter().chain(&b.chroma)) {
                report.codes = report.codes.max(a.abs_diff(*b));
                differing += usize::from(a != b);
                values += 1;
            }
        }
    }
    report.differing = differing as f64 / values.max(1) as f64;
    Ok(())
}

/// Clips of so many streams at a time.
fn timed(engine: &Arc<dyn Engine>, streams: usize, clips: usize) -> Result<Timing> {
    let mut all: Vec<Stream> = (0..streams).map(|_| Stream::new(engine)).collect::<Result<_>>()?;
    let mut clock = Clock::default();
    // The first two clips have other sizes, and what is made when it is first used.
    for clip in 0..clips + 2 {
        if clip == 2 {
            clock = Clock::default();
        }
        let mut works = all.iter_mut().map(|stream| stream.sent(&mut clock)).collect::<Result<Vec<_>>>()?;
        while let Some(pass) = works.first().and_then(Work::next) {
            let stage = &engine.stages()[pass.stage];
            clock.time(stage.kind().name(), || stage.run(&mut works))?;
            works.iter_mut().for_each(Work::advance);
        }
        for (stream, work) in all.iter_mut().zip(works) {
            stream.pasted(work, &mut clock)?;
        }
    }
    let (hop, steps) = (engine.spec().clip.hop, engine.spec().steps.unwrap_or(1));
    let frames = streams * hop;
    let milliseconds = clock.medians();
    let of = |part: &str| milliseconds.get(part).copied().unwrap_or(0.0);
    let stages = of("encode") + steps as f64 * of("step") + of("decode");
    let whole =
        stages + frames as f64 * (of("ask") + of("show") + of("paste")) + streams as f64 * (of("close") + of("parts"));
    Ok(Timing { streams, frames, per_second: frames as f64 / whole * 1e3, milliseconds })
}
