//! `lipstream-bench`: how fast the whole graph and each of its stages are on this machine, as JSON and as a table.
//!
//! Each measurement of a device is `lipstream render` in a process of its own (decode, lip-sync, x264 ultrafast, mux),
//! so that the peak memory is that device's and nothing is warm that a user would find cold. The same graph without
//! lip-sync says how much of the time is decoding and encoding.

mod baseline;
mod machine;
mod render;
mod table;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use lipstream_engines::{manifest::Package, runtime};
use serde::Serialize;

/// Throughput of Lipstream on this machine
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[arg(long, default_value = "demo/avatar.mp4")]
    video: PathBuf,
    #[arg(long, default_value = "demo/speech.flac")]
    audio: PathBuf,
    /// Engine by name or folder
    #[arg(long, default_value = "compact-words")]
    engine: String,
    /// Devices to measure [default: each that works here]
    #[arg(long, value_delimiter = ',')]
    device: Vec<runtime::Device>,
    /// Renders of each device
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// Where the JSON goes [default: standard output]
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    machine: machine::Machine,
    video: PathBuf,
    audio: PathBuf,
    engine: String,
    gflop_per_frame: Gflop,
    baseline: baseline::Baseline,
    devices: Vec<render::Measured>,
}

/// Cost of one frame as the manifests state it.
#[derive(Serialize)]
struct Gflop {
    tracker: f32,
    engine: f32,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("lipstream-bench: {cause}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    gst::init().map_err(|e| e.to_string())?;
    let engine = Package::find(&arguments.engine).map_err(|e| e.to_string())?;
    let tracker = Package::find("tracker").map_err(|e| e.to_string())?;
    let devices = if arguments.device.is_empty() {
        runtime::survey().iter().filter(|a| a.works.is_ok()).map(|a| a.device).collect()
    } else {
        arguments.device.clone()
    };
    let report = Report {
        machine: machine::Machine::here(),
        video: arguments.video.clone(),
        audio: arguments.audio.clone(),
        engine: engine.manifest().name.clone(),
        gflop_per_frame: Gflop {
            tracker: tracker.manifest().frame_gflop(None),
            engine: engine.manifest().frame_gflop(None),
        },
        baseline: baseline::measure(&arguments.video)?,
        devices: devices.into_iter().map(|d| render::measure(arguments, d)).collect::<Result<_, _>>()?,
    };
    eprint!("{}", table::of(&report));
    let json = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
    match &arguments.json {
        Some(path) => {
            fs::write(path, json + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
            eprintln!("\n{}", path.display());
        }
        None => println!("{json}"),
    }
    Ok(())
}
