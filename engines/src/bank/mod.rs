//! A person's own frames, chosen so that they span the shapes of the mouth.
//!
//! A bank holds at most `capacity` references (crop and landmarks) and a sample of at most [`SHAPES`] of all the
//! shapes that it has seen. That is `capacity * (3 side^2 + 888) + 512 * 888` bytes: 5.2 MB with 24 references of
//! 256 px. It belongs to one track and refuses every other.
//!
//! All crops of a bank have one side: that of its configuration for small faces, two or three times that for faces which
//! the frame shows with so many more pixels ([`ReferenceBank::side`]).
//!
//! A frame is judged by its landmarks first; pixels are only looked at when the shape is worth a place.

mod select;
mod shapes;
mod store;

use std::{sync::Arc, time::Duration};

use crate::{
    Error, Result,
    geometry::{Alignment, Point, Rect, landmarks},
    image::{ColorSpace, Crop, FrameView},
    tracker::Face,
};
use select::Choice;
pub use shapes::SHAPES;
use shapes::Shapes;

/// References that a bank keeps unless told otherwise.
pub const CAPACITY: usize = 24;
/// Frames turned further, in degrees, show a mouth that fits no other frame.
const MAX_YAW: f32 = 30.0;
/// Faces that the tracker is less sure of are not kept.
const MIN_CONFIDENCE: f32 = 0.6;
/// A shape further than this from the one before it (unit crop coordinates) is a slip of the landmarks until the
/// next frame agrees.
const SLIP: f32 = 0.06;
/// A crop with less than this share of the median sharpness is blurred.
const BLURRED: f32 = 0.55;
/// So much of its width must be seen beside a mouth,
const BESIDE: f32 = 0.15;
/// and no cheek may reach further beyond the picture, in eye distances: the tracker presses half a face into what is seen.
const ASIDE: f32 = 0.15;
/// Least count of references for that median to mean something.
const JUDGES: usize = 3;
/// A face may have so many times more pixels along a side than a crop of the least side before its crops become larger:
/// four times the pixels cost more than what a crop of 0.7 pixels for each of the frame's loses.
const COARSE: f32 = 1.4;
/// Crops become as large as so many of the least side, and no larger than this in pixels.
const MAX_ZOOM: usize = 3;
const MAX_SIDE: usize = 768;
/// Bytes of all crops of a bank, at most: 341 of 256 px, 85 of 512 px, 37 of 768 px.
const MAX_BYTES: usize = 64 << 20;
/// Changes when banks are gathered otherwise: those that were kept for a later run are gathered anew.
pub const RULES: u32 = 2;

#[derive(Clone, Debug, PartialEq)]
pub struct BankConfig {
    /// References at most, 1..=256.
    pub capacity: usize,
    /// Least side of a crop in pixels.
    pub side: usize,
    /// How a frame becomes a crop.
    pub alignment: Alignment,
}

/// One frame of the person.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Unique within a bank, also over replacements.
    pub id: u64,
    pub crop: Crop,
    /// [`landmarks`], `[111]`, in unit crop coordinates.
    pub points: Vec<Point>,
    /// Mean absolute Laplacian of the luma around the mouth, in 8-bit codes.
    pub sharpness: f32,
    /// Degrees, as [`Face::yaw`].
    pub yaw: f32,
    /// When the video that it is of shows it.
    pub time: Option<Duration>,
    /// The frame showed the face with fewer pixels than the bank's crops are made for.
    pub coarse: bool,
}

impl Reference {
    /// Higher is better: sharp and seen from the front.
    fn quality(&self) -> f32 {
        self.sharpness * (1.0 - self.yaw.abs() / 60.0)
    }
}

#[derive(Clone, Debug)]
pub struct ReferenceBank {
    config: BankConfig,
    /// Side of the crops in sides of the configuration.
    zoom: usize,
    /// The track that it belongs to; `None` until the first frame.
    track: Option<u64>,
    references: Vec<Arc<Reference>>,
    next_id: u64,
    /// Shapes nearer than this to each other are one.
    same: f32,
    shapes: Shapes,
    /// The shape of the last frame that was looked at.
    last: Option<Vec<Point>>,
    /// Why nothing could be learnt from the frame that was looked at last.
    refusal: Option<Refusal>,
    /// The references show faces that the frame's edge cuts or something is before; they go when a whole one comes.
    partial: bool,
    version: u64,
}

/// Why a mouth cannot be learnt from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The inner lips, or what the face is aligned by, reach beyond the picture.
    CutOff,
    TurnedAway,
    Covered,
    /// The tracker is not sure of it, or it has jumped, or it is another face than the bank's.
    Unclear,
}

impl ReferenceBank {
    pub fn new(config: BankConfig) -> Self {
        let config = BankConfig { capacity: config.capacity.clamp(1, store::MAX_REFERENCES), ..config };
        let (references, shapes) = (Vec::with_capacity(config.capacity), Shapes::default());
        Self {
            config,
            zoom: 1,
            track: None,
            references,
            next_id: 0,
            same: select::SAME,
            shapes,
            last: None,
            refusal: None,
            partial: false,
            version: 0,
        }
    }

    /// Keeps shapes apart that differ by `distance` or more (root mean square, unit crop coordinates): the default is for a
    /// bank that must soon be complete.
    pub fn set_spacing(&mut self, distance: f32) {
        self.same = distance.max(0.0);
    }

    pub fn config(&self) -> &BankConfig {
        &self.config
    }

    /// Side of each crop in pixels.
    pub fn side(&self) -> usize {
        self.config.side * self.zoom
    }

    /// References that there is room for.
    fn capacity(&self) -> usize {
        self.config.capacity.min((MAX_BYTES / (3 * self.side().pow(2)).max(1)).max(1))
    }

    /// The track that the bank is bound to.
    pub fn track(&self) -> Option<u64> {
        self.track
    }

    /// Binds the bank to a track: for a caller who knows that this is the same person (a bank from a file). Banks
    /// bind themselves to the first face that they observe.
    pub fn bind(&mut self, track_id: u64) {
        self.track = Some(track_id);
        self.last = None;
    }

    pub fn references(&self) -> &[Arc<Reference>] {
        &self.references
    }

    /// An even sample of all shapes observed, `[111]` points each in unit crop coordinates; the same for the same
    /// sequence of frames.
    pub fn shapes(&self) -> impl Iterator<Item = &[Point]> {
        self.shapes.iter()
    }

    /// Shapes observed so far, including those that the sample let go.
    pub fn observed(&self) -> u64 {
        self.shapes.observed()
    }

    /// Grows when references change, and each time that the number of shapes has grown by a half.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Looks at a frame; true when it became a reference. Faces of another track, turned, covered, uncertain or with lips, eyes or
    /// nose outside of the frame are passed over; those whose chin or cheeks the frame's edge cuts off, and those that something is before, are taken as
    /// long as no whole one has been seen. `time` is where in the video the frame stands, if that is known. Errors: a face without its
    /// 111 landmarks.
    pub fn observe(&mut self, frame: &FrameView, face: &Face, time: Option<Duration>) -> Result<bool> {
        if face.points.len() != landmarks::COUNT {
            let found = face.points.len();
            return Err(Error::invalid(format!("a face has {} landmarks, found {found}", landmarks::COUNT)));
        }
        self.refusal = Some(Refusal::Unclear);
        if *self.track.get_or_insert(face.track_id) != face.track_id {
            return Ok(false);
        }
        let (width, height) = (frame.width() as f32, frame.height() as f32);
        let off = cut_off(&self.config.alignment, &face.points, width, height);
        self.refusal = refusal(face).or_else(|| off.then_some(Refusal::CutOff));
        if self.refusal.is_some() {
            return Ok(false);
        }
        let partial = face.front.is_some() || !face.points[landmarks::LOWER].iter().all(|p| inside(p, width, height));
        if partial && !self.partial && !self.references.is_empty() {
            return Ok(false);
        }
        let Some(to_crop) = self.config.alignment.fit(&face.points) else { return Ok(false) };
        let points: Vec<Point> = face.points.iter().map(|p| to_crop.apply(*p)).collect();
        if points.iter().any(|p| !p.x.is_finite() || !p.y.is_finite()) {
            return Ok(false);
        }
        let steady = self.last.as_ref().is_none_or(|last| select::distance(last, &points) < SLIP);
        self.last = Some(points.clone());
        if !steady {
            self.refusal = Some(Refusal::Unclear);
            return Ok(false);
        }
        if self.shapes.push(&points) {
            self.version += 1;
        }
        if self.partial && !partial {
            // Warped onto a whole face they would smear the frame's edge, or what was before them, over it.
            self.references.clear();
            self.version += 1;
        }
        self.partial = partial;
        let zoom = zoom(self.config.side, to_crop.scale());
        if self.references.is_empty() {
            self.zoom = zoom;
        } else if zoom > self.zoom {
            self.enlarge(zoom);
        }
        let coarse = zoom < self.zoom;
        let (capacity, median) = (self.capacity(), self.median_sharpness());
        let choice = select::choose(&self.references, capacity, self.same, &points, (face.yaw, coarse), median);
        if choice == Choice::Pass {
            return Ok(false);
        }
        // What a bilinear filter loses is what a small face is sharpened for.
        let taken = match self.zoom {
            1 => Crop::take(frame, self.side(), &to_crop),
            _ => Crop::take_sharp(frame, self.side(), &to_crop),
        };
        let Some(crop) = taken else { return Ok(false) };
        let crop = match self.space() {
            Some(space) => crop.convert(space),
            None => crop,
        };
        let sharpness = sharpness(&crop, &points);
        let reference = Reference { id: self.next_id, crop, points, sharpness, yaw: face.yaw, time, coarse };
        Ok(self.take_in(reference, choice))
    }

    /// Why nothing could be learnt from the frame that was looked at last; `None` where it could.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Makes the crops larger: the face has come nearer. What was seen of it from afar stays until it is seen better.
    fn enlarge(&mut self, zoom: usize) {
        self.zoom = zoom;
        let (side, capacity) = (self.side(), self.capacity());
        if self.references.len() > capacity {
            let points: Vec<Vec<Point>> = self.references.iter().map(|r| r.points.clone()).collect();
            let kept = select::spanning(&points, capacity);
            self.references = kept.into_iter().map(|i| self.references[i].clone()).collect();
        }
        for r in &mut self.references {
            let crop = r.crop.enlarged(side);
            *r = Arc::new(Reference { sharpness: sharpness(&crop, &r.points), crop, coarse: true, ..(**r).clone() });
        }
        self.version += 1;
    }

    /// Carries out a choice unless the pixels speak against it.
    fn take_in(&mut self, reference: Reference, choice: Choice) -> bool {
        if self.references.len() >= JUDGES && reference.sharpness < BLURRED * self.median_sharpness() {
            return false;
        }
        match choice {
            Choice::Pass => return false,
            Choice::Add => self.references.push(reference.into()),
            Choice::Replace(i) => self.references[i] = reference.into(),
            Choice::Improve(i) => {
                let finer = self.references[i].coarse && !reference.coarse;
                if !finer && reference.quality() < 1.15 * self.references[i].quality() {
                    return false;
                }
                self.references[i] = reference.into();
            }
        }
        self.next_id += 1;
        self.version += 1;
        true
    }

    fn median_sharpness(&self) -> f32 {
        let mut all: Vec<f32> = self.references.iter().map(|r| r.sharpness).collect();
        all.sort_by(f32::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    }

    /// The colours of the crops; `None` for an empty bank.
    pub fn space(&self) -> Option<ColorSpace> {
        self.references.first().map(|r| r.crop.space)
    }

    /// Converts all crops to `space`: for a loaded bank, or after a stream changed its format.
    pub fn set_space(&mut self, space: ColorSpace) {
        if self.space().is_none_or(|s| s == space) {
            return;
        }
        for r in &mut self.references {
            *r = Arc::new(Reference { crop: r.crop.convert(space), ..(**r).clone() });
        }
        self.version += 1;
    }
}

/// Whether the mouth of a face can be learnt from: seen from the front, surely, and uncovered.
pub fn shows_mouth(face: &Face) -> bool {
    refusal(face).is_none()
}

/// Why it cannot, as far as the face alone tells.
fn refusal(face: &Face) -> Option<Refusal> {
    if face.yaw.abs() > MAX_YAW {
        Some(Refusal::TurnedAway)
    } else if face.occluded {
        Some(Refusal::Covered)
    } else {
        (face.confidence < MIN_CONFIDENCE).then_some(Refusal::Unclear)
    }
}

/// How many times the least `side` a crop of a face has that the map to it shrinks by `scale` (crops to a pixel of the
/// frame).
fn zoom(side: usize, scale: f32) -> usize {
    let wanted = 1.0 / (scale * side as f32);
    let most = (MAX_SIDE / side.max(1)).clamp(1, MAX_ZOOM);
    if wanted.is_finite() && wanted > COARSE { (wanted.ceil() as usize).clamp(1, most) } else { 1 }
}

/// Whether the edge of a picture of this size cuts off a mouth, or what the face with these `points` (`[111]`, pixels) is
/// aligned by: what is beyond the edge is a guess of the tracker, and near it the whole face may be one.
pub fn cut_off(alignment: &Alignment, points: &[Point], width: f32, height: f32) -> bool {
    let corners = [landmarks::CORNER_RIGHT, landmarks::CORNER_LEFT];
    let [right, left] = corners.map(|i| points[i]);
    let beside = [right.lerp(left, -BESIDE), left.lerp(right, -BESIDE)];
    let anchors = alignment.anchors.iter().filter_map(|a| points.get(*a));
    let eyes = points[landmarks::EYE_LEFT] - points[landmarks::EYE_RIGHT];
    // Sideways, in eye distances; below a chin may be missing.
    let sideways = points[landmarks::LOWER].iter().map(|p| {
        let beyond = *p - Point::new(p.x.clamp(0.0, width), p.y.clamp(0.0, height));
        (beyond.x * eyes.x + beyond.y * eyes.y).abs() / (eyes.x * eyes.x + eyes.y * eyes.y).max(f32::MIN_POSITIVE)
    });
    sideways.fold(0.0, f32::max) > ASIDE
        || !anchors.chain(&points[landmarks::LIPS_INNER]).chain(&beside).all(|p| inside(p, width, height))
}

fn inside(p: &Point, width: f32, height: f32) -> bool {
    (0.0..width).contains(&p.x) && (0.0..height).contains(&p.y)
}

/// Mean absolute Laplacian (four neighbours) of the luma in the box of the lips and a margin.
fn sharpness(crop: &Crop, points: &[Point]) -> f32 {
    const MARGIN: f32 = 0.06;
    let Some(Rect { x, y, width, height }) = Rect::around(&points[landmarks::LIPS]) else { return 0.0 };
    let side = crop.side;
    let pixel = |v: f32| (v * side as f32).clamp(1.0, side as f32 - 1.0) as usize;
    let (columns, rows) = (pixel(x - MARGIN)..pixel(x + width + MARGIN), pixel(y - MARGIN)..pixel(y + height + MARGIN));
    let luma = crop.luma();
    let at = |x: usize, y: usize| i32::from(luma[y * side + x]);
    let (mut sum, mut count) = (0, 0);
    for y in rows {
        for x in columns.clone() {
            sum += (4 * at(x, y) - at(x - 1, y) - at(x + 1, y) - at(x, y - 1) - at(x, y + 1)).abs();
            count += 1;
        }
    }
    sum as f32 / count.max(1) as f32
}
