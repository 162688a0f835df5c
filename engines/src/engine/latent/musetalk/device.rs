//! The same stream in the memory of a device: what is between a face's region and the region that is pasted stays there.

use std::sync::Arc;

use super::{
    MuseTalk,
    painter::{self, DECODE, ENCODE, FACES, FORWARD, PAINTED, SOUND},
    region,
};
use crate::{
    Error, Result,
    cuda::{Buffer, Memory},
    engine::{
        Actor, Asked, DeviceTensor, LATENT, Moment, Noise, Patch, Scene, Shown, Stage, StageKind, Then, Work,
        device::{BoundStage, Coverage, network, taken},
        latent::{
            clip::CONDITION,
            coder::{CHANNELS, EPSILON, FACTOR, PICTURES, PIXELS},
            device::{Decode, Encode, Shared},
        },
    },
    image::inset::{Square, crop_side},
    kernels::{DeviceCrop, draw},
    manifest::Package,
    runtime::Options,
    tracker::Face,
};

/// An engine's way through the memory of a device.
pub(super) struct DevicePath {
    pub stages: Vec<Box<dyn Stage>>,
    shared: Arc<Shared>,
}

impl DevicePath {
    /// With networks that run in `memory`.
    ///
    /// Errors: one runs elsewhere or does not take f32; memory ended.
    pub fn new(memory: &Arc<dyn Memory>, package: &Package, options: &Options) -> Result<Self> {
        let section = painter::section(package)?;
        let (side, small, faces) = (section.side, section.side / FACTOR, &section.batch_sizes);
        let sound = [section.sound.moments * section.sound.states, section.sound.width];
        let upper = |side: usize| -> Vec<f32> {
            (0..side * side).map(|i| if i < side / 2 * side { 1.0 } else { 0.0 }).collect()
        };
        let masks = [upper(side), upper(small)];
        let shared = Shared::new(memory, side, sound, masks.each_ref().map(|mask| &mask[..]), painter::BLACK)?;
        let shared = Arc::new(shared);
        let options = &options.without_graphs();
        let unet = network(&**memory, package, "unet", options)?;
        let asked: [(&str, &[usize]); 2] = [(FACES, &[2 * CHANNELS, small, small]), (SOUND, &sound)];
        let said: [(&str, &[usize]); 1] = [(PAINTED, &[CHANNELS, small, small])];
        let sizes = unet.taken_of(faces.clone());
        let paint = BoundStage::new(StageKind::Forward, memory, unet, &asked, &said, sizes);
        let (scale, pictures) = (section.latent_scale, faces.iter().map(|faces| 2 * faces).collect());
        let encode = Encode::load(&shared, package, options, scale, pictures)?;
        let decode = Decode::load(&shared, package, options, (section.decoder, scale), (faces.clone(), 1))?;
        let stages: Vec<Box<dyn Stage>> =
            vec![Box::new(Then::new(encode, join)), Box::new(Then::new(paint, hand_on)), Box::new(decode)];
        Ok(Self { stages, shared })
    }
}

/// Latents of a face hidden and whole as the U-Net sees them: what a clip of one frame is painted by, but for its mask.
fn join(work: &mut Work) -> Result<()> {
    let DeviceTensor { shape, buffer, at } = work.take_there(CONDITION)?;
    let [1, channels, 1, height, width] = shape[..] else {
        return Err(Error::invalid(format!("latents of {shape:?} are not of a face hidden and whole")));
    };
    let shape = vec![1, channels - 1, height, width];
    work.place_there(FACES, DeviceTensor { shape, buffer, at: at + height * width });
    Ok(())
}

/// What the U-Net painted, as a clip of one frame.
fn hand_on(work: &mut Work) -> Result<()> {
    drop(work.take_there(FACES)?);
    let mut painted = work.take_there(PAINTED)?;
    painted.shape.insert(painted.shape.len().min(2), 1);
    work.place_there(LATENT, painted);
    Ok(())
}

/// One stream, as [`super::actor::MuseTalkActor`].
pub(super) struct DeviceActor {
    engine: Arc<MuseTalk>,
    shared: Arc<Shared>,
    /// What encoded pictures are sampled by, `[2, 4, side / 8, side / 8]`, the same of all frames.
    epsilon: Arc<Buffer<f32>>,
    /// What was shown last.
    last: Option<Patch>,
}

/// What the frame of a work item showed.
struct Seen {
    crop: DeviceCrop,
    square: Square,
}

impl DeviceActor {
    /// Errors: memory ended.
    pub fn new(engine: Arc<MuseTalk>, path: &DevicePath, mut noise: Noise) -> Result<Self> {
        let shared = Arc::clone(&path.shared);
        let count = 2 * CHANNELS * shared.plane();
        let epsilon = Buffer::room(&shared.memory, count)?;
        draw(&shared.memory, &mut noise, (&epsilon, 0), count, None)?;
        Ok(Self { engine, shared, epsilon: Arc::new(epsilon), last: None })
    }
}

impl Actor for DeviceActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let Shared { memory, side, small, sound: [rows, width], .. } = &*self.shared;
        let Some(rect) = region::face(&moment.face.points) else { return Ok(Asked::Nothing) };
        let square = Square::around(&rect);
        let Some(crop) = taken(memory, moment.frame, crop_side(*side), &square.to_crop)? else {
            return Ok(Asked::Nothing);
        };
        if moment.audio.len() != rows * width {
            let found = moment.audio.len();
            return Err(Error::invalid(format!("{found} numbers of sound are not {rows} rows of {width}")));
        }
        let pixels = Buffer::room(memory, 2 * 3 * side * side)?;
        self.shared.show(&crop, &square.inner, &pixels, [0, 1])?;
        let mut work = Work::new(Noise::default());
        work.put_there(PIXELS, vec![2, 3, *side, *side], pixels);
        work.put_there(EPSILON, vec![2, CHANNELS, *small, *small], Arc::clone(&self.epsilon));
        work.put_there(SOUND, vec![1, *rows, *width], Buffer::of(memory, moment.audio)?);
        [ENCODE, FORWARD, DECODE].into_iter().for_each(|stage| work.pass(stage));
        Ok(Asked::Work(work.remembering(Seen { crop, square })))
    }

    fn show(&mut self, mut work: Work, scene: &Scene) -> Result<Shown> {
        let picture = work.take_there(PICTURES)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { crop, square: Square { to_crop, inner } } = *seen;
        let placed = (crop.side, &inner);
        let coverage = || {
            let mask = region::coverage(&scene.face.points, self.engine.mask, placed, |p| to_crop.apply(p));
            Coverage::new(&self.shared.memory, mask)
        };
        let Some(patch) = self.shared.patch(&picture, crop, (&inner, &to_crop), coverage)? else {
            return Ok(Shown::Nothing);
        };
        self.last = Some(patch.clone());
        Ok(Shown::Patch(patch))
    }

    fn hold(&self, face: &Face) -> Option<Patch> {
        let to_frame = Square::around(&region::face(&face.points)?).to_crop.inverse()?;
        Some(Patch { to_frame, ..self.last.clone()? })
    }

    fn forget(&mut self) {
        self.last = None;
    }
}
