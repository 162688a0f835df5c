//! A NATS server with JetStream: Debian's.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Ends with the test.
pub struct Nats {
    child: Child,
    /// `nats://HOST:PORT`
    pub url: String,
}

impl Nats {
    /// Keeps what it keeps in `folder`. `None` where it is not installed.
    pub fn start(folder: &Path) -> Option<Self> {
        let program = ["/usr/sbin/nats-server", "/usr/bin/nats-server"].into_iter().find(|p| Path::new(p).is_file());
        let Some(program) = program else {
            eprintln!("skipped: no nats-server (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh installs it)");
            return None;
        };
        let mut command = Command::new(program);
        command.args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"]).arg(folder);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("nats-server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("is piped")).lines().map_while(Result::ok);
        let listens = "Listening for client connections on ";
        let url = lines.find_map(|line| Some(format!("nats://{}", line.split_once(listens)?.1.trim())));
        let url = url.expect("nats-server listens");
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, url })
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
