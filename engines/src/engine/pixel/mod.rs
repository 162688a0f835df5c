//! Wav2Lip and SyncTalk_2D: one pass from the face as it is, its mouth hidden, and the speech to the face with another mouth.
//!
//! - [`region`]: where the network's picture lies on a face.
//! - [`picture`]: pixels of the frame to the network, and of the network to a patch.
//! - [`published`]: the same as the published programs do it, to the pixel.
//! - [`actor`]: one stream; [`exact`]: one as the published programs do it; [`device`]: one in the memory of a card.

mod actor;
mod device;
mod exact;
mod picture;
pub(crate) mod published;
mod region;

use std::{sync::Arc, time::Duration};

use actor::PixelActor;
use device::{DeviceActor, DevicePath};
use exact::ExactActor;
use picture::Layout;
use published::Smoother;
use region::Region;

use super::{Actor, Clip, Engine, Identity, NetworkStage, Sampling, Spec, Stage, StageKind, Work, device::on_card};
use crate::{
    Error, Result,
    audio::{Pick, Tail, WindowSpec, front_end},
    bank::ReferenceBank,
    cuda::Memory,
    manifest::{Family, Features, Manifest, Package},
    runtime::{Options, Tensor},
};

/// Place of the engine's only stage.
const FORWARD: usize = 0;
/// Tensors of the work.
const AUDIO: &str = "audio";
const FACE: &str = "face";
const PICTURE: &str = "picture";

/// Mel columns of Wav2Lip's window, and features of SyncTalk_2D's: from nine before the frame's on, since the published code
/// doubles the first.
const COLUMNS: i64 = 16;
const ROWS: i64 = 16;
const ROWS_BEFORE: i64 = 9;
/// Features of `compact`'s front-end that a network trained on it takes, and those of them before the frame's.
const HOPS: i64 = 32;
const HOPS_BEFORE: i64 = 27;

/// Sound after a frame's time that a family waits for: the last column or row of its window and what that is made from.
pub(super) fn look_ahead(manifest: &Manifest) -> Duration {
    let column = Duration::from_micros(12_500);
    let window = column * (COLUMNS as u32 - 1) + Duration::from_millis(25);
    match manifest.synctalk2d.as_ref().map(|section| section.features) {
        None => window,
        // A hop of 20 ms and what its mel frames overhang.
        Some(Features::Compact) => Duration::from_millis(20) * (HOPS - HOPS_BEFORE) as u32 + Duration::from_millis(15),
        Some(_) => Duration::from_millis(40) * (ROWS - ROWS_BEFORE - 1) as u32 + window,
    }
}

/// Part of a box on each side that the network does not see: the published code cuts 4 pixels off 168 or 328.
fn border(side: usize) -> f32 {
    if side == 160 { 4.0 / 168.0 } else { 4.0 / 328.0 }
}

/// What the two families differ in.
struct Published {
    network: Network,
    /// Times of the features of a window, in nanoseconds after the frame's.
    taps: Vec<i64>,
    region: Region,
    layout: Layout,
}

/// A family's network.
struct Network {
    part: &'static str,
    /// Pixels of a side of its picture.
    side: usize,
    /// Batches that it is asked for.
    sizes: Vec<usize>,
    /// What it calls its audio, face and picture.
    ports: [String; 3],
    /// Shape of its audio after the batch.
    audio: Vec<usize>,
}

/// Shape in which SyncTalk_2D's network reads so many numbers: 16 features of 512 are 32 channels of 16 x 16.
fn planes(package: &Package, count: usize) -> Result<Vec<usize>> {
    if count == 0 || !count.is_multiple_of(256) {
        return Err(Error::Manifest {
            origin: package.location(),
            key: "synctalk2d.features".into(),
            cause: format!("a window of {count} numbers does not fill planes of 16 x 16"),
        });
    }
    Ok(vec![count / 256, 16, 16])
}

/// The engine, loaded. Its network has an audio input, the input `face` f32 `[B, 6, side, side]` (BGR, 0..1) and the output
/// `picture` f32 `[B, 3, side, side]`.
pub struct Pixel {
    spec: Spec,
    stages: Vec<Box<dyn Stage>>,
    lanes: usize,
    network: Network,
    /// Whether a window is `[taps, dims]` where the network wants `[dims, taps]`.
    turned: bool,
    region: Region,
    layout: Layout,
    /// Its way through the memory of its device.
    path: Option<DevicePath>,
}

impl Pixel {
    /// On CUDA and TensorRT frames are cut, painted and pasted in the memory of the card, where it can run the kernels of
    /// [`crate::kernels`].
    pub fn load(package: &Package, options: &Options) -> Result<Self> {
        let mut engine = Self::load_through_host(package, options)?;
        if !engine.spec.exact {
            let device = package.network(engine.network.part, options)?.device();
            let path = |memory| DevicePath::new(&memory, package, options, &engine);
            engine.path = on_card(&engine.spec.name, device, path);
        }
        Ok(engine)
    }

    /// In `memory`, where its network must run.
    ///
    /// Errors: it runs elsewhere; the engine is run as its published program is; memory ended.
    pub fn load_in(package: &Package, options: &Options, memory: Arc<dyn Memory>) -> Result<Self> {
        let mut engine = Self::load_through_host(package, options)?;
        if engine.spec.exact {
            return Err(Error::invalid("what the published program does is done on the processor: leave exact=false"));
        }
        engine.path = Some(DevicePath::new(&memory, package, options, &engine)?);
        Ok(engine)
    }

    /// With frames that travel through the processor's memory, whatever the device.
    pub fn load_through_host(package: &Package, options: &Options) -> Result<Self> {
        let manifest = package.manifest();
        let missing =
            |key: &str| Error::Manifest { origin: package.location(), key: key.into(), cause: "is missing".into() };
        let front_end = front_end(package, options)?;
        let (hop, dims) = (front_end.hop(), front_end.dims());
        let step = hop.as_nanos() as i64;
        let family = match manifest.family {
            Family::Wav2Lip => {
                let section = manifest.wav2lip.as_ref().ok_or_else(|| missing("wav2lip"))?;
                let ports = [&section.ports.audio, &section.ports.face, &section.ports.picture].map(String::clone);
                let (side, sizes) = (section.side, section.batch_sizes.clone());
                let audio = vec![1, dims, COLUMNS as usize];
                Published {
                    network: Network { part: "generator", side, sizes, ports, audio },
                    taps: (0..COLUMNS).map(|k| k * step).collect(),
                    region: Region::WholeFace,
                    layout: Layout::HalfThenWhole,
                }
            }
            Family::SyncTalk2d => {
                let section = manifest.synctalk2d.as_ref().ok_or_else(|| missing("synctalk2d"))?;
                let (count, before) = match section.features {
                    Features::Compact => (HOPS, HOPS_BEFORE),
                    _ => (ROWS, ROWS_BEFORE),
                };
                let ports = [AUDIO, FACE, PICTURE].map(str::to_owned);
                let (side, sizes) = (section.side, section.batch_sizes.clone());
                let audio = planes(package, count as usize * dims)?;
                Published {
                    network: Network { part: "unet", side, sizes, ports, audio },
                    taps: (0..count).map(|k| (k - before) * step).collect(),
                    region: Region::BelowEyes { border: border(section.side) },
                    layout: Layout::WholeThenMasked,
                }
            }
            other => return Err(Error::invalid(format!("the family `{other}` has no pictures of its own"))),
        };
        let Published { network, taps, region, layout } = family;
        let Network { part, side, ref sizes, ref ports, ref audio } = network;
        let model = package.network(part, options)?;
        model.expect_input(&ports[0], audio)?;
        model.expect_input(&ports[1], &[6, side, side])?;
        model.expect_output(&ports[2], &[3, side, side])?;
        let lanes = model.at_a_time();
        let sizes = model.taken_of(sizes.clone());
        let stage = NetworkStage::new(StageKind::Forward, model, &[AUDIO, FACE], &[PICTURE], sizes)
            .with_ports(&ports[..2], &ports[2..]);
        let look_ahead = look_ahead(manifest);
        let own = manifest.synctalk2d.as_ref().is_some_and(|section| section.features == Features::Compact);
        let pick = if own { Pick::Between } else { Pick::Before };
        let exact = package.is_exact();
        let (tail, later) = match manifest.family {
            Family::Wav2Lip if exact => (Tail::LastWindow, Smoother::LATER),
            _ => (Tail::Silence, 0),
        };
        let spec = Spec {
            name: manifest.name.clone(),
            family: manifest.family,
            front_end: front_end.key().to_owned(),
            window: WindowSpec {
                hop,
                overhang: front_end.overhang(),
                taps,
                look_ahead,
                dims,
                silence: front_end.silence().into(),
                pick,
                tail,
            },
            steps: None,
            passes: 1,
            references: package.gathers(),
            exact,
            rates: None,
            later,
            clip: Clip::SINGLE,
            crop: manifest.geometry.crop,
            alignment: manifest.geometry.alignment.clone(),
            gflop: manifest.frame_gflop(None),
        };
        let turned = manifest.family == Family::Wav2Lip;
        Ok(Self { spec, stages: vec![Box::new(stage)], lanes, network, turned, region, layout, path: None })
    }
}

impl Pixel {
    /// What a frame hears, as the network's input.
    ///
    /// Errors: a window of another length than the engine's.
    fn audio_input(&self, heard: &[f32]) -> Result<Tensor> {
        let window = &self.spec.window;
        if heard.len() != window.len() {
            return Err(Error::Mismatch {
                model: self.spec.name.clone(),
                what: "audio window".into(),
                expected: window.len().to_string(),
                found: heard.len().to_string(),
            });
        }
        let (taps, dims) = (window.taps.len(), window.dims);
        let data = match self.turned {
            true => (0..dims).flat_map(|d| (0..taps).map(move |t| heard[t * dims + d])).collect(),
            false => heard.to_vec(),
        };
        let shape = std::iter::once(1).chain(self.network.audio.iter().copied()).collect();
        Ok(Tensor { shape, data })
    }

    /// The network's picture, `[3, side, side]` BGR in 0..1.
    ///
    /// Errors: one that is not whole or not finite.
    fn picture(&self, work: &mut Work) -> Result<Vec<f32>> {
        let picture = work.take(PICTURE)?.data;
        if picture.len() != 3 * self.network.side.pow(2) || picture.iter().any(|v| !v.is_finite()) {
            return Err(Error::invalid(format!(
                "engine `{}` gave a picture that is not whole or not finite; try precision=fp32",
                self.spec.name
            )));
        }
        Ok(picture)
    }
}

impl Engine for Pixel {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn stages(&self) -> &[Box<dyn Stage>] {
        self.path.as_ref().map_or(&self.stages, |path| &path.stages)
    }

    fn lanes(&self) -> usize {
        self.lanes
    }

    fn prepare(&self, _: &ReferenceBank) -> Result<Identity> {
        Ok(Arc::new(()))
    }

    fn actor(self: Arc<Self>, _seed: u64, sampling: &Sampling) -> Result<Box<dyn Actor>> {
        sampling.refuse(&self.spec.name)?;
        if let Some(path) = &self.path {
            return Ok(Box::new(DeviceActor::new(Arc::clone(&self), path)));
        }
        Ok(if self.spec.exact { Box::new(ExactActor::new(self)) } else { Box::new(PixelActor::new(self)) })
    }
}
