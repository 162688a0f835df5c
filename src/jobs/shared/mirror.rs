//! The entries of the bucket as this node last saw them.

use std::collections::BTreeMap;

use super::Record;
use crate::jobs::{Phase, Status};

#[derive(Debug, Default)]
pub struct Mirror {
    records: BTreeMap<u64, (u64, Record)>,
    /// Newest revision that the bucket has told of.
    told: u64,
}

impl Mirror {
    /// The bucket tells of an entry, or that it is gone.
    pub fn told(&mut self, number: u64, revision: u64, record: Option<Record>) {
        self.told = self.told.max(revision);
        if self.records.get(&number).is_some_and(|(known, _)| *known > revision) {
            return;
        }
        match record {
            Some(record) => drop(self.records.insert(number, (revision, record))),
            None => drop(self.records.remove(&number)),
        }
    }

    /// This node has changed an entry. What the bucket has told of since may be newer.
    pub fn made(&mut self, number: u64, revision: u64, record: Record) {
        if revision > self.told && self.records.get(&number).is_none_or(|(known, _)| *known < revision) {
            self.records.insert(number, (revision, record));
        }
    }

    /// This node has removed an entry.
    pub fn forget(&mut self, number: u64) {
        self.records.remove(&number);
    }

    /// Begins anew: the bucket tells of all that there is, and not of what is gone.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    pub fn get(&self, number: u64) -> Option<&Record> {
        self.records.get(&number).map(|(_, record)| record)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Record)> {
        self.records.iter().map(|(number, (_, record))| (*number, record))
    }

    pub fn waiting(&self) -> usize {
        self.in_state(Phase::Queued, u64::MAX)
    }

    /// A job's state, with how many come before it.
    pub fn status(&self, number: u64, record: &Record) -> Status {
        let ahead = match record.status.state {
            Phase::Queued => self.in_state(Phase::Queued, number) + self.in_state(Phase::Running, u64::MAX),
            _ => 0,
        };
        Status { ahead, ..record.status.clone() }
    }

    /// Bytes that a tenant's jobs take.
    pub fn stored(&self, owner: &str) -> u64 {
        let own = self.records.values().filter(|(_, record)| record.owner.as_deref() == Some(owner));
        own.map(|(_, record)| record.stored).fold(0, u64::saturating_add)
    }

    fn in_state(&self, state: Phase, before: u64) -> usize {
        self.records.range(..before).filter(|(_, (_, record))| record.status.state == state).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{Container, Options};

    fn record(owner: &str, state: Phase) -> Record {
        let mut status = Status::queued("job-1".into(), Container::Mp4, 0);
        status.state = state;
        let (options, owner) = (Options::default(), Some(owner.to_owned()));
        Record {
            status,
            options,
            owner,
            bank: false,
            second: false,
            stored: 10,
            lease: Default::default(),
            parts: Vec::new(),
            result: None,
            gpu_us: 0,
            metered: false,
        }
    }

    #[test]
    fn what_is_older_changes_nothing() {
        let mut mirror = Mirror::default();
        mirror.made(1, 5, record("a", Phase::Running));
        mirror.told(1, 4, Some(record("a", Phase::Queued)));
        assert_eq!(mirror.get(1).unwrap().status.state, Phase::Running);
        mirror.told(1, 6, None);
        assert_eq!(mirror.get(1), None);
        // It was changed before it was removed, and heard of later.
        mirror.made(1, 5, record("a", Phase::Running));
        assert_eq!(mirror.get(1), None);
    }

    #[test]
    fn places_and_bytes_are_those_of_all_nodes() {
        let mut mirror = Mirror::default();
        for (number, owner, state) in
            [(1, "a", Phase::Running), (2, "a", Phase::Queued), (3, "b", Phase::Queued), (4, "a", Phase::Done)]
        {
            mirror.told(number, number, Some(record(owner, state)));
        }
        let ahead = |number| mirror.status(number, mirror.get(number).unwrap()).ahead;
        assert_eq!([1, 2, 3, 4].map(ahead), [0, 1, 2, 0]);
        assert_eq!((mirror.waiting(), mirror.stored("a"), mirror.stored("b"), mirror.stored("c")), (2, 30, 10, 0));
    }
}
