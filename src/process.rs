//! What this process and the machine spend, from `/proc` (proc(5)).

use std::{path::Path, time::Duration};

use procfs::{CurrentSI, KernelStats, process::Process};

/// What this process takes of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Resident.
    pub memory_bytes: u64,
    pub threads: u64,
    pub open_files: u64,
    /// Time since the machine started at which the process did.
    pub start: Duration,
}

impl Usage {
    /// Zeros where the system does not tell.
    pub fn now() -> Self {
        Self::read().unwrap_or_default()
    }

    fn read() -> Option<Self> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        Some(Self {
            cpu_seconds: ticks(stat.utime + stat.stime).as_secs_f64(),
            memory_bytes: process.status().ok()?.vmrss? * 1024,
            threads: stat.num_threads as u64,
            open_files: process.fd_count().unwrap_or(0) as u64,
            start: ticks(stat.starttime),
        })
    }
}

/// User and system time that this process has taken.
pub fn cpu_time() -> Option<Duration> {
    let stat = Process::myself().ok()?.stat().ok()?;
    Some(ticks(stat.utime + stat.stime))
}

/// Time that the machine's cores have been busy. What is stolen is not there for us either. Nice programs step back for
/// us, and so do our own renders.
pub fn busy_time() -> Option<Duration> {
    let total = KernelStats::current().ok()?.total;
    let interrupts = [total.irq, total.softirq, total.steal].into_iter().flatten().sum::<u64>();
    Some(ticks(total.user + total.system + interrupts))
}

/// Most memory that this process has held, in bytes.
pub fn peak_memory() -> Option<u64> {
    Some(Process::myself().ok()?.status().ok()?.vmhwm? * 1024)
}

/// Whether a process of this number runs.
pub fn runs(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// Ticks of the kernel's counters.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(1000) / procfs::ticks_per_second().max(1))
}
