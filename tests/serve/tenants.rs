//! Tenants: what is another's is not there, quotas are exact, what is used is counted once.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use lipstream::tenants::scope::{Allow, Object, ROUTES, Route, Scope};
use serde_json::{Value, json};

use super::{KEY, NO_DEMO, Server, common::*};

/// With a store in `folder`, and the operator's key.
pub fn serve(folder: &Path) -> Server {
    let store = store(folder);
    let mut server = Server::start(&[NO_DEMO, ("LIPSTREAM_AUTH_STORE", &store), ("LIPSTREAM_AUTH_KEYS", KEY)]);
    server.key = Some(KEY);
    server
}

fn store(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("tenants.db").display())
}

/// Status and body of what `key` asks.
pub fn ask(server: &Server, key: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
    let body = body.filter(|_| method.starts_with('P')).map(Value::to_string).unwrap_or_default();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", server.url))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(body.into_bytes())
        .expect("is a request");
    let mut answer = server.agent.run(request).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
    (answer.status().as_u16(), answer.body_mut().read_to_string().expect("is text"))
}

/// A key of a tenant, which is made where it is not there.
pub fn key(server: &Server, tenant: &str, limits: &Value, scopes: &[Scope]) -> String {
    server.json("PUT", &format!("/api/v1/tenants/{tenant}"), Some(limits.clone()), 200);
    let made = server.json("POST", "/api/v1/keys", Some(json!({"tenant": tenant, "scopes": scopes})), 201);
    made["key"].as_str().expect("is shown").to_owned()
}

fn keys(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = lipstream(folder);
    succeed(command.args(["keys", "--store", &store(folder)]).args(arguments))
}

/// The path of a route with `object` in place of its first parameter.
fn path(route: &Route, object: &str) -> String {
    let mut first = Some(object);
    let part =
        |part: &str| if part.starts_with('{') { first.take().unwrap_or("x").to_owned() } else { part.to_owned() };
    route.path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_says_who_may_use_it() {
    let document: Value = serde_json::from_str(&::lipstream::http::openapi()).expect("is JSON");
    let mut routes = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("has paths") {
        for method in methods.as_object().expect("has methods").keys().filter(|m| *m != "parameters") {
            routes.insert((method.to_uppercase(), path.clone()));
        }
    }
    let declared: BTreeSet<_> = ROUTES.iter().map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
    let missing: Vec<_> = routes.difference(&declared).collect();
    assert!(missing.is_empty(), "the table of src/tenants/scope.rs has no {missing:?}");
    let beside: Vec<_> = declared.difference(&routes).filter(|(_, path)| path.starts_with("/api/")).collect();
    assert!(beside.is_empty(), "nothing answers to {beside:?}");
    for route in ROUTES.iter().filter(|route| route.path.contains('{') && route.object == Object::None) {
        assert!(matches!(route.allow, Allow::Operator | Allow::Node), "{route:?}: whose is what its path names?");
    }
}

#[test]
fn what_is_anothers_is_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(folder.path());
    let none = json!({});
    let (anna, ben) = (key(&server, "anna", &none, &Scope::ALL), key(&server, "ben", &none, &Scope::ALL));
    let as_anna = |method: &str, path: &str, body: Option<&Value>| ask(&server, &anna, method, path, body);
    let as_ben = |method: &str, path: &str, body: Option<&Value>| ask(&server, &ben, method, path, body);

    // Anna has one of each.
    let session = json!({"id": "stage", "graph": "relay", "play": "annas-play"});
    assert_eq!(as_anna("POST", "/api/v1/sessions", Some(&session)).0, 201);
    let video = folder.path().join("face.mp4");
    ffmpeg(&format!("-i {} -t 1 -c:v libx264 -an", demo_video().display()), &video);
    let send = |key: &str, method: &str, path: &str, kind: &str, body: Vec<u8>| {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", server.url));
        let request = request.header("authorization", format!("Bearer {key}")).header("content-type", kind);
        let mut answer = server.agent.run(request.body(body).expect("is a request")).expect("is answered");
        let text = answer.body_mut().read_to_string().expect("is text");
        (answer.status().as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let bytes = std::fs::read(&video).expect("is there");
    let (status, upload) = send(&anna, "PUT", "/api/v1/avatars/face/clips/idle", "video/mp4", bytes.clone());
    assert_eq!(status, 202, "{upload}");
    let upload = upload["id"].as_str().expect("has an id").to_owned();
    let own = format!("/api/v1/uploads/{upload}");
    server.wait("it is prepared", |_| {
        let (_, text) = as_anna("GET", &own, None);
        assert!(!text.contains("rejected"), "{text}");
        text.contains("\"done\"")
    });
    let form = |avatar: &str| {
        let field = |name: &str| format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"");
        let text = format!(
            "{}\r\n\r\n{avatar}\r\n{}; filename=\"a\"\r\n\r\nno sound\r\n--B--\r\n",
            field("avatar"),
            field("audio")
        );
        text.into_bytes()
    };
    let kind = "multipart/form-data; boundary=B";
    let (status, render) = send(&anna, "POST", "/api/v1/renders", kind, form("face"));
    assert_eq!(status, 202, "{render}");
    let render = render["id"].as_str().expect("has an id").to_owned();

    for route in &ROUTES {
        let (object, nothing) = match route.object {
            Object::Session => ("stage", "nobody"),
            Object::Avatar | Object::NewAvatar => ("face", "nobody"),
            Object::Upload => (upload.as_str(), "999"),
            Object::Render => (render.as_str(), "job-999"),
            Object::None | Object::Shared => continue,
        };
        let (status, text) = as_ben(route.method, &path(route, object), Some(&none));
        if route.object == Object::NewAvatar {
            assert_eq!(status, 409, "{route:?}: {text}");
            assert!(!text.contains("anna"), "{text}");
            continue;
        }
        // Byte for byte what is said of what is nowhere.
        let (missing, of_nothing) = as_ben(route.method, &path(route, nothing), Some(&none));
        assert_eq!((status, missing), (404, 404), "{route:?}: {text}");
        assert_eq!(text, of_nothing.replace(nothing, object), "{route:?}");
        if route.method == "GET" {
            assert_ne!(as_anna("GET", &path(route, object), None).0, 404, "{route:?}");
        }
    }
    for path in ["/api/v1/sessions", "/api/v1/uploads", "/api/v1/renders"] {
        assert_eq!(as_ben("GET", path, None), (200, "[]".into()), "{path}");
        assert_ne!(as_anna("GET", path, None).1, "[]", "{path}");
    }
    let names = |text: &str| {
        serde_json::from_str::<Vec<Value>>(text)
            .expect("is a list")
            .iter()
            .map(|a| a["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&as_ben("GET", "/api/v1/avatars", None).1), [json!("demo")]);
    assert_eq!(names(&as_anna("GET", "/api/v1/avatars", None).1), [json!("demo"), json!("face")]);
    assert_eq!(names(&server.get("/api/v1/avatars").to_string()), [json!("demo"), json!("face")]);

    // Names in bodies.
    for (path, body, status) in [
        ("/api/v1/sessions", json!({"id": "stage", "graph": "relay"}), 409),
        ("/api/v1/sessions", json!({"id": "b", "graph": "relay", "play": "annas-play"}), 409),
        ("/api/v1/sessions", json!({"id": "b", "graph": "avatar", "avatar": "face"}), 422),
        ("/api/v1/liveavatar/sessions/token", json!({"avatar_id": "face"}), 422),
    ] {
        let (got, text) = as_ben("POST", path, Some(&body));
        assert_eq!(got, status, "{body}: {text}");
        assert!(
            !text.contains("anna`") && !text.contains("there are demo, face") && !text.contains("session `stage` is"),
            "{text}"
        );
    }
    let (status, problem) = send(&ben, "POST", "/api/v1/renders", kind, form("face"));
    assert!(status == 422 && !problem.to_string().contains("demo, face"), "{problem}");
    let mut upload =
        b"--B\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\nface\r\n--B\r\ncontent-disposition: form-data; \
        name=\"video\"; filename=\"a\"\r\n\r\n"
            .to_vec();
    upload.extend([bytes, b"\r\n--B--\r\n".to_vec()].concat());
    assert_eq!(send(&ben, "POST", "/api/v1/avatars", kind, upload).0, 409);

    // By RTMP too, in either direction.
    let rtmp = server.get("/api/v1/server")["rtmp_url"].as_str().expect("is on").to_owned();
    for (name, key) in [("stage/synced", ""), ("stage/synced", &ben), ("annas-play", &ben), ("stage/synced", "lsk_")] {
        let (_, said) = fail(Command::new("ffprobe").args(["-v", "error", &format!("{rtmp}/{name}?key={key}")]));
        assert!(!said.is_empty(), "{name} is played with the key {key}");
    }
    let (_, text) = as_anna("GET", "/api/v1/sessions/stage", None);
    assert_eq!(serde_json::from_str::<Value>(&text).expect("is JSON")["viewers"], 0);

    // An avatar goes with its bytes.
    let held = |s: &Server| s.get("/api/v1/tenants")[0]["stored_bytes"].as_u64().expect("is a number");
    assert!(held(&server) > 10_000, "{}", held(&server));
    assert_eq!(as_anna("DELETE", "/api/v1/avatars/face", None).0, 204);
    server.wait("nothing is stored", |s| held(s) == 0);
}

#[test]
fn a_key_opens_what_its_scopes_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(folder.path());
    let session = json!({"id": "stage", "graph": "relay"});
    let all = key(&server, "anna", &json!({}), &Scope::ALL);
    assert_eq!(ask(&server, &all, "POST", "/api/v1/sessions", Some(&session)).0, 201);
    for scope in Scope::ALL {
        let key = key(&server, "anna", &json!({}), &[scope]);
        for route in &ROUTES {
            let (status, text) = ask(&server, &key, route.method, &path(route, "stage"), Some(&json!({"graph": 1})));
            let opens = match route.allow {
                Allow::Public | Allow::Token => true,
                Allow::Operator | Allow::Node => false,
                Allow::Scopes(scopes) => scopes.contains(&scope),
            };
            assert_eq!(status == 403, !opens, "{scope:?} at {route:?}: {status} {text}");
            if route.method == "DELETE" && route.path == "/api/v1/sessions/{id}" && opens {
                assert_eq!(ask(&server, &all, "POST", "/api/v1/sessions", Some(&session)).0, 201);
            }
        }
    }
    // What the operator may, nobody else may; what there is no method for is said so.
    assert_eq!(ask(&server, &all, "PUT", "/api/v1/sessions/stage", None).0, 405);
    assert_eq!(ask(&server, &all, "GET", "/api/v1/nothing", None).0, 404);
    assert_eq!(ask(&server, "lsk_no", "GET", "/api/v1/sessions", None).0, 401);
    server.get("/api/v1/sessions");
}

#[test]
fn quotas_are_exact_however_many_ask_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(folder.path());
    let many = key(&server, "many", &json!({"sessions": 7}), &Scope::ALL);
    let often = key(&server, "often", &json!({"requests_per_minute": 1, "burst": 20}), &Scope::ALL);
    let barrier = Barrier::new(200);
    let count = |status: u16, answers: &[u16]| answers.iter().filter(|got| **got == status).count();
    let at_once = |ask: &(dyn Fn(usize) -> u16 + Sync)| -> Vec<u16> {
        thread::scope(|scope| {
            let asking = Vec::from_iter((0..200).map(|n| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    ask(n)
                })
            }));
            asking.into_iter().map(|answer| answer.join().expect("is answered")).collect()
        })
    };
    let create = |name: &str, n: usize| {
        let (status, text) = ask(
            &server,
            &many,
            "POST",
            "/api/v1/sessions",
            Some(&json!({"id": format!("{name}{n}"), "graph": "relay"})),
        );
        assert!(status == 201 || text.contains("urn:lipstream:quota"), "{text}");
        status
    };
    let answers = at_once(&|n| create("first", n));
    assert_eq!((count(201, &answers), count(429, &answers)), (7, 193));
    let list =
        serde_json::from_str::<Vec<Value>>(&ask(&server, &many, "GET", "/api/v1/sessions", None).1).expect("is a list");
    assert_eq!(list.len(), 7);
    let gone = format!("/api/v1/sessions/{}", list[0]["id"].as_str().expect("has an id"));
    assert_eq!(ask(&server, &many, "DELETE", &gone, None).0, 204);
    let answers = at_once(&|n| create("second", n));
    assert_eq!(count(201, &answers), 1, "{answers:?}");

    let answers = at_once(&|_| ask(&server, &often, "GET", "/api/v1/server", None).0);
    let passed = count(200, &answers);
    assert!(
        (20..=22).contains(&passed) && count(429, &answers) == 200 - passed,
        "{passed}: one a minute comes beside the 20"
    );
    let request = format!("GET /api/v1/server HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-KEY: {often}\r\n\r\n");
    let answer = server.raw(request.as_bytes()).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 429 ") && answer.contains("\nretry-after: "), "{answer}");
    let metrics = server.send("GET", "/metrics", "", b"").2;
    for line in [
        "lipstream_tenant_sessions{tenant=\"many\"} 7",
        "lipstream_tenant_refused_total{tenant=\"many\",reason=\"quota\"} 392",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[test]
fn what_is_used_is_counted_once_though_the_server_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = serve(folder.path());
    let anna = key(&server, "anna", &json!({}), &Scope::ALL);
    let ben = key(&server, "ben", &json!({}), &Scope::ALL);
    let spec = json!({"id": "anna", "graph": "avatar", "always_on": true, "params": {"idle": "rest"}});
    let (status, text) = ask(&server, &anna, "POST", "/api/v1/sessions", Some(&spec));
    assert_eq!(status, 201, "{text}");
    server.wait("it runs", |s| s.get("/api/v1/sessions/anna")["frames"].as_u64() > Some(25));
    let rtmp = server.get("/api/v1/server")["rtmp_url"].as_str().expect("is on").to_owned();
    let url = format!("{rtmp}/anna/synced?key={anna}");
    succeed(Command::new("ffmpeg").args(["-v", "error", "-i", &url, "-t", "1", "-c", "copy", "-f", "null", "-"]));
    let shown = |s: &Server| s.get("/api/v1/sessions/anna")["frames"].as_u64();
    let until_now = shown(&server);
    server.wait("it goes on", |s| shown(s) > until_now.map(|frames| frames + 50));
    let read = Instant::now();
    let before = server.get("/api/v1/sessions/anna");
    server.child.kill().expect("is killed");
    let asked = read.elapsed().as_secs_f64();
    drop(server);

    server = serve(folder.path());
    let usage =
        |server: &Server, key: &str, query: &str| ask(server, key, "GET", &format!("/api/v1/usage{query}"), None).1;
    let of_anna: Value = serde_json::from_str(&usage(&server, &anna, "")).expect("is JSON");
    let (ran, frames) = (before["uptime"].as_f64().expect("runs"), before["frames"].as_u64().expect("runs"));
    let counted = of_anna[0]["session_seconds"].as_f64().expect("is counted");
    assert!(counted > ran - 1.0 && counted < ran + asked + 0.01, "it ran for {ran} s and {counted} s are counted");
    let counted = of_anna[0]["frames"].as_u64().expect("is counted");
    assert!(counted + 25 >= frames && counted <= frames + 25, "{frames} frames and {counted} are counted");
    assert!(of_anna[0]["egress_bytes"].as_u64() > Some(10_000), "{of_anna}");
    assert_eq!(of_anna[0]["gpu_seconds"], 0.0);

    // Neither another start nor another death changes it, and nobody else sees it.
    server.child.kill().expect("is killed");
    drop(server);
    let server = serve(folder.path());
    assert_eq!(serde_json::from_str::<Value>(&usage(&server, &anna, "?tenant=ben")).expect("is JSON"), of_anna);
    assert_eq!(usage(&server, &ben, "?tenant=anna"), "[]");
    assert_eq!(server.get("/api/v1/usage"), of_anna);
    let csv = usage(&server, &anna, "?format=csv");
    let lines: Vec<_> = csv.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("tenant,month,session_seconds") && lines[1].starts_with("anna,20"),
        "{csv}"
    );
    assert_eq!(ask(&server, &anna, "GET", "/api/v1/usage?month=2026-13", None).0, 422);

    // The month is used up: what runs ends, and nothing begins.
    let spec = json!({"id": "anna", "graph": "relay", "always_on": true});
    assert_eq!(ask(&server, &anna, "POST", "/api/v1/sessions", Some(&spec)).0, 201);
    server.json("PUT", "/api/v1/tenants/anna", Some(json!({"session_seconds": 1})), 200);
    server.wait("it ends", |s| s.get("/api/v1/sessions") == json!([]));
    let (status, text) = ask(&server, &anna, "POST", "/api/v1/sessions", Some(&spec));
    assert!(status == 429 && text.contains("session seconds"), "{text}");
}

#[test]
fn keys_are_managed_beside_a_running_server_and_what_they_do_is_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(folder.path());
    keys(folder.path(), &["tenants", "set", "anna", "--sessions", "2"]);
    let text = |output: Output| String::from_utf8(output.stdout).expect("is text").trim().to_owned();
    let anna = text(keys(folder.path(), &["add", "anna", "--scopes", "operate,speak", "--note", "ci"]));
    let status = |key: &str| ask(&server, key, "GET", "/api/v1/sessions", None).0;
    server.wait("the key is known", |_| status(&anna) == 200);
    let listed: Value = serde_json::from_str(&text(keys(folder.path(), &["list", "--json"]))).expect("is JSON");
    assert_eq!((&listed[0]["scopes"], &listed[0]["note"]), (&json!(["operate", "speak"]), &json!("ci")));
    assert!(!listed.to_string().contains(&anna) && listed == server.get("/api/v1/keys"));
    let id = listed[0]["id"].as_str().expect("has an id");

    let create = json!({"id": "stage", "graph": "relay"});
    assert_eq!(ask(&server, &anna, "POST", "/api/v1/sessions", Some(&create)).0, 201);
    assert_eq!(ask(&server, &anna, "POST", "/whep/stage", None).0, 403);
    let audit = server.get("/api/v1/audit?tenant=anna");
    let of = |n: usize| ["route", "object", "status", "key"].map(|name| audit[n][name].clone());
    assert_eq!(of(0), [json!("/whep/{session}"), json!("stage"), json!(403), json!(id)]);
    assert_eq!(of(1), [json!("/api/v1/sessions"), json!("stage"), json!(201), json!(id)]);
    assert_eq!(audit.as_array().map(Vec::len), Some(2), "{audit}");

    keys(folder.path(), &["revoke", id]);
    let revoked = Instant::now();
    server.wait("it is refused", |_| status(&anna) == 401);
    // It is known within a second; a slow machine takes a while to ask.
    assert!(revoked.elapsed() < Duration::from_secs(5), "{:?}", revoked.elapsed());
    // Its tenant's sessions go on, until it is removed.
    assert_eq!(server.get("/api/v1/sessions")[0]["id"], "stage");
    server.json("DELETE", "/api/v1/tenants/anna", None, 204);
    server.wait("its sessions end", |s| s.get("/api/v1/sessions") == json!([]));
    let (code, said) = fail(lipstream(folder.path()).args(["keys", "--store", "tenants.db", "list"]));
    assert!(code == 2 && said.contains("sqlite:///PATH"), "{said}");
    let (code, said) = fail(lipstream(folder.path()).args(["keys", "list"]).env_remove("LIPSTREAM_AUTH_STORE"));
    assert!(code == 2 && said.contains("auth.store"), "{said}");
}
