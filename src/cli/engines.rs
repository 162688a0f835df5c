//! `lipstream import` and `lipstream engines`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use lipstream_engines::{
    import::onnx,
    manifest::{Family, Features},
    runtime::{Device, Precision},
};

use crate::{engines, error::Result};

#[derive(Args)]
pub(super) struct Import {
    /// wav2lip, synctalk2d, latentsync, musetalk, enhancer or occlusion [default: what the files are]
    #[arg(value_parser = family)]
    family: Option<Family>,
    /// A checkpoint as it was published: .pt, .pth, .bin, .safetensors or .onnx, a folder of one, or its .json; once for each
    #[arg(long, value_name = "FILE", required = true)]
    from: Vec<PathBuf>,
    /// Name of the engine [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// Arithmetic of its networks
    #[arg(long, default_value = "fp32", value_parser = ["fp32", "fp16"])]
    precision: String,
    /// What computes the audio features of a SyncTalk_2D network: ave, hubert, wenet, or compact, Lipstream's own
    #[arg(long, value_parser = features)]
    features: Option<Features>,
    /// Licence of the weights, as you have it
    #[arg(long)]
    licence: Option<String>,
    /// Replace an engine of that name
    #[arg(long)]
    replace: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Engines {
    #[command(subcommand)]
    action: Option<EnginesAction>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum EnginesAction {
    /// Run every network on stored inputs and compare what it says
    Check {
        /// Name of the engine, or its folder
        name: String,
        /// Inputs and outputs that the published code computed, in place of those of the import
        #[arg(long, value_name = "FILE")]
        golden: Option<PathBuf>,
        /// Largest difference of an output, over its standard deviation
        #[arg(long, default_value_t = 1e-3)]
        tolerance: f64,
        /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
        #[arg(long, default_value = "cpu")]
        device: Device,
        /// auto, fp32, tf32, fp16, bf16 or int8
        #[arg(long, default_value = "auto")]
        precision: Precision,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Build the TensorRT engines that device=tensorrt takes: of this card, its TensorRT, a precision and sizes of batches
    Build {
        /// Name of the engine, or a network's ONNX file
        name: String,
        /// Version or alias of the engine
        #[arg(long)]
        version: Option<String>,
        /// tensorrt[:n]
        #[arg(long, default_value = "tensorrt")]
        device: Device,
        /// auto (fp16), fp32, fp16 or bf16
        #[arg(long, default_value = "auto")]
        precision: Precision,
        /// Sizes of batches, each with an engine of its own: 1,2,4; or one engine for all from MIN..MAX or MIN..BEST..MAX, tuned for
        /// BEST, which are slower [default: every size that the engine takes]
        #[arg(long)]
        batch: Option<engines::build::Batches>,
        /// Sizes of further dimensions that an ONNX file leaves open: height=256,width=256 [default: 1]
        #[arg(long, value_delimiter = ',', value_name = "NAME=SIZE")]
        shapes: Vec<engines::build::Size>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// No progress
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove an engine of yours
    Remove { name: String },
}

fn family(text: &str) -> Result<Family, String> {
    match text {
        "wav2lip" => Ok(Family::Wav2Lip),
        "synctalk2d" => Ok(Family::SyncTalk2d),
        "latentsync" => Ok(Family::LatentSync),
        "musetalk" => Ok(Family::MuseTalk),
        "enhancer" => Ok(Family::Enhancer),
        "occlusion" => Ok(Family::Occlusion),
        other => Err(format!(
            "`{other}` is no family that can be imported: wav2lip, synctalk2d, latentsync, musetalk, enhancer, occlusion"
        )),
    }
}

fn features(text: &str) -> Result<Features, String> {
    [Features::Ave, Features::Hubert, Features::Wenet, Features::Compact]
        .into_iter()
        .find(|features| features.name() == text)
        .ok_or_else(|| "ave, hubert, wenet or compact".into())
}

impl Import {
    pub(super) fn run(self) -> Result<ExitCode> {
        engines::import::import(&engines::import::Options {
            family: self.family,
            files: self.from,
            name: self.name,
            precision: if self.precision == "fp16" { onnx::Precision::Fp16 } else { onnx::Precision::Fp32 },
            features: self.features,
            licence: self.licence,
            replace: self.replace,
            json: self.json,
            quiet: self.quiet,
        })
    }
}

impl Engines {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.action {
            None => engines::list(self.json),
            Some(EnginesAction::Check { name, golden, tolerance, device, precision, json }) => {
                let runtime = lipstream_engines::runtime::Options { device, precision, ..Default::default() };
                engines::check::check(&engines::check::Options { name, golden, tolerance, runtime, json })
            }
            Some(EnginesAction::Build { name, version, device, precision, batch, shapes, json, quiet }) => {
                let name = version.map_or(name.clone(), |version| format!("{name}@{version}"));
                engines::build::build(&engines::build::Options { name, device, precision, batch, shapes, json, quiet })
            }
            Some(EnginesAction::Remove { name }) => engines::check::remove(&name),
        }
    }
}
