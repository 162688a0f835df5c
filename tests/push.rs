//! Pushing to other servers and reading from them: nginx with its RTMP module, ffmpeg by SRT and RTMP, HTTP with a file
//! and HLS.

mod live;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use lipstream::{
    pull::{self, Pull},
    push::{self, Push},
    rtmp::{Server, Settings},
};
use live::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn push_settings() -> push::Settings {
    let pause = (Duration::from_millis(200), Duration::from_secs(1));
    push::Settings { private_addresses: true, patience: Duration::from_secs(5), pause }
}

fn pull_settings() -> pull::Settings {
    let pause = (Duration::from_millis(200), Duration::from_secs(1));
    pull::Settings { private_addresses: true, files: true, patience: Duration::from_secs(5), pause }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_nginx_is_played_back_and_comes_back_after_nginx_was_gone() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(first) = nginx(folder.path(), port) else { return };
    let broadcast = Broadcast::start();
    let url = format!("rtmp://127.0.0.1:{port}/live/s3cret?token=t0ken");
    let push = Push::start(broadcast.outlet.clone(), &url, push_settings()).unwrap();
    eventually(PATIENCE, "the push is connected", || push.status().connected);
    let packets = play(&format!("rtmp://127.0.0.1:{port}/live/s3cret"), 3).await;
    let (video, audio) = (times(&packets, "video"), times(&packets, "audio"));
    assert!(video.len() > 40 && audio.len() > 80, "{} pictures, {} packets of sound", video.len(), audio.len());
    assert_steady(&video, 0.04);
    assert_steady(&audio, 1024.0 / 48_000.0);

    drop(first);
    eventually(PATIENCE, "the push has noticed", || !push.status().connected);
    let status = push.status();
    let shown = format!("{status:?}");
    assert!(status.error.is_some() && !shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
    let _second = nginx(folder.path(), port).unwrap();
    eventually(PATIENCE, "the push is back", || push.status().connected);
    let status = push.status();
    assert_eq!((status.reconnects, status.error), (1, None));
    let packets = play(&format!("rtmp://127.0.0.1:{port}/live/s3cret"), 2).await;
    assert_steady(&times(&packets, "video"), 0.04);
    drop(push);
    eventually(PATIENCE, "the push has left the session", || broadcast.outlet.viewers() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_refuses_is_told_without_the_secret() {
    let studio = Studio::open();
    let server = Server::with_host(Settings { bind: loopback(), ..Settings::default() }, studio.clone()).unwrap();
    let url = format!("rtmp://{}/live/s3cret-name?key=k3y", server.local_addr());
    let push = Push::start(studio.broadcast.outlet.clone(), &url, push_settings()).unwrap();
    eventually(PATIENCE, "the refusal", || push.status().error.is_some());
    let error = push.status().error.unwrap();
    assert!(error.contains("there is no session") && !error.contains("k3y"), "{error}");
    assert!(!push.status().url.contains("s3cret"), "{}", push.status().url);

    // A place that takes it: the second session of a cascade.
    let url = format!("rtmp://{}/live/talk", server.local_addr());
    let _push = Push::start(studio.broadcast.outlet.clone(), &url, push_settings()).unwrap();
    eventually(PATIENCE, "what is pushed arrives", || studio.main.frames() > 25 && studio.main.seen().samples > 48_000);
    let delay = studio.broadcast.delay(&studio.main.seen().frames);
    eprintln!("from the outlet by a push through our server to decoded in the next session: median {delay:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_neither_pushed_to_nor_read() {
    let broadcast = Broadcast::start();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let counter = Arc::new(Counter::default());
    for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]"] {
        let push = Push::start(
            broadcast.outlet.clone(),
            &format!("rtmp://{host}:{port}/live/x"),
            push::Settings { private_addresses: false, ..push_settings() },
        )
        .unwrap();
        eventually(PATIENCE, "the push is refused", || push.status().error.is_some());
        assert!(push.status().error.unwrap().contains("not a public address"), "{host}");
        for scheme in ["rtmp", "srt", "rtsp", "http"] {
            let pull = Pull::start(
                counter.inlet(),
                &format!("{scheme}://{host}:{port}/live/x"),
                pull::Settings { private_addresses: false, ..pull_settings() },
            )
            .unwrap();
            eventually(PATIENCE, "the pull is refused", || pull.status().error.is_some());
            assert!(pull.status().error.unwrap().contains("not a public address"), "{scheme} {host}");
        }
    }
    assert!(listener.accept().is_err(), "something has connected");
    let files = pull::Settings { files: false, ..pull_settings() };
    assert!(Pull::start(counter.inlet(), "file:///etc/passwd", files).is_err());
    assert!(Push::start(broadcast.outlet.clone(), "ftp://127.0.0.1/", push_settings()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn srt_is_pushed_to_a_listener() {
    let broadcast = Broadcast::start();
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let file = folder.path().join("srt.mkv");
    let receiver = Running::ffmpeg(&format!("-i srt://127.0.0.1:{port}?mode=listener -t 3 -c copy {}", file.display()));
    let push =
        Push::start(broadcast.outlet.clone(), &format!("srt://127.0.0.1:{port}?latency=80"), push_settings()).unwrap();
    eventually(PATIENCE, "the push is connected", || push.status().connected);
    let (code, stderr) = receiver.end(PATIENCE).await;
    assert_eq!(code, 0, "{stderr}");
    let packets = packets(file.to_str().unwrap());
    let (video, audio) = (times(&packets, "video"), times(&packets, "audio"));
    assert!(video.len() > 40 && audio.len() > 80, "{} pictures, {} packets of sound", video.len(), audio.len());
    assert_steady(&video, 0.04);
    // The listener is gone: noticed, and tried again.
    eventually(PATIENCE, "the end of the listener", || !push.status().connected && push.status().error.is_some());
}

/// Both streams of a source have arrived, one picture after the other.
fn assert_read(counter: &Counter, what: &str) {
    eventually(PATIENCE, what, || {
        let seen = counter.seen();
        seen.frames.len() > 50 && seen.samples > 48_000
    });
    let seen = counter.seen();
    assert!(seen.loudest > 0.01, "{what}: silence");
    let at: Vec<f64> = seen.frames.iter().take(50).map(|(at, _)| at.as_secs_f64()).collect();
    assert!(at.windows(2).all(|pair| pair[0] < pair[1]), "{what}: {at:?}");
    let (begin, _) = seen.sound.unwrap();
    assert!((begin.as_secs_f64() - at[0]).abs() < 0.5, "{what}: sound from {begin:?}, pictures from {}", at[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rtmp_and_srt_are_read_and_read_again_after_they_were_gone() {
    let studio = Studio::open();
    let server = Server::with_host(Settings { bind: loopback(), ..Settings::default() }, studio.clone()).unwrap();
    let counter = Arc::new(Counter::default());
    let url = format!("rtmp://{}/live/talk/synced", server.local_addr());
    let pull = Pull::start(counter.inlet(), &url, pull_settings()).unwrap();
    assert_read(&counter, "RTMP");
    assert!(pull.status().connected);
    drop(pull);
    eventually(PATIENCE, "the place is free", || counter.seen().ends == 1);

    let (counter, port) = (Arc::new(Counter::default()), free_port());
    let sender = || Running::ffmpeg(&format!("{} -f mpegts srt://127.0.0.1:{port}?mode=listener", test_media(60)));
    let first = sender();
    let pull = Pull::start(counter.inlet(), &format!("srt://127.0.0.1:{port}?latency=80"), pull_settings()).unwrap();
    assert_read(&counter, "SRT");
    drop(first);
    eventually(PATIENCE, "the sender's end", || !pull.status().connected);
    let before = counter.frames();
    let _second = sender();
    eventually(PATIENCE, "frames of the second sender", || counter.frames() > before + 20);
    let (status, seen) = (pull.status(), counter.seen());
    assert!(status.connected && status.reconnects == 1 && seen.restarts >= 1 && seen.ends == 0, "{status:?}");
}

/// A transport stream whose programme has pictures only, and then pictures and sound.
#[tokio::test(flavor = "multi_thread")]
async fn a_programme_that_changes_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let picture = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=2";
    let encoded = "-c:v libx264 -preset ultrafast -g 25 -bf 0 -pix_fmt yuv420p -muxdelay 0 -f mpegts";
    let at = |name: &str| folder.path().join(name);
    for arguments in [
        format!("{picture} {encoded} {}", at("a.ts").display()),
        format!(
            "{picture} -f lavfi -i sine=duration=2 {encoded} -c:a aac -output_ts_offset 2 -tables_version 1 {}",
            at("b.ts").display()
        ),
    ] {
        let (code, stderr) = Running::ffmpeg(&arguments).end(PATIENCE).await;
        assert_eq!(code, 0, "{stderr}");
    }
    let joined = [std::fs::read(at("a.ts")).unwrap(), std::fs::read(at("b.ts")).unwrap()].concat();
    std::fs::write(at("both.ts"), joined).unwrap();
    let port = free_port();
    let mut sender = tokio::process::Command::new("gst-launch-1.0")
        .args(["-q", "filesrc", &format!("location={}", at("both.ts").display())])
        .args(["!", "tsparse", "set-timestamps=true", "alignment=7", "!", "srtsink", "wait-for-connection=true"])
        .arg(format!("uri=srt://127.0.0.1:{port}?mode=listener"))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let counter = Arc::new(Counter::default());
    let url = format!("srt://127.0.0.1:{port}?latency=80");
    let _pull = Pull::start(counter.inlet(), &url, pull_settings()).unwrap();
    eventually(PATIENCE, "the end of the stream", || counter.seen().frames.len() > 85);
    let seen = counter.seen();
    assert!(seen.samples > 60_000 && seen.loudest > 0.05, "{} samples, {}", seen.samples, seen.loudest);
    let _ = sender.kill().await;
}

/// Serves the files of a folder by HTTP.
fn http(folder: PathBuf) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, folder) = (socket.unwrap(), folder.clone());
            std::thread::spawn(move || {
                let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
                let request = lines.next()?.ok()?;
                while !lines.next()?.ok()?.is_empty() {}
                let path = request.split(' ').nth(1)?.trim_start_matches('/').split('?').next()?.to_owned();
                match std::fs::read(folder.join(path)) {
                    Ok(body) => {
                        write!(
                            socket,
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                            body.len()
                        )
                        .ok()?;
                        socket.write_all(&body).ok()?;
                    }
                    Err(_) => write!(socket, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?,
                }
                Some(())
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn files_http_and_hls_are_read_at_the_pace_of_a_camera() {
    let folder = tempfile::tempdir().unwrap();
    let media = test_media(6).replace("-re ", "");
    let at = |name: &str| folder.path().join(name).display().to_string();
    for output in [at("clip.ts"), format!("-f hls -hls_time 1 -hls_playlist_type vod {}", at("list.m3u8"))] {
        let (code, stderr) = Running::ffmpeg(&format!("{media} {output}")).end(PATIENCE).await;
        assert_eq!(code, 0, "{stderr}");
    }
    let port = http(folder.path().to_owned());
    for url in [
        format!("file://{}", at("clip.ts")),
        format!("http://127.0.0.1:{port}/clip.ts"),
        format!("http://127.0.0.1:{port}/list.m3u8"),
    ] {
        let counter = Arc::new(Counter::default());
        let _pull = Pull::start(counter.inlet(), &url, pull_settings()).unwrap();
        assert_read(&counter, &url);
        let seen = counter.seen();
        let (first, last) = (seen.frames[0], seen.frames[seen.frames.len() - 1]);
        let (media, wall) = (last.0 - first.0, last.1 - first.1);
        assert!(wall + Duration::from_millis(500) > media, "{url}: {media:?} came within {wall:?}");
    }
}
