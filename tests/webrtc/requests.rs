//! The HTTP side: what is refused, and how it is said.

use lipstream::webrtc::{IceServer, Settings};
use str0m::media::Direction;

use crate::{
    harness::{FRAGMENT, Harness, SDP, header},
    peer::{PLAY, PUBLISH, Peer, Wish},
};

/// Names and values.
type Headers<'a> = &'a [(&'a str, &'a str)];

#[test]
fn an_answer_has_the_headers_of_whep() {
    let ice_servers = vec![IceServer { urls: vec!["stun:stun.example.org".into()], ..IceServer::default() }];
    let harness = Harness::new(Settings { ice_servers, ..Settings::default() });
    let peer = Peer::new(PLAY);
    let (head, answer) = harness.post("/whep/relay", &peer.offer);
    assert_eq!(head.status(), 201);
    assert_eq!(header(&head, "content-type"), SDP);
    assert_eq!(header(&head, "accept-patch"), FRAGMENT);
    assert_eq!(header(&head, "link"), "<stun:stun.example.org>; rel=\"ice-server\"");
    let etag = header(&head, "etag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert!(answer.starts_with("v=0") && answer.contains("a=candidate:"), "{answer}");
    let (head, _) = harness.send("OPTIONS", "/whep/relay", &[], b"");
    assert_eq!((head.status().as_u16(), header(&head, "accept-post")), (204, SDP.to_owned()));
    let (head, _) = harness.send("GET", "/whep/relay", &[], b"");
    assert_eq!(head.status(), 405);
}

#[test]
fn a_bad_request_is_refused_with_its_cause() {
    let harness = Harness::new(Settings::default());
    let play = Peer::new(PLAY).offer.clone();
    let other = play.replace("H264/90000", "H265/90000").replace("opus/48000/2", "speex/48000");
    let apart = play.replace("a=group:BUNDLE", "a=group:LS");
    let sdp: &[(&str, &str)] = &[("content-type", SDP)];
    let html: &[(&str, &str)] = &[("content-type", SDP), ("accept", "text/html")];
    let cases: [(&str, Headers, &str, u16, &str); 11] = [
        ("/whep/relay", &[], &play, 415, "application/sdp"),
        ("/whep/relay", &[("content-type", "application/json")], &play, 415, "application/json"),
        ("/whep/relay", html, &play, 406, "text/html"),
        ("/whep/nobody", sdp, &play, 404, "nobody"),
        ("/whep/relay", sdp, "", 400, "empty"),
        ("/whep/relay", sdp, "v=0\r\nhello", 422, "no media section"),
        ("/whep/relay", sdp, &other, 406, "H264, VP8"),
        ("/whep/relay", sdp, &apart, 422, "max-bundle"),
        ("/whip/relay", sdp, &play, 422, "a=sendonly"),
        ("/whip/relay/voice", sdp, &play, 422, "a=sendonly"),
        ("/whip/nobody", sdp, &play, 404, "nobody"),
    ];
    for (path, headers, body, status, part) in cases {
        let (head, text) = harness.send("POST", path, headers, body.as_bytes());
        assert_eq!(head.status(), status, "{path} {headers:?}: {text}");
        assert!(text.contains(part), "{path}: {text}");
        assert_eq!(header(&head, "content-type"), "application/problem+json");
    }
    let (head, _) = harness.send("POST", "/whep/relay", sdp, &vec![b'a'; 100_000]);
    assert_eq!(head.status(), 413);
    assert_eq!(harness.server.totals().opened, 0);
    assert_eq!(harness.outlet("relay").viewers(), 0);
}

#[test]
fn broken_offers_are_never_a_panic() {
    let harness = Harness::new(Settings::default());
    let offer = Peer::new(PLAY).offer.clone();
    let lines: Vec<&str> = offer.lines().collect();
    let mut broken: Vec<String> = Vec::new();
    for i in 0..lines.len() {
        let without = lines.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, l)| format!("{l}\r\n"));
        broken.push(without.collect());
        let cut = |k: usize, line: &str| if k == i { line[..line.len() / 2].to_owned() } else { line.to_owned() };
        broken.push(lines.iter().enumerate().map(|(k, l)| format!("{}\r\n", cut(k, l))).collect());
        let grown = |k: usize, line: &str| if k == i { format!("{line} {line}{line}") } else { line.to_owned() };
        broken.push(lines.iter().enumerate().map(|(k, l)| format!("{}\r\n", grown(k, l))).collect());
        let many = |k: usize, line: &str| format!("{line}\r\n").repeat(if k == i { 3 } else { 1 });
        broken.push(lines.iter().enumerate().map(|(k, l)| many(k, l)).collect());
    }
    broken.push(offer.replace("apt=", "apt=999999999999"));
    broken.push(offer.replace("a=fmtp:", "a=fmtp:300 "));
    broken.push(offer.replace("a=rtpmap:111", "a=rtpmap:-1"));
    broken.push(offer.replace("sha-256 ", "sha-256 zz:"));
    // One payload type for two codecs, and for two profiles of one.
    for format in ["rtpmap:111 H264/90000", "rtpmap:96 opus/48000/2", "fmtp:96 profile-level-id=640c1f"] {
        broken.push(offer.clone() + "a=" + format + "\r\n");
        broken.push(offer.replacen("a=rtpmap:", &format!("a={format}\r\na=rtpmap:"), 1));
    }
    for body in &broken {
        let (head, text) = harness.post("/whep/relay", body);
        let status = head.status().as_u16();
        assert!(matches!(status, 201 | 400 | 406 | 422), "{status} {text}\n{body}");
        assert!(status == 201 || !text.contains("0x"), "{text}");
        if status == 201 {
            assert_eq!(harness.delete(&header(&head, "location")), 200);
        }
    }
    assert_eq!(harness.server.peers().len(), 0);
    println!("{} broken offers", broken.len());
}

#[test]
fn one_viewer_too_many_is_told_so() {
    let harness = Harness::new(Settings { max_viewers: 2, ..Settings::default() });
    let offer = Peer::new(PLAY).offer.clone();
    let (first, ..) = harness.open("/whep/relay", &offer);
    harness.open("/whep/relay", &offer);
    let (head, text) = harness.post("/whep/relay", &offer);
    assert_eq!(head.status(), 503);
    assert!(text.contains("2 WebRTC viewers"), "{text}");
    assert_eq!(header(&head, "retry-after"), "5");
    assert_eq!(harness.delete(&first), 200);
    harness.open("/whep/relay", &offer);
    assert_eq!(harness.server.totals().refused, 1);
}

#[test]
fn a_patch_is_checked_like_an_offer() {
    let harness = Harness::new(Settings::default());
    let peer = Peer::new(PLAY);
    let (location, etag, _) = harness.open("/whep/relay", &peer.offer);
    let patch =
        |path: &str, headers: &[(&str, &str)], body: &str| harness.send("PATCH", path, headers, body.as_bytes());
    let good = "a=candidate:1 1 udp 2122260223 127.0.0.1 61764 typ host\r\n";
    let typed = ("content-type", FRAGMENT);
    let flood = good.repeat(40);
    let cases: [(&str, Headers, &str, u16); 7] = [
        (&location, &[typed, ("if-match", &etag)], good, 204),
        (&location, &[typed], good, 204),
        (&location, &[("content-type", SDP)], good, 415),
        (&location, &[typed, ("if-match", "\"other\"")], good, 412),
        (&location, &[typed], "a=candidate:nonsense", 400),
        (&location, &[typed], &flood, 204),
        (&location, &[typed], &flood, 422),
    ];
    for (path, headers, body, status) in cases {
        let (head, text) = patch(path, headers, body);
        assert_eq!(head.status(), status, "{headers:?} {text}");
    }
    assert_eq!(patch("/whep/relay/0123", &[typed], good).0.status(), 404);
    // A peer belongs to its session and its secret only.
    assert_eq!(harness.delete(&location.replace("/relay/", "/other/")), 404);
    assert_eq!(harness.server.peers().len(), 1);
}

#[test]
fn a_publisher_goes_where_the_session_takes_it() {
    let harness = Harness::new(Settings::default());
    harness.manager.create(lipstream::session::SessionSpec::new("dub", "dub")).unwrap();
    let voice = Peer::new(Wish { video: None, direction: Direction::SendOnly, ..PLAY }).offer.clone();
    let (head, text) = harness.post("/whip/relay/voice", &voice);
    assert_eq!(head.status(), 409, "{text}");
    let (head, text) = harness.post("/whip/relay", &voice);
    assert_eq!(head.status(), 422, "{text}");
    assert!(text.contains("/whip/relay/voice"), "{text}");
    let (main, ..) = harness.open("/whip/dub", &Peer::new(PUBLISH).offer);
    let (second, _, answer) = harness.open("/whip/dub/voice", &Peer::new(PUBLISH).offer);
    assert!(answer.contains("m=video 0 "), "a voice takes no video: {answer}");
    let (head, text) = harness.post("/whip/dub", &Peer::new(PUBLISH).offer);
    assert_eq!(head.status(), 409, "{text}");
    assert!(text.contains("published to"), "{text}");
    assert_eq!((harness.delete(&main), harness.delete(&second)), (200, 200));
    harness.open("/whip/dub", &Peer::new(PUBLISH).offer);
}
