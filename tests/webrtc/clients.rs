//! What clients of today offer, and GStreamer's `webrtcbin` as one of them.

use std::{path::Path, process::Command};

use lipstream::{
    push::{self, Push},
    session::SessionSpec,
    webrtc::{Role, Settings},
};

use crate::{
    harness::{Feed, Harness, SDP, SHOW},
    peer::{Order, PLAY, PUBLISH, Peer},
};

const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:data\r\n\
                    a=sctp-port:5000\r\na=max-message-size:262144\r\n";

/// The sections of an answer: their first lines.
fn sections(answer: &str) -> Vec<&str> {
    answer.lines().filter(|line| line.starts_with("m=")).collect()
}

#[test]
fn a_data_channel_is_refused_and_the_rest_is_served() {
    let harness = Harness::new(Settings::default());
    let _feed = Feed::start(&harness.outlet("relay"), SHOW);
    let peer = Peer::new(PLAY);
    let bundle = peer.offer.lines().find(|line| line.starts_with("a=group:BUNDLE")).unwrap();
    let with = peer.offer.replace(bundle, &format!("{bundle} data"));
    let (_, _, answer) = harness.open("/whep/relay", &(with.clone() + DATA));
    let lines = sections(&answer);
    assert_eq!((lines.len(), lines[2]), (3, "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"), "{answer}");
    assert!(answer.contains("a=mid:data\r\na=inactive"), "{answer}");
    let bundle = answer.lines().find(|line| line.starts_with("a=group:BUNDLE")).unwrap();
    assert!(!bundle.contains("data"), "{answer}");
    // As the first section of the offer, before those that are used; and media flows.
    let first = with.replacen("m=audio", &format!("{DATA}m=audio"), 1);
    let (_, _, answer) = harness.open("/whep/relay", &first);
    assert!(sections(&answer)[0].starts_with("m=application 0 "), "{answer}");
    let (rest, session) = (answer.find("m=audio").unwrap(), answer.find("m=application").unwrap());
    peer.tell(Order::Answer(format!("{}{}", &answer[..session], &answer[rest..])));
    peer.connected();
}

#[test]
fn a_phone_is_not_told_that_others_turn_its_pictures() {
    let harness = Harness::new(Settings::default());
    let peer = Peer::new(PUBLISH);
    assert!(peer.offer.contains("urn:3gpp:video-orientation"), "{}", peer.offer);
    let (_, _, answer) = harness.open("/whip/relay", &peer.offer);
    assert!(!answer.contains("video-orientation"), "{answer}");
    assert!(answer.contains("transport-wide-cc"), "the others stay: {answer}");
}

#[test]
fn h264_without_its_parameters_is_constrained_baseline() {
    let harness = Harness::new(Settings::default());
    let offer = Peer::new(PLAY).offer.clone();
    let bare: String = offer
        .lines()
        .filter(|line| !line.contains("profile-level-id") && !line.contains("apt="))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let (_, _, answer) = harness.open("/whep/relay", &bare);
    assert!(answer.contains("profile-level-id=42e0"), "{answer}");
    assert!(!answer.contains("profile-level-id=42001f"), "{answer}");
}

#[test]
fn simulcast_is_answered_with_one_stream() {
    let harness = Harness::new(Settings::default());
    let offer = Peer::new(PUBLISH).offer.clone() + "a=rid:h send\r\na=rid:l send\r\na=simulcast:send h;l\r\n";
    let (_, _, answer) = harness.open("/whip/relay", &offer);
    assert!(!answer.contains("a=simulcast") && !answer.contains("a=rid:"), "{answer}");
}

#[test]
fn a_stream_key_guards_whip() {
    let harness = Harness::new(Settings::default());
    let mut spec = SessionSpec::new("locked", "relay");
    spec.stream_key = Some("ab+c/de==".into());
    harness.manager.create(spec).unwrap();
    let offer = Peer::new(PUBLISH).offer.clone();
    let wrong: [(&str, &str); 3] = [("", ""), ("?key=ab", ""), ("", "Bearer nothing")];
    for (query, bearer) in wrong {
        for path in ["/whip/locked", "/whip/locked/voice"] {
            let headers = [("content-type", SDP), ("authorization", bearer)];
            let (head, text) = harness.send("POST", &format!("{path}{query}"), &headers, offer.as_bytes());
            assert_eq!(head.status(), 401, "{text}");
            assert!(text.contains("stream key") && !text.contains("ab+c"), "{text}");
        }
    }
    assert_eq!(harness.server.totals().opened, 0);
    let right: [(&str, &str); 2] = [("?key=ab%2Bc%2Fde%3D%3D", ""), ("", "Bearer ab+c/de==")];
    for (query, bearer) in right {
        let headers = [("content-type", SDP), ("authorization", bearer)];
        let (head, text) = harness.send("POST", &format!("/whip/locked{query}"), &headers, offer.as_bytes());
        assert_eq!(head.status(), 201, "{text}");
        harness.delete(&crate::harness::header(&head, "location"));
    }
}

/// `webrtcbin`: an RSA certificate, and libnice, which takes no part on loopback.
fn webrtcbin(harness: &Harness, mode: &str) -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/webrtc/webrtcbin.py");
    let output = Command::new("/usr/bin/python3")
        .arg(script)
        .args([mode, &harness.url(&format!("/{mode}/relay"))])
        .output()
        .expect("python3 runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        println!("skipped: {} (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)", out.trim());
        return None;
    }
    assert!(output.status.success(), "{out}{err}; {:?}", harness.server.peers());
    Some(out.into_owned())
}

#[test]
fn webrtcbin_plays() {
    let harness = Harness::new(Settings { this_machine: true, ..Settings::default() });
    let _feed = Feed::start(&harness.outlet("relay"), SHOW);
    let Some(said) = webrtcbin(&harness, "whep") else { return };
    println!("{said}");
    assert!(said.contains("video") && said.contains("audio"), "{said}");
}

/// What one session shows is published to another by WHIP, as to an SFU.
#[test]
fn a_session_is_pushed_by_whip() {
    let harness = Harness::new(Settings::default());
    let _feed = Feed::start(&harness.outlet("relay"), SHOW);
    let mut spec = SessionSpec::new("sfu", "relay");
    spec.stream_key = Some("ab+c/de==".into());
    harness.manager.create(spec).unwrap();
    let settings = push::Settings { private_addresses: true, ..push::Settings::default() };
    let start = |user: &str, settings: &push::Settings| {
        let url = format!("whip://{user}{}/whip/sfu", harness.address);
        harness.enter(|| Push::start(harness.outlet("relay"), &url, settings.clone()).unwrap())
    };
    let publisher = |harness: &Harness| harness.server.peers().into_iter().find(|peer| peer.role == Role::Publisher);

    let wrong = start("wrong-key@", &settings);
    harness.until("a refusal", |_| wrong.status().error.is_some());
    let status = format!("{:?}", wrong.status());
    assert!(status.contains("401") && !status.contains("wrong-key"), "{status}");
    drop(wrong);
    let public = start("", &push::Settings { private_addresses: false, ..settings.clone() });
    harness.until("a refusal", |_| public.status().error.is_some());
    assert!(public.status().error.unwrap().contains("not a public address"));
    drop(public);

    let push = start("ab%2Bc%2Fde%3D%3D@", &settings);
    harness.until("media", |harness| {
        publisher(harness).is_some_and(|peer| peer.counters.frames > 20 && peer.counters.sounds > 50)
    });
    assert!(push.status().connected, "{:?}", push.status());
    drop(push);
    harness.until("its end at the server", |harness| publisher(harness).is_none());
}

#[test]
fn webrtcbin_publishes() {
    let harness = Harness::new(Settings { this_machine: true, ..Settings::default() });
    std::thread::scope(|scope| {
        let run = scope.spawn(|| webrtcbin(&harness, "whip"));
        let mut most = (0, 0);
        while !run.is_finished() {
            for peer in harness.server.peers().iter().filter(|peer| peer.role == Role::Publisher) {
                most = (most.0.max(peer.counters.frames), most.1.max(peer.counters.sounds));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        if run.join().expect("the peer ends").is_some() {
            assert!(most.0 > 20 && most.1 > 50, "frames and sounds: {most:?}");
        }
    });
}
