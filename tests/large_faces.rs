//! Faces that a picture shows with more pixels than the engine's least crop has: nothing of their detail may be lost.

mod common;

use std::path::{Path, PathBuf};

use common::*;
use serde_json::Value;

/// Two seconds of the demo avatar's head, 480 px tall, with a fine texture such as a beard has around its mouth.
fn bearded(folder: &Path) -> PathBuf {
    let (picture, video) = (folder.join("bearded.png"), folder.join("bearded.mp4"));
    // Around the mouth and not on the lips, fading out over 20 px.
    let ring = "clip((1-hypot((X-655)/150,(Y-525)/105))*6,0,1)*clip((hypot((X-655)/80,(Y-500)/42)-1)*6,0,1)";
    ffmpeg(
        &format!(
            "-i {} -filter_complex [0:v]crop=760:428:260:100,scale=1280:720:flags=lanczos,format=gbrp[face];\
             color=c=gray:s=1280x720,format=gray,geq=lum=255*random(1),gblur=sigma=1.0,format=gbrp[hair];\
             color=c=black:s=1280x720,format=gray,geq=lum='255*{ring}',format=gbrp[where];\
             [face]split[plain][under];[under][hair]blend=all_expr='clip(A+0.5*(B-128),0,255)'[covered];\
             [plain][covered][where]maskedmerge -frames:v 1",
            demo_video().display()
        ),
        &picture,
    );
    ffmpeg(
        &format!("-loop 1 -i {} -t 2 -r 25 -c:v libx264 -preset veryfast -crf 12 -pix_fmt yuv420p", picture.display()),
        &video,
    );
    video
}

fn json(command: &mut std::process::Command) -> Value {
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

/// What `eval` says of `video` made to say `audio`.
fn figures(video: &Path, audio: &Path, folder: &Path) -> Value {
    let out = folder.join("out.mp4");
    let summary = json(
        lipstream(folder)
            .args(["render", "--json", "-q", "--no-loop", "--preset", "ultrafast", "--crf", "10"])
            .arg("--video")
            .arg(video)
            .arg("--audio")
            .arg(audio)
            .arg("-o")
            .arg(&out),
    );
    assert_eq!(summary["stats"]["passed-through"], 0, "{summary}");
    json(lipstream(folder).args(["eval", "--json"]).arg(&out).arg("--true").arg(video))
}

#[test]
fn a_beard_on_a_large_face_stays_sharp_in_speech_and_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = bearded(f);
    let silence = f.join("silence.wav");
    ffmpeg("-f lavfi -i anullsrc=r=16000:cl=mono -t 2", &silence);
    for (audio, silent) in [(silence, true), (root().join("demo/speech.flac"), false)] {
        let figures = figures(&video, &audio, f);
        let figure = |name: &str| figures[name].as_f64().unwrap();
        // In speech the jaw moves on the head, which stands still: a seam of its own.
        let (sharp, seam, most) = (figure("sharpness_ratio"), figure("seam_ratio"), if silent { 1.15 } else { 1.3 });
        assert!((0.75..1.3).contains(&sharp) && seam <= most, "{}: {figures}", audio.display());
    }
}
