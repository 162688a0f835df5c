//! Whether a stream is in sync, said while it runs.
//!
//! Frames come with the face that was seen before the mouth was made, and where one was made with the window of the frame as it leaves;
//! the voice comes by its running time. Every so often a [`check`](SyncJudge::check) reads the lips that were made, brings both kinds
//! of lips to 25 a second, and has the [expert](super::expert) say how well each goes with the voice at lags of up to ten frames.
//! [`Agreement`] sums it up over the last seconds in which somebody spoke: one second of lips fits a wrong lag too often.
//!
//! Lips that were made and lips of the source are summed apart. When those that were made are late it is our own error; when the source's
//! are, the source came that way. Where the voice is not the source's, its lips agree with it nowhere, and nothing is said of them.

mod agreement;
mod lane;
mod sound;
mod turns;

use std::{collections::VecDeque, sync::Arc, time::Duration};

pub use self::{
    agreement::{Agreement, REACH, Verdict},
    turns::{Turn, Turns},
};
use self::{
    lane::Lane,
    sound::{Sound, voiced},
};
use super::expert::{Expert, Lips, Rows};
use crate::{
    Result,
    geometry::{Point, landmarks::LIPS},
    tracker::{LipReader, LipWindow},
};

/// Length of a frame on the grid, and its samples at 16 kHz.
const FRAME: Duration = Duration::from_millis(40);
const SAMPLES: usize = 640;
/// Frames that the expert sees at once, four seconds: it takes the mean and the size of the lips out of them.
const SEEN: i64 = 100;
/// Frames at either end of them that are not judged: its networks look eight to either side, and the voice is shifted.
const MARGIN: i64 = REACH as i64 + 8;
/// Lips that were made within so many frames count: the network sees those beside.
const AROUND: i64 = 4;
/// Windows that are read in one run.
const AT_ONCE: usize = 4;
/// Windows are this far apart, at 25 frames a second those of every other frame: reading them costs most, and the lips between
/// them lie on a line.
pub const APART: Duration = Duration::from_millis(60);
/// Frames that wait for a check at most: four seconds of 120 a second.
const WAITING: usize = 512;

/// A frame that leaves.
pub struct Seen {
    /// Running time.
    pub time: Duration,
    /// The face as it came, `[111]` frame pixels; `None` where there is none.
    pub face: Option<Arc<[Point]>>,
    /// The same number for the same face.
    pub track: u64,
    /// What the mouth shows.
    pub mouth: Mouth,
}

impl Seen {
    /// What its lips are to be read from.
    pub fn window(&self) -> Option<&LipWindow> {
        if let Mouth::Made(window) = &self.mouth { window.as_ref() } else { None }
    }
}

/// What the mouth of a frame shows that leaves.
pub enum Mouth {
    /// What was made, and the window of it where it is to be read.
    Made(Option<LipWindow>),
    /// The frame's own lips, or those on the way between the two.
    Other,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checked {
    /// Running time of the last frame judged.
    pub time: Duration,
    /// Frames judged of the mouth that was made, and of the source's.
    pub frames: [usize; 2],
}

/// Judges one stream. Memory is bounded by what a window of four seconds and sixteen seconds of sound take.
pub struct SyncJudge {
    expert: Expert,
    reader: Arc<LipReader>,
    /// Frames from one check to the next.
    interval: i64,
    /// Frames whose lips have not been read.
    waiting: VecDeque<Seen>,
    made: Lane,
    source: Lane,
    sound: Sound,
    /// The face of the last frame.
    track: Option<u64>,
    /// Place on the grid before which all has been judged.
    judged: Option<i64>,
    agreement: [Agreement; 2],
}

impl SyncJudge {
    /// One that checks once an `interval`.
    pub fn new(expert: Expert, reader: Arc<LipReader>, interval: Duration) -> Self {
        Self {
            expert,
            reader,
            interval: (interval.as_nanos() / FRAME.as_nanos()).clamp(1, 1 << 32) as i64,
            waiting: VecDeque::new(),
            made: Lane::default(),
            source: Lane::default(),
            sound: Sound::default(),
            track: None,
            judged: None,
            agreement: Default::default(),
        }
    }

    /// Takes sound of 16 kHz from a running time on.
    pub fn hear(&mut self, time: Duration, samples: &[f32]) {
        self.sound.push(time, samples);
    }

    /// Takes the next frame. A running time that does not grow is a jump: what was before it is not judged with what comes.
    pub fn see(&mut self, seen: Seen) {
        let back = self.waiting.back().is_some_and(|last| last.time >= seen.time);
        if back || (seen.face.is_some() && self.track.is_some_and(|track| track != seen.track)) {
            self.cut();
        }
        if seen.face.is_some() {
            self.track = Some(seen.track);
        }
        // What a check would not look at any more.
        let old = |first: &Seen| seen.time > first.time + FRAME * (SEEN + 2) as u32;
        while self.waiting.front().is_some_and(old) || self.waiting.len() >= WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(seen);
    }

    /// A jump in the stream. What has been found stays.
    pub fn flush(&mut self) {
        self.cut();
        self.sound.clear();
    }

    /// Another face, or another time.
    fn cut(&mut self) {
        self.waiting.clear();
        self.made.clear();
        self.source.clear();
        self.judged = None;
        self.track = None;
    }

    /// What has been found of the mouth that was made is void: it is made otherwise from now on.
    pub fn forget_made(&mut self) {
        self.agreement[0] = Agreement::default();
        self.made.clear();
        self.waiting.iter_mut().for_each(|seen| seen.mouth = Mouth::Other);
    }

    /// Of the mouth that was made.
    pub fn made(&self) -> Option<Verdict> {
        self.agreement[0].verdict(agreement::RELATED)
    }

    /// Of the source's own.
    pub fn source(&self) -> Option<Verdict> {
        self.agreement[1].verdict(agreement::UNKNOWN)
    }

    /// Judges what has come since the last check, if it is time. `None` if it is not.
    pub fn check(&mut self) -> Result<Option<Checked>> {
        let Some(newest) = self.waiting.back().map(|seen| seen.time) else { return Ok(None) };
        let end = (newest.as_nanos() / FRAME.as_nanos()) as i64;
        let (start, until) = (end - SEEN, end - MARGIN);
        let longest = SEEN - 2 * MARGIN;
        let passed = self.judged.map_or(self.interval, |judged| until - judged);
        if start < 0 || passed < self.interval || !self.sound.reaches(end) {
            return Ok(None);
        }
        let from = until - passed.min(longest);
        self.judged = Some(until);
        let sound = self.sound.frames(start..end);
        let voiced: Vec<usize> = (from - start..until - start)
            .map(|i| i as usize)
            .filter(|i| voiced(&sound[i * SAMPLES..(i + 1) * SAMPLES]))
            .collect();
        self.look(!voiced.is_empty(), FRAME * start as u32)?;
        let mut checked = Checked { time: FRAME * until as u32, frames: [0; 2] };
        if voiced.is_empty() {
            return Ok(Some(checked));
        }
        let mut voice: Option<Rows> = None;
        for (lane, (agreement, frames)) in
            [&self.made, &self.source].into_iter().zip(self.agreement.iter_mut().zip(&mut checked.frames))
        {
            let lips: Vec<Option<Lips>> = (start..end).map(|place| lane.at(place)).collect();
            let near = |i: &&usize| lips[*i - AROUND as usize..=*i + AROUND as usize].iter().all(Option::is_some);
            let good: Vec<usize> = voiced.iter().filter(near).copied().collect();
            if good.is_empty() || lips.iter().flatten().count() < lips.len() / 2 {
                continue;
            }
            let heard = match &mut voice {
                Some(voice) => voice,
                none => none.insert(self.expert.voice(&sound)?),
            };
            let rows = self.expert.rows(&lips)?;
            good.iter().for_each(|i| agreement.add(&rows, heard, *i));
            *frames = good.len();
        }
        Ok(Some(checked))
    }

    /// Brings the frames that wait to their lanes; their lips are read where somebody speaks.
    fn look(&mut self, read: bool, since: Duration) -> Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        // The newest frame tells where the stream is.
        let last = waiting.pop_back();
        let mut lips: Vec<Option<Vec<Point>>> = Vec::new();
        if read {
            let windows: Vec<&LipWindow> = waiting.iter().filter_map(Seen::window).collect();
            for some in windows.chunks(AT_ONCE) {
                lips.extend(self.reader.read(some)?);
            }
        }
        let mut lips = lips.into_iter();
        for seen in waiting {
            let own = seen.face.as_ref().and_then(|face| self.expert.see(face));
            match seen.mouth {
                Mouth::Made(None) => {}
                Mouth::Made(Some(_)) if read => {
                    let made = lips.next().flatten().zip(seen.face.as_ref());
                    let made = made.and_then(|(lips, face)| {
                        let mut points = face.to_vec();
                        points.get_mut(LIPS)?.copy_from_slice(&lips);
                        self.expert.see(&points)
                    });
                    self.made.push(seen.time, made);
                }
                _ => self.made.push(seen.time, None),
            }
            self.source.push(seen.time, own);
        }
        self.waiting.extend(last);
        [&mut self.made, &mut self.source].into_iter().for_each(|lane| lane.forget(since));
        Ok(())
    }
}
