//! The command line.

mod engines;
mod render;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use lipstream_engines::runtime::Device;

use self::{
    engines::{Engines, Import},
    render::Render,
};
use crate::{
    adapt, detect, doctor,
    error::{Failure, Result},
    eval, graph,
    media::{Notices, Track},
    serve, tenants,
};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed while running
  2    wrong command line, graph file or parameter
  3    an input is missing, cannot be decoded, or has no video, no audio or no face
  4    an engine, its model or its device does not work
  5    the output cannot be written
  130  interrupted";

/// Live lip-sync for GStreamer: a video says what a voice says.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Say what is chosen and why (more with LIPSTREAM_LOG=debug)
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Render a video file whose lips follow a speech file
    Render(Box<Render>),
    /// Run a graph file
    Run(Run),
    /// Serve live sessions: RTMP and WebRTC in and out, speech over HTTP, a page to operate it
    Serve(Serve),
    /// Measure the lips of a video: sync, sharpness, steadiness, silence
    Eval(Box<Eval>),
    /// Look in a video for the invisible mark that renders and streams carry
    Detect(Detect),
    /// Make an engine for one person from a video of them
    Adapt(Adapt),
    /// Make an engine of a published checkpoint: Wav2Lip, SyncTalk_2D
    Import(Import),
    /// List the engines that are installed, check, build or remove one
    Engines(Engines),
    /// Tenants of a server, and their keys
    Keys(tenants::command::Keys),
    /// Check what Lipstream needs on this machine, and say how to get what is missing
    Doctor(Json),
}

#[derive(Args)]
struct Json {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Run {
    /// Graph file, such as graphs/file.toml
    graph: PathBuf,
    /// Value of a parameter
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// List the parameters of the graph and end
    #[arg(long, visible_alias = "list")]
    help_params: bool,
    /// Print the gst-launch line and end
    #[arg(long)]
    print: bool,
}

#[derive(Args)]
struct Serve {
    /// Configuration; without one everything has a default and only this machine is served
    config: Option<PathBuf>,
    /// Print a commented configuration with the defaults and end
    #[arg(long, conflicts_with = "config")]
    print_config: bool,
    /// Share sessions with the other machines of a cluster, which meet at these NATS servers: nats://HOST:4222, separated by commas
    #[arg(long, value_name = "URL")]
    cluster: Option<String>,
}

#[derive(Args)]
struct Eval {
    /// Video whose mouth is measured
    video: PathBuf,
    /// The same picture with the true mouth: adds how the picture differs from it
    #[arg(long = "true", value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Video of whoever spoke the speech, when that is not the truth: adds how the motion agrees
    #[arg(long, value_name = "FILE")]
    speech_of: Option<PathBuf>,
    /// What is heard with VIDEO, in place of its own sound
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
    /// Which sound track is heard where the file has several: its number, from 1 on, or its language as `en` [default: the
    /// file's own default, else the first that is not silent]
    #[arg(long, value_name = "N|LANG")]
    audio_track: Option<Track>,
    /// The same video made to say nothing: adds what moves in silence
    #[arg(long, value_name = "FILE")]
    silent: Option<PathBuf>,
    /// Write the landmarks of VIDEO: a line a frame at 25 frames a second, x and y of 111 points in pixels, empty where there is no face
    #[arg(long, value_name = "FILE.csv")]
    points: Option<PathBuf>,
    /// Draw ten moments of VIDEO, above those of the truth, and the curve of its sync
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Judge of sync by name, or the folder of its engine.toml
    #[arg(long, default_value = "expert", value_name = "ENGINE")]
    expert: String,
    /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Detect {
    /// Video that is looked at; an hour of it at most
    video: PathBuf,
    /// Look for so many marks that nobody makes as well, and say how well the best of each fits: what chance does here
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    other_keys: u16,
    /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Adapt {
    /// Video of the person, alone in it; with their own speech the range of the motion is fitted as well
    #[arg(long, value_name = "FILE")]
    video: PathBuf,
    /// Folder of the new engine; an engine that is there is replaced
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// What is heard with VIDEO, in place of its own sound
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
    /// Which sound track is heard where the file has several: its number, from 1 on, or its language as `en` [default: the
    /// file's own default, else the first that is not silent]
    #[arg(long, value_name = "N|LANG")]
    audio_track: Option<Track>,
    /// General engine by name, or the folder of its engine.toml
    #[arg(long, default_value = crate::render::DEFAULT_ENGINE)]
    engine: String,
    /// Pictures of the person that are kept
    #[arg(long, default_value_t = adapt::REFERENCES, value_parser = clap::value_parser!(u16).range(1..=256))]
    references: u16,
    /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

impl Cli {
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Render(command) => command.run(),
            Command::Run(command) => command.run(),
            Command::Serve(command) => command.run(),
            Command::Eval(command) => command.run(),
            Command::Detect(command) => command.run(),
            Command::Adapt(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Engines(command) => command.run(),
            Command::Keys(command) => command.run(),
            Command::Doctor(Json { json }) => doctor::examine(json),
        }
    }
}

impl Eval {
    fn run(self) -> Result<ExitCode> {
        let figures = eval::evaluate(&eval::Options {
            video: self.video,
            truth: self.truth,
            speech_of: self.speech_of,
            silent: self.silent,
            audio: self.audio,
            audio_track: self.audio_track.unwrap_or_default(),
            points: self.points,
            sheet: self.sheet,
            expert: self.expert,
            runtime: lipstream_engines::runtime::Options { device: self.device, ..Default::default() },
            notices: Notices::default(),
        })?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&figures).expect("figures are plain values"));
        } else {
            figures.print();
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Detect {
    fn run(self) -> Result<ExitCode> {
        let found = detect::detect(&detect::Options {
            video: self.video.clone(),
            other_keys: self.other_keys,
            runtime: lipstream_engines::runtime::Options { device: self.device, ..Default::default() },
            notices: Notices::default(),
        })?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&found).expect("a finding has only plain values"));
        } else {
            print!("{found}");
        }
        match found.reason {
            Some(why) => {
                Err(Failure::input(format!("{}: cannot tell whether it is marked: {why}", self.video.display())))
            }
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

impl Adapt {
    fn run(self) -> Result<ExitCode> {
        let summary = adapt::adapt(&adapt::Options {
            video: self.video,
            output: self.output,
            audio: self.audio,
            audio_track: self.audio_track.unwrap_or_default(),
            engine: self.engine,
            references: self.references.into(),
            runtime: lipstream_engines::runtime::Options { device: self.device, ..Default::default() },
            quiet: self.quiet,
            notices: Notices::default(),
        })?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&summary).expect("a summary has only plain values"));
        } else {
            print!("{summary}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Run {
    fn run(self) -> Result<ExitCode> {
        let graph = graph::Graph::read(&self.graph)?;
        if self.help_params {
            print!("{}", graph.help());
            return Ok(ExitCode::SUCCESS);
        }
        let launch = graph.launch(&self.set)?;
        if self.print {
            println!("{}", graph::command_line(&launch));
            return Ok(ExitCode::SUCCESS);
        }
        if graph.session().is_some() {
            let why =
                "is a graph for `lipstream serve`, which feeds it; docs/gst-launch.md has it as a line of its own";
            return Err(Failure::usage(format!("{}: {why}", self.graph.display())));
        }
        graph::run(&launch)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Serve {
    fn run(self) -> Result<ExitCode> {
        if self.print_config {
            print!("{}", serve::Config::template());
        } else {
            serve::run(self.config.as_deref(), self.cluster.as_deref())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
