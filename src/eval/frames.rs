//! Frames of a video on a grid of 25 a second: where the face is in each, and what the mouth looks like.

use std::path::Path;

use lipstream_engines::{
    geometry::{Alignment, Point, Similarity, landmarks},
    image::{ColorSpace, Crop, FrameView, Range},
    manifest::Package,
    quality::series,
    runtime,
};

use crate::{
    error::{Failure, Kind, Result},
    media::{Media, Notices, Reader, timeline},
    render::gather::Watcher,
};

/// Frames a second of all figures.
pub const RATE: f64 = 25.0;
/// Side of the picture of a mouth in pixels.
pub const MOUTH: usize = 96;
/// What it shows, in distances of the outer eye corners.
const MOUTH_EYES: f32 = 1.2;
/// The same at the size that it has in the video, within bounds.
const CLOSE: std::ops::RangeInclusive<f64> = 96.0..=256.0;
/// Side of the picture of a face in pixels.
pub const FACE: usize = 256;
/// Of a portrait, at the size that the face has in the video.
const PORTRAIT: std::ops::RangeInclusive<f64> = 256.0..=512.0;
/// An hour: longer videos are cut.
pub const MOST: usize = 90_000;

/// The frames of a file on the grid, by their running time: of those that share a place the first, and where there is none
/// the one before.
pub(crate) struct Grid {
    reader: Reader,
    count: u32,
    /// Running time of the first frame in seconds.
    start: f64,
    place: usize,
    shown: Option<gst::Sample>,
    /// The next frame and its place.
    next: Option<(usize, gst::Sample)>,
}

impl Grid {
    pub fn open(path: &Path, notices: &Notices) -> Result<Self> {
        let reader = Reader::open(path, Media::Video, notices)?;
        let mut grid = Self { reader, count: 0, start: 0.0, place: 0, shown: None, next: None };
        if let Some(sample) = grid.reader.next_sample()? {
            grid.start = grid.time(&sample);
            grid.next = Some((0, sample));
        }
        Ok(grid)
    }

    fn time(&mut self, sample: &gst::Sample) -> f64 {
        let time = running_time(sample).unwrap_or(f64::from(self.count) / RATE);
        self.count += 1;
        time
    }

    /// What is shown at the next place, and whether it is another frame than before.
    pub fn next(&mut self) -> Result<Option<(gst::Sample, bool)>> {
        let fresh = self.next.as_ref().is_some_and(|(place, _)| *place <= self.place);
        if fresh {
            self.shown = self.next.take().map(|(_, sample)| sample);
            while self.next.is_none() {
                let Some(sample) = self.reader.next_sample()? else { break };
                let place = ((self.time(&sample) - self.start) * RATE).round().clamp(0.0, MOST as f64) as usize;
                if place > self.place && place < MOST {
                    self.next = Some((place, sample));
                } else if place >= MOST {
                    break;
                }
            }
        } else if self.next.is_none() {
            return Ok(None);
        }
        self.place += 1;
        Ok(self.shown.clone().map(|sample| (sample, fresh)))
    }
}

/// Running time of a sample in seconds; negative before the start of its stream.
pub fn running_time(sample: &gst::Sample) -> Option<f64> {
    timeline::running_time(sample).map(|time| time as f64 / timeline::SECOND as f64)
}

/// The 111 landmarks of the largest face in pixels, a frame of the grid each.
pub type Faces = Vec<Option<Vec<Point>>>;

/// A video that was looked at.
pub struct WatchedVideo {
    pub faces: Faces,
    /// Running time of its first frame in seconds.
    pub start: f64,
}

/// Follows the largest face of a video. Errors: what cannot be decoded, and a video without a face.
pub fn watch(path: &Path, options: runtime::Options, notices: &Notices) -> Result<WatchedVideo> {
    let mut watcher = Watcher::new(options, 1)?;
    let mut grid = Grid::open(path, notices)?;
    let mut faces = Faces::new();
    while let Some((sample, fresh)) = grid.next()? {
        let face = match faces.last() {
            Some(last) if !fresh => last.clone(),
            _ => watcher.watch(&sample, |_, faces| Ok(faces.first().map(|face| face.points.to_vec())))?,
        };
        faces.push(face);
    }
    if faces.iter().all(Option::is_none) {
        return Err(Failure::input(format!("{}: no face in the whole file", path.display())));
    }
    Ok(WatchedVideo { faces, start: grid.start })
}

/// What is seen in one frame, as full-range brightness.
#[derive(Clone)]
pub struct Pictures {
    /// `[MOUTH, MOUTH]`
    pub mouth: Vec<f32>,
    /// The same, as large as in the video: [`Places::close`].
    pub close: Vec<f32>,
    /// The aligned crop, `[FACE, FACE]`.
    pub face: Vec<f32>,
}

/// Where to look in each frame: the map from the frame to the unit crop, and to the mouth within it.
pub struct Places {
    maps: Vec<Option<(Similarity, Similarity)>>,
    /// Side of the close picture of a mouth in pixels.
    pub close: usize,
    /// Side of a portrait in pixels.
    pub portrait: usize,
}

impl Places {
    /// Steady landmarks place the crops, so that a mouth moves in its picture as it does in the face.
    pub fn of(faces: &Faces) -> Result<Self> {
        let alignment = alignment()?;
        let crops: Vec<_> = faces.iter().map(|face| alignment.fit(face.as_ref()?)).collect();
        let middle = |of: &dyn Fn(&[Point], &Similarity) -> f32| {
            let each = |(face, crop): (&Option<Vec<Point>>, &Option<Similarity>)| {
                Some(f64::from(of(face.as_ref()?, crop.as_ref()?)))
            };
            let all: Vec<f64> = faces.iter().zip(&crops).filter_map(each).collect();
            series::median(&all).ok_or_else(|| Failure::input("no face in the whole file"))
        };
        let lips = |points: &[Point], of: &dyn Fn(Point) -> f32| {
            points[landmarks::LIPS].iter().map(|p| of(*p)).sum::<f32>() / landmarks::LIPS.len() as f32
        };
        let x = middle(&|points, crop| lips(points, &|p| crop.apply(p).x))? as f32;
        let y = middle(&|points, crop| lips(points, &|p| crop.apply(p).y))? as f32;
        let size = middle(&|_, crop| 1.0 / crop.scale())?;
        let side = MOUTH_EYES * eyes(&alignment);
        let zoom = Similarity { a: 1.0 / side, b: 0.0, tx: 0.5 - x / side, ty: 0.5 - y / side };
        let within =
            |size: f64, range: std::ops::RangeInclusive<f64>| size.clamp(*range.start(), *range.end()).round() as usize;
        Ok(Self {
            maps: crops.into_iter().map(|crop| crop.map(|crop| (crop, crop.then(&zoom)))).collect(),
            close: within(size * f64::from(side), CLOSE),
            portrait: within(size, PORTRAIT),
        })
    }

    /// The map from frame `i` to the unit crop.
    pub fn crop(&self, i: usize) -> Option<&Similarity> {
        self.maps.get(i)?.as_ref().map(|(crop, _)| crop)
    }

    /// Takes the pictures of a video at these places, one after the other, as far as both go.
    pub fn look(&self, path: &Path) -> Result<PictureReader<'_>> {
        Ok(PictureReader { places: self, grid: Grid::open(path, &Notices::unheard())? })
    }

    /// The aligned face in red, green and blue, `[portrait, portrait, 3]`, at some places of the grid; `None` where there is
    /// no face or no frame.
    pub fn portraits(&self, path: &Path, moments: &[usize]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut found = vec![None; moments.len()];
        let mut grid = Grid::open(path, &Notices::unheard())?;
        let last = moments.iter().copied().max().unwrap_or_default();
        for i in 0..=last {
            let Some((sample, _)) = grid.next()? else { break };
            let Some(crop) = self.crop(i).filter(|_| moments.contains(&i)) else { continue };
            let picture = view(&sample, |frame| {
                Ok(Crop::take(frame, self.portrait, crop).map(|crop| crop.convert(ColorSpace::Rgb).data))
            })?;
            moments.iter().zip(&mut found).filter(|(m, _)| **m == i).for_each(|(_, f)| f.clone_from(&picture));
        }
        Ok(found)
    }
}

/// A video at [`Places`].
pub struct PictureReader<'a> {
    places: &'a Places,
    grid: Grid,
}

impl PictureReader<'_> {
    /// The next frame's pictures, `None` within where there is no face; `None` at the end of either.
    pub fn next(&mut self) -> Result<Option<Option<Pictures>>> {
        let Some(place) = self.places.maps.get(self.grid.place) else { return Ok(None) };
        let Some((sample, _)) = self.grid.next()? else { return Ok(None) };
        let Some((face, mouth)) = place else { return Ok(Some(None)) };
        let pictures = view(&sample, |frame| {
            let luma = |side, to: &Similarity| Crop::take(frame, side, to).map(|crop| brightness(&crop));
            let taken = luma(MOUTH, mouth).zip(luma(self.places.close, mouth)).zip(luma(FACE, face));
            Ok(taken.map(|((mouth, close), face)| Pictures { mouth, close, face }))
        })?;
        Ok(Some(pictures))
    }
}

/// Brightness 0..255 whatever the range of the video, so that files of different ranges compare.
fn brightness(crop: &Crop) -> Vec<f32> {
    let (black, gain) = match crop.space {
        ColorSpace::Yuv(_, Range::Limited) => (16.0, 255.0 / 219.0),
        _ => (0.0, 1.0),
    };
    crop.luma().into_iter().map(|y| ((f32::from(y) - black) * gain).clamp(0.0, 255.0)).collect()
}

/// How the built-in engine aligns a face.
fn alignment() -> Result<Alignment> {
    Ok(Package::find("compact")?.manifest().geometry.alignment.clone())
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
