//! The way of an interrupted mouth to rest.

/// Time from the last frame before an interrupt to the frame at rest, of the video.
const LENGTH: gst::ClockTime = gst::ClockTime::from_mseconds(80);

/// A level that shrinks, frame by frame, from what was last shown to rest.
#[derive(Debug)]
pub struct Ease {
    /// 1 at the last frame before the interrupt, 0 at rest.
    level: f32,
    /// Running time of the last frame.
    last: gst::ClockTime,
    due: gst::ClockTime,
}

impl Ease {
    /// From what was shown at `last`.
    pub fn new(last: gst::ClockTime) -> Self {
        Self { level: 1.0, last, due: last + LENGTH }
    }

    /// The level of the frame at `time`, 1 as it was and 0 at rest, and whether it is at rest. Steps are equal at
    /// a constant frame rate, and the last frame that is not after `LENGTH` is at rest.
    pub fn at(&mut self, time: gst::ClockTime) -> (f32, bool) {
        let passed = time.saturating_sub(self.last).nseconds().max(1);
        let left = self.due.saturating_sub(time).nseconds() / passed;
        self.level -= self.level / (left + 1) as f32;
        self.last = time;
        (self.level, left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_reached_in_equal_steps_within_80_ms() {
        for (step, wanted) in [(40, 2), (33, 2), (20, 4), (16, 5), (100, 1)] {
            let ms = gst::ClockTime::from_mseconds;
            let mut ease = Ease::new(ms(500));
            let shown: Vec<_> = (1..).map(|i| ease.at(ms(500 + i * step))).take(wanted).collect();
            for (i, (level, at_rest)) in shown.iter().enumerate() {
                let wanted_level = 1.0 - (i + 1) as f32 / wanted as f32;
                assert!((level - wanted_level).abs() < 1e-5, "{level}");
                assert_eq!(*at_rest, i + 1 == wanted, "{step} ms, frame {i}");
            }
        }
    }
}
