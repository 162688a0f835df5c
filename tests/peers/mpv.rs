//! mpv without a screen, driven by its JSON IPC.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    PATIENCE, end,
    live::{Running, eventually},
    screen,
};

pub const PROGRAM: &str = "/usr/bin/mpv";

#[derive(Default)]
struct Heard {
    /// PTS in seconds, as pictures were shown.
    positions: Vec<f64>,
    end: Option<String>,
}

pub struct Mpv {
    process: Running,
    socket: UnixStream,
    answers: Receiver<Value>,
    heard: Arc<Mutex<Heard>>,
    folder: TempDir,
}

impl Mpv {
    pub fn play(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ipc");
        let process = Running::start(
            Command::new(PROGRAM)
                .args(["--no-config", "--no-terminal", "--vo=null", "--ao=null", "--rebase-start-time=no"])
                .arg("--af=@sound:lavfi=[astats=metadata=1:reset=1]")
                .arg(format!("--input-ipc-server={}", path.display()))
                .arg(url)
                .env("HOME", folder.path())
                .stdout(Stdio::null()),
        );
        let mut socket = None;
        eventually(PATIENCE, "mpv opens its IPC", || {
            socket = UnixStream::connect(&path).ok();
            socket.is_some()
        });
        let socket = socket.unwrap();
        let lines = BufReader::new(socket.try_clone().unwrap()).lines();
        let (heard, (sender, answers)) = (Arc::new(Mutex::new(Heard::default())), channel());
        let hears = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let said: Value = serde_json::from_str(&line).unwrap();
                match said["event"].as_str() {
                    // Before it, the position is that of a file that has not begun.
                    Some("playback-restart") => hears.lock().positions.clear(),
                    Some("property-change") => hears.lock().positions.extend(said["data"].as_f64()),
                    Some("end-file") => hears.lock().end = said["reason"].as_str().map(str::to_owned),
                    Some(_) => {}
                    None => drop(sender.send(said)),
                }
            }
        });
        let mut mpv = Self { process, socket, answers, heard, folder };
        mpv.ask(json!(["observe_property", 1, "time-pos"]));
        mpv
    }

    /// What mpv answers to a command.
    fn ask(&mut self, command: Value) -> Value {
        writeln!(self.socket, "{}", json!({ "command": command })).unwrap();
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub fn number(&mut self, property: &str) -> Option<f64> {
        self.ask(json!(["get_property", property]))["data"].as_f64()
    }

    /// RMS of the last frame of sound in dB.
    fn level(&mut self) -> Option<f64> {
        let measured = self.ask(json!(["get_property", "af-metadata/sound"]));
        measured["data"]["lavfi.astats.Overall.RMS_level"].as_str()?.parse().ok()
    }

    fn shown(&self) -> usize {
        self.heard.lock().positions.len()
    }

    /// Takes a picture of what is shown.
    fn screenshot(&mut self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let answer = self.ask(json!(["screenshot-to-file", path, "video"]));
        assert_eq!(answer["error"], "success", "{answer}");
        path
    }

    /// It plays the avatar in its own time, with sound, which it heard after speech was begun.
    pub fn watch(&mut self, speak: impl FnOnce()) {
        eventually(PATIENCE, "mpv shows pictures", || self.shown() > 25);
        let first = self.screenshot("first.png");
        speak();
        let mut loudest = f64::NEG_INFINITY;
        eventually(PATIENCE, "mpv hears the voice", || {
            loudest = loudest.max(self.level().unwrap_or(loudest));
            loudest > -35.0
        });
        eventually(PATIENCE, "mpv shows a few seconds", || self.shown() > 75);
        // Until the player has settled: a busy machine starts with a hiccup.
        let mut apart = f64::NAN;
        eventually(PATIENCE, "picture and sound together", || {
            apart = self.number("avsync").unwrap_or(f64::NAN);
            apart.abs() < 0.04
        });
        println!("{} pictures, A-V {apart:.3} s, sound of {loudest:.1} dB", self.shown());
        let corrected = self.number("total-avsync-change").unwrap();
        assert!(corrected.abs() < 0.5, "picture and sound were {corrected} s apart in all");
        assert_eq!((self.number("width"), self.number("height")), (Some(1280.0), Some(720.0)));
        let second = self.screenshot("second.png");
        let shown = self.shown();
        eventually(PATIENCE, "mpv shows some more", || self.shown() > shown + 10);
        let third = self.screenshot("third.png");
        screen::assert_avatar(&[first, second, third], self.folder.path());
    }

    /// PTS as they were shown, the first near `start`, and each after the one before. A busy machine drops pictures; the
    /// time without viewers is longer than that.
    pub fn assert_steady(&self, start: f64) {
        let positions = self.heard.lock().positions.clone();
        assert!((positions[0] - start).abs() < 0.5, "it begins at {} s, not at {start} s", positions[0]);
        for pair in positions.windows(2) {
            let step = pair[1] - pair[0];
            assert!(step > 0.0 && step < 6.0, "a step of {step} s at {} s", pair[0]);
        }
    }

    /// The stream has ended: so does mpv, without an error.
    pub fn end(self) {
        let (code, _) = end(self.process);
        assert_eq!((code, self.heard.lock().end.as_deref()), (0, Some("eof")));
    }
}
