use std::sync::Arc;

use super::{
    AUDIO, FACE, FORWARD, Pixel,
    published::{self, Prepared, Published, Smoother},
    region,
};
use crate::{
    Error, Result,
    engine::{Actor, Asked, Moment, Noise, Patch, Scene, Shown, Work},
    geometry::Point,
    image::{self, FrameView, PixelBox},
    manifest::Family,
    runtime::Tensor,
    tracker::Face,
};

/// One stream, of which every frame is what the published program would write: a box of whole pixels, filled and put back hard.
pub(super) struct ExactActor {
    engine: Arc<Pixel>,
    published: Published,
    smoother: Smoother,
}

/// What the frame of a work item showed.
struct Seen {
    prepared: Prepared,
    place: PixelBox,
}

impl ExactActor {
    pub(super) fn new(engine: Arc<Pixel>) -> Self {
        let published = Published::new(engine.layout, engine.network.side);
        Self { engine, published, smoother: Smoother::default() }
    }

    /// The box of a face; `None` where it lies outside of the frame.
    fn place(&mut self, moment: &Moment) -> Option<PixelBox> {
        let size = (moment.frame.width(), moment.frame.height());
        if self.engine.spec.family != Family::Wav2Lip {
            let [right_ear, left_ear, nose] = region::synctalk2d(&moment.face.points)?;
            return published::square(right_ear, left_ear, nose)?.within(size.0, size.1);
        }
        let padded = |face: &Face| published::padded(whole(&face.points)?, size);
        let now = padded(moment.face)?;
        let later: Vec<PixelBox> = moment.later.iter().map_while(|face| padded(face)).collect();
        self.smoother.next(now, &later).within(size.0, size.1)
    }
}

/// A face as its detector says it, cut off to whole pixels: left, top, right, bottom.
fn whole(points: &[Point]) -> Option<[i32; 4]> {
    let rect = region::detected(points)?;
    let sides = [rect.x, rect.y, rect.x + rect.width, rect.y + rect.height];
    sides.iter().all(|v| v.is_finite() && v.abs() < 1e6).then(|| sides.map(|v| v as i32))
}

impl Actor for ExactActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let audio = self.engine.audio_input(moment.audio)?;
        let Some(place) = self.place(moment) else { return Ok(Asked::Nothing) };
        let frame: &FrameView = moment.frame;
        let prepared = image::take(frame, &place).and_then(|pixels| self.published.prepare(&pixels, place.size()));
        let Some(mut prepared) = prepared else { return Ok(Asked::Nothing) };
        let side = self.engine.network.side;
        let face = Tensor { shape: vec![1, 6, side, side], data: std::mem::take(&mut prepared.input) };
        let work = Work::new(Noise::default()).with(AUDIO, audio).with(FACE, face);
        let mut work = work.remembering(Seen { prepared, place });
        work.pass(FORWARD);
        Ok(Asked::Work(work))
    }

    fn show(&mut self, mut work: Work, _: &Scene) -> Result<Shown> {
        let picture = self.engine.picture(&mut work)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { prepared, place } = *seen;
        let patch = self.published.finish(prepared, &picture).and_then(|pixels| published::patch(&pixels, &place));
        Ok(patch.map_or(Shown::Nothing, Shown::Patch))
    }

    /// Nothing: what was shown last belongs to the pixels of its own frame.
    fn hold(&self, _: &Face) -> Option<Patch> {
        None
    }

    fn forget(&mut self) {
        self.smoother = Smoother::default();
    }
}
