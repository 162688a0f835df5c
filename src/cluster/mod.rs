//! Many machines that share sessions. They meet at NATS servers with JetStream; without `--cluster` nothing here runs.
//!
//! ```text
//! nodes ── lipstream.node.NAME, each second ──► who lives, what each holds
//! lipstream_sessions (bucket)  ──────────────► who has which session; a name is given and changes hands once
//! lipstream_speech (stream)    ──────────────► what sessions have still to say
//! HTTP from node to node       ──────────────► requests for sessions elsewhere, avatars
//! ```
//!
//! - [`connection`]: the way to the NATS servers, which comes back by itself; [`nodes`]: who lives; [`records`]: who has what.
//! - [`member`]: this node; [`peers`]: what its sessions ask; [`claims`]: records that it holds; [`takeover`]: sessions of dead nodes; [`drain`]: sessions leave this one; [`quota`]: what tenants hold.
//! - [`speech`]: what is still to be said; [`avatars`]: every node has all of them.
//! - [`proxy`]: requests that another node answers.

mod avatars;
mod claims;
mod connection;
mod drain;
mod member;
mod nodes;
mod peers;
mod proxy;
mod quota;
mod records;
mod speech;
mod takeover;

pub use self::{
    avatars::{Listed as ListedAvatar, read as read_avatar},
    connection::{Cluster, Settings},
    member::{Addresses, Member, Stats},
    nodes::Node,
    proxy::{NODE_HEADER, forward},
};

use crate::error::{Failure, Result};

/// Whether `name` can be a node's: a part of subjects, of URLs and of metrics as it is.
pub fn check_name(name: &str) -> Result<(), String> {
    let good = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if good { Ok(()) } else { Err("must be 1 to 64 of a-z A-Z 0-9 _ -".into()) }
}

/// Reads bytes as each kind of message and entry that comes from NATS does.
#[doc(hidden)]
pub fn read_from_nats(bytes: &[u8]) {
    let now = std::time::Instant::now();
    let nodes = nodes::Nodes::new("own", "own");
    nodes.hear(bytes, now);
    let _ = (nodes.hears(now), nodes::ranked(nodes.live(now), "compact-words"));
    if let Ok(record) = serde_json::from_slice::<records::Record>(bytes) {
        let record = record.of("node", "instance");
        let _ = (record.spec().check(), record.play(), records::key_of(&record.spec().id));
        let again = serde_json::to_vec(&record).map(|text| serde_json::from_slice::<records::Record>(&text).is_ok());
        assert!(matches!(again, Ok(true)), "what is kept is read again");
    }
    let _ = serde_json::from_slice::<ListedAvatar>(bytes);
    speech::read_messages(bytes);
}

/// The machine's name as a node's.
pub fn host_name() -> Result<String> {
    let uname = rustix::system::uname();
    let name: String = uname.nodename().to_string_lossy().chars().map(|c| if c == '.' { '-' } else { c }).collect();
    let cure =
        |must| Failure::usage(format!("the machine is called `{name}`, and a node's name {must}: set cluster.node"));
    check_name(&name).map_err(cure)?;
    Ok(name)
}
