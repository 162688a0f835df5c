use std::sync::Arc;

use super::{AUDIO, FACE, FORWARD, Network, Pixel};
use crate::{
    Error, Result,
    engine::{Actor, Asked, Moment, Noise, Patch, Scene, Shown, Work},
    image::{
        Crop,
        inset::{Square, crop_side},
    },
    runtime::Tensor,
    tracker::Face,
};

/// One stream.
pub(super) struct PixelActor {
    engine: Arc<Pixel>,
    /// What was shown last.
    last: Option<Patch>,
}

/// What the frame of a work item showed.
struct Seen {
    crop: Crop,
    square: Square,
}

impl PixelActor {
    pub(super) fn new(engine: Arc<Pixel>) -> Self {
        Self { engine, last: None }
    }
}

impl Actor for PixelActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let Pixel { network: Network { side, .. }, region, layout, .. } = &*self.engine;
        let audio = self.engine.audio_input(moment.audio)?;
        let Some(rect) = region.of(&moment.face.points) else { return Ok(Asked::Nothing) };
        let square = Square::around(&rect);
        let Some(crop) = Crop::take_sharp(moment.frame, crop_side(*side), &square.to_crop) else {
            return Ok(Asked::Nothing);
        };
        let face = layout.input(&crop, &square.inner, *side);
        let mut work = Work::new(Noise::default())
            .with(AUDIO, audio)
            .with(FACE, Tensor { shape: vec![1, 6, *side, *side], data: face })
            .remembering(Seen { crop, square });
        work.pass(FORWARD);
        Ok(Asked::Work(work))
    }

    fn show(&mut self, mut work: Work, _: &Scene) -> Result<Shown> {
        let Pixel { network: Network { side, .. }, layout, .. } = &*self.engine;
        let picture = self.engine.picture(&mut work)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { mut crop, square } = *seen;
        let Some(to_frame) = square.to_crop.inverse() else { return Ok(Shown::Nothing) };
        layout.put(&picture, *side, &mut crop, &square.inner);
        let mask = layout.mask(crop.side, &square.inner).into();
        let patch = Patch { pixels: crop.into(), mask, to_frame, opacity: 1.0, hard: false };
        self.last = Some(patch.clone());
        Ok(Shown::Patch(patch))
    }

    fn hold(&self, face: &Face) -> Option<Patch> {
        let to_frame = Square::around(&self.engine.region.of(&face.points)?).to_crop.inverse()?;
        Some(Patch { to_frame, ..self.last.clone()? })
    }

    fn forget(&mut self) {
        self.last = None;
    }
}
