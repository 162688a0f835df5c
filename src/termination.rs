//! SIGINT and SIGTERM end the work in order: what runs looks at [`requested`], stops and cleans up. A second signal
//! ends the process at once, after removing the unfinished output.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use crate::error::{Failure, Kind, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// The unfinished output of this process.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Listens from now on. Called once.
pub fn listen() -> Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            if let Some(path) = UNFINISHED.lock().take() {
                // Nobody is left to be told of a failure.
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(path));
            }
            std::process::exit(Kind::Interrupted as i32);
        }
    })
    .map_err(|e| Failure::run(format!("signals cannot be handled: {e}")))
}

pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// The file or folder that a second signal must remove; `None` once it is finished or gone.
pub fn set_unfinished(path: Option<&Path>) {
    *UNFINISHED.lock() = path.map(Path::to_owned);
}
