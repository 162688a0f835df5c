//! The nodes that are heard, and what each holds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::session::Resource;

/// A node that has not been heard for so long is dead.
pub const SILENCE: Duration = Duration::from_millis(2500);
/// Age of a last word from which it is looked whether the node is still there: where its machine says no, nobody waits for [`SILENCE`].
const DOUBT: Duration = Duration::from_millis(1200);
/// Age of its own last word up to which a node says who is dead. Others' last words may be a beat older: where the servers stop for
/// everybody, this is over before the first of them has been silent for [`SILENCE`].
const FRESH: Duration = Duration::from_millis(1300);
/// How long a node has heard itself before it says who is dead: others that the servers had left too are back by then.
const SETTLED: Duration = Duration::from_secs(6);
/// How often a node tells of itself.
pub const BEAT: Duration = Duration::from_secs(1);
/// Most nodes that are remembered.
const MAX_NODES: usize = 1000;
/// Longest announcement that is read, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// What a node says of itself, each second and with each change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    pub name: String,
    /// Another one with each start of the node.
    pub instance: String,
    pub version: String,
    /// Where other nodes reach it by HTTP.
    pub url: String,
    /// Where clients reach it, where it has a public URL.
    pub public_url: Option<String>,
    /// `HOST:PORT` of its RTMP, where that is on.
    pub rtmp: Option<String>,
    pub sessions: usize,
    /// 720p25 sessions that still fit, by measured prices, beside all that it has, running or not.
    pub sessions_free: usize,
    /// Whether the prices have been measured yet.
    pub measured: bool,
    pub cores: f64,
    pub cores_used: f64,
    /// What sessions share of it, with what is taken and what one more would add.
    pub resources: Vec<Resource>,
    /// Engines that its sessions have loaded.
    pub engines: Vec<String>,
    /// It takes no new sessions, and those that it has move away.
    pub draining: bool,
    /// Milliseconds since it was heard last; 0 of the node that was asked.
    #[serde(default)]
    pub heard_ms: u64,
    /// Its last word.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(ignore)]
    pub leaving: bool,
}

struct Heard {
    node: Node,
    at: Instant,
}

#[derive(Default)]
struct State {
    heard: BTreeMap<String, Heard>,
    /// When this node began to hear itself through the servers without a gap, and when it did last.
    echo: Option<(Instant, Instant)>,
}

/// See the module.
pub struct Nodes {
    name: String,
    instance: String,
    state: Mutex<State>,
}

impl Nodes {
    /// As the node `name` sees them in its start `instance`.
    pub fn new(name: &str, instance: &str) -> Self {
        Self { name: name.to_owned(), instance: instance.to_owned(), state: Mutex::default() }
    }

    /// An announcement has come.
    pub fn hear(&self, text: &[u8], now: Instant) {
        if text.len() > MAX_TEXT {
            return;
        }
        let Ok(node) = serde_json::from_slice::<Node>(text) else { return };
        let mut state = self.state.lock();
        if node.name == self.name {
            if node.instance != self.instance {
                return;
            }
            let since = state.echo.filter(|(_, last)| now.saturating_duration_since(*last) < SILENCE);
            state.echo = Some((since.map_or(now, |(since, _)| since), now));
        }
        if node.leaving {
            state.heard.remove(&node.name);
        } else if super::check_name(&node.name).is_ok()
            && (state.heard.len() < MAX_NODES || state.heard.contains_key(&node.name))
        {
            state.heard.insert(node.name.clone(), Heard { node, at: now });
        }
    }

    /// Whether this node has heard itself for long enough to say who is dead: else it is the one that is cut off.
    pub fn hears(&self, now: Instant) -> bool {
        self.state.lock().echo.is_some_and(|(since, last)| {
            now.saturating_duration_since(since) >= SETTLED && now.saturating_duration_since(last) < FRESH
        })
    }

    /// Those that live, in the order of their names.
    pub fn live(&self, now: Instant) -> Vec<Node> {
        let state = self.state.lock();
        let live = state.heard.values().filter(|heard| now.saturating_duration_since(heard.at) < SILENCE);
        let aged = |heard: &Heard| {
            let age = now.saturating_duration_since(heard.at).as_millis();
            Node { heard_ms: u64::try_from(age).unwrap_or(u64::MAX), ..heard.node.clone() }
        };
        live.map(aged).collect()
    }

    /// Others that live and have been silent for long enough to be looked for.
    pub fn doubted(&self, now: Instant) -> Vec<Node> {
        let doubted = |node: &Node| node.name != self.name && node.heard_ms as u128 >= DOUBT.as_millis();
        self.live(now).into_iter().filter(doubted).collect()
    }

    /// The start `instance` of the node `name` is over. Where it is heard again it was not.
    pub fn forget(&self, name: &str, instance: &str) {
        let mut state = self.state.lock();
        if state.heard.get(name).is_some_and(|heard| heard.node.instance == instance) {
            state.heard.remove(name);
        }
    }

    /// The node `name`, where it lives.
    pub fn get(&self, name: &str, now: Instant) -> Option<Node> {
        let state = self.state.lock();
        let heard = state.heard.get(name)?;
        (now.saturating_duration_since(heard.at) < SILENCE).then(|| heard.node.clone())
    }

    /// Whether the start `instance` of the node `name` lives.
    pub fn lives(&self, name: &str, instance: &str, now: Instant) -> bool {
        self.get(name, now).is_some_and(|node| node.instance == instance)
    }
}

/// Whether a node's machine says that nobody listens at the node's `url`. One that says nothing within `patience` may be cut off.
pub async fn is_gone(url: &str, patience: Duration) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return false };
    let host = match host {
        url::Host::Domain(name) => name.to_owned(),
        url::Host::Ipv4(address) => address.to_string(),
        url::Host::Ipv6(address) => address.to_string(),
    };
    let connected = tokio::time::timeout(patience, tokio::net::TcpStream::connect((host, port))).await;
    matches!(connected, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Nodes in the order in which a session of `engine` is tried on them: where the engine is loaded already first, then where most fit.
/// Those that take none are left out; those whose prices are not measured yet come last.
pub fn ranked(mut nodes: Vec<Node>, engine: &str) -> Vec<Node> {
    nodes.retain(|node| !node.draining && (node.sessions_free > 0 || !node.measured));
    nodes.sort_by_key(|node| {
        let warm = node.engines.iter().any(|loaded| loaded == engine);
        (!node.measured, !warm, std::cmp::Reverse(node.sessions_free), node.name.clone())
    });
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, free: usize, engines: &[&str]) -> Node {
        Node {
            name: name.into(),
            instance: "1".into(),
            version: "0".into(),
            url: "http://127.0.0.1:1".into(),
            public_url: None,
            rtmp: None,
            sessions: 0,
            sessions_free: free,
            measured: true,
            cores: 2.0,
            cores_used: 0.0,
            resources: Vec::new(),
            engines: engines.iter().map(|engine| (*engine).to_owned()).collect(),
            draining: false,
            heard_ms: 0,
            leaving: false,
        }
    }

    fn text(node: &Node) -> Vec<u8> {
        serde_json::to_vec(node).unwrap()
    }

    #[test]
    fn a_session_goes_where_its_engine_is_loaded_then_where_most_fit() {
        let names = |nodes, engine| Vec::from_iter(ranked(nodes, engine).into_iter().map(|node| node.name));
        let full = node("f", 0, &["x"]);
        let away = Node { draining: true, ..node("w", 9, &["x"]) };
        let cold = Node { measured: false, ..node("c", 0, &[]) };
        let nodes = vec![cold, full, away, node("d", 3, &[]), node("b", 1, &["x"]), node("a", 3, &[])];
        assert_eq!(names(nodes.clone(), "x"), ["b", "a", "d", "c"]);
        assert_eq!(names(nodes, "y"), ["a", "d", "b", "c"]);
    }

    #[test]
    fn a_node_that_is_silent_is_dead_and_one_that_is_cut_off_judges_nobody() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let nodes = Nodes::new("a", "1");
        nodes.hear(&text(&node("b", 1, &[])), start);
        nodes.hear(&text(&node("a", 1, &[])), start);
        assert!(nodes.lives("b", "1", start + ms(2400)) && !nodes.lives("b", "1", start + ms(2500)));
        assert!(!nodes.lives("b", "2", start), "another start of it");
        assert_eq!(nodes.live(start + ms(1400)).iter().map(|node| node.heard_ms).collect::<Vec<_>>(), [1400, 1400]);
        assert!(!nodes.hears(start + ms(1000)), "it has just begun to hear");
        for beat in 1..8 {
            nodes.hear(&text(&node("a", 1, &[])), start + ms(1000) * beat);
        }
        assert!(!nodes.hears(start + ms(5900)) && nodes.hears(start + ms(7100)));
        assert!(!nodes.hears(start + ms(8400)), "the servers may have stopped for everybody");
        nodes.hear(&text(&node("a", 1, &[])), start + ms(12_000));
        assert!(!nodes.hears(start + ms(12_100)), "others have had no time to be heard");
        nodes.hear(&text(&Node { leaving: true, ..node("b", 1, &[]) }), start + ms(100));
        assert!(nodes.get("b", start + ms(100)).is_none());
        assert!(nodes.doubted(start + ms(12_100)).is_empty());
        assert_eq!(nodes.doubted(start + ms(13_200)), [], "it does not doubt itself");
        let late = start + ms(20_000);
        nodes.hear(&text(&node("b", 1, &[])), late);
        assert_eq!(nodes.doubted(late + ms(1100)), []);
        assert_eq!(nodes.doubted(late + ms(1200)).iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["b"]);
        nodes.forget("b", "2");
        assert!(nodes.lives("b", "1", late + ms(1300)), "that was another start of it");
        nodes.forget("b", "1");
        assert!(!nodes.lives("b", "1", late + ms(1300)));
        nodes.hear(b"{\"name\": 7}", start);
        nodes.hear(&vec![b'['; MAX_TEXT + 1], start);
    }

    #[tokio::test]
    async fn a_node_is_gone_where_its_machine_refuses() {
        let long = Duration::from_secs(20);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        assert!(!is_gone(&url, long).await);
        drop(listener);
        assert!(is_gone(&url, long).await);
        for wrong in ["", "nonsense", "unix:/tmp/x"] {
            assert!(!is_gone(wrong, long).await, "{wrong}");
        }
    }
}
