//! Sessions of nodes that have died go on here, where this node is the one that should have them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::{
    Member, Node,
    member::caller_of,
    nodes::{self, ranked},
    records::{Denied, Record},
};
use crate::session::{Peers, Refusal};

const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for the machine of a node that is silent.
const REFUSAL: Duration = Duration::from_millis(150);
/// A session that the node which should have it has not taken by then is anybody's.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Pause before a session that did not fit here is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Which node should have each of the sessions, of the engines that they name: as if they came one after another.
fn assigned(sessions: &BTreeMap<String, String>, mut nodes: Vec<Node>) -> HashMap<String, String> {
    let mut of = HashMap::new();
    for (id, engine) in sessions {
        let Some(name) = ranked(nodes.clone(), engine).into_iter().next().map(|node| node.name) else { break };
        if let Some(node) = nodes.iter_mut().find(|node| node.name == name) {
            node.sessions_free = node.sessions_free.saturating_sub(1);
            node.engines.push(engine.clone());
        }
        of.insert(id.clone(), name);
    }
    of
}

impl Member {
    /// Looks after orphans for ever.
    pub(super) async fn take_over(self: Arc<Self>) {
        let mut since: HashMap<String, Instant> = HashMap::new();
        let mut failed: HashMap<String, Instant> = HashMap::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            if !self.cluster.is_connected() || !self.nodes.hears(now) {
                since.clear();
                continue;
            }
            self.look_for_silent_nodes(now).await;
            let now = Instant::now();
            let mut orphans = self.records.all();
            orphans.retain(|(_, record, _)| !self.nodes.lives(&record.node, &record.instance, now));
            since.retain(|id, _| orphans.iter().any(|(orphan, _, _)| orphan == id));
            failed.retain(|_, at| at.elapsed() < AGAIN);
            if orphans.is_empty() || self.is_draining() {
                continue;
            }
            let engines = orphans.iter().map(|(id, record, _)| (id.clone(), self.engine_of(record))).collect();
            let assigned = assigned(&engines, self.nodes());
            for (id, record, revision) in orphans {
                let waited = since.entry(id.clone()).or_insert(now).elapsed();
                let mine = assigned.get(&id).is_some_and(|name| name == self.cluster.node());
                if (!mine && waited < PATIENCE) || failed.contains_key(&id) || !self.taking.lock().insert(id.clone()) {
                    continue;
                }
                failed.insert(id.clone(), now);
                let own = self.clone();
                tokio::spawn(async move {
                    own.take(&id, &record, revision).await;
                    own.taking.lock().remove(&id);
                });
            }
        }
    }

    /// The process of a node that was killed is gone at once, and its machine says so: nobody waits for it then.
    async fn look_for_silent_nodes(&self, now: Instant) {
        let look = |node: Node| async move { nodes::is_gone(&node.url, REFUSAL).await.then_some(node) };
        for node in join_all(self.nodes.doubted(now).into_iter().map(look)).await.into_iter().flatten() {
            tracing::warn!("node `{}` is silent, and nobody listens at {}: it is gone", node.name, node.url);
            self.nodes.forget(&node.name, &node.instance);
        }
    }

    pub(super) fn engine_of(&self, record: &Record) -> String {
        let spec = record.spec();
        let named = spec.params.get("engine").cloned().or(spec.engine);
        named.unwrap_or_else(|| self.manager.settings().engine.clone())
    }

    /// Takes over a session whose record has `revision`.
    pub(super) async fn take(self: &Arc<Self>, id: &str, record: &Record, revision: u64) -> bool {
        if record.is_publishers() {
            // It begins anew with its publisher.
            let _ = self.records.remove(id, revision).await;
            return false;
        }
        let own = record.of(self.cluster.node(), self.instance());
        let term = match self.records.replace(id, &own, revision).await {
            Ok(term) => term,
            Err(Denied::Taken) => return false,
            Err(away) => {
                tracing::warn!("session `{id}` is not taken over: {away}");
                return false;
            }
        };
        self.go_on(id, &own, term, &record.node).await
    }

    /// Begins a session of which this node has the record `own` by the revision `term`; `of` is the node that had it.
    pub(super) async fn go_on(self: &Arc<Self>, id: &str, own: &Record, term: u64, of: &str) -> bool {
        self.claims.hold(id, term, &own.claim);
        match self.adopt(own).await {
            Ok(()) => {
                self.taken.fetch_add(1, Relaxed);
                tracing::warn!("session `{id}` of node `{of}` goes on here");
                self.tell();
                true
            }
            Err(refusal) => {
                tracing::warn!("session `{id}` of node `{of}` does not go on here: {refusal}");
                self.part(id, "it does not fit");
                // Another try is made of it where this gets no answer.
                let _ = self.records.replace(id, &own.of("", ""), term).await;
                false
            }
        }
    }

    async fn adopt(self: &Arc<Self>, record: &Record) -> Result<(), Refusal> {
        if let Some(cause) = self.refusal() {
            return Err(Refusal::Full(cause));
        }
        let spec = record.spec();
        if let Some(avatar) = &spec.avatar {
            self.fetch_avatar(avatar).await;
        }
        let unknown =
            || Refusal::Invalid("this node knows nothing of its tenant: nodes need the same auth.store".into());
        let caller = caller_of(&self.manager, record.tenant.as_deref()).ok_or_else(unknown)?;
        let manager = self.manager.clone();
        let begun = tokio::task::spawn_blocking(move || manager.adopt(&caller, spec).map(drop)).await;
        begun.unwrap_or_else(|_| Err(Refusal::Failed("it failed; the log says why".into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_are_shared_out_as_if_they_came_one_after_another() {
        let node = |name: &str, free: usize, engine: &str| -> Node {
            serde_json::from_value(serde_json::json!({
                "name": name, "instance": "1", "version": "0", "url": "http://a", "public_url": null, "rtmp": null, "sessions": 0,
                "sessions_free": free, "measured": true, "cores": 1.0, "cores_used": 0.0, "resources": [], "engines": [engine],
                "draining": false
            }))
            .unwrap()
        };
        let sessions = ["p", "q", "r", "s"].map(|id| (id.to_owned(), "x".to_owned())).into();
        let of = assigned(&sessions, vec![node("a", 2, "y"), node("b", 1, "x")]);
        assert_eq!((of["p"].as_str(), of["q"].as_str(), of["r"].as_str()), ("b", "a", "a"));
        assert!(!of.contains_key("s"), "nobody has room");
    }
}
