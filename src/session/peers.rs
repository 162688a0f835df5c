//! The other machines of a cluster, as the sessions of this one see them.

use std::sync::Arc;

use super::{Refusal, Session};

/// Who knows of sessions elsewhere.
pub trait Peers: Send + Sync {
    /// This node's name.
    fn node(&self) -> &str;

    /// Why this node takes no new sessions, whatever room it has.
    fn refusal(&self) -> Option<String>;

    /// Takes the session's name in the whole cluster, and a place of its tenant's. Blocks for some seconds at most.
    fn claim(&self, session: &Session) -> Result<(), Refusal>;

    /// The session is about to run here.
    fn begins(&self, session: &Arc<Session>);

    /// A session has ended: its name is free.
    fn release(&self, id: &str);

    /// `HOST:PORT` of the node that has the session `id`, or one that is played by the name `play`, by RTMP; `None` where it is here or nowhere.
    fn rtmp_of(&self, id: Option<&str>, play: &str) -> Option<String>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        avatar,
        session::{Manager, Settings},
    };

    struct Drained;

    impl Peers for Drained {
        fn node(&self) -> &str {
            "a"
        }

        fn refusal(&self) -> Option<String> {
            Some("it is drained".into())
        }

        fn claim(&self, _session: &Session) -> Result<(), Refusal> {
            Ok(())
        }

        fn begins(&self, _session: &Arc<Session>) {}

        fn release(&self, _id: &str) {}

        fn rtmp_of(&self, _id: Option<&str>, _play: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn a_node_that_takes_no_sessions_is_full_whatever_room_it_has() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager::new(Settings::default(), avatar::Store::open(folder.path()).unwrap());
        assert_ne!(manager.capacity().full.as_deref(), Some("it is drained"));
        manager.set_peers(Arc::new(Drained));
        assert_eq!(manager.capacity().full.as_deref(), Some("it is drained"));
    }
}
