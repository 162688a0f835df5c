//! `lipstream eval` on pairs whose figures are known beforehand, and `lipstream detect` on files that are marked and not.

mod common;

use std::path::Path;

use common::{demo_audio, demo_video, fail, ffmpeg, lipstream, names, root, shared, succeed};
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
    for whole in ["closures", "closure_depth"] {
        assert!(number(&same, whole) > 0.95 && number(&same, "closure_count") >= 1.0, "{whole}: {same}");
    }
    for none in ["lmd", "flicker", "seam"] {
        assert!(number(&same, none).abs() < 1e-6, "{none}: {same}");
    }
    assert_eq!(number(&same, "psnr"), 100.0, "{same}");
    assert!(same.get("av_offset").is_none(), "there is no sound: {same}");
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
    assert!(number(&soft, "r") > 0.9, "{soft}");
}

#[test]
fn what_flickers_and_what_has_a_seam_is_found_so() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (noisy, patched) = (f.join("noisy.mp4"), f.join("patched.mp4"));
    let demo = demo_video();
    let encode = "-an -c:v libx264 -preset ultrafast -crf 6 -pix_fmt yuv420p -t 3";
    ffmpeg(&format!("-i {} -vf noise=c0s=12:c0f=t {encode}", demo.display()), &noisy);
    // A brighter box from under the nose to the chin.
    let brighter = "[0:v]split[a][b];[b]crop=190:122:550:355,lutyuv=y=val+18[c];[a][c]overlay=550:355";
    ffmpeg(&format!("-i {} -filter_complex {brighter} {encode}", demo.display()), &patched);
    let demo = demo.to_str().unwrap();
    let noisy = eval(f, &[noisy.to_str().unwrap(), "--true", demo]);
    let patched = eval(f, &[patched.to_str().unwrap(), "--true", demo]);
    assert!(number(&noisy, "flicker") > 4.0 && number(&noisy, "flicker_ratio") > 3.0, "{noisy}");
    assert!(number(&patched, "flicker") < 1.0, "{patched}");
    assert!(number(&patched, "seam") > 3.0 * number(&noisy, "seam"), "{patched} {noisy}");
}

#[test]
fn landmarks_and_a_sheet_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (points, sheet) = (f.join("points.csv"), f.join("sheet.png"));
    let demo = demo_video();
    let demo = demo.to_str().unwrap();
    let arguments = ["--points", points.to_str().unwrap(), "--sheet", sheet.to_str().unwrap(), "--true", demo];
    let figures = eval(f, &[&[demo], &arguments[..]].concat());
    let table = std::fs::read_to_string(points).unwrap();
    assert_eq!(table.lines().count(), number(&figures, "frames") as usize);
    let first: Vec<f64> = table.lines().next().unwrap().split(',').map(|v| v.parse().unwrap()).collect();
    assert_eq!(first.len(), 2 * 111);
    assert!(first.chunks(2).all(|p| (300.0..1000.0).contains(&p[0]) && (0.0..720.0).contains(&p[1])), "{first:?}");
    let png = std::fs::read(sheet).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    // Five columns of faces of 256 to 512 pixels, two lines of two rows, no curve without sound.
    let (width, height) = (side(16), side(20));
    assert!((5 * 256..=5 * 512).contains(&width) && height == width / 5 * 4, "{width}x{height}");
}

/// A second voice-over of five frames' delay is found five frames earlier.
#[test]
fn the_expert_finds_sound_and_lips_that_belong_together() {
    let Some(people) = shared("data/talking/val/grid_other") else { return };
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let clips: Vec<_> = names(&people).into_iter().filter(|n| n.ends_with(".mp4")).collect();
    let (mut own, mut ratios) = (Vec::new(), Vec::new());
    for (clip, next) in clips.iter().zip(clips.iter().cycle().skip(1)) {
        let (clip, next) = (people.join(clip), people.join(next));
        let (late, clip) = (f.join("late.wav"), clip.to_str().unwrap());
        ffmpeg(&format!("-i {clip} -af adelay=200:all=1"), &late);
        let with = |sound: &str| eval(f, &[clip, "--speech-of", clip, "--audio", sound]);
        let (same, late, other) = (with(clip), with(late.to_str().unwrap()), with(next.to_str().unwrap()));
        let offset = |figures: &Value| number(figures, "av_offset") as i32;
        assert!(offset(&same).abs() <= 1 && same["av_offset"] == same["true_av_offset"], "{clip}: {same}");
        assert!((offset(&late) - offset(&same) + 5).abs() <= 1, "{clip}: {late}");
        assert!((number(&same, "av_confidence_ratio") - 1.0).abs() < 0.05, "{clip}: {same}");
        own.push(number(&same, "av_confidence"));
        ratios.push(number(&other, "av_confidence_ratio"));
    }
    assert!(own.iter().all(|c| *c > 0.1), "{own:?}");
    assert!(ratios.iter().sum::<f64>() / (ratios.len() as f64) < 0.8, "{ratios:?}");
}

#[test]
fn the_expert_needs_two_seconds_of_sound() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (demo, speech, short) = (demo_video(), demo_audio(), f.join("short.wav"));
    ffmpeg(&format!("-i {} -t 1.9", speech.display()), &short);
    let demo = demo.to_str().unwrap();
    let heard = eval(f, &[demo, "--audio", speech.to_str().unwrap()]);
    assert!(number(&heard, "av_offset").abs() <= 15.0 && number(&heard, "av_confidence") >= 0.0, "{heard}");
    assert!(eval(f, &[demo, "--audio", short.to_str().unwrap()]).get("av_offset").is_none());
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
    let demo = demo_video();
    let refused = |option: &str, value: &str| fail(lipstream(f).arg("eval").arg(&demo).args([option, value]));
    let (code, stderr) = refused("--audio", "README.md");
    assert!(code == 3 && stderr.contains("README.md"), "{code} {stderr}");
    let (code, stderr) = refused("--expert", "compact");
    assert!(code == 4 && stderr.contains("`compact` is of the family `compact`"), "{code} {stderr}");
    let (code, stderr) = refused("--sheet", "/no/such/folder/sheet.png");
    assert!(code == 5 && stderr.contains("/no/such/folder/sheet.png"), "{code} {stderr}");
}

fn detect(folder: &Path, video: &Path, more: &[&str]) -> Value {
    let output = succeed(lipstream(folder).arg("detect").arg(video).arg("--json").args(more));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Encoded anew at 2 Mbit/s, without a tenth of the picture on each axis, at 75 % of its size.
#[test]
fn the_mark_of_a_render_is_found_after_encoding_scaling_and_cropping() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (demo, speech, marked) = (demo_video(), demo_audio(), f.join("marked.mp4"));
    let short = f.join("short.wav");
    ffmpeg(&format!("-i {} -t 6", speech.display()), &short);
    let mut command = lipstream(f);
    command.args(["render", "--quiet", "--no-gather", "--preset", "ultrafast", "--video"]).arg(&demo);
    succeed(command.arg("--audio").arg(&short).arg("-o").arg(&marked));
    let again = |from: &Path, name: &str| {
        let to = f.join(name);
        let filter = "crop=iw*0.9:ih*0.9:iw*0.07:ih*0.06,scale=864:486";
        ffmpeg(&format!("-i {} -an -t 6 -vf {filter} -c:v libx264 -preset veryfast -b:v 2M", from.display()), &to);
        to
    };
    let found = detect(f, &again(&marked, "again.mp4"), &[]);
    assert_eq!(found["verdict"], "marked", "{found}");
    assert!(number(&found, "false_alarm") < 1e-9 && number(&found, "marked_seconds") > 4.0, "{found}");
    assert_eq!(number(&found, "seconds"), 6.0, "{found}");
    let none = detect(f, &again(&demo, "plain.mp4"), &["--other-keys", "3"]);
    assert_eq!((&none["verdict"], none["marked"].as_array().unwrap().len()), (&"not-marked".into(), 0), "{none}");
    assert_eq!(none["other_keys"].as_array().unwrap().len(), 3, "{none}");
    assert!(number(&none, "score") < 6.0 && none["stretches"].as_array().unwrap().len() > 1, "{none}");
    let said = succeed(lipstream(f).arg("detect").arg(&marked)).stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("marked\n") && said.contains("found in     0.0-6.0 s"), "{said}");
}

#[test]
fn where_a_mark_cannot_be_told_it_is_said_why() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (empty, short, broken) = (f.join("empty.mp4"), f.join("short.mp4"), f.join("broken.mp4"));
    ffmpeg("-f lavfi -i color=c=gray:s=320x240:r=25 -t 1 -c:v libx264 -pix_fmt yuv420p", &empty);
    ffmpeg(&format!("-i {} -an -t 1 -c:v libx264 -preset ultrafast", demo_video().display()), &short);
    std::fs::write(&broken, [0; 5000]).unwrap();
    let cases = [
        (&empty, "empty.mp4: cannot tell whether it is marked: no face in the whole file"),
        (&short, "short.mp4: cannot tell whether it is marked: no face is seen for 2 seconds"),
        (&broken, "broken.mp4"),
    ];
    for (file, text) in cases {
        let (code, stderr) = fail(lipstream(f).arg("detect").arg(file));
        assert!(code == 3 && stderr.contains(text), "{code} {stderr}");
    }
    let output = lipstream(f).args(["detect", "--json"]).arg(&empty).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["verdict"], &said["reason"]), (&"cannot-tell".into(), &"no face in the whole file".into()));
    assert_eq!((&said["false_alarm"], &said["seconds"]), (&1.0.into(), &1.0.into()), "{said}");
}
