//! What a version of an engine does in the sessions that have it, and when that is too bad to go on with.

/// Frames before which nothing is said of what comes late, and after which the oldest count less.
const FEWEST: u64 = 100;
const WINDOW: u64 = 1000;
/// Part of the frames that may come later than their latency promises.
const LATE: f64 = 0.05;
/// Frames, a minute of one session, after which a version that has not failed is trusted.
pub const PROVEN: u64 = 1500;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    /// Of the window.
    frames: f64,
    late: f64,
    /// Since it was loaded.
    pub total_frames: u64,
    pub total_late: u64,
    pub failures: u64,
}

impl Health {
    /// Takes what one session counted.
    pub fn count(&mut self, frames: u64, late: u64) {
        (self.total_frames, self.total_late) = (self.total_frames + frames, self.total_late + late);
        (self.frames, self.late) = (self.frames + frames as f64, self.late + late as f64);
        if self.frames > WINDOW as f64 {
            (self.frames, self.late) = (self.frames / 2.0, self.late / 2.0);
        }
    }

    /// Part of the frames that came late.
    fn lateness(&self) -> f64 {
        if self.frames < FEWEST as f64 { 0.0 } else { self.late / self.frames }
    }

    pub fn is_proven(&self) -> bool {
        self.failures == 0 && self.total_frames >= PROVEN
    }

    /// What is wrong with its latency; nothing where the other version beside it is as late: then the machine is to blame.
    pub fn verdict(&self, other: &Health) -> Option<String> {
        let (own, other) = (self.lateness(), other.lateness());
        (own > LATE && own > 2.0 * other).then(|| {
            format!(
                "{:.0} % of its frames came later than their latency promises, and {:.0} % may",
                own * 100.0,
                LATE * 100.0
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(frames: u64, late: u64) -> Health {
        let mut health = Health::default();
        health.count(frames, late);
        health
    }

    #[test]
    fn a_version_is_late_by_itself_and_not_with_the_machine() {
        let quiet = health(500, 0);
        let cause = health(200, 24).verdict(&quiet).unwrap();
        assert!(cause.starts_with("12 % of its frames came later"), "{cause}");
        assert_eq!(health(99, 99).verdict(&quiet), None, "too few");
        assert_eq!(health(200, 10).verdict(&quiet), None);
        assert_eq!(health(200, 24).verdict(&health(200, 20)), None, "the machine is busy");
    }

    #[test]
    fn what_was_late_long_ago_counts_less() {
        let mut own = health(1000, 60);
        assert!(own.verdict(&Health::default()).is_some());
        (0..10).for_each(|_| own.count(400, 0));
        assert_eq!(own.verdict(&Health::default()), None);
        assert!(own.is_proven() && !Health { failures: 1, ..own }.is_proven());
    }
}
