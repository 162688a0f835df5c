//! Real people, where their footage is at hand.

mod common;

use std::{path::Path, process::Command};

use common::*;
use serde_json::Value;

/// Every frame of a talking person gets a new mouth, from the voice of somebody else.
#[test]
fn every_frame_of_a_person_gets_a_mouth() {
    let Some(people) = shared("data/talking/val") else { return };
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let voice = people.join("free_retalking4.mp4");
    for video in ["free_latentsync2.mp4", "free_liveportrait_d20.mp4"] {
        let video = people.join(video);
        let out = f.join("out.mp4");
        let output = succeed(
            lipstream(f)
                .args(["render", "--json", "-q", "--no-loop", "--preset", "ultrafast", "--crf", "12"])
                .arg("--video")
                .arg(&video)
                .arg("--audio")
                .arg(&voice)
                .arg("-o")
                .arg(&out),
        );
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        let frames = summary["frames"].as_u64().unwrap();
        let untouched = summary["stats"]["passed-through"].as_u64().unwrap();
        assert!(untouched * 50 <= frames, "{}: {untouched} of {frames} frames untouched", video.display());
        // The head stays where it was; the mouth does not.
        let (before, after) = (Luma::of(&video, f), Luma::of(&out, f));
        let count = before.len().min(after.len());
        let top = (0..count).map(|i| after.difference(i, &before, i, (0.0, 0.0, 1.0, 0.12))).fold(0.0, f64::max);
        assert!(top < 2.5, "{}: the top changed by {top}", video.display());
        let changed = (0..count).filter(|i| after.difference(*i, &before, *i, (0.2, 0.3, 0.6, 0.6)) > top).count();
        assert!(changed * 2 > count, "{}: only {changed} of {count} frames changed", video.display());
    }
}

/// A video whose face turns up late is searched to its end before it is refused.
#[test]
fn a_face_that_comes_late_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (empty, late, audio) = (f.join("empty.mp4"), f.join("late.mp4"), f.join("tone.wav"));
    let encode = "-an -c:v libx264 -preset ultrafast -pix_fmt yuv420p -r 25 -g 50";
    ffmpeg(&format!("-f lavfi -i color=c=gray:s=1280x720:r=25 -t 18 {encode}"), &empty);
    ffmpeg(
        &format!(
            "-i {} -i {} -filter_complex [0:v][1:v]concat=n=2:v=1:a=0 {encode}",
            empty.display(),
            demo_video().display()
        ),
        &late,
    );
    ffmpeg("-f lavfi -i sine=f=200:d=0.4:r=16000", &audio);
    let out = f.join("out.mp4");
    succeed(
        lipstream(f)
            .args(["render", "-q", "--preset", "ultrafast"])
            .arg("--video")
            .arg(&late)
            .arg("--audio")
            .arg(&audio)
            .arg("-o")
            .arg(&out),
    );
    assert_eq!(probe(&out, "v").frames(), 10);
}

/// A summary of a render and what `eval` says of the result.
fn spoken(video: &Path, audio: &Path, folder: &Path) -> (Value, Value) {
    let out = folder.join("out.mp4");
    let run = |command: &mut Command| -> Value { serde_json::from_slice(&succeed(command).stdout).unwrap() };
    let mut render = lipstream(folder);
    render.args(["render", "--json", "-q", "--no-loop", "--preset", "ultrafast", "--crf", "10"]);
    let summary = run(render.arg("--video").arg(video).arg("--audio").arg(audio).arg("-o").arg(&out));
    (summary, run(lipstream(folder).args(["eval", "--json"]).arg(&out).arg("--true").arg(video)))
}

/// The picture ends below the mouth: all frames speak.
#[test]
fn a_person_without_a_chin_speaks() {
    let Some(data) = shared("data") else { return };
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = f.join("cut.mp4");
    let source = data.join("avatars/liveportrait_s18.mp4");
    ffmpeg(&format!("-i {} -t 2 -an -vf crop=1280:366:0:0 -c:v libx264 -crf 15", source.display()), &video);
    let (summary, figures) = spoken(&video, &data.join("speech/jfk_en.flac"), f);
    assert_eq!(summary["untouched"], serde_json::json!({}), "{summary}");
    let spread = figures["spread"].as_f64().unwrap();
    assert!(spread > 3.0, "her mouth hardly moves by itself, here it speaks: {figures}");
}

/// A bearded man, his picture enlarged to a face of 650 px, is as sharp and as seamless as he was filmed.
#[test]
fn a_beard_of_a_large_face_is_as_sharp_as_filmed() {
    let Some(data) = shared("data") else { return };
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (video, silence) = (f.join("large.mp4"), f.join("silence.wav"));
    let source = data.join("faces/liveportrait_d8.mp4");
    ffmpeg(&format!("-i {} -t 3 -an -vf scale=1080:1080:flags=lanczos -c:v libx264 -crf 12", source.display()), &video);
    ffmpeg("-f lavfi -i anullsrc=r=16000:cl=mono -t 3", &silence);
    for audio in [silence, data.join("speech/jfk_en.flac")] {
        let (_, figures) = spoken(&video, &audio, f);
        let figure = |name: &str| figures[name].as_f64().unwrap();
        let (sharp, seam) = (figure("sharpness_ratio"), figure("seam_ratio"));
        assert!((0.75..1.3).contains(&sharp) && seam <= 1.15, "{}: {figures}", audio.display());
    }
}
