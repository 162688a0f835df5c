use super::*;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config> {
    let mut config = Config::parse("config.toml", text)?;
    config.override_by(environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))?;
    config.check()?;
    Ok(config)
}

#[track_caller]
fn refused(text: &str, environment: &[(&str, &str)], parts: &[&str]) {
    let message = load(text, environment).expect_err("should be refused").to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}

#[test]
fn the_printed_file_is_the_defaults() {
    let printed = Config::parse("printed", &Config::template()).expect("the printed file parses");
    assert_eq!(printed, Config::default());
    printed.check().expect("the defaults are allowed");
}

#[test]
fn the_examples_in_the_printed_file_are_sessions() {
    let text: String = SESSION_HELP
        .lines()
        .filter(|line| line.starts_with("#[[") || line.split_once(" = ").is_some())
        .map(|line| format!("{}\n", line.trim_start_matches('#')))
        .collect();
    let config = load(&text, &[]).expect("the examples parse");
    assert_eq!(config.session.0.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["anna", "stage", "remote"]);
}

#[test]
fn sessions_of_the_file_have_the_keys_of_those_that_are_created_by_http() {
    let schema = serde_json::to_value(<SessionSpec as utoipa::PartialSchema>::schema()).unwrap();
    let mut created: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut listed = SESSION_KEYS;
    created.sort_unstable();
    listed.sort_unstable();
    assert_eq!(created, listed);
}

#[test]
fn a_wrong_value_is_named_with_what_is_allowed() {
    refused("[server]\nport = 70000", &[], &["server.port = 70000", "0..65535"]);
    refused("[sessions]\nload = 0.01", &[], &["sessions.load = 0.01", "0.05..1000"]);
    refused("[server]\nbind = \"here\"", &[], &["server.bind = \"here\"", "IP address"]);
    refused("[sessions]\ndevice = \"tpu\"", &[], &["sessions.device", "openvino"]);
    refused("[server]\ncors_origins = [\"https://a.example/path\"]", &[], &["server.cors_origins", "origin"]);
    refused("[webrtc]\nudp_port_min = 5000", &[], &["udp_port_min = 5000", "a range"]);
    refused("server = 3", &[], &["server = 3", "section"]);
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    refused("[server]\nprot = 80", &[], &["[server]", "`prot`", "did you mean `port`?"]);
    refused("[sesions]\n", &[], &["[sesions]", "did you mean `sessions`?"]);
    refused("[[session]]\nid = \"a\"\ngrap = \"b\"", &[], &["`a`", "`grap`", "did you mean `graph`?"]);
    refused("", &[("LIPSTREAM_SERVER_PROT", "80")], &["LIPSTREAM_SERVER_PROT", "did you mean `port`?"]);
}

#[test]
fn the_environment_goes_before_the_file() {
    let environment = [
        ("LIPSTREAM_SERVER_PORT", "9000"),
        ("LIPSTREAM_SERVER_CORS_ORIGINS", "https://a.example, https://b.example"),
        ("LIPSTREAM_SESSIONS_DEMO", "false"),
        ("LIPSTREAM_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    let config = load("[server]\nport = 1", &environment).expect("is allowed");
    assert_eq!((config.server.port, config.server.cors_origins.len(), config.sessions.demo), (9000, 2, false));
    assert!(config.specs().is_empty());
    refused("", &[("LIPSTREAM_SERVER_PORT", "many")], &["LIPSTREAM_SERVER_PORT=many", "whole number"]);
}

#[test]
fn beyond_loopback_needs_keys_or_a_word() {
    let open = "[server]\nbind = \"0.0.0.0\"";
    refused(open, &[], &["server.bind", "auth.keys", "allow_open"]);
    refused("[rtmp]\nbind = \"0.0.0.0\"", &[], &["rtmp.bind"]);
    load(&format!("{open}\n[auth]\nallow_open = true"), &[]).expect("is allowed");
    load(&format!("{open}\n[auth]\nkeys = [\"0123456789abcdef\"]"), &[]).expect("is allowed");
}

#[test]
fn a_public_url_needs_keys_and_opens_webrtc_to_other_machines() {
    let public = "[server]\npublic_url = \"https://lips.example\"";
    refused(public, &[], &["server.public_url", "auth.keys", "allow_open"]);
    let config = load(&format!("{public}\n[auth]\nkeys = [\"0123456789abcdef\"]"), &[]).expect("is allowed");
    assert!(config.webrtc().bind.is_empty() && !config.webrtc().this_machine, "media passes no proxy");
    let config = load("[server]\npublic_url = \"https://127.0.0.1:8443\"", &[]).expect("a proxy for this machine only");
    assert_eq!((config.webrtc().bind, config.webrtc().this_machine), (vec![config.server.bind], true));
}

#[test]
fn keys_are_never_shown() {
    let message = load("[auth]\nkeys = [\"hunter2\"]", &[]).expect_err("is too short").to_string();
    assert!(message.contains("auth.keys") && message.contains("16") && !message.contains("hunter2"), "{message}");
    let config = load("[auth]\nkeys = [\"0123456789abcdef\"]", &[]).expect("is allowed");
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

#[test]
fn the_demo_gives_way_to_a_session_of_its_name() {
    let config = load("[[session]]\nid = \"demo\"\ngraph = \"relay\"", &[]).expect("is allowed");
    let specs = config.specs();
    assert_eq!((specs.len(), specs[0].graph.as_str()), (1, "relay"));
    refused("[[session]]\nid=\"a\"\ngraph=\"b\"\n[[session]]\nid=\"a\"\ngraph=\"b\"", &[], &["\"a\"", "twice"]);
}

#[test]
fn turn_servers_carry_their_user() {
    let config = load("[webrtc]\nice_servers = [\"stun:a:1\", \"turn:me:pass:word@b:2?transport=udp\"]", &[]);
    let servers = config.expect("is allowed").ice_servers();
    assert_eq!((servers[0].urls[0].as_str(), servers[0].username.as_deref()), ("stun:a:1", None));
    assert_eq!((servers[1].urls[0].as_str(), servers[1].username.as_deref()), ("turn:b:2?transport=udp", Some("me")));
    assert_eq!(servers[1].credential.as_deref(), Some("pass:word"));
    for bad in ["http://a", "stun:", "stun:me@a:1", "turn:me@b:2", "a:1"] {
        refused(&format!("[webrtc]\nice_servers = [\"{bad}\"]"), &[], &["webrtc.ice_servers", "turn:USER"]);
    }
}

#[test]
fn publishers_to_new_names_are_taken_where_only_this_machine_or_a_key_lets_them_in() {
    let begin = |key: Option<&str>| OnPublish::Begin { graph: "relay".into(), key: key.map(str::to_owned) };
    let open = "[auth]\nallow_open = true\n[rtmp]\nbind = \"0.0.0.0\"\n[sessions]\n";
    for (text, expected) in [
        (String::new(), begin(None)),
        (open.to_owned(), OnPublish::Refuse),
        (format!("{open}publish_key = \"0123456789abcdef\""), begin(Some("0123456789abcdef"))),
        (format!("{open}on_publish = \"relay\""), begin(None)),
        ("[sessions]\non_publish = \"refuse\"".into(), OnPublish::Refuse),
    ] {
        assert_eq!(load(&text, &[]).expect("allowed").manager().on_publish, expected, "{text}");
    }
    refused("[sessions]\npublish_key = \"short\"", &[], &["sessions.publish_key", "16 to 256"]);
}
