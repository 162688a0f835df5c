//! Reads a URL into a session: RTMP, SRT, RTSP, HTTP with files or HLS, and files where they are allowed.
//!
//! The connection is GStreamer's, the rest is that of every source (see [`crate::live`]). A source that ends, fails or
//! falls silent is tried again after a pause; the session holds its last picture meanwhile.

mod source;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::{CancellationToken, DropGuard};

use self::source::Source;
use crate::{
    address,
    link::{Backoff, Direction, LinkStatus, Report},
    live::Inlet,
    session::Refusal,
};

/// What may be read, with the customary ports.
pub const SCHEMES: &[(&str, u16)] = &[
    ("rtmp", 1935),
    ("rtmps", 443),
    ("srt", 9000),
    ("rtsp", 554),
    ("rtsps", 322),
    ("rtspt", 554),
    ("http", 80),
    ("https", 443),
];

/// A connection that lasted this long makes the next pause the shortest again.
const STEADY: Duration = Duration::from_secs(20);
/// How often a source is looked after.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether loopback and private addresses may be read from.
    pub private_addresses: bool,
    /// Whether `file://` URLs may be read.
    pub files: bool,
    /// A source from which no frame and no sound has come for this long is tried anew.
    pub patience: Duration,
    /// Shortest and longest pause before another try; it doubles in between.
    pub pause: (Duration, Duration),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            private_addresses: false,
            files: false,
            patience: Duration::from_secs(10),
            pause: (Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}

/// A URL that is being read. It ends when this is dropped.
pub struct Pull {
    report: Report,
    _stop: DropGuard,
}

impl Pull {
    /// Begins to read `url` into `inlet`. Only a URL that can never work is refused here; the rest is in the status.
    /// Called within a tokio runtime.
    pub fn start(inlet: Inlet, url: &str, settings: Settings) -> Result<Self, Refusal> {
        let shown = if is_file(url) {
            if !settings.files {
                return Err(Refusal::Invalid("pull: files may not be read by this server".into()));
            }
            url.to_owned()
        } else {
            let (parsed, _, _) =
                address::parse(url, SCHEMES).map_err(|refused| Refusal::Invalid(format!("pull: {refused}")))?;
            address::masked(&parsed)
        };
        let report = Report::new(shown, Direction::Pull);
        let stop = CancellationToken::new();
        tokio::spawn(keep_reading(Arc::new(inlet), url.to_owned(), settings, report.clone(), stop.clone()));
        Ok(Self { report, _stop: stop.drop_guard() })
    }

    pub fn status(&self) -> LinkStatus {
        self.report.status()
    }
}

fn is_file(url: &str) -> bool {
    url.starts_with("file://")
}

async fn keep_reading(inlet: Arc<Inlet>, url: String, settings: Settings, report: Report, stop: CancellationToken) {
    let mut backoff = Backoff::new(settings.pause, STEADY);
    loop {
        let began = Instant::now();
        let error = read_once(&inlet, &url, &settings, &report, &stop).await;
        if stop.is_cancelled() {
            return;
        }
        report.lost(&error);
        tokio::select! {
            () = tokio::time::sleep(backoff.pause(began.elapsed())) => {}
            () = stop.cancelled() => return,
        }
        inlet.restart();
    }
}

/// Reads until the source ends; says why it did.
async fn read_once(
    inlet: &Arc<Inlet>,
    url: &str,
    settings: &Settings,
    report: &Report,
    stop: &CancellationToken,
) -> String {
    let opened = if is_file(url) {
        let (inlet, url) = (inlet.clone(), url.to_owned());
        tokio::task::spawn_blocking(move || Source::file(&inlet, &url)).await
    } else {
        match address::check(url, SCHEMES, settings.private_addresses).await {
            Ok(checked) => {
                let (inlet, private) = (inlet.clone(), settings.private_addresses);
                tokio::task::spawn_blocking(move || Source::open(&inlet, &checked, private)).await
            }
            Err(refused) => return refused.to_string(),
        }
    };
    let source = match opened {
        Ok(Ok(source)) => source,
        Ok(Err(failure)) => return failure.to_string(),
        Err(_) => return "the pipeline could not be made".into(),
    };
    let error = loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => break String::new(),
        }
        if let Some(failure) = source.failure() {
            break failure;
        }
        if source.silent() > settings.patience {
            break format!("nothing has come for {} s", settings.patience.as_secs_f32());
        }
        if source.delivers() {
            report.connected();
        }
    };
    // Its threads are waited for, which is nothing for a thread of the runtime.
    let _ = tokio::task::spawn_blocking(move || drop(source)).await;
    error
}
