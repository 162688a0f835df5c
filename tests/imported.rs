//! Engines from published files, through the program: import, check, render, gst-launch, sessions.

mod common;
#[path = "../engines/tests/common/tiny.rs"]
mod tiny;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use common::{service::Service, *};
use lipstream_engines::import::onnx::{Conv, Dim, Graph, Precision};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

/// The program with engines of its own in `home`.
fn program(home: &Path) -> Command {
    let mut command = lipstream(home);
    command.env("XDG_DATA_HOME", home.join("data"));
    command
}

/// A home with the engine `mouth`.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let file = tiny::wav2lip(home.path());
    let args = ["import", "wav2lip", "--name", "mouth", "--licence", "mine", "--from"];
    let output = succeed(program(home.path()).args(args).arg(file));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("mouth: wav2lip, "), "{output:?}");
    home
}

/// Two seconds of the demo.
fn inputs(home: &Path) -> (PathBuf, PathBuf) {
    let (video, audio) = (home.join("person.mp4"), home.join("speech.wav"));
    succeed(
        Command::new("ffmpeg")
            .args(["-v", "error", "-i", "demo/avatar.mp4", "-t", "2", "-an"])
            .arg(&video)
            .current_dir(root()),
    );
    succeed(
        Command::new("ffmpeg")
            .args(["-v", "error", "-i", "demo/speech.flac", "-t", "2"])
            .arg(&audio)
            .current_dir(root()),
    );
    (video, audio)
}

fn json_of(command: &mut Command) -> Value {
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

#[test]
fn an_imported_engine_is_listed_checked_and_removed() {
    let home = home();
    let listed = json_of(program(home.path()).args(["engines", "--json"]));
    let row = listed.as_array().unwrap().iter().find(|row| row["name"] == "mouth").unwrap();
    assert_eq!((row["family"].as_str(), row["licence"].as_str()), (Some("wav2lip"), Some("mine")));
    assert_eq!((row["clip_frames"].as_u64(), row["look_ahead_ms"].as_f64()), (Some(1), Some(212.5)));
    assert!(row["gflop_per_frame"].as_f64().unwrap() > 0.0 && row.get("error").is_none(), "{row}");
    let checked = json_of(program(home.path()).args(["engines", "check", "mouth", "--json"]));
    assert_eq!(
        (checked["engine"].as_str(), checked["outputs"][0]["name"].as_str()),
        (Some("mouth"), Some("generator.picture"))
    );
    assert!(checked["worst"].as_f64().unwrap() < 1e-6, "{checked}");
    // Bytes of the stored outputs that were changed are a difference.
    let record = home.path().join("data/lipstream/engines/mouth/check.safetensors");
    let mut bytes = fs::read(&record).unwrap();
    let end = bytes.len();
    bytes[end - 2] ^= 0x40;
    fs::write(&record, bytes).unwrap();
    let output = program(home.path()).args(["engines", "check", "mouth"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("beyond the tolerance"), "{text}");
    succeed(program(home.path()).args(["engines", "remove", "mouth"]));
    assert!(!home.path().join("data/lipstream/engines/mouth").exists());
    let (code, text) = fail(program(home.path()).args(["engines", "remove", "mouth"]));
    assert!(code == 2 && text.contains("no engine `mouth`"), "{code} {text}");
    let (code, text) = fail(program(home.path()).args(["engines", "remove", "compact"]));
    assert!(code == 2 && text.contains("built in"), "{code} {text}");
}

#[test]
fn files_that_cannot_be_imported_are_refused_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing.pth");
    let broken = home.path().join("broken.pth");
    fs::write(&broken, b"\x80\x02cos\nsystem\nU\x04trueR.").unwrap();
    let image = home.path().join("image.onnx");
    fs::write(&image, [0u8; 300]).unwrap();
    for (args, path, code, cause) in [
        (vec!["import"], &missing, 3, "missing.pth: there is no such file"),
        (vec!["import"], &broken, 4, "`os.system`"),
        (vec!["import"], &image, 4, "image.onnx: "),
        (vec!["import", "sadtalker"], &broken, 2, "`sadtalker` is no family"),
    ] {
        let (found, text) = fail(program(home.path()).args(&args).arg("--from").arg(path));
        assert!(found == code && text.contains(cause), "{args:?}: {found} {text}");
        assert!(code == 2 || text.trim_end().lines().count() == 1, "{text}");
    }
    let left = fs::read_dir(home.path().join("data/lipstream/engines"));
    assert!(!left.is_ok_and(|mut entries| entries.next().is_some()));
}

/// How alike the part `crop` of two videos is, in dB; a hundred where it is the same.
fn psnr(a: &Path, b: &Path, crop: &str) -> f64 {
    let filter = format!("[0]crop={crop}[a];[1]crop={crop}[b];[a][b]psnr");
    let mut command = Command::new("ffmpeg");
    let output = succeed(command.arg("-i").arg(a).arg("-i").arg(b).args(["-lavfi", &filter, "-f", "null", "-"]));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let average = text.split("average:").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    if average == "inf" { 100.0 } else { average.parse().unwrap() }
}

#[test]
fn a_render_changes_the_lower_face_and_nothing_else() {
    let home = home();
    let (video, audio) = inputs(home.path());
    let out = home.path().join("out.mp4");
    let mut command = program(home.path());
    command
        .args(["render", "--engine", "mouth", "--crf", "12", "--json", "--video"])
        .arg(&video)
        .arg("--audio")
        .arg(&audio);
    let summary = json_of(command.arg("-o").arg(&out));
    assert_eq!((summary["engine"].as_str(), summary["frames"].as_u64()), (Some("mouth"), Some(50)));
    assert_eq!(summary["untouched"].as_object().unwrap().len(), 0, "{summary}");
    // The demo person's mouth is in the middle of the upper half; eyes and coat are not.
    let (mouth, eyes, coat) = ("140:60:570:410", "260:60:520:230", "600:100:340:600");
    let [mouth, eyes, coat] = [mouth, eyes, coat].map(|crop| psnr(&video, &out, crop));
    assert!(mouth < 25.0 && eyes > 35.0 && coat > 35.0, "mouth {mouth}, eyes {eyes}, coat {coat}");
    let (code, text) = fail(
        program(home.path())
            .args(["render", "--engine", "mouth", "--steps", "2", "--video"])
            .arg(&video)
            .arg("--audio")
            .arg(&audio)
            .arg("-o")
            .arg(&out),
    );
    assert!(code == 4 && text.contains("`mouth` does not denoise"), "{code} {text}");
}

/// How much frame 30 of two videos of 1280x720 differs: grey values, row by row.
fn apart(home: &Path, a: &Path, b: &Path) -> Vec<f32> {
    let grey = |path: &Path| {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-i"]).arg(path).args(["-vf", "select=eq(n\\,30)", "-frames:v", "1"]);
        succeed(command.args(["-pix_fmt", "gray", "-f", "rawvideo", "-"]).current_dir(home)).stdout
    };
    let (a, b) = (grey(a), grey(b));
    assert_eq!((a.len(), b.len()), (1280 * 720, 1280 * 720));
    a.iter().zip(b).map(|(a, b)| f32::from(a.abs_diff(b))).collect()
}

#[test]
fn an_exact_render_fills_a_box_to_its_edge_and_one_that_is_not_blends_in() {
    let home = home();
    let (video, audio) = inputs(home.path());
    let render = |out: &str, more: &[&str]| {
        let out = home.path().join(out);
        let mut command = program(home.path());
        command
            .args(["render", "--json", "--crf", "8", "--video"])
            .arg(&video)
            .arg("--audio")
            .arg(&audio)
            .arg("-o")
            .arg(&out);
        (out, command.args(more).output().unwrap())
    };
    let mut edges = Vec::new();
    for (name, more) in [("exact.mp4", &["--engine", "mouth", "--exact"][..]), ("own.mp4", &["--engine", "mouth"])] {
        let (out, output) = render(name, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (summary["frames"].as_u64(), summary["untouched"].as_object().unwrap().len()),
            (Some(50), 0),
            "{summary}"
        );
        let apart = apart(home.path(), &video, &out);
        // What the network made is far from any face: the box is where most of a row or column is changed.
        let row = |y: usize| apart[y * 1280..(y + 1) * 1280].iter().filter(|v| **v > 20.0).count();
        let column = |x: usize| (0..720).filter(|y| apart[y * 1280 + x] > 20.0).count();
        let (rows, columns): (Vec<_>, Vec<_>) = ((0..720).map(row).collect(), (0..1280).map(column).collect());
        let span = |counts: &[usize]| {
            let most = counts.iter().max().unwrap() / 3;
            let inside = |count: &usize| *count > most;
            (counts.iter().position(inside).unwrap(), counts.iter().rposition(inside).unwrap() + 1)
        };
        let ((top, bottom), (left, right)) = (span(&rows), span(&columns));
        let mean = |x: std::ops::Range<usize>| {
            let middle = top + (bottom - top) / 2..bottom - (bottom - top) / 5;
            let sum: f32 = middle.clone().map(|y| apart[y * 1280..][x.clone()].iter().sum::<f32>()).sum();
            sum / (middle.len() * x.len()) as f32
        };
        let (beyond, edge, inside) = (mean(left - 8..left - 4), mean(left..left + 2), mean(left + 40..right - 40));
        println!("{name}: {left}..{right}, {top}..{bottom}: beyond {beyond}, edge {edge}, inside {inside}");
        edges.push((bottom - top, beyond, edge / inside));
    }
    let [(exact, beyond, hard), (own, _, soft)] = edges[..] else { panic!("two renders") };
    assert!(beyond < 3.0 && hard > 0.6 && soft < hard - 0.2, "beyond {beyond}, hard {hard}, soft {soft}");
    // The whole box is put back, and not its lower half alone.
    assert!(exact as f32 > 1.5 * own as f32, "{exact} and {own} rows");
    let (_, output) = render("no.mp4", &["--engine", "compact", "--exact"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), text.trim_end().lines().count()), (Some(4), 1), "{text}");
    assert!(text.contains("engine `compact` cannot be exact: there is no published program that runs it"), "{text}");
    let (_, output) = render("no.mp4", &["--exact"]);
    assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("--engine"));
}

#[test]
fn whole_frames_of_a_golden_file_are_lines_of_a_check_and_decide_it() {
    let home = home();
    let golden = home.path().join("golden.safetensors");
    let frames = vec![90u8; 2 * 60 * 50 * 3];
    let boxes: Vec<u8> = [[10i32, 50, 5, 45]; 2].iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let order: Vec<u8> = [0i32, 1].iter().flat_map(|v| v.to_le_bytes()).collect();
    let floats = |count: usize| vec![0u8; 4 * count];
    let (mel, face, out) = (floats(2 * 1280), floats(6 * 96 * 96), floats(3 * 96 * 96));
    let view = |kind, shape: &[usize], bytes| TensorView::new(kind, shape.to_vec(), bytes).unwrap();
    let tensors = [
        ("frames", view(Dtype::U8, &[2, 60, 50, 3], &frames)),
        ("boxes", view(Dtype::I32, &[2, 4], &boxes)),
        ("order", view(Dtype::I32, &[2], &order)),
        ("mel_in", view(Dtype::F32, &[2, 1, 80, 16], &mel)),
        ("face_in", view(Dtype::F32, &[6, 96, 96], &face)),
        ("out", view(Dtype::F32, &[3, 96, 96], &out)),
        // As if nothing had been pasted.
        ("pasted", view(Dtype::U8, &[2, 60, 50, 3], &frames)),
    ];
    fs::write(&golden, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let check = |more: &[&str]| {
        let mut command = program(home.path());
        let output = command
            .args(["engines", "check", "mouth", "--tolerance", "1e30", "--golden"])
            .arg(&golden)
            .args(more)
            .output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, text) = check(&[]);
    assert!(
        code == Some(1) && text.contains("pasted[0]: mean ") && text.contains("of 255, beyond 1 and 4"),
        "{code:?} {text}"
    );
    let (code, text) = check(&["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    let pictures = report["pictures"].as_array().unwrap();
    assert_eq!((code, pictures.len(), pictures[1]["name"].as_str()), (Some(1), 2, Some("pasted[1]")), "{report}");
    assert!(pictures[0]["max"].as_u64() > Some(4) && pictures[0]["mean"].as_f64() > Some(1.0), "{report}");
}

#[test]
fn a_gst_launch_line_takes_it_by_name() {
    let home = home();
    let (video, audio) = inputs(home.path());
    let line = format!(
        "lipsync name=ls engine=mouth exact=true filesrc location={} ! decodebin ! videoconvert ! ls.video_sink \
         filesrc location={} ! decodebin ! audioconvert ! audioresample ! ls.audio_sink \
         ls.video_src ! fakesink name=seen ls.audio_src ! fakesink",
        video.display(),
        audio.display()
    );
    let mut command = gst_tool("gst-launch-1.0", home.path());
    let output =
        succeed(command.arg("-q").args(line.split_whitespace()).env("XDG_DATA_HOME", home.path().join("data")));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("ERROR"), "{output:?}");
}

#[test]
fn sessions_run_it_and_the_second_loads_nothing() {
    let home = home();
    let data = home.path().join("data");
    let service =
        Service::start_with("", &[("XDG_DATA_HOME", &data.display().to_string()), ("LIPSTREAM_SESSIONS_LOAD", "50")]);
    let engines = service.send("GET", "/api/v1/engines", "", b"").1;
    assert!(engines.contains("\"mouth\"") && engines.contains("look_ahead_ms"), "{engines}");
    for id in ["one", "two"] {
        let spec = json!({"id": id, "graph": "avatar", "avatar": "demo", "engine": "mouth", "always_on": true});
        let create = || service.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
        // Until the server has measured what a session costs, one takes the whole machine.
        let full = Instant::now();
        let (mut status, mut text) = create();
        while status == 503 && full.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(200));
            (status, text) = create();
        }
        assert_eq!(status, 201, "{text}");
    }
    let speech = fs::read(root().join("demo/speech.flac")).unwrap();
    for id in ["one", "two"] {
        let (status, text) = service.send("POST", &format!("/api/v1/sessions/{id}/speak"), "audio/flac", &speech);
        assert!(status < 300, "{text}");
    }
    let start = Instant::now();
    for id in ["one", "two"] {
        loop {
            let state = service.session(id);
            if state["frames_spoken"].as_u64().or(state["frames"].as_u64()).is_some_and(|frames| frames > 50) {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{state}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let spec = json!({"id": "x", "graph": "avatar", "engine": "../mouth"});
    let (status, text) = service.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
    assert!(status == 422 && text.contains("there is no `../mouth`"), "{status} {text}");
}

/// Files of an enhancer that gives each face more red, named as GPEN's, and of a masker that takes all for hair.
fn finishers(folder: &Path) -> [PathBuf; 2] {
    let conv = |shape: [usize; 4], weight: Vec<f32>, bias: Vec<f32>| Conv {
        shape,
        weight,
        bias,
        stride: [1; 2],
        padding: [0; 2],
        groups: 1,
    };
    let picture = [Dim::Fixed(1), Dim::Fixed(3), Dim::Fixed(256), Dim::Fixed(256)];
    let mut enhancer = Graph::new("gpen", Precision::Fp32);
    let x = enhancer.input("input", &picture);
    let same = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0].to_vec();
    let y = enhancer.conv(&x, conv([3, 3, 1, 1], same, vec![0.6, 0.0, -0.6])).unwrap();
    enhancer.output("output", &picture, y);
    let mut masker = Graph::new("bisenet", Precision::Fp32);
    let of = |channels| [Dim::Fixed(1), Dim::Fixed(channels), Dim::Fixed(512), Dim::Fixed(512)];
    let x = masker.input("input", &of(3));
    let bias = (0..19).map(|class| if class == 17 { 1.0 } else { 0.0 }).collect();
    let y = masker.conv(&x, conv([19, 3, 1, 1], vec![0.0; 57], bias)).unwrap();
    masker.output("output", &of(19), y);
    [("gpen_bfr_256.onnx", enhancer), ("bisenet.onnx", masker)].map(|(name, graph)| {
        let file = folder.join(name);
        fs::write(&file, graph.finish()).unwrap();
        file
    })
}

#[test]
fn an_enhancer_and_a_masker_are_imported_said_to_be_non_commercial_and_used_by_name() {
    let home = tempfile::tempdir().unwrap();
    let [enhancer, masker] = finishers(home.path());
    let output = succeed(program(home.path()).args(["import", "--name", "gpen", "--from"]).arg(&enhancer));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("non-commercial") && said.contains("GPEN"), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("gpen: enhancer, "), "{output:?}");
    let output = succeed(program(home.path()).args(["import", "--name", "parser", "--from"]).arg(&masker));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("parser: occlusion, "), "{output:?}");
    let listed = json_of(program(home.path()).args(["engines", "--json"]));
    let row = |name: &str| listed.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    assert_eq!(
        (row("gpen")["family"].as_str(), row("parser")["family"].as_str()),
        (Some("enhancer"), Some("occlusion"))
    );
    assert!(row("gpen")["licence"].as_str().unwrap().starts_with("non-commercial"), "{}", row("gpen"));
    assert!(row("gpen")["description"].as_str().unwrap().contains("GPEN-BFR, 256 pixels"), "{}", row("gpen"));
    let manifest = fs::read_to_string(home.path().join("data/lipstream/engines/gpen/engine.toml")).unwrap();
    assert!(manifest.contains("gpen_bfr_256.onnx") && manifest.matches("sha256").count() == 2, "{manifest}");
    for name in ["gpen", "parser"] {
        succeed(program(home.path()).args(["engines", "check", name]));
    }

    let (video, audio) = (home.path().join("person.mp4"), home.path().join("speech.wav"));
    ffmpeg("-i demo/avatar.mp4 -t 0.8 -an -c:v libx264 -preset ultrafast -crf 10", &video);
    ffmpeg("-ss 0.8 -i demo/speech.flac -t 0.8", &audio);
    let render = |name: &str, more: &[&str]| {
        let out = home.path().join(name);
        let mut command = program(home.path());
        command.args(["render", "--no-marks", "--crf", "8", "--video"]).arg(&video).arg("--audio");
        succeed(command.arg(&audio).arg("-o").arg(&out).args(more));
        out
    };
    // Red and blue of the cheek, and of the coat.
    let colour = |file: &Path, crop: &str| {
        let filter = format!("select=eq(n\\,8),crop={crop},scale=1:1:flags=area");
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-i"]).arg(file).args(["-vf", &filter, "-frames:v", "1"]);
        let bytes = succeed(command.args(["-pix_fmt", "rgb24", "-f", "rawvideo", "-"])).stdout;
        [i32::from(bytes[0]), i32::from(bytes[2])]
    };
    let plain = render("plain.mp4", &[]);
    let (cheek, coat) = ("20:20:560:330", "200:60:560:620");
    for more in [&["--enhance", "gpen"][..], &["--enhance", "gpen", "--enhance-every", "4"]] {
        let redder = render("redder.mp4", more);
        let [before, after] = [&plain, &redder].map(|file| colour(file, cheek));
        assert!(after[0] > before[0] + 25 && after[1] < before[1] - 25, "{more:?}: {before:?}, {after:?}");
        let [before, after] = [&plain, &redder].map(|file| colour(file, coat));
        assert!((0..2).all(|i| (before[i] - after[i]).abs() <= 2), "{more:?}: the coat: {before:?}, {after:?}");
    }
    // Hair before all of the face: its mouth stays the video's own.
    let covered = render("covered.mp4", &["--occlusion", "parser"]);
    let mouth = "140:60:570:410";
    let [own, kept] = [&plain, &covered].map(|file| psnr(&video, file, mouth));
    assert!(
        own < 36.0 && kept > own + 4.0,
        "the mouth is {own} dB from the video's, and {kept} behind what is before it"
    );
    for (args, cause) in [
        (["--enhance", "parser"], "of the family `occlusion`, no enhancer: there are gpen"),
        (["--enhance", "gfpgan"], "there is no enhancer `gfpgan`: there are gpen"),
        (["--occlusion", "gpen"], "engine `gpen` is of the family `enhancer` and does not say what is before a face"),
    ] {
        let mut command = program(home.path());
        command.args(["render", "--video"]).arg(&video).arg("--audio").arg(&audio);
        let (_, text) = fail(command.arg("-o").arg(home.path().join("no.mp4")).args(args));
        assert!(text.contains(cause), "{args:?}: {text}");
    }
}

#[test]
fn a_session_takes_an_enhancer_by_name_and_while_it_runs_and_no_file() {
    let home = tempfile::tempdir().unwrap();
    let [enhancer, masker] = finishers(home.path());
    for (name, file) in [("gpen", &enhancer), ("parser", &masker)] {
        succeed(program(home.path()).args(["import", "--name", name, "--from"]).arg(file));
    }
    let data = home.path().join("data");
    let service =
        Service::start_with("", &[("XDG_DATA_HOME", &data.display().to_string()), ("LIPSTREAM_SESSIONS_LOAD", "50")]);
    let create = |id: &str, enhance: &str| {
        let spec = json!({"id": id, "graph": "avatar", "always_on": true, "params": {"enhance": enhance}});
        let begun = Instant::now();
        loop {
            let answer = service.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
            if answer.0 != 503 || begun.elapsed() > Duration::from_secs(60) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    for (enhance, cause) in [
        (enhancer.display().to_string(), "is a file"),
        ("parser".into(), "of the family `occlusion`, no enhancer"),
        ("blur".into(), "there is no enhancer `blur`: there are gpen"),
    ] {
        let (status, text) = create("no", &enhance);
        assert!(
            status == 422 && text.contains("enhance: must be off, sharpen") && text.contains(cause),
            "{status} {text}"
        );
    }
    let (status, text) = create("one", "gpen");
    assert_eq!(status, 201, "{text}");
    let change = |params: Value| {
        let body = json!({ "params": params }).to_string();
        service.send("PATCH", "/api/v1/sessions/one", "application/json", body.as_bytes())
    };
    let (status, text) = change(json!({"enhance": "sharpen", "max-yaw": "40"}));
    assert!(status == 200 && text.contains("\"enhance\":\"sharpen\""), "{status} {text}");
    let (status, text) = change(json!({"enhance": "gpen", "enhance-every": "3", "fidelity": "0.7"}));
    assert!(status == 200 && text.contains("\"enhance-every\":\"3\""), "{status} {text}");
    let (status, text) = change(json!({"enhance": "/etc/passwd"}));
    assert!(status == 422 && text.contains("is a file"), "{status} {text}");
    let (begun, before) = (Instant::now(), service.session("one")["frames"].as_u64().unwrap());
    while service.session("one")["frames"].as_u64().unwrap() < before + 20 {
        let state = service.session("one");
        assert!(state["restarts"] == 0 && begun.elapsed() < Duration::from_secs(60), "{state}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
