//! The other machines of a cluster, as the sessions of this one see them.

use std::sync::Arc;

use super::{Refusal, Session};

/// Who knows of sessions elsewhere.
pub trait Peers: Send + Sync {
    /// This node's name.
    fn node(&self) -> &str;

    /// Takes the session's name in the whole cluster, and a place of its tenant's. Blocks for some seconds at most.
    fn claim(&self, session: &Session) -> Result<(), Refusal>;

    /// The session is about to run here.
    fn begins(&self, session: &Arc<Session>);

    /// A session has ended: its name is free.
    fn release(&self, id: &str);

    /// `HOST:PORT` of the node that has the session `id`, or one that is played by the name `play`, by RTMP; `None` where it is here or nowhere.
    fn rtmp_of(&self, id: Option<&str>, play: &str) -> Option<String>;
}
