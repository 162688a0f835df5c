//! Real people, where their footage is at hand.

mod common;

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
