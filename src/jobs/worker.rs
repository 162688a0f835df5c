//! Renders one job after the other.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    path::Path,
    time::Duration,
};

use lipstream_engines::runtime::Device;

use super::{
    Phase, Status,
    options::Quality,
    status::now,
    store::{Job, Shared, State, forget},
};
use crate::{
    background,
    error::{Failure, Kind, Result},
    media::{Media, Notice, Notices, Reader, Track},
    render::{self, Watch},
    tenants::Totals,
};

/// How often what is too old is looked for.
const TICK: Duration = Duration::from_secs(30);
/// Jobs share their workers with no live session: a queue of theirs must not stand before a live frame.
const INSTANCE: &str = "jobs";

/// Works until the store is closed.
pub fn work(shared: &Shared) {
    loop {
        let (number, options, watch) = {
            let mut state = shared.state.lock();
            loop {
                if state.closed {
                    return;
                }
                tidy(&mut state, shared);
                if let Some(number) = state.queue.pop_front() {
                    let Some(job) = state.jobs.get_mut(&number) else { continue };
                    job.status.state = Phase::Running;
                    job.status.started = Some(now());
                    break (number, options(job, shared), job.watch.clone());
                }
                shared.changed.wait_for(&mut state, TICK);
            }
        };
        let longest = shared.settings.longest;
        let done = panic::catch_unwind(AssertUnwindSafe(|| background::run("render", || run(options, longest))));
        let done = done.unwrap_or_else(|_| Err(Failure::run("the render panicked; the log has more")));
        finish(shared, number, &watch, done);
    }
}

fn run(options: render::Options, longest: Duration) -> Result<render::Summary> {
    let speech = Reader::open(&options.audio, Media::Audio, &options.notices)?;
    if let Some(length) = speech.duration().filter(|d| d.nseconds() > longest.as_nanos() as u64) {
        return Err(Failure::input(format!(
            "the speech lasts {} s; at most {} s are rendered: split it",
            length.seconds(),
            longest.as_secs()
        )));
    }
    drop(speech);
    render::render(options)
}

fn options(job: &Job, shared: &Shared) -> render::Options {
    let settings = &shared.settings;
    let asked = &job.options;
    let engine = asked.engine.clone().unwrap_or_else(|| settings.engine.clone());
    let mut properties = vec![
        ("engine", engine.clone()),
        ("device", settings.runtime.device.to_string()),
        ("precision", settings.runtime.precision.to_string()),
        ("model-instance-id", INSTANCE.to_owned()),
    ];
    properties.extend((!settings.watermark).then(|| ("watermark", "false".to_owned())));
    properties.extend(asked.motion_gain.map(|gain| ("motion-gain", gain.to_string())));
    properties.extend(asked.speaker.clone().map(|speaker| ("speaker", speaker)));
    properties.extend(asked.label.clone().map(|label| ("label", label)));
    properties.extend(asked.label_corner.map(|corner| ("label-corner", corner.to_string())));
    // The bank of an avatar is of the default engine.
    let reference_bank = job.bank.clone().filter(|_| engine == render::DEFAULT_ENGINE);
    render::Options {
        video: job.folder.join("video"),
        audio: job.folder.join("audio"),
        audio_track: Track::Default,
        second_audio: None,
        output: job.result(),
        properties,
        engine: Some(engine),
        exact: false,
        occlusion: asked.occlusion.map_or_else(|| settings.occlusion.clone(), |o| o.masks(&settings.occlusion)),
        look_ahead: None,
        runtime: settings.runtime,
        reference_bank,
        gather: true,
        looped: asked.looped,
        enhance: asked.enhance.map(|filter| render::Enhance {
            by: render::Enhancer::Filter(filter.into()),
            strength: asked.enhance_strength,
            mouth_protection: asked.mouth_protection,
            fidelity: None,
            every: None,
            upscale: None,
        }),
        audio_codec: None,
        quality: match asked.quality {
            Some(Quality::High) => render::Quality::High,
            None => render::Quality::Crf { crf: asked.crf, preset: "veryfast".into() },
        },
        signer: settings.signer.clone(),
        quiet: true,
        watch: job.watch.clone(),
        notices: Notices::default(),
    }
}

fn finish(shared: &Shared, number: u64, watch: &Watch, done: Result<render::Summary>) {
    let mut state = shared.state.lock();
    let Some(job) = state.jobs.get_mut(&number) else { return };
    let status = &mut job.status;
    status.finished = Some(now());
    (status.fps, status.seconds_left) = (None, None);
    match done {
        Ok(summary) => {
            *status = Status {
                state: Phase::Done,
                progress: 1.0,
                seconds: Some(summary.seconds),
                frames: Some(summary.frames),
                notices: summary
                    .notices
                    .iter()
                    .map(|n| Notice { text: without(&job.folder, n), ..n.clone() })
                    .collect(),
                bytes: summary.output.metadata().ok().map(|meta| meta.len()),
                ..status.clone()
            };
            if let Some(tenant) = job.caller.tenant() {
                let card = matches!(summary.device.parse(), Ok(Device::Cuda(_) | Device::TensorRt(_)));
                let took = status.started.zip(status.finished).map_or(0.0, |(from, to)| to - from);
                let gpu_us = if card { (took.max(0.0) * 1e6) as u64 } else { 0 };
                tenant.count(Totals { frames: summary.frames, gpu_us, ..Totals::default() });
            }
            for input in ["video", "audio", "bank"] {
                // A file of the job's, hardly ever still in use; it goes with the folder at the latest.
                let _ = std::fs::remove_file(job.folder.join(input));
            }
            // Of the inputs nothing is left; what was made counts, whatever the quota says of it.
            job.stored.truncate(1);
            job.stored.iter_mut().for_each(|place| place.settle(job.status.bytes.unwrap_or_default()));
        }
        Err(failure) => {
            (status.state, status.error) = match failure.kind {
                Kind::Interrupted if watch.stopped() => (Phase::Cancelled, None),
                _ => (Phase::Failed, Some(without(&job.folder, &failure))),
            };
            forget(&job.folder);
            job.stored.clear();
        }
    }
}

/// A message with the job's own names for its files.
fn without(folder: &Path, message: &impl fmt::Display) -> String {
    let prefix = format!("{}/", folder.display());
    message.to_string().replace(&prefix, "")
}

/// Forgets jobs that are over and too old, too many or too large.
fn tidy(state: &mut State, shared: &Shared) {
    let settings = &shared.settings;
    let oldest = now() - settings.kept_for.as_secs_f64();
    let (mut kept, mut bytes) = (0, 0);
    let over = state.jobs.iter().rev().filter(|(_, job)| job.status.state.is_over());
    let gone: Vec<u64> = over
        .filter(|(_, job)| {
            kept += 1;
            bytes += job.status.bytes.unwrap_or(0);
            // The newest result stays however large it is.
            let large = bytes > settings.bytes && kept > 1;
            large || kept > settings.kept || job.status.finished.is_some_and(|at| at < oldest)
        })
        .map(|(number, _)| *number)
        .collect();
    for number in gone {
        if let Some(job) = state.jobs.remove(&number) {
            forget(&job.folder);
        }
    }
}
