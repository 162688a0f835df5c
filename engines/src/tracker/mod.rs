//! Finding and following faces.
//!
//! [`Tracker::process`] looks at each frame once, in order:
//!
//! 1. [`scene`]: a thumbnail tells a cut, which ends all tracks.
//! 2. [`landmarks`]: every tracked face is read again in an upright square around its last points. A low face
//!    probability, impossible geometry or a look that is another's ends the track at once, and the detector looks for
//!    it in the same frame.
//!    [`lips`]: then its lips once more, in a closer window.
//! 3. [`detector`]: every few frames, or when nothing is tracked, the whole frame is searched for new faces; rarely while
//!    there is no place for one.
//! 4. [`smooth`]: a one-euro filter over the points, in seconds and face sizes.
//! 5. [`crate::occlusion`], where it is asked for: what is before the lower face.
//!
//! A face that comes back within seconds at the same place with the same look is the same track; after a cut never.

mod decode;
mod detector;
mod landmarks;
mod lips;
mod place;
mod pose;
mod scene;
mod smooth;
mod track;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Result,
    geometry::{Point, Rect, landmarks::LIPS},
    image::FrameView,
    manifest::Package,
    occlusion::{self, Front, Masks},
    runtime::{Model, Options},
};
use decode::Detection;
use detector::{Detector, InputSize};
use landmarks::{Network, Reading};
pub use lips::{LipReader, LipWindow};
pub use place::{place, under};
use scene::Thumbnail;
use track::{Track, Watched, rank};

/// Pixels that the embedded detector looks at, 320 x 192 of a wide frame.
const EMBEDDED_INPUT: InputSize = InputSize::Pixels(320 * 192);
/// Longer side of the input of a user's detector that leaves it open.
const USER_INPUT: InputSize = InputSize::Side(640);
/// Confidence that a detection needs to be read by the landmark network, which has the last word.
const DETECTION: f32 = 0.5;
/// Seconds during which a lost face may come back under its number: who looks aside or drinks is not another person.
const MEMORY: f32 = 5.0;
/// Seconds from frame to frame where the stream does not say.
const USUAL_STEP: f32 = 1.0 / 25.0;
/// Two tracks whose boxes overlap more are on one face.
const ONE_FACE: f32 = 0.45;
/// A detection that overlaps a track so much is that track's face.
const SEEN: f32 = 0.3;
/// Detector runs in a row that miss the face of a doubtful track before it ends,
const MAX_MISSED: u32 = 2;
/// doubtful being less sure than this: the network is surer of nearly every real face.
const DOUBTFUL: f32 = 0.98;
/// While as many faces are followed as may be, all of them sure, the detector could only find one that takes a place: it
/// runs so many times less often.
const RARELY: u32 = 5;
/// Overlap of the two readings of a new face.
const SETTLED: f32 = 0.5;
/// Face probability that a new track needs.
const START: f32 = 0.8;
/// A candidate that ranks so much higher than the lowest doubtful track takes its place.
const BETTER: f32 = 2.0;
/// A face whose box is smaller, in pixels, is too small where it cannot be read.
const SMALL: f32 = 32.0;
/// A box that reaches beyond the picture by such a part of its size is of a face that is cut off.
const BEYOND: f32 = 0.04;
/// A face so many times larger than the smallest tracked one takes its place.
const MUCH_LARGER: f32 = 4.0;

/// What a frame shows in which no face is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unseen {
    /// Nothing that looks like a face.
    #[default]
    Nothing,
    /// One that reaches beyond the picture too far to be read.
    CutOff,
    /// One too small to be read.
    TooSmall,
    /// One that cannot be read: turned away, covered, blurred.
    Unclear,
}

/// One tracked face in one frame, in pixels of that frame.
#[derive(Clone, Debug)]
pub struct Face {
    /// The same number for the same face as long as it is followed; never used again in a stream.
    pub track_id: u64,
    pub rect: Rect,
    /// [`crate::geometry::landmarks`], all but the lips smoothed, `[111]`.
    pub points: Arc<[Point]>,
    /// 0..1.
    pub confidence: f32,
    /// Degrees, positive when the face turns to its own left.
    pub yaw: f32,
    /// Something covers the mouth, so that it cannot be shown.
    pub occluded: bool,
    /// What is before the lower face, where the tracker looks for it and has found something.
    pub front: Option<Front>,
}

#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// How the networks run.
    pub options: Options,
    /// Frames from one run of the detector to the next while a face is tracked, five times as many while all faces that
    /// may be followed are, and surely; 1: every frame.
    pub inference_interval: u32,
    /// Faces that are followed at once.
    pub max_faces: usize,
    /// A track whose face probability falls below this ends, 0..1.
    pub min_confidence: f32,
    /// A YuNet or SCRFD ONNX file instead of the embedded detector.
    pub detector: Option<PathBuf>,
    /// Strength of the smoothing of all points but the lips: 0 none, 1 as a rule.
    pub smoothing: f32,
    /// What looks for what is before the faces.
    pub occlusion: Masks,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            options: Options::default(),
            inference_interval: 5,
            max_faces: 1,
            min_confidence: 0.5,
            detector: None,
            smoothing: 1.0,
            occlusion: Masks::Off,
        }
    }
}

/// Follows the faces of one stream.
pub struct Tracker {
    config: TrackerConfig,
    detector: Detector,
    network: Network,
    /// Where what is before a face is looked for.
    masks: Option<Arc<occlusion::Network>>,
    tracks: Vec<Track>,
    /// Faces lost of late, with the seconds since.
    lost: Vec<(Track, f32)>,
    /// The last frame in small, and its size.
    scene: Option<(Thumbnail, (usize, usize))>,
    /// Time of the last frame.
    time: Option<Duration>,
    /// Of the last frame in which nothing was followed.
    unseen: Unseen,
    /// What looking for what is before the faces took in the last frame; `None` where nobody looked.
    looked: Option<Duration>,
    /// Frames since the detector last ran; `None`: it runs next.
    since_detection: Option<u32>,
    next_id: u64,
}

impl Tracker {
    /// Loads the networks. Errors: a detector file that cannot be read or is of no known family, a device that fails.
    pub fn new(config: TrackerConfig) -> Result<Self> {
        let engine = Package::find("tracker")?;
        let shared = |part: &str| engine.network(part, &config.options);
        let detector = match &config.detector {
            Some(path) => Detector::new(Model::open(path, &config.options.beside())?, USER_INPUT)?,
            None => Detector::new(shared("detector")?, EMBEDDED_INPUT)?,
        };
        let lips = match engine.manifest().files.contains_key("lips") {
            true => Some(lips::LipReader::new(shared("lips")?, engine.manifest().geometry.alignment.clone())?),
            false => None,
        };
        let network = Network::new(shared("landmarks")?, lips)?;
        let masks = occlusion::Network::open(&config.occlusion, &config.options)?;
        Ok(Self {
            config,
            detector,
            network,
            masks,
            tracks: Vec::new(),
            lost: Vec::new(),
            scene: None,
            time: None,
            unseen: Unseen::Nothing,
            looked: None,
            since_detection: None,
            next_id: 0,
        })
    }

    /// Looks from the next frame on by other `masks` for what is before the faces; by none where that is `None`.
    pub fn look_by(&mut self, masks: Option<Arc<occlusion::Network>>) {
        self.masks = masks;
        self.tracks
            .iter_mut()
            .chain(self.lost.iter_mut().map(|(track, _)| track))
            .for_each(|track| track.watched = None);
    }

    /// Forgets all faces, as a seek demands; numbers go on.
    pub fn reset(&mut self) {
        self.tracks.clear();
        self.lost.clear();
        self.scene = None;
        self.time = None;
        self.since_detection = None;
    }

    /// Follows so many faces at most from the next frame on; of more that are followed now the surest and largest stay.
    pub fn set_max_faces(&mut self, max_faces: usize) {
        if self.config.max_faces != max_faces {
            self.config.max_faces = max_faces;
            self.tracks.sort_by(|a, b| b.rank().total_cmp(&a.rank()));
            self.tracks.truncate(max_faces);
        }
    }

    /// The faces in the next frame of the stream, largest first. `time` is the frame's, of any origin; without it
    /// 25 frames a second are assumed.
    pub fn process(&mut self, frame: &FrameView, time: Option<Duration>) -> Result<Vec<Face>> {
        let dt = match (self.time, time) {
            (Some(before), Some(now)) => now.as_secs_f32() - before.as_secs_f32(),
            _ => USUAL_STEP,
        };
        self.time = time;
        let size_now = (frame.width(), frame.height());
        let scene = Thumbnail::of_frame(frame);
        if self.scene.as_ref().is_some_and(|(before, size)| *size != size_now || scene::is_cut(before, &scene)) {
            self.tracks.clear();
            self.lost.clear();
        }
        self.scene = Some((scene, size_now));
        self.lost.retain_mut(|(_, age)| {
            *age += dt.abs();
            *age < MEMORY
        });
        let settled =
            self.tracks.len() >= self.config.max_faces && self.tracks.iter().all(|t| t.confidence >= DOUBTFUL);
        let interval = match self.config.inference_interval {
            0 | 1 => 1,
            n if settled => n.saturating_mul(RARELY),
            n => n,
        };
        let due = self.tracks.is_empty() || self.since_detection.is_none_or(|n| n + 1 >= interval);
        self.since_detection = self.since_detection.map(|n| n.saturating_add(1));

        let ended = self.follow(frame, dt)?;
        if due || ended {
            self.since_detection = Some(0);
            self.search(frame)?;
        }
        self.tracks.sort_by(|a, b| b.rect.area().total_cmp(&a.rect.area()));
        self.look(frame)?;
        Ok(self.tracks.iter().map(Track::face).collect())
    }

    /// What the last frame showed, if [`process`](Self::process) found no face to follow in it.
    pub fn unseen(&self) -> Unseen {
        self.unseen
    }

    /// How long was looked in the last frame for what is before the faces; `None` where nobody looked.
    pub fn looked(&self) -> Option<Duration> {
        self.looked
    }

    /// Looks for what is before the faces.
    fn look(&mut self, frame: &FrameView) -> Result<()> {
        self.looked = None;
        let Some(masks) = &self.masks else { return Ok(()) };
        let start = Instant::now();
        let mut looked = false;
        for track in &mut self.tracks {
            looked |= track.watch(frame, masks)?;
        }
        self.looked = looked.then(|| start.elapsed());
        Ok(())
    }

    /// Reads every tracked face in the new frame; true when one has ended.
    fn follow(&mut self, frame: &FrameView, dt: f32) -> Result<bool> {
        let squares: Vec<_> = self.tracks.iter().map(|t| landmarks::around(&t.raw)).collect();
        let known: Vec<_> = squares.iter().flatten().copied().collect();
        let mut readings = self.network.read(frame, &known)?.into_iter();
        let mut ended = false;
        for (mut track, square) in std::mem::take(&mut self.tracks).into_iter().zip(squares) {
            let reading = square.and_then(|_| readings.next().flatten());
            if track.advance(reading, self.config.min_confidence, dt) {
                self.tracks.push(track);
            } else {
                ended = true;
                self.lost.push((track, 0.0));
            }
        }
        // Two tracks that have run together: the older one stays.
        self.tracks.sort_by_key(|t| t.id);
        let mut kept: Vec<Track> = Vec::with_capacity(self.tracks.len());
        for t in std::mem::take(&mut self.tracks) {
            if kept.iter().all(|k| k.rect.iou(&t.rect) < ONE_FACE) {
                kept.push(t);
            }
        }
        self.tracks = kept;
        Ok(ended)
    }

    /// Runs the detector, confirms tracks and starts new ones.
    fn search(&mut self, frame: &FrameView) -> Result<()> {
        let found = self.detector.detect(frame, DETECTION)?;
        for t in &mut self.tracks {
            t.seen(found.iter().filter(|d| d.rect.iou(&t.rect) > SEEN).map(|d| d.score).reduce(f32::max));
        }
        self.tracks.retain(|t| t.missed < MAX_MISSED || t.confidence >= DOUBTFUL);

        let unknown = |d: &&Detection| self.tracks.iter().all(|t| d.rect.iou(&t.rect) <= SEEN);
        // Best first as they come; some will turn out to be none.
        let fresh: Vec<Detection> =
            found.iter().filter(unknown).take(self.config.max_faces + 2 - self.tracks.len()).cloned().collect();
        for (reading, score) in self.read_twice(frame, &fresh)? {
            let Some(rect) = Rect::around(&reading.points) else { continue };
            if self.tracks.iter().any(|t| t.rect.iou(&rect) >= SEEN)
                || !self.make_room(&rect, rank(score * reading.confidence, &rect))
            {
                continue;
            }
            let alike = |(_, (track, _)): &(usize, &(Track, f32))| track.resembles(&rect, &reading.look);
            let likeness = |(_, (track, _)): &(usize, &(Track, f32))| track.look.correlation(&reading.look);
            let lost = self.lost.iter().enumerate().filter(alike);
            let again = lost.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).map(|(i, _)| i);
            let track = match again {
                Some(i) => {
                    let mut track = self.lost.remove(i).0;
                    track.resume(reading);
                    track
                }
                None => {
                    self.next_id += 1;
                    Track::new(self.next_id - 1, reading, score, self.config.smoothing)
                }
            };
            self.tracks.push(track);
        }
        let (width, height) = (frame.width() as f32, frame.height() as f32);
        self.unseen = found.first().map_or(Unseen::Nothing, |best| unseen(&best.rect, width, height));
        Ok(())
    }

    /// Whether a face of this rank may be followed; ends a track in its favour if need be.
    fn make_room(&mut self, rect: &Rect, rank: f32) -> bool {
        if self.tracks.len() < self.config.max_faces {
            return true;
        }
        let worst = self.tracks.iter().enumerate().min_by(|a, b| a.1.rank().total_cmp(&b.1.rank()));
        let Some((i, t)) = worst else { return false };
        let better = t.confidence < DOUBTFUL && rank > BETTER * t.rank();
        let give_way = better || rect.area() > MUCH_LARGER * t.rect.area();
        if give_way {
            self.tracks.remove(i);
        }
        give_way
    }

    /// Landmarks of newly found faces, highest rank first, with the detector's score: read where the detector points,
    /// then once more where the points are. What is no face moves on between the two.
    fn read_twice(&self, frame: &FrameView, found: &[Detection]) -> Result<Vec<(Reading, f32)>> {
        let first: Vec<_> = found.iter().filter_map(|d| Some((landmarks::from_keys(&d.keys)?, d.score))).collect();
        let rough = self.network.read(frame, &first.iter().map(|f| f.0).collect::<Vec<_>>())?;
        let second: Vec<_> = rough
            .into_iter()
            .zip(first)
            .filter_map(|(r, (_, score))| {
                let r = r?;
                Some((landmarks::around(&r.points)?, Rect::around(&r.points)?, score))
            })
            .collect();
        let read = self.network.read(frame, &second.iter().map(|s| s.0).collect::<Vec<_>>())?;
        let least = self.config.min_confidence.max(START);
        let mut good: Vec<(f32, Reading, f32)> = read
            .into_iter()
            .zip(second)
            .filter_map(|(r, (_, rough, score))| {
                let r = r.filter(|r| r.confidence >= least && pose::plausible(&r.points))?;
                let rect = Rect::around(&r.points).filter(|rect| rect.iou(&rough) > SETTLED)?;
                Some((rank(score * r.confidence, &rect), r, score))
            })
            .collect();
        good.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(good.into_iter().map(|(_, reading, score)| (reading, score)).collect())
    }
}

/// Why a face with this box could not be read.
fn unseen(rect: &Rect, width: f32, height: f32) -> Unseen {
    let size = track::size(rect);
    let beyond = [-rect.x, -rect.y, rect.x + rect.width - width, rect.y + rect.height - height];
    if beyond.iter().any(|by| *by > BEYOND * size) {
        Unseen::CutOff
    } else if size < SMALL {
        Unseen::TooSmall
    } else {
        Unseen::Unclear
    }
}

impl Track {
    /// All but the lips smoothed: these shut and open faster than a filter that calms them follows.
    fn points(&self) -> Vec<Point> {
        let mut points = self.smoother.points().to_vec();
        points[LIPS].copy_from_slice(&self.raw[LIPS]);
        points
    }

    fn face(&self) -> Face {
        let points = self.points();
        let found = self.watched.as_ref().map(Watched::found);
        Face {
            track_id: self.id,
            rect: Rect::around(&points).unwrap_or(self.rect),
            yaw: pose::yaw(&points),
            points: points.into(),
            confidence: self.confidence,
            // Where the network finds something it says whether all of the mouth is behind it; what it does not know may still be one.
            occluded: found.filter(|found| found.front.is_some()).map_or(self.cover.covered, |found| found.hidden),
            front: found.and_then(|found| found.front.clone()),
        }
    }
}
