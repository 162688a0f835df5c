//! One network, run once for each line of the standard input, so that a script can take turns between it and another program.

use std::{
    fs,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use lipstream_engines::{
    engine::Noise,
    manifest::Package,
    runtime::{Device, Input, Model, Options, Precision, Tensor},
};
use procfs::process::Process;
use serde::Serialize;

#[derive(Args)]
pub struct Arguments {
    /// Engine by name or folder
    #[arg(long)]
    engine: String,
    /// Which of its networks
    #[arg(long)]
    part: String,
    #[arg(long, default_value = "cpu")]
    device: Device,
    #[arg(long, default_value = "fp32")]
    precision: Precision,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Size of a dimension that the network leaves open; 1 where nobody says
    #[arg(long = "size", value_name = "NAME=N", value_parser = size)]
    sizes: Vec<(String, usize)>,
    /// Numbers of an input, f32 as they lie in memory, in the place of noise
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = file)]
    inputs: Vec<(String, PathBuf)>,
    /// Where the numbers of the outputs go, f32, one output after the other
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("is not NAME=FILE")?;
    Ok((name.into(), path.into()))
}

fn size(text: &str) -> Result<(String, usize), String> {
    let (name, number) = text.split_once('=').ok_or("is not NAME=N")?;
    match number.parse() {
        Ok(n) if n > 0 => Ok((name.into(), n)),
        _ => Err(format!("`{number}` is no size")),
    }
}

/// The first line of the answer.
#[derive(Serialize)]
struct Loaded {
    /// Until the first run had ended.
    load_ms: f64,
    device: String,
    inputs: Vec<(String, Vec<usize>)>,
    outputs: Vec<Vec<usize>>,
}

/// Loads the network, runs it once and says so; then for each line that comes the milliseconds of a run: on the clock, and of
/// the processor in all threads together.
pub fn serve(arguments: &Arguments) -> Result<(), String> {
    let started = Instant::now();
    let package = Package::find(&arguments.engine).map_err(|e| e.to_string())?;
    let (device, precision, threads) = (arguments.device, arguments.precision, arguments.threads.max(1));
    let options = Options { device, precision, threads, ..Options::default() };
    let model = package.network(&arguments.part, &options).map_err(|e| e.to_string())?;
    let sized = |name: &str| arguments.sizes.iter().find(|(known, _)| known == name).map_or(1, |(_, n)| *n);
    let mut noise = Noise::new(0, 0.0, 0.5);
    let mut inputs = model.example(sized, || noise.normal()).map_err(|e| e.to_string())?;
    for (name, path) in &arguments.inputs {
        let input = inputs.iter_mut().find(|(known, _)| known == name);
        let (_, tensor) = input.ok_or_else(|| format!("`{}` has no input `{name}`", arguments.part))?;
        tensor.data = numbers(path, tensor.data.len())?;
    }
    let outputs = run(&model, &inputs)?;
    if let Some(path) = &arguments.output {
        let bytes: Vec<u8> = outputs.iter().flat_map(|t| &t.data).flat_map(|v| v.to_le_bytes()).collect();
        fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let loaded = Loaded {
        load_ms: started.elapsed().as_secs_f64() * 1e3,
        device: model.device().to_string(),
        inputs: inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect(),
        outputs: outputs.into_iter().map(|tensor| tensor.shape).collect(),
    };
    say(&serde_json::to_string(&loaded).map_err(|e| e.to_string())?)?;
    for line in std::io::stdin().lock().lines() {
        line.map_err(|e| e.to_string())?;
        let (started, used) = (Instant::now(), processor()?);
        run(&model, &inputs)?;
        let wall = started.elapsed().as_secs_f64() * 1e3;
        say(&format!("{wall:.3} {:.3}", processor()? - used))?;
    }
    Ok(())
}

fn numbers(path: &Path, count: usize) -> Result<Vec<f32>, String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if bytes.len() != 4 * count {
        return Err(format!("{}: has {} bytes where {count} numbers are wanted", path.display(), bytes.len()));
    }
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn run(model: &Model, inputs: &[(String, Tensor)]) -> Result<Vec<Tensor>, String> {
    let given: Vec<Input> = inputs.iter().map(|(name, t)| Input { name, shape: &t.shape, data: &t.data }).collect();
    model.run(&given).map_err(|e| e.to_string())
}

/// Milliseconds that this process has had of the processor, in steps of the kernel's clock.
pub fn processor() -> Result<f64, String> {
    let stat = Process::myself().and_then(|me| me.stat()).map_err(|e| e.to_string())?;
    Ok((stat.utime + stat.stime) as f64 * 1e3 / procfs::ticks_per_second() as f64)
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| e.to_string())
}
