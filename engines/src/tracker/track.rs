use super::{landmarks::Reading, pose, scene::Thumbnail, smooth::Smoother};
use crate::geometry::{Point, Rect};

/// A face changes its place by less than this share of its size from one frame to the next,
const MAX_STEP: f32 = 0.6;
/// and its size by less than this factor.
const MAX_GROWTH: f32 = 1.5;
/// Two successive squares of one face are at least so much alike (correlation of their thumbnails).
const SAME_LOOK: f32 = 0.35;

/// One face that is being followed.
pub(super) struct Track {
    pub id: u64,
    /// As the network gave them, `[111]`, frame pixels.
    pub raw: Vec<Point>,
    pub rect: Rect,
    pub confidence: f32,
    /// Successive detector runs that did not see it.
    pub missed: u32,
    pub smoother: Smoother,
    /// The last square in small.
    pub look: Thumbnail,
    pub cover: Cover,
}

/// Why a reading does not continue a track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Break {
    /// The face is gone or not to be seen.
    Lost,
    /// Something else is in its place.
    Other,
}

impl Track {
    pub fn new(id: u64, reading: Reading, smoothing: f32) -> Self {
        let rect = Rect::around(&reading.points).unwrap_or_default();
        let mut smoother = Smoother::new(smoothing);
        smoother.push(&reading.points, size(&rect), 0.0);
        Self {
            id,
            rect,
            confidence: reading.confidence,
            missed: 0,
            smoother,
            cover: Cover::new(&reading.look),
            raw: reading.points,
            look: reading.look,
        }
    }

    /// Moves on to the next frame, `dt` seconds later, or says why it cannot.
    pub fn advance(&mut self, reading: Option<Reading>, min_confidence: f32, dt: f32) -> Result<(), Break> {
        let Some(reading) = reading.filter(|r| r.confidence >= min_confidence && pose::plausible(&r.points)) else {
            return Err(Break::Lost);
        };
        let Some(rect) = Rect::around(&reading.points) else { return Err(Break::Lost) };
        let (before, now) = (size(&self.rect), size(&rect));
        let step = self.rect.centre().distance(rect.centre()) / before;
        // After a gap in time anything may have moved.
        let steady = dt > 0.2 || (step < MAX_STEP && now < before * MAX_GROWTH && before < now * MAX_GROWTH);
        if !steady {
            return Err(Break::Lost);
        }
        if self.look.correlation(&reading.look) < SAME_LOOK {
            return Err(Break::Other);
        }
        self.smoother.push(&reading.points, now, dt);
        self.cover.push(&reading.look);
        self.rect = rect;
        self.raw = reading.points;
        self.confidence = reading.confidence;
        self.look = reading.look;
        Ok(())
    }

    /// Takes up a face again that was lost for a moment.
    pub fn resume(&mut self, reading: Reading) {
        self.rect = Rect::around(&reading.points).unwrap_or(self.rect);
        self.smoother.push(&reading.points, size(&self.rect), 0.0);
        self.raw = reading.points;
        self.confidence = reading.confidence;
        self.look = reading.look;
        self.missed = 0;
    }

    /// Whether `reading` can be this face after it was lost for a moment.
    pub fn resembles(&self, rect: &Rect, look: &Thumbnail) -> bool {
        self.rect.iou(rect) > 0.25 && self.look.correlation(look) > 0.5
    }
}

/// The larger side of a face's box.
pub(super) fn size(rect: &Rect) -> f32 {
    rect.width.max(rect.height)
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
