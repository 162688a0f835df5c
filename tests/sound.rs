//! Sound as recorders, phones and calls leave it: late, with holes, on the second track, in opposite phase, cut off.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::*;
use serde_json::Value;

/// Where the white corner and the beep are in their files, in seconds.
const FLASH: f64 = 1.6;

/// 2.4 s of the demo with a white corner for two frames from [`FLASH`] on.
fn flash(folder: &Path) -> PathBuf {
    let out = folder.join("flash.mp4");
    let corner =
        "drawbox=w=64:h=64:color=black:t=fill,drawbox=w=64:h=64:color=white:t=fill:enable='between(t,1.59,1.67)'";
    let filter = format!("-an -t 2.4 -vf scale=640:360,fps=25,{corner}");
    ffmpeg(&format!("-i {} {filter} -c:v libx264 -preset ultrafast -crf 18", demo_video().display()), &out);
    out
}

/// A beep from [`FLASH`] on for 50 ms, in faint noise.
fn beep(folder: &Path) -> PathBuf {
    let out = folder.join("beep.wav");
    let wave = "0.7*sin(2*PI*1000*t)*between(t,1.6,1.65)+0.001*random(0)";
    ffmpeg(&format!("-f lavfi -i aevalsrc='{wave}':s=48000:d=2.4"), &out);
    out
}

#[track_caller]
fn render(folder: &Path, video: &Path, audio: &Path, out: &Path, more: &[&str]) -> (Value, String) {
    let mut command = lipstream(folder);
    command.args(["render", "--json", "-q", "--preset", "ultrafast", "--no-gather"]).args(more);
    let output = succeed(command.arg("--video").arg(video).arg("--audio").arg(audio).arg("-o").arg(out));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_slice(&output.stdout).expect("one JSON object"), errors)
}

/// Mono samples of 48 kHz as ffmpeg decodes them from the time 0 of the file on.
fn samples(file: &Path, folder: &Path) -> Vec<f32> {
    let raw = folder.join("samples.raw");
    ffmpeg(
        &format!("-i {} -map 0:a:0 -af aresample=async=1:first_pts=0 -ac 1 -ar 48000 -f f32le", file.display()),
        &raw,
    );
    fs::read(raw).unwrap().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The time of the first sample from `from` on that is louder than `level`.
fn loud(samples: &[f32], level: f32, from: f64) -> Option<f64> {
    let start = (from * 48_000.0) as usize;
    let at = samples.get(start..)?.iter().position(|s| s.abs() > level)?;
    Some((start + at) as f64 / 48_000.0)
}

fn flash_and_beep(file: &Path, folder: &Path) -> (f64, f64) {
    let luma = Luma::of(file, folder);
    let white = (0..luma.len()).position(|i| luma.frame(i)[20 * luma.width + 20] > 150).expect("a flash");
    let beep = loud(&samples(file, folder), 0.3, 0.0).expect("a beep");
    (white as f64 / 25.0, beep)
}

#[test]
fn picture_and_sound_of_one_file_keep_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (flash, beep) = (flash(f), beep(f));
    let (v, a) = (flash.display(), beep.display());
    for extension in ["mkv", "mp4", "mov", "ts"] {
        for (what, inputs) in [
            ("late sound", format!("-i {v} -itsoffset 1.2 -ss 1.2 -i {a} -map 0:v -map 1:a")),
            // The sound is filled up to its beginning, the picture comes 0.8 s after it.
            (
                "late picture",
                format!(
                    "-itsoffset 0.8 -i {v} -itsoffset 0.8 -i {a} -map 0:v -map 1:a -af aresample=async=1:first_pts=0"
                ),
            ),
        ] {
            let video = f.join(format!("in.{extension}"));
            ffmpeg(&format!("{inputs} -c:v copy -c:a aac"), &video);
            let out = f.join("out.mkv");
            render(f, &video, &video, &out, &[]);
            let (white, loud) = flash_and_beep(&out, f);
            assert!((white - loud).abs() < 0.041, "{extension}, {what}: flash at {white:.3}, beep at {loud:.3}");
            // A transport stream begins where its demuxer finds the clock.
            if extension == "ts" {
                continue;
            }
            let wanted = if what == "late picture" { FLASH + 0.8 } else { FLASH };
            assert!((loud - wanted).abs() < 0.03, "{extension}, {what}: the beep is at {loud:.3}, not {wanted:.3}");
        }
    }
}

#[test]
fn two_files_begin_together() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let late = f.join("late.mkv");
    ffmpeg(&format!("-itsoffset 1.2 -i {} -c:a flac", beep(f).display()), &late);
    let out = f.join("out.mkv");
    render(f, &flash(f), &late, &out, &[]);
    let (white, loud) = flash_and_beep(&out, f);
    assert!((white - loud).abs() < 0.041, "flash at {white:.3}, beep at {loud:.3}");
}

/// 0.8 s of tone, 1.2 s of nothing, 0.8 s of tone, in time stamps; beside a picture, whose clock a transport stream has.
fn hole(folder: &Path, name: &str, codec: &str) -> PathBuf {
    let out = folder.join(name);
    let tone = "sine=f=300:r=48000:d=2.8";
    let cut = "aselect=not(between(t\\,0.8\\,1.999)),volume=4";
    let picture = "-f lavfi -i testsrc2=s=320x180:r=25:d=2.8 -map 0 -map 1 -c:v libx264 -preset ultrafast";
    let picture = if name.ends_with(".mka") { "" } else { picture };
    ffmpeg(&format!("-f lavfi -i {tone} {picture} -af {cut} -c:a {codec}"), &out);
    out
}

#[test]
fn a_hole_in_the_sound_is_silence() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = flash(f);
    for (name, codec) in [("in.mkv", "aac"), ("in.ts", "aac"), ("in.mka", "libopus"), ("in.mp4", "aac")] {
        let audio = hole(f, name, codec);
        let out = f.join("out.mkv");
        let (summary, errors) = render(f, &video, &audio, &out, &["--audio-codec", "pcm"]);
        let samples = samples(&out, f);
        let end = 0.8 + loud(&samples[38_400..].iter().map(|s| 1.0 - s.abs()).collect::<Vec<_>>(), 0.98, 0.0).unwrap();
        assert!(end < 0.85, "{name}: it goes on until {end:.3}");
        let again = loud(&samples, 0.05, 1.0).unwrap();
        assert!((again - 2.0).abs() < 0.031, "{name}: the sound is back at {again:.3}");
        assert!(errors.contains("there is no sound from 0.8") && errors.contains("s to 2.0"), "{name}: {errors}");
        assert_eq!(summary["notices"][0]["kind"], "hole", "{summary}");
    }
}

#[test]
fn the_default_track_is_heard_else_the_first_that_sounds() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = flash(f);
    let inputs = "-f lavfi -i anullsrc=r=48000:cl=mono -f lavfi -i sine=f=300:r=48000 -f lavfi -i sine=f=900:r=48000 \
                  -map 0 -map 1 -map 2 -t 1 -c:a aac -metadata:s:a:0 language=deu -metadata:s:a:1 language=eng \
                  -metadata:s:a:2 language=fra";
    let third = "-disposition:a:0 0 -disposition:a:1 0 -disposition:a:2 default";
    let none = "-disposition:a:0 0 -disposition:a:1 0 -disposition:a:2 0";
    // Crossings of zero a second tell which.
    let heard = |audio: &Path, more: &[&str]| {
        let out = f.join("out.mkv");
        let (summary, _) = render(f, &video, audio, &out, &[&["--audio-codec", "pcm", "--no-loop"], more].concat());
        assert_eq!(summary["notices"][0]["kind"], "track", "{summary}");
        let samples = samples(&out, f);
        let signs: Vec<bool> = samples[12_000..36_000].iter().map(|s| *s > 0.0).collect();
        signs.windows(2).filter(|w| w[0] != w[1]).count() as f64
    };
    for name in ["a.mkv", "a.mp4"] {
        let audio = f.join(name);
        ffmpeg(&format!("{inputs} {third}"), &audio);
        assert!((heard(&audio, &[]) - 900.0).abs() < 20.0, "{name}: the default");
        assert!((heard(&audio, &["--audio-track", "2"]) - 300.0).abs() < 20.0, "{name}: by number");
        assert!((heard(&audio, &["--audio-track", "en"]) - 300.0).abs() < 20.0, "{name}: by language");
    }
    let audio = f.join("b.mkv");
    ffmpeg(&format!("{inputs} {none}"), &audio);
    assert!((heard(&audio, &[]) - 300.0).abs() < 20.0, "the first that sounds");
    let mut command = lipstream(f);
    command.args(["render", "--audio-track", "4"]).arg("--video").arg(&video).arg("--audio").arg(&audio);
    let (code, errors) = fail(command.arg("-o").arg(f.join("out.mkv")));
    assert_eq!(code, 3);
    assert!(errors.contains("b.mkv: no audio track number 4; it has 1 (de), 2 (en), 3 (fr)"), "{errors}");
}

/// Renders the first seconds of the demo's person, small, with a voice; gives the pictures.
fn demo_says(folder: &Path, seconds: f64) -> impl Fn(&Path) -> Luma {
    let video = folder.join("video.mp4");
    let cut = format!("-i {} -an -t {seconds}", demo_video().display());
    ffmpeg(&format!("{cut} -vf scale=640:360 -c:v libx264 -preset ultrafast"), &video);
    move |voice| {
        let out = folder.join("out.mkv");
        render(folder, &video, voice, &out, &["--crf", "8"]);
        Luma::of(&out, folder)
    }
}

#[test]
fn the_mouth_moves_alike_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let voice = f.join("mono.wav");
    ffmpeg(&format!("-ss 1 -t 1.6 -i {} -ac 1 -ar 48000", demo_audio().display()), &voice);
    let rendered = demo_says(f, 1.6);
    let still = f.join("still.wav");
    ffmpeg("-f lavfi -i anullsrc=r=48000:cl=mono -t 1.6", &still);
    let (mono, still) = (rendered(&voice), rendered(&still));
    let face = (0.3, 0.3, 0.4, 0.6);
    let apart = |other: &Luma| (5..38).map(|i| mono.difference(i, other, i, face)).sum::<f64>();
    let moved = apart(&still);
    for (name, pan) in [
        ("opposite phase", "stereo|c0=c0|c1=-1*c0"),
        ("the right alone", "stereo|c0=0*c0|c1=c0"),
        ("the centre alone", "5.1|FL=0*c0|FR=0*c0|FC=c0|LFE=0*c0|BL=0*c0|BR=0*c0"),
    ] {
        let other = f.join("other.wav");
        ffmpeg(&format!("-i {} -af pan={pan}", voice.display()), &other);
        let off = apart(&rendered(&other));
        assert!(off < moved / 5.0, "{name}: {off:.2} from mono, which is {moved:.2} from silence");
    }
}

#[test]
fn a_recording_that_was_cut_off_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let speech = beep(f);
    let source = flash(f);
    for (name, options, whole) in [
        ("a.mkv", "", true),
        ("a.mp4", "-movflags +faststart", true),
        ("b.mp4", "-movflags +frag_keyframe+empty_moov -g 10", false),
    ] {
        let video = f.join(name);
        let encoded = "-c:v libx264 -preset ultrafast -g 10 -crf 10";
        ffmpeg(&format!("-i {} {encoded} {options}", source.display()), &video);
        let bytes = fs::read(&video).unwrap();
        fs::write(&video, &bytes[..bytes.len() / 2]).unwrap();
        let (summary, errors) = render(f, &video, &speech, &f.join("out.mkv"), &[]);
        let line =
            errors.lines().find(|line| line.contains("cut off at")).unwrap_or_else(|| panic!("{name}: {errors}"));
        assert!(line.contains(&format!("{name}: cut off at 1.")), "{line}");
        assert_eq!(line.contains("of 2.4 s"), whole, "{line}");
        assert!(summary["notices"].as_array().unwrap().iter().any(|n| n["kind"] == "cut-off"), "{summary}");
    }
    let video = f.join("c.mp4");
    let bytes = fs::read(&source).unwrap();
    fs::write(&video, &bytes[..bytes.len() / 2]).unwrap();
    let mut command = lipstream(f);
    command.arg("render").arg("--video").arg(&video).arg("--audio").arg(&speech);
    let (code, errors) = fail(command.arg("-o").arg(f.join("out.mkv")));
    assert_eq!(code, 3);
    assert!(errors.contains("c.mp4: its index is missing: the recording was cut off"), "{errors}");
    let audio = f.join("cut.wav");
    let bytes = fs::read(&speech).unwrap();
    fs::write(&audio, &bytes[..bytes.len() / 2]).unwrap();
    let (_, errors) = render(f, &source, &audio, &f.join("out.mkv"), &[]);
    assert!(errors.contains("cut.wav: cut off at 1.2 s"), "{errors}");
}

/// Mains hum and the noise of a room, as a voice's microphone has them.
#[test]
fn a_room_without_a_voice_leaves_the_mouth_at_rest() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (voice, still) = (f.join("voice.wav"), f.join("still.wav"));
    let rendered = demo_says(f, 3.0);
    ffmpeg(&format!("-ss 1 -t 3 -i {} -ac 1 -ar 48000", demo_audio().display()), &voice);
    ffmpeg("-f lavfi -i anullsrc=r=48000:cl=mono -t 3", &still);
    let still = rendered(&still);
    // What is heard first may be a voice: after a second it is known.
    let apart = |other: &Luma| (25..73).map(|i| still.difference(i, other, i, (0.3, 0.3, 0.4, 0.6))).sum::<f64>();
    let moved = apart(&rendered(&voice));
    for (name, source) in [
        ("hum", "aevalsrc=0.014*sin(2*PI*50*t)+0.004*sin(2*PI*150*t):s=48000:d=3"),
        ("room", "anoisesrc=c=brown:r=48000:a=0.02:d=3"),
    ] {
        let room = f.join("room.wav");
        ffmpeg(&format!("-f lavfi -i {source}"), &room);
        let leak = apart(&rendered(&room)) / moved;
        println!("{name}: {leak:.3} of speech");
        assert!(leak < 0.1, "{name}: {leak:.3} of speech");
    }
}

/// A voice by telephone moves the mouth as far as the whole voice.
#[test]
fn a_telephone_voice_moves_the_mouth_as_far() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let still = f.join("still.wav");
    let rendered = demo_says(f, 3.0);
    ffmpeg("-f lavfi -i anullsrc=r=48000:cl=mono -t 3", &still);
    let still = rendered(&still);
    let apart = |other: &Luma| (5..73).map(|i| still.difference(i, other, i, (0.3, 0.3, 0.4, 0.6))).sum::<f64>();
    // A man whose lips rest by telephone where nothing is done about it.
    let sensitive = shared("data/speech/hallo5.flac");
    for source in [Some(demo_audio()), sensitive].into_iter().flatten() {
        let (voice, narrow) = (f.join("voice.wav"), f.join("narrow.wav"));
        ffmpeg(&format!("-ss 1 -t 3 -i {} -ac 1 -ar 48000", source.display()), &voice);
        let moved = apart(&rendered(&voice));
        ffmpeg(&format!("-i {} -ar 8000 -c:a pcm_mulaw", voice.display()), &narrow);
        let ratio = apart(&rendered(&narrow)) / moved;
        println!("{}: {ratio:.3} of the whole voice", source.display());
        assert!((0.75..1.25).contains(&ratio), "{}: {ratio:.3} of the whole voice", source.display());
    }
}
