//! The same stream in the memory of a device: what is between a face's region and the region that is pasted stays there.

use std::sync::Arc;

use super::{AUDIO, FACE, FORWARD, Network, PICTURE, Pixel, picture::covered};
use crate::{
    Error, Result,
    cuda::{Buffer, Memory},
    engine::{
        Actor, Asked, Moment, Noise, Patch, Scene, Shown, Stage, StageKind, Work,
        device::{BoundStage, Coverage, DevicePicture, left, network, taken},
    },
    image::inset::{Square, crop_side},
    kernels::{DeviceCrop, Masked, Order, Planes, put},
    manifest::Package,
    runtime::Options,
    tracker::Face,
};

/// An engine's way through the memory of a device.
pub(super) struct DevicePath {
    pub stages: Vec<Box<dyn Stage>>,
    shared: Arc<Shared>,
}

/// What streams share.
struct Shared {
    memory: Arc<dyn Memory>,
    /// [`super::Layout::kept`].
    kept: Buffer<f32>,
}

impl DevicePath {
    /// With the network of `engine`, which runs in `memory`.
    ///
    /// Errors: it runs elsewhere or does not take f32; memory ended.
    pub fn new(memory: &Arc<dyn Memory>, package: &Package, options: &Options, engine: &Pixel) -> Result<Self> {
        let Network { part, side, sizes, ports, audio } = &engine.network;
        // Faces lie somewhere else in each batch.
        let model = network(&**memory, package, part, &options.without_graphs())?;
        let asked: [(&str, &[usize]); 2] = [(AUDIO, audio), (FACE, &[6, *side, *side])];
        let said: [(&str, &[usize]); 1] = [(PICTURE, &[3, *side, *side])];
        let sizes = model.taken_of(sizes.clone());
        let stage = BoundStage::new(StageKind::Forward, memory, model, &asked, &said, sizes)
            .with_ports(&ports[..2], &ports[2..]);
        let kept = Buffer::of(memory, &engine.layout.kept(*side))?;
        let shared = Shared { memory: Arc::clone(memory), kept };
        Ok(Self { stages: vec![Box::new(stage)], shared: Arc::new(shared) })
    }
}

/// One stream, as [`super::actor::PixelActor`].
pub(super) struct DeviceActor {
    engine: Arc<Pixel>,
    shared: Arc<Shared>,
    /// What was shown last.
    last: Option<Patch>,
}

/// What the frame of a work item showed.
struct Seen {
    crop: DeviceCrop,
    square: Square,
}

impl DeviceActor {
    pub fn new(engine: Arc<Pixel>, path: &DevicePath) -> Self {
        Self { engine, shared: Arc::clone(&path.shared), last: None }
    }

    /// [`Actor::ask`], which may run out of memory.
    fn asked_in(&self, moment: &Moment) -> Result<Asked> {
        let Pixel { network: Network { side, .. }, region, layout, .. } = &*self.engine;
        let Shared { memory, kept } = &*self.shared;
        let audio = self.engine.audio_input(moment.audio)?;
        let Some(rect) = region.of(&moment.face.points) else { return Ok(Asked::Nothing) };
        let square = Square::around(&rect);
        let Some(crop) = taken(memory, moment.frame, crop_side(*side), &square.to_crop)? else {
            return Ok(Asked::Nothing);
        };
        let face = Buffer::room(memory, 6 * side * side)?;
        let [hidden, whole] = layout.pictures().map(|picture| (&face, picture * 3 * side * side));
        let masked = Some(Masked { out: hidden, mask: kept, hidden: 0.0 });
        let planes = Planes { side: *side, order: Order::Bgr, scale: 1.0, offset: 0.0, out: whole, masked };
        crop.show(memory, Some(&square.inner), &planes)?;
        let mut work = Work::new(Noise::default());
        work.put_there(AUDIO, audio.shape, Buffer::of(memory, &audio.data)?);
        work.put_there(FACE, vec![1, 6, *side, *side], face);
        work.pass(FORWARD);
        Ok(Asked::Work(work.remembering(Seen { crop, square })))
    }

    /// [`Actor::show`], which may run out of memory.
    fn shown_in(&mut self, mut work: Work) -> Result<Shown> {
        let Pixel { network: Network { side, .. }, layout, .. } = &*self.engine;
        let memory = &self.shared.memory;
        let picture = work.take_there(PICTURE)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { mut crop, square: Square { to_crop, inner } } = *seen;
        let Some(to_frame) = to_crop.inverse() else { return Ok(Shown::Nothing) };
        put(memory, picture.part(), *side, ((1.0, 0.0), Order::Bgr), &mut crop, &inner)?;
        let shares = layout.shares(crop.side, &inner);
        let coverage = Coverage::product(memory, covered(&shares), &shares)?;
        let patch = DevicePicture::new(memory, crop, coverage).patch(to_frame);
        self.last = Some(patch.clone());
        Ok(Shown::Patch(patch))
    }
}

impl Actor for DeviceActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        left(&*self.shared.memory, self.asked_in(moment), Asked::Nothing)
    }

    fn show(&mut self, work: Work, _: &Scene) -> Result<Shown> {
        let shown = self.shown_in(work);
        left(&*self.shared.memory, shown, Shown::Nothing)
    }

    fn hold(&self, face: &Face) -> Option<Patch> {
        let to_frame = Square::around(&self.engine.region.of(&face.points)?).to_crop.inverse()?;
        Some(Patch { to_frame, ..self.last.clone()? })
    }

    fn forget(&mut self) {
        self.last = None;
    }
}
