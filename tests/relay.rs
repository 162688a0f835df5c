//! A relay as a streamer runs it: ffmpeg publishes, ffmpeg plays, nginx gets a push, the publisher breaks off and returns.

mod common;
mod live;

use std::{path::Path, time::Duration};

use common::{Luma, demo_audio, marked, marks, service::Service};
use live::{Running, assert_steady, eventually, free_port, packets, times};

const PATIENCE: Duration = Duration::from_secs(60);
/// Frames of the clip that is published again and again.
const FRAMES: usize = 200;

fn publish(clip: &Path, url: &str) -> Running {
    Running::ffmpeg(&format!(
        "-re -stream_loop -1 -i {} -stream_loop -1 -i {} -map 0:v -map 1:a -c:v copy -c:a aac -b:a 128k -f flv {url}",
        clip.display(),
        demo_audio().display()
    ))
}

/// A frame may be left out where the machine is busy; time stamps neither jump nor go back.
#[track_caller]
fn assert_flows(pictures: &[f64]) {
    let steps: Vec<f64> = pictures.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|step| (0.001..0.25).contains(step)), "{steps:?}");
    // Where one source takes over from another the frames of both need not be a whole step apart.
    assert!(steps.iter().filter(|step| **step < 0.03).count() <= 2, "{steps:?}");
    let full = steps.iter().filter(|step| **step < 0.045).count();
    assert!(full * 10 > steps.len() * 9, "{full} of {} frames follow the one before", steps.len());
}

/// Where the frames of `out` differ from those of `clip` whose marks they bear: the mean at the mouth and at the top.
fn changes(out: &Path, clip: &Path, folder: &Path) -> (f64, f64) {
    let ordinals = marks(out, folder);
    let (after, before) = (Luma::of(out, folder), Luma::of(clip, folder));
    let mean = |rect| {
        let of = |i: usize| after.difference(i, &before, ordinals[i], rect);
        (0..after.len()).map(of).sum::<f64>() / after.len() as f64
    };
    (mean((0.43, 0.42, 0.14, 0.2)), mean((0.35, 0.0, 0.3, 0.12)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_goes_on_while_its_publisher_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let clip = marked(FRAMES, f, "clip.mp4");
    let nginx_port = free_port();
    let nginx = live::nginx(f, nginx_port);
    let push = match nginx {
        Some(_) => format!("push = [\"rtmp://127.0.0.1:{nginx_port}/live/out\"]\n"),
        None => String::new(),
    };
    let service = Service::start(&format!(
        "[sessions]\nprivate_addresses = true\ndemo = false\n[[session]]\nid = \"stage\"\ngraph = \"relay\"\n\
         params = {{ preset = \"ultrafast\", bitrate = \"8000\" }}\n{push}"
    ));
    let (input, output) = (format!("{}/stage", service.rtmp), format!("{}/stage/synced", service.rtmp));
    let publisher = publish(&clip, &input);
    eventually(PATIENCE, "the publisher is there", || service.session("stage")["publishing"] == true);

    let played = f.join("played.mkv");
    let player = Running::ffmpeg(&format!("-i {output} -t 10 -c copy -copyts {}", played.display()));
    let (code, stderr) = player.end(PATIENCE).await;
    assert_eq!(code, 0, "{stderr}");
    let came = packets(played.to_str().unwrap());
    let (pictures, sounds) = (times(&came, "video"), times(&came, "audio"));
    assert!(
        pictures.len() > 220 && sounds.len() > 440,
        "{} pictures, {} sounds from {:?} and {:?} s to {:?} and {:?} s",
        pictures.len(),
        sounds.len(),
        pictures.first(),
        sounds.first(),
        pictures.last(),
        sounds.last()
    );
    assert_flows(&pictures);
    assert_steady(&sounds, 1024.0 / 48_000.0);
    let (mouth, top) = changes(&played, &clip, f);
    println!("the mouth changed by {mouth:.2}, the top by {top:.2}");
    assert!(mouth > 2.0 * top + 1.0, "the mouth changed by {mouth}, the top by {top}");

    // A player that stays while the publisher is killed, is away, and comes back.
    let through = f.join("through.mkv");
    let player = Running::ffmpeg(&format!("-i {output} -t 9 -c copy -copyts {}", through.display()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(publisher);
    eventually(PATIENCE, "the publisher is gone", || service.session("stage")["publishing"] == false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _again = publish(&clip, &input);
    let (code, stderr) = player.end(PATIENCE).await;
    assert_eq!(code, 0, "{stderr}");
    let came = packets(through.to_str().unwrap());
    assert_flows(&times(&came, "video"));
    assert_steady(&times(&came, "audio"), 1024.0 / 48_000.0);
    assert_eq!(service.session("stage")["restarts"], 0);

    if nginx.is_some() {
        let pushed = f.join("pushed.mkv");
        let url = format!("rtmp://127.0.0.1:{nginx_port}/live/out");
        let player = Running::ffmpeg(&format!("-i {url} -t 6 -c copy {}", pushed.display()));
        let (code, stderr) = player.end(PATIENCE).await;
        assert_eq!(code, 0, "{stderr}");
        assert!(times(&packets(pushed.to_str().unwrap()), "video").len() > 60);
    }
}

/// Pictures without a face, which cost little.
fn publish_pattern(size: &str, rate: &str, url: &str) -> Running {
    Running::ffmpeg(&format!(
        "-re -f lavfi -i testsrc2=size={size}:rate={rate} -f lavfi -i sine=frequency=440 -c:v libx264 -preset ultrafast \
         -tune zerolatency -g 30 -pix_fmt yuv420p -c:a aac -f flv {url}"
    ))
}

/// The rate that the metadata of a stream says.
async fn told_rate(url: &str) -> f64 {
    let mut probe = tokio::process::Command::new("ffprobe");
    probe.args([
        "-v",
        "error",
        "-select_streams",
        "v",
        "-show_entries",
        "stream=avg_frame_rate",
        "-of",
        "csv=p=0",
        url,
    ]);
    let output = tokio::time::timeout(PATIENCE, probe.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (frames, seconds) = text.trim().split_once('/').unwrap();
    frames.parse::<f64>().unwrap() / seconds.parse::<f64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_says_what_its_publisher_sends_and_counts_nothing_without_one() {
    let service = Service::start(
        "[sessions]\ndemo = false\n[[session]]\nid = \"stage\"\ngraph = \"relay\"\nalways_on = true\n\
         params = { preset = \"ultrafast\" }\n",
    );
    let (input, output) = (format!("{}/stage", service.rtmp), format!("{}/stage/synced", service.rtmp));
    for (size, rate, fps) in [("320x240", "30000/1001", 29.97), ("480x270", "60", 60.0)] {
        let publisher = publish_pattern(size, rate, &input);
        let running = || service.session("stage")["phase"] == "running";
        eventually(PATIENCE, "the publisher is shown", running);
        let told = told_rate(&output).await;
        assert!((told - fps).abs() < 0.01, "the metadata says {told} fps");
        let state = service.session("stage");
        let source = &state["source"];
        assert!((source["fps"].as_f64().unwrap() - fps).abs() < 0.01, "{source}");
        assert_eq!(format!("{}x{}", source["width"], source["height"]), size, "{source}");
        let (video, audio) = (source["video_codec"].as_str().unwrap(), source["audio_codec"].as_str().unwrap());
        assert!(video.contains("H.264") && audio.contains("AAC"), "{source}");
        assert_eq!((&source["sample_rate"], &source["channels"]), (&44_100.into(), &1.into()), "{source}");
        assert!(source["seen_ms_ago"].as_f64().unwrap() < 500.0, "{source}");
        assert_eq!((&state["width"], &state["height"]), (&320.into(), &240.into()), "the first one's size stays");

        drop(publisher);
        eventually(PATIENCE, "the publisher is gone", || service.session("stage")["publishing"] == false);
        // What waits is still played.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let before = service.session("stage");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let after = service.session("stage");
        assert_eq!(after["phase"], "waiting", "{after}");
        for counter in ["frames_held", "samples_missing"] {
            assert_eq!(before[counter], after[counter], "{counter}");
        }
        assert!(after["source"]["seen_ms_ago"].as_f64().unwrap() > 1500.0, "{after}");
    }
    assert_eq!(service.session("stage")["restarts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_and_ends_with_a_publisher_to_any_name() {
    let service = Service::start("[sessions]\ndemo = false\nidle_seconds = 5\npublish_key = \"ab+c/de01234567==\"\n");
    let list = || service.send("GET", "/api/v1/sessions", "", b"").1;
    let refused = publish_pattern("320x240", "25", &format!("{}/fresh?key=wrong+one", service.rtmp));
    let (code, stderr) = refused.end(PATIENCE).await;
    assert!(code != 0 && stderr.contains("publish key") && !stderr.contains("ab+c"), "{stderr}");
    assert!(!list().contains("fresh"), "{}", list());

    let publisher = publish_pattern("320x240", "25", &format!("{}/fresh?key=ab+c/de01234567==", service.rtmp));
    eventually(PATIENCE, "the session", || list().contains("fresh"));
    let told = told_rate(&format!("{}/fresh/synced", service.rtmp)).await;
    assert_eq!(told, 25.0);
    drop(publisher);
    eventually(PATIENCE, "its publisher is gone", || service.session("fresh")["publishing"] == false);
    let refused = publish_pattern("320x240", "25", &format!("{}/fresh", service.rtmp));
    let (code, stderr) = refused.end(PATIENCE).await;
    assert!(code != 0 && stderr.contains("stream key"), "the key guards it for others too: {stderr}");
    let publisher = publish_pattern("320x240", "25", &format!("{}/fresh?key=ab+c/de01234567==", service.rtmp));
    eventually(PATIENCE, "it is published to again", || service.session("fresh")["publishing"] == true);
    tokio::time::sleep(Duration::from_millis(6500)).await;
    assert!(list().contains("fresh"), "it stays without viewers while it is published to");
    drop(publisher);
    eventually(PATIENCE, "the session's end", || !list().contains("fresh"));

    let service = Service::start("[sessions]\ndemo = false\non_publish = \"refuse\"\n");
    let refused = publish_pattern("320x240", "25", &format!("{}/fresh", service.rtmp));
    let (code, stderr) = refused.end(PATIENCE).await;
    assert!(code != 0 && stderr.contains("there is no session `fresh`"), "{stderr}");
}
