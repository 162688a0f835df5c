//! A stream in the memory of a card, from a frame's region to the region that is pasted: when its first frame comes, how far it is from
//! the path on the processor, what each part of it takes, how many keep up with 25 frames a second. `bench/gpu/run.sh` runs it; without a
//! card the kernels run on the processor.
//!
//! - [`family`]: which engines; [`layout`], [`pixel`], [`weights`]: random ones in published layouts.
//! - [`film`]: what streams see; [`player`]: a stream.
//! - [`measure`], [`paced`]: what is measured; [`report`]: what is written.

mod family;
mod film;
mod layout;
mod measure;
mod paced;
mod pixel;
mod player;
mod report;
mod weights;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use clap::{Parser, ValueEnum};
use lipstream_engines::{
    Error, Result,
    cuda::{Card, Host, Memory, Pool},
    engine::{self, Engine, Sampling},
    import::onnx,
    manifest::Package,
    runtime::{Device, Options, tensorrt::Build},
};

use film::Film;
use layout::{NARROW, PUBLISHED};
use measure::{Bench, forms};
use report::{Apart, Report, Time};

#[derive(Parser)]
#[command(about = "A stream in the memory of a card, beside the path on the processor")]
struct Args {
    /// latentsync, musetalk, wav2lip or synctalk2d, of random weights; compact or compact-words, which ship
    #[arg(long, default_value = "latentsync")]
    family: String,
    /// Folder of an imported engine, in the place of random weights
    #[arg(long)]
    engine: Option<PathBuf>,
    /// Folder of the engines that ship
    #[arg(long, default_value = "engines/models")]
    models: PathBuf,
    /// How wide networks of random weights are
    #[arg(long, value_enum, default_value_t = Width::Narrow)]
    widths: Width,
    /// What random weights are imported as
    #[arg(long, value_enum, default_value_t = Weights::Fp32)]
    weights: Weights,
    /// Where random weights are written, ten times a gigabyte of the published widths; what is written is removed
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Keeps the engine of random weights there for the next run, and takes what one before kept
    #[arg(long)]
    keep: bool,
    /// cuda[:n]; tensorrt[:n], whose engines are built in the first run of a batch; cpu runs the kernels on the processor
    #[arg(long, default_value = "cuda:0")]
    device: Device,
    /// Seconds from which on nothing new is begun
    #[arg(long, default_value_t = 1e6)]
    seconds: f64,
    /// Height of the frames, 16 : 9
    #[arg(long, default_value_t = 1080)]
    height: usize,
    /// Work items, frames or clips, that are compared
    #[arg(long, default_value_t = 4)]
    clips: usize,
    /// Work items of a timing, after one that is not timed
    #[arg(long, default_value_t = 8)]
    timed: usize,
    /// Streams that share a batch
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    batches: Vec<usize>,
    /// Steps of denoising, each with no step guided, the last and all
    #[arg(long, value_delimiter = ',', default_value = "2,1,4")]
    steps: Vec<usize>,
    /// Streams at 25 frames a second, at most
    #[arg(long, default_value_t = 64)]
    most: usize,
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

#[derive(Clone, Copy, ValueEnum)]
enum Width {
    Narrow,
    Published,
}

#[derive(Clone, Copy, ValueEnum)]
enum Weights {
    Fp32,
    Fp16,
}

/// As it is written on the command line.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

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
    let base = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let home = base.join(match args.keep {
        true => format!("lipstream-stream-{}-{}-{}", args.family, word(args.widths), word(args.weights)),
        false => format!("lipstream-stream-{}", std::process::id()),
    });
    let done = prepared(args, &home);
    if !args.keep {
        // What is left of it is in the folder for what is not kept.
        let _ = std::fs::remove_dir_all(&home);
    }
    done
}

fn prepared(args: &Args, home: &Path) -> Result<()> {
    let (time, begun) = (Time::new(args.seconds), Instant::now());
    let widths = if let Width::Narrow = args.widths { &NARROW } else { &PUBLISHED };
    let precision = if let Weights::Fp32 = args.weights { onnx::Precision::Fp32 } else { onnx::Precision::Fp16 };
    let kept = home.join(weights::ENGINE);
    let folder = match &args.engine {
        Some(folder) => folder.clone(),
        None if args.keep && kept.join("engine.toml").exists() => kept,
        None => family::made(&args.family, home, &args.models, widths, precision)?,
    };
    let weights = match (&args.engine, folder.starts_with(home)) {
        (Some(_), _) => "given".into(),
        (None, true) => format!("random, {}, {}", word(args.widths), word(args.weights)),
        (None, false) => "as shipped".into(),
    };
    let package = Package::open(&folder)?;
    let memory: Arc<dyn Memory> = match args.device {
        Device::Cuda(number) | Device::TensorRt(number) => Arc::new(Pool::new(Card::open(number as usize)?)),
        Device::Cpu => Arc::new(Pool::new(Host::new()?)),
        other => return Err(Error::invalid(format!("{other} is none of cuda[:n], tensorrt[:n] and cpu"))),
    };
    let manifest = package.manifest();
    let mut report = Report {
        device: args.device.to_string(),
        engine: manifest.name.clone(),
        family: manifest.family.to_string(),
        weights,
        made_in: begun.elapsed().as_secs_f64(),
        ..Report::default()
    };
    println!("{}, {}, ready in {:.1} s", report.engine, report.weights, report.made_in);
    let height = args.height.clamp(64, 4320) / 2 * 2;
    let bench = Bench {
        package: &package,
        options: Options {
            device: args.device,
            build: matches!(args.device, Device::TensorRt(_)).then(Build::default),
            ..Options::default()
        },
        memory,
        film: Arc::new(Film::new((height * 16 / 9 / 2 * 2, height))),
        timed: args.timed,
    };
    if !args.tunings_alone {
        by_default(args, &bench, &time, &mut report)?;
    }
    for text in &args.tunings {
        if !time.left(0.0) {
            report.leave_out(format!("tuning `{text}`: no time"));
            continue;
        }
        bench.memory.trim();
        let tuned = bench.tune(text);
        println!(
            "{}: {}",
            if text.is_empty() { "as by default" } else { text.as_str() },
            tuned.refused.clone().unwrap_or_else(|| format!(
                "{:.1} frames a second, {:.3?} ms, started in {:.1} s",
                tuned.timing.as_ref().map_or(0.0, |timing| timing.per_second),
                tuned.batches,
                tuned.start
            ))
        );
        report.tuned.push(tuned);
        report.save(&args.json)?;
    }
    report.save(&args.json)?;
    if report.codes > 2 {
        return Err(Error::invalid(format!("pasted frames are {} of 255 from those of the processor", report.codes)));
    }
    match report.refused {
        Some(cause) => Err(Error::invalid(cause)),
        None => Ok(()),
    }
}

/// What says most first: what fails or has no time leaves the others their figures.
fn by_default(args: &Args, bench: &Bench, time: &Time, report: &mut Report) -> Result<()> {
    let (there, first) = bench.first()?;
    println!(
        "first frame: cold {:.2} s, of which loading {:.2} and warming up {:.2}; warm {:.3} s",
        first.cold, first.load, first.warm_up, first.warm
    );
    report.first = Some(first);
    report.save(&args.json)?;
    let forms = forms(&*there, &args.steps);
    timings(args, bench, &there, &forms[..1], time, report);
    report.save(&args.json)?;
    parity(args, bench, &there, report);
    report.save(&args.json)?;
    report.streams_in_time = paced::search(
        args.most,
        || time.left(0.4),
        |streams| {
            // Two seconds, and a clip at least.
            let items = (2.0 * player::RATE / there.spec().clip.hop as f64).ceil() as usize;
            let paced = paced::paced(&there, &bench.film, streams, items.min(2 * args.timed));
            let said =
                paced.failed.clone().unwrap_or_else(|| format!("{:.1} ms of {:.0} at most", paced.longest, paced.had));
            println!("{streams} streams at 25 frames a second: {said}{}", if paced.late { ", late" } else { "" });
            let good = !paced.late;
            report.paced.push(paced);
            good
        },
    );
    report.save(&args.json)?;
    timings(args, bench, &there, &forms[1..], time, report);
    report.save(&args.json)?;
    drop(there);
    if !time.left(0.1) {
        report.leave_out("the way through the processor's memory: no time");
        return Ok(());
    }
    bench.memory.trim();
    let through = family::through_host(bench.package, &bench.options)?;
    for streams in &args.batches {
        if !time.left(0.0) {
            report.leave_out(format!("{streams} streams through the processor's memory: no time"));
            continue;
        }
        match bench.time(&through, *streams, &Sampling::default()) {
            Ok(timing) => {
                said("through the processor's memory", &timing);
                report.through_host.push(timing);
            }
            Err(error) => report.leave_out(format!("{streams} streams through the processor's memory: {error}")),
        }
        report.save(&args.json)?;
    }
    Ok(())
}

fn timings(args: &Args, bench: &Bench, there: &Arc<dyn Engine>, forms: &[Sampling], time: &Time, report: &mut Report) {
    for sampling in forms {
        for streams in &args.batches {
            let what = format!("{streams} streams, {sampling:?}");
            if !time.left(0.15) {
                report.leave_out(format!("{what}: no time"));
                continue;
            }
            match bench.time(there, *streams, sampling) {
                Ok(timing) => {
                    said("there", &timing);
                    report.there.push(timing);
                }
                Err(error) => report.leave_out(format!("{what}: {error}")),
            }
        }
    }
}

fn said(way: &str, timing: &report::Timing) {
    let form = timing.steps.zip(timing.guided).map(|(steps, guided)| format!(", {steps} steps, guided {guided}"));
    println!(
        "{way}, {} streams{}: {:.1} frames a second, {:.1} by the networks; {:.3?} ms",
        timing.streams,
        form.unwrap_or_default(),
        timing.per_second,
        timing.networks_per_second,
        timing.milliseconds
    );
}

/// The path in the card's memory beside the processor's.
fn parity(args: &Args, bench: &Bench, there: &Arc<dyn Engine>, report: &mut Report) {
    let mut compared = || {
        let on_cpu = Options { device: Device::Cpu, ..Options::default() };
        let here = engine::load(bench.package, &on_cpu)?;
        let Apart { latents, codes, differing } = bench.compare(&here, there, args.clips)?;
        println!(
            "latents {latents:.1e} apart, frames {codes} of 255 at most, in {:.4} % of their values",
            differing * 100.0
        );
        (report.latents, report.codes, report.differing) = (latents, codes, differing);
        let through = family::through_host(bench.package, &bench.options)?;
        let plain = bench.compare(&here, &through, args.clips)?;
        println!("through the processor's memory: latents {:.1e} apart, frames {} of 255", plain.latents, plain.codes);
        report.host = Some(plain);
        Ok::<_, Error>(())
    };
    if let Err(error) = compared() {
        let cause = format!("the comparison with the processor: {error}");
        println!("{cause}");
        report.refused = Some(cause);
    }
}
