//! `lipstream-bench-latent`: what scripts under `bench/` need of LatentSync's and MuseTalk's engines to put them beside the
//! published programs: the points by which faces are aligned, how Whisper hears a stream, and single networks, run when they are asked to.

mod hearing;
mod networks;
mod points;
mod pull;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(version, about = "Parts of latent engines, for comparison with their published programs")]
enum Command {
    /// Print where LatentSync's three points lie in each frame of a video, a JSON object a line
    Points(points::Arguments),
    /// Say how far Whisper's states of a stream are from those of the whole recording, and what they cost, as JSON
    Hearing(hearing::Arguments),
    /// Load a network of an engine and run it once for each line of the standard input, printing milliseconds of the clock and of the processor
    Network(networks::Arguments),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Points(arguments) => points::print(&arguments),
        Command::Hearing(arguments) => hearing::print(&arguments),
        Command::Network(arguments) => networks::serve(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("lipstream-bench-latent: {cause}");
            ExitCode::FAILURE
        }
    }
}
