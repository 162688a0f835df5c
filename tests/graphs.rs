//! `lipstream run`, and the graphs that come with the project.

mod common;

use std::process::Command;

use common::*;

/// A second and a half of the demo.
fn inputs(folder: &std::path::Path) -> [String; 2] {
    let (video, audio) = (folder.join("video.mp4"), folder.join("audio.flac"));
    ffmpeg(&format!("-i {} -an -t 1.5 -c:v libx264 -preset ultrafast", demo_video().display()), &video);
    ffmpeg(&format!("-i {} -t 1.5", demo_audio().display()), &audio);
    [format!("video={}", video.display()), format!("audio={}", audio.display())]
}

#[test]
fn file_to_file() {
    let folder = tempfile::tempdir().unwrap();
    let [video, audio] = inputs(folder.path());
    let out = folder.path().join("a name with \"quotes\" and 'blanks'.mp4");
    succeed(
        lipstream(folder.path())
            .args(["run", "graphs/file.toml", "--set", &video, "--set", &audio, "--set", "preset=ultrafast"])
            .args(["--set", &format!("output={}", out.display())]),
    );
    assert!(probe(&out, "v").frames() >= 36);
    assert!((probe(&out, "a").end() - 1.5).abs() < 0.1);
}

#[test]
fn of_files_with_sound_and_picture_each_gives_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let [video, audio] = inputs(folder.path());
    let both = folder.path().join("both.mkv");
    let input = |setting: &str| setting.split_once('=').unwrap().1.to_owned();
    ffmpeg(&format!("-i {} -i {} -c copy", input(&video), input(&audio)), &both);
    let out = folder.path().join("out.mp4");
    succeed(
        lipstream(folder.path())
            .args(["run", "graphs/file.toml", "--set", &format!("video={}", both.display())])
            .args(["--set", &format!("audio={}", both.display()), "--set", "preset=ultrafast"])
            .args(["--set", &format!("output={}", out.display())]),
    );
    assert!(probe(&out, "v").frames() >= 36);
    assert!((probe(&out, "a").end() - 1.5).abs() < 0.1);
}

#[test]
fn the_printed_line_runs_in_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let [video, audio] = inputs(folder.path());
    let out = folder.path().join("it's out.mp4");
    let output = succeed(
        lipstream(folder.path())
            .args(["run", "graphs/file.toml", "--print", "--set", &video, "--set", &audio])
            .args(["--set", &format!("output={}", out.display())]),
    );
    let line = String::from_utf8(output.stdout).unwrap();
    let mut shell = gst_tool("sh", folder.path());
    succeed(shell.arg("-c").arg(line.trim()));
    assert!(probe(&out, "v").frames() >= 36);
}

#[test]
fn preview_plays_into_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [video, audio] = inputs(folder.path());
    succeed(
        lipstream(folder.path())
            .args(["run", "graphs/preview.toml", "--set", &video, "--set", &audio, "--set", "sync=false"])
            .args(["--set", "video-sink=fakesink", "--set", "audio-sink=fakesink"]),
    );
}

#[test]
fn every_graph_documents_its_parameters_and_asks_for_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join("graphs")).unwrap() {
        let graph = entry.unwrap().path();
        // Those of live sessions take what `lipstream serve` feeds them.
        let live = std::fs::read_to_string(&graph).unwrap().contains("\n[session]");
        let help = succeed(lipstream(folder.path()).arg("run").arg(&graph).arg("--help-params"));
        let help = String::from_utf8(help.stdout).unwrap();
        if live {
            assert!(help.contains("bitrate (int, 100..50000, default"), "{help}");
            continue;
        }
        assert!(help.contains("video (path, required)"), "{help}");
        let (code, stderr) = fail(lipstream(folder.path()).arg("run").arg(&graph));
        assert_eq!((code, stderr.lines().count()), (2, 1), "{stderr}");
        assert!(stderr.contains("needs --set video=... (Video"), "{stderr}");
    }
}

#[test]
fn an_error_in_the_graph_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stderr) = fail(lipstream(folder.path()).args([
        "run",
        "graphs/preview.toml",
        "--set",
        "video=/no/such/file.mp4",
        "--set",
        "audio=/no/such/file.wav",
        "--set",
        "video-sink=fakesink",
        "--set",
        "audio-sink=fakesink",
    ]));
    assert_eq!((code, stderr.lines().count()), (1, 1), "{stderr}");
    assert!(stderr.contains("/no/such/file"), "{stderr}");
}

#[test]
fn an_interrupted_graph_finishes_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("endless.toml");
    std::fs::write(
        &graph,
        r#"
        description = "Endless"
        launch = "videotestsrc is-live=true ! video/x-raw,width=128,height=128 ! x264enc tune=zerolatency ! mp4mux ! filesink location={output}"
        [params.output]
        type = "path"
        required = true
        doc = "File"
        "#,
    )
    .unwrap();
    let out = folder.path().join("out.mp4");
    let child = lipstream(folder.path())
        .arg("run")
        .arg(&graph)
        .args(["--set", &format!("output={}", out.display())])
        .spawn()
        .unwrap();
    let patience = std::time::Instant::now();
    while std::fs::metadata(&out).map_or(0, |m| m.len()) == 0 {
        assert!(patience.elapsed().as_secs() < 60, "the graph does not start");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    succeed(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(probe(&out, "v").frames() > 0);
}
