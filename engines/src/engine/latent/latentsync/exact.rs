use std::sync::Arc;

use super::{LatentSync, sequence::Sequence};
use crate::{
    Error, Result,
    engine::{
        Actor, Asked, Moment, Noise, Patch, Scene, Shown, Work,
        latent::{
            clip::{PICTURE, composed},
            face,
        },
        pixel::published,
    },
    geometry::{Point, Similarity, three_point},
    image::{self, PixelBox},
    runtime::Tensor,
    schedule::Schedule,
    tracker::Face,
};

/// Pixels around a crop that its edge is blended over.
const AROUND: f32 = 4.0;

/// One stream, of which every frame is what the published program would write from the same three points: they are rounded, the
/// map is smoothed as it is there, and the face is put back with its soft edge.
pub(super) struct ExactActor {
    engine: Arc<LatentSync>,
    sequence: Sequence<Seen>,
    alignment: three_point::ThreePoint,
    track: u64,
}

/// What a frame showed.
struct Seen {
    /// The part of the frame that the face is put back into, `[rows, columns, 3]`, RGB, and its place.
    pixels: Vec<u8>,
    place: PixelBox,
    /// From that part to the face's crop, in the published coordinates.
    map: Similarity,
    /// The aligned face.
    face: Vec<f32>,
}

impl ExactActor {
    pub(super) fn new(engine: Arc<LatentSync>, noise: Noise, schedule: Schedule) -> Self {
        let sequence = Sequence::new(noise, schedule, engine.clip(), engine.side);
        let alignment = three_point::ThreePoint::new(engine.side);
        Self { engine, sequence, alignment, track: 0 }
    }

    fn seen(&mut self, moment: &Moment) -> Option<Seen> {
        let side = self.engine.side;
        let points = three_point::points(&moment.face.points)?.map(three_point::to_first_centre);
        let map = self.alignment.next(&three_point::rounded(&points))?;
        let place = around(&map, self.alignment.size())?.within(moment.frame.width(), moment.frame.height())?;
        let pixels = image::take(moment.frame, &place)?;
        let corner = map.apply(Point::new(place.left as f32, place.top as f32));
        let map = Similarity { tx: corner.x, ty: corner.y, ..map };
        let square = face::crop(&pixels, place.size(), &map, self.alignment.size(), side)?;
        let face = (0..3).flat_map(|c| square.iter().skip(c).step_by(3).map(|v| f32::from(*v) / 255.0 * 2.0 - 1.0));
        Some(Seen { face: face.collect(), pixels, place, map })
    }
}

/// The pixels of a frame around the crop of `size` that `map` takes.
fn around(map: &Similarity, size: (usize, usize)) -> Option<PixelBox> {
    let back = map.inverse()?;
    let (right, bottom) = (size.0 as f32, size.1 as f32);
    let corners = [(0.0, 0.0), (right, 0.0), (0.0, bottom), (right, bottom)].map(|(x, y)| back.apply(Point::new(x, y)));
    if corners.iter().any(|p| !p.is_finite() || p.x.abs().max(p.y.abs()) > 1e6) {
        return None;
    }
    // A pixel of the crop is several of a frame that is larger.
    let more = AROUND + back.scale() * AROUND;
    let low = |axis: fn(&Point) -> f32| corners.iter().map(axis).fold(f32::MAX, f32::min) - more;
    let high = |axis: fn(&Point) -> f32| corners.iter().map(axis).fold(f32::MIN, f32::max) + more;
    Some(PixelBox {
        left: low(|p| p.x) as i32,
        top: low(|p| p.y) as i32,
        right: high(|p| p.x) as i32,
        bottom: high(|p| p.y) as i32,
    })
}

impl Actor for ExactActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let Some(seen) = self.seen(moment) else { return Ok(Asked::Nothing) };
        self.track = moment.face.track_id;
        self.sequence.gather(seen.face.clone(), moment.audio, seen);
        Ok(Asked::Gathered)
    }

    fn close(&mut self) -> Result<Option<Work>> {
        self.sequence.close(&self.engine.clips, self.track)
    }

    fn parts(&mut self, work: Work) -> Result<Vec<Work>> {
        self.sequence.parts(work, &self.engine.spec.name)
    }

    fn show(&mut self, mut work: Work, _: &Scene) -> Result<Shown> {
        let LatentSync { side, clips, .. } = &*self.engine;
        let mut picture = work.take(PICTURE)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Seen { mut pixels, place, map, face } = *seen;
        let face = Tensor { shape: picture.shape.clone(), data: face };
        composed(&mut picture, &face, &clips.mask);
        let crop = self.alignment.size();
        let patch = face::restore(&mut pixels, place.size(), &picture.data, *side, &map, crop)
            .and_then(|()| published::patch(&pixels, &place));
        Ok(patch.map_or(Shown::Nothing, Shown::Patch))
    }

    /// Nothing: what was shown last belongs to the pixels of its own frame.
    fn hold(&self, _: &Face) -> Option<Patch> {
        None
    }

    /// A face that is lost for a while is aligned as it was.
    fn forget(&mut self) {
        self.sequence.forget();
    }
}
