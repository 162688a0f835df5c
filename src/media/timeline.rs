//! Where decoded sound belongs by its timestamps: holes are silence, what overlaps is left out.

/// Nanoseconds of running time; before the segment's start it is negative, as of the samples that an encoder puts in front.
pub type Nanos = i64;

pub const SECOND: Nanos = 1_000_000_000;
/// Timestamps that differ by less from the count of samples are rounded: 10 ms.
const ROUNDED: Nanos = SECOND / 100;
/// A longer hole is taken for broken timestamps: ten minutes.
const LONGEST: Nanos = 600 * SECOND;
/// A longer jump back is taken for timestamps that begin anew.
const OVERLAP: Nanos = SECOND;

/// The running time of a sample.
pub fn running_time(sample: &gst::Sample) -> Option<Nanos> {
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    let nanos = |time: gst::ClockTime| i64::try_from(time.nseconds()).ok();
    match segment.to_running_time_full(sample.buffer()?.pts()?)? {
        gst::Signed::Positive(time) => nanos(time),
        gst::Signed::Negative(time) => nanos(time).map(|time| -time),
    }
}

/// Places pieces of sound one after the other on a time line of samples.
#[derive(Clone, Debug)]
pub struct Timeline {
    rate: u32,
    /// Running time of sample 0.
    zero: Nanos,
    /// Samples that have their place.
    next: u64,
    /// Whether any sound has.
    begun: bool,
}

/// What comes before a piece, and how much of it is left out, in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Splice {
    pub silence: u64,
    pub skipped: u64,
}

impl Timeline {
    pub fn new(rate: u32, zero: Nanos) -> Self {
        Self { rate: rate.max(1), zero, next: 0, begun: false }
    }

    /// The time of the next sample since sample 0, in seconds.
    pub fn seconds(&self) -> f64 {
        self.next as f64 / f64::from(self.rate)
    }

    /// A piece of `count` samples that are stamped `stamp`; without a stamp they follow what was there.
    pub fn place(&mut self, stamp: Option<Nanos>, count: u64) -> Splice {
        let rate = i128::from(self.rate);
        let reached = (i128::from(self.next) * i128::from(SECOND) / rate) as i64;
        let off = stamp.map_or(0, |stamp| stamp.saturating_sub(self.zero).saturating_sub(reached));
        let samples = |time: Nanos| ((i128::from(time) * rate + i128::from(SECOND) / 2) / i128::from(SECOND)) as u64;
        let mut place = Splice::default();
        if off > LONGEST || (self.begun && off < -OVERLAP) {
            self.zero = self.zero.saturating_add(off);
        } else if off > ROUNDED {
            place.silence = samples(off);
        } else if off < -ROUNDED || (off < 0 && !self.begun) {
            place.skipped = samples(off.saturating_neg()).min(count);
        }
        self.begun |= place.skipped < count;
        self.next += place.silence + count - place.skipped;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = SECOND / 1000;

    #[test]
    fn holes_are_silence_and_rounded_stamps_are_not() {
        let mut line = Timeline::new(48_000, 100 * MS);
        assert_eq!(line.place(Some(100 * MS), 4800), Splice::default());
        assert_eq!(line.place(Some(206 * MS), 4800), Splice::default());
        assert_eq!(line.place(None, 4800), Splice::default());
        assert_eq!(line.place(Some(2400 * MS), 4800), Splice { silence: 96_000, skipped: 0 });
        assert!((line.seconds() - 2.4).abs() < 1e-9);
    }

    #[test]
    fn what_comes_before_the_start_or_twice_is_left_out() {
        let mut line = Timeline::new(48_000, 0);
        assert_eq!(line.place(Some(-5000 * MS), 4800), Splice { silence: 0, skipped: 4800 });
        assert_eq!(line.place(Some(-21 * MS), 1024), Splice { silence: 0, skipped: 1008 });
        assert_eq!(line.place(Some(0), 48_000), Splice::default());
        assert_eq!(line.place(Some(500 * MS), 48_000), Splice { silence: 0, skipped: 24_016 });
    }

    #[test]
    fn stamps_that_begin_anew_or_run_away_move_nothing() {
        let mut line = Timeline::new(48_000, 0);
        line.place(Some(0), 480_000);
        assert_eq!(line.place(Some(0), 48_000), Splice::default());
        assert_eq!(line.place(Some(1000 * MS), 48_000), Splice::default());
        assert_eq!(line.place(Some(i64::MAX), 48_000), Splice::default());
        assert_eq!(line.place(Some(i64::MIN), 48_000), Splice::default());
    }
}
