use std::sync::Arc;

use super::{
    MuseTalk,
    painter::{self, Painter},
    region,
};
use crate::{
    Error, Result,
    engine::{Actor, Asked, Moment, Noise, Patch, Scene, Shown, Work},
    image::{
        Crop,
        inset::{self, Square, crop_side},
    },
    tracker::Face,
};

/// One stream.
pub(super) struct MuseTalkActor {
    engine: Arc<MuseTalk>,
    /// What encoded pictures are sampled by: one sample for all frames, so that what stays the same looks the same.
    epsilon: Vec<f32>,
    /// What was shown last.
    last: Option<Patch>,
}

/// What the frame of a work item showed.
struct Seen {
    crop: Crop,
    square: Square,
}

impl MuseTalkActor {
    pub(super) fn new(engine: Arc<MuseTalk>, mut noise: Noise) -> Self {
        let epsilon = Painter::epsilon(&mut noise, engine.side);
        Self { engine, epsilon, last: None }
    }
}

impl Actor for MuseTalkActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let MuseTalk { side, painter, .. } = &*self.engine;
        let Some(rect) = region::face(&moment.face.points) else { return Ok(Asked::Nothing) };
        let square = Square::around(&rect);
        let Some(crop) = Crop::take_sharp(moment.frame, crop_side(*side), &square.to_crop) else {
            return Ok(Asked::Nothing);
        };
        let mut face = inset::cut(&crop, &square.inner, *side).concat();
        face.iter_mut().for_each(|v| *v = *v * 2.0 - 1.0);
        let work = painter.work(&face, *side, moment.audio.to_vec(), self.epsilon.clone())?;
        Ok(Asked::Work(work.remembering(Seen { crop, square })))
    }

    fn show(&mut self, mut work: Work, scene: &Scene) -> Result<Shown> {
        let MuseTalk { side, mask, spec, .. } = &*self.engine;
        let mut picture = painter::picture(&mut work, *side, &spec.name)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { mut crop, square } = *seen;
        let Some(to_frame) = square.to_crop.inverse() else { return Ok(Shown::Nothing) };
        picture.iter_mut().for_each(|v| *v = *v / 2.0 + 0.5);
        let planes = [0, 1, 2].map(|c| &picture[c * side * side..][..side * side]);
        inset::put(planes, *side, &mut crop, &square.inner);
        let placed = (crop.side, &square.inner);
        let mask = region::coverage(&scene.face.points, *mask, placed, |p| square.to_crop.apply(p)).into();
        let patch = Patch { pixels: crop.into(), mask, to_frame, opacity: 1.0, hard: false };
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
