//! What the whole-program tests share: the program, a second program (ffmpeg) that judges its output, and inputs.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod nats;
pub mod s3;
pub mod service;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a machine makes once, and tests would make a hundred times: GStreamer's registry of plugins, the prepared demo.
pub fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The program, with its cache in `folder` so that tests neither share nor leave anything.
pub fn lipstream(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lipstream"));
    command.env("XDG_CACHE_HOME", folder.join("cache")).env("XDG_DATA_HOME", folder.join("data"));
    command.env("GST_REGISTRY", kept("registry.bin")).env_remove("LIPSTREAM_LOG").current_dir(root());
    command
}

/// A folder with a management library of NVIDIA's for the system's loader.
pub fn fake_driver() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    succeed(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(root().join("tests/common/nvidia.c")));
    folder
}

/// Folder of the built plugin, for GStreamer's own tools.
pub fn plugin_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_lipstream")).parent().expect("a program lies in a folder").to_owned();
    assert!(folder.join("libgstlipstream.so").is_file(), "no plugin in {}: run `make build`", folder.display());
    folder
}

/// A tool of GStreamer that sees the plugin, with its cache in `folder`.
pub fn gst_tool(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    command
        .env("GST_PLUGIN_PATH", plugin_folder())
        .env("GST_REGISTRY", kept("registry-with-plugin.bin"))
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .current_dir(root());
    command
}

/// No program of a test takes that long on a machine of any kind.
const AT_MOST: Duration = Duration::from_secs(300);

/// What a command printed and how it ended. One that has come to a standstill is killed and named, so that the other
/// tests go on.
#[track_caller]
fn outcome(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let pid = child.id();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(AT_MOST).unwrap_or_else(|_| {
        // Nothing has waited for the child yet, so that the number is still its own.
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        panic!("{command:?}: still runs after {AT_MOST:?}");
    });
    output.unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

#[track_caller]
pub fn succeed(command: &mut Command) -> Output {
    let output = outcome(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Exit code and standard error of a command that is expected to fail.
#[track_caller]
pub fn fail(command: &mut Command) -> (i32, String) {
    let output = outcome(command);
    let code = output.status.code().unwrap_or_else(|| panic!("{command:?}: killed: {}", output.status));
    assert_ne!(code, 0, "{command:?} should have failed");
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `ffmpeg -y ARGUMENTS OUT`.
#[track_caller]
pub fn ffmpeg(arguments: &str, out: &Path) {
    let arguments = arguments.split_whitespace();
    succeed(
        Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-y"]).args(arguments).arg(out).current_dir(root()),
    );
}

/// The stream of `kind` (`v` or `a`) as ffprobe sees it, frames counted.
#[track_caller]
pub fn probe(file: &Path, kind: &str) -> Stream {
    let output = succeed(
        Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-of",
                "json",
                "-count_packets",
                "-show_streams",
                "-show_packets",
                "-select_streams",
                kind,
            ])
            .arg(file),
    );
    let json: Value = serde_json::from_slice(&output.stdout).expect("ffprobe prints JSON");
    let stream = &json["streams"][0];
    assert!(stream.is_object(), "{}: no stream {kind}", file.display());
    let seconds = |v: &Value| v.as_str().and_then(|s| s.parse::<f64>().ok()).unwrap_or(0.0);
    let packets = json["packets"].as_array().into_iter().flatten();
    let last_packet_end = packets.map(|p| seconds(&p["pts_time"]) + seconds(&p["duration_time"])).fold(0.0, f64::max);
    Stream { json: stream.clone(), last_packet_end }
}

pub struct Stream {
    json: Value,
    last_packet_end: f64,
}

impl Stream {
    pub fn number(&self, key: &str) -> f64 {
        let value = &self.json[key];
        value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{key} in {}", self.json))
    }

    pub fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_else(|| panic!("{key} in {}", self.json))
    }

    pub fn frames(&self) -> usize {
        self.number("nb_read_packets") as usize
    }

    /// Seconds at which the last packet ends, or before which an edit list ends it.
    pub fn end(&self) -> f64 {
        if self.json["duration"].is_null() {
            self.last_packet_end
        } else {
            self.number("start_time") + self.number("duration")
        }
    }
}

/// Samples of the first audio stream as interleaved s16, as ffmpeg decodes them.
#[track_caller]
pub fn samples_by_ffmpeg(file: &Path, folder: &Path) -> Vec<u8> {
    let raw = folder.join("ffmpeg.raw");
    ffmpeg(&format!("-i {} -map 0:a:0 -f s16le", file.display()), &raw);
    std::fs::read(raw).expect("ffmpeg wrote it")
}

/// Samples of the first audio stream as interleaved f32, as GStreamer decodes them.
#[track_caller]
pub fn samples_by_gstreamer(file: &Path, folder: &Path) -> Vec<u8> {
    let raw = folder.join("gstreamer.raw");
    succeed(
        gst_tool("gst-launch-1.0", folder)
            .args(["-q", "filesrc"])
            .arg(format!("location={}", file.display()))
            .args(
                "! decodebin3 ! audioconvert \
                 ! audio/x-raw,format=F32LE,layout=interleaved ! filesink"
                    .split(' '),
            )
            .arg(format!("location={}", raw.display())),
    );
    std::fs::read(raw).expect("GStreamer wrote it")
}

/// Decoded luma of every frame.
pub struct Luma {
    pub width: usize,
    pub height: usize,
    data: Vec<u8>,
}

impl Luma {
    #[track_caller]
    pub fn of(file: &Path, folder: &Path) -> Self {
        let raw = folder.join("luma.raw");
        ffmpeg(&format!("-i {} -map 0:v:0 -vsync passthrough -pix_fmt gray -f rawvideo", file.display()), &raw);
        let stream = probe(file, "v");
        let (width, height) = (stream.number("width") as usize, stream.number("height") as usize);
        Self { width, height, data: std::fs::read(raw).expect("ffmpeg wrote it") }
    }

    pub fn len(&self) -> usize {
        self.data.len() / (self.width * self.height)
    }

    pub fn frame(&self, index: usize) -> &[u8] {
        let size = self.width * self.height;
        &self.data[index * size..(index + 1) * size]
    }

    /// Mean absolute difference between two frames of two videos within a rectangle (x, y, w, h, each 0..1).
    pub fn difference(&self, index: usize, other: &Self, other_index: usize, rect: (f64, f64, f64, f64)) -> f64 {
        let (a, b) = (self.frame(index), other.frame(other_index));
        let columns = (rect.0 * self.width as f64) as usize..((rect.0 + rect.2) * self.width as f64) as usize;
        let rows = (rect.1 * self.height as f64) as usize..((rect.1 + rect.3) * self.height as f64) as usize;
        let mut sum = 0u64;
        let mut count = 0u64;
        for y in rows {
            for x in columns.clone() {
                sum += u64::from(a[y * self.width + x].abs_diff(b[y * self.width + x]));
                count += 1;
            }
        }
        sum as f64 / count.max(1) as f64
    }
}

/// The demo input; it is part of the project.
pub fn demo_video() -> PathBuf {
    root().join("demo/avatar.mp4")
}

pub fn demo_audio() -> PathBuf {
    root().join("demo/speech.flac")
}

/// Number of bits in the mark that [`marked`] puts on each frame.
const MARK_BITS: usize = 8;
/// Side of a bit in pixels.
const MARK_SIDE: usize = 16;

/// The first `frames` frames of the demo with their ordinal as a row of black and white squares in the top left corner.
pub fn marked(frames: usize, folder: &Path, name: &str) -> PathBuf {
    let out = folder.join(name);
    let mut filter = format!("drawbox=x=0:y=0:w={}:h={MARK_SIDE}:c=black:t=fill", MARK_BITS * MARK_SIDE);
    for bit in 0..MARK_BITS {
        filter += &format!(
            ",drawbox=x={}:y=0:w={MARK_SIDE}:h={MARK_SIDE}:c=white:t=fill:enable=mod(floor(n/{})\\,2)",
            bit * MARK_SIDE,
            1 << bit
        );
    }
    ffmpeg(
        &format!(
            "-i {} -an -frames:v {frames} -vf {filter} -c:v libx264 -preset ultrafast -crf 12",
            demo_video().display()
        ),
        &out,
    );
    out
}

/// The ordinals that a video of marked frames shows.
pub fn marks(file: &Path, folder: &Path) -> Vec<usize> {
    let luma = Luma::of(file, folder);
    (0..luma.len())
        .map(|i| {
            let frame = luma.frame(i);
            let bit = |b: usize| frame[MARK_SIDE / 2 * luma.width + b * MARK_SIDE + MARK_SIDE / 2] > 127;
            (0..MARK_BITS).filter(|b| bit(*b)).map(|b| 1 << b).sum()
        })
        .collect()
}

/// Footage that is not part of the project, where LIPSTREAM_SHARED or a folder `shared` beside the project has it.
pub fn shared(path: &str) -> Option<PathBuf> {
    let base =
        std::env::var_os("LIPSTREAM_SHARED").map(PathBuf::from).or_else(|| Some(root().parent()?.join("shared")))?;
    let found = Some(base.join(path)).filter(|p| p.exists());
    if found.is_none() {
        eprintln!("skipped: {path} is not in {} (LIPSTREAM_SHARED)", base.display());
    }
    found
}

/// Names in a folder, hidden ones included.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
