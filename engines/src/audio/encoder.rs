use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{BINS, FrontEnd, Mel, band::Band, gate::Gate, mel::FLOOR};
use crate::{
    Error, Result,
    manifest::{AudioSection, Package},
    runtime::{Input, Model, Options},
};

/// Hops of silence after which the encoder's state has settled. After so many of digital silence the network is spared: it
/// would say the same again and again.
const SETTLED_HOPS: usize = 400;

/// Turns speech into one feature vector a hop. The network's state travels from hop to hop, so a hop costs the same
/// however long the stream is.
///
/// The model has inputs `mel` f32 `[1, hop / 10 ms, 80]` (normalised) and `state` f32 `[1, S]`, and outputs `feature`
/// f32 `[1, F]` and `next_state` f32 `[1, S]`. Of speech whose high or low
/// frequencies were taken it hears what they let expect, and steady sounds, hum and the noise of a room, as silence.
pub struct Encoder {
    model: Arc<Model>,
    section: AudioSection,
    key: String,
    mel: Mel,
    band: Band,
    gate: Gate,
    /// Normalised mel frames of the hop that is being gathered, `[frames * 80]`.
    hop: Vec<f32>,
    hop_len: usize,
    state: Vec<f32>,
    settled: Arc<Settled>,
    /// The last feature.
    last: Vec<f32>,
    /// Hops of digital silence on end.
    quiet_hops: u32,
    /// Samples taken and hops given since the last reset.
    samples: u64,
    hops: u64,
}

impl Encoder {
    /// Loads the `audio` part of an engine.
    pub fn new(engine: &Package, options: &Options) -> Result<Self> {
        let section = engine
            .manifest()
            .audio
            .clone()
            .ok_or_else(|| Error::invalid(format!("engine `{}` has no audio encoder", engine.manifest().name)))?;
        let name = engine.file_name("audio");
        let model = engine.network("audio", options)?;
        let frames = section.hop_ms as usize / 10;
        let state = state_size(&name, &model, frames, section.features)?;
        let settled = Settled::of(&model, &vec![quiet(&section); frames * BINS], state)?;
        Ok(Self {
            model,
            settled,
            last: Vec::new(),
            quiet_hops: 0,
            key: key(engine, &section),
            mel: Mel::new(),
            band: Band::default(),
            gate: Gate::new(FLOOR.ln()),
            hop: Vec::with_capacity(frames * BINS),
            hop_len: frames * BINS,
            state: vec![0.0; state],
            samples: 0,
            hops: 0,
            section,
        })
    }
}

impl FrontEnd for Encoder {
    fn key(&self) -> &str {
        &self.key
    }

    fn dims(&self) -> usize {
        self.section.features
    }

    fn hop(&self) -> Duration {
        Duration::from_millis(self.section.hop_ms.into())
    }

    fn overhang(&self) -> Duration {
        self.section.overhang()
    }

    fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.samples += samples.len() as u64;
        let (quiet, [mean, std]) = (quiet(&self.section), scale(&self.section));
        let Self { mel, band, gate, hop, hop_len, model, state, last, quiet_hops, hops, .. } = self;
        mel.push(samples, &mut |frame| {
            hop.extend(gate.pass(&band.fill(frame)).iter().map(|y| (y - mean) / std));
            if hop.len() < *hop_len {
                return Ok(());
            }
            *quiet_hops = if hop.iter().all(|v| *v == quiet) { quiet_hops.saturating_add(1) } else { 0 };
            if *quiet_hops as usize <= SETTLED_HOPS {
                *last = step(model, hop, state)?;
            }
            sink(last);
            hop.clear();
            *hops += 1;
            Ok(())
        })
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        let hop_samples = u64::from(self.section.hop_ms) * 16;
        let missing = self.samples.div_ceil(hop_samples).saturating_sub(self.hops);
        let end = (self.hops + missing) * hop_samples + self.section.overhang().as_millis() as u64 * 16;
        let silence = vec![0.0; end.saturating_sub(self.samples) as usize];
        let mut left = missing;
        self.push(&silence, &mut |feature| {
            if left > 0 {
                left -= 1;
                sink(feature);
            }
        })?;
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.mel.reset();
        self.band = Band::default();
        self.gate.reset();
        self.hop.clear();
        self.state.fill(0.0);
        (self.samples, self.hops, self.quiet_hops) = (0, 0, 0);
    }

    /// The state is what lasting silence leaves.
    fn hush(&mut self) {
        self.mel.hush();
        self.gate.reset();
        self.hop.fill(quiet(&self.section));
        self.state.clone_from(&self.settled.state);
    }

    fn silence(&self) -> &[f32] {
        &self.settled.feature
    }
}

/// What features depend on: the network and how it is fed.
fn key(engine: &Package, section: &AudioSection) -> String {
    let file = engine.manifest().files.get("audio").map_or("", |file| file.sha256.as_str());
    let AudioSection { features, hop_ms, .. } = section;
    let [mel_mean, mel_std] = scale(section);
    let hash = Sha256::digest(format!("{file} {features} {hop_ms} {mel_mean} {mel_std}"));
    format!("recurrent-{}", hash.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>())
}

/// Where lasting silence leads.
struct Settled {
    feature: Vec<f32>,
    state: Vec<f32>,
}

impl Settled {
    /// Runs the model into silence once for as long as it is loaded.
    fn of(model: &Arc<Model>, hop: &[f32], state: usize) -> Result<Arc<Self>> {
        type Known = Vec<(Weak<Model>, Vec<f32>, Arc<Settled>)>;
        static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
        let mut known = KNOWN.get_or_init(Default::default).lock();
        known.retain(|(model, ..)| model.strong_count() > 0);
        let same = |(of, with, _): &&(Weak<Model>, Vec<f32>, Arc<Settled>)| {
            std::ptr::eq(of.as_ptr(), Arc::as_ptr(model)) && with == hop
        };
        if let Some((.., settled)) = known.iter().find(same) {
            return Ok(settled.clone());
        }
        let (mut state, mut feature) = (vec![0.0; state], Vec::new());
        for _ in 0..SETTLED_HOPS {
            feature = step(model, hop, &mut state)?;
        }
        let settled = Arc::new(Self { feature, state });
        known.push((Arc::downgrade(model), hop.to_vec(), settled.clone()));
        Ok(settled)
    }
}

/// What every bin of a normalised mel frame is in silence.
fn quiet(section: &AudioSection) -> f32 {
    let [mean, std] = scale(section);
    (FLOOR.ln() - mean) / std
}

/// What normalises the mel: mean and deviation. A manifest without them was refused.
fn scale(section: &AudioSection) -> [f32; 2] {
    [section.mel_mean.unwrap_or(0.0), section.mel_std.unwrap_or(1.0)]
}

fn step(model: &Model, hop: &[f32], state: &mut Vec<f32>) -> Result<Vec<f32>> {
    let outputs = model.run(&[
        Input { name: "mel", shape: &[1, hop.len() / BINS, BINS], data: hop },
        Input { name: "state", shape: &[1, state.len()], data: state },
    ])?;
    let mut outputs = outputs.into_iter();
    let (Some(feature), Some(next)) = (outputs.next(), outputs.next()) else {
        return Err(Error::Runtime { model: model.name().into(), cause: "gave fewer than two outputs".into() });
    };
    *state = next.data;
    Ok(feature.data)
}

/// Checks the model's ports against the manifest; returns the size of the state.
fn state_size(name: &str, model: &Model, frames: usize, features: usize) -> Result<usize> {
    let refuse = |what: &str, expected: String, found: String| Error::Mismatch {
        model: name.into(),
        what: what.into(),
        expected,
        found,
    };
    let signature = model.signature();
    let port = |ports: &[crate::runtime::Port], wanted: &str| {
        ports.iter().find(|p| p.name == wanted).cloned().ok_or_else(|| {
            let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
            refuse("ports", format!("`{wanted}`"), names.join(", "))
        })
    };
    let mel = port(&signature.inputs, "mel")?;
    if mel.shape.len() != 3 || mel.shape[1..] != [Some(frames), Some(BINS)] {
        return Err(refuse("input `mel`", format!("[1, {frames}, {BINS}]"), mel.describe()));
    }
    let feature = port(&signature.outputs, "feature")?;
    if feature.shape.last() != Some(&Some(features)) {
        return Err(refuse("output `feature`", format!("[1, {features}]"), feature.describe()));
    }
    if signature.outputs.first().map(|p| p.name.as_str()) != Some("feature") {
        return Err(refuse("outputs", "feature, next_state".into(), "another order".into()));
    }
    let state = port(&signature.inputs, "state")?;
    match (state.shape.as_slice(), port(&signature.outputs, "next_state")?.shape.last()) {
        ([_, Some(size)], Some(Some(next))) if size == next && *size <= 1 << 20 => Ok(*size),
        _ => Err(refuse("input `state`", "[1, S], as `next_state`".into(), state.describe())),
    }
}
