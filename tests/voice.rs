//! Speech over a WebSocket, speech of the formats that clients send, avatars made of all kinds of video, offline renders.

#[path = "common/mod.rs"]
mod common;
#[path = "voice/renders.rs"]
mod renders;
#[path = "common/websocket.rs"]
mod websocket;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{demo_audio, demo_video, ffmpeg, samples_by_ffmpeg};
use futures_util::{SinkExt, stream};
use gst_video::{VideoFormat, VideoInfo};
use lipstream::{
    avatar,
    http::speech_socket,
    jobs,
    media::Notices,
    session::{Session, SessionSpec, VoiceName},
    speech::{self, Queue, decode},
    tenants::Caller,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use websocket::{Client, PATIENCE, pcm, session, session_of, take, until};

/// A client of the socket `/audio`.
async fn connect(session: Arc<Session>) -> Client {
    connect_as(session, VoiceName::A).await
}

/// The same of one of its voices.
async fn connect_as(session: Arc<Session>, voice: VoiceName) -> Client {
    Client::of(move |upgrade| speech_socket::upgrade(upgrade, (session, voice), (), CancellationToken::new())).await
}

async fn sound(client: &mut Client, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        client.0.send(Message::binary(Bytes::copy_from_slice(piece))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_speaks_over_the_socket_in_pieces_of_any_size() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    let mut heard: Vec<Vec<f32>> = Vec::new();
    for (id, piece) in [("whole", 16_000), ("odd", 333), ("tiny", 7)] {
        client.say(json!({"type": "speak_start", "rate": 16_000, "utterance": id})).await;
        assert_eq!(client.event().await, json!({"type": "listening", "utterance": id}));
        sound(&mut client, &pcm(8_000), piece).await;
        client.say(json!({"type": "speak_end"})).await;
        until("the speech", || session.speech().queued() == Duration::from_millis(500)).await;
        heard.push(take(session.speech(), 24_480));
        assert_eq!(client.event().await, json!({"type": "speaking", "utterance": id}));
        take(session.speech(), 480);
        assert_eq!(client.event().await, json!({"type": "ended", "utterance": id, "spoken_ms": 500.0}));
        assert_eq!(client.event().await, json!({"type": "idle"}));
    }
    assert!(heard[0][480..23_000].iter().any(|s| s.abs() > 0.3));
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_the_second_voice_speaks_hears_and_cuts_that_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let spec = SessionSpec { speaker_b: Some("right".into()), ..SessionSpec::new("a", "relay") };
    let session = session_of(folder.path(), 60, spec);
    let queued = |voice| session.speech_of(voice).unwrap().queued();
    let [mut first, mut second] =
        [connect_as(session.clone(), VoiceName::A).await, connect_as(session.clone(), VoiceName::B).await];
    for (client, id) in [(&mut first, "one"), (&mut second, "two")] {
        client.say(json!({"type": "speak_start", "rate": 16_000, "utterance": id})).await;
        assert_eq!(client.event().await, json!({"type": "listening", "utterance": id}));
        sound(client, &pcm(32_000), 16_000).await;
    }
    // The last samples wait for what comes after them.
    let most = Duration::from_millis(1900);
    until("the speech", || [VoiceName::A, VoiceName::B].map(queued).iter().all(|queued| *queued > most)).await;
    let cut = json!({"type": "ended", "utterance": "two", "spoken_ms": 0.0, "cut": "interrupted"});
    second.say(json!({"type": "interrupt"})).await;
    assert_eq!(second.event().await, cut);
    assert_eq!([second.event().await["type"].clone(), second.event().await["type"].clone()], ["idle", "flushed"]);
    assert!(queued(VoiceName::A) > most && queued(VoiceName::B) == Duration::ZERO);
    second.say(json!({"type": "interrupt", "all": true})).await;
    let cut = json!({"type": "ended", "utterance": "one", "spoken_ms": 0.0, "cut": "interrupted"});
    assert_eq!(first.event().await, cut, "the first voice hears nothing of what the second one says before");
    assert_eq!(queued(VoiceName::A), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_faster_than_it_is_spoken_waits_at_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 2);
    let mut client = connect(session.clone()).await;
    client.say(json!({"type": "speak_start", "rate": 24_000})).await;
    let sending = tokio::spawn(async move {
        sound(&mut client, &pcm(24_000 * 20), 4801).await;
        client.say(json!({"type": "speak_end"})).await;
        client
    });
    until("a full queue", || session.speech().queued() == Duration::from_secs(2)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(session.speech().queued(), Duration::from_secs(2));
    let mut loud = 0;
    until("the end of the speech", || {
        loud += take(session.speech(), 4800).iter().filter(|s| **s != 0.0).count();
        loud > 48_000 * 20 - 100
    })
    .await;
    let mut client = sending.await.unwrap();
    until("the end", || !session.speech().speaking() || session.speech().take(&mut [0.0; 480])).await;
    take(session.speech(), 960);
    let mut last = Value::Null;
    while last["type"] != "idle" {
        last = client.event().await;
        assert_ne!(last["type"], "error", "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_flushes_and_what_is_under_way_is_not_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    client.say(json!({"type": "speak_start", "rate": 48_000, "utterance": "long"})).await;
    sound(&mut client, &pcm(96_000), 9600).await;
    until("the speech", || session.speech().queued() == Duration::from_secs(2)).await;
    take(session.speech(), 4800);
    client.say(json!({"type": "interrupt"})).await;
    // Still under way when the command was sent; no error, no sound.
    sound(&mut client, &pcm(9600), 4800).await;
    client.say(json!({"type": "speak_end"})).await;
    for wanted in ["listening", "speaking", "ended", "idle", "flushed"] {
        let event = client.event().await;
        assert_eq!(event["type"], wanted, "{event}");
        let ended = json!({"type": "ended", "utterance": "long", "spoken_ms": 100.0, "cut": "interrupted"});
        assert!(wanted != "ended" || event == ended, "{event}");
        assert!(wanted != "flushed" || event["ms"].as_f64().is_some_and(|ms| (0.0..2000.0).contains(&ms)));
    }
    // What fades out, and then nothing.
    (0..2).for_each(|_| drop(take(session.speech(), 960)));
    client.say(json!({"type": "speak_start", "rate": 48_000, "utterance": "next"})).await;
    assert_eq!(client.event().await["utterance"], "next");
    assert_eq!(session.speech().queued(), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_on_the_socket_is_answered_with_cause_and_cure() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    let mut refused = async |message: Message, says: &str| {
        client.0.send(message).await.unwrap();
        let event = client.event().await;
        let text = event["message"].as_str().unwrap_or_default();
        assert!(event["type"] == "error" && text.contains(says), "{event} should say {says}");
    };
    refused(Message::text("{\"type\":\"speak_end\"}"), "before speak_end").await;
    refused(Message::binary(vec![0; 10]), "speak_start first").await;
    refused(Message::text("{\"type\":\"dance\"}"), "speak_start, speak_end or interrupt").await;
    refused(Message::text("no JSON"), "no command").await;
    refused(Message::text("{\"type\":\"speak_start\",\"rate\":44101}"), "24000, 32000, 44100, 48000").await;
    refused(Message::text("{\"type\":\"speak_start\",\"rate\":\"24000\"}"), "no command").await;
    refused(Message::text("{\"type\":\"speak_start\",\"volume\":3}"), "volume").await;
    refused(Message::text(json!({"type": "speak_start", "utterance": "x".repeat(200)}).to_string()), "128").await;
    refused(Message::text(" ".repeat(5000)), "4096 bytes").await;
    refused(Message::binary(vec![0; speech_socket::MAX_MESSAGE + 1]), "smaller pieces").await;
    assert_eq!(client.event().await, Value::Null, "the connection ends");
    assert_eq!(session.speech().queued(), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_start_is_one_error_however_much_sound_follows() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    client.say(json!({"type": "speak_start", "rate": 96_000})).await;
    assert_eq!(client.event().await["type"], "error");
    sound(&mut client, &pcm(24_000), 480).await;
    client.say(json!({"type": "speak_end"})).await;
    client.say(json!({"type": "speak_start", "rate": 24000.0, "utterance": "next"})).await;
    assert_eq!(client.event().await, json!({"type": "listening", "utterance": "next"}));
    assert_eq!(session.speech().queued(), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_of_every_rate_lasts_as_long_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut client = connect(session.clone()).await;
    for rate in [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000] {
        client.say(json!({"type": "speak_start", "rate": rate, "utterance": "a"})).await;
        assert_eq!(client.event().await["type"], "listening");
        sound(&mut client, &pcm(rate / 2), 441).await;
        client.say(json!({"type": "speak_end"})).await;
        let near = |time: Duration| time.abs_diff(Duration::from_millis(500)) < Duration::from_millis(1);
        until("the speech", || near(session.speech().queued())).await;
        take(session.speech(), 24_960);
        assert_eq!(client.event().await["type"], "speaking");
        take(session.speech(), 480);
        let ended = client.event().await;
        assert!((ended["spoken_ms"].as_f64().unwrap() - 500.0).abs() < 1.0, "{ended}");
        assert_eq!(client.event().await["type"], "idle");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentences_as_files_one_after_the_other_are_all_spoken() {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut body = Vec::new();
    for hz in [300, 600, 900] {
        let file = folder.path().join("a.wav");
        ffmpeg(&format!("-f lavfi -i sine=f={hz}:r=24000:d=0.5"), &file);
        body.extend(std::fs::read(&file).unwrap());
    }
    let queue = Queue::new(Duration::from_secs(60));
    let pieces = stream::iter(body.chunks(1000).map(|piece| Ok::<_, String>(Bytes::copy_from_slice(piece))));
    let spoken = decode::stream("audio/wav", pieces, &queue, "a").await.unwrap();
    assert!((spoken.seconds - 1.5).abs() < 0.001, "{spoken:?}");
    let heard = take(&queue, 72_000);
    for (i, hz) in [300.0, 600.0, 900.0].into_iter().enumerate() {
        let part = &heard[i * 24_000 + 4_800..i * 24_000 + 19_200];
        let signs: Vec<bool> = part.iter().map(|s| *s > 0.0).collect();
        let crossings = signs.windows(2).filter(|w| w[0] != w[1]).count() as f64;
        assert!((crossings / 0.3 / 2.0 - hz).abs() < 10.0, "part {i}: {crossings} crossings");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_ends_its_utterance() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), 60);
    let mut events = session.speech().events();
    let mut client = connect(session.clone()).await;
    client.say(json!({"type": "speak_start", "rate": 48_000, "utterance": "a"})).await;
    sound(&mut client, &pcm(4800), 4800).await;
    until("the speech", || session.speech().queued() == Duration::from_millis(100)).await;
    drop(client);
    let mut idle = false;
    until("idle", || {
        take(session.speech(), 480);
        idle |= std::iter::from_fn(|| events.try_recv().ok()).any(|e| e == speech::Event::Idle);
        idle
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_formats_that_clients_send_are_spoken() {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let formats = [
        ("a.wav", "audio/wav", "-c:a pcm_s16le -ar 44100 -ac 2"),
        ("b.wav", "audio/wav", "-c:a pcm_f32le -ar 8000"),
        ("c.mp3", "audio/mpeg", "-c:a libmp3lame -b:a 96k"),
        ("d.ogg", "audio/ogg", "-c:a libopus -b:a 48k"),
        ("e.flac", "audio/flac", "-c:a flac -ar 48000"),
        ("f.m4a", "audio/mp4", "-c:a aac -movflags +faststart"),
        ("g.m4a", "audio/mp4", "-c:a aac"),
        ("h.webm", "audio/webm", "-c:a libopus"),
        ("i.aac", "audio/aac", "-c:a aac -f adts"),
        ("j.bin", "", "-c:a libvorbis -f ogg"),
    ];
    for (name, kind, options) in formats {
        let file = folder.path().join(name);
        ffmpeg(&format!("-i {} -t 3 {options}", demo_audio().display()), &file);
        let body = std::fs::read(&file).unwrap();
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            body.chunks(3000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let queue = Queue::new(Duration::from_secs(30));
        let spoken = decode::stream(kind, stream::iter(pieces), &queue, name).await;
        let spoken = spoken.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!((spoken.seconds - 3.0).abs() < 0.12, "{name}: {spoken:?}");
        let ours = take(&queue, (3.2 * 48_000.0) as usize);
        let theirs = samples_by_ffmpeg(&file, folder.path());
        let loudness = |energy: f64, count: usize| (energy / count as f64).sqrt();
        let wanted: Vec<f64> =
            theirs.chunks_exact(2).map(|b| f64::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect();
        let wanted = loudness(wanted.iter().map(|s| s * s).sum(), wanted.len());
        let got = loudness(ours.iter().map(|s| f64::from(*s).powi(2)).sum(), (spoken.seconds * 48_000.0) as usize);
        assert!((got / wanted - 1.0).abs() < 0.1, "{name}: {got} in place of {wanted}");
    }
    // Cut in its middle, what is there is spoken or the cause is said.
    for name in ["c.mp3", "d.ogg", "e.flac", "f.m4a", "g.m4a", "h.webm"] {
        let body = std::fs::read(folder.path().join(name)).unwrap();
        let half = Ok::<_, std::io::Error>(Bytes::copy_from_slice(&body[..body.len() / 2]));
        let queue = Queue::new(Duration::from_secs(30));
        match decode::stream("", stream::iter([half]), &queue, name).await {
            Ok(spoken) => assert!(spoken.seconds > 0.5 && spoken.seconds < 2.9, "{name}: {spoken:?}"),
            Err(decode::Error::Invalid(cause)) => assert!(cause.contains("body"), "{name}: {cause}"),
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

fn store(folder: &Path) -> Arc<avatar::Store> {
    gst::init().unwrap();
    avatar::Store::open(&folder.join("store")).unwrap()
}

#[test]
fn videos_of_all_kinds_become_avatars() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let demo = demo_video().display().to_string();
    let video = |name: &str, options: &str| {
        let file = folder.path().join(name);
        ffmpeg(&format!("-i {demo} -t 1.6 {options}"), &file);
        file
    };
    let made = [
        ("odd", video("odd.mkv", "-vf scale=639:359 -c:v ffv1 -pix_fmt yuv444p"), (638, 358), 25.0, 1.6),
        ("ntsc", video("ntsc.mp4", "-vf scale=640:-2 -r 30000/1001"), (640, 360), 30.0 / 1.001, 1.6),
        (
            "variable",
            video("variable.mkv", "-vf scale=640:-2,select='not(mod(n\\,3))' -vsync vfr"),
            (640, 360),
            0.0,
            1.6,
        ),
        ("wide", video("wide.mp4", "-vf scale=320:360,setsar=2/1"), (640, 360), 25.0, 1.6),
        ("large", video("large.mp4", "-vf scale=2560:1440 -preset ultrafast"), (1920, 1080), 25.0, 1.6),
    ];
    for (name, file, size, fps, seconds) in made {
        let mut last = 0.0;
        let summary = store.add(name, ("idle", None), &file, &mut |p| last = p, &Notices::default());
        let summary = summary.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((summary.width, summary.height), size, "{name}");
        assert!(fps == 0.0 || (summary.fps - fps).abs() < 0.01, "{name}: {summary:?}");
        assert!((summary.clips[0].1 - seconds).abs() < 0.15 && last > 0.9, "{name}: {summary:?} {last}");
        let avatar = store.get(name).unwrap();
        assert!(avatar.bank.is_some(), "{name}");
        let info = VideoInfo::builder(VideoFormat::I420, size.0, size.1).build().unwrap();
        let mut player = avatar::Player::open(avatar).unwrap();
        let mut shown = Duration::ZERO;
        while shown < Duration::from_secs(4) {
            let (frame, duration) = player.next_frame().unwrap();
            assert_eq!(frame.size(), info.size());
            shown += duration;
        }
    }
    // A phone's: stored lying on its side, with the turn beside it.
    let lying = video("lying.mp4", "-vf transpose=1,scale=360:640");
    let phone = folder.path().join("phone.mp4");
    ffmpeg(&format!("-i {} -c copy -metadata:s:v:0 rotate=270", lying.display()), &phone);
    match store.add("phone", ("idle", None), &phone, &mut |_| {}, &Notices::default()) {
        Ok(summary) => assert_eq!((summary.width, summary.height), (640, 360)),
        Err(rejection) => panic!("{rejection}"),
    }
    let names: Vec<_> = store.list().into_iter().map(|a| a.name).collect();
    assert_eq!(names, ["demo", "large", "ntsc", "odd", "phone", "variable", "wide"]);
    assert!(
        store
            .add("odd", ("idle", None), &phone, &mut |_| {}, &Notices::default())
            .unwrap_err()
            .0
            .contains("another name")
    );
}

#[test]
fn videos_that_cannot_become_avatars_are_refused_with_cause_and_cure() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let demo = demo_video().display().to_string();
    let video = |name: &str, arguments: &str| {
        let file = folder.path().join(name);
        ffmpeg(arguments, &file);
        file
    };
    let one = format!("-i {demo} -t 1.5");
    let bars = "-f lavfi -i testsrc2=size=640x360:rate=25";
    let text = folder.path().join("text.mp4");
    std::fs::write(&text, "#EXTM3U\nhttp://127.0.0.1:9/x.ts\n").unwrap();
    let cut = folder.path().join("cut.mp4");
    std::fs::write(&cut, &std::fs::read(demo_video()).unwrap()[..200_000]).unwrap();
    let cases = [
        (video("bars.mp4", &format!("{bars} -t 2")), "no face in 100 %"),
        (video("tiny.mp4", &format!("{one} -vf scale=96:-2")), "128 to 4096"),
        (video("far.mp4", &format!("{one} -vf scale=320:-2,pad=1280:720:480:270")), "pixels wide"),
        (video("two.mp4", &format!("{one} -filter_complex scale=640:-2,split[a][b];[a][b]hstack")), "several faces"),
        (video("long.mp4", &format!("{bars} -t 90 -preset ultrafast")), "cut it"),
        (video("short.mp4", &format!("-i {demo} -t 0.4")), "at least 1 s"),
        (video("sound.m4a", &format!("-i {} -t 1 -c:a aac", demo_audio().display())), "no video"),
        (folder.path().join("nothing.mp4"), "no such file"),
        (text, "MP4 with H.264"),
        (cut, "cut short"),
    ];
    for (file, says) in cases {
        let rejection = store.add("a", ("idle", None), &file, &mut |_| {}, &Notices::default()).unwrap_err().0;
        assert!(rejection.contains(says), "{}: {rejection}", file.display());
        assert!(!rejection.contains(&folder.path().display().to_string()), "names our folder: {rejection}");
        assert!(store.get("a").is_none());
    }
    for name in ["../a", "", ".a", "demo", "a/b"] {
        assert!(store.add(name, ("idle", None), &demo_video(), &mut |_| {}, &Notices::default()).is_err(), "{name}");
    }
    let left = std::fs::read_dir(folder.path().join("store")).unwrap().count();
    assert_eq!(left, 0, "a refusal leaves nothing");
}

#[test]
fn clips_are_switched_where_they_are_alike_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let demo = demo_video().display().to_string();
    let part = |name: &str, from: f64, options: &str| {
        let file = folder.path().join(name);
        ffmpeg(&format!("-ss {from} -i {demo} -t 2 -vf scale=640:-2 {options}"), &file);
        file
    };
    store.add("anna", ("idle", None), &part("a.mp4", 0.0, ""), &mut |_| {}, &Notices::default()).unwrap();
    let mut player = avatar::Player::open(store.get("anna").unwrap()).unwrap();
    // Added while it is played, with another rate and size.
    let summary = store
        .add("anna", ("wave", None), &part("b.mp4", 4.0, "-r 50 -s 320x180"), &mut |_| {}, &Notices::default())
        .unwrap();
    assert_eq!(summary.clips.iter().map(|c| c.0.as_str()).collect::<Vec<_>>(), ["idle", "wave"]);
    assert_eq!(player.clips(), ["idle", "wave"]);
    assert!(player.switch("dance").unwrap_err().message.contains("`idle`, `wave`"));

    let luma = |frame: &gst::Buffer| frame.map_readable().unwrap()[..640 * 360].to_vec();
    let step =
        |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64;
    let mut before = luma(&player.next_frame().unwrap().0);
    let mut own: f64 = 0.0;
    for _ in 0..60 {
        let frame = luma(&player.next_frame().unwrap().0);
        own = own.max(step(&before, &frame));
        before = frame;
    }
    player.switch("wave").unwrap();
    let (mut waited, mut waved, mut largest) = (Duration::ZERO, Duration::ZERO, 0.0_f64);
    let mut back = 0;
    while back < 20 {
        let (frame, duration) = player.next_frame().unwrap();
        let frame = luma(&frame);
        largest = largest.max(step(&before, &frame));
        before = frame;
        match player.clip() {
            "wave" => {
                assert_eq!(duration, Duration::from_millis(20));
                waved += duration;
            }
            _ if waved > Duration::ZERO => back += 1,
            _ => waited += duration,
        }
        assert!(waited + waved < Duration::from_secs(10));
    }
    assert!(waited <= Duration::from_millis(1500), "waited {waited:?}");
    assert!(waved > Duration::from_millis(1000) && waved <= Duration::from_secs(2), "waved {waved:?}");
    assert!(largest < own + 3.0, "a jump of {largest:.2} codes; the clip's own are {own:.2}");
}

fn jobs(folder: &Path, settings: jobs::Settings) -> Arc<jobs::Store> {
    let _ = gst::init().map(|()| gstlipstream::plugin_register_static());
    jobs::Store::open(&folder.join("jobs"), settings, store(folder)).unwrap()
}

/// Speech of so many seconds.
fn speech(folder: &Path, seconds: f64) -> PathBuf {
    let file = folder.join("speech.wav");
    ffmpeg(&format!("-i {} -t {seconds}", demo_audio().display()), &file);
    file
}

fn until_over(jobs: &jobs::Store, id: &str) -> jobs::Status {
    let began = Instant::now();
    loop {
        let status = jobs.get(id).unwrap();
        if status.state.is_over() {
            return status;
        }
        assert!(began.elapsed() < 3 * PATIENCE, "{status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn request(video: jobs::Video, audio: PathBuf) -> jobs::Request {
    jobs::Request {
        video,
        audio,
        audio_b: None,
        options: Default::default(),
        caller: Caller::Operator,
        stored: Vec::new(),
    }
}

#[test]
fn a_job_renders_an_avatar_or_a_file_and_tells_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = jobs(folder.path(), jobs::Settings::default());
    let upload = folder.path().join("upload");
    std::fs::copy(demo_video(), &upload).unwrap();
    let videos = [jobs::Video::Avatar("demo".into()), jobs::Video::File(upload.clone())];
    for (video, container) in videos.into_iter().zip([jobs::Container::Mp4, jobs::Container::Webm]) {
        let audio = speech(folder.path(), 1.0);
        let options = jobs::Options { container, ..jobs::Options::default() };
        let status = jobs.submit(jobs::Request { options, ..request(video, audio.clone()) }).unwrap();
        assert!(!audio.exists(), "what is handed in is the job's");
        let (id, mut last) = (status.id, 0.0);
        let done = loop {
            let status = jobs.get(&id).unwrap();
            assert!(status.progress >= last, "{status:?}");
            last = status.progress;
            if status.state.is_over() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!((done.state, done.frames, done.progress), (jobs::Phase::Done, Some(25), 1.0), "{done:?}");
        let (result, container) = jobs.result(&id).unwrap();
        assert_eq!(Some(result.metadata().unwrap().len()), done.bytes);
        assert_eq!(entries(result.parent().unwrap()), [format!("result.{}", container.extension())]);
        let stream = common::probe(&result, "v");
        assert_eq!((stream.frames(), stream.number("width")), (25, 1280.0));
        assert_eq!(jobs.remove(&id).unwrap().state, jobs::Phase::Done);
        assert!(!result.exists() && jobs.get(&id).is_none());
    }
    assert!(!upload.exists() && entries(&folder.path().join("jobs")).is_empty());
}

#[test]
fn jobs_are_cancelled_while_they_wait_and_while_they_run() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = jobs(folder.path(), jobs::Settings { waiting: 1, ..jobs::Settings::default() });
    let submit = |seconds| {
        let audio = speech(folder.path(), seconds);
        jobs.submit(request(jobs::Video::Avatar("demo".into()), audio))
    };
    let first = submit(40.0).unwrap();
    let began = Instant::now();
    while jobs.get(&first.id).unwrap().progress < 0.12 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = submit(1.0).unwrap();
    assert_eq!(jobs.get(&second.id).unwrap().ahead, 1);
    let full = submit(1.0).unwrap_err().to_string();
    assert!(full.contains("1 renders wait"), "{full}");
    assert_eq!(jobs.cancel(&second.id).unwrap().state, jobs::Phase::Cancelled);
    jobs.cancel(&first.id).unwrap();
    let first = until_over(&jobs, &first.id);
    assert_eq!((first.state, first.error), (jobs::Phase::Cancelled, None));
    assert!(first.progress < 1.0);
    assert!(entries(&folder.path().join("jobs")).is_empty());
    assert!(jobs.cancel("job-99").is_none() && jobs.cancel("../x").is_none());
    // The worker goes on.
    let third = submit(0.5).unwrap();
    assert_eq!(until_over(&jobs, &third.id).state, jobs::Phase::Done);
    drop(jobs);
    assert!(entries(&folder.path().join("jobs")).is_empty());
}

#[test]
fn hundreds_of_jobs_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let settings = jobs::Settings { waiting: 300, kept: 20, ..jobs::Settings::default() };
    let jobs = jobs(folder.path(), settings);
    let submit = || {
        let (video, audio) = (folder.path().join("v"), folder.path().join("a"));
        std::fs::write(&video, "no video").unwrap();
        std::fs::write(&audio, "no sound").unwrap();
        let request = request(jobs::Video::File(video), audio);
        jobs.submit(request).unwrap().id
    };
    let first = until_over(&jobs, &submit());
    let error = first.error.unwrap();
    assert!(first.state == jobs::Phase::Failed && error.starts_with("audio: "), "{error}");
    let files = || entries(Path::new("/proc/self/fd")).len();
    let before = files();
    let mut last = submit();
    for _ in 1..250 {
        last = submit();
    }
    until_over(&jobs, &last);
    // Other tests of this process open and close files too.
    assert!(files() < before + 100, "{before} files were open, now {}", files());
    until_over(&jobs, &submit());
    assert!(jobs.list().len() <= 22, "{}", jobs.list().len());
    assert!(entries(&folder.path().join("jobs")).is_empty());
    assert!(jobs.get(&first.id).is_none(), "forgotten");
}

#[test]
fn jobs_that_cannot_be_are_refused_and_their_files_removed() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = jobs(folder.path(), jobs::Settings::default());
    for (avatar, crf, says) in
        [("nobody", 18, "there are demo"), ("../demo", 18, "there is no"), ("demo", 99, "0 to 50")]
    {
        let audio = folder.path().join("a");
        std::fs::write(&audio, "x").unwrap();
        let options = jobs::Options { crf, ..jobs::Options::default() };
        let video = jobs::Video::Avatar(avatar.into());
        let refusal = jobs.submit(jobs::Request { options, ..request(video, audio.clone()) }).unwrap_err().to_string();
        assert!(refusal.contains(says), "{refusal}");
        assert!(!audio.exists());
    }
    assert!(jobs.list().is_empty());
}
