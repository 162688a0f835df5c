//! How visible the mouth is, so that it does not appear and disappear between two frames.

/// A level that moves towards its goal at a constant speed in running time.
#[derive(Debug)]
pub struct Fade {
    /// Time from 0 to 1; zero jumps.
    length: gst::ClockTime,
    level: f32,
    /// Running time of the last move; `None` before the first frame of a stream, which needs no fade.
    last: Option<gst::ClockTime>,
}

impl Fade {
    pub fn new(length: gst::ClockTime) -> Self {
        Self { length, level: 1.0, last: None }
    }

    /// A new stream: its first mouth is fully there.
    pub fn restart(&mut self) {
        (self.level, self.last) = (1.0, None);
    }

    /// The level of the last move.
    pub fn level(&self) -> f32 {
        self.level
    }

    /// The mouth is gone at `time`; it will come back from nothing.
    pub fn vanish(&mut self, time: gst::ClockTime) {
        (self.level, self.last) = (0.0, Some(time));
    }

    /// Moves towards visible or hidden and returns the level at `time`, 0..1.
    pub fn towards(&mut self, visible: bool, time: gst::ClockTime) -> f32 {
        let goal = if visible { 1.0 } else { 0.0 };
        self.level = match self.last {
            None => goal,
            Some(_) if self.length.is_zero() => goal,
            Some(last) => {
                let reach = time.saturating_sub(last).nseconds() as f32 / self.length.nseconds() as f32;
                self.level + (goal - self.level).clamp(-reach, reach)
            }
        };
        self.last = Some(time);
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(ms)
    }

    #[test]
    fn the_mouth_returns_over_the_length_of_the_fade() {
        let mut fade = Fade::new(ms(200));
        assert_eq!(fade.towards(true, ms(0)), 1.0);
        fade.vanish(ms(100));
        assert_eq!(fade.towards(true, ms(150)), 0.25);
        assert_eq!(fade.towards(true, ms(200)), 0.5);
        assert_eq!(fade.towards(false, ms(250)), 0.25);
        assert_eq!(fade.towards(true, ms(1000)), 1.0);
    }

    #[test]
    fn a_length_of_zero_jumps() {
        let mut fade = Fade::new(gst::ClockTime::ZERO);
        fade.vanish(ms(0));
        assert_eq!(fade.towards(true, ms(40)), 1.0);
        assert_eq!(fade.towards(false, ms(80)), 0.0);
    }
}
