//! SyncTalk_2D's audio-visual encoder as it streams.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{BINS, FrontEnd, wav2lip::Wav2LipMel};
use crate::{
    Error, Result,
    manifest::Package,
    runtime::{Input, Model, Options},
};

/// Columns of the mel that a feature is made from.
const COLUMNS: usize = 16;
/// Columns a second, and features.
const COLUMN_RATE: u64 = 80;
const RATE: u64 = 25;

/// One feature a video frame of 40 ms: feature `i` is what the network says of the 16 mel columns from `int(80 i / 25)` on.
/// The network `ave` has the input `mel` f32 `[1, 1, 80, 16]` and the output `features` f32 `[1, F]`.
///
/// To be exact it gives what the published program does of `T` columns, `int((T - 16) / 80 25) + 2` features, with zeros for what
/// there is not. That the program doubles the first and the last is what a window does with the hop before and after them.
pub struct Ave {
    model: Arc<Model>,
    key: String,
    dims: usize,
    mel: Wav2LipMel,
    /// Columns from the number `first` on.
    columns: VecDeque<[f32; BINS]>,
    first: u64,
    /// Features given, and samples taken.
    features: u64,
    samples: u64,
    silence: Vec<f32>,
    exact: bool,
}

impl Ave {
    pub fn new(package: &Package, options: &Options) -> Result<Self> {
        let model = package.network("ave", options)?;
        model.expect_input("mel", &[1, BINS, COLUMNS])?;
        let output = model.signature().outputs.iter().find(|port| port.name == "features");
        let dims =
            output.and_then(|port| port.shape.last().copied().flatten()).filter(|dims| (1..=4096).contains(dims));
        let dims = dims.ok_or_else(|| Error::Mismatch {
            model: model.name().into(),
            what: "`features`".into(),
            expected: "[batch, 1 to 4096]".into(),
            found: output.map_or("nothing".into(), crate::runtime::Port::describe),
        })?;
        let exact = package.is_exact();
        let mel = if exact { Wav2LipMel::zero_padded() } else { Wav2LipMel::default() };
        let quiet: [f32; BINS] = std::array::from_fn(|b| mel.silence()[b]);
        let silence = if exact { vec![0.0; dims] } else { encode(&model, [quiet; COLUMNS].iter())? };
        Ok(Self {
            key: format!("ave-{}{}", package.digest("ave"), if exact { "-exact" } else { "" }),
            model,
            dims,
            mel,
            columns: VecDeque::new(),
            first: 0,
            features: 0,
            samples: 0,
            silence,
            exact,
        })
    }

    /// Gives the features whose columns are there; at the `end` the last columns stand for those that there will not be.
    fn drain(&mut self, end: bool, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        loop {
            let start = self.features * COLUMN_RATE / RATE;
            let known = self.first + self.columns.len() as u64;
            // What the published code does with the last windows: they begin where 16 columns are left.
            let start = if end { start.min(known.saturating_sub(COLUMNS as u64)) } else { start };
            if start < self.first || start + COLUMNS as u64 > known {
                return Ok(());
            }
            let wanted = match self.exact {
                true => known.saturating_sub(COLUMNS as u64) * RATE / COLUMN_RATE + 2,
                false => self.samples.div_ceil(u64::from(super::SAMPLE_RATE) / RATE),
            };
            if end && self.features >= wanted {
                return Ok(());
            }
            let skip = (start - self.first) as usize;
            let feature = encode(&self.model, self.columns.iter().skip(skip).take(COLUMNS))?;
            sink(&feature);
            self.features += 1;
            let next = self.features * COLUMN_RATE / RATE;
            while self.first < next && self.columns.len() > COLUMNS {
                self.columns.pop_front();
                self.first += 1;
            }
        }
    }
}

fn encode<'a>(model: &Model, columns: impl Iterator<Item = &'a [f32; BINS]>) -> Result<Vec<f32>> {
    let mut mel = vec![0.0; BINS * COLUMNS];
    for (c, column) in columns.enumerate() {
        column.iter().enumerate().for_each(|(b, v)| mel[b * COLUMNS + c] = *v);
    }
    let outputs = model.run(&[Input { name: "mel", shape: &[1, 1, BINS, COLUMNS], data: &mel }])?;
    let feature = outputs.into_iter().next().map(|tensor| tensor.data).unwrap_or_default();
    if feature.iter().all(|v| v.is_finite()) {
        return Ok(feature);
    }
    Err(Error::Runtime { model: model.name().into(), cause: "gave features that are not finite".into() })
}

impl FrontEnd for Ave {
    fn key(&self) -> &str {
        &self.key
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn hop(&self) -> Duration {
        Duration::from_secs(1) / RATE as u32
    }

    /// The last of the 16 columns, and half of an analysis frame.
    fn overhang(&self) -> Duration {
        self.mel.hop() * (COLUMNS as u32 - 1) + self.mel.overhang()
    }

    fn silence(&self) -> &[f32] {
        &self.silence
    }

    fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.samples += samples.len() as u64;
        let Self { mel, columns, .. } = self;
        mel.push(samples, &mut |column| columns.push_back(std::array::from_fn(|b| column[b])))?;
        self.drain(false, sink)
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        let Self { mel, columns, .. } = self;
        mel.finish(&mut |column| columns.push_back(std::array::from_fn(|b| column[b])))?;
        if !self.columns.is_empty() {
            let quiet: [f32; BINS] = std::array::from_fn(|b| self.mel.silence()[b]);
            while self.columns.len() < COLUMNS {
                self.columns.push_back(quiet);
            }
        }
        self.drain(true, sink)?;
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.mel.reset();
        self.columns.clear();
        (self.first, self.features, self.samples) = (0, 0, 0);
    }

    fn hush(&mut self) {
        self.mel.hush();
        let quiet: [f32; BINS] = std::array::from_fn(|b| self.mel.silence()[b]);
        self.columns.iter_mut().for_each(|column| *column = quiet);
    }
}
