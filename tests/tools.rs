//! What a newcomer types first: doctor, engines, gst-inspect, the line in the README, set-up.

mod common;

use std::{fs, process::Command};

use common::*;
use serde_json::Value;

const ELEMENTS: [&str; 5] = ["lipsync", "lipfacetrack", "lipaudioenc", "lipdenoise", "lipblend"];

fn stdout(output: std::process::Output) -> String {
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn doctor_finds_everything_after_set_up() {
    let folder = tempfile::tempdir().unwrap();
    let json: Value =
        serde_json::from_str(&stdout(succeed(lipstream(folder.path()).args(["doctor", "--json"])))).unwrap();
    let state = |what: &str| {
        let finding = json.as_array().unwrap().iter().find(|f| f["what"] == what);
        finding.unwrap_or_else(|| panic!("no {what} in {json}"))["state"].as_str().unwrap().to_owned()
    };
    for what in [
        "GStreamer",
        "GStreamer elements",
        "plugin lipstream",
        "ONNX Runtime",
        "device cpu",
        "engine compact",
        "engine expert",
        "engine tracker",
    ] {
        assert_eq!(state(what), "found", "{what}");
    }
}

#[test]
fn doctor_says_how_to_get_a_missing_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let output = lipstream(folder.path()).arg("doctor").env("LIPSTREAM_ORT_LIB", "/no/such/folder").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(output);
    let line = text.lines().find(|l| l.contains("ONNX Runtime")).unwrap();
    assert!(line.starts_with("MISSING") && line.contains("make setup"), "{text}");
}

#[test]
fn engines_lists_licence_and_cost() {
    let folder = tempfile::tempdir().unwrap();
    let json: Value =
        serde_json::from_str(&stdout(succeed(lipstream(folder.path()).args(["engines", "--json"])))).unwrap();
    let compact = json.as_array().unwrap().iter().find(|e| e["name"] == "compact").unwrap();
    assert_eq!(compact["location"], "embedded");
    assert!(compact["gflop_per_frame"].as_f64().unwrap() > 0.0 && compact["bytes"].as_u64().unwrap() > 1000);
    let stages = compact["gflop_by_stage"].as_object().unwrap();
    assert!(["front_end", "step", "refine"].iter().all(|stage| stages[*stage].as_f64().unwrap() > 0.0), "{compact}");
    assert_eq!(compact["step_passes"], 2);
    assert!(!compact["licence"].as_str().unwrap().is_empty());
    assert!(compact.get("error").is_none(), "{compact}");
    let text = stdout(succeed(lipstream(folder.path()).arg("engines")));
    assert!(
        text.contains("compact") && text.contains("GFLOP a frame") && text.contains("step 0.0010 x 2 GFLOP"),
        "{text}"
    );
}

#[test]
fn each_element_documents_itself() {
    let folder = tempfile::tempdir().unwrap();
    for element in ELEMENTS {
        let text = stdout(succeed(gst_tool("gst-inspect-1.0", folder.path()).arg(element)));
        for part in ["Long-name", "Description", "Pad Templates", "Element Properties"] {
            assert!(text.contains(part), "{element}: no {part}");
        }
    }
    let bin = stdout(succeed(gst_tool("gst-inspect-1.0", folder.path()).arg("lipsync")));
    for name in ["video_sink", "audio_sink", "video_src", "audio_src", "engine", "device", "steps", "stats"] {
        assert!(bin.contains(name), "lipsync: no {name}");
    }
}

#[test]
fn the_line_in_the_readme_runs_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let start = readme.find("gst-launch-1.0 lipsync").expect("the README has a gst-launch line");
    let block = readme[start..].split("```").next().unwrap().replace("\\\n", " ");
    let (video, audio, out) = (f.join("V.mp4"), f.join("A.flac"), f.join("OUT.mp4"));
    ffmpeg(&format!("-i {} -an -t 2 -c:v libx264 -preset ultrafast", demo_video().display()), &video);
    ffmpeg(&format!("-i {} -t 2", demo_audio().display()), &audio);
    let line = block
        .replace("demo/avatar.mp4", &video.display().to_string())
        .replace("demo/speech.flac", &audio.display().to_string())
        .replace("location=out.mp4", &format!("location={}", out.display()));
    assert!(line.contains("OUT.mp4"), "{line}");
    succeed(gst_tool("sh", f).arg("-c").arg(line.trim()));
    assert!(probe(&out, "v").frames() >= 48);
    assert!((probe(&out, "v").end() - probe(&out, "a").end()).abs() < 0.1);
}

#[test]
fn set_up_has_nothing_to_do_the_second_time() {
    if !root().join(".lipstream/ort/sha256").is_file() {
        eprintln!("skipped: `make setup` has not been run here");
        return;
    }
    let text = stdout(succeed(Command::new("scripts/setup.sh").current_dir(root())));
    assert!(text.contains("Debian packages: all there") || text.contains("no Debian system"), "{text}");
    assert!(text.contains("ONNX Runtime 1.24.1: there"), "{text}");
}
