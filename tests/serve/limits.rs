//! Limits of tenants as their players, publishers and agents meet them.

use std::process::{Child, Command, Stdio};

use lipstream::tenants::scope::Scope;
use serde_json::{Value, json};

use super::{
    Server,
    common::*,
    storage::{FORM, form},
    tenants::{ask, key, serve},
};

/// What a browser offers to watch.
const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r\n\
    a=setup:actpass\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\n";

struct Player(Child);

impl Player {
    fn start(arguments: &str) -> Self {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error"]).args(arguments.split(' '));
        Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("is asked").is_some()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn send(server: &Server, key: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let bearer = format!("Bearer {key}");
    let (status, _, text) = server.send_with("POST", path, &[("authorization", &bearer), ("content-type", kind)], body);
    (status, text)
}

fn tenant(server: &Server, of: &str) -> u64 {
    let asked = ureq::get(format!("{}/api/v1/tenants", server.url)).header("x-api-key", super::KEY).call();
    let text = asked.expect("is answered").body_mut().read_to_string().expect("is text");
    serde_json::from_str::<Value>(&text).expect("is JSON")[0][of].as_u64().expect("is a number")
}

#[test]
fn viewers_of_both_protocols_share_a_quota_and_go_with_their_key_as_publishers_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = serve(folder.path());
    let limits = json!({"viewers": 1});
    let all = key(&server, "anna", &limits, &Scope::ALL);
    let made = |scope: Scope| {
        let made = server.json("POST", "/api/v1/keys", Some(json!({"tenant": "anna", "scopes": [scope]})), 201);
        let text = |name: &str| made[name].as_str().expect("is shown").to_owned();
        (text("id"), text("key"))
    };
    let ((watch_id, watch), (publish_id, publish)) = (made(Scope::Watch), made(Scope::Publish));
    for spec in [
        json!({"id": "anna", "graph": "avatar", "always_on": true, "params": {"idle": "rest"}}),
        json!({"id": "stage", "graph": "relay"}),
    ] {
        let (status, text) = ask(&server, &all, "POST", "/api/v1/sessions", Some(&spec));
        assert_eq!(status, 201, "{text}");
    }
    let rtmp = server.get("/api/v1/server")["rtmp_url"].as_str().expect("is on").to_owned();
    let shown = format!("{rtmp}/anna/synced?key={watch}");
    server.wait("it runs", |s| s.get("/api/v1/sessions/anna")["frames"].as_u64() > Some(5));

    let mut player = Player::start(&format!("-i {shown} -f null -"));
    server.wait("it is watched", |s| tenant(s, "viewers") == 1);
    let (_, said) = fail(Command::new("ffprobe").args(["-v", "error", &shown]));
    assert!(said.contains("1 viewers watch the tenant's sessions"), "{said}");
    server.key = None;
    let (status, text) = send(&server, &watch, "/whep/anna", "application/sdp", OFFER.as_bytes());
    assert!(status == 429 && text.contains("urn:lipstream:quota"), "{status} {text}");

    // A source of another session, with a key of its own.
    let source = "-re -f lavfi -i testsrc=size=320x240:rate=25 -c:v libx264 -preset ultrafast -tune zerolatency -g 25 -an -f flv";
    let mut publisher = Player::start(&format!("{source} {rtmp}/stage?key={publish}"));
    server.key = Some(super::KEY);
    server.wait("it is published to", |s| s.get("/api/v1/sessions/stage")["publishing"] == true);
    assert!(!publisher.has_ended() && !player.has_ended());
    server.json("DELETE", &format!("/api/v1/keys/{publish_id}"), None, 204);
    server.wait("the publisher is sent away", |_| publisher.has_ended());
    assert!(!player.has_ended(), "the other key holds");
    server.json("DELETE", &format!("/api/v1/keys/{watch_id}"), None, 204);
    server.wait("the viewer is sent away", |s| player.has_ended() && tenant(s, "viewers") == 0);

    // Its place is free again, for a browser now; then RTMP finds it taken.
    server.key = None;
    let (status, text) = send(&server, &all, "/whep/anna", "application/sdp", OFFER.as_bytes());
    assert_eq!(status, 201, "{text}");
    let (_, said) = fail(Command::new("ffprobe").args(["-v", "error", &format!("{rtmp}/anna/synced?key={all}")]));
    assert!(said.contains("1 viewers watch the tenant's sessions"), "{said}");
}

#[test]
fn tokens_count_for_their_tenant_and_what_is_stored_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = serve(folder.path());
    let limits = json!({"sessions": 1, "stored_bytes": 100_000});
    let anna = key(&server, "anna", &limits, &[Scope::Operate]);
    server.key = None;
    let json = "application/json";
    let token = |server: &Server| {
        let asked = json!({"avatar_id": "demo", "mode": "LITE"}).to_string();
        send(server, &anna, "/api/v1/liveavatar/sessions/token", json, asked.as_bytes())
    };
    let start = |server: &Server, text: &str| {
        let told: Value = serde_json::from_str(text).expect("is JSON");
        let token = told["data"]["session_token"].as_str().expect("is given").to_owned();
        let (status, text) = send(server, &token, "/api/v1/liveavatar/sessions/start", json, b"");
        (token, status, text)
    };
    let (status, text) = token(&server);
    assert_eq!(status, 200, "{text}");
    let (first, status, text) = start(&server, &text);
    assert_eq!(status, 201, "{text}");
    assert_eq!(tenant(&server, "sessions"), 1);
    let list = ask(&server, &anna, "GET", "/api/v1/sessions", None).1;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&list).expect("is a list").len(), 1, "it is hers: {list}");
    // Another one is one too many, by whichever call that is said.
    let (status, text) = token(&server);
    if status == 200 {
        let (_, status, text) = start(&server, &text);
        assert!(status == 429 && text.contains("urn:lipstream:quota"), "{status} {text}");
    } else {
        assert!(status == 429 && text.contains("urn:lipstream:quota"), "{status} {text}");
    }
    // A token opens its own session and nothing of its tenant.
    assert_eq!(ask(&server, &first, "GET", "/api/v1/sessions", None).0, 401);
    assert_eq!(send(&server, &first, "/api/v1/liveavatar/sessions/stop", json, b"{}").0, 200);
    server.wait("it has ended", |s| tenant(s, "sessions") == 0);
    assert_eq!(send(&server, &first, "/api/v1/liveavatar/sessions/start", json, b"").0, 401);

    let too_large = form(2.0, folder.path(), "{}");
    assert!(too_large.len() > 150_000);
    let (status, text) = send(&server, &anna, "/api/v1/renders", FORM, &too_large);
    assert!(status == 429 && text.contains("more than the 100000 bytes"), "{status} {text}");
    assert_eq!(tenant(&server, "stored_bytes"), 0, "what was refused takes nothing");
    let (status, text) = send(&server, &anna, "/api/v1/renders", FORM, &form(0.3, folder.path(), "{}"));
    assert_eq!(status, 202, "{text}");
    assert!((20_000..=100_000).contains(&tenant(&server, "stored_bytes")));
    let render: Value = serde_json::from_str(&text).expect("is JSON");
    let path = format!("/api/v1/renders/{}", render["id"].as_str().expect("has an id"));
    server.wait("it is over", |s| {
        !ask(s, &anna, "GET", &path, None).1.contains("\"finished\":null")
            && ask(s, &anna, "GET", &path, None).1.contains("finished")
    });
    assert_eq!(ask(&server, &anna, "DELETE", &path, None).0, 204);
    server.wait("nothing is stored", |s| tenant(s, "stored_bytes") == 0);
}
