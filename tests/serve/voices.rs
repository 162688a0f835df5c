//! The second voice of a session, by HTTP.

use serde_json::json;

use super::{NO_DEMO, Server};

#[test]
fn a_second_voice_is_spoken_with_told_of_and_cut_short_alone() {
    let server = Server::start(&[NO_DEMO]);
    for spec in [json!({"id": "two", "graph": "relay", "speaker_b": "right"}), json!({"id": "one", "graph": "relay"})] {
        server.json("POST", "/api/v1/sessions", Some(spec), 201);
    }
    let speak = |session: &str, query: &str| {
        let path = format!("/api/v1/sessions/{session}/speak?{query}");
        server.send("POST", &path, "audio/L16;rate=16000;channels=1", &[0; 32_000])
    };
    // Nobody watches: what is said waits.
    for query in ["voice=a", "voice=b&utterance=second"] {
        let (status, _, text) = speak("two", query);
        assert_eq!(status, 200, "{text}");
    }
    // In tenths of a second: a resampler keeps a little.
    let queued = || {
        let state = server.get("/api/v1/sessions/two");
        [&state["speech_queued_ms"], &state["voice_b"]["speech_queued_ms"]]
            .map(|ms| (ms.as_f64().unwrap() / 100.0).round())
    };
    assert_eq!(queued(), [10.0, 10.0]);
    server.json("POST", "/api/v1/sessions/two/interrupt?voice=b", None, 200);
    assert_eq!(queued(), [10.0, 0.0], "the first voice speaks on");
    assert_eq!(speak("two", "voice=b").0, 200);
    server.json("POST", "/api/v1/sessions/two/interrupt", None, 200);
    assert_eq!(queued(), [0.0, 0.0]);
    server.json("PATCH", "/api/v1/sessions/two", Some(json!({"speaker_b": "left"})), 200);
    let refused = server.json("PATCH", "/api/v1/sessions/two", Some(json!({"speaker_b": "both"})), 422);
    assert!(refused["detail"].as_str().unwrap().starts_with("speaker_b: "), "{refused}");

    assert!(server.get("/api/v1/sessions/one")["voice_b"].is_null());
    for (method, path, body) in [
        ("POST", "/api/v1/sessions/one/interrupt?voice=b", None),
        ("PATCH", "/api/v1/sessions/one", Some(json!({"speaker_b": "left"}))),
    ] {
        let refused = server.json(method, path, body, 409);
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("session `one` has one voice") && detail.contains("speaker_b"), "{path}: {refused}");
    }
    let (status, _, text) = speak("one", "voice=b");
    assert!(status == 409 && text.contains("has one voice"), "{status} {text}");
    let (status, _, text) = speak("two", "voice=c");
    assert!((400..=422).contains(&status) && text.contains("voice"), "{status} {text}");
}
