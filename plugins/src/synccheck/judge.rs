//! The thread that judges.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use lipstream_engines::{
    Error, Result,
    manifest::Package,
    quality::{expert::Expert, sync::SyncJudge},
    runtime::{Device, Options},
    stats::Timer,
    tracker::LipReader,
};
use parking_lot::Mutex;

use super::{
    Actions, Lag, SyncStats,
    drift::{Change, Drift},
    inbox::Inbox,
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("lipsynccheck", gst::DebugColorFlags::empty(), Some("Lipstream sync check"))
});

/// Niceness of the thread: frames go first.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
/// Milliseconds of a frame.
const FRAME_MS: i32 = 40;

/// Whatever the engine runs on: small networks on one CPU thread, which is the judge's own.
pub fn networks() -> Result<(Expert, Arc<LipReader>)> {
    let options = Options { device: Device::Cpu, threads: 1, ..Options::default() };
    Ok((Expert::load(&Package::find("expert")?, &options)?, Arc::new(LipReader::load(&options)?)))
}

#[derive(Default)]
struct Found {
    lags: Mutex<(Lag, Lag)>,
    check: Timer,
    corrections: AtomicU64,
    /// Milliseconds.
    shift: Mutex<i32>,
}

/// The thread, until it is dropped.
pub struct Judge {
    inbox: Arc<Inbox>,
    found: Arc<Found>,
    thread: Option<JoinHandle<()>>,
}

impl Judge {
    pub fn start(
        inbox: Arc<Inbox>,
        (expert, reader): (Expert, Arc<LipReader>),
        interval: Duration,
        actions: Actions,
    ) -> Result<Self> {
        let found = Arc::<Found>::default();
        let judge = SyncJudge::new(expert, reader, interval);
        let (own_inbox, own_found) = (inbox.clone(), found.clone());
        let thread = std::thread::Builder::new().name("sync-check".into()).spawn(move || {
            yield_to_frames();
            if let Err(error) = run(&own_inbox, judge, &actions, &own_found) {
                *own_found.lags.lock() = Default::default();
                (actions.fail)(error);
            }
        });
        let thread = thread.map_err(|e| Error::invalid(format!("no thread for the sync check: {e}")))?;
        Ok(Self { inbox, found, thread: Some(thread) })
    }

    pub fn statistics(&self) -> SyncStats {
        let (sync, source) = *self.found.lags.lock();
        SyncStats {
            sync,
            source,
            check: (&self.found.check).into(),
            corrections: self.found.corrections.load(Relaxed),
            shift: (*self.found.shift.lock()).into(),
            missed: 0,
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.inbox.end();
        if let Some(thread) = self.thread.take() {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

fn yield_to_frames() {
    #[cfg(target_os = "linux")]
    // Of the calling thread, as Linux has it. A system that refuses leaves it as it is.
    let _ = rustix::process::setpriority_process(None, NICE);
}

fn run(inbox: &Inbox, mut judge: SyncJudge, actions: &Actions, found: &Found) -> Result<()> {
    let mut drift = Drift::default();
    while let Some(post) = inbox.take() {
        if post.flushed {
            judge.flush();
        }
        post.sounds.iter().for_each(|(time, samples)| judge.hear(*time, samples));
        post.frames.into_iter().for_each(|seen| judge.see(seen));
        let start = Instant::now();
        let Some(checked) = judge.check()? else { continue };
        found.check.record(start.elapsed());
        let (made, source) = (judge.made(), judge.source());
        gst::debug!(CAT, "{checked:?}: made {made:?}, source {source:?}");
        *found.lags.lock() = (made.into(), source.into());
        let mut changes = Vec::new();
        if checked.frames[0] > 0 {
            let after = actions.correct_after.load(Relaxed);
            changes = drift.made(checked.time, made, (after > 0).then(|| Duration::from_secs(after)));
        }
        if checked.frames[1] > 0 {
            changes.extend(drift.source(checked.time, source));
        }
        for change in changes {
            if let Change::Corrected { .. } = change {
                found.corrections.fetch_add(1, Relaxed);
                *found.shift.lock() = drift.shift() * FRAME_MS;
                (actions.shift)(drift.shift() * FRAME_MS);
                judge.forget_made();
            }
            (actions.tell)(change, checked.time);
        }
    }
    Ok(())
}
