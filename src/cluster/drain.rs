//! Sessions leave this node: each moves to another at its next pause of speech, or when the time is over.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::{Member, member::voices, nodes::ranked};
use crate::session::Session;

/// Asked of the node that is to have a session.
const TAKE: &str = "lipstream.take";
const LOOK: Duration = Duration::from_millis(100);
/// How long the sessions that found no node are tried for, after the time is over.
const LAST: Duration = Duration::from_secs(3);
/// Longest wait for a node that takes a session: its graph starts.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct Take {
    id: String,
    revision: u64,
}

impl Member {
    /// Takes no new sessions from now on and moves those that there are. `patience` is how long each may wait for a pause. Returns
    /// at once; [`is_drained`](Self::is_drained) tells when all are gone or have found no place.
    pub fn drain(self: &Arc<Self>, patience: Duration) {
        if self.draining.swap(true, Relaxed) {
            return;
        }
        tracing::warn!("node `{}` is drained: its sessions move within {} s", self.cluster.node(), patience.as_secs());
        self.tell();
        let own = self.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            loop {
                let late = began.elapsed() >= patience;
                for session in own.manager.list() {
                    if late || is_quiet(&session) {
                        own.move_away(&session).await;
                    }
                }
                if own.manager.list().is_empty() || began.elapsed() > patience + LAST {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            own.drained.store(true, Relaxed);
        });
    }

    pub fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }

    async fn move_away(self: &Arc<Self>, session: &Arc<Session>) {
        let id = session.id();
        if self.records.get(id).and_then(|known| known.record).is_none_or(|record| record.is_publishers()) {
            return;
        }
        self.speech_kept(id).await;
        self.moving.lock().insert(id.to_owned());
        let to = self.find_place(session).await;
        self.moving.lock().remove(id);
        if let Some(to) = to {
            let (own, id) = (self.clone(), id.to_owned());
            let _ = tokio::task::spawn_blocking(move || own.part(&id, &to)).await;
        } else if let Some(known) = self.records.get(id) {
            // What was not heeded meanwhile.
            self.heed(id, &known);
        }
    }

    /// Has another node take a session, and says why it is no longer here.
    async fn find_place(self: &Arc<Self>, session: &Arc<Session>) -> Option<String> {
        let (id, own) = (session.id(), self.record(session));
        let others = self.nodes().into_iter().filter(|node| !self.is_own(node)).collect();
        for node in ranked(others, &self.engine_of(&own)) {
            let text =
                serde_json::to_vec(&Take { id: id.to_owned(), revision: self.claims.held(id)? }).unwrap_or_default();
            let request = async_nats::Request::new().payload(text.into()).timeout(Some(PATIENCE));
            let answer = self.cluster.client().send_request(format!("{TAKE}.{}", node.name), request).await;
            if answer.is_ok_and(|answer| &answer.payload[..] == b"taken") {
                self.moved.fetch_add(1, Relaxed);
                return Some(format!("it has moved to node `{}`", node.name));
            }
            // It may have had the session and not started it.
            let known = self.records.find(id).await?;
            if Some(known.revision) == self.claims.held(id) {
                continue;
            }
            match known.record {
                Some(record) if record.node.is_empty() => {
                    // Each try is another claim.
                    let again = own.of(self.cluster.node(), self.instance());
                    match self.records.replace(id, &again, known.revision).await {
                        Ok(revision) => self.claims.hold(id, revision, &again.claim),
                        Err(_) => return Some("another node has it now".into()),
                    }
                }
                Some(record) => return Some(format!("node `{}` has it now", record.node)),
                None => return Some("it was ended".into()),
            }
        }
        None
    }

    /// Answers nodes that move sessions here.
    pub(super) async fn listen_for_moves(self: Arc<Self>) -> Result<(), async_nats::SubscribeError> {
        let mut asked = self.cluster.client().subscribe(format!("{TAKE}.{}", self.cluster.node())).await?;
        tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                let (Some(reply), Ok(take)) = (message.reply, serde_json::from_slice::<Take>(&message.payload)) else {
                    continue;
                };
                let own = self.clone();
                tokio::spawn(async move {
                    let taken = own.take_moved(&take).await;
                    let word: &'static [u8] = if taken { b"taken" } else { b"no" };
                    let _ = own.cluster.client().publish(reply, word.into()).await;
                });
            }
        });
        Ok(())
    }

    async fn take_moved(self: &Arc<Self>, take: &Take) -> bool {
        let known = self.records.find(&take.id).await.filter(|known| known.revision == take.revision);
        let Some(record) = known.and_then(|known| known.record) else { return false };
        if self.is_draining() || !self.taking.lock().insert(take.id.clone()) {
            return false;
        }
        let taken = self.take(&take.id, &record, take.revision).await;
        self.taking.lock().remove(&take.id);
        taken
    }
}

/// It says nothing and has nothing to say.
fn is_quiet(session: &Session) -> bool {
    voices(session).iter().all(|(_, speech)| !speech.speaking() && speech.queued().is_zero())
}
