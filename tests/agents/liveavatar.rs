//! Sessions that are begun with the calls of LiveAvatar's API.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite};

use crate::{ALONE, Client, PATIENCE, base64, common::service::Service, pcm};

const KEY: &str = "a-key-for-the-tests";

/// Status and body of an answer.
fn post(service: &Service, call: &str, header: (&str, &str), body: &Value) -> (u16, Value) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    let request = ureq::http::Request::builder()
        .method("POST")
        .uri(format!("{}/api/v1/liveavatar/sessions/{call}", service.url))
        .header("content-type", "application/json")
        .header(header.0, header.1)
        .body(body.to_string())
        .unwrap();
    let mut answer = config.build().new_agent().run(request).unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_begins_a_session_speaks_in_it_and_ends_with_it() {
    let _alone = ALONE.lock().await;
    let service = Service::start_with("", &[("LIPSTREAM_AUTH_KEYS", KEY)]);
    let wanted =
        json!({"mode": "LITE", "avatar_id": "demo", "is_sandbox": false, "video_settings": {"encoding": "H264"}});
    let key = ("x-api-key", KEY);
    assert_eq!(post(&service, "token", ("x-api-key", "another"), &wanted).0, 401);
    for (change, says) in [
        (json!({"mode": "FULL"}), "LITE"),
        (json!({"avatar_id": "1c690fe7-23e0-49f9-bfba-14344450285b"}), "there are demo"),
        (json!({"livekit_config": {"livekit_url": "wss://room"}}), "whep_url"),
    ] {
        let mut wrong = wanted.clone();
        wrong.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, answer) = post(&service, "token", key, &wrong);
        assert!(status == 422 && answer["detail"].as_str().unwrap().contains(says), "{answer}");
    }
    let (status, answer) = post(&service, "token", key, &wanted);
    assert_eq!(status, 200, "{answer}");
    let (id, token) = (answer["data"]["session_id"].clone(), answer["data"]["session_token"].as_str().unwrap());
    let bearer = format!("Bearer {token}");
    let bearer = ("authorization", bearer.as_str());
    let (status, answer) = post(&service, "start", bearer, &Value::Null);
    assert_eq!((status, &answer["data"]["session_id"]), (201, &id), "{answer}");
    assert_eq!(post(&service, "start", bearer, &Value::Null).0, 409, "a token begins one session");
    assert_eq!(post(&service, "token", bearer, &wanted).0, 401, "a token makes no tokens");

    let url = answer["data"]["ws_url"].as_str().unwrap().to_owned();
    let refused = connect_async(url.split('?').next().unwrap()).await.unwrap_err();
    assert!(matches!(&refused, tungstenite::Error::Http(answer) if answer.status() == 401), "{refused}");
    let mut client = Client::connect(&url).await;
    client.next(&["session.state_updated"]).await;
    let sound = json!({"type": "agent.speak", "audio": base64(&pcm(24_000)), "event_id": "hello"});
    client.say(sound.clone()).await;
    client.say(json!({"type": "agent.speak_end", "event_id": "hello"})).await;
    assert_eq!(client.next(&["agent.speak_started"]).await["event_id"], "hello");
    let ended = client.next(&["agent.speak_ended"]).await;
    assert_eq!((&ended["event_id"], &ended["spoken_ms"]), (&json!("hello"), &json!(1000.0)));

    // Five more seconds, interrupted when they are shown.
    for _ in 0..5 {
        client.say(sound.clone()).await;
    }
    client.next(&["agent.speak_started"]).await;
    let asked = Instant::now();
    client.say(json!({"type": "agent.interrupt"})).await;
    let through = client.next(&["agent.interrupted"]).await;
    println!("at rest after {:.0} ms, told after {} ms", through["ms"], asked.elapsed().as_millis());
    let (status, answer) = post(&service, "stop", bearer, &json!({"session_id": "another"}));
    assert_eq!(status, 422, "{answer}");
    let (status, answer) = post(&service, "stop", bearer, &json!({"session_id": id, "reason": "USER_CLOSED"}));
    assert_eq!(status, 200, "{answer}");
    let closed = client.next(&["session.state_updated"]).await;
    assert_eq!(closed["state"], "closed");
    assert_eq!(client.event().await, Value::Null);
    assert_eq!(post(&service, "stop", bearer, &json!({})).0, 401, "the token has ended with its session");
    assert!(connect_async(&url).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_token_ends_with_its_time() {
    let _alone = ALONE.lock().await;
    let service = Service::start("");
    let wanted = json!({"avatar_id": "demo", "max_session_duration": 1});
    let (_, answer) = post(&service, "token", ("x-api-key", "any"), &wanted);
    let bearer = format!("Bearer {}", answer["data"]["session_token"].as_str().unwrap());
    let (status, answer) = post(&service, "start", ("authorization", &bearer), &Value::Null);
    assert_eq!((status, &answer["data"]["max_session_duration"]), (201, &json!(1)), "{answer}");
    let mut client = Client::connect(answer["data"]["ws_url"].as_str().unwrap()).await;
    while client.next(&["session.state_updated"]).await["state"] != "closed" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_is_told_of_when_it_is_shown_and_not_when_it_is_given_to_the_graph() {
    let _alone = ALONE.lock().await;
    let service = Service::start("");
    // Speech that waits for a graph for long is dropped.
    let runs = async {
        while service.session("demo")["phase"] != "running" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, runs).await.expect("the session runs");
    let url = |socket: &str| format!("{}/api/v1/sessions/demo/{socket}", service.url.replacen("http", "ws", 1));
    let (mut agent, mut given) = (Client::connect(&url("agent")).await, Client::connect(&url("audio")).await);
    let watch = async |client: &mut Client, types: [&str; 2]| {
        let begins = (client.next(&types[..1]).await, Instant::now()).1;
        let ends = (client.next(&types[1..]).await, Instant::now()).1;
        (begins, ends)
    };
    agent.say(json!({"type": "agent.speak", "audio": base64(&pcm(24_000))})).await;
    agent.say(json!({"type": "agent.speak_end"})).await;
    let (shown, given) = tokio::join!(
        watch(&mut agent, ["agent.speak_started", "agent.speak_ended"]),
        watch(&mut given, ["speaking", "ended"])
    );
    assert!(given.0 < shown.0 && given.1 < shown.1, "given {given:?}, shown {shown:?}");
    println!("shown {:?} and {:?} after it was given", shown.0 - given.0, shown.1 - given.1);
}
