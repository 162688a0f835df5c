//! Which sessions' records this node holds, and what becomes of records and sessions that have come apart.
//!
//! The servers may take a claim after this node has given it up. Where a session was to be created the client was told that it is not,
//! and the record is removed; where one was taken over the record is this node's, and the session goes on here.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    Member,
    member::voices,
    quota,
    records::{Denied, Known, Record},
};
use crate::{
    session::{Refusal, Session},
    tenants::Exceeded,
};

/// How often it is looked whether records and sessions agree.
const TIDY: Duration = Duration::from_secs(2);
/// Most claims that are remembered after their sessions.
const REMEMBERED: usize = 10_000;

/// See the module.
#[derive(Default)]
pub(super) struct Claims(Mutex<State>);

#[derive(Default)]
struct State {
    /// Revisions and claims of the records of the sessions that are here.
    held: HashMap<String, (u64, String)>,
    /// Claims whose sessions have ended or were never begun: their records are of no use.
    over: VecDeque<String>,
}

impl State {
    fn end(&mut self, claim: String) {
        if self.over.len() >= REMEMBERED {
            self.over.pop_front();
        }
        self.over.push_back(claim);
    }
}

impl Claims {
    pub fn hold(&self, id: &str, revision: u64, claim: &str) {
        self.0.lock().held.insert(id.to_owned(), (revision, claim.to_owned()));
    }

    /// The revision of the record of a session that is here.
    pub fn held(&self, id: &str) -> Option<u64> {
        self.0.lock().held.get(id).map(|(revision, _)| *revision)
    }

    /// The session has ended, and its record with it.
    pub fn end(&self, id: &str) -> Option<u64> {
        let mut state = self.0.lock();
        let (revision, claim) = state.held.remove(id)?;
        state.end(claim);
        Some(revision)
    }

    /// The session is no longer here; its record goes on.
    pub fn part(&self, id: &str) {
        self.0.lock().held.remove(id);
    }

    /// A claim without an answer is given up: nobody waits for its record.
    fn give_up(&self, claim: &str) {
        self.0.lock().end(claim.to_owned());
    }

    fn is_over(&self, claim: &str) -> bool {
        self.0.lock().over.iter().any(|over| over == claim)
    }
}

impl Member {
    /// A record has changed.
    pub(super) fn heed(&self, id: &str, known: &Known) {
        let Some(held) = self.claims.held(id).filter(|held| *held < known.revision) else { return };
        if self.moving.lock().contains(id) {
            return;
        }
        let cause = match &known.record {
            Some(record) if record.instance == self.instance() => {
                self.claims.hold(id, known.revision, &record.claim);
                return;
            }
            Some(record) if record.node.is_empty() => "it was given up in the cluster".to_owned(),
            Some(record) => format!("node `{}` has it now (revision {} after {held})", record.node, known.revision),
            None => "it was ended in the cluster while this node was away".to_owned(),
        };
        self.yielded.fetch_add(1, Relaxed);
        let (own, id) = (self.this(), id.to_owned());
        self.runtime.spawn_blocking(move || {
            if let Some(own) = own {
                own.part(&id, &cause);
            }
        });
    }

    /// Ends a session here that another node has. What it has to say stays kept.
    pub(super) fn part(&self, id: &str, cause: &str) {
        self.claims.part(id);
        self.keep_no_more(id);
        if let Ok(session) = self.manager.get(id) {
            voices(&session).iter().for_each(|(_, queue)| queue.set_keeper(None));
            tracing::warn!("session `{id}` ends here: {cause}");
            self.manager.part(id);
        }
        self.tell();
    }

    /// Brings records and sessions together that have come apart while the servers were away, and makes the engines ready that sessions
    /// elsewhere have.
    pub(super) async fn tidy(self: Arc<Self>) {
        let mut ready = BTreeSet::new();
        loop {
            tokio::time::sleep(TIDY).await;
            if !self.cluster.is_connected() {
                continue;
            }
            let engines: BTreeSet<String> =
                self.records.all().iter().map(|(_, record, _)| self.engine_of(record)).collect();
            if engines != ready {
                ready = engines.clone();
                let own = self.clone();
                tokio::task::spawn_blocking(move || own.make_ready(&engines));
            }
            for (id, record, revision) in self.records.all() {
                if record.instance == self.instance() && self.manager.get(&id).is_err() {
                    self.settle(&id, record, revision).await;
                }
            }
            for session in self.manager.list() {
                // The bucket has been lost.
                if self.claims.held(session.id()).is_none() || self.records.get(session.id()).is_some() {
                    continue;
                }
                let record = self.record(&session);
                if let Ok(revision) = self.records.create(session.id(), &record).await {
                    self.claims.hold(session.id(), revision, &record.claim);
                }
            }
        }
    }

    /// Measures `engines` and loads those that no card runs, for as long as a session of the cluster has them: one that is taken over waits for
    /// neither.
    fn make_ready(&self, engines: &BTreeSet<String>) {
        let mut warm = self.warm.lock();
        warm.retain(|engine, _| engines.contains(engine));
        for engine in engines {
            self.manager.calibrate_engine(engine);
            if !warm.contains_key(engine)
                && let Some(worker) = self.manager.warm(engine)
            {
                warm.insert(engine.clone(), worker);
            }
        }
    }

    /// What becomes of a record of this node's without a session.
    async fn settle(self: &Arc<Self>, id: &str, record: Record, revision: u64) {
        if self.claims.is_over(&record.claim) || record.is_publishers() {
            // It has ended here, and nobody could be told.
            if self.records.remove(id, revision).await.is_ok() {
                if let Some(tenant) = &record.tenant {
                    quota::give_back(self.records.store(), tenant, id).await;
                }
                self.forget_speech(id).await;
            }
        } else if self.claims.held(id).is_none() && self.taking.lock().insert(id.to_owned()) {
            // The record came after the claim was given up; the session may have begun since it was looked for.
            if self.manager.get(id).is_err() && self.claims.held(id).is_none() {
                let (own, id) = (self.clone(), id.to_owned());
                tokio::spawn(async move {
                    own.go_on(&id, &record, revision, &record.node).await;
                    own.taking.lock().remove(&id);
                });
            } else {
                self.taking.lock().remove(id);
            }
        }
    }

    /// Takes the name of a session that is created, and a place of its tenant's.
    pub(super) async fn claim_name(&self, session: &Session) -> Result<(), Refusal> {
        let id = session.id();
        if let Some(play) = &session.spec().play
            && let Some((other, _, _)) =
                self.records.all().into_iter().find(|(other, record, _)| other != id && record.play() == Some(play))
        {
            let seen = session.owner().is_none();
            return Err(Refusal::Conflict(match seen {
                true => format!("play: session `{other}` is played as `{play}` already"),
                false => format!("play: the name `{play}` is taken"),
            }));
        }
        if !self.cluster.is_connected() {
            return Err(Refusal::Full(Denied::Away("there is no connection".into()).to_string()));
        }
        let owner = session.owner();
        if let Some(owner) = owner {
            let most = owner.limits().sessions;
            let known = |id: &str| self.records.get(id).is_some_and(|known| known.record.is_some());
            match quota::take(self.records.store(), &owner.name, id, most, known).await {
                Ok(true) => {}
                Ok(false) => {
                    let most = most.unwrap_or_default();
                    let cause = format!(
                        "the tenant has {most} sessions in the cluster, the most that its quota allows: end one"
                    );
                    return Err(Exceeded(cause).into());
                }
                Err(cause) => return Err(Refusal::Full(Denied::Away(cause).to_string())),
            }
        }
        let record = self.record(session);
        let denied = match self.take_name(id, &record).await {
            Ok(revision) => {
                self.claims.hold(id, revision, &record.claim);
                return Ok(());
            }
            Err(denied) => denied,
        };
        let of_owner = |name: &str| {
            let known = self.records.get(id).and_then(|known| known.record);
            known.is_some_and(|record| record.tenant.as_deref() == Some(name))
        };
        if let Some(owner) = owner.filter(|owner| !of_owner(&owner.name)) {
            quota::give_back(self.records.store(), &owner.name, id).await;
        }
        Err(match denied {
            Denied::Taken => Refusal::Conflict(format!("there is a session `{id}` in the cluster already")),
            away @ Denied::Away(_) => {
                self.claims.give_up(&record.claim);
                Refusal::Full(away.to_string())
            }
        })
    }

    /// Takes a name that nobody has, or only a record of this node's that is over.
    async fn take_name(&self, id: &str, record: &Record) -> Result<u64, Denied> {
        let taken = self.records.create(id, record).await;
        if !matches!(taken, Err(Denied::Taken)) {
            return taken;
        }
        let own = |old: &Record| old.instance == self.instance() && self.claims.is_over(&old.claim);
        match self.records.get(id).filter(|known| known.record.as_ref().is_some_and(own)) {
            Some(known) => self.records.replace(id, record, known.revision).await,
            None => taken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_sessions_that_are_over_are_known_and_bounded() {
        let claims = Claims::default();
        claims.hold("a", 7, "first");
        assert_eq!((claims.held("a"), claims.is_over("first")), (Some(7), false));
        assert_eq!((claims.end("a"), claims.held("a"), claims.is_over("first")), (Some(7), None, true));
        assert_eq!(claims.end("a"), None);
        claims.hold("a", 9, "second");
        claims.part("a");
        assert!(claims.held("a").is_none() && !claims.is_over("second"), "another node goes on with its record");
        (0..REMEMBERED).for_each(|n| claims.give_up(&n.to_string()));
        assert!(!claims.is_over("first") && claims.is_over("0"));
    }
}
