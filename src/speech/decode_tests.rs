use futures_util::stream as streams;

use super::*;
use crate::speech::Event;

type Chunk = Result<Bytes, std::io::Error>;

fn chunks(bytes: &[u8], size: usize) -> impl Stream<Item = Chunk> + Send + Unpin + use<> {
    let pieces: Vec<Chunk> = bytes.chunks(size).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    streams::iter(pieces)
}

fn queue(seconds: u64) -> Arc<Queue> {
    gst::init().unwrap();
    Queue::new(Duration::from_secs(seconds))
}

/// One second of 440 Hz.
fn pcm(rate: u32) -> Vec<u8> {
    let sample = |n: u32| (f64::from(n) * 440.0 * std::f64::consts::TAU / f64::from(rate)).sin() * 16_000.0;
    (0..rate).flat_map(|n| (sample(n) as i16).to_le_bytes()).collect()
}

fn wav(rate: u32) -> Vec<u8> {
    let data = pcm(rate);
    let mut out = b"RIFF".to_vec();
    out.extend((36 + data.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt ");
    [16, 0x0001_0001, rate, rate * 2, 0x0010_0002].iter().for_each(|word: &u32| out.extend(word.to_le_bytes()));
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

fn all(queue: &Queue) -> Vec<f32> {
    let mut out = vec![0.0; (queue.queued().as_secs_f64() * f64::from(RATE)).round() as usize];
    queue.take(&mut out);
    out
}

/// Strength of 440 Hz, 1 being a sine of the amplitude in [`pcm`] alone.
fn purity(samples: &[f32]) -> f64 {
    let step = 440.0 * std::f64::consts::TAU / f64::from(RATE);
    let wave = |f: fn(f64) -> f64| -> f64 {
        samples.iter().enumerate().map(|(n, s)| f64::from(*s) * f(n as f64 * step)).sum::<f64>()
    };
    2.0 * wave(f64::sin).hypot(wave(f64::cos)) / samples.len() as f64 / (16_000.0 / 32_768.0)
}

#[tokio::test]
async fn wav_and_raw_samples_become_the_same_speech() {
    // A TTS that streams does not know the size when it writes the head.
    let endless = |size: u32| {
        let mut body = wav(24_000);
        body[4..8].copy_from_slice(&size.to_le_bytes());
        body[40..44].copy_from_slice(&size.to_le_bytes());
        body
    };
    let bodies = [
        ("audio/wav", endless(u32::MAX), 1000),
        ("audio/wav", endless(0), 1000),
        ("audio/wav", endless(0x7fff_ffff), 500),
        ("audio/wav", wav(16_000), 1000),
        ("audio/wav", wav(44_100), 7777),
        ("", wav(48_000), 100_000),
        ("audio/pcm;rate=24000", pcm(24_000), 331),
        ("audio/L16;rate=16000", pcm(16_000).chunks(2).flat_map(|b| [b[1], b[0]]).collect(), 999),
    ];
    for (kind, body, size) in bodies {
        let queue = queue(10);
        let spoken = stream(kind, chunks(&body, size), &queue, "u").await.unwrap();
        assert!((spoken.seconds - 1.0).abs() < 0.01, "{kind}: {spoken:?}");
        let samples = all(&queue);
        assert!((purity(&samples) - 1.0).abs() < 0.05, "{kind}: {}", purity(&samples));
    }
}

#[tokio::test]
async fn speech_begins_while_the_body_still_comes() {
    let queue = queue(10);
    let flac = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/demo/speech.flac")).unwrap();
    let (sender, receiver) = mpsc::channel::<Chunk>(1);
    let body = streams::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed();
    let task = {
        let queue = queue.clone();
        tokio::spawn(async move { stream("audio/flac", body, &queue, "u").await })
    };
    for chunk in flac[..200_000].chunks(10_000) {
        sender.send(Ok(Bytes::copy_from_slice(chunk))).await.unwrap();
    }
    while queue.queued() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!task.is_finished());
    sender.send(Err(std::io::Error::other("reset by peer"))).await.unwrap();
    assert_eq!(task.await.unwrap(), Err(Error::Body("reset by peer".into())));
}

#[tokio::test]
async fn a_long_body_waits_for_the_queue_and_stops_when_it_is_cut() {
    let queue = queue(2);
    let minute = pcm(48_000).repeat(60);
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = sent.clone();
    let body = chunks(&minute, 9600).inspect(move |_| {
        count.fetch_add(9600, std::sync::atomic::Ordering::Relaxed);
    });
    let task = {
        let queue = queue.clone();
        tokio::spawn(async move { stream("audio/pcm;rate=48000", body, &queue, "u").await })
    };
    while queue.queued() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Two seconds are queued; the decoder holds its fixed amount besides.
    assert!(sent.load(std::sync::atomic::Ordering::Relaxed) < 12 * 96_000);
    assert_eq!(queue.queued(), Duration::from_secs(2));
    queue.interrupt();
    assert_eq!(task.await.unwrap(), Err(Error::Cut));
    assert_eq!(queue.queued(), Duration::ZERO);
}

#[tokio::test]
async fn what_is_no_speech_is_refused_with_a_cause() {
    let queue = queue(10);
    let mut events = queue.events();
    let random: Vec<u8> = (0..50_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let video = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/demo/avatar.mp4")).unwrap();
    let playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n";
    let bodies: [(&str, &[u8]); 6] = [
        ("audio/wav", b""),
        ("audio/wav", b"RIFF"),
        ("audio/mpeg", &random),
        ("audio/ogg", b"<html>no such page</html>"),
        ("", &video),
        ("", playlist),
    ];
    for (kind, body) in bodies {
        let refused = stream(kind, chunks(body, 4096), &queue, "u").await.unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, Error::Invalid(_)) && text.contains("send WAV"), "{kind}: {text}");
    }
    assert!(matches!(stream("image/png", chunks(b"", 1), &queue, "u").await, Err(Error::Unsupported(_))));
    assert!(matches!(stream("audio/pcm;rate=16000", chunks(b"x", 1), &queue, "u").await, Err(Error::Invalid(_))));
    // Refused before or after it was opened, an utterance ends.
    let mut open = 0;
    while let Ok(event) = events.try_recv() {
        open += i32::from(matches!(event, Event::Listening { .. })) - i32::from(event == Event::Idle);
    }
    assert_eq!((open, queue.queued()), (0, Duration::ZERO));
}

#[tokio::test]
async fn a_rate_of_a_hertz_is_no_speech() {
    let mut body = wav(16_000);
    // The rate in the format chunk.
    body[24..28].copy_from_slice(&1_u32.to_le_bytes());
    body[28..32].copy_from_slice(&2_u32.to_le_bytes());
    let error = stream("audio/wav", chunks(&body, 1000), &queue(10), "u").await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(cause) if cause.contains("rate")), "{error}");
}
