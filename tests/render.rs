//! `lipstream render` from file to file, judged by ffmpeg.

mod common;
#[path = "../engines/tests/common/windowed.rs"]
mod windowed;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::*;
use serde_json::Value;

/// One frame at 25 frames a second.
const FRAME: f64 = 0.04;

#[track_caller]
fn render(folder: &Path, video: &Path, audio: &Path, out: &Path, more: &[&str]) -> Value {
    let mut command = lipstream(folder);
    command.args(["render", "--json", "--preset", "ultrafast"]).args(more);
    command.arg("--video").arg(video).arg("--audio").arg(audio).arg("-o").arg(out);
    let output = succeed(&mut command);
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// A tone of so many seconds.
fn tone(seconds: f64, rate: u32, folder: &Path, name: &str) -> PathBuf {
    let out = folder.join(name);
    ffmpeg(&format!("-f lavfi -i anoisesrc=r={rate}:d={seconds}:seed=7:a=0.3"), &out);
    out
}

#[track_caller]
fn starts_and_ends_together(out: &Path, frame: f64) {
    let (video, audio) = (probe(out, "v"), probe(out, "a"));
    assert!(video.number("start_time").abs() < 1e-3, "video starts at {}", video.number("start_time"));
    assert!(audio.number("start_time").abs() < 1e-3, "audio starts at {}", audio.number("start_time"));
    assert!((video.end() - audio.end()).abs() <= frame, "video ends at {}, audio at {}", video.end(), audio.end());
}

#[test]
fn the_lips_move_with_the_speech_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (video, speech, silence) = (f.join("video.mp4"), f.join("speech.wav"), f.join("silence.wav"));
    ffmpeg(&format!("-i {} -an -t 3 -c:v libx264 -preset ultrafast -crf 10", demo_video().display()), &video);
    ffmpeg(&format!("-i {} -t 3", demo_audio().display()), &speech);
    ffmpeg("-f lavfi -i anullsrc=r=16000:cl=mono -t 3", &silence);
    let (spoken, silent) = (f.join("spoken.mp4"), f.join("silent.mp4"));
    let summary = render(f, &video, &speech, &spoken, &["--crf", "10"]);
    render(f, &video, &silence, &silent, &["--crf", "10"]);
    starts_and_ends_together(&spoken, FRAME);
    assert_eq!(summary["frames"], 75);
    assert!((summary["seconds"].as_f64().unwrap() - 3.0).abs() < 0.01);
    assert!(summary["device"].is_string() && summary["stats"].is_object(), "{summary}");

    let (source, spoken, silent) = (Luma::of(&video, f), Luma::of(&spoken, f), Luma::of(&silent, f));
    assert_eq!(spoken.len(), 75);
    // The upper third holds hair, forehead and background; somewhere below, the mouth differs between the two.
    let upper = (0..75).map(|i| spoken.difference(i, &source, i, (0.0, 0.0, 1.0, 0.2))).fold(0.0, f64::max);
    assert!(upper < 1.5, "the top of the picture changed by {upper}");
    let moved = (0..75).map(|i| largest_block_difference(&spoken, &silent, i)).fold(0.0, f64::max);
    assert!(moved > 12.0, "speech and silence look the same: {moved}");
}

#[test]
fn an_enhanced_face_is_crisper_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (video, speech) = (f.join("video.mp4"), f.join("speech.wav"));
    // Soft, so that there is something to gain.
    ffmpeg(
        &format!("-i {} -an -t 1 -vf gblur=sigma=1 -c:v libx264 -preset ultrafast -crf 10", demo_video().display()),
        &video,
    );
    ffmpeg(&format!("-i {} -t 1", demo_audio().display()), &speech);
    let rendered = |name: &str, more: &[&str]| {
        let out = f.join(name);
        render(f, &video, &speech, &out, &[&["--no-gather", "--crf", "6"], more].concat());
        Luma::of(&out, f)
    };
    let plain = rendered("plain.mp4", &[]);
    let sharp = rendered("sharp.mp4", &["--enhance", "sharpen", "--enhance-strength", "1", "--mouth-protection", "0"]);
    assert_eq!(sharp.len(), plain.len());
    let last = plain.len() - 1;
    let most = largest_block_difference(&plain, &sharp, last);
    assert!(most > 1.5, "the face is as it was: {most}");
    let corner = sharp.difference(last, &plain, last, (0.0, 0.0, 0.1, 0.1));
    assert!(corner < 0.5, "the corner changed by {corner}");

    // Enlarged, the face is worked on at the size of the output, and the picture is the same.
    let large = f.join("large.mp4");
    let more =
        ["--no-gather", "--crf", "6", "--enhance", "sharpen", "--enhance-strength", "1", "--face-upscale", "1.5"];
    render(f, &video, &speech, &large, &more);
    assert_eq!((probe(&large, "v").number("width"), probe(&large, "v").number("height")), (1920.0, 1080.0));
    let back = f.join("back.mp4");
    ffmpeg(
        &format!("-i {} -vf scale=1280:720:flags=area -c:v libx264 -preset ultrafast -crf 6", large.display()),
        &back,
    );
    let back = Luma::of(&back, f);
    let [corner, most] =
        [back.difference(last, &plain, last, (0.0, 0.0, 0.1, 0.1)), largest_block_difference(&plain, &back, last)];
    assert!(corner < 1.5 && most > 1.0, "the corner changed by {corner}, the face by {most}");
}

#[test]
fn two_voices_move_two_faces_and_are_heard_together() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (video, speech, silence) = (f.join("video.mp4"), f.join("speech.wav"), f.join("silence.wav"));
    let beside = "-an -t 1.6 -vf scale=640:-2,split[a][b];[a][b]hstack -c:v libx264 -preset ultrafast -crf 10";
    ffmpeg(&format!("-i {} {beside}", demo_video().display()), &video);
    ffmpeg(&format!("-i {} -t 2.5 -ar 44100", demo_audio().display()), &speech);
    ffmpeg("-f lavfi -i anullsrc=r=16000:cl=mono -t 1.6", &silence);
    let out = f.join("out.mp4");
    let rendered = |second: &Path| {
        let second = second.display().to_string();
        let voices = ["--speaker", "left", "--audio-b", second.as_str(), "--speaker-b", "right", "--crf", "10"];
        let summary = render(f, &video, &silence, &out, &voices);
        assert_eq!((&summary["frames"], &summary["audio_rate"]), (&Value::from(40), &Value::from(16_000)), "{summary}");
        starts_and_ends_together(&out, FRAME);
        let loudest =
            samples_by_ffmpeg(&out, f).chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]]).unsigned_abs()).max();
        (Luma::of(&out, f), loudest.unwrap_or(0))
    };
    let ((spoken, loud), (silent, quiet)) = (rendered(&speech), rendered(&silence));
    assert!(loud > 1000 && quiet < 10, "the second voice is heard: {loud}, {quiet}");
    let most = |x: f64| {
        let mouth = |i| spoken.difference(i, &silent, i, (x + 0.22, 0.5, 0.06, 0.1));
        (10..40).map(mouth).fold(0.0, f64::max)
    };
    let (left, right) = (most(0.0), most(0.5));
    // The codec leaves a code or so on the left.
    assert!(right > 6.0 && left < 2.0, "the second voice moves the right mouth: {left}, {right}");
}

/// Largest mean difference of any block of 1/20 of the width within the middle of the picture.
fn largest_block_difference(a: &Luma, b: &Luma, frame: usize) -> f64 {
    let mut largest: f64 = 0.0;
    for x in 6..14 {
        for y in 4..19 {
            let rect = (f64::from(x) / 20.0, f64::from(y) / 20.0, 0.05, 0.05);
            largest = largest.max(a.difference(frame, b, frame, rect));
        }
    }
    largest
}

#[test]
fn audio_longer_than_video_plays_the_video_forward_and_backward() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(20, f, "video.mp4");
    let out = f.join("out.mp4");
    let summary = render(f, &video, &tone(2.2, 16_000, f, "tone.wav"), &out, &["--crf", "10"]);
    assert_eq!(summary["frames"], 55);
    starts_and_ends_together(&out, FRAME);
    let wanted: Vec<usize> = (0..20).chain((0..19).rev()).chain(1..17).collect();
    assert_eq!(marks(&out, f), wanted);
}

#[test]
fn a_file_that_cannot_seek_is_looped_too() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let marked = marked(12, f, "video.mp4");
    let video = f.join("video.h264");
    ffmpeg(&format!("-i {} -c copy -bsf:v h264_mp4toannexb", marked.display()), &video);
    let out = f.join("out.mkv");
    render(f, &video, &tone(1.0, 16_000, f, "tone.wav"), &out, &["--crf", "10"]);
    let wanted: Vec<usize> = (0..12).chain((0..11).rev()).chain(1..3).collect();
    assert_eq!(marks(&out, f), wanted);
}

#[test]
fn without_looping_the_output_ends_with_the_video() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(20, f, "video.mp4");
    let out = f.join("out.mkv");
    let summary = render(f, &video, &tone(2.2, 44_100, f, "tone.wav"), &out, &["--no-loop", "--crf", "10"]);
    assert_eq!(marks(&out, f), (0..20).collect::<Vec<_>>());
    assert_eq!(summary["audio_samples"], 35_280, "0.8 s at 44100 Hz");
    assert_eq!(samples_by_ffmpeg(&out, f).len(), 35_280 * 2);
}

#[test]
fn a_render_hears_seconds_ahead_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    windowed::engine(&f.join("engine"), (400, 75), 6640);
    let engine = f.join("engine").display().to_string();
    let more = ["--engine", &engine, "--no-gather", "--crf", "10"];
    // Sound that is longer than what is heard ahead and than elements hold of it, of a video without a face, which is played again and again; then
    // one that is shorter.
    let video = marked(20, f, "marked.mp4");
    for (name, seconds) in [("long.mp4", 22.0), ("short.mp4", 0.4)] {
        let out = f.join(name);
        render(f, &video, &tone(seconds, 48_000, f, "tone.wav"), &out, &more);
        let there_and_back = (0..20).chain((1..19).rev()).cycle();
        assert_eq!(marks(&out, f), there_and_back.take((seconds * 25.0) as usize).collect::<Vec<_>>(), "{name}");
        starts_and_ends_together(&out, FRAME);
    }
    // The video ends the output, whose sound was heard for seconds more.
    let out = f.join("cut.mkv");
    let sound = tone(9.0, 44_100, f, "tone.wav");
    let summary = render(f, &video, &sound, &out, &[&more[..], &["--no-loop"]].concat());
    assert_eq!(marks(&out, f), (0..20).collect::<Vec<_>>());
    assert_eq!(summary["audio_samples"], 35_280, "0.8 s at 44100 Hz");
    assert_eq!(samples_by_ffmpeg(&out, f).len(), 35_280 * 2);
    // A face moves otherwise than by the other hearing of the engine.
    let (person, speech) = (f.join("person.mp4"), f.join("speech.wav"));
    ffmpeg(&format!("-i {} -an -t 1 -c:v libx264 -preset ultrafast -crf 10", demo_video().display()), &person);
    ffmpeg(&format!("-i {} -t 1", demo_audio().display()), &speech);
    let spoken = ["6640", "160"].map(|look_ahead| {
        let out = f.join(format!("{look_ahead}.mp4"));
        render(f, &person, &speech, &out, &[&more[..], &["--look-ahead", look_ahead]].concat());
        Luma::of(&out, f)
    });
    assert_eq!(spoken.each_ref().map(Luma::len), [25, 25]);
    let moved = (0..25).map(|i| largest_block_difference(&spoken[0], &spoken[1], i)).fold(0.0, f64::max);
    assert!(moved > 5.0, "the two hearings look the same: {moved}");
}

#[test]
fn video_longer_than_audio_ends_with_the_audio() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(40, f, "video.mp4");
    let out = f.join("out.mp4");
    render(f, &video, &tone(1.0, 48_000, f, "tone.wav"), &out, &["--crf", "10"]);
    assert_eq!(marks(&out, f), (0..25).collect::<Vec<_>>());
    starts_and_ends_together(&out, FRAME);
}

#[test]
fn a_lossless_codec_gives_back_every_sample() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(30, f, "video.mp4");
    let cases = [("flac", "mkv", 22_050), ("pcm", "mkv", 48_000), ("alac", "mp4", 44_100), ("pcm", "mov", 16_000)];
    for (codec, container, rate) in cases {
        let audio = tone(1.1, rate, f, "tone.wav");
        let out = f.join(format!("{codec}.{container}"));
        render(f, &video, &audio, &out, &["--audio-codec", codec]);
        assert!(
            samples_by_ffmpeg(&out, f) == samples_by_ffmpeg(&audio, f),
            "{codec} in {container} changed the samples"
        );
        starts_and_ends_together(&out, FRAME);
    }
}

#[test]
fn compressed_input_keeps_the_samples_that_its_decoder_gives() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(30, f, "video.mp4");
    let audio = f.join("speech.mp4");
    ffmpeg(&format!("-i {} -t 1.5 -c:a aac -ar 44100 -ac 2", demo_audio().display()), &audio);
    let out = f.join("out.mkv");
    render(f, &video, &audio, &out, &["--audio-codec", "pcm"]);
    assert!(samples_by_gstreamer(&audio, f) == samples_by_gstreamer(&out, f));
}

#[test]
fn aac_starts_where_the_sound_starts() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(30, f, "video.mp4");
    let audio = f.join("click.wav");
    // A click at 0.5 s.
    ffmpeg("-f lavfi -i aevalsrc=exprs=between(t\\,0.5\\,0.502)*0.8:s=16000:d=1.2", &audio);
    for extension in ["mp4", "mov"] {
        let out = f.join(format!("out.{extension}"));
        render(f, &video, &audio, &out, &[]);
        starts_and_ends_together(&out, FRAME);
        let samples = samples_by_ffmpeg(&out, f);
        let loudest = samples
            .chunks_exact(2)
            .map(|s| i16::from_le_bytes([s[0], s[1]]).unsigned_abs())
            .enumerate()
            .max_by_key(|(_, level)| *level)
            .map(|(i, _)| i)
            .unwrap();
        assert!(loudest.abs_diff(8016) < 40, "{extension}: the click is at sample {loudest}");
    }
}

#[test]
fn every_container_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(15, f, "video.mp4");
    let audio = tone(0.6, 48_000, f, "tone.wav");
    for (extension, video_codec, audio_codec) in
        [("mp4", "h264", "aac"), ("mov", "h264", "aac"), ("mkv", "h264", "flac"), ("webm", "vp8", "opus")]
    {
        let out = f.join(format!("out.{extension}"));
        render(f, &video, &audio, &out, &[]);
        assert_eq!(probe(&out, "v").text("codec_name"), video_codec);
        assert_eq!(probe(&out, "a").text("codec_name"), audio_codec);
        assert_eq!(probe(&out, "v").frames(), 15, "{extension}");
    }
}

#[test]
fn an_odd_size_and_a_rotated_phone_video_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let audio = tone(0.4, 16_000, f, "tone.wav");
    let odd = f.join("odd.mkv");
    ffmpeg(
        &format!("-i {} -an -frames:v 10 -vf scale=641:361 -c:v ffv1 -pix_fmt yuv444p", demo_video().display()),
        &odd,
    );
    let out = f.join("odd.mp4");
    render(f, &odd, &audio, &out, &[]);
    assert_eq!((probe(&out, "v").number("width"), probe(&out, "v").number("height")), (640.0, 360.0));

    let (lying, turned) = (f.join("lying.mp4"), f.join("turned.mp4"));
    ffmpeg(
        &format!("-i {} -an -frames:v 10 -vf transpose=2 -c:v libx264 -preset ultrafast", demo_video().display()),
        &lying,
    );
    ffmpeg(&format!("-i {} -c copy -metadata:s:v rotate=90", lying.display()), &turned);
    let upright = f.join("upright.mp4");
    render(f, &turned, &audio, &upright, &[]);
    assert!(probe(&upright, "v").number("width") > probe(&upright, "v").number("height"));
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(25, f, "video.mp4");
    let audio = tone(600.0, 16_000, f, "long.wav");
    let outputs = f.join("out");
    std::fs::create_dir(&outputs).unwrap();
    for signal in ["INT", "TERM"] {
        let mut child = lipstream(f)
            .args(["render", "-q", "--no-gather"])
            .arg("--video")
            .arg(&video)
            .arg("--audio")
            .arg(&audio)
            .arg("-o")
            .arg(outputs.join("out.mp4"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The unfinished file is there as soon as the work begins.
        let patience = Instant::now();
        while names(&outputs).is_empty() {
            assert!(patience.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
            thread::sleep(Duration::from_millis(20));
        }
        succeed(Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "SIG{signal}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "lipstream: interrupted\n");
        assert!(names(&outputs).is_empty(), "SIG{signal}: {:?}", names(&outputs));
    }
}

#[test]
fn the_bank_is_gathered_once_and_again_when_the_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = marked(25, f, "video.mp4");
    let audio = tone(0.4, 16_000, f, "tone.wav");
    let out = f.join("out.mp4");
    let banks = f.join("cache/lipstream/banks");
    render(f, &video, &audio, &out, &[]);
    let first = names(&banks);
    assert_eq!(first.len(), 1, "{first:?}");
    render(f, &video, &audio, &out, &[]);
    assert_eq!(names(&banks), first);
    marked(26, f, "video.mp4");
    render(f, &video, &audio, &out, &[]);
    assert_eq!(names(&banks).len(), 2);
}

/// Judged by C2PA's own library.
#[test]
fn a_file_says_how_it_was_made_and_that_it_is_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (video, speech) = (f.join("video.mp4"), f.join("speech.wav"));
    ffmpeg(&format!("-i {} -an -t 1 -c:v libx264 -preset ultrafast", demo_video().display()), &video);
    ffmpeg(&format!("-i {} -t 1", demo_audio().display()), &speech);
    let rendered = |name: &str, more: &[&str]| {
        let out = f.join(name);
        let summary = render(f, &video, &speech, &out, &[&["--no-gather"], more].concat());
        assert_eq!(summary["manifest"], more != ["--no-marks"], "{summary}");
        starts_and_ends_together(&out, FRAME);
        out
    };
    let marked = rendered("marked.mp4", &["--label", "Made by a machine", "--label-corner", "top-right"]);
    let (mov, plain) = (rendered("marked.mov", &[]), rendered("plain.mp4", &["--no-marks"]));

    let luma = Luma::of(&marked, f);
    let label = luma.difference(20, &Luma::of(&plain, f), 20, (0.6, 0.0, 1.0, 0.1));
    assert!(label > 5.0, "the label is not seen: {label}");

    let python = root().join(".lipstream/c2pa/bin/python");
    if !python.exists() {
        eprintln!("skipped: {} is not there; LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh installs it", python.display());
        return;
    }
    let read = |path: &Path, kind: &str| {
        let script = root().join("tests/provenance/read.py");
        Command::new(&python).arg(script).arg(path).arg(kind).output().unwrap()
    };
    let json = |path: &Path, kind: &str| -> Value { serde_json::from_slice(&read(path, kind).stdout).unwrap() };
    for said in [json(&marked, "video/mp4"), json(&mov, "video/quicktime")] {
        assert_eq!(said["validation_state"], "Valid", "{said:#}");
        let failures = said["validation_results"]["activeManifest"]["failure"].as_array().unwrap();
        let codes: Vec<_> = failures.iter().map(|failure| failure["code"].as_str().unwrap()).collect();
        assert_eq!(codes, ["signingCredential.untrusted"]);
        let manifest = &said["manifests"][said["active_manifest"].as_str().unwrap()];
        assert_eq!(manifest["signature_info"]["issuer"], "Self-made by Lipstream, vouched for by nobody");
        let assertion = |label: &str| {
            let all = manifest["assertions"].as_array().unwrap();
            all.iter().find(|a| a["label"] == label).unwrap_or_else(|| panic!("no {label}: {manifest:#}"))["data"]
                .clone()
        };
        let created = assertion("c2pa.actions.v2")["actions"][0].clone();
        let source = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
        assert_eq!((&created["action"], &created["digitalSourceType"]), (&"c2pa.created".into(), &source.into()));
        let made = assertion("lipstream.render");
        assert_eq!(made["engine"], "compact-words");
        for (i, input) in [&video, &speech].into_iter().enumerate() {
            let sum = succeed(Command::new("sha256sum").arg(input)).stdout;
            let hash = String::from_utf8(sum).unwrap()[..64].to_owned();
            assert_eq!(made["inputs"][i]["hash"], hash.as_str());
            assert_eq!(manifest["ingredients"][i]["description"], format!("SHA-256 {hash}"));
        }
    }
    // What is made of a file with a manifest keeps that one, as its parent's.
    let again = f.join("again.mp4");
    render(f, &marked, &speech, &again, &["--no-gather"]);
    let said = json(&again, "video/mp4");
    assert_eq!(said["validation_state"], "Valid", "{said:#}");
    let manifests = &said["manifests"];
    assert_eq!(manifests.as_object().unwrap().len(), 2, "{said:#}");
    let active = &manifests[said["active_manifest"].as_str().unwrap()];
    let parent = &active["ingredients"][0];
    assert_eq!((&parent["relationship"], &parent["title"]), (&"parentOf".into(), &"video".into()), "{active:#}");
    let before = json(&marked, "video/mp4")["active_manifest"].clone();
    assert_eq!(parent["active_manifest"], before, "{active:#}");
    let actions = active["assertions"].as_array().unwrap().iter().find(|a| a["label"] == "c2pa.actions.v2").unwrap();
    let actions: Vec<_> = actions["data"]["actions"].as_array().unwrap().iter().map(|a| a["action"].clone()).collect();
    assert_eq!(actions, ["c2pa.opened", "c2pa.edited", "c2pa.placed"]);
    // A byte in the middle, of the media.
    let mut bytes = std::fs::read(&marked).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let changed = f.join("changed.mp4");
    std::fs::write(&changed, bytes).unwrap();
    let said = json(&changed, "video/mp4");
    assert_eq!(said["validation_state"], "Invalid", "{said:#}");
    assert!(said["validation_status"].to_string().contains("assertion.bmffHash.mismatch"), "{said:#}");
    let none = read(&plain, "video/mp4");
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("ManifestNotFound"), "{none:?}");
}
