//! Frames of a video on a grid of 25 a second: where the face is in each, and what the mouth looks like.

use std::path::Path;

use lipstream_engines::{
    geometry::{Alignment, Point, Similarity, landmarks},
    image::{Crop, FrameView},
    manifest::Engine,
    runtime,
};

use crate::{
    error::{Failure, Kind, Result},
    media::{Media, Reader},
    render::gather::Watcher,
};

/// Frames a second of all figures.
pub const RATE: f64 = 25.0;
/// Side of the picture of a mouth in pixels.
pub const MOUTH: usize = 96;
/// What it shows, in distances of the outer eye corners.
const MOUTH_EYES: f32 = 1.2;
/// Side of the picture of a face in pixels.
pub const FACE: usize = 256;
/// An hour: longer videos are cut.
const MOST: usize = 90_000;

/// The 111 landmarks of the largest face in pixels, a frame of the grid each.
pub type Faces = Vec<Option<Vec<Point>>>;

/// What is seen in one frame, as brightness.
#[derive(Clone)]
pub struct Pictures {
    /// `[MOUTH, MOUTH]`
    pub mouth: Vec<u8>,
    /// The aligned crop, `[FACE, FACE]`.
    pub face: Vec<u8>,
}

/// Puts what `f` makes of each frame on the grid, by the frames' timestamps: the first of those that share a place. A
/// place without a frame is what the one before it is.
fn on_grid<T: Clone>(path: &Path, mut f: impl FnMut(&gst::Sample, usize) -> Result<T>) -> Result<Vec<T>> {
    let mut reader = Reader::open(path, Media::Video)?;
    let mut grid: Vec<T> = Vec::new();
    let (mut first, mut count) = (None, 0u32);
    while let Some(sample) = reader.next_sample()? {
        let stamp = sample.buffer().and_then(|buffer| buffer.pts()).map(|pts| pts.nseconds() as f64 * 1e-9);
        let time = stamp.unwrap_or(f64::from(count) / RATE);
        count += 1;
        let place = ((time - *first.get_or_insert(time)) * RATE).round().clamp(0.0, MOST as f64) as usize;
        if place >= MOST {
            break;
        }
        if place < grid.len() {
            continue;
        }
        let value = f(&sample, place)?;
        while grid.len() < place {
            let before = grid.last().cloned().unwrap_or_else(|| value.clone());
            grid.push(before);
        }
        grid.push(value);
    }
    Ok(grid)
}

/// Follows the largest face of a video. Errors: what cannot be decoded, and a video without a face.
pub fn faces(path: &Path, device: runtime::Options) -> Result<Faces> {
    let mut watcher = Watcher::new(device, 1)?;
    let found = on_grid(path, |sample, _| {
        watcher.watch(sample, |_, faces| Ok(faces.first().map(|face| face.points.to_vec())))
    })?;
    if found.iter().all(Option::is_none) {
        return Err(Failure::input(format!("{}: no face in the whole file", path.display())));
    }
    Ok(found)
}

/// Where to look in each frame: the map from the frame to the unit crop, and to the mouth within it.
pub struct Places(Vec<Option<(Similarity, Similarity)>>);

impl Places {
    /// Steady landmarks place the crops, so that a mouth moves in its picture as it does in the face.
    pub fn of(faces: &Faces) -> Result<Self> {
        let alignment = alignment()?;
        let crops: Vec<_> = faces.iter().map(|face| alignment.fit(face.as_ref()?)).collect();
        let inside = |of: &dyn Fn(Point) -> f32| {
            let each = |(face, crop): (&Option<Vec<Point>>, &Option<Similarity>)| {
                let (points, crop) = (face.as_ref()?, crop.as_ref()?);
                let lips = &points[landmarks::LIPS];
                Some(f64::from(lips.iter().map(|p| of(crop.apply(*p))).sum::<f32>() / lips.len() as f32))
            };
            let all: Vec<f64> = faces.iter().zip(&crops).filter_map(each).collect();
            lipstream_engines::ruler::series::median(&all).map(|v| v as f32)
        };
        let (Some(x), Some(y)) = (inside(&|p| p.x), inside(&|p| p.y)) else {
            return Err(Failure::input("no face in the whole file"));
        };
        let eyes = eyes(&alignment);
        let side = MOUTH_EYES * eyes;
        let zoom = Similarity { a: 1.0 / side, b: 0.0, tx: 0.5 - x / side, ty: 0.5 - y / side };
        Ok(Self(crops.into_iter().map(|crop| crop.map(|crop| (crop, crop.then(&zoom)))).collect()))
    }

    /// The map from frame `i` to the unit crop.
    pub fn crop(&self, i: usize) -> Option<&Similarity> {
        self.0.get(i)?.as_ref().map(|(crop, _)| crop)
    }

    /// Takes the pictures of a video at these places, as far as both go.
    pub fn take(&self, path: &Path) -> Result<Vec<Option<Pictures>>> {
        on_grid(path, |sample, i| {
            let Some((face, mouth)) = self.0.get(i).and_then(Option::as_ref) else { return Ok(None) };
            view(sample, |frame| {
                let luma = |side, to: &Similarity| Crop::take(frame, side, to).map(|crop| crop.luma());
                Ok(luma(MOUTH, mouth).zip(luma(FACE, face)).map(|(mouth, face)| Pictures { mouth, face }))
            })
        })
    }
}

/// How the built-in engine aligns a face.
fn alignment() -> Result<Alignment> {
    Ok(Engine::find("compact")?.manifest().geometry.alignment.clone())
}

/// Distance of the outer eye corners in the unit crop; what an alignment without them has on the whole.
fn eyes(alignment: &Alignment) -> f32 {
    let place = |of: usize| alignment.anchors.iter().position(|a| *a == of).map(|i| alignment.points[i]);
    match (place(landmarks::EYE_RIGHT), place(landmarks::EYE_LEFT)) {
        (Some(right), Some(left)) => right.distance(left),
        _ => 0.5,
    }
}

fn view<T>(sample: &gst::Sample, f: impl FnOnce(&FrameView) -> lipstream_engines::Result<T>) -> Result<T> {
    let caps = sample.caps().ok_or_else(|| Failure::run("a decoded frame without caps"))?;
    let info = gst_video::VideoInfo::from_caps(caps)?;
    let buffer = sample.buffer().ok_or_else(|| Failure::run("a decoded sample without a buffer"))?;
    gstlipstream::video::with_view(buffer, &info, f).map_err(|e| Failure::new(Kind::Engine, e.to_string()))
}
