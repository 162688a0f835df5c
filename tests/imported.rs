//! Engines from published files, through the program: import, check, render, gst-launch, sessions.

mod common;
#[path = "../engines/tests/common/tiny.rs"]
mod tiny;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use common::{service::Service, *};
use serde_json::{Value, json};

/// The program with engines of its own in `home`.
fn program(home: &Path) -> Command {
    let mut command = lipstream(home);
    command.env("XDG_DATA_HOME", home.join("data"));
    command
}

/// A home with the engine `mouth`.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let file = tiny::wav2lip(home.path());
    let args = ["import", "wav2lip", "--name", "mouth", "--licence", "mine", "--from"];
    let output = succeed(program(home.path()).args(args).arg(file));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("mouth: wav2lip, "), "{output:?}");
    home
}

/// Two seconds of the demo.
fn inputs(home: &Path) -> (PathBuf, PathBuf) {
    let (video, audio) = (home.join("person.mp4"), home.join("speech.wav"));
    succeed(
        Command::new("ffmpeg")
            .args(["-v", "error", "-i", "demo/avatar.mp4", "-t", "2", "-an"])
            .arg(&video)
            .current_dir(root()),
    );
    succeed(
        Command::new("ffmpeg")
            .args(["-v", "error", "-i", "demo/speech.flac", "-t", "2"])
            .arg(&audio)
            .current_dir(root()),
    );
    (video, audio)
}

fn json_of(command: &mut Command) -> Value {
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

#[test]
fn an_imported_engine_is_listed_checked_and_removed() {
    let home = home();
    let listed = json_of(program(home.path()).args(["engines", "--json"]));
    let row = listed.as_array().unwrap().iter().find(|row| row["name"] == "mouth").unwrap();
    assert_eq!((row["family"].as_str(), row["licence"].as_str()), (Some("wav2lip"), Some("mine")));
    assert_eq!((row["clip_frames"].as_u64(), row["look_ahead_ms"].as_f64()), (Some(1), Some(212.5)));
    assert!(row["gflop_per_frame"].as_f64().unwrap() > 0.0 && row.get("error").is_none(), "{row}");
    let checked = json_of(program(home.path()).args(["engines", "check", "mouth", "--json"]));
    assert_eq!(
        (checked["engine"].as_str(), checked["outputs"][0]["name"].as_str()),
        (Some("mouth"), Some("generator.picture"))
    );
    assert!(checked["worst"].as_f64().unwrap() < 1e-6, "{checked}");
    // Bytes of the stored outputs that were changed are a difference.
    let record = home.path().join("data/lipstream/engines/mouth/check.safetensors");
    let mut bytes = fs::read(&record).unwrap();
    let end = bytes.len();
    bytes[end - 2] ^= 0x40;
    fs::write(&record, bytes).unwrap();
    let output = program(home.path()).args(["engines", "check", "mouth"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("beyond the tolerance"), "{text}");
    succeed(program(home.path()).args(["engines", "remove", "mouth"]));
    assert!(!home.path().join("data/lipstream/engines/mouth").exists());
    let (code, text) = fail(program(home.path()).args(["engines", "remove", "mouth"]));
    assert!(code == 2 && text.contains("no engine `mouth`"), "{code} {text}");
    let (code, text) = fail(program(home.path()).args(["engines", "remove", "compact"]));
    assert!(code == 2 && text.contains("built in"), "{code} {text}");
}

#[test]
fn files_that_cannot_be_imported_are_refused_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing.pth");
    let broken = home.path().join("broken.pth");
    fs::write(&broken, b"\x80\x02cos\nsystem\nU\x04trueR.").unwrap();
    let image = home.path().join("image.onnx");
    fs::write(&image, [0u8; 300]).unwrap();
    for (args, path, code, cause) in [
        (vec!["import"], &missing, 3, "missing.pth: there is no such file"),
        (vec!["import"], &broken, 4, "`os.system`"),
        (vec!["import"], &image, 4, "image.onnx: "),
        (vec!["import", "sadtalker"], &broken, 2, "`sadtalker` is no family"),
    ] {
        let (found, text) = fail(program(home.path()).args(&args).arg("--from").arg(path));
        assert!(found == code && text.contains(cause), "{args:?}: {found} {text}");
        assert!(code == 2 || text.trim_end().lines().count() == 1, "{text}");
    }
    let left = fs::read_dir(home.path().join("data/lipstream/engines"));
    assert!(!left.is_ok_and(|mut entries| entries.next().is_some()));
}

/// How alike the part `crop` of two videos is, in dB; a hundred where it is the same.
fn psnr(a: &Path, b: &Path, crop: &str) -> f64 {
    let filter = format!("[0]crop={crop}[a];[1]crop={crop}[b];[a][b]psnr");
    let mut command = Command::new("ffmpeg");
    let output = succeed(command.arg("-i").arg(a).arg("-i").arg(b).args(["-lavfi", &filter, "-f", "null", "-"]));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let average = text.split("average:").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    if average == "inf" { 100.0 } else { average.parse().unwrap() }
}

#[test]
fn a_render_changes_the_lower_face_and_nothing_else() {
    let home = home();
    let (video, audio) = inputs(home.path());
    let out = home.path().join("out.mp4");
    let mut command = program(home.path());
    command
        .args(["render", "--engine", "mouth", "--crf", "12", "--json", "--video"])
        .arg(&video)
        .arg("--audio")
        .arg(&audio);
    let summary = json_of(command.arg("-o").arg(&out));
    assert_eq!((summary["engine"].as_str(), summary["frames"].as_u64()), (Some("mouth"), Some(50)));
    assert_eq!(summary["untouched"].as_object().unwrap().len(), 0, "{summary}");
    // The demo person's mouth is in the middle of the upper half; eyes and coat are not.
    let (mouth, eyes, coat) = ("140:60:570:410", "260:60:520:230", "600:100:340:600");
    let [mouth, eyes, coat] = [mouth, eyes, coat].map(|crop| psnr(&video, &out, crop));
    assert!(mouth < 25.0 && eyes > 35.0 && coat > 35.0, "mouth {mouth}, eyes {eyes}, coat {coat}");
    let (code, text) = fail(
        program(home.path())
            .args(["render", "--engine", "mouth", "--steps", "2", "--video"])
            .arg(&video)
            .arg("--audio")
            .arg(&audio)
            .arg("-o")
            .arg(&out),
    );
    assert!(code == 4 && text.contains("`mouth` does not denoise"), "{code} {text}");
}

#[test]
fn a_gst_launch_line_takes_it_by_name() {
    let home = home();
    let (video, audio) = inputs(home.path());
    let line = format!(
        "lipsync name=ls engine=mouth filesrc location={} ! decodebin ! videoconvert ! ls.video_sink \
         filesrc location={} ! decodebin ! audioconvert ! audioresample ! ls.audio_sink \
         ls.video_src ! fakesink name=seen ls.audio_src ! fakesink",
        video.display(),
        audio.display()
    );
    let mut command = gst_tool("gst-launch-1.0", home.path());
    let output =
        succeed(command.arg("-q").args(line.split_whitespace()).env("XDG_DATA_HOME", home.path().join("data")));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("ERROR"), "{output:?}");
}

#[test]
fn sessions_run_it_and_the_second_loads_nothing() {
    let home = home();
    let data = home.path().join("data");
    let service =
        Service::start_with("", &[("XDG_DATA_HOME", &data.display().to_string()), ("LIPSTREAM_SESSIONS_LOAD", "50")]);
    let engines = service.send("GET", "/api/v1/engines", "", b"").1;
    assert!(engines.contains("\"mouth\"") && engines.contains("look_ahead_ms"), "{engines}");
    for id in ["one", "two"] {
        let spec = json!({"id": id, "graph": "avatar", "avatar": "demo", "engine": "mouth", "always_on": true});
        let create = || service.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
        // Until the server has measured what a session costs, one takes the whole machine.
        let full = Instant::now();
        let (mut status, mut text) = create();
        while status == 503 && full.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(200));
            (status, text) = create();
        }
        assert_eq!(status, 201, "{text}");
    }
    let speech = fs::read(root().join("demo/speech.flac")).unwrap();
    for id in ["one", "two"] {
        let (status, text) = service.send("POST", &format!("/api/v1/sessions/{id}/speak"), "audio/flac", &speech);
        assert!(status < 300, "{text}");
    }
    let start = Instant::now();
    for id in ["one", "two"] {
        loop {
            let state = service.session(id);
            if state["frames_spoken"].as_u64().or(state["frames"].as_u64()).is_some_and(|frames| frames > 50) {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{state}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let spec = json!({"id": "x", "graph": "avatar", "engine": "../mouth"});
    let (status, text) = service.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
    assert!(status == 422 && text.contains("there is no `../mouth`"), "{status} {text}");
}
