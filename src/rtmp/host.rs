//! What RTMP asks of the service.

use std::{future::Future, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::name::Name;
use crate::{
    live::{Codec, Inlet, Outlet, Slot, Viewer},
    session::{Manager, Refusal, Session},
    tenants::{Caller, Scope},
};

/// A publisher's entry.
pub struct Guest {
    pub inlet: Inlet,
    /// Of the session; a publisher leaves when it is closed.
    pub outlet: Arc<Outlet>,
    /// Cancelled when what let it in does so no more.
    pub until: CancellationToken,
}

/// The sessions, as the protocol sees them. Whoever implements the protocol anew needs only this.
pub trait Host: Send + Sync + 'static {
    /// Takes a place for the publisher `who`. May block for as long as a graph takes to start.
    fn publish(self: &Arc<Self>, name: &Name, who: &str) -> Result<Guest, Refusal>;

    /// `HOST:PORT` of the server that has what `name` publishes to or plays, where that is another one.
    fn elsewhere(&self, _name: &Name) -> Option<String> {
        None
    }

    /// Watches H.264 and AAC.
    fn watch(&self, name: &Name) -> impl Future<Output = Result<Viewer, Refusal>> + Send;
}

/// Whether `name` gives a key of the tenant that the session belongs to, with the scope. The operator's sessions ask for
/// none here.
fn may(manager: &Manager, session: &Session, name: &Name, scope: Scope) -> Result<Option<Caller>, Refusal> {
    let Some(owner) = session.owner() else { return Ok(Some(Caller::Operator)) };
    let Some(key) = &name.key else { return Ok(None) };
    let known = key.read().iter().find_map(|text| manager.tenants()?.find(text.as_bytes()));
    match known.filter(|key| Arc::ptr_eq(&key.tenant, owner) && key.has(&[scope])) {
        Some(key) => {
            key.request().map_err(|_| Refusal::Invalid("the key asks too often for its tenant's quota".into()))?;
            Ok(Some(Caller::Tenant(key)))
        }
        None => Ok(None),
    }
}

/// Whether it gives the session's own stream key.
fn has_stream_key(session: &Session, name: &Name) -> bool {
    let given = |expected: &String| name.key.as_ref().is_some_and(|key| key.matches(expected));
    session.spec().stream_key.as_ref().is_some_and(given)
}

impl Host for Manager {
    fn publish(self: &Arc<Self>, name: &Name, who: &str) -> Result<Guest, Refusal> {
        let (id, place) = name.publishes().ok_or_else(|| {
            Refusal::Invalid(format!(
                "`{}` cannot be published to: use SESSION, SESSION/voice or SESSION/voice-b",
                name.path
            ))
        })?;
        let matches = |key: &str| name.key.as_ref().is_some_and(|given| given.matches(key));
        let session = match place {
            Slot::Main => self.for_publisher(id, matches)?,
            Slot::Voice | Slot::VoiceB => self.get(id)?,
        };
        let mut caller = Caller::Operator;
        if session.owner().is_some() {
            if !has_stream_key(&session, name) {
                // What belongs to a tenant is not there for whoever has no key to it.
                caller = may(self, &session, name, Scope::Publish)?.ok_or_else(|| Refusal::Unknown(id.to_owned()))?;
            }
        } else if let Some(expected) = &session.spec().stream_key {
            let given = name.key.as_ref().ok_or_else(|| {
                Refusal::Invalid(format!("session `{id}` wants its stream key: add ?key=KEY to the stream's name"))
            })?;
            if !given.matches(expected) {
                return Err(Refusal::Invalid(format!("wrong stream key for session `{id}`")));
            }
        }
        session.has_room()?;
        let inlet = session.publish(place, who)?;
        Ok(Guest { inlet, outlet: session.outlet().clone(), until: caller.until() })
    }

    fn elsewhere(&self, name: &Name) -> Option<String> {
        let id = name.plays().or_else(|| name.publishes().map(|(id, _)| id));
        self.peers()?.rtmp_of(id, &name.path)
    }

    async fn watch(&self, name: &Name) -> Result<Viewer, Refusal> {
        let session = match name.plays() {
            Some(id) => self.get(id)?,
            None => self.by_play_name(&name.path).ok_or_else(|| match name.publishes() {
                Some((id, Slot::Main)) if self.get(id).is_ok_and(|s| s.owner().is_none()) => {
                    Refusal::Invalid(format!("`{id}` is published to; play `{id}/synced`"))
                }
                _ => Refusal::Unknown(name.path.clone()),
            })?,
        };
        let caller = match may(self, &session, name, Scope::Watch)? {
            Some(caller) => caller,
            None if has_stream_key(&session, name) => Caller::Operator,
            None => return Err(Refusal::Unknown(name.plays().unwrap_or(&name.path).to_owned())),
        };
        session.watch_as(&caller, &[Codec::H264, Codec::Aac]).await
    }
}
