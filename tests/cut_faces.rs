//! Faces that the picture's edge cuts: the lips move as far as they are seen, and what cannot be done is said once, truly.

mod common;

use std::path::Path;

use common::*;
use serde_json::Value;

/// The demo avatar through `filter`; her lips are at (655, 392) of 1280 x 720, her chin at y = 470.
fn filmed(filter: &str, seconds: u32, out: &Path) {
    ffmpeg(
        &format!(
            "-i {} -t {seconds} -an -vf {filter} -c:v libx264 -preset veryfast -crf 12 -pix_fmt yuv420p",
            demo_video().display()
        ),
        out,
    );
}

/// The summary of a render to `out` and what was said on stderr.
fn rendered(video: &Path, out: &Path, folder: &Path) -> (Value, String) {
    let output = succeed(
        lipstream(folder)
            .args(["render", "--json", "-q", "--no-loop", "--preset", "ultrafast", "--crf", "12"])
            .arg("--video")
            .arg(video)
            .arg("--audio")
            .arg(root().join("demo/speech.flac"))
            .arg("-o")
            .arg(out),
    );
    (serde_json::from_slice(&output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Frames that keep their own mouth, in all and by reason, and the warning about them.
fn untouched(summary: &Value) -> (u64, Vec<&str>, Option<&str>) {
    let counts = summary["untouched"].as_object().unwrap();
    let notices: Vec<_> = summary["notices"].as_array().unwrap().iter().filter(|n| n["kind"] == "untouched").collect();
    assert!(notices.len() <= 1 && notices.iter().all(|n| n["warning"] == true), "{summary}");
    let total = counts.values().map(|n| n.as_u64().unwrap()).sum();
    (total, counts.keys().map(String::as_str).collect(), notices.first().and_then(|n| n["text"].as_str()))
}

/// Mean difference of two videos in a part of the picture, of the frames where it is largest.
fn changed(a: &Path, b: &Path, area: (f64, f64, f64, f64), folder: &Path) -> f64 {
    let (a, b) = (Luma::of(a, folder), Luma::of(b, folder));
    (0..a.len().min(b.len())).map(|i| a.difference(i, &b, i, area)).fold(0.0, f64::max)
}

#[test]
fn a_mouth_moves_where_the_chin_or_a_cheek_is_outside_and_nothing_is_complained_of() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (video, out) = (f.join("cut.mp4"), f.join("out.mp4"));
    for (crop, lips, brow) in [
        ("crop=1280:430:0:0", (0.45, 0.82, 0.12, 0.17), (0.4, 0.4, 0.2, 0.1)),
        ("crop=756:720:0:0", (0.77, 0.49, 0.19, 0.11), (0.7, 0.2, 0.3, 0.1)),
    ] {
        filmed(crop, 2, &video);
        let (summary, said) = rendered(&video, &out, f);
        assert_eq!(untouched(&summary), (0, vec![], None), "{crop}");
        assert!(!said.contains("keep their own mouth") && !said.contains("more than one"), "{said}");
        let (lips, brow) = (changed(&out, &video, lips, f), changed(&out, &video, brow, f));
        assert!(lips > 4.0 && lips > 3.0 * brow, "{crop}: lips {lips}, brow {brow}");
    }
}

#[test]
fn frames_that_cannot_be_spoken_are_counted_and_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (video, out) = (f.join("cut.mp4"), f.join("out.mp4"));
    // From 0.8 s to 2.2 s the picture is of what is beside her.
    filmed("crop=460:720:'if(between(t,0.8,2.2),820,425)':0", 3, &video);
    let (summary, said) = rendered(&video, &out, f);
    let frames = summary["frames"].as_u64().unwrap();
    let (count, reasons, warning) = untouched(&summary);
    assert!((30..=45).contains(&count) && frames == 75, "{count} of {frames}");
    assert!(reasons.contains(&"no-face"), "{reasons:?}");
    let warning = warning.expect("a warning");
    let share = format!("{count} of {frames} frames ({:.0} %) keep their own mouth: ", count as f64 / 0.75);
    assert!(warning.starts_with(video.to_str().unwrap()) && warning.contains(&share), "{warning}");
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert_eq!(summary["stats"]["untouched"]["no-face"], summary["untouched"]["no-face"]);

    // Half of the face and of the mouth, all the time.
    filmed("crop=655:720:0:0", 2, &video);
    let (summary, said) = rendered(&video, &out, f);
    let (count, reasons, warning) = untouched(&summary);
    assert!(count == 50 && warning.unwrap().contains("50 of 50 frames (100 %)"), "{summary}");
    assert!(reasons.contains(&"cut-off"), "{reasons:?}");
    assert!(said.contains("the picture's edge cuts off the mouth") && !said.contains("more than one"), "{said}");
    assert!(changed(&out, &video, (0.0, 0.0, 1.0, 1.0), f) < 3.0, "they are left as they are");
}
