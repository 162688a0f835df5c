use std::sync::Arc;

use super::clips::{Clips, Seen};
use crate::{
    Error, Result,
    engine::{
        Actor, Asked, Moment, Noise, Patch, Scene, Shown, Work,
        device::{Coverage, taken},
        latent::{clip::PICTURE, device::Shared, latentsync::LatentSync},
    },
    schedule::Schedule,
    tracker::Face,
};

/// One stream, as [`super::super::actor::LatentSyncActor`].
pub(in super::super) struct DeviceActor {
    engine: Arc<LatentSync>,
    shared: Arc<Shared>,
    coverage: Coverage,
    clips: Clips,
    /// Track of the face that frames are gathered of.
    track: u64,
    /// What was shown last.
    last: Option<Patch>,
}

impl DeviceActor {
    /// Errors: memory ended.
    pub fn new(engine: Arc<LatentSync>, path: &super::DevicePath, noise: Noise, schedule: Schedule) -> Result<Self> {
        let shared = Arc::clone(&path.shared);
        let clips = Clips::new(&shared, noise, schedule, engine.spec.clip, engine.place.inner)?;
        Ok(Self { engine, shared, coverage: path.coverage.clone(), clips, track: 0, last: None })
    }
}

impl Actor for DeviceActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let place = &self.engine.place;
        let Some(to_square) = place.of(&moment.face.points) else { return Ok(Asked::Nothing) };
        let Some(crop) = taken(&self.shared.memory, moment.frame, place.side, &to_square)? else {
            return Ok(Asked::Nothing);
        };
        self.track = moment.face.track_id;
        self.clips.gather(moment.audio, Seen { crop, to_square });
        Ok(Asked::Gathered)
    }

    fn close(&mut self) -> Result<Option<Work>> {
        self.clips.close(self.track)
    }

    fn parts(&mut self, work: Work) -> Result<Vec<Work>> {
        self.clips.parts(work)
    }

    fn show(&mut self, mut work: Work, _: &Scene) -> Result<Shown> {
        let picture = work.take_there(PICTURE)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { crop, to_square } = *seen;
        let place = (&self.engine.place.inner, &to_square);
        let Some(patch) = self.shared.patch(&picture, crop, place, || Ok(self.coverage.clone()))? else {
            return Ok(Shown::Nothing);
        };
        self.last = Some(patch.clone());
        Ok(Shown::Patch(patch))
    }

    fn hold(&self, face: &Face) -> Option<Patch> {
        let to_frame = self.engine.place.of(&face.points)?.inverse()?;
        Some(Patch { to_frame, ..self.last.clone()? })
    }

    fn forget(&mut self) {
        self.last = None;
        self.clips.forget();
    }

    /// Latents are of RGB, whatever the colours of the frames.
    fn forget_pixels(&mut self) {
        self.last = None;
    }
}
