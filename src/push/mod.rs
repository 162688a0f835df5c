//! Pushes a session's output to other servers, by RTMP, RTMPS, SRT or WHIP.
//!
//! RTMP is our own client (see [`crate::rtmp`]), not `rtmp2sink`: it shares the session's packets without a pipeline,
//! connects to the very address that was checked, and a server's refusal reaches the status in its own words. SRT is
//! GStreamer's `srtsink`.
//!
//! A push is a viewer like others: it connects when there is something to send, comes back after a pause when the
//! connection breaks, and the session notices nothing.

mod dial;
mod rtmp;
mod srt;
mod whip;

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    address,
    link::{Backoff, Direction, LinkStatus, Report},
    live::{Codec, Outlet, Packet, Viewer},
    session::{Refusal, Session},
};

/// Codecs of a push, and of one by WHIP.
const CODECS: [Codec; 2] = [Codec::H264, Codec::Aac];
const WHIP_CODECS: [Codec; 2] = [Codec::H264, Codec::Opus];
/// A connection that lasted this long makes the next pause the shortest again.
const STEADY: Duration = Duration::from_secs(20);

/// What may be pushed to, with the customary ports.
pub const SCHEMES: &[(&str, u16)] =
    &[("rtmp", 1935), ("rtmps", 443), ("srt", 9000), ("whip", 80), ("whips", 443), ("http", 80), ("https", 443)];

/// Those that are by WHIP.
const WHIP_SCHEMES: [&str; 4] = ["whip", "whips", "http", "https"];

#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether loopback and private addresses may be pushed to.
    pub private_addresses: bool,
    /// Time for the server to answer or to take data.
    pub patience: Duration,
    /// Shortest and longest pause before another try; it doubles in between.
    pub pause: (Duration, Duration),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            private_addresses: false,
            patience: Duration::from_secs(10),
            pause: (Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}

/// What is pushed.
pub trait Source: Send + Sync + 'static {
    fn watch(&self, codecs: &[Codec]) -> impl Future<Output = Result<Viewer, Refusal>> + Send;
    fn outlet(&self) -> &Arc<Outlet>;
}

impl Source for Arc<Session> {
    async fn watch(&self, codecs: &[Codec]) -> Result<Viewer, Refusal> {
        Session::watch(self, codecs).await
    }

    fn outlet(&self) -> &Arc<Outlet> {
        Session::outlet(self)
    }
}

impl Source for Arc<Outlet> {
    async fn watch(&self, codecs: &[Codec]) -> Result<Viewer, Refusal> {
        Ok(Outlet::watch(self, codecs))
    }

    fn outlet(&self) -> &Arc<Outlet> {
        self
    }
}

/// A running push. It ends when it is dropped and when its session does.
pub struct Push {
    report: Report,
    _stop: DropGuard,
}

impl Push {
    /// Begins to push `source` to `url`. Only a URL that can never work is refused here; the rest is in the status.
    /// Called within a tokio runtime.
    pub fn start(source: impl Source, url: &str, settings: Settings) -> Result<Self, Refusal> {
        let (parsed, _, _) =
            address::parse(url, SCHEMES).map_err(|refused| Refusal::Invalid(format!("push: {refused}")))?;
        let report = Report::new(address::masked(&parsed), Direction::Push);
        let stop = CancellationToken::new();
        let task = keep_pushing(source, url.to_owned(), settings, report.clone());
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { report, _stop: stop.drop_guard() })
    }

    pub fn status(&self) -> LinkStatus {
        self.report.status()
    }
}

/// What a push has to send: the packets from a key frame on.
struct Feed {
    first: Option<Packet>,
    viewer: Viewer,
}

impl Feed {
    /// Cancel safe.
    async fn next(&mut self) -> Option<Packet> {
        match self.first.take() {
            Some(packet) => Some(packet),
            None => self.viewer.recv().await,
        }
    }

    fn is_marked(&self) -> bool {
        self.viewer.outlet().is_marked()
    }

    fn header(&self) -> Option<bytes::Bytes> {
        self.viewer.outlet().header(Codec::Aac)
    }
}

async fn keep_pushing(source: impl Source, url: String, settings: Settings, report: Report) {
    let mut backoff = Backoff::new(settings.pause, STEADY);
    while !source.outlet().is_closed() {
        let began = Instant::now();
        // The WebRTC library asserts a few things that a server can break.
        match AssertUnwindSafe(push_once(&source, &url, &settings, &report)).catch_unwind().await {
            Ok(Ok(())) => return report.ended(),
            Ok(Err(error)) => report.lost(&error),
            Err(_) => report.lost("it failed; the log says why"),
        }
        tokio::time::sleep(backoff.pause(began.elapsed())).await;
    }
    report.ended();
}

/// Pushes until the connection breaks; `Ok` at the end of the session.
async fn push_once(source: &impl Source, url: &str, settings: &Settings, report: &Report) -> Result<(), String> {
    let (parsed, _, _) = address::parse(url, SCHEMES).map_err(|refused| refused.to_string())?;
    let whip = WHIP_SCHEMES.contains(&parsed.scheme());
    let codecs = if whip { &WHIP_CODECS } else { &CODECS };
    let mut viewer = source.watch(codecs).await.map_err(|refusal| refusal.to_string())?;
    let first = loop {
        match viewer.recv().await {
            Some(packet) if packet.codec.is_video() => break packet,
            Some(_) => {}
            None => return Ok(()),
        }
    };
    let feed = Feed { first: Some(first), viewer };
    let checked =
        address::check(url, SCHEMES, settings.private_addresses).await.map_err(|refused| refused.to_string())?;
    match checked.url.scheme() {
        "srt" => srt::push(&checked, settings, feed, report).await,
        _ if whip => whip::push(&checked, settings, feed, report).await,
        _ => rtmp::push(&checked, settings, feed, report).await,
    }
}
