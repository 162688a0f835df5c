//! Which node has which session, in a bucket of JetStream: a name is given once, and changes hands once, since each change names the
//! revision that it replaces.
//!
//! Each record has a claim, which no other has: it is the message's id, by which the servers write once what is sent several times. A
//! node whose answer was lost, or comes late, knows its own record by it.

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream::{
    self,
    context::{Context, PublishErrorKind},
    kv::{Entry, Operation, Store},
    message::PublishMessage,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Cluster;
use crate::{
    error::{Failure, Result},
    session::SessionSpec,
};

const BUCKET: &str = "lipstream_sessions";
const SESSION: &str = "session.";
/// Pause before the bucket is watched anew.
const PAUSE: Duration = Duration::from_millis(500);
/// Time in which the servers have to say whether they have a record.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pause before a record is sent again: the connection on which it went may be gone.
const AGAIN: Duration = Duration::from_secs(1);

/// A session of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    spec: SessionSpec,
    /// What the spec never shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream_key: Option<String>,
    #[serde(default)]
    with_publisher: bool,
    /// The tenant that it belongs to; none is the operator.
    pub tenant: Option<String>,
    /// The node that has it, and that node's start; empty where none has it.
    pub node: String,
    pub instance: String,
    /// Another one each time that a record is written.
    #[serde(default)]
    pub claim: String,
}

/// A claim that nobody else has.
fn claim() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Record {
    pub fn new(spec: &SessionSpec, tenant: Option<String>, node: &str, instance: &str) -> Self {
        Self {
            spec: spec.clone(),
            stream_key: spec.stream_key.clone(),
            with_publisher: spec.with_publisher,
            tenant,
            node: node.to_owned(),
            instance: instance.to_owned(),
            claim: claim(),
        }
    }

    /// The same in other hands, or the same hands again.
    pub fn of(&self, node: &str, instance: &str) -> Self {
        Self { node: node.to_owned(), instance: instance.to_owned(), claim: claim(), ..self.clone() }
    }

    /// The session as it was created.
    pub fn spec(&self) -> SessionSpec {
        SessionSpec { stream_key: self.stream_key.clone(), with_publisher: self.with_publisher, ..self.spec.clone() }
    }

    pub fn play(&self) -> Option<&str> {
        self.spec.play.as_deref()
    }

    /// It begins and ends with its publisher.
    pub fn is_publishers(&self) -> bool {
        self.with_publisher
    }
}

/// A record and its revision; no record where the session has ended.
#[derive(Clone, Debug)]
pub struct Known {
    pub record: Option<Record>,
    pub revision: u64,
}

impl Known {
    fn is(&self, record: &Record) -> bool {
        self.record.as_ref().is_some_and(|known| known.claim == record.claim)
    }
}

/// Why a record was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// Somebody was faster, or has the name.
    #[error("another node was faster")]
    Taken,
    /// It may be written yet.
    #[error("the cluster's NATS server does not answer ({0}); sessions that run go on")]
    Away(String),
}

/// See the module.
pub struct Records {
    store: Store,
    /// Waits for answers for as long as [`PATIENCE`] says.
    patient: Context,
    known: Mutex<BTreeMap<String, Known>>,
}

/// `.` parts keys.
pub fn key_of(id: &str) -> String {
    id.replace('.', "=")
}

fn away(error: impl std::fmt::Display) -> Denied {
    Denied::Away(error.to_string())
}

impl Records {
    pub async fn open(cluster: &Cluster) -> Result<Self> {
        let store = cluster.bucket(BUCKET, "Sessions of Lipstream and the nodes that have them").await;
        let wrong = |e| Failure::run(format!("cluster: JetStream makes no bucket `{BUCKET}`: {e}"));
        let mut patient = jetstream::new(cluster.client().clone());
        patient.set_timeout(PATIENCE);
        Ok(Self { store: store.map_err(wrong)?, patient, known: Mutex::default() })
    }

    /// Takes a name that nobody has. A record is written once: for another try it needs another claim.
    pub async fn create(&self, id: &str, record: &Record) -> Result<u64, Denied> {
        // A name that was another session's before has a revision.
        let mut revision = self.get(id).filter(|known| known.record.is_none()).map_or(0, |known| known.revision);
        loop {
            match self.replace(id, record, revision).await {
                Err(Denied::Taken) => {}
                done => return done,
            }
            let last = match self.look(id).await? {
                Some(Known { record: Some(_), .. }) => return Err(Denied::Taken),
                Some(known) => known.revision,
                None => 0,
            };
            if last == revision {
                return Err(Denied::Taken);
            }
            revision = last;
        }
    }

    /// Replaces the record that has `revision`.
    pub async fn replace(&self, id: &str, record: &Record, revision: u64) -> Result<u64, Denied> {
        let revision = match self.send(id, record, revision).await {
            // What stands there may be this record, sent before and answered too late.
            Err(Denied::Taken) => self.look(id).await?.filter(|known| known.is(record)).ok_or(Denied::Taken)?.revision,
            sent => sent?,
        };
        self.note(id, Known { record: Some(record.clone()), revision });
        // The answer may have come so late that somebody has it by now.
        let last = self.get(id).map_or(revision, |known| known.revision);
        if last > revision { Err(Denied::Taken) } else { Ok(revision) }
    }

    /// Sends a record until there is an answer: all copies are one to the servers.
    async fn send(&self, id: &str, record: &Record, revision: u64) -> Result<u64, Denied> {
        let subject = format!("{}{SESSION}{}", self.store.prefix, key_of(id));
        let end = Instant::now() + PATIENCE;
        let mut answers = FuturesUnordered::new();
        loop {
            let message = PublishMessage::build().payload(text(record)).message_id(&record.claim);
            let sent = self.patient.send_publish(subject.clone(), message.expected_last_subject_sequence(revision));
            match timeout_at(end, sent).await {
                Ok(Ok(answer)) => answers.push(answer.into_future()),
                Ok(Err(error)) => tracing::debug!(%error, "a record is not sent"),
                Err(_) => {}
            }
            let again = end.min(Instant::now() + AGAIN);
            loop {
                match timeout_at(again, answers.next()).await {
                    Ok(Some(Ok(answer))) => return Ok(answer.sequence),
                    Ok(Some(Err(error))) => match error.kind() {
                        PublishErrorKind::WrongLastSequence => return Err(Denied::Taken),
                        // Another copy may be answered.
                        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {}
                        _ => return Err(away(error)),
                    },
                    Ok(None) => {
                        sleep_until(again).await;
                        break;
                    }
                    Err(_) => break,
                }
            }
            if Instant::now() >= end {
                return Err(away(format!("nothing for {} s", PATIENCE.as_secs())));
            }
        }
    }

    /// What the servers have of a session now.
    async fn look(&self, id: &str) -> Result<Option<Known>, Denied> {
        let entry = self.store.entry(format!("{SESSION}{}", key_of(id))).await.map_err(away)?;
        Ok(entry.and_then(|entry| self.read(&entry)).map(|(_, known)| known))
    }

    /// The session has ended, where its record has still `revision`.
    pub async fn remove(&self, id: &str, revision: u64) -> Result<(), Denied> {
        let removed = self.store.delete_expect_revision(format!("{SESSION}{}", key_of(id)), Some(revision)).await;
        removed.map_err(away)?;
        let mut known = self.known.lock();
        if let Some(known) = known.get_mut(id).filter(|known| known.revision == revision) {
            known.record = None;
        }
        Ok(())
    }

    /// What is known of a session, asked for where nothing is.
    pub async fn find(&self, id: &str) -> Option<Known> {
        if let Some(known) = self.get(id).filter(|known| known.record.is_some()) {
            return Some(known);
        }
        self.look(id).await.ok()?
    }

    pub fn get(&self, id: &str) -> Option<Known> {
        self.known.lock().get(id).cloned()
    }

    /// All sessions.
    pub fn all(&self) -> Vec<(String, Record, u64)> {
        let known = self.known.lock();
        let there = known.iter().filter_map(|(id, known)| Some((id.clone(), known.record.clone()?, known.revision)));
        there.collect()
    }

    fn note(&self, id: &str, new: Known) -> bool {
        let mut known = self.known.lock();
        let newer = known.get(id).is_none_or(|old| old.revision < new.revision);
        if newer {
            known.insert(id.to_owned(), new);
        }
        newer
    }

    fn read(&self, entry: &Entry) -> Option<(String, Known)> {
        let key = entry.key.strip_prefix(SESSION)?;
        let record: Option<Record> = match entry.operation {
            Operation::Put => Some(serde_json::from_slice(&entry.value).ok()?),
            Operation::Delete | Operation::Purge => None,
        };
        let id = record.as_ref().map_or_else(|| key.replace('=', "."), |record| record.spec.id.clone());
        let known = Known { record, revision: entry.revision };
        self.note(&id, known.clone());
        Some((id, known))
    }

    /// Follows the bucket for ever; `changed` is told of each state that it has or gets.
    pub async fn follow(&self, changed: impl Fn(&str, &Known)) {
        loop {
            match self.store.watch_with_history(">").await {
                Ok(mut watch) => {
                    while let Some(entry) = watch.next().await {
                        let Ok(entry) = entry else { break };
                        if let Some((id, known)) = self.read(&entry) {
                            changed(&id, &known);
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "the sessions of the cluster cannot be watched"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
}

fn text(record: &Record) -> bytes::Bytes {
    // Plain values: always JSON.
    serde_json::to_vec(record).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_what_a_spec_never_shows() {
        let spec = SessionSpec {
            stream_key: Some("correct horse".into()),
            with_publisher: true,
            ..SessionSpec::new("a.b", "relay")
        };
        let record = Record::new(&spec, Some("anna".into()), "a", "1").of("b", "2");
        let read: Record = serde_json::from_slice(&text(&record)).unwrap();
        let back = read.spec();
        assert_eq!(
            (back.id.as_str(), back.stream_key.as_deref(), back.with_publisher),
            ("a.b", Some("correct horse"), true)
        );
        assert_eq!((read.node.as_str(), read.tenant.as_deref()), ("b", Some("anna")));
        assert_eq!(key_of("a.b"), "a=b");
    }
}
