//! What a session is counted for its owner.

use std::{sync::atomic::Ordering, time::Duration};

use gstlipstream::sync::LipSyncStats;

use super::Session;
use crate::tenants::Totals;

impl Session {
    /// Counts for its owner what it has used since it was last counted.
    pub(in crate::session) fn settle(&self) {
        let Some(owner) = &self.owner else { return };
        let mut settled = self.settled.lock();
        let now = self.used();
        owner.count(now.since(*settled));
        *settled = settled.largest(now);
    }

    /// Used since it was created.
    fn used(&self) -> Totals {
        let (graph, ran, card) = {
            let state = self.state.lock();
            let running = state.running.as_ref();
            let ran = running.map_or(Duration::ZERO, |running| running.since.elapsed());
            (running.map(|running| running.graph.clone()), ran, running.is_some_and(|running| running.card))
        };
        let before = &self.before;
        let gpu = graph.as_ref().filter(|_| card).map_or(0, |graph| of_device(&graph.stats()));
        Totals {
            session_us: before.ran_us.load(Ordering::Relaxed) + micros(ran),
            gpu_us: before.gpu_us.load(Ordering::Relaxed) + gpu,
            frames: before.frames.load(Ordering::Relaxed) + graph.map_or(0, |graph| graph.meter.frames()),
            egress_bytes: self.outlet.sent_bytes(),
        }
    }
}

/// Microseconds that the engines of a graph's voices took of their device.
pub(super) fn of_device(stats: &LipSyncStats) -> u64 {
    stats.denoise.device_time + stats.denoise_b.device_time
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
