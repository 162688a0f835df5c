//! Pauses between tries.

use std::time::Duration;

/// Pauses that double from the shortest to the longest, until a try has gone well for long enough.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    /// A try that lasted this long makes the next pause the shortest again.
    steady: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new((shortest, longest): (Duration, Duration), steady: Duration) -> Self {
        Self { shortest, longest, steady, next: shortest }
    }

    /// Begins with another pause than the shortest.
    pub fn starting_at(self, first: Duration) -> Self {
        Self { next: first.min(self.longest), ..self }
    }

    /// The pause after a try that has failed after `lasted`.
    pub fn pause(&mut self, lasted: Duration) -> Duration {
        let pause = if lasted >= self.steady { self.shortest } else { self.next };
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_a_try_has_been_steady() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new((seconds(1), seconds(5)), seconds(20));
        let pauses: Vec<u64> = [0, 0, 19, 0, 20, 1].map(|lasted| backoff.pause(seconds(lasted)).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 5, 1, 2]);
        let mut later = Backoff::new((seconds(1), seconds(5)), seconds(20)).starting_at(seconds(2));
        assert_eq!([0, 0, 30].map(|lasted| later.pause(seconds(lasted)).as_secs()), [2, 4, 1]);
    }
}
