use std::sync::Arc;

use super::{landmarks::Reading, pose, scene::Thumbnail, smooth::Smoother};
use crate::{
    Result,
    geometry::{Point, Rect},
    image::FrameView,
    occlusion,
};

/// A face changes its place by less than this share of its size from one frame to the next,
const MAX_STEP: f32 = 0.6;
/// and its size by less than this factor.
const MAX_GROWTH: f32 = 1.5;
/// Two successive squares of one face are alike: their thumbnails correlate by this much, or differ by few codes.
/// Measured on 3100 successive frames of 60 clips (least correlation 0.80) and 1700 pairs of people (99 % below 0.75).
const SAME_LOOK: f32 = 0.75;
const FEW_CODES: f32 = 12.0;
/// A face that has hardly moved or grown, by such parts of its size, may look less alike: a head turns fast, and nobody
/// takes another's place so exactly (5 % of pairs of clips look so much alike).
const STILL: f32 = 0.12;
const SAME_LOOK_STILL: f32 = 0.7;

/// A lower face that differs by so many codes from when it was last looked at may have something before it.
const CHANGED: f32 = 4.0;

/// One face that is being followed.
pub(super) struct Track {
    pub id: u64,
    /// As the network gave them, `[111]`, frame pixels.
    pub raw: Vec<Point>,
    pub rect: Rect,
    pub confidence: f32,
    /// Successive detector runs that did not see it.
    pub missed: u32,
    /// The detector's score, 0..1, less for each run that did not see it.
    score: f32,
    pub smoother: Smoother,
    /// The last square in small.
    pub look: Thumbnail,
    pub cover: Cover,
    /// Where somebody looks for what is before it.
    pub watched: Option<Watched>,
}

/// What is before a face, and what the face looked like when that was last looked for.
pub(super) struct Watched {
    watch: occlusion::Watch,
    look: Thumbnail,
    found: occlusion::Cover,
}

impl Watched {
    pub fn found(&self) -> &occlusion::Cover {
        &self.found
    }
}

impl Track {
    pub fn new(id: u64, reading: Reading, score: f32, smoothing: f32) -> Self {
        let rect = Rect::around(&reading.points).unwrap_or_default();
        let mut smoother = Smoother::new(smoothing);
        smoother.push(&reading.points, size(&rect), 0.0);
        Self {
            id,
            rect,
            confidence: reading.confidence,
            missed: 0,
            score,
            smoother,
            cover: Cover::new(&reading.look),
            watched: None,
            raw: reading.points,
            look: reading.look,
        }
    }

    /// Moves on to the next frame, `dt` seconds later; false when the reading is no face or not this one.
    pub fn advance(&mut self, reading: Option<Reading>, min_confidence: f32, dt: f32) -> bool {
        let Some(reading) = reading.filter(|r| r.confidence >= min_confidence && pose::plausible(&r.points)) else {
            return false;
        };
        let Some(rect) = Rect::around(&reading.points) else { return false };
        let (before, now) = (size(&self.rect), size(&rect));
        let step = self.rect.centre().distance(rect.centre()) / before;
        // After a gap in time anything may have moved.
        let steady = dt > 0.2 || (step < MAX_STEP && now < before * MAX_GROWTH && before < now * MAX_GROWTH);
        if !steady || !self.looks_like(&rect, &reading.look) {
            return false;
        }
        self.smoother.push(&reading.points, now, dt);
        self.cover.push(&reading.look);
        self.rect = rect;
        self.raw = reading.points;
        self.confidence = reading.confidence;
        self.look = reading.look;
        true
    }

    /// Looks for what is before it, where that is due; whether it was.
    pub fn watch(&mut self, frame: &FrameView, network: &Arc<occlusion::Network>) -> Result<bool> {
        let points = self.points();
        let watched = self.watched.get_or_insert_with(|| Watched {
            watch: occlusion::Watch::new(Arc::clone(network)),
            look: self.look.clone(),
            found: occlusion::Cover::default(),
        });
        let [rows, columns] = Cover::LOWER;
        let changed = watched.look.difference_in(&self.look, rows, columns) > CHANGED;
        let (found, looked) = watched.watch.see(frame, &points, changed)?;
        watched.found = found;
        if looked {
            watched.look = self.look.clone();
        }
        Ok(looked)
    }

    /// Whether a square around `rect` can show this face: as a whole, or its upper half when something is before the mouth.
    fn looks_like(&self, rect: &Rect, look: &Thumbnail) -> bool {
        let [rows, columns] = Cover::UPPER;
        let (before, now) = (size(&self.rect), size(rect));
        let still =
            self.rect.centre().distance(rect.centre()) < STILL * before && (now - before).abs() < STILL * before;
        self.look.correlation(look) > if still { SAME_LOOK_STILL } else { SAME_LOOK }
            || self.look.difference(look) < FEW_CODES
            || self.look.difference_in(look, rows, columns) < FEW_CODES / 2.0
    }

    /// Notes what the detector says of it: a score, or nothing.
    pub fn seen(&mut self, score: Option<f32>) {
        match score {
            Some(score) => (self.score, self.missed) = (score.max(self.score * 0.9), 0),
            None => (self.score, self.missed) = (self.score * 0.8, self.missed + 1),
        }
    }

    pub fn rank(&self) -> f32 {
        rank(self.score * self.confidence, &self.rect)
    }

    /// Takes up a face again that was lost for a while.
    pub fn resume(&mut self, reading: Reading) {
        self.rect = Rect::around(&reading.points).unwrap_or(self.rect);
        self.smoother.push(&reading.points, size(&self.rect), 0.0);
        self.cover.push(&reading.look);
        self.raw = reading.points;
        self.confidence = reading.confidence;
        self.look = reading.look;
        self.missed = 0;
    }

    /// Whether a reading can be this face after it was lost for a while.
    pub fn resembles(&self, rect: &Rect, look: &Thumbnail) -> bool {
        self.rect.iou(rect) > 0.25 && self.looks_like(rect, look)
    }
}

/// The larger side of a face's box.
pub(super) fn size(rect: &Rect) -> f32 {
    rect.width.max(rect.height)
}

/// Which of several candidates to follow: what is surely a face first, of those the larger.
pub(super) fn rank(sure: f32, rect: &Rect) -> f32 {
    sure * sure * rect.area().sqrt().sqrt()
}

/// Tells a covered mouth: the lower half of the face looks unlike itself of late, the upper half does not.
pub(super) struct Cover {
    /// What the square looks like, slowly followed.
    usual: Thumbnail,
    /// How much the two halves change as a rule, in codes.
    ease: [f32; 2],
    pub covered: bool,
    /// Frames in a row that it was.
    since: u32,
}

impl Cover {
    /// Cells of the square (16 x 16; the face fills two thirds of it): eyes and brow, mouth and chin.
    const UPPER: [std::ops::Range<usize>; 2] = [3..7, 4..12];
    const LOWER: [std::ops::Range<usize>; 2] = [9..13, 5..11];
    /// A lower half so far, in codes, from the usual one is covered,
    const MUCH: f32 = 16.0;
    /// when this is so many times what is usual and what the upper half does.
    const TIMES: f32 = 3.0;
    /// After so many frames the new look is the usual one.
    const PATIENCE: u32 = 75;

    fn new(look: &Thumbnail) -> Self {
        Self { usual: look.clone(), ease: [4.0; 2], covered: false, since: 0 }
    }

    fn push(&mut self, look: &Thumbnail) {
        let [upper, lower] =
            [Self::UPPER, Self::LOWER].map(|[rows, columns]| self.usual.difference_in(look, rows, columns));
        let quiet = lower <= Self::MUCH || lower <= Self::TIMES * self.ease[1].max(upper);
        self.covered = !quiet;
        self.since = if self.covered { self.since + 1 } else { 0 };
        if self.since > Self::PATIENCE {
            *self = Self::new(look);
        } else if quiet {
            self.usual.follow(look, 0.05);
            for (e, d) in self.ease.iter_mut().zip([upper, lower]) {
                *e += (d - *e) * 0.05;
            }
        }
    }
}
