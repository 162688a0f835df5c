use gst::prelude::*;

use crate::{
    error::{Failure, Kind, Result},
    media::{self, Outcome},
    termination,
};

const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(100);
/// After the first signal, how long the graph may take to finish its files.
const FINISH: std::time::Duration = std::time::Duration::from_secs(10);

/// Runs a description until its end. A first SIGINT sends EOS through the graph, so that its files are finished.
pub fn run(launch: &str) -> Result<()> {
    let pipeline =
        gst::parse::launch(launch).map_err(|e| Failure::usage(format!("the graph does not parse: {}", e.message())))?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().or_else(|element| {
        // A description of one element is not a pipeline yet.
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).map(|()| pipeline)
    })?;
    media::mend(pipeline.upcast_ref());
    let ended = play(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    ended
}

fn play(pipeline: &gst::Pipeline) -> Result<()> {
    let bus = pipeline.bus().expect("a pipeline has a bus");
    if pipeline.set_state(gst::State::Playing).is_err() {
        media::check(&bus, gst::ClockTime::ZERO, Kind::Run)?;
        return Err(Failure::run("the graph refused to start"));
    }
    let mut stopping = None;
    loop {
        if let Outcome::Ended = media::check(&bus, POLL, Kind::Run)? {
            return if stopping.is_some() { Err(Failure::interrupted()) } else { Ok(()) };
        }
        if termination::requested() && stopping.is_none() {
            pipeline.send_event(gst::event::Eos::new());
            stopping = Some(std::time::Instant::now());
        }
        if stopping.is_some_and(|since| since.elapsed() > FINISH) {
            return Err(Failure::interrupted());
        }
    }
}
