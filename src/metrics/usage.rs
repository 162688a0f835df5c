//! What this process takes of the machine, from `/proc/self` (proc(5)).

use std::{fs, time::Duration};

/// Clock ticks a second in `/proc/self/stat`: USER_HZ is 100 on every Linux of today.
const TICKS: f64 = 100.0;

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
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the name in parentheses, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // Fields by the number that proc(5) gives them; the first here is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS,
            memory_bytes: resident.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024,
            threads: field(20)?,
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            start: Duration::from_secs_f64(field(22)? as f64 / TICKS),
        })
    }
}
