use std::collections::VecDeque;

use super::BINS;

/// Bands of neighbouring bins in which levels are watched.
const BANDS: usize = 10;
const WIDTH: usize = BINS / BANDS;
/// Part of the way that the quick and the smooth level go in a frame.
const QUICK: f32 = 0.4;
const SMOOTH: f32 = 0.3;
/// Frames over which a sound is looked at: 320 ms.
const WATCHED: usize = 32;
/// Most that the smooth level of a loud band changes in that time where the sound is steady: 4.3 dB.
const STEADY: f32 = 1.0;
/// A band is loud within this of the loudest: 22 dB.
const LOUD: f32 = 5.0;
/// The floor rises by this in a frame: 1.3 dB a second.
const RISE: f32 = 0.003;
/// What a level must be above the floor to count: 4.3 dB.
const ABOVE: f32 = 1.0;
/// The mean of what counts, over the bands, that keeps the gate open, and that opens it.
const KEEPS: f32 = 0.15;
const OPENS: f32 = 0.4;
/// Frames for which the gate stays open, and in which it closes: 250 and 200 ms.
const HANG: u32 = 25;
const FADE: f32 = 20.0;

/// Closes on a sound that is steady, as hum and the noise of a room are and speech is not. Each frame depends on those
/// before it only.
///
/// The level of each band has a floor: its minimum, which rises slowly, and at once to the mean level of the last 320 ms
/// where no loud band has changed by more than 4.3 dB in that time. Sound that stays near the floor fades to silence; what
/// rises above it is let through as it is. A note that is held as evenly as that for half a second is taken for hum.
pub struct Gate {
    /// What bins are in silence.
    quiet: f32,
    quick: Option<[f32; BANDS]>,
    smooth: [f32; BANDS],
    floor: [f32; BANDS],
    watched: VecDeque<[f32; BANDS]>,
    /// Frames since something was above the floor.
    since: u32,
    /// 1 is open.
    level: f32,
}

impl Gate {
    /// Bins are natural logarithms of energy, `quiet` and more.
    pub fn new(quiet: f32) -> Self {
        Self {
            quiet,
            quick: None,
            smooth: [0.0; BANDS],
            floor: [quiet; BANDS],
            watched: VecDeque::with_capacity(WATCHED + 1),
            since: HANG,
            level: 0.0,
        }
    }

    /// As it was before the first frame.
    pub fn reset(&mut self) {
        *self = Self::new(self.quiet);
    }

    /// Takes the next frame of logarithmic mel bins and returns it as it is let through.
    pub fn pass(&mut self, frame: &[f32; BINS]) -> [f32; BINS] {
        let (level, quiet) = (self.open(frame), self.quiet);
        if level == 1.0 { *frame } else { frame.map(|y| quiet + (y - quiet) * level) }
    }

    /// Takes the next frame and says how much of it is let through: 1 is all, 0 is silence.
    pub fn open(&mut self, frame: &[f32; BINS]) -> f32 {
        let mut bands = [0.0; BANDS];
        for (band, bins) in bands.iter_mut().zip(frame.chunks_exact(WIDTH)) {
            *band = (bins.iter().map(|y| y.exp()).sum::<f32>() / WIDTH as f32).ln();
        }
        let first = self.quick.is_none();
        let quick = self.quick.get_or_insert(bands);
        if first {
            self.smooth = bands;
        }
        for ((quick, smooth), band) in quick.iter_mut().zip(&mut self.smooth).zip(bands) {
            *quick += QUICK * (band - *quick);
            *smooth += SMOOTH * (band - *smooth);
        }
        for (floor, quick) in self.floor.iter_mut().zip(&*quick) {
            *floor = (*floor + RISE).min(*quick);
        }
        self.watched.push_back(self.smooth);
        if self.watched.len() > WATCHED {
            self.watched.pop_front();
        }
        if let Some(mean) = steady(&self.watched) {
            self.floor.iter_mut().zip(mean).for_each(|(floor, mean)| *floor = floor.max(mean));
        }
        let above = quick.iter().zip(&self.floor).map(|(quick, floor)| (quick - floor - ABOVE).max(0.0));
        let above = above.sum::<f32>() / BANDS as f32;
        self.since =
            if above > if self.level > 0.0 { KEEPS } else { OPENS } { 0 } else { self.since.saturating_add(1) };
        self.level = if self.since <= HANG { 1.0 } else { (self.level - 1.0 / FADE).max(0.0) };
        self.level
    }
}

/// The mean level of each band, where the sound was steady for as long as it is watched.
fn steady(watched: &VecDeque<[f32; BANDS]>) -> Option<[f32; BANDS]> {
    (watched.len() == WATCHED).then_some(())?;
    let mut mean = [0.0; BANDS];
    watched.iter().for_each(|levels| mean.iter_mut().zip(levels).for_each(|(mean, y)| *mean += y / WATCHED as f32));
    let loudest = mean.iter().copied().fold(f32::MIN, f32::max);
    let even = |band: usize| {
        let of = watched.iter().map(|levels| levels[band]);
        of.clone().fold(f32::MIN, f32::max) - of.fold(f32::MAX, f32::min) < STEADY
    };
    (0..BANDS).all(|band| mean[band] < loudest - LOUD || even(band)).then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Mel, SAMPLE_RATE, mel::FLOOR};

    /// Levels of the gate after each frame of a sound.
    fn levels(samples: &[f32]) -> Vec<f32> {
        let (mut mel, mut gate, mut levels) = (Mel::new(), Gate::new(FLOOR.ln()), Vec::new());
        mel.push(samples, &mut |frame| {
            gate.pass(frame);
            levels.push(gate.level);
            Ok::<_, ()>(())
        })
        .unwrap();
        levels
    }

    fn seconds(seconds: f32, mut sound: impl FnMut(f32) -> f32) -> Vec<f32> {
        let rate = SAMPLE_RATE as f32;
        (0..(seconds * rate) as usize).map(|n| sound(n as f32 / rate)).collect()
    }

    fn hum(t: f32) -> f32 {
        0.01 * (std::f32::consts::TAU * 50.0 * t).sin() + 0.004 * (std::f32::consts::TAU * 150.0 * t).sin()
    }

    /// White noise of a deviation, the same each time.
    fn noise(deviation: f32) -> impl FnMut(f32) -> f32 {
        let mut state = 1u32;
        move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * deviation * 3f32.sqrt()
        }
    }

    /// Syllables: a buzz that comes and goes four times a second.
    fn syllables(t: f32) -> f32 {
        let wave: f32 = (1..12).map(|k| (std::f32::consts::TAU * 140.0 * k as f32 * t).sin() / k as f32).sum();
        0.1 * wave * (std::f32::consts::TAU * 2.0 * t).sin().powi(2)
    }

    #[test]
    fn hum_and_noise_close_it_within_a_second() {
        for (name, sound) in [("hum", seconds(3.0, hum)), ("noise", seconds(3.0, noise(0.006)))] {
            let levels = levels(&sound);
            assert_eq!(levels[5], 1.0, "{name}: a sound begins");
            assert!(levels[100..].iter().all(|level| *level == 0.0), "{name}: {levels:?}");
        }
    }

    #[test]
    fn speech_is_let_through_out_of_silence_and_out_of_noise() {
        let mut room = noise(0.003);
        let quiet = seconds(2.0, |t| 0.1 * syllables(t));
        let within = seconds(4.0, |t| room(t) + hum(t) + if t < 2.0 { 0.0 } else { 0.4 * syllables(t) });
        assert!(levels(&seconds(2.0, syllables))[3..].iter().all(|level| *level == 1.0));
        assert!(levels(&quiet)[8..].iter().all(|level| *level == 1.0), "20 dB below");
        let levels = levels(&within);
        assert!(levels[110..199].iter().all(|level| *level == 0.0), "the room");
        assert!(levels[208..].iter().all(|level| *level == 1.0), "the voice in it: {:?}", &levels[195..]);
    }
}
