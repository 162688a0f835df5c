//! One channel of all, whatever their phases.

/// Time over which the levels of the channels are measured, and in which a channel is turned, in parts of a second.
const MEASURED: f32 = 0.1;
const TURN: f32 = 0.005;
/// Correlation with the reference below which a channel is taken for one of opposite phase, and above which it no longer
/// is.
const OPPOSITE: f32 = -0.5;
const ALIKE: f32 = -0.1;
/// How much more energy another channel must have to become the reference.
const CLEARLY: f32 = 4.0;
/// Energy of digital silence.
const NOTHING: f32 = 1e-12;

/// Mixes channels to one such that no voice is lost: each channel counts by its share of the energy, so that a
/// voice in one of six channels is as loud as in one of one, and channels of opposite phase are turned before they are
/// added. Equal channels give themselves, sample for sample. Works sample by sample, so the size of the pieces does not
/// matter.
#[derive(Clone, Debug)]
pub struct Mono {
    /// Samples a second.
    rate: f32,
    channels: Vec<Channel>,
    /// The channel that phases are compared with.
    reference: usize,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    energy: f32,
    /// Covariance with the reference.
    common: f32,
    /// 1 or -1, and on the way between them while the channel is turned.
    sign: f32,
    opposite: bool,
}

impl Default for Channel {
    fn default() -> Self {
        Self { energy: 0.0, common: 0.0, sign: 1.0, opposite: false }
    }
}

impl Mono {
    /// For so many samples a second.
    pub fn new(rate: u32) -> Self {
        Self { rate: rate.max(1) as f32, channels: Vec::new(), reference: 0 }
    }

    /// Forgets what was heard.
    pub fn reset(&mut self) {
        self.channels.clear();
        self.reference = 0;
    }

    /// Interleaved samples of so many channels as one. A count that changes starts anew.
    pub fn mix(&mut self, samples: Vec<f32>, channels: usize) -> Vec<f32> {
        if channels <= 1 {
            return samples;
        }
        if self.channels.len() != channels {
            self.reset();
            self.channels.resize(channels, Channel::default());
        }
        samples.chunks_exact(channels).map(|frame| self.frame(frame)).collect()
    }

    fn frame(&mut self, frame: &[f32]) -> f32 {
        let sample = |i: usize| if frame[i].is_finite() { frame[i].clamp(-8.0, 8.0) } else { 0.0 };
        let referred = sample(self.reference);
        let most = self.channels[self.reference].energy;
        let (measured, turn) = (MEASURED * self.rate, 1.0 / (TURN * self.rate));
        let (mut sum, mut total, mut plain) = (0.0, 0.0, 0.0);
        let mut next = self.reference;
        for (i, channel) in self.channels.iter_mut().enumerate() {
            let x = sample(i);
            channel.energy += (x * x - channel.energy) / measured;
            channel.common += (x * referred - channel.common) / measured;
            // The square of the correlation, with its sign, needs no root.
            let both = channel.energy * most.max(NOTHING);
            let alike = channel.common * channel.common.abs();
            if alike < -OPPOSITE * OPPOSITE * both && channel.energy > NOTHING {
                channel.opposite = true;
            } else if alike > -ALIKE * ALIKE * both {
                channel.opposite = false;
            }
            let wanted = if channel.opposite { -1.0 } else { 1.0 };
            channel.sign += (wanted - channel.sign).clamp(-turn, turn);
            sum += channel.energy * channel.sign * x;
            plain += channel.sign * x;
            total += channel.energy;
            if channel.energy > CLEARLY * most.max(NOTHING) {
                next = i;
            }
        }
        self.reference = next;
        if total > NOTHING { sum / total } else { plain / frame.len() as f32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(i: usize) -> f32 {
        0.3 * (i as f32 * 0.173).sin() + 0.1 * (i as f32 * 0.0311).sin()
    }

    /// Half a second of a voice that channel `k` has with gain `gains[k]`, mixed in pieces; without the first 50 ms.
    fn mixed(gains: &[f32], piece: usize) -> Vec<f32> {
        let samples: Vec<f32> = (0..8000).flat_map(|i| gains.iter().map(move |g| g * tone(i))).collect();
        let mut mono = Mono::new(16_000);
        let pieces = samples.chunks(piece * gains.len());
        pieces.flat_map(|piece| mono.mix(piece.to_vec(), gains.len())).skip(800).collect()
    }

    fn level(samples: &[f32]) -> f32 {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn a_voice_is_as_loud_in_every_layout() {
        let alone = level(&mixed(&[1.0], 160));
        for gains in [
            &[1.0, 1.0][..],
            &[1.0, -1.0],
            &[0.0, 1.0],
            &[1.0, 0.0],
            &[0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            &[0.0, 0.0, -1.0, 0.0, 1.0, 0.0],
            &[1.0; 8],
        ] {
            let decibel = 20.0 * (level(&mixed(gains, 160)) / alone).log10();
            assert!(decibel.abs() < 0.5, "{gains:?}: {decibel:.2} dB");
        }
    }

    #[test]
    fn equal_channels_give_themselves_whatever_the_pieces() {
        let alone = mixed(&[1.0], 160);
        let two = mixed(&[1.0, 1.0], 160);
        assert!(alone.iter().zip(&two).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(mixed(&[1.0, -0.7], 160), mixed(&[1.0, -0.7], 37));
    }

    #[test]
    fn what_is_no_number_does_not_stay() {
        let mut mono = Mono::new(16_000);
        mono.mix(vec![f32::NAN, f32::INFINITY, 0.1, 0.1], 2);
        let later = mono.mix(vec![0.25; 64_000], 2);
        assert!(later.last().is_some_and(|s| (s - 0.25).abs() < 1e-3), "{:?}", later.last());
    }
}
