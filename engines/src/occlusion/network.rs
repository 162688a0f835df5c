use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;

use super::SIDE;
use crate::{
    Error, Result,
    geometry::Similarity,
    image::{Crop, FrameView},
    manifest::Package,
    runtime::{Input, Model, Options, Port},
};

/// Crops in one run at most.
const MOST: usize = 16;
const PIXELS: usize = SIDE * SIDE;

/// What looks for what is before faces: `auto`, `off`, or the path of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Masks {
    /// The network that is built in.
    Auto,
    /// Nobody does.
    #[default]
    Off,
    /// An ONNX file, as [`Network::open`] takes it.
    File(PathBuf),
}

impl FromStr for Masks {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "off" => Self::Off,
            file => Self::File(file.into()),
        })
    }
}

impl fmt::Display for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// The mask network, which all streams of a process share: what waits while it runs goes together in the next run.
pub struct Network {
    model: Arc<Model>,
    /// Taken alone; never while `running` is awaited.
    waiting: Mutex<VecDeque<Request>>,
    /// Held by whoever runs the network.
    running: Mutex<()>,
}

struct Request {
    /// RGB 0..1, `[3, SIDE, SIDE]`.
    crop: Vec<f32>,
    answer: Arc<Mutex<Option<Answer>>>,
}

type Answer = std::result::Result<Vec<f32>, String>;

impl Network {
    /// The network that is built in, or an ONNX file whose input `crop` [batch, 3, 96, 96] is RGB 0..1 of the tracker's aligned crop and
    /// whose output `covered` [batch, 1, 96, 96] the chance that a pixel is covered, as `engines/train/occlusion` exports them. Loaded
    /// once for all who name it with these options; `None` where nobody looks. Errors: a file that does not load or has other ports.
    pub fn open(masks: &Masks, options: &Options) -> Result<Option<Arc<Self>>> {
        /// Networks in use, by what was named and options.
        type Shared = Vec<((Masks, String), Weak<Network>)>;
        static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);
        if *masks == Masks::Off {
            return Ok(None);
        }
        let key = (masks.clone(), format!("{options:?}"));
        // Held while it loads: who asks for the same meanwhile waits for it.
        let mut shared = SHARED.lock();
        shared.retain(|(_, network)| network.strong_count() > 0);
        if let Some(network) = shared.iter().find(|(known, _)| *known == key).and_then(|(_, network)| network.upgrade())
        {
            return Ok(Some(network));
        }
        let model = match masks {
            Masks::File(path) => Model::open(path, options)?,
            Masks::Auto | Masks::Off => Package::find("occlusion")?.network("mask", options)?,
        };
        let network = Arc::new(Self::new(model)?);
        shared.push((key, Arc::downgrade(&network)));
        Ok(Some(network))
    }

    fn new(model: Arc<Model>) -> Result<Self> {
        let signature = model.signature();
        let fits = |ports: &[Port], name: &str, channels: usize| {
            matches!(ports, [p] if p.name == name
                && matches!(p.shape[..], [_, Some(c), Some(SIDE), Some(SIDE)] if c == channels))
        };
        if !fits(&signature.inputs, "crop", 3) || !fits(&signature.outputs, "covered", 1) {
            let said = |ports: &[Port]| {
                ports.iter().map(|p| format!("{} {}", p.name, p.describe())).collect::<Vec<_>>().join(", ")
            };
            return Err(Error::Mismatch {
                model: model.name().into(),
                what: "inputs and outputs".into(),
                expected: format!("crop [batch, 3, {SIDE}, {SIDE}], covered [batch, 1, {SIDE}, {SIDE}]"),
                found: format!("{}, {}", said(&signature.inputs), said(&signature.outputs)),
            });
        }
        Ok(Self { model, waiting: Mutex::default(), running: Mutex::default() })
    }

    /// What the network looks at of a face at its [`place`](crate::tracker::place); `None` where it cannot be cut out.
    pub fn crop(&self, frame: &FrameView, place: &Similarity) -> Option<Crop> {
        Crop::take(frame, SIDE, place)
    }

    /// The chance that each pixel of a crop is covered, `[SIDE * SIDE]`, 0..1.
    pub fn ask(&self, crop: &Crop) -> Result<Vec<f32>> {
        if crop.side != SIDE {
            return Err(Error::invalid(format!("a crop of {} pixels for a network of {SIDE}", crop.side)));
        }
        let answer = Arc::new(Mutex::new(None));
        self.waiting.lock().push_back(Request { crop: crop.to_rgb_planar(), answer: Arc::clone(&answer) });
        loop {
            let _turn = self.running.lock();
            // Whoever ran before may have taken it along.
            if let Some(answer) = answer.lock().take() {
                return answer.map_err(Error::invalid);
            }
            let batch: Vec<Request> = {
                let mut waiting = self.waiting.lock();
                let count = waiting.len().min(MOST);
                waiting.drain(..count).collect()
            };
            if batch.is_empty() {
                return Err(Error::invalid("the run of the occlusion network that this crop was part of was lost"));
            }
            let found = self.run(&batch);
            for (i, request) in batch.iter().enumerate() {
                let part = found.as_ref().map(|all| all[i * PIXELS..(i + 1) * PIXELS].to_vec());
                *request.answer.lock() = Some(part.map_err(ToString::to_string));
            }
        }
    }

    fn run(&self, batch: &[Request]) -> Result<Vec<f32>> {
        // Devices that compile a program for each shape see a handful of batch sizes only.
        let count = batch.len().next_power_of_two();
        let mut data = Vec::with_capacity(count * 3 * PIXELS);
        batch.iter().for_each(|request| data.extend_from_slice(&request.crop));
        data.resize(count * 3 * PIXELS, 0.0);
        let outputs = self.model.run(&[Input { name: "crop", shape: &[count, 3, SIDE, SIDE], data: &data }])?;
        let found = outputs.into_iter().next().map(|o| o.data).unwrap_or_default();
        if found.len() != count * PIXELS || found.iter().any(|v| !v.is_finite()) {
            return Err(Error::Mismatch {
                model: self.model.name().into(),
                what: "covered".into(),
                expected: format!("{} numbers", count * PIXELS),
                found: format!("{} values, of which some may be no numbers", found.len()),
            });
        }
        Ok(found)
    }
}
