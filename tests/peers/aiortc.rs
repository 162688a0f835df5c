//! aiortc: a viewer by WHEP, a publisher by WHIP, and an end point of WHIP that is pushed to.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Instant,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    PATIENCE, alone,
    common::{self, Luma, service::Service},
    create, delete, installed,
    live::{Running, eventually},
    screen, speak, stage,
};

fn python() -> PathBuf {
    common::root().join(".lipstream/peers/bin/python")
}

/// One of the Python programs beside this file.
struct Peer {
    process: Running,
    input: ChildStdin,
    lines: Receiver<String>,
    folder: TempDir,
}

impl Peer {
    fn start(script: &str, mode: &[&str], options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(python());
        command.arg(common::root().join("tests/peers").join(script)).args(mode).arg(folder.path()).args(options);
        let child = command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = Running(child.unwrap());
        let reader = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let (sender, lines) = channel();
        std::thread::spawn(move || reader.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { input: process.0.stdin.take().unwrap(), process, lines, folder }
    }

    fn client(mode: &str, url: &str, options: &[&str]) -> Self {
        Self::start("aiortc_client.py", &[mode, url], options)
    }

    /// The next thing it tells that `wanted` takes.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let (deadline, mut last) = (Instant::now() + PATIENCE, Value::Null);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => last = serde_json::from_str(&line).unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("not within {PATIENCE:?}: {what}; the last was {last}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended before: {what}; the last was {last}"),
            }
            if wanted(&last) {
                return last;
            }
        }
    }

    /// Waits until it has decoded `frames` pictures and as much sound, at least as loud as `loud`, and looks at them.
    #[track_caller]
    fn decodes(&self, frames: u64, loud: u64) -> Value {
        let count = |said: &Value, kind: &str, name: &str| said["media"][kind][name].as_u64().unwrap_or(0);
        let said = self.until("decoded pictures and sound", |said| {
            count(said, "video", "frames") >= frames
                && count(said, "audio", "frames") >= 2 * frames
                && count(said, "audio", "loudest") >= loud
        });
        println!("{said}");
        let media = &said["media"];
        assert_eq!(media["video"]["sizes"], json!([[1280, 720]]));
        assert_eq!(media["audio"]["rates"], json!([48_000]));
        for (kind, step) in [("video", 0.04), ("audio", 0.02)] {
            let stream = &media[kind];
            let number = |name: &str| stream[name].as_f64().unwrap();
            assert!(number("shortest") > step / 2.0 && number("longest") < 1.0, "{kind}: {stream}");
            let (span, counted) = (number("last") - number("first"), (number("frames") - 1.0) * step);
            assert!(span > counted - step && span < counted + 1.0, "{kind}: {counted} s of frames in {span} s of PTS");
        }
        said
    }

    fn pictures(&self) -> Vec<PathBuf> {
        let names = common::names(self.folder.path()).into_iter().filter(|name| name.ends_with(".pgm"));
        names.map(|name| self.folder.path().join(name)).collect()
    }

    /// Ends its input; waits until it has deleted its resource and is gone.
    fn leave(self) {
        let Self { process, input, lines, folder: _folder } = self;
        drop(input);
        let mut deleted = None;
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            let said: Value = serde_json::from_str(&line).unwrap();
            deleted = said["deleted"].as_u64().or(deleted);
        }
        assert_eq!(deleted, Some(200));
        drop(process);
    }
}

fn viewers(service: &Service, session: &str) -> u64 {
    service.session(session)["viewers"].as_u64().unwrap()
}

#[test]
fn aiortc_plays_at_the_default_configuration_until_the_session_ends() {
    if !installed(&python()) {
        return;
    }
    let _alone = alone();
    let service = Service::start("");
    let url = format!("{}/whep/demo", service.url);
    let first = Peer::client("whep", &url, &["--codec", "VP8"]);
    let opened = first.until("an answer", |said| said["status"].is_u64());
    assert_eq!(opened["status"], 201, "{opened}");
    first.decodes(50, 0);
    first.leave();
    eventually(PATIENCE, "the first viewer's end", || viewers(&service, "demo") == 0);

    // Later, with an RSA certificate, a channel that is not served, and H.264 without its profile.
    let second = Peer::client("whep", &url, &["--rsa", "--data-channel", "--bare"]);
    let opened = second.until("an answer", |said| said["status"].is_u64());
    assert_eq!(opened["status"], 201, "{opened}");
    let (offer, answer) = (opened["offer"].as_str().unwrap(), opened["answer"].as_str().unwrap());
    assert!(offer.contains("m=application") && !offer.contains("profile-level-id"), "{offer}");
    assert!(answer.contains("m=application 0 ") && answer.contains("profile-level-id=42e0"), "{answer}");
    speak(&service, "demo");
    second.decodes(100, 2_000);
    screen::assert_avatar(&second.pictures(), second.folder.path());
    assert_eq!(viewers(&service, "demo"), 1);
    delete(&service, "demo");
    second.until("the end of both tracks", |said| said["media"]["ended"] == 2);
}

/// Half the picture bright and half dark, and 440 Hz, as the synced stream has them.
fn assert_test_picture(service: &Service, session: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("played.mkv");
    common::ffmpeg(&format!("-i {}/{session}/synced -t 2 -c copy", service.rtmp), &file);
    let luma = Luma::of(&file, folder.path());
    assert_eq!((luma.width, luma.height), (320, 240));
    assert!(luma.len() > 35, "{} frames in 2 s", luma.len());
    let mean = |left: usize, frame: &[u8]| {
        let half = frame.chunks(luma.width).flat_map(|row| &row[left..left + luma.width / 2]);
        half.map(|pixel| f64::from(*pixel)).sum::<f64>() / (luma.width / 2 * luma.height) as f64
    };
    let last = luma.frame(luma.len() - 1);
    let (bright, dark) = (mean(0, last), mean(luma.width / 2, last));
    assert!(bright > 185.0 && dark < 65.0, "{bright} on the left, {dark} on the right");
    let moved = luma.difference(luma.len() - 20, &luma, luma.len() - 1, (0.0, 0.0, 1.0, 1.0));
    assert!(moved > 1.0, "nothing moves: {moved}");
    let samples = common::samples_by_ffmpeg(&file, folder.path());
    let left: Vec<i16> = samples.chunks_exact(4).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    let tone = &left[left.len() - 48_000..];
    let loudest = tone.iter().map(|sample| sample.unsigned_abs()).max();
    let rises = tone.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
    assert!(loudest > Some(8_000) && (430..=450).contains(&rises), "{rises} Hz, as loud as {loudest:?}");
}

#[test]
fn aiortc_publishes_to_who_has_the_key() {
    if !installed(&python()) {
        return;
    }
    let _alone = alone();
    let service = Service::start("");
    create(&service, json!({ "id": "studio", "graph": "relay", "stream_key": "not-so-secret" }));
    let url = format!("{}/whip/studio", service.url);
    let refused = Peer::client("whip", &url, &[]).until("an answer", |said| said["status"].is_u64());
    assert_eq!(refused["status"], 401, "{refused}");
    assert!(refused["answer"].as_str().unwrap().contains("stream key"), "{refused}");

    for (codec, name) in [("H264", "H.264"), ("VP8", "VP8")] {
        let publisher = Peer::client("whip", &url, &["--codec", codec, "--key", "not-so-secret"]);
        let opened = publisher.until("an answer", |said| said["status"].is_u64());
        assert_eq!(opened["status"], 201, "{opened}");
        let source = || service.session("studio")["source"].clone();
        eventually(PATIENCE, &format!("{codec} and Opus"), || {
            let source = source();
            let video = source["video_codec"].as_str().is_some_and(|codec| codec.starts_with(name));
            video && source["audio_codec"] == "Opus" && source["width"] == 320 && source["height"] == 240
        });
        assert_test_picture(&service, "studio");
        publisher.leave();
        eventually(PATIENCE, "the publisher's end", || service.session("studio")["publishing"] == false);
    }
}

#[test]
fn aiortc_is_pushed_to_by_whip() {
    if !installed(&python()) {
        return;
    }
    let _alone = alone();
    let sfu = Peer::start("aiortc_endpoint.py", &[], &["t0ken"]);
    let port = sfu.until("a port", |said| said["port"].is_u64())["port"].clone();
    let (wrong, right) = (format!("whip://wr0ng@127.0.0.1:{port}/room"), format!("whip://t0ken@127.0.0.1:{port}/room"));
    let service = stage(&[&wrong, &right]);
    let pushes = || service.session("stage")["pushes"].clone();
    eventually(PATIENCE, "the refusal of the wrong token", || pushes()[0]["error"].is_string());
    let error = pushes()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("401") && error.contains("this token is not known"), "{error}");
    let shown = pushes().to_string();
    assert!(!shown.contains("wr0ng") && !shown.contains("t0ken"), "{shown}");

    speak(&service, "stage");
    let first = sfu.decodes(75, 2_000);
    screen::assert_avatar(&sfu.pictures(), sfu.folder.path());
    eventually(PATIENCE, "the push is connected", || pushes()[1]["connected"] == true);
    // The SFU hangs up: the push calls again.
    writeln!(&sfu.input, "hang up").unwrap();
    sfu.until("another connection", |said| said["connection"].as_u64() > first["connection"].as_u64());
    sfu.decodes(50, 0);
    let push = pushes()[1].clone();
    assert!(push["connected"] == true && push["reconnects"] == 1 && push["error"].is_null(), "{push}");
    delete(&service, "stage");
    let end = sfu.until("its end", |said| said["method"] == "DELETE" && said["path"] != "/resource?number=0");
    assert_eq!(end["Authorization"], "Bearer t0ken", "{end}");
}
