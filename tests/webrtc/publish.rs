//! WHIP.

use std::{
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};
use lipstream::webrtc::{Role, Settings};
use str0m::{format::Codec as Format, media::Direction};

use crate::{
    harness::Harness,
    peer::{News, Order, PLAY, PUBLISH, Peer, Wish},
};

/// A camera with a microphone: encoded test media in real time.
struct Camera {
    pipeline: gst::Pipeline,
    media: Receiver<(bool, Duration, Vec<u8>)>,
}

impl Camera {
    fn start(format: Format) -> Self {
        let encoder = match format {
            Format::Vp8 => "vp8enc name=encoder deadline=1 keyframe-max-dist=1000 target-bitrate=500000",
            _ => {
                "x264enc name=encoder tune=zerolatency speed-preset=ultrafast key-int-max=1000 bitrate=500 \
                 ! video/x-h264,profile=constrained-baseline,stream-format=byte-stream,alignment=au \
                 ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au"
            }
        };
        let launch = format!(
            "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1 ! {encoder} \
             ! appsink name=video sync=false \
             audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! opusenc ! appsink name=audio sync=false"
        );
        let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
        let (sender, media) = channel();
        for video in [true, false] {
            let sender = sender.clone();
            let name = if video { "video" } else { "audio" };
            let sink = pipeline.by_name(name).unwrap().downcast::<AppSink>().unwrap();
            let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let buffer = sample.buffer().unwrap();
                let pts = Duration::from_nanos(buffer.pts().unwrap().nseconds() % 3_600_000_000_000);
                let _ = sender.send((video, pts, buffer.map_readable().unwrap().to_vec()));
                Ok(gst::FlowSuccess::Ok)
            });
            sink.set_callbacks(callbacks.build());
        }
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, media }
    }

    /// Sends for this time; gives the number of requests for a key frame.
    fn send(&self, peer: &Peer, time: Duration) -> usize {
        let until = Instant::now() + time;
        let mut wanted = 0;
        while Instant::now() < until {
            if let Ok((video, time, data)) = self.media.recv_timeout(Duration::from_millis(10)) {
                peer.tell(Order::Send { video, time, data });
            }
            while let Ok(news) = peer.news.try_recv() {
                if matches!(news, News::KeyFrameWanted) {
                    wanted += 1;
                    let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
                    self.pipeline.by_name("encoder").unwrap().send_event(event);
                }
            }
        }
        wanted
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

#[test]
fn a_published_camera_is_decoded_and_comes_out_again() {
    for format in [Format::H264, Format::Vp8] {
        let harness = Harness::new(Settings::default());
        let camera = Camera::start(format);
        let peer = Peer::new(Wish { video: Some(format), ..PUBLISH });
        let (location, _, answer) = harness.open("/whip/relay", &peer.offer);
        assert!(location.starts_with("/whip/relay/"), "{location}");
        peer.tell(Order::Answer(answer));
        peer.connected();
        let viewer = Peer::new(PLAY);
        let (_, _, answer) = harness.open("/whep/relay", &viewer.offer);
        viewer.tell(Order::Answer(answer));
        // The first pictures are lost: the camera had begun before, and makes no other key frame unasked.
        while camera.media.try_recv().is_ok() {}
        let mut wanted = 0;
        let (mut pictures, mut sounds) = (0, 0);
        let start = Instant::now();
        while (pictures < 50 || sounds < 100) && start.elapsed() < Duration::from_secs(40) {
            wanted += camera.send(&peer, Duration::from_millis(200));
            while let Ok(news) = viewer.news.try_recv() {
                if let News::Media(media) = news {
                    *(if media.video { &mut pictures } else { &mut sounds }) += 1;
                }
            }
        }
        assert!(pictures >= 50 && sounds >= 100, "{pictures} pictures and {sounds} sounds came out again");
        assert!(wanted >= 1, "the first pictures were lost, and no key frame was asked for");
        let status = &harness.server.peers_of("relay")[0];
        assert_eq!(status.role, Role::Publisher);
        assert!(status.counters.frames > 40 && status.counters.sounds > 80, "{status:?}");
        assert!(harness.manager.get("relay").unwrap().status().publishing);
        assert_eq!(harness.delete(&location), 200);
        harness.until("the place is free", |harness| !harness.manager.get("relay").unwrap().status().publishing);
    }
}

#[test]
fn loss_on_the_way_in_is_made_good() {
    let harness = Harness::new(Settings::default());
    let camera = Camera::start(Format::H264);
    let peer = Peer::new(PUBLISH);
    let (_, _, answer) = harness.open("/whip/relay", &peer.offer);
    peer.tell(Order::Answer(answer));
    peer.connected();
    camera.send(&peer, Duration::from_secs(2));
    let before = harness.server.peers()[0].counters;
    peer.tell(Order::LoseSent(15));
    camera.send(&peer, Duration::from_secs(4));
    harness.until("loss is asked for again", |harness| harness.server.peers()[0].counters.nacks > 3);
    let after = harness.server.peers()[0].counters;
    let frames = after.frames - before.frames;
    assert!(frames > 85, "{frames} frames in 4 s; {after:?}");
}

#[test]
fn a_microphone_is_the_voice_of_a_dub() {
    let harness = Harness::new(Settings::default());
    harness.manager.create(lipstream::session::SessionSpec::new("dub", "dub")).unwrap();
    let camera = Camera::start(Format::H264);
    let peer = Peer::new(Wish { video: None, direction: Direction::SendOnly, ..PLAY });
    let (location, _, answer) = harness.open("/whip/dub/voice", &peer.offer);
    peer.tell(Order::Answer(answer));
    peer.connected();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        if let Ok((false, time, data)) = camera.media.recv_timeout(Duration::from_millis(10)) {
            peer.tell(Order::Send { video: false, time, data });
        }
    }
    let status = harness.manager.get("dub").unwrap().status();
    assert!(status.publishing_voice && !status.publishing, "{status:?}");
    let peer_status = &harness.server.peers_of("dub")[0];
    assert_eq!(peer_status.role, Role::Voice);
    assert!(peer_status.counters.sounds > 80, "{peer_status:?}");
    assert_eq!(harness.delete(&location), 200);
    harness.until("the place is free", |harness| !harness.manager.get("dub").unwrap().status().publishing_voice);
}
