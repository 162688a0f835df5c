//! How a render is watched and stopped by whoever asked for it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::termination;

/// How far a render is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Standing {
    /// Part of the work that is done, 0..1.
    pub part: f32,
    /// Frames a second, once there are some.
    pub fps: Option<f64>,
    /// Until the last of them, where their number is known.
    pub left: Option<Duration>,
}

/// Is told from any thread.
pub(super) type Report = dyn Fn(Standing) + Send + Sync;

/// A hold on a render: clones are of the same one. The default reports to nobody and stops with the program.
#[derive(Clone, Default)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    report: Option<Arc<Report>>,
}

impl Watch {
    pub fn new(report: impl Fn(Standing) + Send + Sync + 'static) -> Self {
        Self { stop: Arc::default(), report: Some(Arc::new(report)) }
    }

    /// Ends the render soon, as an interruption.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || termination::requested()
    }

    pub(super) fn report(&self) -> Option<Arc<Report>> {
        self.report.clone()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("stopped", &self.stopped()).finish_non_exhaustive()
    }
}
