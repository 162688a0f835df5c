//! What the steps of a job do to its entry: who has them, how far they are, and what they left.

use gst::ClockTime;

use super::{Phase, Record, mirror::Mirror, now, number, record::Step};
use crate::{
    media::Notice,
    render::{Part, Standing},
};

/// Workers that may die of a job, or of a part of one.
const TRIES: u32 = 3;
/// Part of the progress that rendering the parts is; the rest is joining them.
const PARTS: f32 = 0.95;

/// What a render says of itself.
#[derive(Default)]
pub struct Told {
    pub frames: u64,
    pub seconds: f64,
    pub card: bool,
    /// Time of the first frame, in ns.
    pub start: Option<u64>,
    pub notices: Vec<Notice>,
}

/// Job and step of a message: `job-7`, `job-7/0`, `job-7/join`.
pub fn task(text: &str) -> Option<(u64, Step)> {
    let (id, step) = text.split_once('/').map_or((text, None), |(id, step)| (id, Some(step)));
    let step = match step {
        None => Step::Whole,
        Some("join") => Step::Join,
        Some(index) if index.len() <= 4 && index.bytes().all(|b| b.is_ascii_digit()) => Step::Part(index.parse().ok()?),
        Some(_) => return None,
    };
    Some((number(id)?, step))
}

/// Gives a step to the holder of `lease`, unless it is done or its workers die of it.
pub fn take(record: &mut Record, step: Step, lease: &str) -> bool {
    let cut = !record.parts.is_empty();
    let done = record.part(step).is_some_and(|part| part.object.is_some());
    let lacking = step == Step::Join && record.parts.iter().any(|part| part.object.is_none());
    if record.status.state.is_over() || done || lacking || (step == Step::Whole && cut) {
        return false;
    }
    let Some(held) = record.slot(step) else { return false };
    held.tries = held.tries.saturating_add(u32::from(held.holder.take().is_some()));
    if held.tries >= TRIES {
        fail(record, format!("{TRIES} workers ended while they rendered it; their logs may have more"));
        return true;
    }
    held.holder = Some(lease.to_owned());
    let status = &mut record.status;
    if step == Step::Whole {
        status.progress = 0.0;
    }
    status.state = Phase::Running;
    status.started.get_or_insert_with(now);
    true
}

/// Says how far a step is.
pub fn tell(record: &mut Record, step: Step, now: Standing) {
    match step {
        Step::Whole => {
            record.status.progress = record.status.progress.max(now.part);
            record.status.fps = now.fps;
            record.status.seconds_left = now.left.map(|left| left.as_secs_f64());
        }
        Step::Part(index) => {
            if let Some(part) = record.parts.get_mut(index) {
                part.progress = now.part;
            }
            let (sum, count) = (record.parts.iter().map(|part| part.progress).sum::<f32>(), record.parts.len());
            record.status.progress = record.status.progress.max(PARTS * sum / count.max(1) as f32);
        }
        Step::Join => {}
    }
}

/// Says what a step has made: the name of an object and its bytes.
pub fn finish(record: &mut Record, step: Step, (name, bytes): (&str, u64), told: &Told, gpu_us: u64) {
    record.gpu_us = record.gpu_us.saturating_add(gpu_us);
    for notice in &told.notices {
        if !record.status.notices.contains(notice) {
            record.status.notices.push(notice.clone());
        }
    }
    if let Step::Part(index) = step {
        if let Some(part) = record.parts.get_mut(index) {
            (part.object, part.start, part.progress) = (Some(name.to_owned()), told.start, 1.0);
            part.lease = Default::default();
            record.stored = record.stored.saturating_add(bytes);
        }
        return;
    }
    let status = &mut record.status;
    (status.state, status.progress, status.finished) = (Phase::Done, 1.0, Some(now()));
    (status.fps, status.seconds_left) = (None, None);
    (status.seconds, status.frames) = (Some(told.seconds), Some(told.frames));
    (status.bytes, record.stored) = (Some(bytes), bytes);
    record.result = Some(name.to_owned());
    record.lease = Default::default();
}

/// Ends a job without a result.
pub fn fail(record: &mut Record, cause: String) {
    let status = &mut record.status;
    (status.state, status.error, status.finished) = (Phase::Failed, Some(cause), Some(now()));
    (status.fps, status.seconds_left) = (None, None);
    record.lease = Default::default();
    record.parts.clear();
    record.stored = 0;
}

/// Takes, does and ends each step of an entry, and reads a message, as a node does that is given them.
pub(in crate::jobs) fn read(bytes: &[u8]) {
    let named = std::str::from_utf8(bytes).ok().and_then(task);
    assert!(named.is_none_or(|(_, step)| !matches!(step, Step::Part(index) if index > 9999)));
    let Some(mut record) = Record::parse(bytes) else { return };
    assert!(Record::parse(&record.value()).is_some(), "what is kept is read again");
    let time = ClockTime::from_nseconds;
    for piece in &record.parts {
        let _ = (Part::new(time(piece.from), piece.until.map(time)), piece.start.map(time));
    }
    let count = record.parts.len();
    for step in (0..count).map(Step::Part).chain([Step::Whole, Step::Join]) {
        if take(&mut record, step, "lease") {
            tell(&mut record, step, Standing::default());
            finish(&mut record, step, ("object", 1), &Told::default(), 1);
        }
    }
    let mut mirror = Mirror::default();
    let _ = (mirror.status(1, &record), mirror.told(1, 1, Some(record)), mirror.stored("anna"), mirror.waiting());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{Container, Options, Status, shared::record::Piece};

    fn record(parts: usize) -> Record {
        Record {
            status: Status::queued("job-1".into(), Container::Mp4, 0),
            options: Options::default(),
            owner: None,
            bank: false,
            second: false,
            stored: 10,
            lease: Default::default(),
            result: None,
            parts: vec![Piece::default(); parts],
            gpu_us: 0,
            metered: true,
        }
    }

    #[test]
    fn messages_name_a_job_and_a_step() {
        assert_eq!(task("job-7"), Some((7, Step::Whole)));
        assert_eq!(task("job-7/12"), Some((7, Step::Part(12))));
        assert_eq!(task("job-7/join"), Some((7, Step::Join)));
        for bad in ["", "7", "job-7/", "job-7/-1", "job-7/99999", "job-7/join/1", "job-x/join"] {
            assert_eq!(task(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_step_is_given_to_one_at_a_time_and_not_again_when_it_is_done() {
        let mut record = record(2);
        assert!(!take(&mut record, Step::Whole, "a"), "it was cut");
        assert!(!take(&mut record, Step::Join, "a"), "parts are lacking");
        assert!(!take(&mut record, Step::Part(2), "a"), "there is none");
        assert!(take(&mut record, Step::Part(0), "a") && take(&mut record, Step::Part(1), "b"));
        assert!(record.is_of(Step::Part(0), "a") && !record.is_of(Step::Part(1), "a"));
        // Its worker was silent for too long.
        assert!(take(&mut record, Step::Part(0), "c") && !record.is_of(Step::Part(0), "a"));
        for (index, name) in [(0, "part-0"), (1, "part-1")] {
            finish(&mut record, Step::Part(index), (name, 5), &Told { start: Some(7), ..Told::default() }, 3);
        }
        assert!(!take(&mut record, Step::Part(0), "a"), "it is made");
        assert_eq!((record.stored, record.gpu_us, record.status.state), (20, 6, Phase::Running));
        assert!(take(&mut record, Step::Join, "a"));
        finish(&mut record, Step::Join, ("result", 8), &Told { frames: 50, ..Told::default() }, 0);
        assert_eq!((record.stored, record.status.frames, record.status.state), (8, Some(50), Phase::Done));
        assert!(!take(&mut record, Step::Join, "b") && !record.is_of(Step::Join, "a"));
    }

    #[test]
    fn a_job_of_which_workers_die_fails() {
        let mut record = record(0);
        for lease in ["a", "b", "c"] {
            assert!(take(&mut record, Step::Whole, lease) && record.is_of(Step::Whole, lease));
        }
        assert!(take(&mut record, Step::Whole, "d"));
        assert_eq!((record.status.state, record.stored), (Phase::Failed, 0));
        assert!(record.status.error.unwrap().starts_with("3 workers ended"));
    }
}
