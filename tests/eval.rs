//! `lipstream eval` on pairs whose figures are known beforehand.

mod common;

use std::path::Path;

use common::{demo_video, fail, ffmpeg, lipstream, root, succeed};
use serde_json::Value;

fn eval(folder: &Path, arguments: &[&str]) -> Value {
    let output = succeed(lipstream(folder).arg("eval").args(arguments).arg("--json"));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("no {name} in {figures}"))
}

#[test]
fn a_video_is_its_own_truth() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo_video();
    let demo = demo.to_str().unwrap();
    let same = eval(folder.path(), &[demo, "--true", demo]);
    assert_eq!(same["lag"], 0, "{same}");
    assert!(number(&same, "faces") > 0.99 && number(&same, "r") > 0.9999, "{same}");
    for ratio in ["spread", "sharpness_ratio", "flicker_ratio", "seam_ratio", "ssim"] {
        assert!((number(&same, ratio) - 1.0).abs() < 1e-6, "{ratio}: {same}");
    }
    assert!(number(&same, "lmd") < 1e-6 && number(&same, "psnr") == 100.0, "{same}");
}

#[test]
fn what_is_late_and_blurred_is_found_so() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (late, soft) = (f.join("late.mp4"), f.join("soft.mp4"));
    let encode = "-an -c:v libx264 -preset ultrafast -crf 10 -pix_fmt yuv420p";
    let demo = demo_video();
    let input = demo.display();
    ffmpeg(&format!("-i {input} -vf tpad=start=5:start_mode=clone {encode}"), &late);
    ffmpeg(&format!("-i {input} -vf gblur=sigma=3 {encode}"), &soft);
    let demo = demo.to_str().unwrap();
    let late = eval(f, &[late.to_str().unwrap(), "--speech-of", demo]);
    assert!(late["lag"] == 5 && number(&late, "r_best") > 0.98, "{late}");
    assert!(number(&late, "r") < number(&late, "r_best"), "{late}");
    let soft = eval(f, &[soft.to_str().unwrap(), "--true", demo]);
    assert!(number(&soft, "sharpness_ratio") < 0.5 && number(&soft, "ssim") < 0.98, "{soft}");
    assert!(number(&soft, "r") > 0.9 && number(&soft, "seam_ratio") < 0.9, "{soft}");
}

#[test]
fn what_cannot_be_measured_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let empty = f.join("empty.mp4");
    ffmpeg("-f lavfi -i color=c=gray:s=320x240:r=25 -t 1 -c:v libx264 -pix_fmt yuv420p", &empty);
    let (code, stderr) = fail(lipstream(f).arg("eval").arg(&empty));
    assert!(code == 3 && stderr.contains("empty.mp4: no face in the whole file"), "{code} {stderr}");
    let (code, stderr) = fail(lipstream(f).arg("eval").arg(root().join("README.md")));
    assert!(code == 3 && stderr.contains("README.md"), "{code} {stderr}");
}
