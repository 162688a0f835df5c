//! Who of several people in a picture speaks, by their own lips and the sound.
//!
//! The [expert](super::super::expert) says of each frame in which there is voice how well the lips of each face go with it. One second of
//! lips fits a strange voice by chance, so that what it says is summed up over the last seconds and counts by how much the lips move:
//! those of somebody who listens hardly do.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::expert::{Expert, Lips, Rows},
    FRAME, SAMPLES,
    lane::Lane,
    sound::{Sound, voiced},
};
use crate::{Result, geometry::Point};

/// Frames of 40 ms from one look to the next.
const STEP: i64 = 5;
/// Frames that the expert sees at once: it takes the mean and the size of the lips out of them.
const SEEN: i64 = 75;
/// The newest of them are not judged: its networks look beyond a frame to either side.
const TAIL: i64 = 4;
/// Fewer frames say nothing.
const FEWEST: usize = 15;
/// Frames with voice after which an old one counts 1/e: at 10 of them two who talk at a time were mistaken for each other, at 25 a turn was
/// seen a second later.
const MEMORY: f64 = 15.0;
/// Sum of the weights from which on somebody is said to speak.
const ENOUGH: f64 = 8.0;
/// Lips that change from frame to frame by so much (root mean square of the points, in unit crops) count in full.
const MOVED: f64 = 0.006;
/// By so much one who was silent must be ahead of the one who spoke.
const AHEAD: f64 = 0.05;
/// Who agrees less does not speak: by chance somebody always agrees best.
const LEAST: f64 = 0.05;
/// Lips and voice may be apart by so many frames.
const APART: usize = 1;

/// Who speaks, by its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    pub track: u64,
    /// By how much it is ahead of the next one, 0..1.
    pub confidence: f64,
}

/// What is known of one face.
#[derive(Default)]
struct Person {
    lane: Lane,
    /// Sum of the evidence that it speaks.
    sum: f64,
    /// Frame in which it was seen last.
    seen: i64,
}

/// Follows who speaks in one stream.
pub struct Turns {
    expert: Expert,
    people: BTreeMap<u64, Person>,
    sound: Sound,
    /// Place on the grid before which all has been judged.
    judged: Option<i64>,
    /// Running time of the last frame.
    last: Option<Duration>,
    /// Sum of the weights of the frames.
    weight: f64,
    turn: Option<Turn>,
}

impl Turns {
    pub fn new(expert: Expert) -> Self {
        Self {
            expert,
            people: BTreeMap::new(),
            sound: Sound::default(),
            judged: None,
            last: None,
            weight: 0.0,
            turn: None,
        }
    }

    /// Takes sound of 16 kHz from a running time on.
    pub fn hear(&mut self, time: Duration, samples: &[f32]) {
        self.sound.push(time, samples);
    }

    /// A jump in the pictures: what is known of the lips is of another time. Who speaks stays until more is known.
    pub fn jump(&mut self) {
        (self.judged, self.last) = (None, None);
        self.people.values_mut().for_each(|person| person.lane.clear());
    }

    /// A jump in both.
    pub fn flush(&mut self) {
        self.jump();
        self.sound.clear();
    }

    /// Takes the faces of the next frame, 111 landmarks in pixels each, and says who speaks; `None` before that is known, and when
    /// that one has gone. Errors: the networks fail.
    pub fn see<'a>(&mut self, time: Duration, faces: impl Iterator<Item = (u64, &'a [Point])>) -> Result<Option<Turn>> {
        if self.last.is_some_and(|last| time <= last) {
            self.jump();
        }
        self.last = Some(time);
        let end = (time.as_nanos() / FRAME.as_nanos()) as i64;
        for (track, points) in faces {
            let person = self.people.entry(track).or_default();
            person.lane.push(time, self.expert.see(points));
            person.seen = end;
        }
        // Whoever is not in the picture any more.
        self.people.retain(|_, person| end - person.seen < SEEN);
        let start = end - SEEN;
        self.people.values_mut().for_each(|person| person.lane.forget(FRAME * start.max(0) as u32));
        let until = end - TAIL;
        let from = *self.judged.get_or_insert(until);
        if until - from >= STEP && self.people.len() > 1 && self.sound.reaches(end) {
            self.judged = Some(until);
            let seen = start.max(0)..end;
            self.judge(seen.clone(), from.max(seen.start)..until)?;
        } else if until - from > SEEN {
            self.judged = Some(until);
        }
        Ok(self.turn.filter(|turn| self.people.get(&turn.track).is_some_and(|person| person.seen == end)))
    }

    /// Judges the frames `new` of the frames `seen`.
    fn judge(&mut self, seen: std::ops::Range<i64>, new: std::ops::Range<i64>) -> Result<()> {
        let sound = self.sound.frames(seen.clone());
        let has_voice = |place: usize| voiced(&sound[place * SAMPLES..(place + 1) * SAMPLES]);
        let new: Vec<usize> =
            new.map(|frame| (frame - seen.start) as usize).filter(|place| has_voice(*place)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let voice = self.expert.voice(&sound)?;
        let old = (-1.0 / MEMORY).exp().powi(new.len() as i32);
        self.weight = self.weight * old + new.len() as f64;
        for (track, person) in &mut self.people {
            person.sum *= old;
            let lips: Vec<Option<Lips>> = seen.clone().map(|frame| person.lane.at(frame)).collect();
            if lips.iter().flatten().count() < FEWEST {
                continue;
            }
            let rows = self.expert.rows(&lips)?;
            for place in new.iter().copied().filter(|place| lips[*place].is_some()) {
                let moved = motion(&lips, place);
                let agrees = agreement(&rows, &voice, place);
                tracing::trace!(track, frame = seen.start + place as i64, moved, agrees, "lips and voice");
                person.sum += (moved / MOVED).min(1.0) * agrees;
            }
        }
        self.decide();
        Ok(())
    }

    /// Who is ahead, and by how much.
    fn decide(&mut self) {
        if self.weight < ENOUGH {
            return;
        }
        let mean = |person: &Person| person.sum / self.weight;
        let best = self.people.iter().max_by(|(_, a), (_, b)| a.sum.total_cmp(&b.sum));
        let Some((track, score)) = best.map(|(track, person)| (*track, mean(person))) else { return };
        let others = |track: u64| self.people.iter().filter(move |(other, _)| **other != track).map(|(_, p)| mean(p));
        let next = others(track).fold(f64::NEG_INFINITY, f64::max);
        let speaks = self.turn.filter(|turn| self.people.contains_key(&turn.track)).map_or(track, |turn| turn.track);
        if self.turn.is_none() && score < LEAST {
            return;
        }
        let speaks = if score - next > AHEAD && score >= LEAST { track } else { speaks };
        let ahead = mean(&self.people[&speaks]) - others(speaks).fold(f64::NEG_INFINITY, f64::max);
        self.turn = Some(Turn { track: speaks, confidence: ahead.clamp(0.0, 1.0) });
    }
}

/// How well the lips of a place go with the voice there, and hardly before and after it: a mean cosine.
fn agreement(lips: &Rows, voice: &Rows, place: usize) -> f64 {
    let near = place.saturating_sub(APART)..(place + APART + 1).min(voice.frames());
    let count = near.len().max(1) as f64;
    near.map(|other| lips.agreement(place, voice, other)).sum::<f64>() / count
}

/// How much lips change from frame to frame around a place.
fn motion(lips: &[Option<Lips>], place: usize) -> f64 {
    const AROUND: usize = 6;
    let near = &lips[place.saturating_sub(AROUND)..(place + AROUND + 1).min(lips.len())];
    let steps = near.windows(2).filter_map(|pair| Some((pair[0].as_ref()?, pair[1].as_ref()?)));
    let squares = steps.map(|(a, b)| squared(a, b));
    let (sum, count) = squares.fold((0.0, 0), |(sum, count), square| (sum + square, count + 1));
    (sum / f64::from(count.max(1))).sqrt()
}

/// The mean square of what lips change by, apart from where they are.
fn squared(a: &Lips, b: &Lips) -> f64 {
    let count = (a.len() / 2) as f64;
    let mean = |axis: usize| {
        let steps = a.iter().zip(b).skip(axis).step_by(2).map(|(a, b)| f64::from(b - a));
        steps.sum::<f64>() / count
    };
    let by = [mean(0), mean(1)];
    let steps = a.iter().zip(b).enumerate().map(|(i, (a, b))| f64::from(b - a) - by[i % 2]);
    steps.map(|step| step * step).sum::<f64>() / count
}
