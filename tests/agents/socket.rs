//! The socket of one session.

use std::{sync::Arc, time::Duration};

use futures_util::SinkExt;
use lipstream::{http::agent_socket, session::Session};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::{
    base64,
    websocket::{Client, pcm, session, take, until},
};

async fn connect(session: Arc<Session>) -> Client {
    let mut client =
        Client::of(move |upgrade| agent_socket::upgrade(upgrade, session, None, (), CancellationToken::new())).await;
    for state in ["connecting", "connected"] {
        assert_eq!(client.event().await, json!({"type": "session.state_updated", "state": state}));
    }
    client
}

fn speak(samples: usize, id: &str) -> Value {
    json!({"type": "agent.speak", "audio": base64(&pcm(samples)), "event_id": id})
}

fn appended(id: &str) -> Value {
    json!({"type": "agent.audio_buffer_appended", "event_id": id, "source_event_id": id})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_is_all_sound_up_to_its_end_whatever_the_ids() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    // One id for all, one for each message.
    for ids in [["a", "a"], ["b", "c"]] {
        for id in ids {
            client.say(speak(6_000, id)).await;
            assert_eq!(client.event().await, appended(id));
        }
        client.say(json!({"type": "agent.speak_end", "event_id": "z", "extra": 1})).await;
        assert_eq!(client.event().await["type"], "agent.audio_buffer_committed");
        assert_eq!(session.speech().queued(), Duration::from_millis(500));
        assert!(take(session.speech(), 24_000)[480..23_000].iter().any(|s| s.abs() > 0.3));
        let utterance = json!({"event_id": ids[0], "source_event_id": ids[0], "task": {"id": ids[0]}});
        let mut started = utterance.clone();
        started["type"] = "agent.speak_started".into();
        assert_eq!(client.event().await, started);
        let turn = |from, to| json!({"type": "agent.state_updated", "previous_state": from, "new_state": to});
        assert_eq!(client.event().await, turn("idle", "talking"));
        take(session.speech(), 960);
        let mut ended = utterance;
        ended["type"] = "agent.speak_ended".into();
        ended["spoken_ms"] = 500.0.into();
        assert_eq!(client.event().await, ended);
        assert_eq!(client.event().await, turn("talking", "idle"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_cuts_what_is_queued_and_its_sound_that_is_still_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    client.say(speak(24_000, "long")).await;
    assert_eq!(client.event().await, appended("long"));
    take(session.speech(), 4_800);
    assert_eq!(client.next(&["agent.speak_started"]).await["event_id"], "long");
    client.say(json!({"type": "agent.interrupt", "event_id": "stop"})).await;
    // Sent before the client knew.
    client.say(speak(12_000, "long")).await;
    client.say(speak(2_400, "next")).await;
    client.say(json!({"type": "agent.speak_end", "event_id": "next"})).await;
    let cut = client.next(&["agent.speak_interrupted", "agent.speak_ended"]).await;
    assert_eq!((&cut["type"], &cut["event_id"]), (&json!("agent.speak_interrupted"), &json!("long")));
    assert_eq!((&cut["cut"], &cut["spoken_ms"]), (&json!("interrupted"), &json!(100.0)));
    let through = client.next(&["agent.interrupted"]).await;
    assert_eq!(through["event_id"], "stop");
    assert!(through["ms"].as_f64().is_some_and(|ms| (0.0..2000.0).contains(&ms)), "{through}");
    until("the next utterance alone", || session.speech().queued() == Duration::from_millis(100)).await;
    // What fades out of the first, and then the next.
    (0..8).for_each(|_| drop(take(session.speech(), 960)));
    assert_eq!(client.next(&["agent.speak_started"]).await["event_id"], "next");
    assert_eq!(client.next(&["agent.speak_ended"]).await["event_id"], "next");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_interrupted_by_another_is_told_and_stays_silent_until_the_utterance_ends() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    for id in ["1", "2"] {
        client.say(speak(12_000, id)).await;
        assert_eq!(client.event().await, appended(id));
    }
    session.interrupt().await.unwrap();
    let cut = client.next(&["agent.speak_interrupted"]).await;
    assert_eq!(cut["event_id"], "1");
    assert_eq!(client.next(&["agent.interrupted"]).await["event_id"], Value::Null);
    client.say(speak(12_000, "3")).await;
    client.say(json!({"type": "agent.speak_end", "event_id": "4"})).await;
    assert_eq!(client.event().await["type"], "agent.audio_buffer_committed", "and no sound was taken");
    client.say(speak(12_000, "5")).await;
    assert_eq!(client.event().await, appended("5"));
    assert_eq!(session.speech().queued().as_millis() / 10, 49, "but for what the filter holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_without_space_is_refused_as_a_whole_and_an_interruption_gets_through() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 2);
    let mut client = connect(session.clone()).await;
    client.say(speak(36_000, "a")).await;
    assert_eq!(client.event().await, appended("a"));
    let queued = session.speech().queued();
    client.say(speak(36_000, "a")).await;
    let refusal = client.event().await;
    assert_eq!((&refusal["type"], &refusal["error"]["type"]), (&json!("error"), &json!("buffer_full")), "{refusal}");
    assert_eq!(refusal["error"]["event_id"], "a");
    assert!(refusal["error"]["message"].as_str().unwrap().contains("sessions.speech_seconds"), "{refusal}");
    assert_eq!(session.speech().queued(), queued);
    client.say(json!({"type": "agent.interrupt", "event_id": null})).await;
    client.next(&["agent.interrupted"]).await;
    client.say(speak(36_000, "b")).await;
    assert_eq!(client.event().await, appended("b"), "there is space again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_answered_with_cause_and_cure() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    let mut refused = async |message: Message, kind: &str, says: &str| {
        client.0.send(message).await.unwrap();
        let event = client.event().await;
        let text = event["error"]["message"].as_str().unwrap_or_default();
        assert!(event["error"]["type"] == kind && text.contains(says), "{event} should be {kind} and say {says}");
    };
    let text = |value: Value| Message::text(value.to_string());
    refused(Message::text("no JSON"), "invalid_message", "agent.speak_end").await;
    refused(text(json!({"type": "agent.dance"})), "invalid_message", "agent.interrupt").await;
    refused(text(json!({"type": "agent.speak"})), "invalid_message", "audio").await;
    refused(text(json!({"type": "agent.speak", "audio": 7})), "invalid_message", "string").await;
    refused(text(json!({"type": "agent.interrupt", "event_id": "x".repeat(200)})), "invalid_message", "128").await;
    refused(text(json!({"type": "agent.speak", "audio": "$$$"})), "invalid_audio", "base64").await;
    let wav = base64(b"RIFF\0\0\0\0WAVEfmt ");
    refused(text(json!({"type": "agent.speak", "audio": wav})), "invalid_audio", "without the header").await;
    refused(Message::binary(vec![0; 10]), "invalid_message", "base64").await;
    let large = text(json!({"type": "agent.speak", "audio": "A".repeat(agent_socket::MAX_MESSAGE)}));
    refused(large, "too_large", "smaller pieces").await;
    assert_eq!(client.event().await, Value::Null, "the connection ends");
    assert_eq!(session.speech().queued(), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_asks_for_nothing_is_taken_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    client.say(json!({"type": "session.keep_alive", "event_id": "1"})).await;
    client.say(json!({"type": "agent.speak", "audio": ""})).await;
    client.say(json!({"type": "agent.stop_listening"})).await;
    client.say(json!({"type": "agent.start_listening"})).await;
    let turn = client.event().await;
    assert_eq!(turn, json!({"type": "agent.state_updated", "previous_state": "idle", "new_state": "listening"}));
    assert_eq!(session.speech().queued(), Duration::ZERO);
}
