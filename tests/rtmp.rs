//! RTMP with real peers: ffmpeg, GStreamer's rtmp2src and rtmp2sink, nginx; and with peers that mean no good.

mod live;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lipstream::{
    live::{Codec, Packet},
    rtmp::{
        Server, Settings,
        amf::Value,
        chunk::kind,
        link::{Event, Link},
    },
};
use live::*;
use rand::{RngCore, SeedableRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    Settings {
        bind: loopback(),
        takeover: Duration::from_millis(500),
        stuck: Duration::from_secs(2),
        ..Settings::default()
    }
}

fn serve(studio: &Arc<Studio>) -> Server {
    Server::with_host(settings(), studio.clone()).unwrap()
}

fn url(server: &Server, path: &str) -> String {
    format!("rtmp://{}/live/{path}", server.local_addr())
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_publishes_with_reordered_pictures_and_another_sound_rate() {
    let studio = Studio::open();
    let server = serve(&studio);
    let arguments = format!("{} -bf 2 -f flv {}", test_media(3).replace("ultrafast", "veryfast"), url(&server, "talk"));
    let (code, stderr) = Running::ffmpeg(&arguments).end(PATIENCE).await;
    assert_eq!(code, 0, "{stderr}");
    eventually(PATIENCE, "the source ends", || studio.main.seen().ends == 1);
    let seen = studio.main.seen();
    assert!((72..=75).contains(&seen.frames.len()), "{} frames of 75", seen.frames.len());
    let at: Vec<f64> = seen.frames.iter().map(|(at, _)| at.as_secs_f64()).collect();
    assert_steady(&at, 0.04);
    assert_eq!(seen.picture.map(|p| (p.width, p.height)), Some((320, 240)));
    assert!((138_000..=147_000).contains(&seen.samples), "{} samples of 144000", seen.samples);
    assert!(seen.loudest > 0.05, "silence");
    let (begin, _) = seen.sound.unwrap();
    assert!((begin.as_secs_f64() - at[0]).abs() < 0.1, "sound from {begin:?}, pictures from {}", at[0]);
    assert_eq!((seen.restarts, server.stats().publishers), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_from_a_key_frame_at_zero_without_gaps() {
    let studio = Studio::open();
    let server = serve(&studio);
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let packets = play(&url(&server, "talk/synced"), 4).await;
    let (video, audio) = (times(&packets, "video"), times(&packets, "audio"));
    assert!(packets.iter().find(|(kind, ..)| kind == "video").unwrap().2, "the first picture is a key frame");
    assert!(video[0].abs() < 0.03, "the first picture is at {}", video[0]);
    assert!((0.0..0.1).contains(&audio[0]), "the sound begins at {}", audio[0]);
    assert!(video.len() >= 95 && audio.len() >= 180, "{} pictures, {} packets of sound", video.len(), audio.len());
    assert_steady(&video, 0.04);
    assert_steady(&audio, 1024.0 / 48_000.0);
    assert!(server.stats().bytes_out > 50_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_publishes_a_voice_and_plays() {
    let studio = Studio::open();
    let server = serve(&studio);
    let publisher = gst::parse::launch(&format!(
        "videotestsrc is-live=true num-buffers=75 ! video/x-raw,width=320,height=240,framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast ! h264parse name=encoded ! flvmux name=mux streamable=true \
         ! rtmp2sink location={} audiotestsrc is-live=true num-buffers=130 ! avenc_aac ! mux.",
        url(&server, "talk/voice")
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    // When each picture left the encoder, to measure from there to the session.
    let left: Arc<parking_lot::Mutex<Vec<Instant>>> = Arc::default();
    let probe = left.clone();
    use gst::prelude::*;
    publisher.by_name("encoded").unwrap().static_pad("src").unwrap().add_probe(
        gst::PadProbeType::BUFFER,
        move |_, _| {
            probe.lock().push(Instant::now());
            gst::PadProbeReturn::Ok
        },
    );
    publisher.set_state(gst::State::Playing).unwrap();
    eventually(PATIENCE, "pictures and sound of the voice's source", || {
        let seen = studio.voice.seen();
        seen.frames.len() > 60 && seen.samples > 48_000
    });
    let mut delays: Vec<Duration> = left
        .lock()
        .iter()
        .zip(&studio.voice.seen().frames)
        .map(|(left, (_, came))| came.duration_since(*left))
        .collect();
    delays.sort();
    eprintln!("from rtmp2sink's encoder to decoded in the session: median {:?}", delays[delays.len() / 2]);
    publisher.set_state(gst::State::Null).unwrap();
    eventually(PATIENCE, "the place is free again", || studio.voice.seen().ends == 1);

    let player = gst::parse::launch(&format!(
        "rtmp2src location={} ! flvdemux name=demux ! queue ! h264parse ! avdec_h264 ! appsink name=video sync=false \
         demux. ! queue ! aacparse ! avdec_aac ! fakesink name=audio sync=false",
        url(&server, "talk/synced")
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let came: Arc<parking_lot::Mutex<Vec<(Duration, Instant)>>> = Arc::default();
    let seen = came.clone();
    let sink = player.by_name("video").unwrap().downcast::<gst_app::AppSink>().unwrap();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let pts = sample.buffer().unwrap().pts().unwrap();
                seen.lock().push((pts.into(), Instant::now()));
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    player.set_state(gst::State::Playing).unwrap();
    eventually(PATIENCE, "decoded pictures at rtmp2src", || came.lock().len() > 50);
    eprintln!("from the outlet to decoded at rtmp2src: median {:?}", studio.broadcast.delay(&came.lock()));
    player.set_state(gst::State::Null).unwrap();
    eventually(PATIENCE, "the player is gone", || server.stats().players == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_publisher_is_refused_while_the_first_lives_and_takes_over_when_it_is_dead() {
    let studio = Studio::open();
    let server = serve(&studio);
    let publish = format!("{} -f flv {}", test_media(60), url(&server, "talk"));
    let first = Running::ffmpeg(&publish);
    eventually(PATIENCE, "the first publisher's frames", || studio.main.frames() > 10);
    let (code, stderr) = Running::ffmpeg(&publish).end(PATIENCE).await;
    assert!(code != 0 && stderr.contains("has a live publisher already"), "{code} {stderr}");
    let before = studio.main.frames();
    eventually(PATIENCE, "the first goes on", || studio.main.frames() > before + 10);

    // A publisher whose network is dead says nothing and never hangs up.
    first.signal("STOP");
    tokio::time::sleep(Duration::from_millis(800)).await;
    let second = Running::ffmpeg(&publish);
    let before = studio.main.frames();
    eventually(PATIENCE, "the second takes over", || {
        studio.main.seen().sources == 2 && studio.main.frames() > before + 10
    });

    // A publisher that is killed leaves at once.
    drop(second);
    let killed = Instant::now();
    let third = Running::ffmpeg(&publish);
    eventually(PATIENCE, "the third follows", || studio.main.seen().sources == 3);
    let before = studio.main.frames();
    eventually(PATIENCE, "frames of the third", || studio.main.frames() > before);
    eprintln!("frames again {:?} after the publisher was killed and started", killed.elapsed());
    drop(third);
    first.signal("CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_there_are_refused_with_the_reason() {
    let studio = Studio::open();
    let server = serve(&studio);
    for (path, says) in [("nobody", "there is no session `nobody`"), ("talk/other/thing", "there is no session")] {
        let (code, stderr) =
            Running::ffmpeg(&format!("{} -f flv {}", test_media(1), url(&server, path))).end(PATIENCE).await;
        assert!(code != 0 && stderr.contains(says), "{path}: {code} {stderr}");
    }
    let (code, stderr) =
        Running::ffmpeg(&format!("-i {} -f null -", url(&server, "nobody/synced"))).end(PATIENCE).await;
    assert!(code != 0 && stderr.contains("there is no session"), "{code} {stderr}");
    assert!(server.stats().rejected >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_that_takes_nothing_is_dropped_and_others_notice_nothing() {
    let studio = Studio::open();
    let server = serve(&studio);
    // Small buffers, so that few seconds fill them.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = Peer::over(socket.connect(server.local_addr()).await.unwrap()).await;
    stuck
        .command(0, &[Value::text("connect"), Value::Number(1.0), Value::object([("app", Value::text("live"))])])
        .await;
    stuck.command(0, &[Value::text("createStream"), Value::Number(2.0), Value::Null]).await;
    stuck.command(1, &[Value::text("play"), Value::Number(0.0), Value::Null, Value::text("talk/synced")]).await;
    eventually(PATIENCE, "the player is let in", || server.stats().players == 1);
    let packets = play(&url(&server, "talk/synced"), 3).await;
    assert_steady(&times(&packets, "video"), 0.04);
    // More than the system's buffers hold, which would else take half a minute of the stream.
    let data = Bytes::from(vec![0; 1 << 20]);
    eventually(PATIENCE, "the stuck player is gone", || {
        let pts = studio.broadcast.published.lock().last().map_or(Duration::ZERO, |(pts, ..)| *pts);
        let packet = Packet { codec: Codec::Aac, pts, duration: Duration::ZERO, key: true, data: data.clone() };
        studio.broadcast.outlet.publish(packet);
        server.stats().players == 0
    });
    drop(stuck);
}

/// A peer of our own that can say anything.
struct Peer {
    socket: TcpStream,
    link: Link,
}

impl Peer {
    async fn connect(server: &Server) -> Self {
        Self::over(TcpStream::connect(server.local_addr()).await.unwrap()).await
    }

    async fn over(mut socket: TcpStream) -> Self {
        let mut hello = vec![0; 1537];
        hello[0] = 3;
        socket.write_all(&hello).await.unwrap();
        let mut answer = vec![0; 1 + 2 * 1536];
        socket.read_exact(&mut answer).await.unwrap();
        socket.write_all(&answer[1..1537]).await.unwrap();
        Self { socket, link: Link::default() }
    }

    async fn command(&mut self, stream: u32, values: &[Value]) {
        self.link.command(stream, values);
        self.flush().await;
    }

    async fn flush(&mut self) {
        // A peer that is thrown out may find the connection closed.
        let _ = self.socket.write_all_buf(&mut self.link.out).await;
    }

    /// Code and description of the next status.
    async fn status(&mut self) -> Option<(String, String)> {
        loop {
            while let Ok(Some(event)) = self.link.event() {
                if let Event::Command(command) = event
                    && command.name == "onStatus"
                {
                    let info = command.arguments.first()?;
                    let text = |name: &str| info.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                    return Some((text("code"), text("description")));
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.link.input)).await.unwrap();
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn publish(server: &Server, name: &str) -> Self {
        let mut peer = Self::connect(server).await;
        peer.command(0, &[Value::text("connect"), Value::Number(1.0), Value::object([("app", Value::text("live"))])])
            .await;
        peer.command(0, &[Value::text("createStream"), Value::Number(2.0), Value::Null]).await;
        peer.command(1, &[Value::text("publish"), Value::Number(0.0), Value::Null, Value::text(name)]).await;
        peer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codecs_that_are_not_supported_are_named() {
    let studio = Studio::open();
    let server = serve(&studio);
    for (kind, tag, says) in [(kind::VIDEO, &[0x12u8, 0, 0][..], "Sorenson"), (kind::AUDIO, &[0xB2, 0], "Speex")] {
        let mut peer = Peer::publish(&server, "talk").await;
        assert_eq!(peer.status().await.unwrap().0, "NetStream.Publish.Start");
        peer.link.send(kind, 1, 0, bytes::Bytes::copy_from_slice(tag));
        peer.flush().await;
        let (code, reason) = peer.status().await.unwrap();
        assert!(code == "NetStream.Publish.Failed" && reason.contains(says), "{code} {reason}");
    }
}

/// Kind, time and data of the tags of an FLV file.
fn tags(file: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let (mut at, mut tags) = (13, Vec::new());
    let number = |at: usize, size: usize| file[at..at + size].iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte));
    while at + 11 <= file.len() {
        let size = number(at + 1, 3) as usize;
        tags.push((file[at], number(at + 4, 3), file[at + 11..at + 11 + size].to_vec()));
        at += 11 + size + 4;
    }
    tags
}

/// An encoder that begins before its picture parameters are known, sends a second track, and has telephone sound.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_header_other_tracks_and_telephone_sound_are_no_reason_to_end() {
    let studio = Studio::open();
    let server = serve(&studio);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.flv");
    let encoded = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=2 -c:v libx264 -preset ultrafast -bf 0 -g 5";
    let (code, stderr) = Running::ffmpeg(&format!("{encoded} {}", file.display())).end(PATIENCE).await;
    assert_eq!(code, 0, "{stderr}");
    let mut peer = Peer::publish(&server, "talk").await;
    assert_eq!(peer.status().await.unwrap().0, "NetStream.Publish.Start");
    // mu-law: a tone of 400 Hz, as loud as it gets every ten samples.
    let tone: Vec<u8> = (0..160).map(|n| if n / 10 % 2 == 0 { 0x80 } else { 0x00 }).collect();
    let mut whole = None;
    for (kind, time, tag) in tags(&std::fs::read(&file).unwrap()).into_iter().filter(|tag| tag.0 == kind::VIDEO) {
        if tag[..2] == [0x17, 0] {
            let sps = usize::from(u16::from_be_bytes([tag[11], tag[12]]));
            peer.link.send(kind, 1, 0, bytes::Bytes::copy_from_slice(&tag[..13 + sps]));
            whole = Some(tag);
            continue;
        }
        if let Some(tag) = whole.take_if(|_| time >= 400) {
            peer.link.send(kind, 1, time, tag.into());
        }
        let aside = [b"\x96\x01avc1\x01\x00\x00\x00", &tag[5..]].concat();
        peer.link.send(kind, 1, time, aside.into());
        peer.link.send(kind, 1, time, tag.into());
        for part in [0, 20] {
            peer.link.send(kind::AUDIO, 1, time + part, [&[0x82], &tone[..]].concat().into());
        }
        peer.flush().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eventually(PATIENCE, "pictures after the whole header, and sound", || {
        let seen = studio.main.seen();
        seen.frames.len() > 20 && seen.samples > 80_000
    });
    assert!(studio.main.seen().loudest > 0.5, "{}", studio.main.seen().loudest);
    assert_eq!(server.stats().publishers, 1, "it publishes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_does_not_take_the_server_down() {
    let studio = Studio::open();
    let server = serve(&studio);
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut noise = |length: usize| {
        let mut bytes = vec![0; length];
        random.fill_bytes(&mut bytes);
        bytes
    };
    // No handshake at all, half of one, another protocol, then noise behind a good one.
    for bytes in [noise(5000), vec![3; 700], b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![3; 100_000]] {
        let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
        let _ = socket.write_all(&bytes).await;
    }
    for _ in 0..50 {
        let mut peer = Peer::connect(&server).await;
        let _ = peer.socket.write_all(&noise(3000)).await;
    }
    // Broken media of every kind in good messages.
    for round in 0..40 {
        let mut peer = Peer::publish(&server, "talk").await;
        for index in 0..20u32 {
            let mut tag = noise(1 + (round * 37 + index as usize * 11) % 300);
            let heads: [&[u8]; 8] =
                [&[0x17, 0], &[0x17, 1], &[0x27, 1], &[0xAF, 0], &[0xAF, 1], b"\x90hvc1", b"\x91av01", b"\x90Opus"];
            let head = heads[(round + index as usize) % heads.len()];
            tag.splice(..0, head.iter().copied());
            let kind = if head[0] == 0xAF || head.ends_with(b"Opus") { kind::AUDIO } else { kind::VIDEO };
            peer.link.send(kind, 1, index * 40, tag.into());
        }
        peer.flush().await;
        // Only one of a name at a time.
        drop(peer);
        eventually(PATIENCE, "the broken publisher is gone", || server.stats().publishers == 0);
    }
    // A well-formed publisher works afterwards.
    let before = studio.main.frames();
    let (code, stderr) =
        Running::ffmpeg(&format!("{} -f flv {}", test_media(2), url(&server, "talk"))).end(PATIENCE).await;
    assert_eq!(code, 0, "{stderr}");
    eventually(PATIENCE, "frames after the garbage", || studio.main.frames() > before + 40);
    eventually(PATIENCE, "no connection is left", || server.stats().connections == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_turned_away_and_a_stop_ends_all() {
    let studio = Studio::open();
    let server = Server::with_host(Settings { max_connections: 2, ..settings() }, studio.clone()).unwrap();
    let first = Peer::publish(&server, "talk").await;
    let mut second = Peer::connect(&server).await;
    let mut third = TcpStream::connect(server.local_addr()).await.unwrap();
    assert_eq!(third.read(&mut [0; 16]).await.unwrap_or(0), 0, "the third is let in");
    drop(first);
    eventually(PATIENCE, "a place is free", || server.stats().connections == 1);
    server.stop().await;
    assert_eq!(server.stats().connections, 0);
    assert_eq!(second.status().await, None);
    assert!(TcpStream::connect(server.local_addr()).await.is_err(), "it still listens");
}
