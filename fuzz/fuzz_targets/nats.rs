//! What comes from NATS: beats of nodes, who has which session, unspoken speech, jobs and their parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::{cluster, jobs};

fuzz_target!(|bytes: &[u8]| {
    cluster::read_from_nats(bytes);
    jobs::read_from_nats(bytes);
});
