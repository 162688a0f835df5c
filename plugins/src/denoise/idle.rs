//! How present the generated mouth is: between sentences an avatar may move its own.

use gst::glib;

/// What a mouth does while nobody speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstLipIdle")]
pub enum Idle {
    #[default]
    #[enum_value(name = "The model keeps the mouth closed", nick = "rest")]
    Rest,
    #[enum_value(name = "The frame's own mouth is shown", nick = "own")]
    Own,
}

/// The mouth is fully the generated one at the latest this long after the start of the first voiced hop. Features tell
/// of a hop 45 ms before its frame, so that even at 25 fps there are two frames for the way.
const DUE: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// The first and the last voiced hop that have become known, as running times of their ends (`last`) and starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoicedSpan {
    pub first: gst::ClockTime,
    pub last: gst::ClockTime,
}

/// The presence of the generated mouth over a stream's frames.
#[derive(Debug, Default)]
pub struct Presence {
    level: f32,
    /// Running time of the last frame; `None` before the first.
    last: Option<gst::ClockTime>,
    /// End of the last voiced hop that is known of.
    spoken: Option<gst::ClockTime>,
    /// When the mouth must be fully there, while it comes.
    due: Option<gst::ClockTime>,
}

/// The properties that say how.
#[derive(Clone, Copy, Debug)]
pub struct IdleSettings {
    pub idle: Idle,
    /// Time without voice after which the mouth goes.
    pub after: gst::ClockTime,
    /// Time from fully there to gone.
    pub fade: gst::ClockTime,
}

impl Presence {
    /// The presence, 0..1, in the frame at running time `time`; `voice` is what has become known since the frame before.
    pub fn at(&mut self, time: gst::ClockTime, voice: Option<VoicedSpan>, idle_settings: &IdleSettings) -> f32 {
        let hidden = !self.speaks(self.last.unwrap_or(time), idle_settings);
        if let Some(voice) = voice {
            self.spoken = Some(voice.last);
        }
        let goal = if self.speaks(time, idle_settings) { 1.0 } else { 0.0 };
        let Some(last) = self.last.replace(time) else {
            self.level = goal;
            return goal;
        };
        let passed = time.saturating_sub(last);
        if goal == 0.0 {
            self.due = None;
        } else if hidden {
            self.due = voice.map(|voice| voice.first + DUE);
        }
        let fade = if idle_settings.fade.is_zero() { 1.0 } else { share(passed, idle_settings.fade) };
        let step = match self.due {
            // Equal steps to the last frame before it is due.
            Some(due) => fade.max((1.0 - self.level) / (1.0 + share(due.saturating_sub(time), passed).floor())),
            None => fade,
        };
        self.level += (goal - self.level).clamp(-step, step);
        self.level
    }

    /// Whether the last frame showed its own mouth because nobody spoke.
    pub fn hidden(&self, idle_settings: &IdleSettings) -> bool {
        idle_settings.idle == Idle::Own && self.level == 0.0
    }

    /// Whether nobody has spoken for a while before the frame at `time`, whatever the mouth does then.
    pub fn pauses(&self, time: gst::ClockTime, idle_settings: &IdleSettings) -> bool {
        self.spoken.is_none_or(|spoken| time >= spoken + idle_settings.after)
    }

    /// What was being said ends at `time`.
    pub fn hush(&mut self, time: gst::ClockTime) {
        self.spoken = self.spoken.map(|spoken| spoken.min(time));
    }

    fn speaks(&self, time: gst::ClockTime, idle_settings: &IdleSettings) -> bool {
        idle_settings.idle == Idle::Rest || self.spoken.is_some_and(|spoken| time < spoken + idle_settings.after)
    }
}

/// `a / b`; 0 for a `b` of zero.
fn share(a: gst::ClockTime, b: gst::ClockTime) -> f32 {
    if b.is_zero() { 0.0 } else { a.nseconds() as f32 / b.nseconds() as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(ms)
    }

    const OWN: IdleSettings = IdleSettings {
        idle: Idle::Own,
        after: gst::ClockTime::from_mseconds(400),
        fade: gst::ClockTime::from_mseconds(200),
    };

    /// Presence of each frame, `step` ms apart, of a stream with voice from `from` to `to` ms, known 45 ms ahead.
    fn levels(step: u64, from: u64, to: u64) -> Vec<(u64, f32)> {
        let mut presence = Presence::default();
        let mut known = None;
        (0..3000 / step)
            .map(|i| i * step)
            .map(|t| {
                let hops = (from..to).step_by(20).filter(|h| *h <= t + 45 && known.is_none_or(|k| *h > k));
                let voice = hops.clone().min().zip(hops.max());
                known = Some(t + 45);
                let voice = voice.map(|(first, last)| VoicedSpan { first: ms(first), last: ms(last + 20) });
                (t, presence.at(ms(t), voice, &OWN))
            })
            .collect()
    }

    #[test]
    fn it_comes_in_time_and_goes_over_the_fade_at_any_frame_rate() {
        for step in [10, 16, 20, 33, 40] {
            for onset in 1000..1060 {
                let levels = levels(step, onset, onset + 500);
                let at = |t: u64| levels.iter().rev().find(|l| l.0 <= t).unwrap().1;
                assert_eq!((at(onset - 46), at(2500)), (0.0, 0.0), "{step} ms, {onset}");
                let full = levels.iter().find(|l| l.1 >= 1.0 - 1e-6).unwrap().0;
                assert!(full <= onset + 40, "{step} ms: voice at {onset}, there at {full}");
                let gone = levels.iter().rposition(|l| l.1 > 0.0).unwrap();
                let fade = &levels[levels.iter().rposition(|l| l.1 >= 1.0 - 1e-6).unwrap()..=gone + 1];
                assert!(fade.windows(2).all(|w| w[1].1 < w[0].1 && w[0].1 - w[1].1 <= step as f32 / 200.0 + 1e-6));
                assert!(
                    levels[gone].0 >= onset + 500 + 400 + 200 - 2 * step && levels[gone].0 <= onset + 1100 + 2 * step
                );
                // Coming, no step is larger than half the way.
                assert!(levels.windows(2).all(|w| w[1].1 - w[0].1 <= 0.5 + 1e-6), "{step} ms, {onset}");
            }
        }
    }

    #[test]
    fn a_pause_shorter_than_the_wait_does_nothing() {
        let mut presence = Presence::default();
        let says = |first: u64, last: u64| Some(VoicedSpan { first: ms(first), last: ms(last) });
        assert_eq!(presence.at(ms(0), says(0, 60), &OWN), 1.0, "a stream that begins with voice");
        assert_eq!(presence.at(ms(400), None, &OWN), 1.0);
        assert_eq!(presence.at(ms(440), says(480, 500), &OWN), 1.0);
        assert_eq!(presence.at(ms(860), None, &OWN), 1.0);
    }

    #[test]
    fn at_rest_it_is_always_there() {
        let mut presence = Presence::default();
        let rest = IdleSettings { idle: Idle::Rest, ..OWN };
        assert!((0..100).all(|i| presence.at(ms(40 * i), None, &rest) == 1.0));
    }
}
