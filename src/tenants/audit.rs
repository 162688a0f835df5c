//! Who did what: what changes something, and each WebSocket that is opened.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use super::Caller;

/// Entries that wait to be written; more are left out and counted.
const WAITING: usize = 10_000;
/// Longest object that is kept, in bytes.
const OBJECT: usize = 64;

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Entry {
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// Empty for the operator, as is the key.
    pub tenant: String,
    /// Name of the key, not the key itself.
    pub key: String,
    pub method: String,
    /// The path as the router has it.
    pub route: String,
    /// What the path names, or what has been made.
    pub object: String,
    /// The HTTP status of the answer.
    pub status: u16,
}

impl Entry {
    pub fn new(caller: &Caller, method: &str, route: &str, object: &str, status: u16) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (tenant, key) = match caller {
            Caller::Operator => (String::new(), String::new()),
            Caller::Tenant(key) => (key.tenant.name.clone(), key.id.clone()),
        };
        let mut object: String = object.chars().filter(|c| !c.is_control()).collect();
        object.truncate(object.floor_char_boundary(OBJECT));
        Self {
            time_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            tenant,
            key,
            method: method.into(),
            route: route.into(),
            object,
            status,
        }
    }
}

/// Entries on their way to the store, numbered since the process began.
#[derive(Default)]
pub struct Log(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    entries: Vec<(i64, Entry)>,
    next: i64,
    lost: u64,
}

impl Log {
    pub fn record(&self, entry: Entry) {
        let mut waiting = self.0.lock();
        if waiting.entries.len() >= WAITING {
            waiting.lost += 1;
            return;
        }
        waiting.next += 1;
        let number = waiting.next;
        waiting.entries.push((number, entry));
    }

    pub fn take(&self) -> Vec<(i64, Entry)> {
        std::mem::take(&mut self.0.lock().entries)
    }

    /// They could not be written.
    pub fn put_back(&self, mut entries: Vec<(i64, Entry)>) {
        let mut waiting = self.0.lock();
        entries.append(&mut waiting.entries);
        waiting.lost += entries.len().saturating_sub(WAITING) as u64;
        entries.truncate(WAITING);
        waiting.entries = entries;
    }

    /// Entries that were left out because the store did not take them.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_cannot_be_written_are_bounded_and_counted() {
        let log = Log::default();
        let record = || log.record(Entry::new(&Caller::Operator, "POST", "/x", &"ä\n".repeat(99), 201));
        (0..WAITING + 5).for_each(|_| record());
        let entries = log.take();
        assert_eq!((entries.len(), log.lost(), entries[0].1.object.as_str()), (WAITING, 5, "ä".repeat(32).as_str()));
        record();
        log.put_back(entries);
        assert_eq!((log.take().len(), log.lost()), (WAITING, 6));
        assert!(log.take().is_empty());
    }
}
