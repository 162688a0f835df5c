//! Every route, with a key of each kind, by what the document allows and what it does not: `tests/api/every_key.py`.

use std::process::Command;

use lipstream::tenants::scope::{Allow, ROUTES};
use serde_json::{Value, json};

use super::{
    KEY, NO_DEMO, Server,
    common::{nats::Nats, *},
};

/// How many of an operation's requests are tried with each key, and half as many that are wrong: hundreds take an hour.
const EXAMPLES: &str = "LIPSTREAM_API_EXAMPLES";

fn table() -> Value {
    let rows = ROUTES.iter().map(|route| {
        let allow = match route.allow {
            Allow::Public => json!("public"),
            Allow::Operator => json!("operator"),
            Allow::Node => json!("node"),
            Allow::Token => json!("token"),
            Allow::Scopes(scopes) => json!(scopes),
        };
        let object = format!("{:?}", route.object).to_lowercase();
        json!({"method": route.method, "path": route.path, "allow": allow, "object": object})
    });
    rows.collect()
}

#[test]
fn every_route_answers_as_documented_whatever_it_is_sent_and_whatever_the_key_may() {
    let python = root().join(".lipstream/api/bin/python");
    if !python.is_file() {
        eprintln!("skipped: no schemathesis (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh installs it)");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(nats) = Nats::start(&folder.path().join("nats")) else { return };
    let store = format!("sqlite://{}", folder.path().join("tenants.db").display());
    let place = format!("file://{}", folder.path().join("objects").display());
    let mut server = Server::start(&[
        NO_DEMO,
        ("LIPSTREAM_CLUSTER_URL", &nats.url),
        ("LIPSTREAM_STORAGE_URL", &place),
        ("LIPSTREAM_AUTH_STORE", &store),
        ("LIPSTREAM_AUTH_KEYS", KEY),
        // That there is no room is an answer too, but hides the others.
        ("LIPSTREAM_AVATARS_MAX_WAITING", "100"),
        ("LIPSTREAM_RENDERS_MAX_WAITING", "1000"),
        ("LIPSTREAM_LIMITS_BODY_IDLE_SECONDS", "5"),
    ]);
    server.key = Some(KEY);
    let routes = folder.path().join("routes.json");
    std::fs::write(&routes, table().to_string()).expect("is written");
    let examples = std::env::var(EXAMPLES).unwrap_or_else(|_| "2".into());
    let mut command = Command::new(python);
    command.arg(root().join("tests/api/every_key.py")).arg(&server.url).arg(&routes).arg(examples);
    // Each request has its own limit of time.
    let status = command.env("LIPSTREAM_KEY", KEY).env("PYTHONDONTWRITEBYTECODE", "1").status().expect("is started");
    assert!(status.success(), "what is above was answered wrongly");
    server.json("GET", "/api/v1/cluster", None, 200);
}
