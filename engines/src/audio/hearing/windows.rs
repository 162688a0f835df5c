use std::{
    collections::{HashMap, VecDeque},
    iter,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    super::{BINS, FrontEnd, HOP_SAMPLES},
    mel::Mel,
    network::{REACH, options_of},
};
use crate::{
    Error, Result,
    manifest::{AudioSection, HearingWindow, Package},
    runtime::{Batches, Input, Model, Options, PerModel, Port},
};

/// Mel frames of a token, and those before its own that the first token reaches over.
const PER_TOKEN: usize = 2;
const LEAD: usize = 2;
/// Most windows in one evaluation: each takes some megabytes.
const MOST: usize = 4;
/// Samples that are taken at a time.
const PIECE: usize = 16_000;

/// Turns speech into a feature each 20 ms, by windows of sound of which each is heard as a whole: the front-end of the kind
/// `windowed-whisper`, for files.
///
/// Windows of `W` tokens lie at fixed places of the stream's running time, token `j` of it being at 20 `j` ms: the one of number `k` has the
/// tokens from `k (W - 2 M) - M` on, `M` being the margin, and gives the features of its middle, `k (W - 2 M)` and the `W - 2 M - 1` after
/// it, once the sound of its last token is there. So they are the same whatever the size of the pieces that sound comes in, and
/// wherever in a recording a stream begins, for windows that begin after it. Before the first frame and after the last one that the sound
/// completes is silence.
/// A window that is silent throughout is not evaluated: its features are those of the middle of a silent one.
pub struct Windowed {
    network: Arc<Network>,
    window: HearingWindow,
    key: String,
    silence: Arc<[f32]>,
    mel: Mel,
    /// Those of the next window, as far as they are there.
    frames: VecDeque<[f32; BINS]>,
    /// Tokens of the next window's middle that are before the stream's first.
    before: usize,
    /// Features given, and samples taken.
    token: usize,
    samples: u64,
}

impl Windowed {
    /// Loads the `audio` part of an engine whose manifest says `audio` of it.
    ///
    /// Errors: a file that is not such a network.
    pub fn new(package: &Package, options: &Options, audio: &AudioSection) -> Result<Self> {
        let window = audio.window.ok_or_else(|| Error::Manifest {
            origin: package.location(),
            key: "audio.window".into(),
            cause: "is missing: the kind `windowed-whisper` needs its tokens and margin".into(),
        })?;
        let network = Network::of(&package.network("audio", &options_of(package, options)?)?, audio.features)?;
        Self::of(network, window, package.digest("audio"))
    }

    fn of(network: Arc<Network>, window: HearingWindow, digest: &str) -> Result<Self> {
        let mut windowed = Self {
            silence: network.silence(window.tokens)?,
            network,
            window,
            key: format!("windowed-whisper-{digest}-{}-{}", window.tokens, window.margin),
            mel: Mel::new(),
            frames: VecDeque::new(),
            before: 0,
            token: 0,
            samples: 0,
        };
        windowed.begin(0);
        Ok(windowed)
    }

    /// The stream's first token is the one of this number on the running time.
    fn begin(&mut self, first: u64) {
        self.before = (first % self.window.used().max(1) as u64) as usize;
        let silent = LEAD + PER_TOKEN * (self.window.margin + self.before);
        self.frames = iter::repeat_n([Mel::SILENCE; BINS], silent).collect();
        (self.token, self.samples) = (0, 0);
    }

    /// Frames of a window.
    fn whole(&self) -> usize {
        PER_TOKEN * self.window.tokens + REACH
    }

    /// Takes a frame, and gives the features of the window that it completes, but none of the token `end` or later ones.
    fn hear(&mut self, bins: [f32; BINS], end: usize, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.frames.push_back(bins);
        let (whole, used) = (self.whole(), self.window.used());
        if self.frames.len() < whole {
            return Ok(());
        }
        let silent = self.frames.range(..whole).all(|frame| *frame == [Mel::SILENCE; BINS]);
        let features = match silent {
            true => None,
            false => Some(self.network.hear(self.frames.range(..whole).flatten().copied().collect())?),
        };
        let size = self.network.features;
        let middle = self.window.margin + self.before..self.window.margin + used;
        for token in middle.take(end - self.token) {
            sink(features.as_ref().map_or(&*self.silence, |features| &features[token * size..][..size]));
            self.token += 1;
        }
        self.frames.drain(..PER_TOKEN * used);
        self.before = 0;
        Ok(())
    }

    fn take(&mut self, samples: &[f32], end: usize, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        for piece in samples.chunks(PIECE) {
            let mut frames = Vec::new();
            self.mel.push(piece, &mut |frame| frames.push(frame.bins));
            frames.into_iter().try_for_each(|bins| self.hear(bins, end, sink))?;
        }
        Ok(())
    }
}

impl FrontEnd for Windowed {
    fn key(&self) -> &str {
        &self.key
    }

    fn dims(&self) -> usize {
        self.network.features
    }

    fn hop(&self) -> Duration {
        HearingWindow::TOKEN
    }

    fn overhang(&self) -> Duration {
        self.window.overhang()
    }

    fn own_sound(&self) -> Duration {
        HearingWindow::NEED
    }

    fn silence(&self) -> &[f32] {
        &self.silence
    }

    fn begin_at(&mut self, time: Duration) {
        self.begin((time.as_nanos() / HearingWindow::TOKEN.as_nanos()) as u64);
    }

    fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.samples += samples.len() as u64;
        self.take(samples, usize::MAX, sink)
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        let end = self.samples.div_ceil((HOP_SAMPLES * PER_TOKEN) as u64) as usize;
        while self.token < end {
            self.hear([Mel::SILENCE; BINS], end, sink)?;
        }
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.mel.reset();
        self.begin(0);
    }

    fn hush(&mut self) {
        self.mel.hush();
        self.frames.iter_mut().for_each(|frame| *frame = [Mel::SILENCE; BINS]);
    }
}

/// The network for all streams of a process, whose windows go together in [batches](Batches): the input `mel` f32
/// `[batch, 2 tokens + 3, 80]`, the output `feature` f32 `[batch, tokens, F]`.
struct Network {
    features: usize,
    batches: Batches<Vec<f32>, Vec<f32>>,
    /// What it says of the middle of a silent window, by the window's tokens.
    silences: Mutex<HashMap<usize, Arc<[f32]>>>,
}

static NETWORKS: PerModel<Network> = PerModel::new();

impl Network {
    fn of(model: &Arc<Model>, features: usize) -> Result<Arc<Self>> {
        check(model, features)?;
        Ok(NETWORKS.of(model, || {
            let (lanes, name) = (model.at_a_time(), model.name().to_owned());
            let most = if model.device().wants_fixed_shapes() { 1 } else { MOST };
            let network = model.clone();
            let run = move |windows: &[Vec<f32>]| run(&network, features, windows);
            let batches = Batches::new(&name, lanes, Vec::len, Box::new(run)).of_at_most(most);
            Self { features, batches, silences: Mutex::default() }
        }))
    }

    /// Features `[tokens, F]` of `mel`, `[2 tokens + 3, 80]`.
    fn hear(&self, mel: Vec<f32>) -> Result<Vec<f32>> {
        self.batches.ask(mel).1
    }

    fn silence(&self, tokens: usize) -> Result<Arc<[f32]>> {
        if let Some(known) = self.silences.lock().get(&tokens) {
            return Ok(known.clone());
        }
        let heard = self.hear(vec![Mel::SILENCE; (PER_TOKEN * tokens + REACH) * BINS])?;
        let silence: Arc<[f32]> = heard[tokens / 2 * self.features..][..self.features].into();
        Ok(self.silences.lock().entry(tokens).or_insert(silence).clone())
    }
}

fn run(model: &Model, features: usize, windows: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
    let Some(first) = windows.first() else { return Ok(Vec::new()) };
    let (batch, frames) = (windows.len(), first.len() / BINS);
    let tokens = frames.saturating_sub(REACH) / PER_TOKEN;
    let joined = if batch == 1 { Vec::new() } else { windows.concat() };
    let mel = if batch == 1 { first } else { &joined };
    let found = model.run(&[Input { name: "mel", shape: &[batch, frames, BINS], data: mel }])?.into_iter().next();
    let size = tokens * features;
    match found {
        Some(found) if found.data.len() == batch * size && found.data.iter().all(|v| v.is_finite()) => {
            Ok(found.data.chunks_exact(size).map(<[f32]>::to_vec).collect())
        }
        found => Err(Error::Runtime {
            model: model.name().into(),
            cause: format!(
                "gave {} numbers for {batch} windows of {tokens} tokens, and not {} that are finite",
                found.map_or(0, |found| found.data.len()),
                batch * size
            ),
        }),
    }
}

/// Checks the ports of the model.
fn check(model: &Model, features: usize) -> Result<()> {
    let signature = model.signature();
    let refuse = |what: &str, expected: String, found: &[Port]| Error::Mismatch {
        model: model.name().into(),
        what: what.into(),
        expected,
        found: match found {
            [one] => one.describe(),
            all => all.iter().map(|port| port.name.clone()).collect::<Vec<_>>().join(", "),
        },
    };
    match &signature.inputs[..] {
        [mel] if mel.name == "mel" && mel.shape.len() == 3 && mel.shape[2].is_none_or(|bins| bins == BINS) => {}
        other => return Err(refuse("inputs", format!("mel [batch, 2 tokens + 3, {BINS}] alone"), other)),
    }
    match &signature.outputs[..] {
        [feature] if feature.name == "feature" && feature.shape.len() == 3 && feature.shape[2] == Some(features) => {
            Ok(())
        }
        other => Err(refuse("outputs", format!("feature [batch, tokens, {features}] alone"), other)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tiny, *};
    use crate::runtime::Source;

    const FEATURES: usize = 8;
    const WINDOW: HearingWindow = HearingWindow { tokens: 40, margin: 10 };
    const USED: usize = 20;

    fn model() -> Arc<Model> {
        Model::load("tiny.onnx", Source::from(tiny::hearing(FEATURES).as_slice()), &Options::default()).unwrap()
    }

    /// Of the small network of the tests, which hears steady sounds too.
    fn windowed() -> Windowed {
        let mut windowed = Windowed::of(Network::of(&model(), FEATURES).unwrap(), WINDOW, "tiny").unwrap();
        windowed.mel = Mel::without_gate();
        windowed
    }

    /// Features of a sound that comes in pieces, begins at `time` and ends.
    fn features(windowed: &mut Windowed, samples: &[f32], piece: usize, time: Duration) -> Vec<Vec<f32>> {
        let mut all = Vec::new();
        windowed.begin_at(time);
        for piece in samples.chunks(piece) {
            windowed.push(piece, &mut |feature| all.push(feature.to_vec())).unwrap();
        }
        windowed.finish(&mut |feature| all.push(feature.to_vec())).unwrap();
        all
    }

    fn apart(found: &[Vec<f32>], wanted: &[Vec<f32>]) -> f32 {
        assert_eq!(found.len(), wanted.len());
        let pairs = found.iter().flatten().zip(wanted.iter().flatten());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    fn voice(samples: usize) -> Vec<f32> {
        let tone = |t: f32, hertz: f32| (std::f32::consts::TAU * (hertz * t).fract()).sin();
        let sample = |n: usize| {
            let t = n as f32 / 16_000.0;
            0.1 * (tone(t, 130.0) + tone(t, 390.0) * tone(t, 0.7)) * tone(t, 2.3).powi(2)
        };
        (0..samples).map(sample).collect()
    }

    /// What the network says of each window of a sound, put together by hand.
    fn directly(samples: &[f32]) -> Vec<Vec<f32>> {
        let (model, mut mel) = (model(), Vec::new());
        Mel::without_gate().push(samples, &mut |frame| mel.push(frame.bins));
        let count = samples.len().div_ceil(320);
        let frame = |at: i64| match usize::try_from(at) {
            Ok(at) if at < mel.len() => mel[at],
            _ => [Mel::SILENCE; BINS],
        };
        let mut all = Vec::new();
        for first in (0..count as i64).step_by(USED) {
            let from = 2 * (first - WINDOW.margin as i64) - 2;
            let data: Vec<f32> = (from..from + 83).flat_map(frame).collect();
            let heard = model.run(&[Input { name: "mel", shape: &[1, 83, BINS], data: &data }]).unwrap().remove(0).data;
            all.extend(heard.chunks(FEATURES).skip(WINDOW.margin).take(USED).map(<[f32]>::to_vec));
        }
        all.truncate(count);
        all
    }

    #[test]
    fn features_are_those_of_each_window_in_pieces_of_any_size() {
        // As long as some windows' middles, one sample less and more, and too short for one.
        let used = USED * 320;
        for samples in [1, 160, 16_000, 3 * used, 3 * used - 1, 3 * used + 1, 7 * used + 5000] {
            let sound = voice(samples);
            let wanted = directly(&sound);
            assert_eq!(wanted.len(), samples.div_ceil(320));
            for piece in [160, 777, 16_000] {
                let found = features(&mut windowed(), &sound, piece, Duration::ZERO);
                let worst = apart(&found, &wanted);
                assert!(worst < 1e-5, "{samples} samples in pieces of {piece}: {worst:e}");
            }
        }
        assert!(features(&mut windowed(), &[], 1, Duration::ZERO).is_empty());
    }

    #[test]
    fn features_are_those_of_the_training() {
        let file =
            safetensors::SafeTensors::deserialize(include_bytes!("../../../tests/data/hearing-whole.safetensors"));
        let file = file.unwrap();
        let numbers = |name: &str| -> Vec<f32> {
            file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        let bytes = include_bytes!("../../../tests/data/hearing-whole.onnx").as_slice();
        let model = Model::load("hearing-whole.onnx", Source::from(bytes), &Options::default()).unwrap();
        let window = HearingWindow { tokens: 40, margin: 8 };
        let mut windowed = Windowed::of(Network::of(&model, FEATURES).unwrap(), window, "golden").unwrap();
        windowed.mel = Mel::without_gate();
        let found = features(&mut windowed, &numbers("samples"), 333, Duration::ZERO);
        let wanted: Vec<Vec<f32>> = numbers("features").chunks(FEATURES).map(<[f32]>::to_vec).collect();
        assert_eq!((found.len(), wanted.len()), (50, 49), "token 49 has begun and is not complete");
        let worst = apart(&found[..49], &wanted);
        assert!(worst < 1e-3, "{worst:e}");
    }

    #[test]
    fn a_part_of_a_recording_is_heard_as_all_of_it() {
        // Too low for the maximum to be raised by what is heard of one alone.
        let sound: Vec<f32> = voice(16_000 * 6).iter().map(|sample| 0.03 * sample).collect();
        let whole = features(&mut windowed(), &sound, 640, Duration::ZERO);
        // Two seconds are a multiple of 20 tokens of 20 ms, 2.62 are not.
        for skipped in [2.0, 2.62] {
            let token = (skipped * 50.0) as usize;
            let begins = Duration::from_secs_f64(skipped);
            let part = features(&mut windowed(), &sound[token * 320..], 640, begins);
            assert_eq!(part.len(), whole.len() - token);
            // The first windows miss what was before.
            let settled = USED + 2 * WINDOW.margin;
            let worst = apart(&part[settled..], &whole[token + settled..]);
            assert!(worst < 1e-5, "from {skipped} s: {worst:e}");
        }
    }

    #[test]
    fn a_feature_comes_when_the_sound_of_its_window_is_there() {
        let (sound, mut windowed) = (voice(16_000 * 2), windowed());
        // Ends of the first and the second window: tokens 29 and 49.
        let (ends, mut found) = ([29 * 320 + 520, 49 * 320 + 520], 0);
        for (n, sample) in sound[..ends[1] + 1].iter().enumerate() {
            let wanted = ends.iter().filter(|end| n + 1 >= **end).count() * USED;
            windowed.push(&[*sample], &mut |_| found += 1).unwrap();
            assert_eq!(found, wanted, "after {} samples", n + 1);
        }
        let waits = Duration::from_secs_f64(ends[0] as f64 / 16_000.0);
        assert_eq!(windowed.overhang(), waits, "the first token waits longest");
        assert_eq!(windowed.own_sound(), Duration::from_micros(32_500));
    }

    #[test]
    fn silence_is_the_same_everywhere_and_memory_is_bounded() {
        let mut windowed = windowed();
        let silent = features(&mut windowed, &[0.0; 16_000 * 3], 480, Duration::ZERO);
        assert_eq!(silent.len(), 150);
        assert!(silent.iter().all(|feature| feature == windowed.silence()));
        // After a voice and ten seconds of silence too, which is not evaluated.
        let (mut all, sound) = (Vec::new(), [voice(16_000), vec![0.0; 16_000 * 12]].concat());
        for piece in sound.chunks(640) {
            windowed.push(piece, &mut |feature| all.push(feature.to_vec())).unwrap();
            assert!(windowed.frames.len() < windowed.whole());
        }
        assert_ne!(all[20], windowed.silence());
        assert!(all[550..].iter().all(|feature| feature == windowed.silence()));
    }

    #[test]
    fn after_an_interrupt_what_was_heard_was_silence() {
        let mut windowed = windowed();
        windowed.push(&voice(16_000 * 2), &mut |_| ()).unwrap();
        windowed.hush();
        let mut all = Vec::new();
        windowed.push(&[0.0; 16_000 * 2], &mut |feature| all.push(feature.to_vec())).unwrap();
        assert!(all.len() > 80 && all.iter().all(|feature| feature == windowed.silence()));
    }

    #[test]
    fn streams_that_ask_together_hear_what_one_alone_hears() {
        let sound = voice(16_000 * 3);
        let network = Network::of(&model(), FEATURES).unwrap();
        let stream = || {
            let mut windowed = Windowed::of(network.clone(), WINDOW, "tiny").unwrap();
            windowed.mel = Mel::without_gate();
            features(&mut windowed, &sound, 640, Duration::ZERO)
        };
        let alone = stream();
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..4).map(|_| scope.spawn(stream)).collect();
            for other in others {
                assert!(apart(&other.join().unwrap(), &alone) < 1e-5);
            }
        });
    }

    #[test]
    fn a_network_with_other_ports_is_refused() {
        let causal = include_bytes!("../../../tests/data/hearing.onnx").as_slice();
        let causal = Model::load("hearing.onnx", Source::from(causal), &Options::default()).unwrap();
        let error = Network::of(&causal, FEATURES).err().unwrap().to_string();
        assert!(error.contains("hearing.onnx") && error.contains("mel [batch, 2 tokens + 3, 80] alone"), "{error}");
        let error = Network::of(&model(), 9).err().unwrap().to_string();
        assert!(error.contains("feature [batch, tokens, 9] alone"), "{error}");
    }
}
