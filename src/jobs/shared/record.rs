//! What the cluster knows of a job: an entry of a key-value bucket, changed by revision, so that of two who change it at once one
//! begins again with what the other one made of it.

use serde::{Deserialize, Serialize};

use super::super::{Options, Status};

/// Most bytes that an entry has; those of others are not read.
const MOST: usize = 512 << 10;
/// Most parts of a job.
pub const MOST_PARTS: usize = 1000;
/// Latest time of a part, in ns: a week. Times can be added to it.
const LATEST: u64 = 7 * 86_400 * 1_000_000_000;

/// What is done of a job at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All of it, or to cut it into parts.
    Whole,
    Part(usize),
    Join,
}

/// Who does a step now: no other one may say how it ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lease {
    pub holder: Option<String>,
    /// Tries that ended with the worker.
    pub tries: u32,
}

/// A part of a job. Times are in ns from the start of the output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Piece {
    pub from: u64,
    /// `None`: up to the end.
    pub until: Option<u64>,
    pub lease: Lease,
    /// Name of its object, once it is made.
    pub object: Option<String>,
    /// Time of its first frame.
    pub start: Option<u64>,
    pub progress: f32,
}

/// An entry. What a newer version of the program adds is left out of sight by an older one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub status: Status,
    pub options: Options,
    /// Its tenant; `None`: the operator.
    #[serde(default)]
    pub owner: Option<String>,
    /// Whether a reference bank is with the inputs.
    #[serde(default)]
    pub bank: bool,
    /// Whether a second voice is.
    #[serde(default)]
    pub second: bool,
    /// Bytes in the storage.
    #[serde(default)]
    pub stored: u64,
    /// Of the job as a whole, and of its joining.
    #[serde(default)]
    pub lease: Lease,
    /// Of one that is rendered in several.
    #[serde(default)]
    pub parts: Vec<Piece>,
    /// Name of the result's object within the job's folder.
    #[serde(default)]
    pub result: Option<String>,
    /// Microseconds of a card.
    #[serde(default)]
    pub gpu_us: u64,
    /// Whether it has been counted for its tenant.
    #[serde(default)]
    pub metered: bool,
}

impl Piece {
    fn is_sound(&self) -> bool {
        let times = [Some(self.from), self.until, self.start];
        let ordered = self.until.is_none_or(|until| until > self.from);
        // What is no number is written as none, which nobody reads again.
        ordered && self.progress.is_finite() && times.into_iter().flatten().all(|time| time <= LATEST)
    }
}

impl Record {
    pub fn parse(value: &[u8]) -> Option<Self> {
        let record: Self = (value.len() <= MOST).then(|| serde_json::from_slice(value).ok()).flatten()?;
        let plain = |name: &String| {
            !name.starts_with('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        };
        let names = record.parts.iter().filter_map(|part| part.object.as_ref()).chain(&record.result);
        let good = record.parts.len() <= MOST_PARTS
            && record.parts.iter().all(Piece::is_sound)
            && record.status.progress.is_finite();
        let sound = good && names.into_iter().all(plain) && record.options.check().is_ok();
        sound.then_some(record)
    }

    pub fn value(&self) -> bytes::Bytes {
        // Plain values: this does not fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub fn part(&self, step: Step) -> Option<&Piece> {
        match step {
            Step::Part(index) => self.parts.get(index),
            Step::Whole | Step::Join => None,
        }
    }

    /// Who does a step.
    pub fn slot(&mut self, step: Step) -> Option<&mut Lease> {
        match step {
            Step::Part(index) => self.parts.get_mut(index).map(|part| &mut part.lease),
            Step::Whole | Step::Join => Some(&mut self.lease),
        }
    }

    /// Whether a step is being done by the holder of `lease`.
    pub fn is_of(&self, step: Step, lease: &str) -> bool {
        let held = match step {
            Step::Part(_) => self.part(step).map(|part| &part.lease),
            Step::Whole | Step::Join => Some(&self.lease),
        };
        !self.status.state.is_over() && held.is_some_and(|held| held.holder.as_deref() == Some(lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::Container;

    fn record() -> Record {
        // Of other numbers the last digit changes.
        let status = Status { created: 1.5, ..Status::queued("job-1".into(), Container::Mp4, 0) };
        Record {
            status,
            options: Options::default(),
            owner: Some("anna".into()),
            bank: true,
            second: false,
            stored: 7,
            lease: Lease { holder: Some("a-1".into()), tries: 1 },
            parts: vec![Piece { until: Some(5), ..Piece::default() }, Piece { from: 5, ..Piece::default() }],
            result: Some("result-1f.mp4".into()),
            gpu_us: 0,
            metered: false,
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_a_forged_one_is_not() {
        let record = record();
        assert_eq!(Record::parse(&record.value()), Some(record.clone()));
        assert!(
            record.is_of(Step::Join, "a-1") && !record.is_of(Step::Join, "a-2") && !record.is_of(Step::Part(0), "a-1")
        );
        let outside = || Some("../../etc/passwd".to_owned());
        let mut part = record.clone();
        part.parts[1].object = outside();
        let mut backward = record.clone();
        backward.parts[0].until = Some(0);
        let up = Record { result: Some("..".into()), ..record.clone() };
        let mut late = record.clone();
        late.parts[1].from = u64::MAX;
        let mut later = record.clone();
        later.parts[1].until = Some(u64::MAX - 1);
        let many = Record { parts: vec![Piece::default(); MOST_PARTS + 1], ..record.clone() };
        let result = Record { result: outside(), ..record.clone() };
        let again = record.clone();
        let wrong = Record { options: Options { crf: 99, ..Options::default() }, ..record };
        for forged in [part, backward, many, result, wrong, up, late, later] {
            assert_eq!(Record::parse(&forged.value()), None);
        }
        let text = String::from_utf8(again.value().into()).unwrap();
        let endless = text.replace("\"progress\":0.0", "\"progress\":1e308");
        assert!(endless != text && Record::parse(endless.as_bytes()).is_none());
        assert_eq!(Record::parse(b"{}"), None);
        assert_eq!(Record::parse(&vec![b' '; MOST + 1]), None);
    }
}
