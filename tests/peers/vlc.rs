//! VLC without a screen, driven by its remote control.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::chown, net::UnixStream, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
};

use tempfile::TempDir;

use crate::{
    PATIENCE, end,
    live::{Running, eventually},
    screen,
};

pub const PROGRAM: &str = "/usr/bin/cvlc";
/// VLC does not run as root: this is `nobody`.
const NOBODY: u32 = 65534;

pub struct Vlc {
    process: Running,
    socket: UnixStream,
    lines: Receiver<String>,
    folder: TempDir,
}

/// What VLC counts.
#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    displayed: u64,
    lost: u64,
    played: u64,
    lost_sound: u64,
}

impl Vlc {
    pub fn play(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rc");
        let mut command = Command::new(PROGRAM);
        command
            .args(["-I", "oldrc", "--rc-fake-tty", "--rc-unix"])
            .arg(&path)
            .args(["--vout", "dummy", "--aout", "dummy", "--avcodec-hw", "none", "--no-osd", "--no-spu"])
            .args(["--snapshot-format", "png", "--snapshot-path"])
            .arg(folder.path())
            .args(["--play-and-exit", url])
            .env("HOME", folder.path())
            .env("LC_ALL", "C.UTF-8")
            .env_remove("XDG_RUNTIME_DIR")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if rustix::process::getuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let process = Running::start(&mut command);
        let mut socket = None;
        eventually(PATIENCE, "VLC opens its remote control", || {
            socket = UnixStream::connect(&path).ok();
            socket.is_some()
        });
        let socket = socket.unwrap();
        let reader = BufReader::new(socket.try_clone().unwrap()).lines();
        let (sender, lines) = channel();
        std::thread::spawn(move || reader.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { process, socket, lines, folder }
    }

    /// The lines that a command prints before one that begins with `end`.
    fn ask(&mut self, command: &str, end: &str) -> Vec<String> {
        writeln!(self.socket, "{command}").unwrap();
        let mut said = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{command}: {error}"));
            if line.starts_with(end) {
                return said;
            }
            said.push(line);
        }
    }

    fn stats(&mut self) -> Stats {
        let said = self.ask("stats", "stats: returned");
        let number = |name: &str| {
            let line = said.iter().find_map(|line| line.strip_prefix("| ")?.strip_prefix(name));
            line.and_then(|rest| rest.trim().trim_start_matches(':').trim().parse().ok()).unwrap_or(0)
        };
        Stats {
            displayed: number("frames displayed"),
            lost: number("frames lost"),
            played: number("buffers played"),
            lost_sound: number("buffers lost"),
        }
    }

    /// Pictures of what is shown, in their order.
    fn snapshots(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|kind| kind == "png")).collect();
        found.sort();
        found
    }

    fn snapshot(&mut self) {
        let before = self.snapshots().len();
        self.ask("snapshot", "snapshot: returned");
        eventually(PATIENCE, "VLC takes a picture", || self.snapshots().len() > before);
    }
    /// It plays the avatar in its own time, with sound.
    pub fn watch(&mut self) {
        eventually(PATIENCE, "VLC shows pictures", || self.stats().displayed > 25);
        self.snapshot();
        // VLC drops what is late for its clock, which the sound drives: what it does not drop is together. A machine that
        // was busy for a moment gets another look.
        let (mut before, mut now) = (self.stats(), Stats::default());
        eventually(PATIENCE, "VLC shows two seconds without a loss", || {
            now = self.stats();
            if now.lost > before.lost || now.lost_sound > before.lost_sound {
                println!("lost: {before:?}, {now:?}");
                before = now;
            }
            now.displayed >= before.displayed + 50 && now.played >= before.played + 80
        });
        println!("{now:?}");
        self.snapshot();
        eventually(PATIENCE, "VLC shows some more", || self.stats().displayed > now.displayed + 10);
        self.snapshot();
        let size = self.ask("info", "+----[ end of stream info").into_iter();
        let size: Vec<String> = size.filter(|line| line.starts_with("| Video resolution")).collect();
        assert_eq!(size, ["| Video resolution: 1280x720"]);
        screen::assert_avatar(&self.snapshots(), self.folder.path());
    }

    /// The stream has ended: so does VLC, without an error.
    pub fn end(self) {
        let (code, said) = end(self.process);
        assert!(code == 0 && said.contains("end of playlist, exiting"), "{code} {said}");
    }
}
