use std::{
    convert::Infallible,
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;

use super::{
    SIDE,
    published::{self, Masker},
};
use crate::{
    Error, Result, enhance,
    geometry::{Point, Similarity},
    image::{Crop, FrameView},
    manifest::{Family, Package},
    runtime::{Batches, Input, Model, Options, Port, Signature},
    tracker,
};

/// Crops in one run at most.
const MOST: usize = 16;
const PIXELS: usize = SIDE * SIDE;

/// What looks for what is before faces: `auto`, `off`, the path of a file, or the name of a masker that is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Masks {
    /// The network that is built in.
    Auto,
    /// Nobody does.
    #[default]
    Off,
    /// An ONNX file, as [`Network::open`] takes it, or the name of one that is installed.
    File(PathBuf),
}

impl Masks {
    /// The name of a masker that is installed, where that is what is named and no file.
    pub fn installed(&self) -> Option<&str> {
        match self {
            Self::File(path) => path.to_str().filter(|name| !enhance::is_file(name) && !path.is_file()),
            Self::Auto | Self::Off => None,
        }
    }
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

/// What a network of masks is shown and says, by its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Ours: `crop` [batch, 3, 96, 96], RGB 0..1 of the tracker's crop, and `covered` [batch, 1, 96, 96].
    Own,
    /// Published ones, of facefusion's crop.
    Published(Masker),
}

impl Ports {
    /// `None` where they are of no such network.
    pub fn of(signature: &Signature) -> Option<Self> {
        let fits = |ports: &[Port], name: &str, channels: usize| {
            matches!(ports, [p] if p.name == name
                && matches!(p.shape[..], [_, Some(c), Some(SIDE), Some(SIDE)] if c == channels))
        };
        if fits(&signature.inputs, "crop", 3) && fits(&signature.outputs, "covered", 1) {
            return Some(Self::Own);
        }
        Masker::of(signature).map(Self::Published)
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Own => "a network of the built-in one's kind",
            Self::Published(masker) => masker.words(),
        }
    }
}

/// What a network was shown of a face and what it says.
pub struct Look {
    /// From pixels of the frame to the unit crop that all of it is of.
    pub place: Similarity,
    /// Brightness of the crop, `[SIDE * SIDE]`.
    pub luma: Vec<u8>,
    /// The chance that each of its pixels is covered, 0..1.
    pub chance: Vec<f32>,
}

/// The mask network, which all streams of a process share: what waits while it runs goes together in the next run.
pub struct Network {
    ports: Ports,
    batches: Batches<Vec<f32>, Vec<f32>>,
}

impl Network {
    /// The network that is built in; an ONNX file whose input `crop` [batch, 3, 96, 96] is RGB 0..1 of the tracker's aligned crop and
    /// whose output `covered` [batch, 1, 96, 96] the chance that a pixel is covered, as `engines/train/occlusion` exports them; a
    /// published [`Masker`]'s file; or what is installed of either by `lipstream import`. Loaded once for all who name it with these
    /// options; `None` where nobody looks. Errors: what does not load or has other ports.
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
            Masks::File(path) => match masks.installed() {
                Some(name) => named(name, options)?,
                None => Model::open(path, &options.beside())?,
            },
            Masks::Auto | Masks::Off => Package::find("occlusion")?.network("mask", options)?,
        };
        let network = Arc::new(Self::new(model)?);
        shared.push((key, Arc::downgrade(&network)));
        Ok(Some(network))
    }

    fn new(model: Arc<Model>) -> Result<Self> {
        let signature = model.signature();
        let ports = Ports::of(signature).ok_or_else(|| {
            let said = |ports: &[Port]| {
                ports.iter().map(|p| format!("{} {}", p.name, p.describe())).collect::<Vec<_>>().join(", ")
            };
            Error::Mismatch {
                model: model.name().into(),
                what: "inputs and outputs".into(),
                expected: format!(
                    "crop [batch, 3, {SIDE}, {SIDE}], covered [batch, 1, {SIDE}, {SIDE}]; or those of xseg, [batch, 256, 256, 3] \
                     and [batch, 256, 256, 1], or of BiSeNet, [batch, 3, 512, 512] and [batch, 19, 512, 512]"
                ),
                found: format!("{}, {}", said(&signature.inputs), said(&signature.outputs)),
            }
        })?;
        let open = signature.inputs.first().is_some_and(|port| port.shape.first() == Some(&None));
        let most = match ports {
            Ports::Own => MOST,
            Ports::Published(_) if open && !model.device().wants_fixed_shapes() => published::MOST,
            Ports::Published(_) => 1,
        };
        let (name, lanes) = (model.name().to_owned(), model.at_a_time());
        let run = move |asked: &[Vec<f32>]| match ports {
            Ports::Own => run(&model, asked),
            Ports::Published(masker) => masker.run(&model, asked),
        };
        Ok(Self { ports, batches: Batches::new(&name, lanes, Vec::len, Box::new(run)).of_at_most(most) })
    }

    /// Looks at the face of these landmarks (`[111]`, pixels of the frame); `None` of one that cannot be cut out.
    pub fn look(&self, frame: &FrameView, points: &[Point]) -> Result<Option<Look>> {
        let Some(place) = tracker::place(points) else { return Ok(None) };
        let Some(crop) = Crop::take(frame, SIDE, &place) else { return Ok(None) };
        let chance = match self.ports {
            Ports::Own => self.batches.ask(crop.to_rgb_planar()).1?,
            Ports::Published(masker) => {
                let Some((to_crop, shown)) = masker.prepare(frame, points) else { return Ok(None) };
                let face = self.batches.ask(shown).1?;
                masker.covered(&face, &to_crop, &place)
            }
        };
        Ok(Some(Look { place, luma: crop.luma(), chance }))
    }
}

/// The network that is installed by that name.
fn named(name: &str, options: &Options) -> Result<Arc<Model>> {
    let package = Package::named(name)?;
    match package.manifest().family {
        Family::Occlusion => package.network("mask", options),
        other => Err(Error::invalid(format!(
            "engine `{name}` is of the family `{other}` and does not say what is before a face; `lipstream import` takes maskers"
        ))),
    }
}

fn run(model: &Model, asked: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
    // Devices that compile a program for each shape see a handful of batch sizes only.
    let count = asked.len().next_power_of_two();
    let mut data = Vec::with_capacity(count * 3 * PIXELS);
    asked.iter().for_each(|crop| data.extend_from_slice(crop));
    data.resize(count * 3 * PIXELS, 0.0);
    let outputs = model.run(&[Input { name: "crop", shape: &[count, 3, SIDE, SIDE], data: &data }])?;
    let found = outputs.into_iter().next().map(|o| o.data).unwrap_or_default();
    if found.len() != count * PIXELS || found.iter().any(|v| !v.is_finite()) {
        return Err(Error::Mismatch {
            model: model.name().into(),
            what: "covered".into(),
            expected: format!("{} numbers", count * PIXELS),
            found: format!("{} values, of which some may be no numbers", found.len()),
        });
    }
    Ok(found.chunks_exact(PIXELS).take(asked.len()).map(<[f32]>::to_vec).collect())
}
