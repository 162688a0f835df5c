use super::super::{
    BINS,
    gate::Gate,
    whisper::{Column, LogMel, NOTHING, normalise, peak},
};

/// What the maximum is before anything was heard, and at least: what speech reaches at some -30 dBFS. So silence is the same
/// whatever was said in a normal voice, and a low one is not cut off.
const TOP: f32 = 0.0;
/// What the maximum falls by in a frame: 0.5 dB a second.
const FALL: f32 = 0.0005;
/// The least that counts while the maximum is at its least; it is what the [`Gate`] takes for silence.
const QUIET: f32 = TOP - 8.0;

/// Frames of silence on end that are lasting silence: 8 s.
pub const LASTING: usize = 800;

/// Whisper's log-mel as a stream computes it (`engines/train/hearing/mel.py`): frame `i` is centred on sample `160 i`, zeros before
/// the first sample; the maximum is `M_i = max(0, max(y_i), M_(i-1) - 0.0005)`, and a bin `(max(y_i, M_i - 8) + 4) / 4`. Steady
/// sounds, hum and the noise of a room, are silence. In [lasting](LASTING) silence `M` is at its least: what comes then is heard
/// as at a stream's beginning.
pub struct Mel {
    log: LogMel,
    gate: Option<Gate>,
    top: f32,
    /// Frames of silence on end.
    quiet: usize,
}

/// A frame, and how many frames of silence on end it is the last of.
pub struct Frame {
    pub bins: [f32; BINS],
    pub quiet: usize,
}

impl Mel {
    /// What a bin is in silence.
    pub const SILENCE: f32 = (QUIET + 4.0) / 4.0;

    pub fn new() -> Self {
        Self { log: LogMel::after_silence(), gate: Some(Gate::new(natural(QUIET))), top: TOP, quiet: 0 }
    }

    /// Steady sounds are heard as well.
    #[cfg(test)]
    pub fn without_gate() -> Self {
        Self { gate: None, ..Self::new() }
    }

    /// Takes samples in -1..1 and calls `sink` with each frame that they complete.
    pub fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(Frame)) {
        let Self { log, gate, top, quiet } = self;
        log.push(samples, &mut |column| {
            let column = gate.as_mut().map_or(*column, |gate| through(gate, column));
            let loudest = peak(&column);
            *quiet = if loudest <= QUIET { quiet.saturating_add(1) } else { 0 };
            *top = if *quiet < LASTING { loudest.max(*top - FALL).max(TOP) } else { TOP };
            sink(Frame { bins: column.map(|y| normalise(y, *top)), quiet: *quiet });
        });
    }

    /// Forgets everything heard.
    pub fn reset(&mut self) {
        self.log.reset();
        self.settle(0);
    }

    /// What was heard and is still needed was silence, and has lasted.
    pub fn hush(&mut self) {
        self.log.hush();
        self.settle(LASTING);
    }

    fn settle(&mut self, quiet: usize) {
        self.gate.iter_mut().for_each(Gate::reset);
        (self.top, self.quiet) = (TOP, quiet);
    }
}

fn natural(decimal: f32) -> f32 {
    decimal * std::f32::consts::LN_10
}

/// What the gate lets through of a column.
fn through(gate: &mut Gate, column: &Column) -> Column {
    match gate.open(&column.map(|y| natural(y.max(QUIET)))) {
        1.0 => *column,
        0.0 => [NOTHING; BINS],
        level => column.map(|y| QUIET + (y.max(QUIET) - QUIET) * level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(mel: &mut Mel, samples: &[f32], piece: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        samples.chunks(piece).for_each(|piece| mel.push(piece, &mut |frame| frames.push(frame)));
        frames
    }

    fn syllables(seconds: f32, level: f32) -> Vec<f32> {
        let tau = std::f32::consts::TAU;
        let wave = |t: f32| (1..20).map(|k| (tau * 140.0 * k as f32 * t).sin() / k as f32).sum::<f32>();
        let sample = |n: usize| n as f32 / 16_000.0;
        let voice = |t: f32| level * wave(t) * (tau * 2.0 * t).sin().powi(2);
        (0..(16_000.0 * seconds) as usize).map(|n| voice(sample(n))).collect()
    }

    #[test]
    fn frames_are_those_of_the_training_in_pieces_of_any_size() {
        let file = super::super::golden();
        let (samples, wanted) = (file.numbers("samples"), file.numbers("mel_50"));
        for piece in [1, 160, 777, 16_000] {
            let found = frames(&mut Mel::without_gate(), &samples, piece);
            assert_eq!(found.len(), 99, "frame 98 ends at sample 15880");
            let found = found[50..60].iter().flat_map(|frame| frame.bins);
            let worst = found.zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-3, "pieces of {piece}: {worst}");
        }
    }

    #[test]
    fn lasting_noise_is_silence_and_speech_is_let_through() {
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * 0.01
        };
        let room: Vec<f32> = (0..48_000).map(|_| noise()).collect();
        let hum: Vec<f32> = (0..48_000).map(|n| 0.01 * (n as f32 * 0.019_635).sin()).collect();
        for (name, sound) in [("noise", room), ("hum", hum)] {
            let heard = frames(&mut Mel::new(), &sound, 480);
            assert!(heard[150..].iter().all(|frame| frame.quiet > 0), "{name}");
        }
        let (heard, wanted) = (syllables(2.0, 0.1), syllables(2.0, 0.1));
        let found = frames(&mut Mel::new(), &heard, 320);
        let whole = frames(&mut Mel::without_gate(), &wanted, 320);
        let kept = found.iter().zip(&whole).skip(4).all(|(a, b)| a.bins == b.bins);
        assert!(kept, "a voice is changed");
    }

    #[test]
    fn silence_is_the_same_after_any_voice_in_time_and_after_a_hush_at_once() {
        let mut mel = Mel::new();
        assert!(frames(&mut mel, &[0.0; 4000], 100).iter().all(|frame| frame.bins == [Mel::SILENCE; BINS]));
        frames(&mut mel, &syllables(1.0, 0.5), 320);
        let after = frames(&mut mel, &vec![0.0; 16_000], 320);
        assert!(after[50].quiet > 0 && after[50].bins[0] > Mel::SILENCE, "the maximum falls slowly");
        mel.hush();
        assert!(frames(&mut mel, &[0.0; 4000], 100).iter().all(|frame| frame.bins == [Mel::SILENCE; BINS]));
        frames(&mut mel, &syllables(1.0, 0.5), 320);
        let long = frames(&mut mel, &vec![0.0; 16_000 * 12], 320);
        let lasting = long.iter().position(|frame| frame.quiet == LASTING).unwrap();
        assert!(long[lasting - 1].bins[0] > Mel::SILENCE && long[lasting].bins == [Mel::SILENCE; BINS]);
    }
}
