//! `lipstream adapt` on the demo: what it makes is an engine, and works as one.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{demo_audio, demo_video, fail, ffmpeg, lipstream, root, succeed};
use serde_json::Value;

/// The demo avatar made to say the demo speech: a person whose every motion the engine can explain.
fn talking(folder: &Path) -> PathBuf {
    let out = folder.join("talking.mkv");
    let (video, audio) = (demo_video(), demo_audio());
    let files = [("--video", &video), ("--audio", &audio), ("-o", &out)];
    succeed(lipstream(folder).args(["render", "-q"]).args(files.iter().flat_map(|(o, f)| [o, f.to_str().unwrap()])));
    out
}

fn adapt(folder: &Path, video: &Path, more: &[&str]) -> Value {
    let out = folder.join("anna.engine");
    let output =
        succeed(lipstream(folder).args(["adapt", "-q", "--json", "--video"]).arg(video).arg("-o").arg(out).args(more));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn render(folder: &Path, engine: &str) -> (i32, String) {
    let out = folder.join("out.mp4");
    let output = lipstream(folder)
        .args(["render", "-q", "--json", "--no-loop", "--engine", engine, "--video"])
        .arg(demo_video())
        .arg("--audio")
        .arg(demo_audio())
        .arg("-o")
        .arg(out)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn what_comes_out_is_an_engine_with_the_persons_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let summary = adapt(f, &demo_video(), &["--references", "20"]);
    let references = summary["references"].as_u64().unwrap();
    assert!((4..=20).contains(&references) && summary["faces"].as_u64().unwrap() > 100, "{summary}");
    // It has no sound.
    assert!(summary["range"].is_null() && summary["why_not"] == "there is no sound", "{summary}");
    let engine = f.join("anna.engine");
    let names: Vec<_> = common::names(f).into_iter().filter(|n| n.contains("anna")).collect();
    assert_eq!(names, ["anna.engine"], "something is left over");
    let (code, text) = render(f, engine.to_str().unwrap());
    assert_eq!(code, 0, "{text}");
    let rendered: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rendered["engine"], "anna");
    // No look at the video beforehand: all pictures are the engine's.
    assert!(!f.join("cache/lipstream/banks").exists());
    let denoise = rendered["stats"].to_string();
    assert!(denoise.contains(&format!("\"references\":{references}")), "{denoise}");
}

#[test]
fn the_offset_of_the_sound_is_found_and_the_range_fitted() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (talking, late) = (talking(f), f.join("late.mkv"));
    ffmpeg(&format!("-itsoffset 0.2 -i {0} -i {0} -map 0:v -map 1:a -c copy", talking.display()), &late);
    let mut offsets = Vec::new();
    for video in [&talking, &late] {
        let summary = adapt(f, video, &[]);
        let number = |key: &str| summary[key].as_f64().unwrap();
        assert!(number("pairs") >= 200.0 && summary["offset"]["r"].as_f64().unwrap() > 0.6, "{summary}");
        offsets.push(summary["offset"]["milliseconds"].as_i64().unwrap());
        // Never kept where it does worse on what it has not seen.
        let figure = |of: &str, what: &str| summary[of][what].as_f64().unwrap();
        if summary["range"].is_number() {
            assert!(figure("after", "lips") < figure("before", "lips"), "{summary}");
        } else {
            assert!(summary["why_not"].is_string(), "{summary}");
        }
        let ranged = f.join("anna.engine/person.safetensors").is_file();
        assert_eq!(ranged, summary["range"].is_number(), "{summary}");
    }
    assert!(offsets[0].abs() <= 40 && (offsets[1] - offsets[0] - 200).abs() <= 40, "{offsets:?}");
}

#[test]
fn a_damaged_engine_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    adapt(f, &demo_video(), &[]);
    let engine = f.join("anna.engine");
    let bank = engine.join("bank.safetensors");
    let mut bytes = fs::read(&bank).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&bank, bytes).unwrap();
    let (code, text) = render(f, engine.to_str().unwrap());
    assert!(code == 4 && text.contains("bank.safetensors (anna): sha256"), "{code} {text}");
    fs::remove_file(bank).unwrap();
    let (code, text) = render(f, engine.to_str().unwrap());
    assert!(code == 4 && text.contains("bank.safetensors"), "{code} {text}");
}

#[test]
fn what_cannot_be_adapted_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let demo = demo_video();
    let refused = |video: &Path, out: &Path, more: &[&str]| {
        fail(lipstream(f).args(["adapt", "-q", "--video"]).arg(video).arg("-o").arg(out).args(more))
    };
    let out = f.join("x.engine");
    let (empty, short, two) = (f.join("empty.mp4"), f.join("short.mp4"), f.join("two.mp4"));
    let encode = "-an -c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    ffmpeg(&format!("-f lavfi -i color=c=gray:s=320x240:r=25 -t 3 {encode}"), &empty);
    ffmpeg(&format!("-i {} -t 1 {encode}", demo.display()), &short);
    ffmpeg(&format!("-i {} -t 3 -vf split[a][b];[a][b]hstack {encode}", demo.display()), &two);
    for (video, code, cause) in [
        (&empty, 3, "no face was found; film the person from the front"),
        (&short, 3, "frames; two seconds are the least"),
        (&two, 3, "several people are seen; cut a part with one person alone"),
        (&root().join("README.md"), 3, "README.md"),
    ] {
        let (found, stderr) = refused(video, &out, &[]);
        assert!(found == code && stderr.contains(cause), "{}: {found} {stderr}", video.display());
        assert!(!out.exists());
    }
    let (code, stderr) = refused(&demo, &out, &["--engine", "tracker"]);
    assert!(code == 2 && stderr.contains("family `tracker`"), "{code} {stderr}");
    let taken = f.join("mine");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("letter.txt"), "dear").unwrap();
    let (code, stderr) = refused(&demo, &taken, &[]);
    assert!(code == 5 && stderr.contains("no engine; name another folder"), "{code} {stderr}");
    assert!(taken.join("letter.txt").is_file());
    adapt(f, &demo, &["--references", "4"]);
    let adapted = f.join("anna.engine");
    let (code, stderr) = refused(&demo, &out, &["--engine", adapted.to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("adapted to somebody already"), "{code} {stderr}");
}
