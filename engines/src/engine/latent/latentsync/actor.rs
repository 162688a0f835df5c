use std::sync::Arc;

use super::{LatentSync, sequence::Sequence};
use crate::{
    Error, Result,
    engine::{Actor, Asked, Moment, Noise, Patch, Scene, Shown, Work, latent::clip::PICTURE},
    geometry::Similarity,
    image::{Crop, inset},
    schedule::Schedule,
    tracker::Face,
};

/// One stream.
pub(super) struct LatentSyncActor {
    engine: Arc<LatentSync>,
    sequence: Sequence<Seen>,
    /// Track of the face that frames are gathered of.
    track: u64,
    /// What was shown last.
    last: Option<Patch>,
}

/// What a frame showed.
struct Seen {
    crop: Crop,
    to_square: Similarity,
}

impl LatentSyncActor {
    pub(super) fn new(engine: Arc<LatentSync>, noise: Noise, schedule: Schedule) -> Self {
        let sequence = Sequence::new(noise, schedule, engine.clip(), engine.side);
        Self { engine, sequence, track: 0, last: None }
    }
}

impl Actor for LatentSyncActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let LatentSync { side, place, .. } = &*self.engine;
        let Some(to_square) = place.of(&moment.face.points) else { return Ok(Asked::Nothing) };
        let Some(crop) = Crop::take_sharp(moment.frame, place.side, &to_square) else { return Ok(Asked::Nothing) };
        let mut face = inset::cut(&crop, &place.inner, *side).concat();
        face.iter_mut().for_each(|v| *v = *v * 2.0 - 1.0);
        self.track = moment.face.track_id;
        self.sequence.gather(face, moment.audio, Seen { crop, to_square });
        Ok(Asked::Gathered)
    }

    fn close(&mut self) -> Result<Option<Work>> {
        self.sequence.close(&self.engine.clips, self.track)
    }

    fn parts(&mut self, work: Work) -> Result<Vec<Work>> {
        self.sequence.parts(work, &self.engine.spec.name)
    }

    fn show(&mut self, mut work: Work, _: &Scene) -> Result<Shown> {
        let LatentSync { side, place, .. } = &*self.engine;
        let mut picture = work.take(PICTURE)?.data;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { mut crop, to_square } = *seen;
        let Some(to_frame) = to_square.inverse() else { return Ok(Shown::Nothing) };
        picture.iter_mut().for_each(|v| *v = *v / 2.0 + 0.5);
        let planes = [0, 1, 2].map(|c| &picture[c * side * side..][..side * side]);
        inset::put(planes, *side, &mut crop, &place.inner);
        let mask = place.coverage.clone();
        let patch = Patch { pixels: crop.into(), mask, to_frame, opacity: 1.0, hard: false };
        self.last = Some(patch.clone());
        Ok(Shown::Patch(patch))
    }

    fn hold(&self, face: &Face) -> Option<Patch> {
        let to_frame = self.engine.place.of(&face.points)?.inverse()?;
        Some(Patch { to_frame, ..self.last.clone()? })
    }

    fn forget(&mut self) {
        self.last = None;
        self.sequence.forget();
    }

    /// Latents are of RGB, whatever the colours of the frames.
    fn forget_pixels(&mut self) {
        self.last = None;
    }
}
