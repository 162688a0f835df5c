use std::{collections::VecDeque, iter, mem::take, sync::Arc, time::Duration};

use super::{
    super::{BINS, FrontEnd, HOP_SAMPLES},
    mel::{Frame, LASTING, Mel},
    network::{Call, Heard, Network, REACH},
    ring::{PAST, Ring},
    settled::Settled,
};
use crate::{
    Result,
    manifest::{AudioSection, Package},
    runtime::Options,
};

/// Mel frames of a token, and those before its own that the first token reaches over.
const PER_TOKEN: usize = 2;
const LEAD: usize = 2;
/// Tokens over which the feature goes to that of lasting silence, once that is reached and the network is spared: a second.
const GLIDE: usize = 50;
/// Position from which on the tokens are encoded again at the first position: Whisper's table has 1500.
const TURN: usize = 1000;
/// Tokens that are encoded again beside each call.
const AGAIN: usize = 10;

/// Turns speech into a feature each 20 ms: `compact`'s front-end of the kind `causal-whisper`.
///
/// Token `j` is of the mel frames `2 j - 2` to `2 j + 2` and sees itself and the two seconds before. Two tokens are computed
/// at a time, an odd one and the even one after it, which costs little more than one. Which tokens go together depends on
/// their number alone, so features are the same whatever the size of the pieces that the sound comes in.
///
/// Positions would end after 30 seconds. Every 18 to 20 seconds the tokens of the last two are encoded again at the first position,
/// a few beside each call, in a second [`Ring`], which takes the place of the first when it has caught up.
pub struct Hearing {
    network: Arc<Network>,
    settled: Arc<Settled>,
    key: String,
    mel: Mel,
    /// The last frames, from `begin` on; what is before the first frame of the stream counts.
    frames: VecDeque<[f32; BINS]>,
    begin: usize,
    ring: Ring,
    state: Vec<f32>,
    /// The last feature of the network.
    last: Vec<f32>,
    second: Option<Second>,
    /// Tokens for which the network has been spared.
    spared: usize,
    turn: usize,
    /// The next token.
    token: usize,
    samples: u64,
}

/// A ring that is catching up with the first.
struct Second {
    ring: Ring,
    next: usize,
}

impl Hearing {
    /// Loads the `audio` part of an engine, whose features have so many numbers.
    pub fn new(package: &Package, options: &Options, features: usize) -> Result<Self> {
        let network = Network::load(package, options, features)?;
        Self::of(network, &format!("causal-whisper-{}", package.digest("audio")))
    }

    fn of(network: Arc<Network>, key: &str) -> Result<Self> {
        let mut hearing = Self {
            settled: network.settled()?,
            ring: network.ring(),
            state: vec![0.0; network.sizes.state],
            network,
            key: key.into(),
            mel: Mel::new(),
            frames: VecDeque::new(),
            begin: 0,
            last: Vec::new(),
            second: None,
            spared: 0,
            turn: TURN,
            token: 0,
            samples: 0,
        };
        hearing.reset();
        Ok(hearing)
    }

    /// Takes a frame, and computes the tokens that it completes.
    fn hear(&mut self, frame: Frame, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.frames.push_back(frame.bins);
        // Up to the next even one.
        let tokens = 1 + self.token % 2;
        if self.begin + self.frames.len() < PER_TOKEN * (self.token + tokens) + REACH {
            return Ok(());
        }
        if frame.quiet >= LASTING {
            if self.spared == 0 {
                self.settle();
            }
            self.token += tokens;
            (0..tokens).for_each(|_| self.spare(sink));
        } else {
            let mel = self.mel_of(self.token, tokens);
            let (call, heard) =
                self.network.hear(Call { ring: take(&mut self.ring), mel, state: take(&mut self.state) });
            (self.ring, self.state) = (call.ring, call.state);
            let Heard { features, fresh, state } = heard?;
            self.ring.write(&fresh, tokens);
            (self.state, self.spared) = (state, 0);
            self.token += tokens;
            self.last.clear();
            self.last.extend(features.chunks_exact(self.network.sizes.features).next_back().unwrap_or_default());
            features.chunks_exact(self.network.sizes.features).for_each(&mut *sink);
            self.turn()?;
        }
        let oldest = self.second.as_ref().map_or(self.token.saturating_sub(PAST), |second| second.next);
        let gone = (PER_TOKEN * oldest).saturating_sub(self.begin);
        self.frames.drain(..gone);
        self.begin += gone;
        Ok(())
    }

    /// The frames of tokens that are kept.
    fn mel_of(&self, token: usize, tokens: usize) -> Vec<f32> {
        let first = PER_TOKEN * token - self.begin;
        self.frames.range(first..first + PER_TOKEN * tokens + REACH).flatten().copied().collect()
    }

    /// Goes on with the second ring, or begins one where positions are about to end.
    fn turn(&mut self) -> Result<()> {
        if self.second.is_none() && self.ring.position >= self.turn {
            self.second = Some(Second { ring: self.network.ring(), next: self.token - PAST });
        }
        let Some(Second { ring, next }) = self.second.take() else { return Ok(()) };
        let tokens = AGAIN.min(self.token - next);
        let call = Call { ring, mel: self.mel_of(next, tokens), state: vec![0.0; self.network.sizes.state] };
        // A second ring that fails is begun again with the next call.
        let (Call { mut ring, .. }, heard) = self.network.hear(call);
        ring.write(&heard?.fresh, tokens);
        match next + tokens == self.token {
            true => self.ring = ring,
            false => self.second = Some(Second { ring, next: next + tokens }),
        }
        Ok(())
    }

    /// All that is kept is what lasting silence leaves.
    fn settle(&mut self) {
        self.second = None;
        self.frames.iter_mut().for_each(|frame| *frame = [Mel::SILENCE; BINS]);
        self.ring.clone_from(&self.settled.ring);
        self.state.clone_from(&self.settled.state);
    }

    /// A token for which the network is spared: from its last feature to that of lasting silence.
    fn spare(&mut self, sink: &mut dyn FnMut(&[f32])) {
        self.spared = self.spared.saturating_add(1);
        if self.spared >= GLIDE {
            return sink(&self.settled.feature);
        }
        let part = self.spared as f32 / GLIDE as f32;
        let mixed = self.last.iter().zip(&self.settled.feature).map(|(from, to)| from + (to - from) * part);
        sink(&mixed.collect::<Vec<_>>());
    }
}

impl FrontEnd for Hearing {
    fn key(&self) -> &str {
        &self.key
    }

    fn dims(&self) -> usize {
        self.network.sizes.features
    }

    fn hop(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn overhang(&self) -> Duration {
        AudioSection::CAUSAL_OVERHANG
    }

    fn silence(&self) -> &[f32] {
        &self.settled.feature
    }

    fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.samples += samples.len() as u64;
        let mut frames = Vec::new();
        self.mel.push(samples, &mut |frame| frames.push(frame));
        frames.into_iter().try_for_each(|frame| self.hear(frame, sink))
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        let hop = HOP_SAMPLES * PER_TOKEN;
        let mut left = (self.samples as usize).div_ceil(hop).saturating_sub(self.token);
        while left > 0 {
            self.push(&vec![0.0; hop], &mut |feature| {
                if left > 0 {
                    left -= 1;
                    sink(feature);
                }
            })?;
        }
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.mel.reset();
        self.frames = iter::repeat_n([Mel::SILENCE; BINS], LEAD).collect();
        let (ring, state) = &self.settled.begun;
        self.ring.clone_from(ring);
        self.state.clone_from(state);
        (self.second, self.spared) = (None, 0);
        (self.begin, self.token, self.samples) = (0, 0, 0);
    }

    fn hush(&mut self) {
        self.mel.hush();
        self.settle();
        self.spared = GLIDE;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::settled::BEGUN, *};
    use crate::runtime::{Model, Source};

    /// The small network of the tests, which hears steady sounds too.
    fn hearing() -> Hearing {
        let bytes: &[u8] = include_bytes!("../../../tests/data/hearing.onnx");
        let model = Model::load("hearing.onnx", Source::from(bytes), &Options::default()).unwrap();
        let mut hearing = Hearing::of(Network::of(&model, 8).unwrap(), "small").unwrap();
        hearing.mel = Mel::without_gate();
        hearing
    }

    fn features(hearing: &mut Hearing, samples: &[f32], piece: usize) -> Vec<Vec<f32>> {
        let mut all = Vec::new();
        let mut sink = |feature: &[f32]| all.push(feature.to_vec());
        samples.chunks(piece).for_each(|piece| hearing.push(piece, &mut sink).unwrap());
        all
    }

    fn apart(found: &[Vec<f32>], wanted: &[Vec<f32>]) -> f32 {
        let pairs = found.iter().flatten().zip(wanted.iter().flatten());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// A voice of some kind: tones that come and go.
    fn voice(seconds: usize) -> Vec<f32> {
        let tone = |t: f32, hertz: f32| (std::f32::consts::TAU * (hertz * t).fract()).sin();
        let sample = |n: usize| {
            let t = n as f32 / 16_000.0;
            0.1 * (tone(t, 130.0) + tone(t, 390.0) * tone(t, 0.7)) * tone(t, 2.3).powi(2)
        };
        (0..16_000 * seconds).map(sample).collect()
    }

    #[test]
    fn features_are_those_of_the_training_in_pieces_of_any_size() {
        let file = super::super::golden();
        let (samples, wanted) = (file.numbers("samples"), file.numbers("features"));
        let wanted: Vec<Vec<f32>> = wanted.chunks(8).map(<[f32]>::to_vec).collect();
        for piece in [1, 160, 777, 16_000] {
            let mut hearing = hearing();
            // Those of the training begin with no memory at all.
            hearing.ring = hearing.network.ring();
            hearing.state.fill(0.0);
            let found = features(&mut hearing, &samples, piece);
            assert_eq!(found.len(), 49, "token 48 is complete at sample 15880");
            assert!(apart(&found, &wanted) < 1e-3, "pieces of {piece}: {}", apart(&found, &wanted));
        }
    }

    #[test]
    fn pieces_change_nothing_where_positions_begin_anew() {
        let voice = voice(30);
        let (mut one, mut other) = (hearing(), hearing());
        let (whole, pieces) = (features(&mut one, &voice, voice.len()), features(&mut other, &voice, 441));
        assert_eq!(whole.len(), pieces.len());
        assert!(apart(&whole, &pieces) < 1e-5, "{}", apart(&whole, &pieces));
        assert!(one.ring.position < TURN, "at {} after 30 s", one.ring.position);
    }

    /// Ten minutes, in which positions begin anew every 18 seconds.
    #[test]
    fn positions_and_memory_are_bounded_over_ten_minutes() {
        let (voice, mut hearing) = (voice(20), hearing());
        let (mut turns, mut before) = (0, 0);
        for minute in 0..30 {
            for piece in voice.chunks(640) {
                hearing.push(piece, &mut |feature| assert!(feature.iter().all(|v| v.is_finite()))).unwrap();
                turns += usize::from(hearing.ring.position < before);
                before = hearing.ring.position;
                assert!(hearing.ring.position < 1500, "{} in round {minute}", hearing.ring.position);
                assert!(hearing.frames.len() < 4 * PAST, "{} frames in round {minute}", hearing.frames.len());
            }
        }
        assert!((32..=34).contains(&turns), "{turns} turns");
    }

    #[test]
    fn features_go_on_across_a_turn() {
        let voice = voice(30);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/compact-words");
        let package = Package::open(folder.as_ref()).unwrap();
        let hearing = || Hearing::new(&package, &Options::default(), 96).unwrap();
        let (mut turning, mut going) = (hearing(), hearing());
        // Whisper's table goes on to 30 s.
        going.turn = 1499;
        let samples = &voice[..29 * 16_000];
        let (found, wanted) = (features(&mut turning, samples, 640), features(&mut going, samples, 640));
        assert!(turning.ring.position < TURN && going.ring.position > TURN);
        let turn = TURN - BEGUN;
        assert_eq!(apart(&found[..turn], &wanted[..turn]), 0.0);
        let square = |all: &[Vec<f32>]| all.iter().flatten().map(|v| v * v).sum::<f32>();
        let off = (found[turn..].iter().zip(&wanted[turn..]))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>())
            .sum::<f32>();
        let off = (off / square(&wanted[turn..])).sqrt();
        // Tokens are heard anew without what was before them, at other positions. Of these tones that is a quarter of the size.
        assert!(off > 0.0 && off < 0.35, "{off} of the size of features");
    }

    #[test]
    fn an_interrupt_leads_to_what_lasting_silence_leads_to() {
        let mut hearing = hearing();
        features(&mut hearing, &voice(2), 640);
        hearing.hush();
        let found = features(&mut hearing, &[0.0; 3200], 320);
        assert!(!found.is_empty() && found.iter().all(|feature| feature == hearing.silence()), "{found:?}");
        // Silence that is computed comes there too.
        let mut other = self::hearing();
        features(&mut other, &voice(2), 640);
        let quiet = features(&mut other, &vec![0.0; 16_000 * 30], 640);
        let (last, rest) = (&quiet[quiet.len() - 1], other.silence());
        assert!(last.iter().zip(rest).all(|(a, b)| (a - b).abs() < 1e-3), "{last:?} is not {rest:?}");
    }

    #[test]
    fn a_stream_begins_as_after_half_a_second_of_silence() {
        // What is before a voice reaches over its beginning.
        let voice = [&[0.0; 640], &voice(1)[..]].concat();
        let mut emptied = hearing();
        emptied.ring = emptied.network.ring();
        emptied.state.fill(0.0);
        let found = features(&mut hearing(), &voice, 640);
        let wanted = features(&mut emptied, &[&[0.0; BEGUN * 320], &voice[..]].concat(), 640);
        let wanted = &wanted[BEGUN..];
        assert!(apart(&found[..wanted.len().min(found.len())], wanted) < 1e-4, "{}", apart(&found, wanted));
    }

    #[test]
    fn lasting_silence_is_come_to_without_a_step_and_a_voice_after_it_is_heard_as_after_an_interrupt() {
        let (mut hearing, mut other) = (hearing(), self::hearing());
        features(&mut hearing, &voice(2), 640);
        let quiet = features(&mut hearing, &vec![0.0; 16_000 * 12], 640);
        let reached = quiet.iter().position(|feature| feature == hearing.silence()).unwrap();
        let spared = reached + 1 - GLIDE;
        assert!(spared.abs_diff(LASTING / PER_TOKEN) < 10, "spared after {spared} tokens");
        let way = apart(&quiet[spared - 1..spared], &[hearing.silence().to_vec()]);
        let largest = (spared..=reached).map(|i| apart(&quiet[i - 1..i], &quiet[i..=i])).fold(0.0, f32::max);
        assert!(way > 1e-3 && largest < 0.05 * way, "a step of {largest} on a way of {way}");

        features(&mut other, &voice(2), 640);
        other.hush();
        features(&mut other, &vec![0.0; 16_000 * 12], 640);
        let (found, wanted) = (features(&mut hearing, &voice(1), 640), features(&mut other, &voice(1), 640));
        assert!(apart(&found, &wanted) < 1e-5, "{}", apart(&found, &wanted));
    }

    #[test]
    fn the_end_gives_each_hop_of_the_sound_a_feature_and_the_next_stream_begins_anew() {
        let (samples, mut hearing) = (voice(1), hearing());
        let mut all = features(&mut hearing, &samples, 777);
        hearing.finish(&mut |feature| all.push(feature.to_vec())).unwrap();
        assert_eq!(all.len(), 50);
        let again = features(&mut hearing, &samples, 640);
        assert_eq!(again, all[..again.len()]);
    }
}
