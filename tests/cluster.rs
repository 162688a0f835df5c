//! Several nodes and a real NATS server: one cluster in which sessions are placed, found, moved and taken over.

mod common;
#[path = "cluster/harness.rs"]
mod harness;

use std::{fs, path::Path, process::Command, time::Instant};

use base64::Engine;
use common::{demo_audio, succeed};
use futures_util::{SinkExt, StreamExt};
use harness::{KEY, Nats, Node, Way, free_port, signal, until};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n";

fn avatar(id: &str) -> Value {
    json!({"id": id, "graph": "avatar", "avatar": "demo", "always_on": true})
}

fn relay(id: &str) -> Value {
    json!({"id": id, "graph": "relay"})
}

/// Copies the demo as the avatar `name` into a node's store.
fn copy_demo(cache: &Path, store: &Path, name: &str) {
    let demo =
        fs::read_dir(cache.join("lipstream/avatars")).unwrap().map(|e| e.unwrap().path()).find(|path| path.is_dir());
    let made = store.join(".new-copy");
    fs::create_dir_all(&made).unwrap();
    for file in fs::read_dir(demo.expect("the demo is prepared")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), made.join(file.file_name())).unwrap();
    }
    fs::rename(made, store.join(name)).unwrap();
}

/// Says `seconds` of a tone by the WebSocket, and returns what the node tells until it is spoken.
fn talk(node: &Node, id: &str, key: &str, seconds: usize) -> Result<Vec<String>, u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = node.service.url.replacen("http", "ws", 1);
        let mut request = format!("{url}/api/v1/sessions/{id}/audio").into_client_request().unwrap();
        let shown = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key);
        request.headers_mut().insert("sec-websocket-protocol", format!("lipstream, bearer.{shown}").parse().unwrap());
        let mut socket = match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => socket,
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => return Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        };
        let say = |text: &str| Message::text(text.to_owned());
        socket.send(say(r#"{"type":"speak_start","rate":16000,"utterance":"w"}"#)).await.unwrap();
        let tone: Vec<u8> = (0..16000 * seconds)
            .flat_map(|n| (((n as f32) * 0.2).sin() * 9e3).to_bits().to_le_bytes()[2..].to_vec())
            .collect();
        socket.send(Message::binary(tone)).await.unwrap();
        socket.send(say(r#"{"type":"speak_end"}"#)).await.unwrap();
        let mut told = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else { continue };
            let Ok(event) = serde_json::from_str::<Value>(text) else { continue };
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            told.push(kind.clone());
            if kind == "ended" {
                break;
            }
        }
        Ok(told)
    })
}

#[test]
fn a_cluster_places_finds_moves_and_takes_over_its_sessions() {
    let Some(nats) = Nats::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path();
    let data = |name: &str| shared.join(name).display().to_string();
    let (way, port) = (Way::to(nats.port), free_port().to_string());
    let public = format!("http://localhost:{port}");
    let most = ("LIPSTREAM_SESSIONS_MAX_SESSIONS", "2");
    let start = |name: &str, nats, more: &[(&str, &str)]| {
        let own = data(name);
        let all: Vec<_> = [most, ("XDG_DATA_HOME", own.as_str())].iter().chain(more).copied().collect();
        Node::start(name, nats, shared, &all)
    };
    let measured = |node: &Node| {
        let (_, nodes) = node.json("GET", "/api/v1/cluster", Value::Null);
        nodes.as_array()?.iter().all(|node| node["measured"] == true).then_some(())
    };
    let a = start("a", nats.port, &[]);
    // The others find the demo that it has prepared.
    until("prices are measured", || measured(&a));
    let b = start("b", nats.port, &[("LIPSTREAM_SERVER_PORT", &port), ("LIPSTREAM_SERVER_PUBLIC_URL", &public)]);
    let c = start("c", way.port, &[]);
    for node in [&a, &b, &c] {
        until("all nodes are heard", || (node.nodes() == ["a", "b", "c"]).then_some(()));
        until("prices are measured", || measured(node));
    }

    // Where the engine is loaded already, then by name; no more than fit; a name once.
    let create = |node: &Node, spec: Value| node.json("POST", "/api/v1/sessions", spec);
    for (node, id, owner) in [(&c, "one", "a"), (&b, "two", "a"), (&c, "three", "b")] {
        let (status, made) = create(node, avatar(id));
        assert_eq!((status, &made["node"]), (201, &json!(owner)), "{id}: {made}");
        // The next one is placed by what its node has heard.
        for node in [&a, &b, &c] {
            until("the engine is heard of", || {
                let (_, nodes) = node.json("GET", "/api/v1/cluster", Value::Null);
                let warm = nodes.as_array()?.iter().find(|node| node["name"] == owner)?["engines"] != json!([]);
                warm.then_some(())
            });
        }
    }
    assert_eq!(create(&c, relay("one")).0, 409);
    assert_eq!(create(&a, relay("four")).1["node"], "b", "its engine is loaded there");
    assert_eq!(create(&a, relay("five")).1["node"], "c", "nobody else has room");
    // The server takes a claim whose answer comes too late: the session is refused, and its name is free at once.
    way.hold_messages_after("HPUB $KV.lipstream_sessions.session.six ");
    let (status, refused) = create(&b, relay("six"));
    assert_eq!(status, 503, "{refused}");
    until("the late record is known", || (a.metric("lipstream_cluster_sessions") == 6.0).then_some(()));
    way.release();
    let made = until("there is room again", || {
        let (status, made) = create(&b, relay("six"));
        assert_ne!(status, 409, "{made}");
        (status == 201).then_some(made)
    });
    assert_eq!(made["node"], "c");
    let (status, full) = create(&a, relay("seven"));
    assert_eq!(status, 503, "{full}");
    assert!(full["detail"].as_str().unwrap().contains("session"), "{full}");
    assert_eq!(c.json("DELETE", "/api/v1/sessions/four", Value::Null).0, 204);
    assert_eq!(a.json("DELETE", "/api/v1/sessions/six", Value::Null).0, 204);

    // Any node answers for any session.
    let all = json!(["five", "one", "three", "two"]);
    for node in [&a, &b, &c] {
        let ids = until("the lists agree", || {
            let (_, list) = node.json("GET", "/api/v1/sessions", Value::Null);
            let ids: Value = list.as_array()?.iter().map(|session| session["id"].clone()).collect();
            (ids == all).then_some(ids)
        });
        assert_eq!(ids, all);
        assert_eq!(node.owner("three").as_deref(), Some("b"));
        assert_eq!(node.session("nobody"), None);
    }
    let (status, changed) = c.json("PATCH", "/api/v1/sessions/one", json!({"params": {"motion-gain": "0.8"}}));
    assert_eq!((status, &changed["params"]["motion-gain"]), (200, &json!("0.8")), "{changed}");
    assert_eq!(talk(&c, "one", KEY, 1).expect("opens"), ["listening", "speaking", "ended"]);
    assert_eq!(talk(&c, "one", "not-a-key-of-ours", 1), Err(401));
    // WHEP is answered by the node that has the session, whoever was asked.
    let (status, _, text) = c.ask(KEY, "POST", "/whep/one", "application/sdp", OFFER.as_bytes());
    let (same, _, own) = a.ask(KEY, "POST", "/whep/one", "application/sdp", OFFER.as_bytes());
    assert_eq!((status, text.as_str()), (same, own.as_str()));
    assert_ne!(status, 404, "{text}");
    assert_eq!(c.ask("", "POST", "/whep/three", "application/sdp", OFFER.as_bytes()).0, 401);
    assert!(c.metric("lipstream_cluster_forwarded_total") >= 5.0);
    // RTMP through another node: published to and played.
    let to = format!("{}/five", a.service.rtmp);
    let mut publisher = Command::new("ffmpeg")
        .args([
            "-nostdin",
            "-v",
            "error",
            "-re",
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=160x120:rate=25",
            "-f",
            "lavfi",
            "-i",
            "sine",
        ])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "aac", "-f", "flv", &to])
        .spawn()
        .unwrap();
    until("the publisher is passed on", || (a.session("five")?["publishing"] == true).then_some(()));
    let _ = publisher.kill();
    let _ = publisher.wait();
    let played = format!("{}/one/synced", c.service.rtmp);
    succeed(Command::new("ffmpeg").args([
        "-nostdin",
        "-v",
        "error",
        "-i",
        &played,
        "-frames:v",
        "5",
        "-f",
        "null",
        "-",
    ]));

    // Tenants: what is another's is not there through other nodes either, and a quota is of the whole cluster.
    let tenant = |name: &str| {
        let limits = json!({"sessions": 1});
        assert_eq!(a.json("PUT", &format!("/api/v1/tenants/{name}"), limits).0, 200);
        let (_, key) = a.json("POST", "/api/v1/keys", json!({"tenant": name}));
        key["key"].as_str().unwrap().to_owned()
    };
    let (anna, ben) = (tenant("anna"), tenant("ben"));
    for node in [&b, &c] {
        until("keys are known", || {
            (node.json_of(&ben, "GET", "/api/v1/sessions", Value::Null) == (200, json!([]))).then_some(())
        });
    }
    let own = json!({"id": "own", "graph": "relay", "stream_key": "a secret of anna"});
    let (status, made) = c.json_of(&anna, "POST", "/api/v1/sessions", own);
    assert_eq!((status, &made["node"]), (201, &json!("b")), "{made}");
    for (key, status) in [(anna.as_str(), 200), (&ben, 404), ("", 401), ("lsk_no", 401)] {
        for node in [&a, &c] {
            assert_eq!(node.json_of(key, "GET", "/api/v1/sessions/own", Value::Null).0, status);
        }
    }
    for (method, path) in [("DELETE", ""), ("PATCH", ""), ("POST", "/interrupt"), ("POST", "/clip")] {
        let (status, answer) = c.json_of(&ben, method, &format!("/api/v1/sessions/own{path}"), json!({"clip": "x"}));
        assert_eq!(status, 404, "{method} {path}: {answer}");
    }
    assert_eq!(talk(&c, "own", &ben, 1), Err(404));
    assert_eq!(c.json_of(&ben, "GET", "/api/v1/sessions", Value::Null).1, json!([]));
    let ids = c.json_of(&anna, "GET", "/api/v1/sessions", Value::Null).1;
    assert_eq!((ids.as_array().unwrap().len(), &ids[0]["id"]), (1, &json!("own")));
    let (status, refused) = a.json_of(&anna, "POST", "/api/v1/sessions", relay("more"));
    assert_eq!(status, 429, "{refused}");
    assert_eq!(a.json_of(&anna, "DELETE", "/api/v1/sessions/own", Value::Null).0, 204);
    let made = until("its place is free", || {
        let (status, made) = a.json_of(&anna, "POST", "/api/v1/sessions", relay("more"));
        (status == 201).then_some(made)
    });
    assert_eq!(b.json_of(&anna, "DELETE", "/api/v1/sessions/more", Value::Null).0, 204, "{made}");

    // An avatar of one node is on all; one that is removed is nowhere.
    let has = |node: &Node, name: &str| {
        let (_, avatars) = node.json("GET", "/api/v1/avatars", Value::Null);
        avatars.as_array().unwrap().iter().any(|avatar| avatar["name"] == name)
    };
    for name in ["anna", "gone"] {
        copy_demo(&shared.join("cache"), Path::new(&data("a")).join("lipstream/avatars").as_path(), name);
        for node in [&b, &c] {
            until("the avatar is fetched", || has(node, name).then_some(()));
        }
    }
    assert_eq!(b.json("DELETE", "/api/v1/avatars/gone", Value::Null).0, 204);
    for node in [&a, &c] {
        until("the avatar is removed", || (!has(node, "gone")).then_some(()));
    }

    // A node that is cut off keeps its sessions; others go on with them, and when it is back one of both is left.
    assert_eq!(c.owner("five").as_deref(), Some("c"));
    way.cut();
    until("another takes it over", || (b.owner("five").as_deref() == Some("b")).then_some(()));
    assert_eq!(c.owner("five").as_deref(), Some("c"), "it is not ended there");
    let (status, refused) = create(&c, relay("cut"));
    assert_eq!(status, 503, "{refused}");
    way.mend();
    until("its own ends", || (c.owner("five").as_deref() == Some("b")).then_some(()));
    assert_eq!(c.metric("lipstream_cluster_yielded_total"), 1.0);
    until("it is heard again", || (a.nodes() == ["a", "b", "c"]).then_some(()));

    // The NATS server stands still for everybody: nothing moves.
    nats.signal("STOP");
    until("it is missed", || (a.metric("lipstream_cluster_nodes") == 1.0).then_some(()));
    assert_eq!(a.owner("one").as_deref(), Some("a"));
    nats.signal("CONT");
    until("all hear again", || [&a, &b, &c].iter().all(|node| node.nodes() == ["a", "b", "c"]).then_some(()));
    assert_eq!((c.owner("one").as_deref(), c.owner("three").as_deref()), (Some("a"), Some("b")));
    assert_eq!(a.json("DELETE", "/api/v1/sessions/five", Value::Null).0, 204);

    // A node dies: its sessions go on elsewhere with what they had to say; others notice nothing.
    assert_eq!(a.json("DELETE", "/api/v1/sessions/two", Value::Null).0, 204);
    let spec = json!({"id": "two", "graph": "avatar", "avatar": "anna", "always_on": true});
    assert_eq!(create(&a, spec).1["node"], "a");
    let speech = fs::read(demo_audio()).unwrap();
    let (status, _, spoken) = c.ask(KEY, "POST", "/api/v1/sessions/one/speak?utterance=long", "audio/flac", &speech);
    assert_eq!(status, 200, "{spoken}");
    let (status, _, text) = c.ask(KEY, "POST", "/api/v1/sessions/one/speak?utterance=next", "audio/flac", &speech);
    assert_eq!(status, 200, "{text}");
    let both = 2e3 * serde_json::from_str::<Value>(&spoken).unwrap()["seconds"].as_f64().unwrap();
    let left = |node: &Node, id: &str| node.session(id)?["speech_queued_ms"].as_f64();
    until("it speaks", || (left(&c, "one")? < both - 1000.0).then_some(()));
    let before = left(&c, "one").unwrap();
    let frames = b.session("three").unwrap()["frames"].as_u64().unwrap();
    let died = Instant::now();
    drop(a);
    let new = until("its sessions go on", || {
        let owners = ["one", "two"].map(|id| c.owner(id));
        owners.iter().all(|owner| owner.as_deref().is_some_and(|owner| owner != "a")).then_some(owners)
    });
    eprintln!("sessions of the dead node were back after {:.1} s, on {new:?}", died.elapsed().as_secs_f64());
    // Not more than was left, but for what is said twice; not less, but for what was said meanwhile.
    until("its speech goes on", || {
        let (queued, meanwhile) = (left(&c, "one")?, died.elapsed().as_secs_f64() * 1e3);
        (queued < before + 1000.0 && queued > before - meanwhile - 1000.0).then_some(())
    });
    let three = b.session("three").unwrap();
    assert!(three["restarts"] == 0 && three["frames"].as_u64().unwrap() > frames, "{three}");
    assert_eq!(b.nodes(), ["b", "c"]);
    assert_eq!(c.json("POST", "/api/v1/sessions/one/interrupt", Value::Null).0, 200);

    until("it says nothing", || {
        let one = c.session("one")?;
        (one["speaking"] == false && one["speech_queued_ms"] == 0.0).then_some(())
    });

    // A node is drained: its sessions move, and it ends.
    assert_eq!(c.json("DELETE", "/api/v1/sessions/two", Value::Null).0, 204);
    let mut drained = b;
    // One of them is claimed, and the answer comes after the claim was given up: it goes on all the same.
    way.hold_messages_after("HPUB $KV.lipstream_sessions.session.three ");
    assert_eq!(drained.json("POST", "/api/v1/drain", Value::Null).0, 202);
    let status = until("it ends", || drained.service.ended());
    assert!(status.success(), "{status}");
    assert!(c.owner("three").is_none(), "its claim has no answer yet");
    way.release();
    until("its sessions have moved", || {
        let owners = ["one", "three"].map(|id| c.owner(id));
        owners.iter().all(|owner| owner.as_deref() == Some("c")).then_some(())
    });
    until("nobody else is left", || (c.nodes() == ["c"]).then_some(()));

    // The last one is told to end, and comes back with its sessions.
    let mut last = c;
    signal(last.service.pid(), "TERM");
    signal(last.service.pid(), "TERM");
    until("it ends", || last.service.ended());
    drop(last);
    let mut again = start("c", nats.port, &[]);
    until("its sessions are back", || ["one", "three"].iter().all(|id| again.owner(id).is_some()).then_some(()));

    // Nobody is there to hear its last word: it ends all the same.
    for id in ["one", "three"] {
        assert_eq!(again.json("DELETE", &format!("/api/v1/sessions/{id}"), Value::Null).0, 204);
    }
    nats.signal("KILL");
    signal(again.service.pid(), "TERM");
    until("it ends", || again.service.ended());
}
