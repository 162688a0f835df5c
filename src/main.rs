//! `lipstream`: a video and a voice become a talking video, with GStreamer.
//!
//! The program is thin: the elements are those of the plugin, linked in, and everything numerical is in the engines.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use lipstream::{
    cli,
    error::{Failure, Result},
    termination,
};

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    let level = if arguments.verbose { "warn,lipstream=info,lipstream_engines=info,gstlipstream=info" } else { "warn" };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("LIPSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new(level)))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
    match start().and_then(|()| arguments.run()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("lipstream: {failure}");
            failure.exit_code()
        }
    }
}

fn start() -> Result<()> {
    gst::init().map_err(|e| Failure::run(format!("GStreamer does not start: {e}")))?;
    gstlipstream::plugin_register_static()?;
    termination::listen()
}
