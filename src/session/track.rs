//! The sound of one live source, on clock time, without gaps.

use std::collections::VecDeque;

use rubato::{Adjustable, FixedAsync, Resampler, Slip, audioadapter_buffers::direct::InterleavedSlice};

use super::clock::{Nanos, SECOND};
use crate::live::{CHANNELS, RATE};

/// Stretch that the resampler takes at a time, in frames: 10 ms.
const CHUNK: usize = RATE as usize / 100;
/// An error up to this is corrected by resampling; beyond, by silence or by dropping. 20 ms.
const TOLERANCE: i64 = RATE as i64 / 50;
/// Time over which the resampler corrects an error.
const CORRECTION: f64 = RATE as f64;
/// Strongest correction, in parts of one; the map's offset moves at half of it at most.
const MAX_CORRECTION: f64 = 0.005;
/// Most sound that waits, 3 s.
const CAPACITY: usize = 3 * RATE as usize;
/// Ramp where sound breaks off or begins, 2.5 ms, so that nothing clicks.
const RAMP: usize = RATE as usize / 400;

type Frame = [f32; CHANNELS];

/// Sound that waits for its time; see the module.
pub struct Track {
    slip: Slip<f32>,
    /// Arrived, not yet a whole stretch; interleaved.
    pending: Vec<f32>,
    scratch: Vec<f32>,
    frames: VecDeque<Frame>,
    /// Clock time of the first of `frames`, in sample periods.
    head: i64,
    /// Whether anything has come since the track was cleared.
    anchored: bool,
    /// Whether the source has gone: what follows is not missed.
    ended: bool,
    /// Whether the last frame taken was sound.
    sounding: bool,
    /// Where the sound is against where its timestamps say, smoothed, in sample periods.
    error: f64,
    missing: u64,
}

impl Default for Track {
    fn default() -> Self {
        let slip =
            Slip::new(CHUNK, CHANNELS, FixedAsync::Input).expect("a stretch that is long enough for a crossfade");
        Self {
            slip,
            pending: Vec::new(),
            scratch: vec![0.0; 2 * CHUNK * CHANNELS],
            frames: VecDeque::new(),
            head: 0,
            anchored: false,
            ended: false,
            sounding: false,
            error: 0.0,
            missing: 0,
        }
    }
}

impl Track {
    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        let missing = self.missing;
        *self = Self { missing, sounding: self.sounding, ..Self::default() };
    }

    /// The source has gone: what waits is still played.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Adds interleaved samples, of which the first plays at clock time `at`.
    pub fn push(&mut self, mut samples: &[f32], at: Nanos) {
        let at = periods(at);
        if !self.anchored {
            (self.head, self.anchored, self.error) = (at, true, 0.0);
        }
        let tail = self.head + self.frames.len() as i64 + (self.pending.len() / CHANNELS) as i64;
        let error = at - tail;
        if error.abs() > TOLERANCE {
            self.resynchronise(&mut samples, error);
        } else {
            self.error += (error as f64 - self.error) * 0.1;
        }
        self.pending.extend(samples.iter().map(|s| if s.is_finite() { *s } else { 0.0 }));
        let ratio = 1.0 + (self.error / CORRECTION).clamp(-MAX_CORRECTION, MAX_CORRECTION);
        self.stretch(ratio);
        let over = self.frames.len().saturating_sub(CAPACITY);
        self.frames.drain(..over);
        self.head += over as i64;
    }

    /// Fills `out`, interleaved, with the sound from sample period `from` on; silence where there is none. Returns
    /// whether there was any.
    pub fn take(&mut self, from: i64, out: &mut [f32]) -> bool {
        out.fill(0.0);
        let wanted = (out.len() / CHANNELS) as i64;
        let stale = (from - self.head).clamp(0, self.frames.len() as i64);
        self.frames.drain(..stale as usize);
        self.head += stale;
        if self.frames.is_empty() && self.anchored && self.pending.is_empty() {
            self.head = self.head.max(from);
        }
        let start = (self.head - from).clamp(0, wanted) as usize;
        let count = self.frames.len().min(wanted as usize - start);
        if count == 0 {
            self.missing += if self.anchored && !self.ended { wanted as u64 } else { 0 };
            self.sounding = false;
            return false;
        }
        for (target, frame) in out[start * CHANNELS..].chunks_exact_mut(CHANNELS).zip(self.frames.drain(..count)) {
            target.copy_from_slice(&frame);
        }
        self.head += count as i64;
        let sound = &mut out[start * CHANNELS..(start + count) * CHANNELS];
        if !self.sounding || start > 0 || stale > 0 {
            ramp(sound, false);
        }
        self.sounding = start + count == wanted as usize;
        if !self.sounding {
            ramp(sound, true);
        }
        self.missing += if self.ended { 0 } else { (wanted as usize - count) as u64 };
        true
    }

    /// Where the sound is against its timestamps, in nanoseconds; negative is sound that plays late.
    pub fn offset(&self) -> Nanos {
        (self.error * SECOND as f64 / RATE as f64) as Nanos
    }

    /// Sample periods of silence that were played for want of sound.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// A gap becomes silence; what plays twice is dropped.
    fn resynchronise(&mut self, samples: &mut &[f32], error: i64) {
        self.error = 0.0;
        self.stretch(1.0);
        // What is left is shorter than a stretch and joins on as it is.
        let rest = std::mem::take(&mut self.pending);
        self.append(&rest);
        if error > 0 {
            let fill = (error as usize).min(CAPACITY);
            if self.frames.is_empty() {
                self.head += error;
            } else {
                self.fade_tail();
                self.frames.extend(std::iter::repeat_n([0.0; CHANNELS], fill));
            }
        } else {
            let skip = (-error as usize * CHANNELS).min(samples.len());
            *samples = &samples[skip..];
        }
    }

    fn fade_tail(&mut self) {
        let length = self.frames.len().min(RAMP);
        for (n, frame) in self.frames.iter_mut().rev().take(length).enumerate() {
            frame.iter_mut().for_each(|s| *s *= n as f32 / length as f32);
        }
    }

    fn stretch(&mut self, ratio: f64) {
        while self.pending.len() >= CHUNK * CHANNELS {
            // The ratio is within the bounds of the resampler, and the buffers are as long as it asks for.
            let done = self.slip.set_resample_ratio_relative(ratio, false).and_then(|()| {
                let input = InterleavedSlice::new(&self.pending[..CHUNK * CHANNELS], CHANNELS, CHUNK);
                let room = self.scratch.len() / CHANNELS;
                let output = InterleavedSlice::new_mut(&mut self.scratch, CHANNELS, room);
                let (Ok(input), Ok(mut output)) = (input, output) else { return Ok((CHUNK, 0)) };
                self.slip.process_into_buffer(&input, &mut output, None)
            });
            let made = match done {
                Ok((_, made)) => made,
                Err(error) => {
                    tracing::error!("resampling a live source: {error}");
                    0
                }
            };
            let scratch = std::mem::take(&mut self.scratch);
            self.append(&scratch[..made * CHANNELS]);
            self.scratch = scratch;
            self.pending.drain(..CHUNK * CHANNELS);
        }
    }

    fn append(&mut self, samples: &[f32]) {
        self.frames.extend(samples.chunks_exact(CHANNELS).map(|frame| [frame[0], frame[1]]));
    }
}

/// Sample periods of clock time.
pub fn periods(time: Nanos) -> i64 {
    (time as i128 * RATE as i128 / SECOND as i128) as i64
}

fn ramp(sound: &mut [f32], down: bool) {
    let frames = sound.len() / CHANNELS;
    let length = frames.min(RAMP);
    for n in 0..length {
        let at = if down { frames - 1 - n } else { n };
        sound[at * CHANNELS..(at + 1) * CHANNELS].iter_mut().for_each(|s| *s *= n as f32 / length as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::clock::MS;

    fn tone(from: usize, count: usize) -> Vec<f32> {
        (from..from + count).flat_map(|n| [(n as f32 * 0.05).sin() * 0.5; CHANNELS]).collect()
    }

    /// Takes everything between two times in stretches of 20 ms.
    fn listen(track: &mut Track, from: i64, count: usize) -> Vec<f32> {
        let mut all = Vec::new();
        for n in 0..count / 960 {
            let mut out = vec![0.0; 960 * CHANNELS];
            track.take(from + n as i64 * 960, &mut out);
            all.extend(out.chunks_exact(CHANNELS).map(|f| f[0]));
        }
        all
    }

    #[test]
    fn sound_in_time_passes_sample_by_sample() {
        let mut track = Track::default();
        for n in 0..47 {
            track.push(&tone(n * 1024, 1024), SECOND + (n as f64 * 1024.0 / 48_000.0 * 1e9) as Nanos);
        }
        let out = listen(&mut track, 48_000, 46 * 960);
        let source = tone(0, 46 * 960);
        for (n, sample) in out.iter().enumerate().skip(RAMP) {
            assert!((sample - source[n * CHANNELS]).abs() < 1e-6, "sample {n}");
        }
        assert_eq!(track.missing(), 0);
    }

    #[test]
    fn a_fast_or_slow_clock_is_resampled_within_a_few_milliseconds() {
        for speed in [1.001, 0.999] {
            let mut track = Track::default();
            let mut taken = 48_000 - 9600;
            for n in 0..6000_i64 {
                // Sent every 20 ms of the source's clock, which is not ours.
                let at = SECOND + (n as f64 * 20.0 / speed * MS as f64) as Nanos;
                track.push(&tone(n as usize * 960, 960), at);
                while taken + 9600 < periods(at) {
                    track.take(taken, &mut [0.0; 960 * CHANNELS]);
                    taken += 960;
                }
                assert!(track.offset().abs() < 5 * MS, "{} ms", track.offset() / MS);
            }
            assert!(track.missing() < 12_000, "{} missing at {speed}", track.missing());
        }
    }

    #[test]
    fn a_gap_is_silence_of_its_length_and_what_follows_is_in_its_place() {
        let mut track = Track::default();
        track.push(&tone(0, 4800), SECOND);
        track.push(&[0.5; 4800 * CHANNELS], SECOND + 300 * MS);
        let out = listen(&mut track, 48_000, 19_200);
        assert!(out[4800..14_400].iter().all(|s| *s == 0.0), "silence between");
        assert!(out[14_400 + RAMP..19_200].iter().all(|s| (*s - 0.5).abs() < 1e-6));
    }

    #[test]
    fn nothing_clicks_where_sound_breaks_off_and_returns() {
        let mut track = Track::default();
        track.push(&[0.8; 1440 * CHANNELS], SECOND);
        let out = listen(&mut track, 48_000, 2880);
        let steps = out.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
        assert!(steps < 0.02, "{steps}");
        assert!(track.missing() >= 1440);
    }

    #[test]
    fn nothing_is_missed_of_a_source_that_has_gone() {
        let mut track = Track::default();
        track.push(&tone(0, 4800), SECOND);
        track.end();
        let out = listen(&mut track, 48_000, 9600);
        assert!(out[2000..4000].iter().any(|s| s.abs() > 0.4), "what waited is played");
        assert_eq!(track.missing(), 0);
        track.clear();
        track.push(&tone(0, 4800), SECOND);
        listen(&mut track, 48_000, 9600);
        assert_eq!(track.missing(), 4800, "the next source's is");
    }

    #[test]
    fn what_plays_twice_is_dropped_and_memory_is_bounded() {
        let mut track = Track::default();
        track.push(&[0.1; 4800 * CHANNELS], SECOND);
        track.push(&[0.9; 4800 * CHANNELS], SECOND + 50 * MS);
        let out = listen(&mut track, 48_000, 6720);
        assert!(out[RAMP..4800].iter().all(|s| (*s - 0.1).abs() < 1e-6), "the first is whole");
        for n in 0..200 {
            track.push(&[0.1; 4800 * CHANNELS], SECOND + n * 100 * MS);
        }
        assert!(track.frames.len() <= CAPACITY);
    }
}
