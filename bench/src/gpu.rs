//! Parity and speed of the networks that ship, on a device beside the CPU: `bench/gpu/run.sh` runs it.
//! Each network's figures are printed, and the report is written anew, as soon as they are there. With `--golden` it compares the
//! published families with what their programs computed instead.

mod golden;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use lipstream_engines::runtime::{
    Device, Input, Model, Options, Port, Precision, Tuning, library, survey, tensorrt::Build,
};
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Parity and speed of the networks that ship, on a device beside the CPU")]
struct Args {
    /// Folder of the shipped engines
    #[arg(long, default_value = "engines/models")]
    models: PathBuf,
    /// What is measured beside the CPU: cuda[:n], tensorrt[:n], whose engines are built in the first run of a batch, openvino or cpu
    #[arg(long, default_value = "cuda:0")]
    device: Device,
    /// Folder of golden files of the published families; then nothing else is done
    #[arg(long)]
    golden: Option<PathBuf>,
    /// Networks, or golden files, whose name holds this alone
    #[arg(long, default_value = "")]
    only: String,
    /// Precisions of that device
    #[arg(long, value_delimiter = ',', default_value = "fp32,tf32,fp16")]
    precisions: Vec<Precision>,
    /// How the CUDA provider is asked to work, one after another: `name=value` with commas, and semicolons between them
    #[arg(long, value_delimiter = ';', default_value = "apart=auto")]
    tunings: Vec<Tuning>,
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    batches: Vec<usize>,
    /// Seconds of one timing after its warm-up
    #[arg(long, default_value_t = 0.25)]
    seconds: f64,
    /// Threads of the CPU's second timing, besides 1
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Where the report goes
    #[arg(long)]
    json: PathBuf,
}

#[derive(Serialize, Default)]
struct Report {
    library: String,
    /// What works here, and why the rest does not.
    devices: Vec<(String, String)>,
    networks: Vec<Network>,
    golden: Vec<golden::Golden>,
}

impl Report {
    fn save(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| e.to_string())?;
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

#[derive(Serialize)]
struct Network {
    network: String,
    bytes: usize,
    /// Shapes at the smallest batch.
    inputs: Vec<(String, Vec<usize>)>,
    runs: Vec<Run>,
}

/// One network on one device at one precision.
#[derive(Serialize)]
struct Run {
    device: String,
    precision: String,
    tuning: String,
    threads: usize,
    /// Why there are no figures.
    refused: Option<String>,
    load_ms: f64,
    batches: Vec<Timing>,
}

#[derive(Serialize)]
struct Timing {
    batch: usize,
    /// The first run of this shape in the process.
    first_ms: f64,
    median_ms: f64,
    p95_ms: f64,
    runs: usize,
    /// Items a second at the median.
    per_second: f64,
    /// Against the CPU in fp32 on the same inputs; none for the CPU itself.
    difference: Option<Difference>,
}

/// The output that differs most.
#[derive(Serialize, Clone, Default)]
struct Difference {
    /// Largest absolute difference over the standard deviation of the reference; over its norm where that is one number.
    max_over_std: f64,
    /// Norm of the difference over the norm of the reference.
    relative: f64,
    /// Largest absolute difference.
    max: f64,
}

fn main() -> ExitCode {
    // SAFETY: the program has one thread yet.
    unsafe { lipstream_engines::runtime::library::send_nothing() };
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let mut report =
        Report { library: library::find().map_err(|e| e.to_string())?.display().to_string(), ..Report::default() };
    println!("library {}", report.library);
    for a in survey() {
        let state = a.works.clone().map_or_else(|cause| cause, |()| "works".into());
        println!("{}: {state}", a.device);
        report.devices.push((a.device.to_string(), state));
    }
    if let Some(folder) = &args.golden {
        let (mut saved, mut far) = (report.save(&args.json), Vec::new());
        golden::check(folder, args.device, &args.only, |found| {
            if !found.near {
                far.push(format!("{} in {}", found.checkpoint, found.weights));
            }
            report.golden.push(found);
            saved = saved.clone().and(report.save(&args.json));
        })
        .map_err(|e| e.to_string())?;
        saved?;
        return if far.is_empty() { Ok(()) } else { Err(format!("not as published: {}", far.join(", "))) };
    }
    for path in networks(&args.models)? {
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let name = path.strip_prefix(&args.models).unwrap_or(&path).display().to_string();
        if !name.contains(&args.only) {
            continue;
        }
        report.networks.push(network(&name, &bytes, args)?);
        report.save(&args.json)?;
    }
    Ok(())
}

/// The ONNX files below a folder, links left out: those are other engines' networks.
fn networks(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let list = |dir: &Path| -> Result<Vec<PathBuf>, String> {
        let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| !p.is_symlink()).collect();
        paths.sort();
        Ok(paths)
    };
    let mut found = Vec::new();
    for engine in list(dir)?.into_iter().filter(|p| p.is_dir()) {
        found.extend(list(&engine)?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "onnx")));
    }
    Ok(found)
}

fn network(name: &str, bytes: &[u8], args: &Args) -> Result<Network, String> {
    let cpu = |threads| Options { device: Device::Cpu, precision: Precision::Fp32, threads, ..Options::default() };
    let reference = Model::load(name, bytes, &cpu(1)).map_err(|e| e.to_string())?;
    let ports = &reference.signature().inputs;
    // A network without a free batch has one size alone.
    let batches = if ports.iter().any(|p| p.shape.first() == Some(&None)) { args.batches.clone() } else { vec![1] };
    let inputs: Vec<Vec<Filled>> = batches.iter().map(|b| ports.iter().map(|p| Filled::of(p, *b)).collect()).collect();
    let mut wanted = vec![cpu(1)];
    if args.threads > 1 {
        wanted.push(cpu(args.threads));
    }
    wanted.extend(args.precisions.iter().flat_map(|p| {
        let tuned = |t: &Tuning| Options {
            device: args.device,
            precision: *p,
            threads: 1,
            tuning: *t,
            build: Some(Build::default()),
        };
        args.tunings.iter().map(tuned).collect::<Vec<_>>()
    }));
    let mut network = Network {
        network: name.into(),
        bytes: bytes.len(),
        inputs: inputs.first().map_or_else(Vec::new, |i| i.iter().map(|f| (f.name.clone(), f.shape.clone())).collect()),
        runs: Vec::new(),
    };
    let shapes: Vec<String> = network.inputs.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
    println!("\n{name}: {}", shapes.join(", "));
    let mut expected = Vec::new();
    for i in &inputs {
        expected.push(reference.run(&given(i)).map_err(|e| e.to_string())?);
    }
    for options in wanted {
        let mut run = Run {
            device: options.device.to_string(),
            precision: options.precision.to_string(),
            tuning: options.tuning.to_string(),
            threads: options.threads,
            refused: None,
            load_ms: 0.0,
            batches: Vec::new(),
        };
        if let Err(cause) = measure(&mut run, name, bytes, &options, &batches, &inputs, &expected, args.seconds) {
            run.refused = Some(cause);
        }
        print(&run);
        network.runs.push(run);
    }
    Ok(network)
}

#[allow(clippy::too_many_arguments)] // One caller, which holds all of them.
fn measure(
    run: &mut Run,
    name: &str,
    bytes: &[u8],
    options: &Options,
    batches: &[usize],
    inputs: &[Vec<Filled>],
    expected: &[Vec<lipstream_engines::runtime::Tensor>],
    seconds: f64,
) -> Result<(), String> {
    let started = Instant::now();
    let model = Model::load(name, bytes, options).map_err(|e| e.to_string())?;
    run.load_ms = millis(started.elapsed());
    for ((batch, filled), reference) in batches.iter().zip(inputs).zip(expected) {
        let given = given(filled);
        let once = || {
            let started = Instant::now();
            let out = model.run(&given).map_err(|e| e.to_string())?;
            Ok::<_, String>((millis(started.elapsed()), out))
        };
        let (first_ms, outputs) = once()?;
        let same = options.device == Device::Cpu && options.threads == 1;
        let difference = if same { None } else { Some(difference(&outputs, reference)) };
        let limit = Duration::from_secs_f64(seconds);
        let warm = Instant::now();
        while warm.elapsed() < limit / 4 {
            once()?;
        }
        let (mut times, started) = (Vec::new(), Instant::now());
        while times.len() < 5 || started.elapsed() < limit {
            times.push(once()?.0);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        run.batches.push(Timing {
            batch: *batch,
            first_ms,
            median_ms: at(0.5),
            p95_ms: at(0.95),
            runs: times.len(),
            per_second: *batch as f64 * 1e3 / at(0.5),
            difference,
        });
    }
    Ok(())
}

fn print(run: &Run) {
    let head = format!("  {} {} {} thr", run.device, run.precision, run.threads);
    if let Some(cause) = &run.refused {
        println!("{head}: {cause}");
    }
    for t in &run.batches {
        let d = t.difference.as_ref();
        println!(
            "{head:26} batch {:2}: {:8.3} ms (p95 {:8.3}, first {:8.1}), {:9.0} a second{}",
            t.batch,
            t.median_ms,
            t.p95_ms,
            t.first_ms,
            t.per_second,
            d.map_or_else(String::new, |d| format!(", max/std {:.1e}, relative {:.1e}", d.max_over_std, d.relative)),
        );
    }
}

fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

fn difference(
    outputs: &[lipstream_engines::runtime::Tensor],
    reference: &[lipstream_engines::runtime::Tensor],
) -> Difference {
    let one = |(out, want): (&lipstream_engines::runtime::Tensor, &lipstream_engines::runtime::Tensor)| {
        // What is not a number, or missing, never passes.
        if out.shape != want.shape || out.data.iter().any(|v| !v.is_finite()) {
            return Difference { max_over_std: f64::MAX, relative: f64::MAX, max: f64::MAX };
        }
        let n = want.data.len().max(1) as f64;
        let mean = want.data.iter().map(|v| *v as f64).sum::<f64>() / n;
        let variance = want.data.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / n;
        let apart = || out.data.iter().zip(&want.data).map(|(a, b)| (*a as f64 - *b as f64).abs());
        let max = apart().fold(0.0, f64::max);
        let norm = want.data.iter().map(|v| (*v as f64).powi(2)).sum::<f64>().sqrt();
        let tiny = f64::MIN_POSITIVE;
        Difference {
            max_over_std: max / if want.data.len() > 1 { variance.sqrt() } else { norm }.max(tiny),
            relative: apart().map(|d| d * d).sum::<f64>().sqrt() / norm.max(tiny),
            max,
        }
    };
    let all = outputs.iter().zip(reference).map(one);
    all.max_by(|a, b| a.max_over_std.total_cmp(&b.max_over_std)).unwrap_or_default()
}

/// A port's contents.
struct Filled {
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// Free sizes of pictures, and of sequences: what the demo avatar's are near.
const PICTURE: usize = 128;
const SEQUENCE: usize = 32;
/// Tokens of a call of the streaming front-end, and those that it keeps: as a live stream calls it.
const TOKENS: usize = 2;
const KEPT: usize = 100;

/// What a free size of a port is here; `axis` is not the batch.
fn free(port: &Port, axis: usize) -> usize {
    match (port.name.as_str(), axis) {
        ("mel", _) => 2 * TOKENS + 3,
        ("mask", 2) => KEPT + TOKENS,
        ("mask" | "position", _) => TOKENS,
        _ if port.shape.len() == 4 => PICTURE,
        _ => SEQUENCE,
    }
}

impl Filled {
    /// Seeded by the port's name: waves and noise in 0..1 for pictures and times, normal numbers for the rest.
    fn of(port: &Port, batch: usize) -> Self {
        let size = |(axis, size): (usize, &Option<usize>)| {
            size.unwrap_or_else(|| if axis == 0 { batch } else { free(port, axis) })
        };
        let shape: Vec<usize> = port.shape.iter().enumerate().map(size).collect();
        let width = *shape.last().unwrap_or(&1);
        let count: usize = shape.iter().product();
        let mut state = port
            .name
            .bytes()
            .fold(0x9e37_79b9_7f4a_7c15 ^ count as u64, |s, b| (s ^ b as u64).wrapping_mul(0x100_0000_01b3));
        let mut uniform = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
        };
        let picture = |i: usize, noise: f32| {
            let (x, y) = ((i % width) as f32, (i / width) as f32);
            (0.5 + 0.2 * (x * 0.11).sin() + 0.2 * (y * 0.07).cos() + 0.2 * (noise - 0.5)).clamp(0.0, 1.0)
        };
        let data = (0..count)
            .map(|i| match shape.len() {
                4 => picture(i, uniform()),
                1 => uniform(),
                // A sum of uniform numbers: normal enough.
                _ => (0..12).map(|_| uniform()).sum::<f32>() - 6.0,
            })
            .collect();
        Self { name: port.name.clone(), shape, data }
    }
}

fn given(filled: &[Filled]) -> Vec<Input<'_>> {
    filled.iter().map(|f| Input { name: &f.name, shape: &f.shape, data: &f.data }).collect()
}
