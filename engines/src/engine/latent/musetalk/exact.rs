use std::sync::Arc;

use super::{
    MuseTalk,
    painter::{self, Painter},
    region,
};
use crate::{
    Error, Result,
    engine::{Actor, Asked, Moment, Noise, Patch, Scene, Shown, Work, latent::blend, pixel::published},
    image::{self, Crop, Interpolation, PixelBox, lanczos, resize},
    tracker::Face,
};

/// One stream, of which every frame is what the published program would write from the same box and outline: a box of whole
/// pixels, and what the mask covers of it put back as it is.
pub(super) struct ExactActor {
    engine: Arc<MuseTalk>,
    /// Encoded pictures of each frame are sampled anew.
    noise: Noise,
}

/// What the frame of a work item showed.
struct Seen {
    /// `[rows, columns, 3]`, RGB.
    pixels: Vec<u8>,
    place: PixelBox,
}

impl ExactActor {
    pub(super) fn new(engine: Arc<MuseTalk>, noise: Noise) -> Self {
        Self { engine, noise }
    }

    /// The pixels of the box with the network's `picture` in it, and how much of each is the picture's.
    fn blended(&self, seen: &mut Seen, picture: &[f32], face: &Face) -> Option<Vec<u8>> {
        let MuseTalk { side, mask, .. } = &*self.engine;
        let (columns, rows) = seen.place.size();
        let made = resize(&painter::bytes(picture), (*side, *side), (columns, rows), Interpolation::Linear)?;
        let crop = blend::crop(&seen.place, blend::EXPAND)?;
        let (parsed, size) = region::parsed(&face.points, *mask, &seen.place, &crop);
        let weights = blend::mask(&parsed, (size, size), &seen.place, &crop, blend::OFFLINE)?;
        // Of the frame nothing but the box is looked at.
        let place = PixelBox { left: 0, top: 0, right: columns as i32, bottom: rows as i32 };
        let moved = moved(&crop, &seen.place);
        blend::blend(&mut seen.pixels, (columns, rows), &made, &place, &weights, &moved)?;
        let side = crop.size().0;
        let weight = |x: i32, y: i32| {
            let at = (y - moved.top) as usize * side + (x - moved.left) as usize;
            weights.get(at).copied().unwrap_or(0)
        };
        let pixels = (0..rows as i32).flat_map(|y| (0..columns as i32).map(move |x| (x, y)));
        Some(pixels.map(|(x, y)| weight(x, y)).collect())
    }
}

/// A crop in the coordinates of the box in it.
fn moved(crop: &PixelBox, place: &PixelBox) -> PixelBox {
    PixelBox {
        left: crop.left - place.left,
        top: crop.top - place.top,
        right: crop.right - place.left,
        bottom: crop.bottom - place.top,
    }
}

impl Actor for ExactActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        let MuseTalk { side, painter, .. } = &*self.engine;
        let size = (moment.frame.width(), moment.frame.height());
        let place = region::whole(&moment.face.points, size);
        let Some(place) = place.filter(|place| place.size().0.max(place.size().1) <= Crop::MAX_SIDE) else {
            return Ok(Asked::Nothing);
        };
        let Some(pixels) = image::take(moment.frame, &place) else { return Ok(Asked::Nothing) };
        let Some(square) = lanczos::<3>(&pixels, place.size(), (*side, *side)) else { return Ok(Asked::Nothing) };
        let value = |v: &u8| (f32::from(*v) / 255.0 - 0.5) / 0.5;
        let face: Vec<f32> = (0..3).flat_map(|c| square.iter().skip(c).step_by(3).map(value)).collect();
        let epsilon = Painter::epsilon(&mut self.noise, *side);
        let work = painter.work(&face, *side, moment.audio.to_vec(), epsilon)?;
        Ok(Asked::Work(work.remembering(Seen { pixels, place })))
    }

    fn show(&mut self, mut work: Work, scene: &Scene) -> Result<Shown> {
        let picture = painter::picture(&mut work, self.engine.side, &self.engine.spec.name)?;
        let seen = work.remembered::<Seen>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let mut seen = *seen;
        let Some(weights) = self.blended(&mut seen, &picture, scene.face) else { return Ok(Shown::Nothing) };
        let Some(mut patch) = published::patch(&seen.pixels, &seen.place) else { return Ok(Shown::Nothing) };
        // What the picture has no part in stays as it is in the frame.
        let (side, columns) = (patch.pixels.side(), seen.place.size().0);
        let mut mask = vec![0; side * side];
        for (line, weights) in mask.chunks_exact_mut(side).zip(weights.chunks_exact(columns)) {
            line.iter_mut().zip(weights).for_each(|(v, weight)| *v = if *weight > 0 { 255 } else { 0 });
        }
        patch.mask = mask.into();
        Ok(Shown::Patch(patch))
    }

    /// Nothing: what was shown last belongs to the pixels of its own frame.
    fn hold(&self, _: &Face) -> Option<Patch> {
        None
    }

    fn forget(&mut self) {}
}
