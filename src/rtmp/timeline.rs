//! A source's timestamps as one rising time.

use std::time::{Duration, Instant};

/// Where a source's time starts: room for pictures that are shown before the first message's time.
const ORIGIN: i64 = 10_000;
/// Sound and picture of one encoder are closer together than this; further back is a new start.
const BACK: i64 = 1_500;
/// A gap may be this much longer than it lasted in truth; a longer one is a new start.
const AHEAD: i64 = 10_000;

/// Unwraps 32-bit milliseconds and closes jumps. See [`Timeline::place`].
#[derive(Default)]
pub struct Timeline {
    last: Option<Last>,
}

struct Last {
    raw: u32,
    at: i64,
    seen: Instant,
}

/// A message's place in the source's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    milliseconds: i64,
    /// The source's timestamps have jumped: what follows has a new relation to what came before.
    pub restarted: bool,
}

impl Placed {
    pub fn time(self) -> Duration {
        self.shown(0)
    }

    pub fn shown(self, composition: i32) -> Duration {
        Duration::from_millis((self.milliseconds + i64::from(composition)).max(0) as u64)
    }
}

impl Timeline {
    /// Places a message with timestamp `raw` that arrives `now`. A wrap is unwrapped. After a jump that no gap explains
    /// the time goes on by as much as has passed, so that it never runs back through decoders.
    pub fn place(&mut self, raw: u32, now: Instant) -> Placed {
        let (milliseconds, restarted) = match &self.last {
            None => (ORIGIN, false),
            Some(last) => {
                let step = i64::from(raw.wrapping_sub(last.raw) as i32);
                let passed = now.saturating_duration_since(last.seen).as_millis().min(i64::MAX as u128) as i64;
                if step < -BACK || step > passed.saturating_add(AHEAD) {
                    (last.at + passed.max(1), true)
                } else {
                    (last.at + step, false)
                }
            }
        };
        self.last = Some(Last { raw, at: milliseconds, seen: now });
        Placed { milliseconds, restarted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_over_the_wrap_of_32_bits() {
        let (mut line, now) = (Timeline::default(), Instant::now());
        let first = line.place(u32::MAX - 9, now);
        let second = line.place(30, now);
        assert_eq!((second.time() - first.time()).as_millis(), 40);
        assert!(!second.restarted);
        // Sound a little before the picture is no jump.
        assert_eq!(line.place(10, now), Placed { milliseconds: second.milliseconds - 20, restarted: false });
    }

    #[test]
    fn a_restarted_encoder_goes_on_after_the_time_that_passed() {
        let (mut line, now) = (Timeline::default(), Instant::now());
        let first = line.place(600_000, now);
        let second = line.place(0, now + Duration::from_secs(2));
        assert!(second.restarted);
        assert_eq!((second.time() - first.time()).as_millis(), 2000);
        let third = line.place(40, now + Duration::from_secs(2));
        assert_eq!(((third.time() - second.time()).as_millis(), third.restarted), (40, false));
    }

    #[test]
    fn a_stall_keeps_its_length_and_a_leap_does_not() {
        let (mut line, now) = (Timeline::default(), Instant::now());
        let first = line.place(0, now);
        let stalled = line.place(20_000, now + Duration::from_secs(20));
        assert_eq!(((stalled.time() - first.time()).as_secs(), stalled.restarted), (20, false));
        let leap = line.place(1_700_000_000, now + Duration::from_secs(20));
        assert!(leap.restarted && leap.time() - stalled.time() < Duration::from_secs(1));
    }

    #[test]
    fn pictures_may_be_shown_before_the_first_message() {
        let placed = Timeline::default().place(0, Instant::now());
        assert_eq!((placed.time() - placed.shown(-80)).as_millis(), 80);
    }
}
