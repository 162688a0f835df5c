//! What the program says and returns when it cannot do what it is asked, and that it leaves nothing half-written.

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use common::*;

/// Renders and expects one line on standard error that holds `says`.
#[track_caller]
fn refused(folder: &Path, video: &Path, audio: &Path, out: &Path, more: &[&str], code: i32, says: &str) {
    let mut command = lipstream(folder);
    command.arg("render").arg("--video").arg(video).arg("--audio").arg(audio).arg("-o").arg(out).args(more).arg("-q");
    let (found, stderr) = fail(&mut command);
    assert_eq!(found, code, "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("lipstream: ") && stderr.contains(says), "{stderr}");
}

/// A short video without a face, a short sound, and the name of an output.
struct Inputs {
    folder: tempfile::TempDir,
    video: std::path::PathBuf,
    audio: std::path::PathBuf,
    out: std::path::PathBuf,
}

fn inputs() -> Inputs {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (video, audio, out) = (at("video.mp4"), at("audio.wav"), at("out/result.mp4"));
    fs::create_dir(at("out")).unwrap();
    ffmpeg("-f lavfi -i testsrc=s=320x240:r=25:d=1 -pix_fmt yuv420p -c:v libx264 -preset ultrafast", &video);
    ffmpeg("-f lavfi -i sine=f=220:r=16000:d=1", &audio);
    Inputs { video, audio, out, folder }
}

#[test]
fn a_missing_file_is_named() {
    let i = inputs();
    let missing = i.folder.path().join("nowhere.mp4");
    refused(i.folder.path(), &missing, &i.audio, &i.out, &[], 3, "nowhere.mp4: no such file");
    refused(i.folder.path(), &i.video, &missing, &i.out, &[], 3, "nowhere.mp4: no such file");
    refused(i.folder.path(), i.folder.path(), &i.audio, &i.out, &[], 3, "is a folder");
}

#[test]
fn a_file_without_the_stream_is_refused() {
    let i = inputs();
    refused(i.folder.path(), &i.audio, &i.audio, &i.out, &[], 3, "audio.wav: no video in this file");
    refused(i.folder.path(), &i.video, &i.video, &i.out, &[], 3, "video.mp4: no audio in this file");
}

#[test]
fn a_file_that_is_no_media_is_refused() {
    let i = inputs();
    let text = i.folder.path().join("text.mp4");
    fs::write(&text, "These are words, not pictures.\n".repeat(100)).unwrap();
    refused(i.folder.path(), &text, &i.audio, &i.out, &[], 3, "text.mp4: ");
    fs::write(&text, []).unwrap();
    refused(i.folder.path(), &text, &i.audio, &i.out, &[], 3, "text.mp4: is empty");
}

#[test]
fn a_video_without_a_face_is_refused_and_leaves_nothing() {
    let i = inputs();
    refused(i.folder.path(), &i.video, &i.audio, &i.out, &[], 3, "video.mp4: no face in the whole file");
    assert!(names(&i.folder.path().join("out")).is_empty());
}

#[test]
fn an_output_that_exists_survives_a_failed_render() {
    let i = inputs();
    fs::write(&i.out, "precious").unwrap();
    refused(i.folder.path(), &i.video, &i.audio, &i.out, &[], 3, "no face");
    assert_eq!(fs::read_to_string(&i.out).unwrap(), "precious");
    assert_eq!(names(&i.folder.path().join("out")), ["result.mp4"]);
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_the_work() {
    let i = inputs();
    let nowhere = i.folder.path().join("no/such/folder/out.mp4");
    refused(i.folder.path(), &i.video, &i.audio, &nowhere, &[], 5, "out.mp4: cannot be written");
    let folder = i.folder.path().join("folder.mp4");
    fs::create_dir(&folder).unwrap();
    refused(i.folder.path(), &i.video, &i.audio, &folder, &[], 5, "is a folder");
    let locked = i.folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    // Permissions do not bind root.
    if fs::write(locked.join("probe"), []).is_err() {
        refused(i.folder.path(), &i.video, &i.audio, &locked.join("out.mp4"), &[], 5, "cannot be written");
    }
}

#[test]
fn an_output_that_is_an_input_is_refused() {
    let i = inputs();
    refused(i.folder.path(), &i.video, &i.audio, &i.video, &[], 2, "the output is one of the inputs");
}

#[test]
fn a_container_or_codec_that_is_not_offered_is_refused() {
    let i = inputs();
    refused(i.folder.path(), &i.video, &i.audio, Path::new("out.xyz"), &[], 2, "must end in .mp4");
    refused(i.folder.path(), &i.video, &i.audio, &i.out, &["--audio-codec", "pcm"], 2, "MP4 cannot hold pcm audio");
}

#[test]
fn an_unknown_engine_is_refused() {
    let i = inputs();
    refused(i.folder.path(), &i.video, &i.audio, &i.out, &["--engine", "nonesuch"], 4, "engine `nonesuch`");
}

#[test]
fn a_broken_engine_is_refused_with_the_key() {
    let i = inputs();
    let engine = i.folder.path().join("engine");
    fs::create_dir(&engine).unwrap();
    for entry in fs::read_dir(root().join("engines/models/compact")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), engine.join(entry.file_name())).unwrap();
        }
    }
    let flag = ["--engine", engine.to_str().unwrap()];
    let model = fs::read(engine.join("motion.onnx")).unwrap();
    fs::write(engine.join("motion.onnx"), &model[..model.len() / 2]).unwrap();
    refused(i.folder.path(), &i.video, &i.audio, &i.out, &flag, 4, "motion.onnx");
    fs::remove_file(engine.join("motion.onnx")).unwrap();
    refused(i.folder.path(), &i.video, &i.audio, &i.out, &flag, 4, "motion.onnx");
    fs::write(engine.join("engine.toml"), "name = \"x\"\n").unwrap();
    refused(i.folder.path(), &i.video, &i.audio, &i.out, &flag, 4, "engine.toml: ");
    assert!(names(&i.folder.path().join("out")).is_empty());
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_no_fallback() {
    let i = inputs();
    let mut command = lipstream(i.folder.path());
    command.args(["render", "-q", "--device", "cuda:63"]).arg("--video").arg(&i.video);
    command.arg("--audio").arg(&i.audio).arg("-o").arg(&i.out);
    let (code, stderr) = fail(&mut command);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("cuda:63"), "{stderr}");
    assert!(names(&i.folder.path().join("out")).is_empty());
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["render"][..],
        &["render", "--video", "a", "--audio", "b", "-o", "c.mp4", "--steps", "51"],
        &["render", "--video", "a", "--audio", "b", "-o", "c.mp4", "--device", "gpu"],
        &["nonsense"],
    ] {
        let (code, stderr) = fail(lipstream(folder.path()).args(arguments));
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
    }
}
