//! The way of an interrupted mouth to rest.

use std::sync::Arc;

/// Time from the last frame before an interrupt to the frame at rest, of the video.
const LENGTH: gst::ClockTime = gst::ClockTime::from_mseconds(80);

/// A motion that shrinks, frame by frame, from what was last shown to rest. It needs neither features nor the network.
#[derive(Debug)]
pub struct Ease {
    from: Arc<[f32]>,
    /// 1 at the last frame before the interrupt, 0 at rest.
    level: f32,
    /// Running time of the last frame.
    last: gst::ClockTime,
    due: gst::ClockTime,
}

impl Ease {
    /// From the latent that was shown at `last`.
    pub fn new(from: Arc<[f32]>, last: gst::ClockTime) -> Self {
        Self { from, level: 1.0, last, due: last + LENGTH }
    }

    /// The latent of the frame at `time`, between the last one and `rest`, and whether it is at rest. Steps are equal at
    /// a constant frame rate, and the last frame that is not after `LENGTH` is at rest.
    pub fn at(&mut self, time: gst::ClockTime, rest: &[f32]) -> (Arc<[f32]>, bool) {
        let passed = time.saturating_sub(self.last).nseconds().max(1);
        let left = self.due.saturating_sub(time).nseconds() / passed;
        self.level -= self.level / (left + 1) as f32;
        self.last = time;
        (self.from.iter().zip(rest).map(|(f, r)| r + (f - r) * self.level).collect(), left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_reached_in_equal_steps_within_80_ms() {
        for (step, wanted) in [(40, 2), (33, 2), (20, 4), (16, 5), (100, 1)] {
            let ms = gst::ClockTime::from_mseconds;
            let mut ease = Ease::new([1.0, -1.0].into(), ms(500));
            let shown: Vec<_> = (1..).map(|i| ease.at(ms(500 + i * step), &[0.0, 1.0])).take(wanted).collect();
            for (i, (latent, at_rest)) in shown.iter().enumerate() {
                let level = 1.0 - (i + 1) as f32 / wanted as f32;
                assert!(
                    (latent[0] - level).abs() < 1e-5 && (latent[1] - (1.0 - 2.0 * level)).abs() < 1e-5,
                    "{latent:?}"
                );
                assert_eq!(*at_rest, i + 1 == wanted, "{step} ms, frame {i}");
            }
        }
    }
}
