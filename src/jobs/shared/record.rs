//! What the cluster knows of a job: an entry of a key-value bucket, changed by revision, so that of two who change it at once one
//! begins again with what the other one made of it.

use serde::{Deserialize, Serialize};

use super::super::{Options, Status};

/// Most bytes that an entry has; those of others are not read.
const MOST: usize = 256 << 10;

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
    /// Bytes in the storage.
    #[serde(default)]
    pub stored: u64,
    /// Who renders it now, and which try of theirs it is: no other one may say how it ended.
    #[serde(default)]
    pub lease: Option<String>,
    /// Tries that ended with the worker.
    #[serde(default)]
    pub tries: u32,
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

impl Record {
    pub fn parse(value: &[u8]) -> Option<Self> {
        let record: Self = (value.len() <= MOST).then(|| serde_json::from_slice(value).ok()).flatten()?;
        let plain = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        let sound = record.result.iter().all(plain) && record.options.check().is_ok();
        sound.then_some(record)
    }

    pub fn value(&self) -> bytes::Bytes {
        // Plain values: this does not fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub fn is_of(&self, lease: &str) -> bool {
        self.lease.as_deref() == Some(lease)
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
            stored: 7,
            lease: Some("a#1".into()),
            tries: 1,
            result: Some("result-1f.mp4".into()),
            gpu_us: 0,
            metered: false,
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_a_forged_one_is_not() {
        let record = record();
        assert_eq!(Record::parse(&record.value()), Some(record.clone()));
        assert!(record.is_of("a#1") && !record.is_of("a#2"));
        let outside = Record { result: Some("../../etc/passwd".into()), ..record.clone() };
        assert_eq!(Record::parse(&outside.value()), None);
        let wrong = Record { options: Options { crf: 99, ..Options::default() }, ..record };
        assert_eq!(Record::parse(&wrong.value()), None);
        assert_eq!(Record::parse(b"{}"), None);
        assert_eq!(Record::parse(&vec![b' '; MOST + 1]), None);
    }
}
