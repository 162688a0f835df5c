use std::time::Duration;

/// How fast frames come, and how long those that are left take. Clips come many frames at a time, so that it is measured up to
/// the last one that came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    frames: u64,
    /// When the last one came, since the start.
    last: Duration,
}

impl Pace {
    /// So many frames there are `elapsed` after the start.
    pub fn at(&mut self, frames: u64, elapsed: Duration) {
        if frames > self.frames {
            (self.frames, self.last) = (frames, elapsed);
        }
    }

    /// Frames a second; `None` before the first.
    pub fn fps(&self) -> Option<f64> {
        (self.frames > 0).then(|| self.frames as f64 / self.last.as_secs_f64().max(1e-3))
    }

    /// Time until there are `total`, seen `elapsed` after the start; `None` before the first.
    pub fn left(&self, total: u64, elapsed: Duration) -> Option<Duration> {
        let whole = total.saturating_sub(self.frames) as f64 / self.fps()?;
        let since = elapsed.saturating_sub(self.last);
        // What is not there long after any sense may be days away.
        Duration::try_from_secs_f64(whole).ok().map(|left| left.saturating_sub(since))
    }

    /// Rate and time left in words.
    pub fn words(&self, total: Option<u64>, elapsed: Duration) -> String {
        let Some(fps) = self.fps() else { return format!("no frame yet, {} passed", time(elapsed)) };
        let decimals = if fps < 10.0 { 2 } else { 1 };
        let rate = format!("{fps:.decimals$} fps");
        match total.filter(|total| *total >= self.frames).and_then(|total| self.left(total, elapsed)) {
            Some(left) => format!("{rate}, {} left", time(left)),
            None => rate,
        }
    }
}

/// Hours and minutes, minutes and seconds, or seconds.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn clips_of_many_frames_tell_rate_and_time_left_from_the_first_on() {
        let mut pace = Pace::default();
        pace.at(0, seconds(59));
        assert_eq!((pace.fps(), pace.words(Some(160), seconds(59))), (None, "no frame yet, 59 s passed".into()));
        pace.at(16, seconds(64));
        assert_eq!(pace.words(Some(160), seconds(64)), "0.25 fps, 9 min 36 s left");
        // Nothing came since: the rate stays, and the time left shrinks.
        pace.at(16, seconds(120));
        assert_eq!(pace.words(Some(160), seconds(120)), "0.25 fps, 8 min 40 s left");
        pace.at(32, seconds(128));
        assert_eq!(pace.words(Some(160), seconds(128)), "0.25 fps, 8 min 32 s left");
        assert_eq!(pace.words(Some(1), seconds(128)), "0.25 fps", "more than were expected");
        assert_eq!(pace.left(160, seconds(9999)), Some(Duration::ZERO));
        assert_eq!(pace.words(Some(40_000), seconds(128)), "0.25 fps, 44 h 24 min left");
        assert_eq!(pace.words(None, seconds(128)), "0.25 fps");
    }
}
