//! Renders one job after the other.

use std::time::Duration;

use lipstream_engines::runtime::Device;

use super::{
    Phase, Status,
    status::now,
    store::{Job, Shared, State, forget},
    work,
};
use crate::{
    error::{Failure, Kind, Result},
    media::Notice,
    render::{self, Watch},
    tenants::Totals,
};

/// How often what is too old is looked for.
const TICK: Duration = Duration::from_secs(30);

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
                    let (asked, bank, watch) = (&job.options, job.bank.clone(), job.watch.clone());
                    break (number, work::options(asked, &job.folder, bank, watch.clone(), &shared.settings), watch);
                }
                shared.changed.wait_for(&mut state, TICK);
            }
        };
        let longest = shared.settings.longest;
        let done = work::render(options, longest).and_then(|summary| keep(shared, number, summary));
        finish(shared, number, &watch, done);
    }
}

/// Moves the result to where results are kept, if that is not here.
fn keep(shared: &Shared, number: u64, summary: render::Summary) -> Result<render::Summary> {
    let Some(storage) = &shared.settings.storage else { return Ok(summary) };
    let name = shared.state.lock().jobs.get(&number).map(Job::kept_as);
    if let Some(name) = name {
        let put = storage.wait(storage.put(&name, &summary.output));
        put.map_err(|failure| Failure::output(failure.to_string()))?;
    }
    Ok(summary)
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
                    .map(|n| Notice { text: work::without(&job.folder, n), ..n.clone() })
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
            for input in work::INPUTS {
                // A file of the job's, hardly ever still in use; it goes with the folder at the latest.
                let _ = std::fs::remove_file(job.folder.join(input));
            }
            if shared.settings.storage.is_some() {
                forget(&job.folder);
            }
            // Of the inputs nothing is left; what was made counts, whatever the quota says of it.
            job.stored.truncate(1);
            job.stored.iter_mut().for_each(|place| place.settle(job.status.bytes.unwrap_or_default()));
        }
        Err(failure) => {
            (status.state, status.error) = match failure.kind {
                Kind::Interrupted if watch.stopped() => (Phase::Cancelled, None),
                _ => (Phase::Failed, Some(work::without(&job.folder, &failure))),
            };
            forget(&job.folder);
            job.stored.clear();
        }
    }
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
            shared.forget(&job);
        }
    }
}
