//! WHEP.

use std::{
    collections::BTreeMap,
    sync::{atomic::Ordering, mpsc::channel},
    time::{Duration, Instant},
};

use lipstream::{live::Codec, webrtc::Settings};
use str0m::format::Codec as Format;

use crate::{
    harness::{FRAGMENT, Feed, Harness, SHOW, Show, header, stamp},
    peer::{Media, News, Order, PLAY, Peer, Wish},
};

/// A peer that watches `relay`, connected; its URL.
fn watch(harness: &Harness, wish: Wish) -> (Peer, String) {
    let peer = Peer::new(wish);
    let (location, _, answer) = harness.open("/whep/relay", &peer.offer);
    peer.tell(Order::Answer(answer));
    peer.connected();
    (peer, location)
}

fn is_key(media: &Media) -> bool {
    match media.codec {
        Format::Vp8 => media.data[0] & 1 == 0,
        _ => media.data.windows(5).any(|w| w == [0, 0, 0, 1, 0x65]),
    }
}

/// Running times of the pictures, in ms.
fn stamps(media: &[Media], video: bool) -> Vec<u64> {
    media.iter().filter(|media| media.video == video).filter_map(|media| stamp(&media.data)).collect()
}

fn assert_steps(stamps: &[u64], step: u64) {
    for pair in stamps.windows(2) {
        assert_eq!(pair[1] - pair[0], step, "a gap in {stamps:?}");
    }
}

#[test]
fn a_viewer_gets_every_frame_and_sound_from_a_key_frame_on() {
    for codec in [Codec::H264, Codec::Vp8] {
        let harness = Harness::new(Settings::default());
        let format = if codec == Codec::Vp8 { Format::Vp8 } else { Format::H264 };
        let peer = Peer::new(Wish { video: Some(format), ..PLAY });
        let (location, _, answer) = harness.open("/whep/relay", &peer.offer);
        assert!(location.starts_with("/whep/relay/"), "{location}");
        assert!(answer.contains("a=ice-lite"), "{answer}");
        let _feed = Feed::start(&harness.outlet("relay"), Show { codec, ..SHOW });
        peer.tell(Order::Answer(answer));
        peer.connected();
        let media = peer.enough(50, 100);
        let first = media.iter().find(|media| media.video).expect("a picture");
        assert!(is_key(first), "the first picture can be decoded");
        assert_steps(&stamps(&media, true), 40);
        assert_steps(&stamps(&media, false), 20);
        harness.until("packets are counted", |harness| harness.server.totals().sent.packets > 300);
        let status = &harness.server.peers_of("relay")[0];
        assert!(status.connected && status.codecs == [codec.name(), "opus"], "{status:?}");
    }
}

#[test]
fn h264_is_preferred_where_both_are_offered() {
    let harness = Harness::new(Settings::default());
    let (h264, vp8) = (Peer::new(PLAY), Peer::new(Wish { video: Some(Format::Vp8), ..PLAY }));
    harness.open("/whep/relay", &h264.offer);
    harness.open("/whep/relay", &vp8.offer);
    let codecs: Vec<_> = harness.server.peers().iter().map(|peer| peer.codecs.clone()).collect();
    assert_eq!(codecs, [vec!["h264", "opus"], vec!["vp8", "opus"]]);
    // As a browser offers: both, in one section, VP8 first.
    let both = vp8
        .offer
        .lines()
        .map(|line| match line.strip_prefix("m=video ") {
            Some(rest) => format!("m=video {rest} 108\r\n"),
            None => format!("{line}\r\n"),
        })
        .collect::<String>()
        + "a=rtpmap:108 H264/90000\r\n\
           a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";
    harness.open("/whep/relay", &both);
    assert_eq!(harness.server.peers()[2].codecs, ["h264", "opus"]);
}

#[test]
fn lost_packets_are_sent_again() {
    let harness = Harness::new(Settings::default());
    let _feed = Feed::start(&harness.outlet("relay"), SHOW);
    let (peer, _) = watch(&harness, PLAY);
    peer.tell(Order::Lose(20));
    let media = peer.enough(85, 0);
    assert_steps(&stamps(&media, true), 40);
    assert!(media.iter().filter(|media| media.video).all(|media| media.contiguous));
    harness.until("resends are counted", |harness| harness.server.totals().sent.nacks > 5);
}

#[test]
fn a_lost_picture_makes_a_key_frame_but_not_more_than_one_a_second() {
    let harness = Harness::new(Settings::default());
    let (peer, _) = watch(&harness, PLAY);
    let feed = Feed::start(&harness.outlet("relay"), SHOW);
    peer.wait("a picture", |news| matches!(news, News::Media(media) if media.video).then_some(()));
    std::thread::sleep(Duration::from_millis(1100));
    let before = feed.asked.key_frames.load(Ordering::SeqCst);
    while peer.news.try_recv().is_ok() {}
    peer.tell(Order::Pli);
    peer.wait("a key frame", |news| match news {
        News::Media(media) if media.video && is_key(&media) => Some(()),
        _ => None,
    });
    assert_eq!(feed.asked.key_frames.load(Ordering::SeqCst), before + 1);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        peer.tell(Order::Pli);
        std::thread::sleep(Duration::from_millis(50));
    }
    let asked = feed.asked.key_frames.load(Ordering::SeqCst) - before;
    assert!((2..=5).contains(&asked), "{asked} key frames for 50 requests in 2.5 s");
    harness.until("requests are counted", |harness| harness.server.totals().sent.plis >= 2);
}

#[test]
fn sender_reports_put_sound_and_picture_on_one_clock() {
    let harness = Harness::new(Settings::default());
    // The video encoder is 90 ms slower: that must not show.
    let _feed = Feed::start(&harness.outlet("relay"), Show { late: Duration::from_millis(90), ..SHOW });
    let (peer, _) = watch(&harness, PLAY);
    let media = peer.enough(100, 180);
    let captured = |video: bool| -> BTreeMap<u64, f64> {
        let of = media.iter().filter(|media| media.video == video);
        of.filter_map(|media| Some((stamp(&media.data)?, media.captured?))).collect()
    };
    let (pictures, sounds) = (captured(true), captured(false));
    let offsets: Vec<f64> =
        pictures.iter().filter_map(|(pts, picture)| Some((picture - sounds.get(pts)?) * 1000.0)).collect();
    assert!(offsets.len() > 40, "{} pictures with a sound of the same time", offsets.len());
    let worst = offsets.iter().fold(0f64, |worst, offset| worst.max(offset.abs()));
    assert!(worst < 1.0, "picture and sound of one running time are {worst} ms apart: {offsets:?}");
    println!("sender reports: picture and sound at most {worst:.3} ms apart");
}

#[test]
fn a_graph_that_starts_anew_goes_on_in_rtp_time() {
    let harness = Harness::new(Settings::default());
    let outlet = harness.outlet("relay");
    let feed = Feed::start(&outlet, SHOW);
    let (peer, _) = watch(&harness, PLAY);
    let before = peer.enough(25, 0);
    drop(feed);
    outlet.detach();
    std::thread::sleep(Duration::from_millis(500));
    let _feed = Feed::start(&outlet, SHOW);
    let after = peer.enough(60, 0);
    let pictures: Vec<_> = before.iter().chain(&after).filter(|media| media.video).collect();
    let steps: Vec<f64> =
        pictures.windows(2).map(|pair| (pair[1].rtp - pair[0].rtp) as f64 / f64::from(pair[0].rate)).collect();
    let gaps: Vec<usize> = (0..steps.len()).filter(|i| (steps[*i] - 0.04).abs() > 1e-6).collect();
    assert_eq!(gaps.len(), 1, "one step between the runs: {steps:?}");
    let gap = steps[gaps[0]];
    assert!((0.3..20.0).contains(&gap), "{gap} s of RTP time between the runs");
    assert!(steps.len() - gaps[0] > 30, "{} pictures of the second run", steps.len() - gaps[0]);
}

#[test]
fn delete_frees_everything_at_once() {
    let harness = Harness::new(Settings::default());
    let _feed = Feed::start(&harness.outlet("relay"), SHOW);
    let (peer, location) = watch(&harness, PLAY);
    assert_eq!(harness.outlet("relay").viewers(), 1);
    assert_eq!(harness.delete(&location), 200);
    assert_eq!((harness.outlet("relay").viewers(), harness.server.peers().len()), (0, 0));
    assert_eq!(harness.delete(&location), 404);
    peer.wait("a good-bye", |news| matches!(news, News::Gone).then_some(()));
}

#[test]
fn a_peer_that_says_goodbye_is_gone() {
    let harness = Harness::new(Settings::default());
    let _feed = Feed::start(&harness.outlet("relay"), SHOW);
    let (peer, _) = watch(&harness, PLAY);
    peer.tell(Order::Close);
    harness.until("the peer has gone", |harness| harness.server.peers().is_empty());
    assert_eq!(harness.outlet("relay").viewers(), 0);
    assert_eq!(harness.server.totals().timed_out, 0);
}

#[test]
fn peers_that_never_come_or_fall_silent_are_dropped_and_disturb_nobody() {
    let (setup_timeout, idle_timeout) = (Duration::from_secs(2), Duration::from_secs(2));
    let harness = Harness::new(Settings { setup_timeout, idle_timeout, ..Settings::default() });
    let _feed = Feed::start(&harness.outlet("relay"), SHOW);
    let never = Peer::new(PLAY);
    harness.open("/whep/relay", &never.offer);
    let (silent, _) = watch(&harness, PLAY);
    let (good, _) = watch(&harness, PLAY);
    silent.tell(Order::Stall);
    let mut media = good.enough(50, 0);
    harness.until("the others are dropped", |harness| harness.server.peers().len() == 1);
    media.extend(good.enough(25, 0));
    assert_steps(&stamps(&media, true), 40);
    assert_eq!(harness.outlet("relay").viewers(), 1);
    let totals = harness.server.totals();
    assert_eq!((totals.never_connected, totals.timed_out, totals.opened), (1, 1, 3));
}

#[test]
fn the_end_of_a_session_ends_its_viewers() {
    let harness = Harness::new(Settings::default());
    let (peer, location) = watch(&harness, PLAY);
    harness.manager.remove("relay").unwrap();
    peer.wait("a good-bye", |news| matches!(news, News::Gone).then_some(()));
    harness.until("the peer has gone", |harness| harness.server.peers().is_empty());
    assert_eq!(harness.delete(&location), 404);
}

#[test]
fn the_encoder_follows_a_slow_network() {
    let harness = Harness::new(Settings::default());
    // 3 Mbit/s of video.
    let feed = Feed::start(&harness.outlet("relay"), Show { size: 15_000, ..SHOW });
    let (peer, _) = watch(&harness, PLAY);
    peer.media(Duration::from_secs(1));
    peer.tell(Order::Throttle(1_000_000));
    let start = Instant::now();
    let lowest = |feed: &Feed| feed.asked.rates.lock().iter().flatten().copied().min();
    while lowest(&feed).is_none_or(|rate| rate > 1_000_000) {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", feed.asked.rates.lock());
        peer.media(Duration::from_millis(100));
    }
    println!("1 Mbit/s was found after {:?}: {:?}", start.elapsed(), lowest(&feed));
    // Estimates sway; one of them is told.
    let told = |harness: &Harness| harness.server.peers().first().and_then(|peer| peer.bandwidth);
    harness.until("the estimate is told", |harness| told(harness).is_some_and(|bandwidth| bandwidth < 1_200_000));
    // What fits flows: pictures come at their rate.
    peer.media(Duration::from_secs(2));
    let pictures = stamps(&peer.media(Duration::from_secs(3)), true);
    assert!(pictures.len() > 60, "{} pictures in 3 s", pictures.len());
}

#[test]
fn candidates_trickle_and_ice_restarts() {
    let harness = Harness::new(Settings::default());
    let _feed = Feed::start(&harness.outlet("relay"), SHOW);
    // The offer names no candidate, as that of a browser at first; and a name of mDNS is all that follows.
    let peer = Peer::new(Wish { candidates: false, ..PLAY });
    let (location, etag, answer) = harness.open("/whep/relay", &peer.offer);
    let hidden = "a=candidate:2 1 udp 2113937151 2a3c5f4e-1c0e-4b1c-9d52-3b7f1c1d9a55.local 50123 typ host\r\n";
    let headers = [("content-type", FRAGMENT), ("if-match", etag.as_str())];
    let (head, text) = harness.send("PATCH", &location, &headers, hidden.as_bytes());
    assert_eq!(head.status(), 204, "{text}");
    peer.tell(Order::Answer(answer.clone()));
    peer.connected();
    peer.wait("a picture", |news| matches!(news, News::Media(media) if media.video).then_some(()));

    let (reply, credentials) = channel();
    peer.tell(Order::Restart(reply));
    let (ufrag, password) = credentials.recv().unwrap();
    let fragment = format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n");
    let headers = [("content-type", FRAGMENT), ("if-match", "*")];
    let (head, text) = harness.send("PATCH", &location, &headers, fragment.as_bytes());
    assert_eq!(head.status(), 200, "{text}");
    let fresh = header(&head, "etag");
    assert!(!fresh.is_empty() && fresh != etag);
    let new = |name: &str| text.lines().find(|line| line.starts_with(name)).expect(name).to_owned();
    let (ufrag, password) = (new("a=ice-ufrag:"), new("a=ice-pwd:"));
    assert!(!answer.contains(&ufrag), "the server has a new name too");
    assert!(text.contains("a=candidate:"), "{text}");
    let restarted: String = answer
        .lines()
        .map(|line| match line {
            line if line.starts_with("a=ice-ufrag:") => format!("{ufrag}\r\n"),
            line if line.starts_with("a=ice-pwd:") => format!("{password}\r\n"),
            line => format!("{line}\r\n"),
        })
        .collect();
    peer.tell(Order::Restarted(restarted));
    // Pictures go on after the restart.
    peer.media(Duration::from_secs(1));
    peer.enough(40, 0);
    // The old tag names an ICE session that is no more.
    let headers = [("content-type", FRAGMENT), ("if-match", etag.as_str())];
    assert_eq!(harness.send("PATCH", &location, &headers, hidden.as_bytes()).0.status(), 412);
}
