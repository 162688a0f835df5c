use std::{fmt, sync::Arc};

use super::{
    Shared,
    clips::{Clips, Seen},
};
use crate::{
    Error, Result,
    cuda::Buffer,
    engine::{
        Actor, Asked, Moment, Noise, Patch, Scene, Shown, Work,
        latent::{clip::PICTURE, latentsync::LatentSync},
    },
    geometry::Rect,
    image::{ColorSpace, Crop, DevicePixels, FrameMut, Pixels},
    kernels::{DeviceCrop, DevicePatch, paste, put},
    schedule::Schedule,
    tracker::Face,
};

/// One stream, as [`super::super::actor::LatentSyncActor`].
pub(in super::super) struct DeviceActor {
    engine: Arc<LatentSync>,
    shared: Arc<Shared>,
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
        Ok(Self { engine, shared, clips, track: 0, last: None })
    }
}

impl Actor for DeviceActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let place = &self.engine.place;
        let Some(to_square) = place.of(&moment.face.points) else { return Ok(Asked::Nothing) };
        let memory = &self.shared.memory;
        let crop = match DeviceCrop::take(memory, moment.frame, place.side, &to_square, true) {
            Ok(Some(crop)) => crop,
            Ok(None) => return Ok(Asked::Nothing),
            Err(error @ Error::OutOfMemory { .. }) => {
                tracing::warn!(%error, "a frame is left as it is");
                return Ok(Asked::Nothing);
            }
            Err(error) => return Err(error),
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
        let place = &self.engine.place;
        let picture = work.take_there(PICTURE)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { mut crop, to_square } = *seen;
        let Some(to_frame) = to_square.inverse() else { return Ok(Shown::Nothing) };
        let planes = (&*picture.buffer, picture.at);
        put(&self.shared.memory, planes, self.shared.side, (0.5, 0.5), &mut crop, &place.inner)?;
        let pixels = Pixels::There(Arc::new(Painted { shared: Arc::clone(&self.shared), crop }));
        let mask = Arc::clone(&self.shared.coverage.0);
        let patch = Patch { pixels, mask, to_frame, opacity: 1.0, hard: false };
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

/// A crop with a mouth in it.
struct Painted {
    shared: Arc<Shared>,
    crop: DeviceCrop,
}

impl fmt::Debug for Painted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0} x {0} on {1}", self.crop.side, self.shared.memory.place())
    }
}

impl DevicePixels for Painted {
    fn side(&self) -> usize {
        self.crop.side
    }

    fn space(&self) -> ColorSpace {
        self.crop.space
    }

    fn read(&self) -> Result<Crop> {
        self.crop.read()
    }

    fn paste(&self, frame: &mut FrameMut, patch: &Patch) -> Result<Rect> {
        let Shared { memory, coverage: (own, there), .. } = &*self.shared;
        // Another mask than the engine's travels.
        let other = if Arc::ptr_eq(own, &patch.mask) { None } else { Some(Buffer::of(memory, &patch.mask)?) };
        let mask = (&*patch.mask, other.as_ref().unwrap_or(there));
        let patch = DevicePatch { pixels: &self.crop, mask, to_frame: patch.to_frame, opacity: patch.opacity };
        paste(memory, frame, &patch)
    }
}
