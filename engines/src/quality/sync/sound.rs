//! The voice of the last seconds by its running time.

use std::{collections::VecDeque, ops::Range, time::Duration};

use super::SAMPLES;
use crate::audio::SAMPLE_RATE;

/// What is kept: a pipeline that is not live hears up to ten seconds ahead of its pictures.
const KEPT: usize = 16 * SAMPLE_RATE as usize;
/// Timestamps that differ by less from the count of samples are jitter: 10 ms.
const JITTER: i64 = SAMPLE_RATE as i64 / 100;
/// A hole up to this long is silence; longer ones, and jumps back, start anew: 1 s.
const LONGEST_HOLE: i64 = SAMPLE_RATE as i64;
/// RMS, relative to a full-scale square wave, from which on there is voice in a frame: -52 dBFS.
const VOICED: f32 = 0.002_512;

/// 16 kHz, one channel.
#[derive(Default)]
pub struct Sound {
    /// Place of the first sample, in samples of running time.
    start: i64,
    samples: VecDeque<f32>,
}

impl Sound {
    pub fn push(&mut self, time: Duration, samples: &[f32]) {
        let at = (time.as_nanos() * u128::from(SAMPLE_RATE) + 500_000_000) / 1_000_000_000;
        let at = i64::try_from(at).unwrap_or(i64::MAX / 2);
        let off = at - self.end();
        let mut samples = samples;
        if self.samples.is_empty() || off > LONGEST_HOLE || -off > LONGEST_HOLE.max(samples.len() as i64) {
            self.samples.clear();
            self.start = at;
        } else if off > JITTER {
            self.samples.extend(std::iter::repeat_n(0.0, off as usize));
        } else if off < -JITTER {
            // These have been heard already.
            samples = &samples[samples.len().min(off.unsigned_abs() as usize)..];
        }
        self.samples.extend(samples.iter().map(|s| if s.is_finite() { *s } else { 0.0 }));
        let over = self.samples.len().saturating_sub(KEPT);
        self.samples.drain(..over);
        self.start += over as i64;
    }

    pub fn clear(&mut self) {
        self.samples.clear();
    }

    fn end(&self) -> i64 {
        self.start + self.samples.len() as i64
    }

    /// Whether the frames (places of 40 ms) before `frame` have been heard to their end.
    pub fn reaches(&self, frame: i64) -> bool {
        !self.samples.is_empty() && self.end() >= frame * SAMPLES as i64
    }

    /// The sound of frames; silence where none was heard.
    pub fn frames(&self, frames: Range<i64>) -> Vec<f32> {
        let size = SAMPLES as i64;
        let sample = |at: i64| usize::try_from(at - self.start).ok().and_then(|i| self.samples.get(i)).copied();
        (frames.start * size..frames.end * size).map(|at| sample(at).unwrap_or(0.0)).collect()
    }
}

/// Whether there is voice in the samples of a frame.
pub fn voiced(samples: &[f32]) -> bool {
    let power = samples.iter().map(|s| s * s).sum::<f32>() / samples.len().max(1) as f32;
    power >= VOICED * VOICED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn samples_lie_at_their_running_time_holes_are_silent_and_jumps_start_anew() {
        let mut sound = Sound::default();
        sound.push(ms(1000), &[0.5; 640]);
        // 3 ms of jitter move nothing.
        sound.push(ms(1043), &[0.6; 640]);
        sound.push(ms(1200), &[0.7; 640]);
        assert_eq!(sound.frames(25..26), [0.5; 640]);
        assert_eq!((sound.frames(24..25), sound.frames(28..29)), (vec![0.0; 640], vec![0.0; 640]));
        assert_eq!((sound.frames(26..27)[9], sound.frames(30..31)[9]), (0.6, 0.7));
        assert!(sound.reaches(31) && !sound.reaches(32));
        sound.push(ms(9000), &[0.8; 640]);
        assert_eq!((sound.frames(30..31)[9], sound.frames(225..226)[9]), (0.0, 0.8));
        sound.push(ms(0), &[0.9; 640]);
        assert_eq!((sound.frames(0..1)[9], sound.reaches(2)), (0.9, false));
    }

    #[test]
    fn it_is_bounded_and_takes_no_number_that_is_none() {
        let mut sound = Sound::default();
        for second in 0..60 {
            sound.push(ms(1000 * second), &[f32::NAN; 16_000]);
        }
        assert_eq!((sound.samples.len(), sound.frames(1499..1500)[0]), (KEPT, 0.0));
        assert!(!voiced(&sound.frames(1400..1401)) && voiced(&[0.003; 640]) && !voiced(&[]));
    }
}
