//! Lips by the running time of their frames, brought to 25 a second.

use std::{collections::VecDeque, time::Duration};

use super::{super::expert::Lips, FRAME};

/// Lips further apart are not joined by a line.
const FAR: Duration = Duration::from_millis(110);

/// Lips of the last seconds. `None`: the frame shows no such lips.
#[derive(Default)]
pub struct Lane(VecDeque<(Duration, Option<Lips>)>);

impl Lane {
    pub fn push(&mut self, time: Duration, lips: Option<Lips>) {
        self.0.push_back((time, lips));
    }

    /// Forgets what comes before `time`.
    pub fn forget(&mut self, time: Duration) {
        while self.0.front().is_some_and(|(at, _)| *at < time) {
            self.0.pop_front();
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The lips at a place of the grid: on the line between those before and after it.
    pub fn at(&self, frame: i64) -> Option<Lips> {
        let time = FRAME * u32::try_from(frame).ok()?;
        let after = self.0.partition_point(|(at, _)| *at < time);
        let (t1, next) = self.0.get(after)?;
        let next = next.as_ref()?;
        if *t1 == time {
            return Some(*next);
        }
        let (t0, before) = self.0.get(after.checked_sub(1)?)?;
        let before = before.as_ref().filter(|_| *t1 - *t0 <= FAR)?;
        let w = (time - *t0).as_secs_f32() / (*t1 - *t0).as_secs_f32();
        Some(std::array::from_fn(|i| before[i] + (next[i] - before[i]) * w))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lips_of_any_frame_rate_are_brought_to_25_a_second_and_gaps_stay() {
        let ms = Duration::from_millis;
        let mut lane = Lane::default();
        for i in 0..30 {
            let time = ms(100 * i / 3);
            lane.push(time, Some([time.as_secs_f32(); 80]).filter(|_| i != 12));
        }
        lane.push(ms(1200), Some([1.2; 80]));
        let at = |frame| lane.at(frame).map(|lips| (lips[0] * 1000.0).round());
        assert_eq!([at(0), at(1), at(7), at(24)], [Some(0.0), Some(40.0), Some(280.0), Some(960.0)]);
        // 400 ms are that of the frame without, 440 lie beyond it.
        assert_eq!([at(9), at(10), at(11), at(29)], [Some(360.0), None, Some(440.0), None]);
        lane.forget(ms(500));
        assert_eq!((lane.at(12), lane.at(13).is_some(), lane.at(-1)), (None, true, None));
    }
}
