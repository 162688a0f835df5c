//! How long sound waits for its picture.
//!
//! A picture takes longer through a graph than the sound of the same running time: it is tracked, drawn and encoded. A
//! browser brings them together by their Sender Reports, but leaves up to some 30 ms between them (libwebrtc's
//! `StreamSynchronization`), so sound is sent as late as its picture is.

use std::time::{Duration, Instant};

/// Sound waits no longer than this: a picture that is later is a fault, not a delay.
const MOST: Duration = Duration::from_millis(200);
/// Packets over which lateness is averaged, after the first.
const MEMORY: f64 = 64.0;
/// A lateness that differs by this much, in seconds, is that of another run of the graph.
const ANOTHER: f64 = 1.0;

/// Running mean of arrival less running time, in seconds.
#[derive(Clone, Copy, Default)]
struct Lateness {
    mean: f64,
    count: f64,
    last: Duration,
}

/// See the module.
pub(super) struct Alignment {
    epoch: Instant,
    picture: Lateness,
    sound: Lateness,
}

impl Alignment {
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, picture: Lateness::default(), sound: Lateness::default() }
    }

    /// Notes a packet's arrival. True where the graph has started anew: what is known of the run before is forgotten.
    pub fn note(&mut self, picture: bool, pts: Duration, arrived: Instant) -> bool {
        let late = arrived.saturating_duration_since(self.epoch).as_secs_f64() - pts.as_secs_f64();
        let of = if picture { &self.picture } else { &self.sound };
        let anew = of.count > 0.0 && (pts < of.last || (late - of.mean).abs() > ANOTHER);
        if anew {
            (self.picture, self.sound) = Default::default();
        }
        let of = if picture { &mut self.picture } else { &mut self.sound };
        of.count = (of.count + 1.0).min(MEMORY);
        of.mean += (late - of.mean) / of.count;
        of.last = pts;
        anew
    }

    /// How long a sound is to wait; zero until both are known.
    pub fn hold(&self) -> Duration {
        if self.picture.count == 0.0 || self.sound.count == 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((self.picture.mean - self.sound.mean).clamp(0.0, MOST.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A second of sound that comes at once, and of pictures that come `late`, from running time zero at `start`.
    fn second(alignment: &mut Alignment, start: Instant, late: Duration) -> bool {
        let mut anew = false;
        for i in 0..50 {
            anew |= alignment.note(false, ms(20 * i), start + ms(20 * i));
            if i % 2 == 0 {
                // Some later than others.
                anew |= alignment.note(true, ms(20 * i), start + ms(20 * i) + late + ms(i % 8));
            }
        }
        anew
    }

    #[test]
    fn sound_waits_for_as_long_as_pictures_take() {
        let epoch = Instant::now();
        let mut alignment = Alignment::new(epoch);
        assert_eq!(alignment.hold(), ms(0));
        assert!(!second(&mut alignment, epoch + ms(500), ms(70)));
        let hold = alignment.hold().as_secs_f64();
        assert!((0.070..0.078).contains(&hold), "{hold}");
    }

    #[test]
    fn a_picture_that_is_early_or_far_too_late_holds_no_sound_up() {
        let epoch = Instant::now();
        let mut late = Alignment::new(epoch);
        second(&mut late, epoch, ms(800));
        assert_eq!(late.hold(), MOST);
        let mut early = Alignment::new(epoch);
        early.note(true, ms(100), epoch + ms(50));
        early.note(false, ms(100), epoch + ms(100));
        assert_eq!(early.hold(), ms(0));
    }

    #[test]
    fn another_run_is_measured_anew() {
        let epoch = Instant::now();
        let mut alignment = Alignment::new(epoch);
        second(&mut alignment, epoch, ms(150));
        assert!(second(&mut alignment, epoch + ms(9000), ms(20)), "the running time starts again");
        let hold = alignment.hold().as_secs_f64();
        assert!((0.020..0.028).contains(&hold), "{hold}");
    }
}
