//! Two voices in one session: each moves its own face, and both are heard.

use lipstream::session::VoiceName;

use super::*;

/// A picture of two people beside each other, as I420: a frame of the demo twice.
const TWO: (u32, u32) = (1280, 360);

/// Two seconds of the demo, doubled; each frame `TWO` in size.
fn two_people() -> Vec<gst::Buffer> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("two.yuv");
    let (width, height) = (TWO.0 / 2, TWO.1);
    let done = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-t", "0.04", "-i"])
        .arg(format!("{}/demo/avatar.mp4", env!("CARGO_MANIFEST_DIR")))
        .args(["-vf", &format!("scale={width}:{height},split[a][b];[a][b]hstack"), "-pix_fmt", "yuv420p"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(done.success());
    let frame = (TWO.0 * TWO.1 * 3 / 2) as usize;
    let bytes = std::fs::read(&file).unwrap();
    bytes.chunks_exact(frame).map(|frame| gst::Buffer::from_slice(frame.to_vec())).collect()
}

/// Publishes one still picture at 25 frames a second, without sound, until it is dropped.
struct Still(Arc<AtomicBool>);

impl Still {
    fn publish(inlet: Inlet) -> Self {
        let (picture, frames) = (Picture { width: TWO.0, height: TWO.1, fps: (25, 1) }, two_people());
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        std::thread::spawn(move || {
            let began = Instant::now();
            for n in 0_u64.. {
                let at = Duration::from_millis(40 * n);
                std::thread::sleep(at.saturating_sub(began.elapsed()));
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                inlet.video(picture, frames[0].clone(), at);
            }
        });
        Self(stop)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The brightness of all frames of the packets, decoded by one decoder from the first key frame on.
fn decoded(packets: &[Packet]) -> Vec<(Duration, Vec<u8>)> {
    let pipeline = gst::parse::launch(
        "appsrc name=in format=time caps=video/x-h264,stream-format=byte-stream,alignment=au ! h264parse ! avdec_h264 \
         ! videoconvert ! video/x-raw,format=GRAY8 ! appsink name=out sync=false",
    );
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for packet in packets.iter().filter(|packet| packet.codec == Codec::H264) {
        let mut buffer = gst::Buffer::from_slice(packet.data.clone());
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::try_from(packet.pts).unwrap());
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    let mut frames = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().unwrap();
        frames.push((buffer.pts().unwrap().into(), buffer.map_readable().unwrap().to_vec()));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    frames
}

/// How far the mouths on the left and on the right move in a stretch of time: the largest mean difference of the region from that of
/// the first frame.
fn moved(frames: &[(Duration, Vec<u8>)], from: Duration, to: Duration) -> [f64; 2] {
    let inside: Vec<&Vec<u8>> =
        frames.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, frame)| frame).collect();
    assert!(inside.len() > 4, "{} frames of {} in {from:?}..{to:?}", inside.len(), frames.len());
    let (width, height) = (TWO.0 as usize, TWO.1 as usize);
    [0.0, 0.5].map(|left| {
        let columns = ((left + 0.22) * width as f64) as usize..((left + 0.28) * width as f64) as usize;
        let rows = height / 2..height * 6 / 10;
        let difference = |frame: &[u8]| {
            let mut sum = 0;
            for y in rows.clone() {
                for x in columns.clone() {
                    sum += u32::from(frame[y * width + x].abs_diff(inside[0][y * width + x]));
                }
            }
            f64::from(sum) / (rows.len() * columns.len()) as f64
        };
        inside.iter().map(|frame| difference(frame)).fold(0.0, f64::max)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_voices_moves_its_own_face_and_either_can_be_cut_short() {
    let (manager, _folder) = manager(generous());
    let spec = SessionSpec {
        speaker: Some("left".into()),
        speaker_b: Some("right".into()),
        ..SessionSpec::new("two", "relay")
    };
    let session = manager.create(spec).unwrap();
    let alone = manager.create(SessionSpec::new("one", "relay")).unwrap();
    for refusal in [alone.speech_of(VoiceName::B).err(), alone.publish(Slot::VoiceB, "a test").err()] {
        let refusal = refusal.expect("it has one voice").to_string();
        assert!(refusal.contains("session `one` has one voice") && refusal.contains("speaker_b"), "{refusal}");
    }
    assert!(alone.status().voice_b.is_none());

    let source = Still::publish(session.publish(Slot::Main, "a test").unwrap());
    let mut viewer = session.watch(&[Codec::H264, Codec::Opus]).await.unwrap();
    let say = |voice: VoiceName, seconds: u32| {
        let mut writer = session.speech_of(voice).unwrap().writer("text").unwrap();
        let samples = speech(seconds);
        assert_eq!(writer.add(&samples).unwrap(), samples.len());
    };
    // Until both faces are known and the mouths at rest.
    let mut packets = collect(&mut viewer, Duration::from_secs(2)).await;
    let mut moments = vec![packets.last().unwrap().pts];
    let mut next = async |packets: &mut Vec<Packet>| {
        packets.extend(collect(&mut viewer, Duration::from_secs(2)).await);
        moments.push(packets.last().unwrap().pts);
    };
    say(VoiceName::B, 8);
    next(&mut packets).await;
    let second = session.status();
    session.interrupt_voice(VoiceName::B).await.unwrap();
    say(VoiceName::A, 8);
    next(&mut packets).await;
    say(VoiceName::B, 8);
    next(&mut packets).await;
    let both = session.status();
    session.interrupt_voice(VoiceName::A).await.unwrap();
    let cut = session.status();
    session.interrupt().await.unwrap();
    let none = session.status();
    drop(source);
    manager.close();

    let frames = decoded(&packets);
    let after = |n: usize| (moments[n] + Duration::from_millis(500), moments[n + 1]);
    let [only_second, only_first, together] = [0, 1, 2].map(|n| moved(&frames, after(n).0, after(n).1));
    if let Ok(folder) = std::env::var("LIPSTREAM_SHEETS") {
        let at = frames.iter().position(|(at, _)| *at > after(2).0).unwrap();
        let pgm = [format!("P5 {} {} 255\n", TWO.0, TWO.1).as_bytes(), &frames[at].1].concat();
        std::fs::write(format!("{folder}/two-voices.pgm"), pgm).unwrap();
    }
    assert!(only_second[1] > 5.0 && only_second[0] < 2.0, "voice B moves the right face alone: {only_second:?}");
    assert!(only_first[0] > 5.0 && only_first[1] < 2.0, "voice A moves the left face alone: {only_first:?}");
    assert!(together[0] > 5.0 && together[1] > 5.0, "both speak: {together:?}");

    let queue = |status: &lipstream::session::Status| {
        let second = status.voice_b.clone().expect("it has a second voice");
        [(status.speaking, status.speech_queued_ms > 2000.0), (second.speaking, second.speech_queued_ms > 2000.0)]
    };
    let (speaks, silent) = ((true, true), (false, false));
    assert_eq!(queue(&second), [silent, speaks]);
    assert_eq!(queue(&both), [speaks, speaks]);
    assert_eq!(queue(&cut), [silent, speaks], "the other voice speaks on");
    assert_eq!(queue(&none), [silent, silent]);
    let tracks = [both.speaker_track, both.voice_b.unwrap().speaker_track];
    assert!(tracks[0].is_some() && tracks[1].is_some() && tracks[0] != tracks[1], "{tracks:?}");

    let heard = levels(&packets, Codec::Opus, None);
    let loudest = |from: Duration, to: Duration| {
        let inside = heard.iter().filter(|(at, _)| (from.as_secs_f64()..to.as_secs_f64()).contains(at));
        inside.map(|(_, level)| *level).fold(0.0, f64::max)
    };
    assert!(loudest(Duration::ZERO, moments[0]) < 0.01, "silent before");
    assert!(loudest(after(0).0, after(0).1) > 0.05, "the second voice is heard by itself");
}
