//! Sessions through the library: a live source in, encoded packets out, on one clock.

#[path = "session/rollout.rs"]
mod rollout;
#[path = "session/voices.rs"]
mod voices;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use lipstream::{
    avatar,
    live::{CHANNELS, Codec, Inlet, Packet, Picture, RATE, Slot},
    occlusion::Occlusion,
    session::{Manager, Phase, Refusal, SessionSpec, Settings},
    speech::{Cause, Event},
};

const SIZE: (u32, u32) = (320, 240);

fn manager(settings: Settings) -> (Arc<Manager>, tempfile::TempDir) {
    gst::init().unwrap();
    let _ = gstlipstream::plugin_register_static();
    let folder = tempfile::tempdir().unwrap();
    // One device is measured and not two, each of which takes two seconds.
    let settings = Settings { device: "cpu".into(), ..settings };
    (Manager::new(settings, avatar::Store::open(folder.path()).unwrap()), folder)
}

/// A grey picture, white where `flash`.
fn frame(size: (u32, u32), flash: bool) -> gst::Buffer {
    let pixels = (size.0 * size.1) as usize;
    let mut data = vec![if flash { 235 } else { 60 }; pixels];
    data.extend(std::iter::repeat_n(128, pixels / 2));
    gst::Buffer::from_mut_slice(data)
}

/// Publishes like a camera with a microphone whose clock runs at `speed`: a flash and a beep of 80 ms together each
/// second, from `first` of its own time on.
struct Camera {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Camera {
    fn start(inlet: Inlet, fps: f64, speed: f64, first: Duration, pause: Option<(f64, f64)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let thread = std::thread::spawn(move || {
            let picture = Picture { width: SIZE.0, height: SIZE.1, fps: (0, 1) };
            let began = Instant::now();
            let (mut frames, mut blocks) = (0_u64, 0_u64);
            let on = |t: f64| t.fract() < 0.08;
            while !ends.load(Ordering::Relaxed) {
                let now = began.elapsed().as_secs_f64() * speed;
                let silent = pause.is_some_and(|(from, to)| (from..to).contains(&now));
                while (frames as f64 / fps) <= now {
                    let t = frames as f64 / fps;
                    if !silent {
                        inlet.video(picture, frame(SIZE, on(t)), first + Duration::from_secs_f64(t));
                    }
                    frames += 1;
                }
                while ((blocks + 1) * 1024) as f64 / RATE as f64 <= now {
                    let from = blocks * 1024;
                    let samples: Vec<f32> = (from..from + 1024)
                        .flat_map(|n| {
                            let t = n as f64 / RATE as f64;
                            let level = if on(t) { 0.5 } else { 0.0 };
                            [(level * (t * 1000.0 * std::f64::consts::TAU).sin()) as f32; CHANNELS]
                        })
                        .collect();
                    if !silent {
                        inlet.audio(&samples, first + Duration::from_secs_f64(from as f64 / RATE as f64));
                    }
                    blocks += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Decodes packets of one codec; the mean (video) or peak (audio) of stretches with the time of each.
fn levels(packets: &[Packet], codec: Codec, header: Option<bytes::Bytes>) -> Vec<(f64, f64)> {
    let chain = match codec {
        Codec::H264 => "h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=GRAY8",
        Codec::Vp8 => "vp8dec ! videoconvert ! video/x-raw,format=GRAY8",
        Codec::Aac => "avdec_aac ! audioconvert ! audio/x-raw,format=F32LE,channels=1",
        Codec::Opus => "opusdec plc=false ! audioconvert ! audio/x-raw,format=F32LE,channels=1",
    };
    let caps = match codec {
        Codec::H264 => {
            gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au")
        }
        Codec::Vp8 => gst::Caps::builder("video/x-vp8"),
        Codec::Aac => gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 4)
            .field("stream-format", "raw")
            .field("rate", 48_000)
            .field("channels", 2)
            .field("codec_data", gst::Buffer::from_slice(header.unwrap())),
        Codec::Opus => gst::Caps::builder("audio/x-opus").field("channel-mapping-family", 0).field("channels", 2),
    };
    let pipeline = gst::parse::launch(&format!("appsrc name=in format=time ! {chain} ! appsink name=out sync=false"));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    source.set_caps(Some(&caps.build()));
    pipeline.set_state(gst::State::Playing).unwrap();
    for packet in packets.iter().filter(|p| p.codec == codec) {
        let mut buffer = gst::Buffer::from_slice(packet.data.clone());
        let own = buffer.get_mut().unwrap();
        own.set_pts(gst::ClockTime::try_from(packet.pts).unwrap());
        own.set_dts(gst::ClockTime::try_from(packet.pts).unwrap());
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    let mut out = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let start = buffer.pts().unwrap().nseconds() as f64 / 1e9;
        let map = buffer.map_readable().unwrap();
        if codec.is_video() {
            out.push((start, map.iter().map(|b| *b as f64).sum::<f64>() / map.len() as f64));
        } else {
            let samples: Vec<f32> = map.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            // A millisecond each.
            for (n, stretch) in samples.chunks(48).enumerate() {
                out.push((start + n as f64 * 1e-3, stretch.iter().fold(0.0_f32, |a, s| a.max(s.abs())) as f64));
            }
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    out
}

/// Times at which the level rises over `threshold`.
fn rises(levels: &[(f64, f64)], threshold: f64) -> Vec<f64> {
    let mut times: Vec<f64> = Vec::new();
    let mut last = f64::MAX;
    for (time, level) in levels {
        if *level > threshold && last <= threshold && times.last().is_none_or(|t| time - t > 0.3) {
            times.push(*time);
        }
        last = *level;
    }
    times
}

async fn collect(viewer: &mut lipstream::live::Viewer, time: Duration) -> Vec<Packet> {
    let until = tokio::time::Instant::now() + time;
    let mut packets = Vec::new();
    while let Ok(Some(packet)) = tokio::time::timeout_at(until, viewer.recv()).await {
        packets.push(packet);
    }
    packets
}

fn intervals(packets: &[Packet], codec: Codec) -> Vec<f64> {
    let times: Vec<f64> = packets.iter().filter(|p| p.codec == codec).map(|p| p.pts.as_secs_f64()).collect();
    times.windows(2).map(|w| w[1] - w[0]).collect()
}

/// Flash minus beep of each second that has both.
fn offsets(packets: &[Packet], video: Codec, audio: Codec, header: Option<bytes::Bytes>) -> Vec<f64> {
    let flashes = rises(&levels(packets, video, None), 150.0);
    let beeps = rises(&levels(packets, audio, header), 0.1);
    flashes
        .iter()
        .filter_map(|f| {
            beeps.iter().map(|b| f - b).min_by(|a, b| a.abs().total_cmp(&b.abs())).filter(|d| d.abs() < 0.4)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_sends_together_comes_out_together_in_every_codec() {
    let (manager, _folder) = manager(Settings::default());
    let session = manager.create(SessionSpec::new("relay", "relay")).unwrap();
    let camera =
        Camera::start(session.publish(Slot::Main, "a test").unwrap(), 25.0, 1.0, Duration::from_secs(77), None);
    let mut viewer = session.watch(&Codec::ALL).await.unwrap();
    let packets = collect(&mut viewer, Duration::from_secs(8)).await;
    let status = session.status();
    drop(camera);
    for codec in Codec::ALL {
        let own: Vec<&Packet> = packets.iter().filter(|p| p.codec == codec).collect();
        assert!(own.len() > 100, "{codec}: {} packets; {status:?}", own.len());
    }
    for video in [Codec::H264, Codec::Vp8] {
        assert!(packets.iter().find(|p| p.codec == video).unwrap().key, "{video} begins with a key frame");
        let intervals = intervals(&packets, video);
        assert!(intervals.len() > 150, "{video}: {} frames", intervals.len() + 1);
        assert!(intervals.iter().all(|i| (0.035..0.045).contains(i)), "{video}: {intervals:?}");
        for audio in [Codec::Aac, Codec::Opus] {
            let offsets = offsets(&packets, video, audio, session.outlet().header(audio));
            assert!(offsets.len() >= 5, "{video} {audio}: {offsets:?}");
            assert!(offsets.iter().all(|o| o.abs() <= 0.020), "{video} {audio}: {offsets:?}");
        }
    }
    assert!((24.0..=26.0).contains(&status.fps), "{}", status.fps);
    assert_eq!(status.phase, Some(Phase::Running));
    assert_eq!((status.width, status.height), SIZE);
    assert!(status.av_offset_ms.abs() < 5.0);
    let untouched = &status.frames_untouched;
    assert!(untouched.len() == 1 && untouched["no-face"].abs_diff(status.frames) <= 3, "{status:?}");
    manager.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stops_is_held_and_returns_in_sync() {
    let (manager, _folder) = manager(Settings::default());
    let session = manager.create(SessionSpec::new("relay", "relay")).unwrap();
    // Watched before there is anything to see: it begins when the source comes.
    let mut viewer = session.watch(&[Codec::H264, Codec::Aac]).await.unwrap();
    assert_eq!(session.status().phase, Some(Phase::Waiting));
    let inlet = session.publish(Slot::Main, "a test").unwrap();
    let first = Camera::start(inlet, 30.0, 1.0, Duration::ZERO, Some((2.0, 4.0)));
    let mut packets = collect(&mut viewer, Duration::from_secs(6)).await;
    let second = session.publish(Slot::Main, "another").err().unwrap();
    assert!(matches!(&second, Refusal::Conflict(why) if why.contains("a test")), "{second}");
    drop(first);
    packets.extend(collect(&mut viewer, Duration::from_secs(1)).await);
    // Another publisher with a clock of its own.
    let again =
        Camera::start(session.publish(Slot::Main, "again").unwrap(), 24.0, 1.001, Duration::from_secs(900), None);
    packets.extend(collect(&mut viewer, Duration::from_secs(5)).await);
    drop(again);
    let intervals_video = intervals(&packets, Codec::H264);
    assert!(intervals_video.iter().all(|i| (0.001..0.12).contains(i)), "{intervals_video:?}");
    let intervals_audio = intervals(&packets, Codec::Aac);
    assert!(intervals_audio.iter().all(|i| (i - 1024.0 / 48_000.0).abs() < 0.001), "{intervals_audio:?}");
    let offsets = offsets(&packets, Codec::H264, Codec::Aac, session.outlet().header(Codec::Aac));
    assert!(offsets.len() >= 5, "{offsets:?}");
    assert!(offsets.iter().all(|o| o.abs() <= 0.045), "within a frame: {offsets:?}");
    let status = session.status();
    assert!(status.frames_held > 40 && status.restarts == 0, "{status:?}");
    manager.close();
}

/// The first seconds of the demo's speech, one channel at 48 kHz.
fn speech(seconds: u32) -> Vec<f32> {
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={}/demo/speech.flac ! decodebin ! audioconvert ! audioresample \
         ! audio/x-raw,format=F32LE,rate={RATE},channels=1 ! appsink name=out sync=false",
        env!("CARGO_MANIFEST_DIR")
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut samples = Vec::new();
    while samples.len() < (seconds * RATE) as usize {
        let sample = sink.pull_sample().unwrap();
        let map = sample.buffer().unwrap().map_readable().unwrap();
        samples.extend(map.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    samples
}

fn generous() -> Settings {
    Settings { load: 100.0, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_avatar_speaks_falls_silent_when_interrupted_and_idles() {
    let (manager, _folder) = manager(generous());
    let session = manager.create(SessionSpec::new("avatar", "avatar")).unwrap();
    let mut viewer = session.watch(&[Codec::H264, Codec::Opus]).await.unwrap();
    let idle = collect(&mut viewer, Duration::from_secs(2)).await;
    let mut writer = session.speech().writer("one").unwrap();
    assert_eq!(writer.add(&speech(6)).unwrap(), speech(6).len());
    drop(writer);
    let speaking = collect(&mut viewer, Duration::from_millis(2500)).await;
    let during = session.status();
    assert!(during.speaking && during.speech_queued_ms > 1000.0, "{during:?}");
    let took = session.interrupt().await.unwrap();
    let after = session.status();
    let silence = collect(&mut viewer, Duration::from_secs(2)).await;
    assert_eq!((after.speech_queued_ms, after.speaking), (0.0, false));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(after.flush_ms, Some(took.as_secs_f64() * 1e3));

    let loud = |packets: &[Packet]| levels(packets, Codec::Opus, None).iter().map(|(_, l)| *l).fold(0.0, f64::max);
    assert!(loud(&idle) < 0.01, "silent before: {}", loud(&idle));
    assert!(loud(&speaking) > 0.05, "heard: {}", loud(&speaking));
    // What was on its way to the encoder when the interruption came is still heard.
    assert!(loud(&silence[silence.len() / 4..]) < 0.01, "silent after");
    let denoised = |status: &lipstream::session::Status| {
        status.stages.iter().find(|stage| stage.name == "render").map_or(0.0, |stage| stage.p50_ms)
    };
    assert!(denoised(&during) > 0.0, "the mouth is generated: {during:?}");
    let stages: Vec<&str> = during.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(
        stages,
        ["track", "occlusion", "encode", "gather", "prepare", "wait", "denoise", "render", "blend", "mark", "check"]
    );
    let step = during.engine_stages.iter().find(|stage| stage.name == "step").expect("compact denoises");
    assert!(step.batches > 0 && step.items >= step.batches && step.p50_ms > 0.0, "{step:?}");
    assert!(during.face, "{during:?}");
    let fps = intervals(&idle, Codec::H264).len() as f64 / 2.0;
    assert!(fps > 18.0, "{fps}");

    // Somebody else speaks right after an interruption: that it is through is told in its time all the same.
    let mut first = session.speech().writer("first").unwrap();
    first.add(&speech(4)).unwrap();
    collect(&mut viewer, Duration::from_secs(1)).await;
    let interrupting = tokio::spawn({
        let session = session.clone();
        async move { session.interrupt().await }
    });
    while !first.is_cut() {
        tokio::task::yield_now().await;
    }
    let mut second = session.speech().writer("second").unwrap();
    second.add(&speech(4)).unwrap();
    let took = interrupting.await.unwrap().unwrap();
    assert!(took < Duration::from_secs(1) && session.speech().queued() > Duration::from_secs(2), "{took:?}");
    manager.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_that_nobody_hears_is_dropped_and_that_is_told() {
    let kept = Duration::from_millis(500);
    let (manager, _folder) = manager(Settings { speech_kept: kept, ..generous() });
    let session = manager.create(SessionSpec::new("avatar", "avatar")).unwrap();
    let mut events = session.speech().events();
    let mut writer = session.speech().writer("greeting").unwrap();
    writer.add(&speech(4)).unwrap();
    tokio::time::sleep(kept / 2).await;
    assert!(!writer.is_cut(), "it waits for a viewer");
    let until = Instant::now() + Duration::from_secs(5);
    while !writer.is_cut() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    let ended = Event::Ended { utterance: "greeting".into(), spoken_ms: 0.0, cut: Some(Cause::Unheard) };
    assert_eq!(told, [Event::Listening { utterance: "greeting".into() }, ended, Event::Idle]);
    assert_eq!(session.speech().queued(), Duration::ZERO);
    manager.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_stops_without_viewers_and_starts_for_the_next() {
    let (manager, _folder) = manager(Settings { idle: Duration::from_millis(300), ..generous() });
    let session = manager.create(SessionSpec::new("avatar", "avatar")).unwrap();
    assert_eq!(session.status().phase, Some(Phase::Idle));
    for _ in 0..2 {
        let mut viewer = session.watch(&[Codec::H264]).await.unwrap();
        assert!(viewer.recv().await.unwrap().key);
        drop(viewer);
        let until = Instant::now() + Duration::from_secs(5);
        while session.status().phase != Some(Phase::Idle) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(session.status().phase, Some(Phase::Idle));
    }
    manager.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_too_many_is_refused_with_the_reason_and_the_others_go_on() {
    let (manager, _folder) = manager(Settings { max_sessions: 1000, ..Settings::default() });
    let always = |n: usize| SessionSpec { always_on: true, ..SessionSpec::new(&format!("s{n}"), "avatar") };
    let mut held = Vec::new();
    let refusal = loop {
        match manager.create(always(held.len())) {
            Ok(session) => held.push(session),
            Err(refusal) => break refusal,
        }
        assert!(held.len() < 200, "nobody is refused");
    };
    assert!(matches!(&refusal, Refusal::Full(why) if why.contains("the machine is full")), "{refusal}");
    assert!(manager.get(&format!("s{}", held.len())).is_err(), "nothing is left of it");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(held.iter().all(|session| session.status().phase == Some(Phase::Running)));
    manager.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_after_a_time_without_viewers_gets_nothing_older() {
    let (manager, _folder) = manager(generous());
    let session = manager.create(SessionSpec::new("avatar", "avatar")).unwrap();
    let codecs = [Codec::H264, Codec::Vp8, Codec::Aac, Codec::Opus];
    let mut last = Duration::ZERO;
    for away in [0, 1500, 1530, 1570, 1610] {
        tokio::time::sleep(Duration::from_millis(away)).await;
        let mut viewer = session.watch(&codecs).await.unwrap();
        let packets = collect(&mut viewer, Duration::from_millis(700)).await;
        let first = |codec| packets.iter().filter(|p| p.codec == codec).map(|p| p.pts).min().expect("a packet");
        for codec in codecs {
            let since = first(codec).saturating_sub(last);
            assert!(away == 0 || since > Duration::from_millis(away - 800), "{codec}: {since:?} after {away} ms away");
        }
        last = packets.iter().map(|p| p.pts).max().unwrap();
    }
    manager.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_hears_that_the_machine_is_full() {
    let (manager, _folder) = manager(Settings { load: 0.001, ..Settings::default() });
    manager.create(SessionSpec::new("stage", "relay")).unwrap();
    let settings = lipstream::rtmp::Settings { bind: ([127, 0, 0, 1], 0).into(), ..Default::default() };
    let server = lipstream::rtmp::Server::with_host(settings, manager.clone()).unwrap();
    let url = format!("rtmp://{}/live/stage", server.local_addr());
    let mut ffmpeg = tokio::process::Command::new("ffmpeg");
    ffmpeg.args([
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=320x240:rate=25:duration=2",
        "-c:v",
        "libx264",
        "-f",
        "flv",
    ]);
    let output = ffmpeg.arg(url).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("the machine is full"), "{stderr}");
    manager.close();
}

#[test]
fn sessions_that_are_wrong_are_refused_with_what_is_wrong() {
    let (manager, _folder) = manager(generous());
    let mut spec = SessionSpec::new("x", "avatar");
    spec.avatar = Some("nobody".into());
    let refusal = manager.create(spec.clone()).err().unwrap().to_string();
    assert!(refusal.contains("nobody") && refusal.contains("demo"), "{refusal}");
    spec.avatar = None;
    spec.params.insert("steps".into(), "99".into());
    let refusal = manager.create(spec.clone()).err().unwrap().to_string();
    assert!(refusal.contains("steps") && refusal.contains("50"), "{refusal}");
    spec.params.clear();
    spec.look_ahead_ms = Some(70);
    let refusal = manager.create(spec.clone()).err().unwrap().to_string();
    assert!(refusal.contains("look_ahead_ms") && refusal.contains("it has 120, 160 and 80 ms"), "{refusal}");
    spec.look_ahead_ms = Some(80);
    spec.occlusion = Some(Occlusion::Off);
    manager.create(spec.clone()).unwrap();
    assert_eq!(manager.get("x").unwrap().status().params["look-ahead"], "80");
    assert!(matches!(manager.create(spec).err().unwrap(), Refusal::Conflict(_)));
    let session = manager.get("x").unwrap();
    assert!(session.publish(Slot::Main, "a test").is_err(), "an avatar takes no video");
    assert_eq!(session.status().params["occlusion"], "off");
    session.set("occlusion", "auto").unwrap();
    assert_eq!(session.status().params["occlusion"], "auto");
    let refusal = session.set("occlusion", "/etc/mask.onnx").unwrap_err().to_string();
    assert!(refusal.contains("occlusion: must be auto or off"), "{refusal}");
    assert!(session.set("motion-gain", "9").unwrap_err().to_string().contains("4"));
    assert!(session.set("enhance", "blur").unwrap_err().to_string().contains("sharpen, clahe, detail, combined"));
    assert!(session.set("mouth-protection", "2").unwrap_err().to_string().contains("1"));
    assert!(session.play_clip("dance").unwrap_err().to_string().contains("idle"));
    manager.remove("x").unwrap();
    assert!(matches!(manager.get("x"), Err(Refusal::Unknown(_))));
    manager.close();
}
