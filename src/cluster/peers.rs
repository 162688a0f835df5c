//! What the sessions of this node ask of the cluster.

use std::{sync::Arc, time::Instant};

use super::{Member, quota};
use crate::session::{Peers, Refusal, Session};

impl Peers for Member {
    fn node(&self) -> &str {
        self.cluster.node()
    }

    fn refusal(&self) -> Option<String> {
        self.is_draining()
            .then(|| "this node is being drained: its sessions move to others, and it takes no new ones".into())
    }

    fn claim(&self, session: &Session) -> Result<(), Refusal> {
        self.refusal().map_or(Ok(()), |cause| Err(Refusal::Full(cause)))?;
        self.runtime.block_on(self.claim_name(session))
    }

    fn begins(&self, session: &Arc<Session>) {
        self.tell();
        let (Some(own), Some(term)) = (self.this(), self.claims.held(session.id())) else { return };
        let (session, taken) = (session.clone(), self.taking.lock().contains(session.id()));
        self.runtime.spawn(async move { own.keep_speech(&session, term, taken).await });
    }

    fn release(&self, id: &str) {
        let revision = self.claims.end(id);
        self.keep_no_more(id);
        self.tell();
        let (Some(own), Some(revision), id) = (self.this(), revision, id.to_owned()) else { return };
        self.runtime.spawn(async move {
            let tenant = own.records.get(&id).and_then(|known| known.record?.tenant);
            if let Err(error) = own.records.remove(&id, revision).await {
                tracing::info!("session `{id}` has ended, of which the cluster hears later: {error}");
                return;
            }
            if let Some(tenant) = tenant {
                quota::give_back(own.records.store(), &tenant, &id).await;
            }
            own.forget_speech(&id).await;
        });
    }

    fn rtmp_of(&self, id: Option<&str>, play: &str) -> Option<String> {
        let here = id.is_some_and(|id| self.manager.get(id).is_ok()) || self.manager.by_play_name(play).is_some();
        if here {
            return None;
        }
        let all = self.records.all();
        let (_, record, _) =
            all.iter().find(|(known, record, _)| Some(known.as_str()) == id || record.play() == Some(play))?;
        let node = self.nodes.get(&record.node, Instant::now()).filter(|node| !self.is_own(node))?;
        node.rtmp
    }
}
