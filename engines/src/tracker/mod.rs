//! Finding and following faces.
//!
//! [`Tracker::process`] looks at each frame once, in order:
//!
//! 1. [`scene`]: a thumbnail tells a cut, which ends all tracks.
//! 2. [`landmarks`]: every tracked face is read again in an upright square around its last points. A low face
//!    probability or impossible geometry ends the track at once, and the detector looks for it in the next frame.
//! 3. [`detector`]: every few frames, or when nothing is tracked, the whole frame is searched for new faces.
//! 4. [`smooth`]: a one-euro filter over the points, in seconds and face sizes.
//!
//! A face that comes back within a second at the same place with the same look is the same track; after a cut never.

mod decode;
mod detector;
mod landmarks;
mod pose;
mod scene;
mod smooth;
mod track;

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    Result,
    geometry::{Point, Rect},
    image::FrameView,
    manifest::Engine,
    runtime::{Model, Options},
};
use detector::{Detector, InputSize};
use landmarks::{Network, Reading};
use scene::Thumbnail;
use track::{Break, Track};

/// Pixels that the embedded detector looks at, 320 x 192 of a wide frame.
const EMBEDDED_INPUT: InputSize = InputSize::Pixels(320 * 192);
/// Longer side of the input of a user's detector that leaves it open.
const USER_INPUT: InputSize = InputSize::Side(640);
/// Confidence that a detection needs to be read by the landmark network, which has the last word.
const DETECTION: f32 = 0.5;
/// Seconds during which a lost face may come back under its number.
const MEMORY: f32 = 1.0;
/// Seconds from frame to frame where the stream does not say.
const USUAL_STEP: f32 = 1.0 / 25.0;
/// Two tracks whose boxes overlap more are on one face.
const ONE_FACE: f32 = 0.45;
/// A detection that overlaps a track so much is that track's face.
const SEEN: f32 = 0.3;
/// Detector runs without its face after which a doubtful track ends,
const MAX_MISSED: u32 = 4;
/// doubtful being less sure than this.
const DOUBTFUL: f32 = 0.8;
/// A face so many times larger than the smallest tracked one takes its place.
const MUCH_LARGER: f32 = 3.0;

/// One tracked face in one frame, in pixels of that frame.
#[derive(Clone, Debug)]
pub struct Face {
    /// The same number for the same face as long as it is followed; never used again in a stream.
    pub track_id: u64,
    pub rect: Rect,
    /// [`crate::geometry::landmarks`], smoothed, `[111]`.
    pub points: Arc<[Point]>,
    /// 0..1.
    pub confidence: f32,
    /// Degrees, positive when the face turns to its own left.
    pub yaw: f32,
    /// Something covers the mouth, as far as the look of the lower face tells.
    pub occluded: bool,
}

#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// How the networks run.
    pub options: Options,
    /// Frames from one run of the detector to the next while a face is tracked; 1: every frame.
    pub inference_interval: u32,
    /// Faces that are followed at once.
    pub max_faces: usize,
    /// A track whose face probability falls below this ends, 0..1.
    pub min_confidence: f32,
    /// A YuNet or SCRFD ONNX file instead of the embedded detector.
    pub detector: Option<PathBuf>,
    /// Strength of the smoothing: 0 none, 1 as a rule.
    pub smoothing: f32,
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
        }
    }
}

/// Follows the faces of one stream.
pub struct Tracker {
    config: TrackerConfig,
    detector: Detector,
    network: Network,
    tracks: Vec<Track>,
    /// Faces lost of late, with the seconds since.
    lost: Vec<(Track, f32)>,
    /// The last frame in small, and its size.
    scene: Option<(Thumbnail, (usize, usize))>,
    /// Time of the last frame.
    time: Option<Duration>,
    /// Frames since the detector last ran; `None`: it runs next.
    since_detection: Option<u32>,
    next_id: u64,
}

impl Tracker {
    /// Loads the networks. Errors: a detector file that cannot be read or is of no known family, a device that fails.
    pub fn new(config: TrackerConfig) -> Result<Self> {
        let engine = Engine::find("tracker")?;
        let shared = |part: &str| -> Result<Arc<Model>> {
            Model::shared(&format!("tracker/{part}.onnx"), &engine.file(part)?, &config.options)
        };
        let detector = match &config.detector {
            Some(path) => Detector::new(Model::open(path, &config.options)?, USER_INPUT)?,
            None => Detector::new(shared("detector")?, EMBEDDED_INPUT)?,
        };
        let network = Network::new(shared("landmarks")?)?;
        Ok(Self {
            config,
            detector,
            network,
            tracks: Vec::new(),
            lost: Vec::new(),
            scene: None,
            time: None,
            since_detection: None,
            next_id: 0,
        })
    }

    /// Forgets all faces, as a seek demands; numbers go on.
    pub fn reset(&mut self) {
        self.tracks.clear();
        self.lost.clear();
        self.scene = None;
        self.time = None;
        self.since_detection = None;
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
        let interval = self.config.inference_interval.max(1);
        let due = self.tracks.is_empty() || self.since_detection.is_none_or(|n| n + 1 >= interval);
        self.since_detection = self.since_detection.map(|n| n.saturating_add(1));

        self.follow(frame, dt)?;
        if due {
            // Before the search: a track that ends in it asks for another one.
            self.since_detection = Some(0);
            self.search(frame)?;
        }
        self.tracks.sort_by(|a, b| b.rect.area().total_cmp(&a.rect.area()));
        Ok(self.tracks.iter().map(Track::face).collect())
    }

    /// Reads every tracked face in the new frame.
    fn follow(&mut self, frame: &FrameView, dt: f32) -> Result<()> {
        let squares: Vec<_> = self.tracks.iter().map(|t| landmarks::around(&t.raw)).collect();
        let known: Vec<_> = squares.iter().flatten().copied().collect();
        let mut readings = self.network.read(frame, &known)?.into_iter();
        let mut ended = false;
        for (mut track, square) in std::mem::take(&mut self.tracks).into_iter().zip(squares) {
            let reading = square.and_then(|_| readings.next().flatten());
            match track.advance(reading, self.config.min_confidence, dt) {
                Ok(()) => self.tracks.push(track),
                Err(cause) => {
                    ended = true;
                    if cause == Break::Lost {
                        self.lost.push((track, 0.0));
                    }
                }
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
        if ended {
            self.since_detection = None;
        }
        Ok(())
    }

    /// Runs the detector, confirms tracks and starts new ones.
    fn search(&mut self, frame: &FrameView) -> Result<()> {
        let found = self.detector.detect(frame, DETECTION)?;
        for t in &mut self.tracks {
            let seen = found.iter().any(|d| d.rect.iou(&t.rect) > SEEN);
            t.missed = if seen { 0 } else { t.missed + 1 };
        }
        self.tracks.retain(|t| t.missed < MAX_MISSED || t.confidence >= DOUBTFUL);

        let mut fresh: Vec<_> = found.iter().filter(|d| self.tracks.iter().all(|t| d.rect.iou(&t.rect) <= SEEN)).collect();
        fresh.sort_by(|a, b| b.rect.area().total_cmp(&a.rect.area()));
        let mut room = self.config.max_faces.saturating_sub(self.tracks.len());
        if room == 0 {
            let smallest = self.tracks.iter().map(|t| t.rect.area()).fold(f32::INFINITY, f32::min);
            room = usize::from(fresh.first().is_some_and(|d| d.rect.area() > MUCH_LARGER * smallest));
        }
        // Some of the detections will turn out to be none.
        fresh.truncate(2 * room);
        let readings = self.read_twice(frame, fresh.iter().filter_map(|d| landmarks::from_keys(&d.keys)).collect())?;
        for reading in readings {
            let Some(rect) = Rect::around(&reading.points) else { continue };
            if self.tracks.iter().any(|t| t.rect.iou(&rect) >= SEEN) {
                continue;
            }
            if self.tracks.len() >= self.config.max_faces {
                let smallest = self.tracks.iter().enumerate().min_by(|a, b| a.1.rect.area().total_cmp(&b.1.rect.area()));
                match smallest.map(|(i, t)| (i, t.rect.area())) {
                    Some((i, area)) if rect.area() > MUCH_LARGER * area => drop(self.tracks.remove(i)),
                    _ => continue,
                }
            }
            let again = self.lost.iter().position(|(t, _)| t.resembles(&rect, &reading.look));
            let track = match again {
                Some(i) => {
                    let mut track = self.lost.remove(i).0;
                    track.resume(reading);
                    track
                }
                None => {
                    self.next_id += 1;
                    Track::new(self.next_id - 1, reading, self.config.smoothing)
                }
            };
            self.tracks.push(track);
        }
        Ok(())
    }

    /// Landmarks of newly found faces: read where the detector points, then once more where the points are.
    fn read_twice(&self, frame: &FrameView, first: Vec<crate::geometry::Similarity>) -> Result<Vec<Reading>> {
        let good = |r: &Reading| r.confidence >= self.config.min_confidence && pose::plausible(&r.points);
        let rough = self.network.read(frame, &first)?;
        let second: Vec<_> = rough.into_iter().flatten().filter_map(|r| landmarks::around(&r.points)).collect();
        Ok(self.network.read(frame, &second)?.into_iter().flatten().filter(good).collect())
    }
}

impl Track {
    fn face(&self) -> Face {
        let points = self.smoother.points();
        Face {
            track_id: self.id,
            rect: Rect::around(points).unwrap_or(self.rect),
            points: points.into(),
            confidence: self.confidence,
            yaw: pose::yaw(points),
            occluded: self.cover.covered,
        }
    }
}
