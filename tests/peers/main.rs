//! `lipstream serve` with peers that share no code with it: aiortc as viewer, publisher and SFU; mpv and VLC as players.

mod aiortc;
#[path = "../common/mod.rs"]
mod common;
#[path = "../live/mod.rs"]
mod live;
mod mpv;
mod players;
mod screen;
mod vlc;

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::service::Service;
use serde_json::{Value, json};

/// For one condition on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Services and their peers one after the other: two are more than a small machine holds.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a peer is there. `make test` has installed it; other ways to run the tests may go without.
fn installed(program: &Path) -> bool {
    if program.exists() {
        return true;
    }
    let missing = format!("{} is not there (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)", program.display());
    let needed = std::env::var("LIPSTREAM_SETUP_TESTS").is_ok_and(|value| value != "0");
    assert!(!needed, "{missing}; LIPSTREAM_SETUP_TESTS=0 goes without");
    println!("skipped: {missing}");
    false
}

/// Waits for a player's end; exit code and standard error.
fn end(process: live::Running) -> (i32, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(process.end(PATIENCE))
}

/// A service that may push to this machine, with the session `stage`: the demo avatar, watched or not.
fn stage(push: &[&str]) -> Service {
    let service = Service::start_with("", &[("LIPSTREAM_SESSIONS_PRIVATE_ADDRESSES", "true")]);
    create(&service, json!({ "id": "stage", "graph": "avatar", "avatar": "demo", "always_on": true, "push": push }));
    service
}

fn create(service: &Service, spec: Value) {
    let (status, text) = service.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
    assert_eq!(status, 201, "{text}");
}

/// Begins some 19 s of speech.
fn speak(service: &Service, session: &str) {
    let speech = std::fs::read(common::demo_audio()).unwrap();
    let (status, text) = service.send("POST", &format!("/api/v1/sessions/{session}/speak"), "audio/flac", &speech);
    assert!(status < 300, "{status} {text}");
}

fn delete(service: &Service, session: &str) {
    let (status, text) = service.send("DELETE", &format!("/api/v1/sessions/{session}"), "", b"");
    assert!(status < 300, "{status} {text}");
}
